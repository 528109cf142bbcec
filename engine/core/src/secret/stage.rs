//! Where stages point: each to one version, `ACSCurrent` always to one, and `ACSPrevious` to the one that it left.

use super::Secret;
use crate::error::{Error, ErrorKind, Limit, Result};
use crate::id::{SecretVersionId, VersionStage};
use crate::limit;
use crate::time::Timestamp;

pub(super) const CURRENT: &str = "ACSCurrent";
pub(super) const PREVIOUS: &str = "ACSPrevious";
/// Of the version of a rotation under way.
pub(super) const PENDING: &str = "ACSPending";

/// Returns the stages that a new version is to have, in order and each once.
pub(super) fn wanted(mut stages: Vec<VersionStage>) -> Result<Vec<VersionStage>> {
    if stages.is_empty() {
        stages.push(VersionStage::current());
    }
    stages.sort_unstable();
    stages.dedup();
    // Before anything is done for each: there are no more stages of a secret than these.
    let most = limit::SECRET_STAGES + 2;
    if stages.len() > most {
        let why = format!("VersionStages of {} entries exceeds the limit of {most}", stages.len());
        return Err(Error::new(ErrorKind::LimitExceeded(Limit::SecretVersions), why));
    }
    let has = |name: &str| stages.iter().any(|stage| stage.as_str() == name);
    match has(CURRENT) && has(PREVIOUS) {
        false => Ok(stages),
        true => Err(invalid("VersionStages: ACSCurrent and ACSPrevious do not point to one version")),
    }
}

impl Secret {
    /// Has a stage point to a version that is there, and leave the one that it points to.
    pub(super) fn point(&mut self, stage: &VersionStage, to: &SecretVersionId) {
        let left = self.unpoint(stage).filter(|left| left != to);
        if stage.as_str() == CURRENT {
            // What is current is not the one before as well.
            let previous = VersionStage::previous();
            let was_previous = self.at(&previous).is_some_and(|version| version.id == *to);
            if left.is_some() || was_previous {
                self.unpoint(&previous);
            }
            if let Some(left) = left {
                self.label(&previous, &left);
            }
        }
        self.label(stage, to);
    }

    /// Takes a stage away from where it points, and returns that.
    pub(super) fn unpoint(&mut self, stage: &VersionStage) -> Option<SecretVersionId> {
        let holder = self.versions.iter_mut().find(|version| version.stages.contains(stage))?;
        holder.stages.retain(|other| other != stage);
        Some(holder.id.clone())
    }

    fn label(&mut self, stage: &VersionStage, to: &SecretVersionId) {
        if let Some(version) = self.versions.iter_mut().find(|version| version.id == *to) {
            version.stages.push(stage.clone());
            version.stages.sort_unstable();
        }
    }

    /// Checks that there are not too many stages.
    pub(super) fn check_stages(&self) -> Result<()> {
        let stages = self.versions.iter().flat_map(|version| &version.stages);
        let stages = stages.filter(|stage| stage.as_str() != PENDING).count();
        // The two that every secret has are not the caller's.
        if stages <= limit::SECRET_STAGES + 2 {
            return Ok(());
        }
        let why = format!("{stages} stages exceed the limit of {} a secret", limit::SECRET_STAGES);
        Err(Error::new(ErrorKind::LimitExceeded(Limit::SecretVersions), why))
    }

