//! Wrapping keys in tokens that are used up: kept in mind until each is destroyed where it is, whatever has become of its import, of its
//! CMK, and of this process.

use std::sync::Arc;
use std::time::Instant;

use actix::{ActorFutureExt, AsyncContext, Context, WrapFuture};
use keymill_core::access::Caller;
use keymill_core::audit::{KeyTouch, RecordStamp};
use keymill_core::error::{ErrorKind, Result};
use keymill_core::id::{AccessKeyId, CmkId};
use keymill_core::key::ProtectionLevel;
use keymill_core::seam::provider::{StoredKey, TokenObject};

use super::import::Parameters;
use super::timers::DESTRUCTION;
use super::{Draft, KeyringActor};
use crate::actor::CustodyJob;
use crate::audit::TimerTouch;
use crate::keyring::Stamp;
use crate::records::{self, ImportRecord, Kind};
use crate::shared::Shared;

impl KeyringActor {
    /// Keeps in mind what was just written of a key's import parameters; `None`: they were removed.
    pub(super) fn note_parameters(&mut self, id: &CmkId, written: Option<(ImportRecord, Stamp)>) {
        match written {
            Some((record, stamp)) => drop(self.imports.insert(*id, Parameters::of(&record, stamp))),
            None => drop(self.imports.remove(id)),
        }
    }

    /// Drafts what is left of import parameters that nobody can use any more.
    pub(super) fn used_up(&self, id: &CmkId, known: &Parameters) -> Result<(Draft, Option<ImportRecord>)> {
        let record = self.of_token(id, known)?;
        self.left(id, known, record.and_then(ImportRecord::used_up))
    }

    /// Drafts what is left of import parameters.
    fn left(
        &self,
        id: &CmkId,
        known: &Parameters,
        record: Option<ImportRecord>,
    ) -> Result<(Draft, Option<ImportRecord>)> {
        let path = records::import_path(id);
        let draft = match &record {
            Some(record) => self.draft(path, Kind::Import, Some(known.stamp), record)?,
            None => Draft::removal(&self.shared, path, known.stamp)?,
        };
        Ok((draft, record))
    }

    /// Writes what is left of import parameters.
    pub(super) fn keep_left(
        &mut self,
        id: &CmkId,
        left: (Draft, Option<ImportRecord>),
    ) -> Result<Vec<RecordStamp>> {
        let (draft, record) = left;
        let (revision, writes) = self.commit(vec![draft])?;
        let stamp = Stamp { revision, sequence: writes[0].sequence };
        self.note_parameters(id, record.map(|record| (record, stamp)));
        Ok(writes)
    }

    /// Reads import parameters that a token has a wrapping key of; `None` where none has, so that nothing must be kept of them, and where
    /// they are damaged, so that nothing is known of it.
    pub(super) fn of_token(&self, id: &CmkId, known: &Parameters) -> Result<Option<ImportRecord>> {
        if !known.is_in_token() {
            return Ok(None);
        }
        match self.parameters(id, known) {
            Err(error) if error.kind() == ErrorKind::Quarantined => Ok(None),
            read => read.map(Some),
        }
    }

    /// Ends the import parameters all of whose tries were made, and have come to their end.
    fn end_exhausted(&mut self) {
        let now = self.shared.clock.now();
        let over = |(id, known): &(&CmkId, &Parameters)| {
            known.is_exhausted() && !self.importing.contains_key(id) && !known.may_be_tried(now)
        };
        let over: Vec<CmkId> = self.imports.iter().filter(over).map(|(id, _)| *id).collect();
        for id in over {
            let Some(known) = self.imports.get(&id) else { continue };
            let ended = self.used_up(&id, known).and_then(|left| self.keep_left(&id, left));
            let ended = ended
                .and_then(|writes| self.record_spent("ExpireImportToken", "its tries are over", &id, writes));
            if let Err(error) = ended {
                tracing::error!(key = %id, ?error, "an import token whose tries are over was not ended: it is tried again");
            }
        }
    }

