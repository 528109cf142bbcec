//! Imported key material: what it is wrapped by on its way here, its coming and its going. A try to import is counted before it is made,
//! so that many at once are no more than many one after the other.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use actix::{Context, Handler, Message};
use keymill_core::audit::RecordStamp;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::CmkId;
use keymill_core::key::{BulkMode, Cmk, Evidence, KeyCheck, KeySpec, KeyUsage, WrappingAlgorithm};
use keymill_core::limit;
use keymill_core::operation::ImportToken;
use keymill_core::seam::provider::{KeyMaterial, StoredKey};
use keymill_core::time::Timestamp;
use keymill_crypto::{digest, random};

use super::{KeyringActor, touched};
use crate::actor::{Changed, Made};
use crate::keyring::{CmkEntry, Stamp};
use crate::records::{self, ImportRecord, Kind};

/// How long import parameters are good for.
const TOKEN_LIFE: Duration = Duration::from_secs(limit::IMPORT_TOKEN_HOURS * 3_600);
/// How long a try takes at most, with what clocks of nodes differ by.
const TRY: Duration = Duration::from_millis(2 * limit::MAX_TIMEOUT_MS);
/// How far a clock may have been ahead when it set their end.
const AHEAD: Duration = Duration::from_secs(3_600);

/// What is known of import parameters without reading them.
pub(crate) struct Parameters {
    /// Where their record stands.
    pub(super) stamp: Stamp,
    /// The SHA-256 of the token.
    token: [u8; 32],
    expires_at: Timestamp,
    /// Whether the wrapping key is still there.
    is_open: bool,
    /// The serial number of the token that it is in, of a key of the tokens.
    serial: Option<String>,
    /// How often it was tried.
    tries: u32,
    /// Wrapping keys that are yet to be destroyed in their tokens.
    pub(super) spent: usize,
    /// When a try began last, on whichever node.
    tried_at: Option<Timestamp>,
}

impl Parameters {
    /// Takes what is to be known of a record that was read or written.
    pub(crate) fn of(record: &ImportRecord, stamp: Stamp) -> Self {
        let ImportRecord { token, expires_at, wrapping, spent, tries, tried_at, .. } = record;
        let object = wrapping.as_ref().and_then(StoredKey::token_object);
        Self {
            stamp,
            token: *token,
            expires_at: *expires_at,
            is_open: wrapping.is_some(),
            serial: object.map(|object| object.serial.clone()),
            tries: *tries,
            spent: spent.len(),
            tried_at: *tried_at,
        }
    }

    /// Tells whether another node may be at a try: what that unwraps by stays as long as a try takes.
    pub(super) fn may_be_tried(&self, now: Timestamp) -> bool {
        self.tried_at.is_some_and(|at| at <= now.plus(TRY) && now < at.plus(TRY))
    }

    /// Tells whether a token has a wrapping key of them.
    pub(super) fn is_in_token(&self) -> bool {
        self.serial.is_some() || self.spent > 0
    }

    /// Tells whether a token has a wrapping key of them that all tries of were made.
    pub(super) fn is_exhausted(&self) -> bool {
        self.serial.is_some() && self.tries >= limit::IMPORT_TRIES
    }
}

/// Keeps a new wrapping key for the import to a CMK, in the place of any other.
pub(crate) struct PutParameters {
    pub(crate) id: CmkId,
    pub(crate) wrapping: StoredKey,
    pub(crate) algorithm: WrappingAlgorithm,
}

/// Checks a token, and counts that material is tried to be imported by it.
pub(crate) struct BeginImport {
    pub(crate) id: CmkId,
    pub(crate) token: ImportToken,
}

/// What is needed for the try.
pub(crate) struct Begun {
    pub(crate) spec: KeySpec,
    pub(crate) usage: KeyUsage,
    pub(crate) bulk_mode: Option<BulkMode>,
    pub(crate) wrapping: StoredKey,
    pub(crate) algorithm: WrappingAlgorithm,
    /// Of the token that the wrapping key is in, for a key of the tokens.
    pub(crate) berth: Option<usize>,
    /// What material in a token must be known by.
    pub(crate) check: Option<KeyCheck>,
    /// The SHA-256 of the token.
    pub(crate) token: [u8; 32],
}