    /// Moves a stage as `UpdateSecretVersionStage` says.
    ///
    /// # Errors
    /// `ResourceNotFound` for a version that is not there, `InvalidParameter` where the stage does not point to what is said to hold it, or
    /// would leave what nobody said, or would make one version current and previous.
    pub fn move_stage(
        &mut self,
        stage: &VersionStage,
        to: Option<&SecretVersionId>,
        from: Option<&SecretVersionId>,
        now: Timestamp,
    ) -> Result<()> {
        self.check_alive()?;
        let is_ours = [CURRENT, PREVIOUS].contains(&stage.as_str());
        if is_ours && self.rotation.as_ref().is_some_and(|rotation| rotation.is_between_two()) {
            let why = "two accounts take turns, and a rotation is under way: it is given up first, by taking ACSPending from its version";
            return Err(Error::new(ErrorKind::StateConflict, why));
        }
        match (to, from) {
            (None, None) => {
                let why = "MoveToVersion or RemoveFromVersion is needed";
                return Err(Error::new(ErrorKind::MissingParameter, why));
            }
            (None, Some(_)) if is_ours => {
                return Err(invalid(
                    "ACSCurrent and ACSPrevious are moved, not removed: MoveToVersion is needed",
                ));
            }
            _ => {}
        }
        match (to, from) {
            (Some(to), _) => self.check_by_hand(stage, to)?,
            (None, Some(from)) if stage.as_str() == PENDING => return self.give_up_rotation(from, now),
            (None, _) => {}
        }
        let absent =
            || Error::new(ErrorKind::ResourceNotFound, "the specified version of the secret is not found");
        for named in to.into_iter().chain(from) {
            self.version(named).ok_or_else(absent)?;
        }
        let holder = self.at(stage).map(|version| version.id.clone());
        if from.is_some() && from != holder.as_ref() {
            return Err(invalid("VersionStage does not point to RemoveFromVersion"));
        }
        match to {
            Some(to) => {
                let leaves = holder.as_ref().is_some_and(|holder| holder != to);
                if leaves && from.is_none() && !is_ours {
                    return Err(invalid(
                        "VersionStage points to another version: RemoveFromVersion names that",
                    ));
                }
                let is_current = self.at(&VersionStage::current()).is_some_and(|version| version.id == *to);
                if stage.as_str() == PREVIOUS && is_current {
                    return Err(invalid("ACSPrevious does not point to the version that is current"));
                }
                if holder.as_ref() == Some(to) {
                    return Ok(());
                }
                self.point(stage, to);
                self.check_stages()?;
            }
            None => drop(self.unpoint(stage)),
        }
        self.updated_at = now;
        Ok(())
    }
}

