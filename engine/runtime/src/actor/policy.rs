//! The policy actor: owns access keys and what they grant, and publishes the snapshot that every decision reads.

use std::collections::HashMap;
use std::sync::Arc;

use actix::{Actor, Context, Handler, Message};
use keymill_core::Sensitive;
use keymill_core::access::{AccessKey, AccessKeyStatus, AccessSnapshot, Grant};
use keymill_core::audit::RecordStamp;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AccessKeyId, NameMap};
use keymill_core::seam::store::Write;
use keymill_crypto::{digest, random};

use super::signed::{Claims, Signed};
use super::{Changed, MAILBOX};
use crate::keyring::Stamp;
use crate::nonces::Claim;
use crate::records::{self, Kind};
use crate::shared::Shared;

/// Owns access keys.
pub struct PolicyActor {
    shared: Arc<Shared>,
    stamps: HashMap<AccessKeyId, Stamp>,
    ended: HashMap<AccessKeyId, u64>,
    /// What the signed request claims whose message is handled.
    claim: Option<Arc<Claim>>,
}

/// Keeps an access key that was made.
pub(crate) struct AddAccessKey(pub(crate) AccessKey);

/// Changes an access key.
pub(crate) struct ChangeAccessKey {
    pub(crate) id: AccessKeyId,
    pub(crate) status: Option<AccessKeyStatus>,
    pub(crate) grants: Option<Vec<Grant>>,
    pub(crate) description: Option<String>,
}

/// Removes an access key.
pub(crate) struct RemoveAccessKey {
    pub(crate) id: AccessKeyId,
}

impl Message for AddAccessKey {
    type Result = Result<Changed<()>>;
}

impl Message for ChangeAccessKey {
    type Result = Result<Changed<()>>;
}

impl Message for RemoveAccessKey {
    type Result = Result<Changed<()>>;
}

/// Letters and digits that people do not mistake for each other.
const ALPHABET: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// Makes an access key with a fresh id (100 random bits) and secret (240 random bits).
pub(crate) fn fresh_access_key(
    description: String,
    grants: Vec<Grant>,
    now: keymill_core::Timestamp,
) -> Result<AccessKey> {
    let text = |n: usize| -> Result<Sensitive> {
        let mut bytes = Sensitive::zeroed(n);
        random::draw(bytes.expose_mut())?;
        for byte in bytes.expose_mut() {
            *byte = ALPHABET[usize::from(*byte) % ALPHABET.len()];
        }
        Ok(bytes)
    };
    let id = format!("KMAK{}", String::from_utf8_lossy(text(20)?.expose()));
    Ok(AccessKey {
        id: id.parse()?,
        secret: text(48)?,
        description,
        status: AccessKeyStatus::Active,
        grants,
        created_at: now,
    })
}