/// Takes what came of a try: material that was unwrapped, whose wrapping key is destroyed then, or nothing. Each try that was begun ends so.
pub(crate) struct FinishImport {
    pub(crate) id: CmkId,
    pub(crate) token: [u8; 32],
    pub(crate) made: Result<Made>,
    pub(crate) expires_at: Option<Timestamp>,
}

/// Deletes imported material.
pub(crate) struct DeleteMaterial {
    pub(crate) id: CmkId,
}

impl Message for PutParameters {
    type Result = Result<Changed<(ImportToken, Timestamp)>>;
}

impl Message for BeginImport {
    type Result = Result<Begun>;
}

impl Message for FinishImport {
    type Result = Result<Changed<()>>;
}

impl Message for DeleteMaterial {
    type Result = Result<Changed<()>>;
}

/// Tells whether the time of import parameters is over, or lies so far ahead that a clock was wrong when it was set.
fn is_over(expires_at: Timestamp, now: Timestamp) -> bool {
    expires_at <= now || expires_at > now.plus(TOKEN_LIFE + AHEAD)
}

fn invalid_token() -> Error {
    Error::new(ErrorKind::InvalidImportToken, "the import token is none of this key, or is used up")
}

fn expired_token() -> Error {
    Error::new(ErrorKind::ExpiredImportToken, "the time of the import token is over")
}

impl KeyringActor {
    /// Reads import parameters as they were last written.
    pub(super) fn parameters(&self, id: &CmkId, known: &Parameters) -> Result<ImportRecord> {
        let path = records::import_path(id);
        let stored = self.shared.store.get(&path)?.filter(|stored| stored.revision == known.stamp.revision);
        let opened = stored.map(|stored| {
            records::open::<ImportRecord>(&self.shared.sealer, &path, Kind::Import, &stored.value)
        });
        match opened {
            Some(Ok((record, sequence, _))) if sequence == known.stamp.sequence => Ok(record),
            _ => {
                tracing::error!(key = %id, "the stored import parameters of the key failed their check");
                let why = "the stored import parameters failed their check: get others";
                Err(Error::new(ErrorKind::Quarantined, why))
            }
        }
    }

    /// Writes changed import parameters of a key.
    fn keep_parameters(
        &mut self,
        id: &CmkId,
        before: Option<Stamp>,
        record: &ImportRecord,
    ) -> Result<Vec<RecordStamp>> {
        let draft = self.draft(records::import_path(id), Kind::Import, before, record)?;
        let (revision, writes) = self.commit(vec![draft])?;
        let stamp = Stamp { revision, sequence: writes[0].sequence };
        self.imports.insert(*id, Parameters::of(record, stamp));
        Ok(writes)
    }

    /// Commits a CMK without its material, and forgets everything that was computed from that.
    fn drop_material(&mut self, before: &CmkEntry, cmk: Cmk) -> Result<(Arc<CmkEntry>, Vec<RecordStamp>)> {
        let id = cmk.id;
        let mut drafts = vec![self.draft(records::cmk_path(&id), Kind::Cmk, Some(before.stamp), &cmk)?];
        for version in &before.versions {
            drafts.extend(self.removal_of(records::material_path(&id, version.number))?);
        }
        let (revision, writes) = self.commit(drafts)?;
        let versions = before.versions.iter().map(|v| Arc::new(v.resealed(None))).collect();
        let stamp = Stamp { revision, sequence: writes[0].sequence };
        let entry = Arc::new(before.next(cmk, versions, stamp, before.generation + 1));
        self.shared.keyring.publish(entry.clone());
        self.shared.forget(before);
        Ok((entry, writes))
    }

