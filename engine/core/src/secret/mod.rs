//! Secrets: credentials of a customer's, kept in versions. Stages are labels, and each points to one version; `ACSCurrent` points to one at
//! any time, and `ACSPrevious` to the one that it left. What a change makes of a secret is a pure rule.

pub mod extended;
mod generated;
mod interval;
mod password;
mod rotation;
mod stage;

use serde::{Deserialize, Serialize};

pub use generated::Generated;
pub use interval::SecretInterval;
pub use password::{PasswordRules, password};
pub use rotation::{
    BackOff, Due, Left, Pending, Rotation, RotationTold, Step, Trouble, next_rotation, no_rotator,
};

use crate::access::KeyPolicy;
use crate::context::EncryptionContext;
use crate::error::{Error, ErrorKind, Limit, Result};
use crate::id::{AccessKeyId, CmkId, InstanceId, SecretName, SecretVersionId, VersionStage};
use crate::key::Tags;
use crate::limit;
use crate::operation::{SecretDataType, SecretType};
use crate::time::Timestamp;

/// A secret, without its values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Secret {
    /// Its name.
    pub name: SecretName,
    /// What it is of.
    #[serde(default)]
    pub secret_type: SecretType,
    /// How it is rotated, where it has a rotator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Box<Rotation>>,
    /// The CMK that its values are sealed under.
    pub cmk: CmkId,
    /// Free text.
    pub description: String,
    /// Text of the caller's own.
    pub tags: Tags,
    /// Its own policy, where it was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<KeyPolicy>,
    /// The access key that made it.
    pub creator: AccessKeyId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it, or one of its versions, was changed last.
    pub updated_at: Timestamp,
    /// When it ends, where it waits for its deletion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_at: Option<Timestamp>,
    /// The number that its next version gets; none comes twice.
    pub next_number: u32,
    /// Numbers of values that were sealed anew under others, and are still to be removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<u32>,
    /// Its versions, the oldest first.
    pub versions: Vec<SecretVersion>,
}

/// A version of a secret, without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretVersion {
    /// Its name, as the caller chose it.
    pub id: SecretVersionId,
    /// Its number, by which its value is kept.
    pub number: u32,
    /// When it was put.
    pub created_at: Timestamp,
    /// What its value is taken for.
    pub data_type: SecretDataType,
    /// The stages that point to it, in order.
    pub stages: Vec<VersionStage>,
    /// By which its value is known again, and told to nobody.
    pub mark: [u8; 32],
    /// The tag of the record of its value: no other record is taken for it.
    pub tag: [u8; 16],
}

/// A version that is to be put.
#[derive(Clone, Debug)]
pub struct NewVersion {
    /// Its name.
    pub id: SecretVersionId,
    /// What its value is taken for.
    pub data_type: SecretDataType,
    /// The stages that are to point to it; `ACSCurrent` where there are none.
    pub stages: Vec<VersionStage>,
    /// By which its value is known again.
    pub mark: [u8; 32],
}

/// What putting a version comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Put {
    /// The same is there: nothing changes.
    Same,
    /// It is a version of this number; these went for it.
    New {
        /// Its number.
        number: u32,
        /// Numbers of versions that went.
        gone: Vec<u32>,
    },
}

impl Secret {
    /// Returns a version by its name.
    pub fn version(&self, id: &SecretVersionId) -> Option<&SecretVersion> {
        self.versions.iter().find(|version| version.id == *id)
    }

    /// Returns the version that a stage points to.
    pub fn at(&self, stage: &VersionStage) -> Option<&SecretVersion> {
        self.versions.iter().find(|version| version.stages.contains(stage))
    }

    /// Returns the version that is asked for: by its name, by a stage, or by both, which agree then; `ACSCurrent` by neither.
    ///
    /// # Errors
    /// `ResourceNotFound` where there is none, `InvalidParameter` where name and stage do not agree.
    pub fn asked(
        &self,
        id: Option<&SecretVersionId>,
        stage: Option<&VersionStage>,
    ) -> Result<&SecretVersion> {
        let none =
            || Error::new(ErrorKind::ResourceNotFound, "the specified version of the secret is not found");
        match (id, stage) {
            (None, None) => self.at(&VersionStage::current()).ok_or_else(none),
            (None, Some(stage)) => self.at(stage).ok_or_else(none),
            (Some(id), stage) => {
                let version = self.version(id).ok_or_else(none)?;
                match stage.is_none_or(|stage| version.stages.contains(stage)) {
                    true => Ok(version),
                    false => {
                        let why = "VersionStage does not point to the version of VersionId";
                        Err(Error::new(ErrorKind::InvalidParameter, why))
                    }
                }
            }
        }
    }

