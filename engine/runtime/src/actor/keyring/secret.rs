//! Secrets: what they are is kept under one record, and the value of each version under one of its own, sealed under the CMK of the secret
//! before it comes here. Each change is decided by a pure rule, committed, and then published; what comes second is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Context, Handler, Message};
use keymill_core::access::KeyPolicy;
use keymill_core::audit::{RecordStamp, SecretTouch};
use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::id::{AccessKeyId, CmkId, SecretName, SecretVersionId, VersionStage};
use keymill_core::key::{Tags, check_tags};
use keymill_core::operation::{Bin, SecretType};
use keymill_core::secret::{NewVersion, Put, Rotation, Secret, SecretInterval, extended, no_rotator};
use keymill_core::time::Timestamp;

use super::timers::AT_A_TIME;
use super::{CreateCmk, Draft, KeyringActor, Owner, touched};
use crate::actor::Changed;
use crate::audit::TimerTouch;
use crate::keyring::Stamp;
use crate::records::{self, Kind, SecretValueRecord};
use crate::secrets::SecretEntry;

/// What a new secret is, beside its first version.
#[derive(Clone)]
pub(crate) struct NewSecret {
    pub(crate) secret_type: SecretType,
    pub(crate) rotation: Option<Rotation>,
    pub(crate) description: String,
    pub(crate) tags: Tags,
    pub(crate) policy: Option<KeyPolicy>,
    pub(crate) creator: AccessKeyId,
}

/// Keeps versions whose values were sealed, one after the other; the first ones, with the secret, where that is `create`d.
pub(crate) struct PutSecret {
    pub(crate) name: SecretName,
    pub(crate) create: Option<NewSecret>,
    /// What the values are sealed under.
    pub(crate) cmk: CmkId,
    pub(crate) versions: Vec<(NewVersion, Vec<u8>)>,
}

/// A version as the rule has put it, and its sealed value.
pub(super) struct Sealed {
    pub(super) id: SecretVersionId,
    pub(super) blob: Vec<u8>,
    pub(super) put: Put,
}

/// Changes a secret, or what its stages point to.
pub(crate) struct ChangeSecret {
    pub(crate) name: SecretName,
    pub(crate) change: SecretChange,
}

/// What is changed.
pub(crate) enum SecretChange {
    /// What is said of it, and to its rotator.
    Describe { description: Option<String>, custom: Option<BTreeMap<String, String>> },
    /// How often it is rotated by itself, if it is; `draw`, at random, spreads its times.
    Schedule { interval: Option<SecretInterval>, draw: u32 },
    /// Puts tags on it; those of the same name are replaced.
    Tag(Vec<(String, String)>),
    /// Takes tags off.
    Untag(Vec<String>),
    /// Gives it another policy, also while it waits for its deletion: rights can always be taken away.
    Policy(KeyPolicy),
    /// Where a stage points.
    MoveStage { stage: VersionStage, to: Option<SecretVersionId>, from: Option<SecretVersionId> },
    /// Has it wait for its deletion for so many days.
    Delete(u32),
    /// Brings it back.
    Restore,
}

/// Ends a secret with all its versions.
pub(crate) struct EndSecret {
    pub(crate) name: SecretName,
}

/// Makes the CMK of secrets that name none, unless there is one by now.
pub(crate) struct MakeSecretCmk(pub(crate) CreateCmk);

impl Message for PutSecret {
    type Result = Result<Changed<Arc<SecretEntry>>>;
}

impl Message for ChangeSecret {
    type Result = Result<Changed<Arc<SecretEntry>>>;
}

impl Message for EndSecret {
    type Result = Result<Changed<()>>;
}

impl Message for MakeSecretCmk {
    type Result = Result<CmkId>;
}

impl SecretChange {
    fn gives_up_rotation(&self) -> bool {
        matches!(self, Self::MoveStage { stage, to: None, .. } if *stage == VersionStage::pending())
    }