    /// Deletes material that has expired, and wrapping keys whose time is over; what fails is tried again at the next look.
    pub(super) fn expire_due(&mut self, now: Timestamp) {
        let is_due = |entry: &Arc<CmkEntry>| {
            let external = entry.cmk.external.as_ref();
            external.is_some_and(|e| e.is_present && e.expires_at.is_some_and(|at| at <= now))
        };
        for entry in self.shared.keyring.timed().into_iter().filter(is_due) {
            let expired = entry.cmk.without_material().and_then(|cmk| {
                let (entry, writes) = self.drop_material(&entry, cmk)?;
                self.record("ExpireKeyMaterial", "its time is over", &entry, writes)
            });
            match expired {
                Ok(()) => {
                    tracing::warn!(key = %entry.cmk.id, "imported key material was deleted: it has expired")
                }
                Err(error) => {
                    tracing::error!(key = %entry.cmk.id, ?error, "key material that has expired was not deleted");
                }
            }
        }
        let is_over = |known: &Parameters| known.is_open && is_over(known.expires_at, now);
        let over: Vec<CmkId> =
            self.imports.iter().filter(|(_, known)| is_over(known)).map(|(id, _)| *id).collect();
        // Those of a quarantined key stay as they are, as it does.
        for entry in over.iter().filter_map(|id| self.shared.keyring.cmk(id)).collect::<Vec<_>>() {
            if let Err(error) = self.close_parameters(&entry) {
                tracing::error!(key = %entry.cmk.id, ?error, "a wrapping key whose time is over was not destroyed");
            }
        }
    }

    /// Destroys a wrapping key whose time is over; what its token was stays known.
    fn close_parameters(&mut self, entry: &CmkEntry) -> Result<()> {
        let id = &entry.cmk.id;
        let Some(known) = self.imports.get(id) else { return Ok(()) };
        let stamp = known.stamp;
        let read = self.parameters(id, known);
        if read.as_ref().is_err_and(|error| error.kind() == ErrorKind::Quarantined) {
            // Nobody can use them any more, and others can be had.
            self.imports.remove(id);
        }
        let record = read?.closed();
        let writes = self.keep_parameters(id, Some(stamp), &record)?;
        self.record("ExpireImportToken", "its time is over", entry, writes)
    }
}

impl Handler<PutParameters> for KeyringActor {
    type Result = Result<Changed<(ImportToken, Timestamp)>>;

    fn handle(&mut self, message: PutParameters, ctx: &mut Context<Self>) -> Self::Result {
        let stays = message.wrapping.token_object().cloned();
        let put = self.put_parameters(message).inspect_err(|_| Made::log_left_behind(stays.as_ref()));
        self.destroy_spent(ctx);
        put
    }
}

impl Handler<BeginImport> for KeyringActor {
    type Result = Result<Begun>;

    fn handle(&mut self, message: BeginImport, _: &mut Context<Self>) -> Self::Result {
        let id = message.id;
        let begun = self.begin_import(message)?;
        *self.importing.entry(id).or_default() += 1;
        Ok(begun)
    }
}

impl Handler<FinishImport> for KeyringActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, message: FinishImport, ctx: &mut Context<Self>) -> Self::Result {
        if let Entry::Occupied(mut importing) = self.importing.entry(message.id) {
            match importing.get_mut() {
                0 | 1 => drop(importing.remove()),
                count => *count -= 1,
            }
        }
        let (id, token) = (message.id, message.token);
        let finished = self.finish_import(message);
        if let Err(error) = &finished
            && let Err(error) = self.take_try_back(&id, &token, error.kind())
        {
            tracing::error!(key = %id, ?error, "a try that was none stays counted");
        }
        self.destroy_spent(ctx);
        finished
    }
}

