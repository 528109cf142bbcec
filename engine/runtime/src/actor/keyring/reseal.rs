//! Secrets whose values are sealed anew: all of a secret in one commit, under numbers of their own. The values before stay until nobody reads them
//! any more, and go at one of the next looks at the clock, also after a crash.

use std::sync::Arc;

use actix::{Context, Handler, Message};
use keymill_core::audit::SecretTouch;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{CmkId, SecretName, SecretVersionId};
use keymill_core::operation::Bin;
use keymill_core::secret::SecretVersion;

use super::{KeyringActor, touched};
use crate::actor::Changed;
use crate::audit::TimerTouch;
use crate::keyring::Stamp;
use crate::records::{self, Kind, SecretValueRecord};
use crate::secrets::SecretEntry;

/// Keeps the values of a secret that were sealed anew, where it is as it was then.
pub(crate) struct ResealSecret {
    pub(crate) name: SecretName,
    /// What they are sealed under now.
    pub(crate) cmk: CmkId,
    /// Those of all its versions.
    pub(crate) blobs: Vec<SealedAnew>,
}

/// The value of a version that was sealed anew.
pub(crate) struct SealedAnew {
    pub(crate) id: SecretVersionId,
    /// The tag of the record that it was read from, which no other record has.
    pub(crate) from: [u8; 16],
    pub(crate) blob: Vec<u8>,
}

impl Message for ResealSecret {
    type Result = Result<Changed<Arc<SecretEntry>>>;
}

impl Handler<ResealSecret> for KeyringActor {
    type Result = Result<Changed<Arc<SecretEntry>>>;

    fn handle(&mut self, message: ResealSecret, _: &mut Context<Self>) -> Self::Result {
        let ResealSecret { name, cmk, mut blobs } = message;
        let of = self.entry(&cmk)?;
        // Once more: it may have been disabled, or be waiting for its deletion, since the values were sealed.
        of.cmk.state.check_usable()?;
        let entry = self.secret(&name)?;
        let versions = &entry.secret.versions;
        let was_read = |version: &SecretVersion| {
            blobs.iter().any(|sealed| sealed.id == version.id && sealed.from == version.tag)
        };
        // What else was changed of it meanwhile stays.
        if versions.len() != blobs.len() || !versions.iter().all(was_read) {
            return Err(Error::new(ErrorKind::Conflict, "the secret was changed meanwhile"));
        }
        let mut secret = entry.secret.clone();
        let mut drafts = Vec::with_capacity(blobs.len() + 1);
        for (id, number) in secret.reseal(cmk, self.shared.clock.now())? {
            let at = blobs.iter().position(|sealed| sealed.id == id);
            let at = at.ok_or_else(|| Error::internal("a version was not sealed"))?;
            let SealedAnew { blob, .. } = blobs.swap_remove(at);
            let path = records::secret_value_path(&name, number);
            let record = SecretValueRecord { name: name.clone(), version: id.clone(), blob: Bin::from(blob) };
            let value = self.draft(path.clone(), Kind::SecretValue, self.standing(&path)?, &record)?;
            let tag = value.tag();
            let version = secret.versions.iter_mut().find(|version| version.id == id);
            let (Some(version), Some(tag)) = (version, tag) else {
                return Err(Error::internal("a version that was sealed anew is not there"));
            };
            version.tag = tag;
            drafts.push(value);
        }
        // What is to be published with its tags is drafted last, and stands first.
        let draft = self.draft(records::secret_path(&name), Kind::Secret, Some(entry.stamp), &secret)?;
        drafts.insert(0, draft);
        let (revision, writes) = self.commit(drafts)?;
        let stamp = Stamp { revision, sequence: writes[0].sequence };
        let value = self.shared.keyring.secrets.put(SecretEntry { secret, stamp });
        Ok(Changed { value, keys: touched(&of), writes })
    }
}

impl KeyringActor {
    /// Removes values that were left when others took their places, of the secrets that had some at the last look already.
    pub(super) fn remove_left(&mut self) -> Result<()> {
        let with_left = self.shared.keyring.secrets.with_left();
        let due: Vec<_> = self.left_by.intersection(&with_left).cloned().collect();
        self.left_by = with_left;
        for name in due {
            self.left_by.remove(&name);
            let Some(entry) = self.shared.keyring.secrets.secret(&name) else { continue };
            let mut secret = entry.secret.clone();
            let mut removals = Vec::with_capacity(secret.left.len());
            for number in std::mem::take(&mut secret.left) {
                removals.extend(self.removal_of(records::secret_value_path(&name, number))?);
            }
            let path = records::secret_path(&name);
            let mut drafts = vec![self.draft(path, Kind::Secret, Some(entry.stamp), &secret)?];
            drafts.append(&mut removals);
            let (revision, writes) = self.commit(drafts)?;
            let stamp = Stamp { revision, sequence: writes[0].sequence };
            self.shared.keyring.secrets.put(SecretEntry { secret, stamp });
            let touch = TimerTouch::Secret(SecretTouch { name, version: None });
            self.record_touch("ResealSecret", "values before removed", touch, writes)?;
        }
        Ok(())
    }
}