    /// Checks that it is not about to end.
    ///
    /// # Errors
    /// `ResourceInDeleteWindow` where it is.
    pub fn check_alive(&self) -> Result<()> {
        match self.delete_at {
            None => Ok(()),
            Some(_) => Err(in_delete_window()),
        }
    }

    /// Returns it as it waits for its deletion, or again as it does not.
    ///
    /// # Errors
    /// `ResourceInDeleteWindow` where it waits already, `StateConflict` where there is nothing to bring back.
    pub fn with_deletion(&self, at: Option<Timestamp>) -> Result<Self> {
        match (self.delete_at, at) {
            (Some(_), Some(_)) => Err(in_delete_window()),
            (None, None) => {
                Err(Error::new(ErrorKind::StateConflict, "the secret does not wait for its deletion"))
            }
            _ => Ok(Self { delete_at: at, ..self.clone() }),
        }
    }

    /// Has its values sealed under a CMK from now on, each under a number of its own: whoever has just read which number a version has still
    /// finds its value there. Returns the versions with their new numbers; the old ones are left to be removed.
    ///
    /// # Errors
    /// `ResourceInDeleteWindow` where it waits for its deletion, `Busy` where what was left before is not removed yet.
    pub fn reseal(&mut self, cmk: CmkId, now: Timestamp) -> Result<Vec<(SecretVersionId, u32)>> {
        self.check_alive()?;
        if self.left.len() + self.versions.len() > limit::SECRET_VALUES_LEFT {
            let why =
                "the secret was sealed anew a few times just now, and what that left is not removed yet";
            return Err(Error::new(ErrorKind::Busy, why));
        }
        self.cmk = cmk;
        self.updated_at = now;
        let mut numbered = Vec::with_capacity(self.versions.len());
        for version in &mut self.versions {
            self.left.push(std::mem::replace(&mut version.number, self.next_number));
            numbered.push((version.id.clone(), self.next_number));
            self.next_number += 1;
        }
        Ok(numbered)
    }

    /// Puts a version as a caller asks for it. Beyond ten the oldest one goes to which no stage points.
    ///
    /// # Errors
    /// `ResourceExists` for a name that another version has, `LimitExceeded` where stages point to all the others, or there would be too
    /// many; `InvalidParameter` for stages that exclude each other, or are of rotations.
    pub fn put(&mut self, new: NewVersion, now: Timestamp) -> Result<Put> {
        for stage in &new.stages {
            self.check_by_hand(stage, &new.id)?;
        }
        self.keep(new, now)
    }

    fn keep(&mut self, new: NewVersion, now: Timestamp) -> Result<Put> {
        self.check_alive()?;
        let NewVersion { id, data_type, stages, mark } = new;
        let stages = stage::wanted(stages)?;
        if let Some(there) = self.version(&id) {
            let is_same = there.mark == mark && there.data_type == data_type && there.stages == stages;
            return match is_same {
                true => Ok(Put::Same),
                false => Err(Error::new(
                    ErrorKind::ResourceExists,
                    "the secret has another version of this VersionId",
                )),
            };
        }
        let number = self.next_number;
        let stages_of_new = stages.clone();
        self.versions.push(SecretVersion {
            id: id.clone(),
            number,
            created_at: now,
            data_type,
            stages: Vec::new(),
            mark,
            tag: [0; 16],
        });
        for stage in &stages_of_new {
            self.point(stage, &id);
        }
        self.check_stages()?;
        self.next_number += 1;
        self.updated_at = now;
        let mut gone = Vec::new();
        while self.versions.len() > limit::SECRET_VERSIONS {
            let oldest =
                self.versions.iter().position(|version| version.stages.is_empty() && version.id != id);
            let Some(at) = oldest else {
                let why = format!(
                    "the secret has its limit of {} versions, and a stage points to each",
                    limit::SECRET_VERSIONS
                );
                return Err(Error::new(ErrorKind::LimitExceeded(Limit::SecretVersions), why));
            };
            gone.push(self.versions.remove(at).number);
        }
        Ok(Put::New { number, gone })
    }
}

impl VersionStage {
    /// Returns `ACSCurrent`.
    pub fn current() -> Self {
        stage::CURRENT.parse().expect("it is a stage")
    }