impl KeyringActor {
    fn put_parameters(&mut self, message: PutParameters) -> Result<Changed<(ImportToken, Timestamp)>> {
        let PutParameters { id, wrapping, algorithm } = message;
        let entry = self.entry(&id)?;
        entry.cmk.external.as_ref().ok_or_else(Error::not_external)?;
        let before = self.imports.get(&id).map(|known| self.of_token(&id, known)).transpose()?.flatten();
        let spent = before.map_or_else(Vec::new, |before| before.closed().spent);
        if spent.len() > limit::SPENT_WRAPPING_KEYS {
            let why = "too many wrapping keys of the key wait to be destroyed in their token";
            return Err(Error::new(ErrorKind::Busy, why));
        }
        let token = digest::hex(&random::array::<32>()?);
        // Whole seconds, as it is told and kept.
        let expires_at = Timestamp::from_ms(self.shared.clock.now().plus(TOKEN_LIFE).as_s() * 1_000);
        let record = ImportRecord {
            token: digest::sha256(token.as_bytes()),
            algorithm,
            expires_at,
            tries: 0,
            wrapping: Some(wrapping),
            spent,
            // Of the ones before, which may be in use.
            tried_at: self.imports.get(&id).and_then(|known| known.tried_at),
        };
        let before = match self.imports.get(&id) {
            Some(known) => Some(known.stamp),
            // One that failed its check at the start is replaced.
            None => self.standing(&records::import_path(&id))?,
        };
        let writes = self.keep_parameters(&id, before, &record)?;
        Ok(Changed { value: (ImportToken(token), expires_at), keys: touched(&entry), writes })
    }

    fn begin_import(&mut self, message: BeginImport) -> Result<Begun> {
        let BeginImport { id, token } = message;
        let entry = self.entry(&id)?;
        entry.cmk.check_importable()?;
        let token = digest::sha256(token.0.as_bytes());
        let known = self.imports.get(&id).filter(|known| digest::equal(&known.token, &token));
        let known = known.filter(|known| !known.is_exhausted()).ok_or_else(invalid_token)?;
        if !known.is_open || is_over(known.expires_at, self.shared.clock.now()) {
            return Err(expired_token());
        }
        // A token that is not there is asked nothing, which is no try.
        let berth = known.serial.as_deref().map(|serial| self.shared.pool.berth_up(serial)).transpose()?;
        let stamp = known.stamp;
        let mut record = self.parameters(&id, known)?;
        record.tries += 1;
        record.tried_at = self.shared.cluster.as_ref().map(|_| self.shared.clock.now());
        // The last try takes the wrapping key with it; one in a token, when it has come to its end.
        let writes = match record.tries < limit::IMPORT_TRIES || berth.is_some() {
            true => self.keep_parameters(&id, Some(stamp), &record)?,
            false => {
                let left = self.used_up(&id, known)?;
                self.keep_left(&id, left)?
            }
        };
        self.record("TryImport", "tries are counted", &entry, writes)?;
        let wrapping = record.wrapping.ok_or_else(expired_token)?;
        let Cmk { spec, usage, bulk_mode, .. } = entry.cmk;
        let check = entry.cmk.external.as_ref().and_then(|external| external.check.clone());
        Ok(Begun { spec, usage, bulk_mode, wrapping, algorithm: record.algorithm, berth, check, token })
    }

    /// Takes a try back that a token did not answer: nothing was told by it.
    fn take_try_back(&mut self, id: &CmkId, token: &[u8; 32], failed: ErrorKind) -> Result<()> {
        let known = self.imports.get(id).filter(|known| digest::equal(&known.token, token));
        let Some(known) = known.filter(|known| known.serial.is_some() && known.tries > 0) else {
            return Ok(());
        };
        if !matches!(failed, ErrorKind::Unavailable | ErrorKind::Busy | ErrorKind::Deadline) {
            return Ok(());
        }
        let (stamp, mut record) = (known.stamp, self.parameters(id, known)?);
        record.tries -= 1;
        let writes = self.keep_parameters(id, Some(stamp), &record)?;
        let entry = self.entry(id)?;
        self.record("TakeTryBack", "the token did not answer", &entry, writes)
    }

