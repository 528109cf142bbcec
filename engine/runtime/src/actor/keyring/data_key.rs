//! Managed data keys: kept under the record of their name, encrypted; each change is committed and then published.

use actix::{Context, Handler, Message};
use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::id::{CmkId, DataKeyName, DataKeyVersionId};
use keymill_core::key::{DataKeyVersion, ManagedDataKey};

use super::{Draft, KeyringActor, touched};
use crate::actor::Changed;
use crate::keyring::{DataKeyEntry, Stamp};
use crate::records::{self, Kind};

/// Keeps a new version of a managed data key; its first one where it is `created`.
pub(crate) struct PutDataKey {
    pub(crate) name: DataKeyName,
    pub(crate) cmk: CmkId,
    pub(crate) bytes: usize,
    pub(crate) version: DataKeyVersionId,
    pub(crate) blob: Vec<u8>,
    pub(crate) create: bool,
}

/// Ends a managed data key.
pub(crate) struct RemoveDataKey {
    pub(crate) name: DataKeyName,
}

impl Message for PutDataKey {
    type Result = Result<Changed<()>>;
}

impl Message for RemoveDataKey {
    type Result = Result<Changed<()>>;
}

/// The one error of a managed data key that is not there, or not for the caller.
pub(crate) fn data_key_not_found() -> Error {
    Error::new(ErrorKind::ResourceNotFound, "the specified data key is not found")
}

/// The error of a name that another managed data key has.
pub(crate) fn data_key_exists() -> Error {
    Error::new(ErrorKind::ResourceExists, "the name of the data key is taken")
}

impl Handler<PutDataKey> for KeyringActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, message: PutDataKey, _: &mut Context<Self>) -> Self::Result {
        let PutDataKey { name, cmk, bytes, version, blob, create } = message;
        let of = self.entry(&cmk)?;
        // Once more: it may have been disabled, or be waiting for its deletion, since the data key was made.
        of.cmk.state.check_usable()?;
        let now = self.shared.clock.now();
        let before = self.shared.keyring.data_key(&name);
        let mut key = match (&before, create) {
            (None, true) => {
                self.shared.check_room(Limit::DataKeys)?;
                let bytes = u32::try_from(bytes).map_err(|_| Error::internal("a data key is bounded"))?;
                ManagedDataKey { name: name.clone(), cmk, bytes, created_at: now, versions: Vec::new() }
            }
            (Some(before), false) if before.key.cmk == cmk => before.key.clone(),
            (Some(_), true) => {
                return Err(data_key_exists());
            }
            _ => return Err(data_key_not_found()),
        };
        key.check_new_version()?;
        key.versions.push(DataKeyVersion { id: version, created_at: now, blob: blob.into() });
        let stamp = before.map(|entry| entry.stamp);
        let draft = self.draft(records::data_key_path(&name), Kind::DataKey, stamp, &key)?;
        let (revision, writes) = self.commit(vec![draft])?;
        let stamp = Stamp { revision, sequence: writes[0].sequence };
        self.shared.keyring.put_data_key(DataKeyEntry { key, stamp });
        Ok(Changed { value: (), keys: touched(&of), writes })
    }
}

impl Handler<RemoveDataKey> for KeyringActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, message: RemoveDataKey, _: &mut Context<Self>) -> Self::Result {
        let RemoveDataKey { name } = message;
        let entry = self.shared.keyring.data_key(&name).ok_or_else(data_key_not_found)?;
        let keys = self.entry(&entry.key.cmk).map(|of| touched(&of)).unwrap_or_default();
        let path = records::data_key_path(&name);
        let removal = Draft::removal_named(&self.shared, path, entry.stamp, Some(name.as_str()))?;
        let (_, writes) = self.commit(vec![removal])?;
        self.shared.keyring.remove_data_key(&name);
        Ok(Changed { value: (), keys, writes })
    }
}