    /// Returns `ACSPrevious`.
    pub fn previous() -> Self {
        stage::PREVIOUS.parse().expect("it is a stage")
    }
}

fn in_delete_window() -> Error {
    Error::new(ErrorKind::ResourceInDeleteWindow, "the secret waits for its deletion")
}

/// Returns the encryption context of a version: its sealed value opens as nothing else.
pub fn context_of_secret(
    instance: &InstanceId,
    name: &SecretName,
    version: &SecretVersionId,
) -> EncryptionContext {
    let pairs = [
        ("keymill:instance", instance.as_str()),
        ("keymill:secret", name.as_str()),
        ("keymill:version", version.as_str()),
    ];
    EncryptionContext::from_pairs(pairs).expect("three pairs of a bounded length")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn secret() -> Secret {
        Secret {
            name: "orders".parse().unwrap(),
            secret_type: SecretType::Generic,
            rotation: None,
            cmk: CmkId::from_bytes([1; 16]),
            description: String::new(),
            tags: Tags::new(),
            policy: None,
            creator: "KMAK00000001".parse().unwrap(),
            created_at: Timestamp::from_ms(0),
            updated_at: Timestamp::from_ms(0),
            delete_at: None,
            next_number: 1,
            left: Vec::new(),
            versions: Vec::new(),
        }
    }

    pub(crate) fn new(id: &str, stages: &[&str]) -> NewVersion {
        NewVersion {
            id: id.parse().unwrap(),
            data_type: SecretDataType::Text,
            stages: stages.iter().map(|stage| stage.parse().unwrap()).collect(),
            mark: [id.len() as u8; 32],
        }
    }

    pub(crate) fn put(secret: &mut Secret, id: &str, stages: &[&str]) -> Result<Put> {
        secret.put(new(id, stages), Timestamp::from_ms(7))
    }

    pub(crate) fn at<'s>(secret: &'s Secret, stage: &str) -> Option<&'s str> {
        secret.at(&stage.parse().unwrap()).map(|version| version.id.as_str())
    }

    #[test]
    fn a_put_moves_current_and_previous_and_one_of_named_stages_moves_those_alone() {
        let mut secret = secret();
        assert_eq!(put(&mut secret, "v1", &[]).unwrap(), Put::New { number: 1, gone: Vec::new() });
        assert_eq!((at(&secret, "ACSCurrent"), at(&secret, "ACSPrevious")), (Some("v1"), None));
        put(&mut secret, "v2", &[]).unwrap();
        assert_eq!((at(&secret, "ACSCurrent"), at(&secret, "ACSPrevious")), (Some("v2"), Some("v1")));
        put(&mut secret, "v3", &["test"]).unwrap();
        assert_eq!((at(&secret, "ACSCurrent"), at(&secret, "test")), (Some("v2"), Some("v3")));
        put(&mut secret, "v4", &["test", "ACSCurrent"]).unwrap();
        assert_eq!((at(&secret, "ACSCurrent"), at(&secret, "ACSPrevious")), (Some("v4"), Some("v2")));
        assert_eq!(at(&secret, "test"), Some("v4"));
        assert_eq!(secret.updated_at, Timestamp::from_ms(7));
    }

    #[test]
    fn the_same_version_once_more_changes_nothing_and_another_of_its_name_is_refused() {
        let mut secret = secret();
        put(&mut secret, "v1", &[]).unwrap();
        assert_eq!(put(&mut secret, "v1", &["ACSCurrent"]).unwrap(), Put::Same);
        let other = NewVersion { mark: [9; 32], ..new("v1", &[]) };
        for odd in
            [other, new("v1", &["test"]), NewVersion { data_type: SecretDataType::Binary, ..new("v1", &[]) }]
        {
            let error = secret.put(odd, Timestamp::from_ms(8)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ResourceExists);
        }
        assert_eq!((secret.versions.len(), secret.updated_at), (1, Timestamp::from_ms(7)));
    }

    #[test]
    fn beyond_ten_the_oldest_goes_that_no_stage_points_to() {
        let mut secret = secret();
        put(&mut secret, "kept", &["ACSCurrent", "kept"]).unwrap();
        for n in 2..=10 {
            put(&mut secret, &format!("v{n}"), &[]).unwrap();
        }
        assert_eq!(put(&mut secret, "v11", &[]).unwrap(), Put::New { number: 11, gone: vec![2] });
        assert_eq!(secret.versions.len(), 10);
        assert!(secret.version(&"kept".parse().unwrap()).is_some());
        let mut full = super::tests::secret();
        for n in 1..=10 {
            put(&mut full, &format!("v{n}"), &[&format!("s{n}")]).unwrap();
        }
        let error = put(&mut full, "v11", &["s11"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded(Limit::SecretVersions));
    }

    #[test]
    fn a_version_is_asked_for_by_name_or_stage_and_both_agree() {
        let mut secret = secret();
        put(&mut secret, "v1", &[]).unwrap();
        put(&mut secret, "v2", &[]).unwrap();
        let (v1, v3) = ("v1".parse().unwrap(), "v3".parse().unwrap());
        let (current, previous) = (VersionStage::current(), VersionStage::previous());
        let asked =
            |id, stage| secret.asked(id, stage).map(|version| version.id.as_str()).map_err(|e| e.kind());
        assert_eq!(asked(None, None), Ok("v2"));
        assert_eq!((asked(Some(&v1), None), asked(None, Some(&previous))), (Ok("v1"), Ok("v1")));
        assert_eq!(asked(Some(&v1), Some(&previous)), Ok("v1"));
        assert_eq!(asked(Some(&v1), Some(&current)), Err(ErrorKind::InvalidParameter));
        assert_eq!(asked(Some(&v3), None), Err(ErrorKind::ResourceNotFound));
        assert_eq!(asked(None, Some(&"test".parse().unwrap())), Err(ErrorKind::ResourceNotFound));
    }

    #[test]
    fn what_is_sealed_anew_has_other_numbers_and_leaves_the_old_ones_a_few_times() {
        let mut secret = secret();
        put(&mut secret, "v1", &[]).unwrap();
        put(&mut secret, "v2", &[]).unwrap();
        let before = secret.versions.clone();
        let other = CmkId::from_bytes([2; 16]);
        let numbers = |secret: &mut Secret| {
            secret
                .reseal(other, Timestamp::from_ms(9))
                .map(|all| all.into_iter().map(|(_, n)| n).collect::<Vec<_>>())
        };
        assert_eq!(numbers(&mut secret).unwrap(), [3, 4]);
        assert_eq!((secret.cmk, &secret.left[..], secret.next_number), (other, &[1, 2][..], 5));
        for (old, new) in before.iter().zip(&secret.versions) {
            assert_eq!((&old.id, &old.stages, old.mark), (&new.id, &new.stages, new.mark));
        }
        let mut times = 1;
        while numbers(&mut secret).is_ok() {
            times += 1;
        }
        assert_eq!((times, secret.left.len()), (limit::SECRET_VALUES_LEFT / 2, limit::SECRET_VALUES_LEFT));
        assert_eq!(numbers(&mut secret).unwrap_err().kind(), ErrorKind::Busy);
        secret.left.clear();
        let mut ending = secret.with_deletion(Some(Timestamp::from_ms(9))).unwrap();
        assert_eq!(numbers(&mut ending).unwrap_err().kind(), ErrorKind::ResourceInDeleteWindow);
    }

    #[test]
    fn what_waits_for_its_deletion_takes_nothing_and_comes_back() {
        let mut secret = secret();
        put(&mut secret, "v1", &[]).unwrap();
        let at = Timestamp::from_ms(9);
        assert_eq!(secret.with_deletion(None).unwrap_err().kind(), ErrorKind::StateConflict);
        let mut ending = secret.with_deletion(Some(at)).unwrap();
        assert_eq!(put(&mut ending, "v2", &[]).unwrap_err().kind(), ErrorKind::ResourceInDeleteWindow);
        assert_eq!(ending.with_deletion(Some(at)).unwrap_err().kind(), ErrorKind::ResourceInDeleteWindow);
        assert_eq!(ending.with_deletion(None).unwrap().versions, secret.versions);
    }

    #[test]
    fn a_value_of_one_version_opens_as_no_other() {
        let context = |instance: &str, name: &str, version: &str| {
            let (instance, name) = (instance.parse().unwrap(), name.parse().unwrap());
            context_of_secret(&instance, &name, &version.parse().unwrap())
        };
        let one = context("shop", "a/b", "c");
        for other in [context("shop", "a", "b/c"), context("shop", "a/b", "d"), context("bank", "a/b", "c")] {
            assert_ne!(one, other);
        }
    }
}
