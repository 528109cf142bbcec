//! Aliases: names that lead to CMKs, made, moved and removed.

use actix::{Handler, Message};
use keymill_core::error::{Error, ErrorKind, Limit, Result};
use keymill_core::id::{AliasName, CmkId};
use keymill_core::key::KeyState;

use super::{Draft, KeyringActor, touched};
use crate::actor::Changed;
use crate::keyring::{AliasEntry, Stamp};
use crate::records::{self, AliasRecord, Kind};

/// Creates or moves an alias.
pub(crate) struct PutAlias {
    pub(crate) name: AliasName,
    pub(crate) to: CmkId,
    pub(crate) create: bool,
}

/// Removes an alias.
pub(crate) struct DeleteAlias {
    pub(crate) name: AliasName,
}

impl Message for PutAlias {
    type Result = Result<Changed<()>>;
}

impl Message for DeleteAlias {
    type Result = Result<Changed<()>>;
}

impl Handler<PutAlias> for KeyringActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, message: PutAlias, _: &mut Self::Context) -> Self::Result {
        let PutAlias { name, to, create } = message;
        let target = self.entry(&to)?;
        let before = self.shared.keyring.alias(&name);
        match (&before, create) {
            (Some(_), true) => return Err(Error::new(ErrorKind::AliasExists, "the alias is taken")),
            (None, true) => self.shared.check_room(Limit::Aliases)?,
            (None, false) => {
                return Err(Error::new(ErrorKind::AliasNotFound, "the specified alias is not found"));
            }
            _ => {}
        }
        if target.cmk.state == KeyState::PendingDeletion {
            let kind = if create { ErrorKind::StateConflict } else { ErrorKind::KeyPendingDeletion };
            return Err(Error::new(kind, "a key that waits for its deletion takes no alias"));
        }
        let record = AliasRecord { cmk: to, name: name.clone() };
        let stamp = before.map(|alias| alias.stamp);
        let draft = self.draft(records::alias_path(&name), Kind::Alias, stamp, &record)?;
        let (revision, writes) = self.commit(vec![draft])?;
        let stamp = Stamp { revision, sequence: writes[0].sequence };
        self.shared.keyring.put_alias(name, AliasEntry { cmk: to, stamp });
        Ok(Changed { value: (), keys: touched(&target), writes })
    }
}

impl Handler<DeleteAlias> for KeyringActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, message: DeleteAlias, _: &mut Self::Context) -> Self::Result {
        let DeleteAlias { name } = message;
        let alias = self
            .shared
            .keyring
            .alias(&name)
            .ok_or_else(|| Error::new(ErrorKind::AliasNotFound, "the specified alias is not found"))?;
        let keys = self.entry(&alias.cmk).map(|entry| touched(&entry)).unwrap_or_default();
        let path = records::alias_path(&name);
        let removal = Draft::removal_named(&self.shared, path, alias.stamp, Some(name.as_str()))?;
        let (_, writes) = self.commit(vec![removal])?;
        self.shared.keyring.remove_alias(&name);
        Ok(Changed { value: (), keys, writes })
    }
}
