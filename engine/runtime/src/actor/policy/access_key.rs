//! Access keys: made, changed, removed; someone who can log in as `Root` is always left.

use std::sync::Arc;

use actix::{Handler, Message};
use keymill_core::Sensitive;
use keymill_core::access::{AccessKey, AccessKeyStatus, Grant};
use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::id::AccessKeyId;
use keymill_crypto::random;

use super::PolicyActor;
use crate::actor::Changed;
use crate::records::{self, Kind};

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
    fn find(&self, id: &AccessKeyId) -> Result<Arc<AccessKey>> {
        let access = self.shared.access.read();
        access
            .access_keys
            .get(id)
            .cloned()
            .ok_or_else(|| Error::new(ErrorKind::ResourceNotFound, "the specified access key is not found"))
    }

    fn put_access_key(&mut self, key: AccessKey) -> Result<Changed<()>> {
        self.shared.access.read().check_roles(key.grants.iter().map(|grant| &grant.role), "Grants")?;
        let pending = self.ledger.put(records::access_key_path(&key.id), Kind::AccessKey, &key)?;
        self.commit(vec![pending], |access| {
            access.access_keys.insert(key.id.clone(), Arc::new(key));
        })
    }

    /// Checks that someone who can log in as `Root` is left.
    fn check_not_last_root(&self, id: &AccessKeyId) -> Result<()> {
        let access = self.shared.access.read();
        let is_root = |key: &AccessKey| key.status == AccessKeyStatus::Active && key.is_root();
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

impl Handler<AddAccessKey> for PolicyActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, AddAccessKey(key): AddAccessKey, _: &mut Self::Context) -> Self::Result {
        self.shared.check_room(Limit::AccessRecords)?;
        self.put_access_key(key)
    }
}

impl Handler<ChangeAccessKey> for PolicyActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, message: ChangeAccessKey, _: &mut Self::Context) -> Self::Result {
        let before = self.find(&message.id)?;
        if message.status == Some(AccessKeyStatus::Inactive) || message.grants.is_some() {
            self.check_not_last_root(&message.id)?;
        }
        self.put_access_key(AccessKey {
            id: before.id.clone(),
            secret: Sensitive::copied(before.secret.expose()),
            description: message.description.unwrap_or_else(|| before.description.clone()),
            status: message.status.unwrap_or(before.status),
            grants: message.grants.unwrap_or_else(|| before.grants.clone()),
            created_at: before.created_at,
        })
    }
}

impl Handler<RemoveAccessKey> for PolicyActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, message: RemoveAccessKey, _: &mut Self::Context) -> Self::Result {
        self.find(&message.id)?;
        self.check_not_last_root(&message.id)?;
        let pending = self.ledger.remove(records::access_key_path(&message.id))?;
        self.commit(vec![pending], |access| {
            access.access_keys.remove(&message.id);
        })
    }
}