fn invalid(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidParameter, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{at, new, put, secret};
    use super::*;

    fn moved(secret: &mut Secret, stage: &str, to: Option<&str>, from: Option<&str>) -> Result<()> {
        let id = |text: Option<&str>| text.map(|text| text.parse().unwrap());
        secret.move_stage(&stage.parse().unwrap(), id(to).as_ref(), id(from).as_ref(), Timestamp::from_ms(9))
    }

    fn of(versions: &[&str]) -> Secret {
        let mut secret = secret();
        versions.iter().for_each(|id| drop(put(&mut secret, id, &[]).unwrap()));
        secret
    }

    #[test]
    fn what_was_current_is_the_one_before_also_on_the_way_back() {
        let mut secret = of(&["v1", "v2", "v3"]);
        moved(&mut secret, CURRENT, Some("v1"), None).unwrap();
        assert_eq!((at(&secret, CURRENT), at(&secret, PREVIOUS)), (Some("v1"), Some("v3")));
        moved(&mut secret, CURRENT, Some("v3"), Some("v1")).unwrap();
        assert_eq!((at(&secret, CURRENT), at(&secret, PREVIOUS)), (Some("v3"), Some("v1")));
        moved(&mut secret, PREVIOUS, Some("v2"), None).unwrap();
        assert_eq!((at(&secret, CURRENT), at(&secret, PREVIOUS)), (Some("v3"), Some("v2")));
        // Again: nothing changes.
        moved(&mut secret, CURRENT, Some("v3"), None).unwrap();
        assert_eq!(at(&secret, PREVIOUS), Some("v2"));
    }

    #[test]
    fn a_label_is_put_moved_by_who_names_its_holder_and_removed() {
        let mut secret = of(&["v1", "v2"]);
        moved(&mut secret, "test", Some("v1"), None).unwrap();
        let refused = moved(&mut secret, "test", Some("v2"), None).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidParameter);
        moved(&mut secret, "test", Some("v2"), Some("v1")).unwrap();
        // The second of two writers is told.
        let late = moved(&mut secret, "test", Some("v2"), Some("v1")).unwrap_err();
        assert_eq!((late.kind(), at(&secret, "test")), (ErrorKind::InvalidParameter, Some("v2")));
        moved(&mut secret, "test", None, Some("v2")).unwrap();
        assert_eq!(at(&secret, "test"), None);
    }

    #[test]
    fn what_a_stage_cannot_do_is_refused_and_changes_nothing() {
        let before = of(&["v1", "v2"]);
        for (stage, to, from, kind) in [
            ("test", None, None, ErrorKind::MissingParameter),
            (CURRENT, None, Some("v2"), ErrorKind::InvalidParameter),
            (PREVIOUS, None, Some("v1"), ErrorKind::InvalidParameter),
            (PREVIOUS, Some("v2"), None, ErrorKind::InvalidParameter),
            (CURRENT, Some("v1"), Some("v1"), ErrorKind::InvalidParameter),
            ("test", Some("v9"), None, ErrorKind::ResourceNotFound),
            ("test", None, Some("v9"), ErrorKind::ResourceNotFound),
            ("test", None, Some("v1"), ErrorKind::InvalidParameter),
        ] {
            let mut secret = before.clone();
            assert_eq!(
                moved(&mut secret, stage, to, from).unwrap_err().kind(),
                kind,
                "{stage} {to:?} {from:?}"
            );
            assert_eq!(secret.versions, before.versions);
        }
        let mut many = before;
        for n in 0..limit::SECRET_STAGES {
            moved(&mut many, &format!("s{n}"), Some("v1"), None).unwrap();
        }
        let error = moved(&mut many, "one-more", Some("v1"), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded(Limit::SecretVersions));
    }

    /// Sixty thousand of them would be sorted and searched once for each.
    #[test]
    fn more_stages_than_a_secret_can_have_are_refused_before_any_is_put() {
        let stage = |n: usize| format!("s{n}").parse::<VersionStage>().unwrap();
        let most = limit::SECRET_STAGES + 2;
        assert_eq!(wanted((0..most).chain(0..most).map(stage).collect()).unwrap().len(), most);
        let refused = wanted((0..=most).map(stage).collect()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::LimitExceeded(Limit::SecretVersions));
    }

    #[test]
    fn one_version_is_not_put_as_current_and_previous() {
        let error = secret().put(new("v1", &[CURRENT, PREVIOUS]), Timestamp::from_ms(0)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParameter);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(usize, Vec<usize>),
        Move(usize, Option<usize>, Option<usize>),
    }

    const STAGES: [&str; 4] = [CURRENT, PREVIOUS, "a", "b"];

    fn step() -> impl Strategy<Value = Step> {
        let version = 0usize..16;
        prop_oneof![
            (version.clone(), prop::collection::vec(0usize..4, 0..3))
                .prop_map(|(id, stages)| Step::Put(id, stages)),
            (0usize..4, prop::option::of(version.clone()), prop::option::of(version))
                .prop_map(|(stage, to, from)| Step::Move(stage, to, from)),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_done_one_version_is_current_and_none_that_a_stage_points_to_goes(
            steps in prop::collection::vec(step(), 1..60)
        ) {
            let mut secret = of(&["first"]);
            for step in steps {
                let mut next = secret.clone();
                let name = |n: usize| format!("v{n}");
                let done = match &step {
                    Step::Put(id, stages) => {
                        let stages: Vec<_> = stages.iter().map(|n| STAGES[*n]).collect();
                        put(&mut next, &name(*id), &stages).map(drop)
                    }
                    Step::Move(stage, to, from) => {
                        let (to, from) = (to.map(name), from.map(name));
                        moved(&mut next, STAGES[*stage], to.as_deref(), from.as_deref())
                    }
                };
                // As the actor does: what was refused is not kept.
                if done.is_err() {
                    continue;
                }
                for version in &secret.versions {
                    let stays = next.version(&version.id).is_some();
                    prop_assert!(stays || next.versions.len() == limit::SECRET_VERSIONS, "{step:?}");
                }
                secret = next;
                let holders = |stage: &str| {
                    let has = |v: &&super::super::SecretVersion| v.stages.iter().any(|s| s.as_str() == stage);
                    secret.versions.iter().filter(has).count()
                };
                prop_assert_eq!(holders(CURRENT), 1);
                for stage in &STAGES[1..] {
                    prop_assert!(holders(stage) <= 1);
                }
                prop_assert!(at(&secret, CURRENT) != at(&secret, PREVIOUS));
                prop_assert!(secret.versions.len() <= limit::SECRET_VERSIONS);
                let numbers: Vec<_> = secret.versions.iter().map(|version| version.number).collect();
                prop_assert!(numbers.is_sorted() && numbers.iter().all(|number| *number < secret.next_number));
            }
        }
    }
}