    /// Returns what becomes of a secret.
    ///
    /// # Errors
    /// `ResourceInDeleteWindow` where it waits for its deletion, and those of what is changed.
    fn apply(self, mut secret: Secret, now: Timestamp) -> Result<Secret> {
        match self {
            SecretChange::Delete(days) => {
                let window = Duration::from_secs(u64::from(days) * 86_400);
                return secret.with_deletion(Some(now.plus(window)));
            }
            SecretChange::Restore => return secret.with_deletion(None),
            SecretChange::Policy(_) => {}
            _ => secret.check_alive()?,
        }
        match self {
            SecretChange::Policy(policy) => secret.policy = Some(policy),
            SecretChange::Describe { description, custom } => {
                secret.description = description.unwrap_or(secret.description);
                if let (Some(custom), Some(rotation)) = (custom, &mut secret.rotation) {
                    rotation.settings.custom = custom;
                    extended::check(secret.secret_type, &rotation.rotator, &rotation.settings)?;
                }
            }
            SecretChange::Schedule { interval, draw } => {
                let made = secret.asked(None, None).map_or(now, |version| version.created_at);
                let rotation = secret.rotation.as_mut().ok_or_else(no_rotator)?;
                let last = rotation.last_at.unwrap_or(made);
                rotation.schedule(interval, last, now, draw);
            }
            SecretChange::Tag(tags) => {
                secret.tags.extend(tags);
                check_tags(&secret.tags)?;
            }
            SecretChange::Untag(names) => names.iter().for_each(|name| drop(secret.tags.remove(name))),
            SecretChange::MoveStage { stage, to, from } => {
                secret.move_stage(&stage, to.as_ref(), from.as_ref(), now)?;
                return Ok(secret);
            }
            SecretChange::Delete(_) | SecretChange::Restore => {}
        }
        secret.updated_at = now;
        Ok(secret)
    }
}

impl KeyringActor {
    pub(super) fn secret(&self, name: &SecretName) -> Result<Arc<SecretEntry>> {
        self.shared.keyring.secrets.find(name)
    }

    /// Returns the secret that a version is put to: the one that is there, or a new one.
    fn receiving(
        &self,
        name: &SecretName,
        cmk: CmkId,
        create: Option<NewSecret>,
        now: Timestamp,
    ) -> Result<Secret> {
        let before = self.shared.keyring.secrets.secret(name);
        match (before, create) {
            (Some(before), Some(_)) => {
                before.secret.check_alive()?;
                Err(Error::new(ErrorKind::ResourceExists, "the name of the secret is taken"))
            }
            (Some(before), None) if before.secret.cmk == cmk => Ok(before.secret.clone()),
            // It was ended and made anew while the value was sealed.
            (Some(_), None) => Err(Error::new(ErrorKind::Conflict, "the secret was changed meanwhile")),
            (None, None) => self.shared.keyring.secrets.find(name).map(|entry| entry.secret.clone()),
            (None, Some(NewSecret { secret_type, rotation, description, tags, policy, creator })) => {
                self.shared.check_room(Limit::Secrets)?;
                Ok(Secret {
                    name: name.clone(),
                    secret_type,
                    rotation: rotation.map(Box::new),
                    cmk,
                    description,
                    tags,
                    policy,
                    creator,
                    created_at: now,
                    updated_at: now,
                    delete_at: None,
                    next_number: 1,
                    left: Vec::new(),
                    versions: Vec::new(),
                })
            }
        }
    }

    /// Ends a secret: with it go the values of all its versions.
    fn end_secret(&mut self, entry: &SecretEntry) -> Result<Changed<()>> {
        let secret = &entry.secret;
        let path = records::secret_path(&secret.name);
        let mut drafts =
            vec![Draft::removal_named(&self.shared, path, entry.stamp, Some(secret.name.as_str()))?];
        let numbers = secret.versions.iter().map(|version| version.number);
        for number in numbers.chain(secret.left.iter().copied()) {
            drafts.extend(self.removal_of(records::secret_value_path(&secret.name, number))?);
        }
        let (_, writes) = self.commit(drafts)?;
        self.shared.keyring.secrets.remove(&secret.name);
        Ok(Changed { value: (), keys: Vec::new(), writes })
    }

    /// Ends secrets whose time has come, for a while; returns how many, and whether there are more.
    pub(super) fn end_secrets_due(&mut self, now: Timestamp) -> Result<(usize, bool)> {
        let (began, mut ended) = (Instant::now(), 0);
        for entry in self.shared.keyring.secrets.due(now) {
            // Others have their turn.
            if began.elapsed() > AT_A_TIME {
                return Ok((ended, true));
            }
            ended += 1;
            let writes = self.end_secret(&entry)?.writes;
            let name = entry.secret.name.clone();
            tracing::warn!(secret = %name, "the secret was deleted: its window is over");
            let touch = TimerTouch::Secret(SecretTouch { name, version: None });
            self.record_touch("DeleteSecret", "deletion window over", touch, writes)?;
        }
        Ok((ended, false))
    }
}