    /// Has wrapping keys that are used up destroyed in their tokens, unless one may be in use; what fails is tried again at the next look.
    pub(super) fn destroy_spent(&mut self, ctx: &mut Context<Self>) {
        self.end_exhausted();
        let now = self.shared.clock.now();
        let due = |(id, known): &(&CmkId, &Parameters)| {
            let is_in_use = self.importing.contains_key(id) || known.may_be_tried(now);
            known.spent > 0 && !is_in_use && !self.clearing.contains(id)
        };
        let due: Vec<CmkId> = self.imports.iter().filter(due).map(|(id, _)| *id).collect();
        for id in due {
            let Some(known) = self.imports.get(&id) else { continue };
            let record = match self.of_token(&id, known) {
                Ok(Some(record)) => record,
                // It is logged that they are damaged; what is left in the token is called `keymill import`, for an operator to find.
                Ok(None) => {
                    self.imports.remove(&id);
                    continue;
                }
                Err(error) => {
                    tracing::error!(key = %id, ?error, "the import parameters of the key cannot be read: it is tried again");
                    continue;
                }
            };
            self.clearing.insert(id);
            let creator = self.shared.keyring.cmk(&id).map(|entry| entry.cmk.creator.clone());
            let destroyed = destroyed(self.shared.clone(), record.spent, creator);
            ctx.spawn(destroyed.into_actor(self).map(move |destroyed, actor, _| {
                actor.clearing.remove(&id);
                if let Err(error) = actor.forget_spent(&id, &destroyed) {
                    tracing::error!(key = %id, ?error, "that a wrapping key was destroyed could not be kept: it is tried again");
                }
            }));
        }
    }

    /// Forgets wrapping keys that were destroyed in their token.
    fn forget_spent(&mut self, id: &CmkId, destroyed: &[Vec<u8>]) -> Result<()> {
        let Some(known) = self.imports.get(id).filter(|_| !destroyed.is_empty()) else { return Ok(()) };
        let record = self.parameters(id, known)?.without_spent(destroyed);
        let left = self.left(id, known, record)?;
        let writes = self.keep_left(id, left)?;
        self.record_spent("DestroyWrappingKey", "it is used up", id, writes)
    }

    /// Has what became of a wrapping key recorded; its CMK may be gone.
    fn record_spent(
        &self,
        operation: &'static str,
        rule: &'static str,
        id: &CmkId,
        writes: Vec<RecordStamp>,
    ) -> Result<()> {
        let key = KeyTouch { cmk: *id, version: 0, items: 0, protection: ProtectionLevel::Hsm };
        self.record_touch(operation, rule, TimerTouch::Key(key), writes)
    }
}

/// Destroys keys in their tokens, and returns the ids of those that are gone.
async fn destroyed(shared: Arc<Shared>, spent: Vec<StoredKey>, creator: Option<AccessKeyId>) -> Vec<Vec<u8>> {
    // Where its CMK is gone, too, it is the engine's own work.
    let principal = creator.or_else(|| "keymill-engine".parse().ok()).map(Caller::from);
    let principal = principal.expect("it is the id of an access key");
    let mut gone = Vec::new();
    for key in spent {
        let Some(TokenObject { serial, label, id, .. }) = key.token_object().cloned() else { continue };
        let Ok(berth) = shared.pool.berth_up(&serial) else { continue };
        let deadline = Instant::now() + DESTRUCTION;
        let (job, destroyed) = CustodyJob::destroy_wrapping(key, berth, deadline, principal.clone());
        let sent = shared.pool.control.submit(&principal, Some(berth), job).map_err(|(error, _)| error);
        let destroyed = match sent {
            Ok(_shed) => destroyed.await.unwrap_or_else(|_| Err(crate::lane::down())),
            Err(error) => Err(error),
        };
        match destroyed {
            Ok(()) => gone.push(id),
            Err(error) => {
                tracing::warn!(
                    label,
                    ?error,
                    "a wrapping key that is used up was not destroyed in its token: it is tried again"
                );
            }
        }
    }
    gone
}