impl PolicyActor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        stamps: HashMap<AccessKeyId, Stamp>,
        ended: HashMap<AccessKeyId, u64>,
    ) -> Self {
        Self { shared, stamps, ended, claim: None }
    }

    fn find(&self, id: &AccessKeyId) -> Result<Arc<AccessKey>> {
        let access = self.shared.access.read();
        access
            .access_keys
            .get(id)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::ResourceNotFound, "the specified access key is not found"))
    }

    fn put(&mut self, key: AccessKey) -> Result<Vec<RecordStamp>> {
        let path = records::access_key_path(&key.id);
        let before = self.stamps.get(&key.id).copied();
        let sequence =
            before.map_or_else(|| self.ended.get(&key.id).copied().unwrap_or(0), |stamp| stamp.sequence) + 1;
        let sealed = records::seal(&self.shared.sealer, &path, Kind::AccessKey, sequence, &key)?;
        let stamp = RecordStamp { path: path.to_string(), sequence, tag: digest::hex(&sealed.tag) };
        let write = Write { path, expected: before.map(|stamp| stamp.revision), value: Some(sealed.bytes) };
        let revision = self.shared.commit(self.claim.as_deref(), vec![write])?;
        self.stamps.insert(key.id.clone(), Stamp { revision, sequence });
        self.publish(|keys| {
            keys.insert(key.id.clone(), Arc::new(key));
        });
        Ok(vec![stamp])
    }

    fn publish(&self, change: impl FnOnce(&mut NameMap<AccessKeyId, Arc<AccessKey>>)) {
        let mut access_keys = self.shared.access.read().access_keys.clone();
        change(&mut access_keys);
        self.shared.access.publish(AccessSnapshot { access_keys });
        self.shared.access_version.fetch_add(1, std::sync::atomic::Ordering::Release);
    }

    /// Checks that someone who can log in as `Root` is left.
    fn check_not_last_root(&self, id: &AccessKeyId) -> Result<()> {
        use keymill_core::access::{Effect, Role};
        let access = self.shared.access.read();
        let is_root = |key: &AccessKey| {
            key.status == AccessKeyStatus::Active
                && key.grants.iter().any(|g| g.role == Role::Root && g.effect == Effect::Allow)
        };
        let was = access.access_keys.get(id).is_some_and(|key| is_root(key));
        if was && !access.access_keys.values().any(|key| key.id != *id && is_root(key)) {
            return Err(Error::new(
                ErrorKind::StateConflict,
                "this is the last active access key with Root; make another first",
            ));
        }
        Ok(())
    }
}

impl Actor for PolicyActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Handler<AddAccessKey> for PolicyActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, AddAccessKey(key): AddAccessKey, _: &mut Self::Context) -> Self::Result {
        let writes = self.put(key)?;
        Ok(Changed { value: (), keys: Vec::new(), writes })
    }
}

impl Handler<ChangeAccessKey> for PolicyActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, message: ChangeAccessKey, _: &mut Self::Context) -> Self::Result {
        let before = self.find(&message.id)?;
        if message.status == Some(AccessKeyStatus::Inactive) || message.grants.is_some() {
            self.check_not_last_root(&message.id)?;
        }
        let key = AccessKey {
            id: before.id.clone(),
            secret: Sensitive::copied(before.secret.expose()),
            description: message.description.unwrap_or_else(|| before.description.clone()),
            status: message.status.unwrap_or(before.status),
            grants: message.grants.unwrap_or_else(|| before.grants.clone()),
            created_at: before.created_at,
        };
        let writes = self.put(key)?;
        Ok(Changed { value: (), keys: Vec::new(), writes })
    }
}

impl Handler<RemoveAccessKey> for PolicyActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, message: RemoveAccessKey, _: &mut Self::Context) -> Self::Result {
        self.find(&message.id)?;
        self.check_not_last_root(&message.id)?;
        let path = records::access_key_path(&message.id);
        let before = self.stamps.get(&message.id).copied().ok_or_else(|| {
            Error::new(ErrorKind::ResourceNotFound, "the specified access key is not found")
        })?;
        let stamp = RecordStamp { path: path.to_string(), sequence: before.sequence + 1, tag: String::new() };
        let write = Write { path, expected: Some(before.revision), value: None };
        self.shared.commit(self.claim.as_deref(), vec![write])?;
        self.stamps.remove(&message.id);
        self.ended.insert(message.id.clone(), stamp.sequence);
        self.publish(|keys| {
            keys.remove(&message.id);
        });
        Ok(Changed { value: (), keys: Vec::new(), writes: vec![stamp] })
    }
}

impl Claims for PolicyActor {
    fn claim(&mut self) -> &mut Option<Arc<Claim>> {
        &mut self.claim
    }
}

impl<T: 'static> Handler<Signed<Self, T>> for PolicyActor {
    type Result = Result<T>;

    fn handle(&mut self, signed: Signed<Self, T>, ctx: &mut Self::Context) -> Self::Result {
        signed.handle(self, ctx)
    }
}