impl KeyringActor {
    /// Commits a secret with versions that were put, each with its value, and publishes it.
    pub(super) fn keep_versions(
        &mut self,
        before: Option<Stamp>,
        mut secret: Secret,
        sealed: Vec<Sealed>,
    ) -> Result<(Arc<SecretEntry>, Vec<RecordStamp>)> {
        let name = secret.name.clone();
        let mut drafts = Vec::new();
        for Sealed { id, blob, put } in sealed {
            let Put::New { number, gone } = put else { continue };
            let path = records::secret_value_path(&name, number);
            let record = SecretValueRecord { name: name.clone(), version: id.clone(), blob: Bin::from(blob) };
            let value = self.draft(path.clone(), Kind::SecretValue, self.standing(&path)?, &record)?;
            let tag = value.tag();
            let put = secret.versions.iter_mut().find(|version| version.id == id);
            let (Some(put), Some(tag)) = (put, tag) else {
                return Err(Error::internal("a version that was put is not there"));
            };
            put.tag = tag;
            drafts.push(value);
            for number in gone {
                drafts.extend(self.removal_of(records::secret_value_path(&name, number))?);
            }
        }
        // What is to be published with its tags is drafted last, and stands first.
        drafts.insert(0, self.draft(records::secret_path(&name), Kind::Secret, before, &secret)?);
        let (revision, writes) = self.commit(drafts)?;
        let stamp = Stamp { revision, sequence: writes[0].sequence };
        Ok((self.shared.keyring.secrets.put(SecretEntry { secret, stamp }), writes))
    }
}

impl Handler<PutSecret> for KeyringActor {
    type Result = Result<Changed<Arc<SecretEntry>>>;

    fn handle(&mut self, message: PutSecret, _: &mut Context<Self>) -> Self::Result {
        let PutSecret { name, create, cmk, versions } = message;
        let of = self.entry(&cmk)?;
        // Once more: it may have been disabled, or be waiting for its deletion, since the value was sealed.
        of.cmk.state.check_usable()?;
        let now = self.shared.clock.now();
        let mut secret = self.receiving(&name, cmk, create, now)?;
        let before = self.shared.keyring.secrets.secret(&name);
        let mut sealed = Vec::with_capacity(versions.len());
        for (version, blob) in versions {
            let id = version.id.clone();
            sealed.push(Sealed { id, blob, put: secret.put(version, now)? });
        }
        if sealed.iter().all(|sealed| sealed.put == Put::Same) {
            let before = before.ok_or_else(|| Error::internal("a new secret has a version already"))?;
            self.confirm(records::secret_path(&name), before.stamp)?;
            return Ok(Changed { value: before, keys: touched(&of), writes: Vec::new() });
        }
        let (value, writes) = self.keep_versions(before.map(|entry| entry.stamp), secret, sealed)?;
        Ok(Changed { value, keys: touched(&of), writes })
    }
}

impl Handler<ChangeSecret> for KeyringActor {
    type Result = Result<Changed<Arc<SecretEntry>>>;

    fn handle(&mut self, ChangeSecret { name, change }: ChangeSecret, _: &mut Context<Self>) -> Self::Result {
        let before = self.secret(&name)?;
        if change.gives_up_rotation() {
            self.check_no_step(&name)?;
        }
        let secret = change.apply(before.secret.clone(), self.shared.clock.now())?;
        let path = records::secret_path(&name);
        let draft = self.draft(path, Kind::Secret, Some(before.stamp), &secret)?;
        let (revision, writes) = self.commit(vec![draft])?;
        let stamp = Stamp { revision, sequence: writes[0].sequence };
        let value = self.shared.keyring.secrets.put(SecretEntry { secret, stamp });
        Ok(Changed { value, keys: Vec::new(), writes })
    }
}

impl Handler<EndSecret> for KeyringActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, EndSecret { name }: EndSecret, _: &mut Context<Self>) -> Self::Result {
        let entry = self.secret(&name)?;
        self.end_secret(&entry)
    }
}

impl Handler<MakeSecretCmk> for KeyringActor {
    type Result = Result<CmkId>;

    fn handle(&mut self, MakeSecretCmk(create): MakeSecretCmk, _: &mut Context<Self>) -> Self::Result {
        if self.shared.cluster.is_some() {
            // Another node may have made it just now.
            self.refresh(records::installation_path().as_str())?;
            if let Some(id) = self.shared.keyring.secrets.cmk() {
                self.refresh(records::cmk_path(&id).as_str())?;
            }
        }
        let there = self.shared.keyring.secrets.cmk().and_then(|id| self.shared.keyring.cmk(&id));
        match there {
            // Somebody else's came first; what was made for this one is kept nowhere.
            Some(entry) => Ok(entry.cmk.id),
            None => {
                let Changed { value: entry, writes, .. } = self.create(create, Owner::Secrets)?;
                self.record("CreateKey", "secrets are sealed under it", &entry, writes)?;
                Ok(entry.cmk.id)
            }
        }
    }
}