    fn finish_import(&mut self, message: FinishImport) -> Result<Changed<()>> {
        let FinishImport { id, token, made, expires_at } = message;
        let mut made = made?;
        let before = self.entry(&id)?;
        let evidence = match (&made.key.material, made.check.take()) {
            (KeyMaterial::Clear(material), None) => {
                Evidence::Fingerprint(self.shared.fingerprints.of(&id, material))
            }
            (KeyMaterial::Wrapped(_), Some(check)) => Evidence::Check(check),
            _ => {
                return Err(Error::internal(
                    "imported material is in clear or wrapped, and then has a check",
                ));
            }
        };
        let cmk = before.cmk.with_material(evidence, expires_at)?;
        let is_present = before.cmk.external.as_ref().is_some_and(|external| external.is_present);
        let mut drafts = vec![self.draft(records::cmk_path(&id), Kind::Cmk, Some(before.stamp), &cmk)?];
        let mut versions = before.versions.clone();
        if !is_present {
            let (draft, fresh) = self.material(&id, before.cmk.primary(), made)?;
            drafts.push(draft);
            versions = [Arc::new(before.primary().resealed(fresh.material))].into_iter().collect();
        }
        // Others may have been got meanwhile, which stay, or this was their last try.
        let known = self.imports.get(&id).filter(|known| digest::equal(&known.token, &token));
        let ended = known.map(|known| self.used_up(&id, known)).transpose()?;
        let at = drafts.len();
        let left = ended.map(|(draft, left)| {
            drafts.push(draft);
            left
        });
        let (revision, writes) = self.commit(drafts)?;
        if let Some(left) = left {
            let stamp = |left| (left, Stamp { revision, sequence: writes[at].sequence });
            self.note_parameters(&id, left.map(stamp));
        }
        let stamp = Stamp { revision, sequence: writes[0].sequence };
        let generation = before.generation + u64::from(!is_present);
        let entry = Arc::new(before.next(cmk, versions, stamp, generation));
        self.shared.keyring.publish(entry.clone());
        Ok(Changed { value: (), keys: touched(&entry), writes })
    }
}

impl Handler<DeleteMaterial> for KeyringActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, DeleteMaterial { id }: DeleteMaterial, _: &mut Context<Self>) -> Self::Result {
        let before = self.entry(&id)?;
        let cmk = before.cmk.without_material()?;
        if before.cmk.external.as_ref().is_some_and(|external| !external.is_present) {
            self.confirm(records::cmk_path(&id), before.stamp)?;
            return Ok(Changed { value: (), keys: touched(&before), writes: Vec::new() });
        }
        let (entry, writes) = self.drop_material(&before, cmk)?;
        Ok(Changed { value: (), keys: touched(&entry), writes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keymill_core::seam::store::Revision;

    #[test]
    fn what_another_node_may_unwrap_by_stays_for_as_long_as_a_try_takes() {
        let at = |s: u64| Timestamp::from_ms(2_000_000_000_000 + s * 1_000);
        let record = |tried_at| ImportRecord {
            token: [1; 32],
            algorithm: WrappingAlgorithm::RsaesOaepSha256,
            expires_at: at(86_400),
            tries: 1,
            wrapping: None,
            spent: Vec::new(),
            tried_at,
        };
        let stamp = Stamp { revision: Revision(1), sequence: 1 };
        let busy =
            |tried: Option<u64>, now| Parameters::of(&record(tried.map(at)), stamp).may_be_tried(at(now));
        let whole = TRY.as_secs();
        assert!(busy(Some(9), 9) && busy(Some(9), 8 + whole), "also by a clock that is a little behind");
        assert!(busy(Some(9), 5));
        assert!(!busy(Some(9), 9 + whole) && !busy(None, 9));
        assert!(!busy(Some(10 + 2 * whole), 9), "a clock had run ahead");
    }

    #[test]
    fn a_token_is_over_in_its_time_and_where_a_clock_had_run_ahead() {
        let at = |s: u64| Timestamp::from_ms(s * 1_000);
        let (now, day) = (2_000_000_000, 86_400);
        for (expires, over) in [
            (now - 1, true),
            (now, true),
            (now + 1, false),
            (now + day, false),
            (now + day + 3_600, false),
            (now + day + 3_601, true),
        ] {
            assert_eq!(is_over(at(expires), at(now)), over, "{expires}");
        }
    }
}
