//! An operator's word that a store which was put back is the store from now on. What this node's audit remembers otherwise is written anew as it
//! stands, above all numbers that were given in the history that is lost, so that every node takes it; and never so that it gives more than it should:
//!
//! - what the audit says was removed stays removed, and what is missing has ended;
//! - a key comes back disabled, and without the deletion that it may have waited for; an access key comes back inactive, but for those without which
//!   nobody could administer the rest;
//! - of applications, policies, rules and roles that went back nothing is left: what they allowed may have been narrowed;
//! - counts of reserved messages are raised by all that can have been reserved in what is lost.

use std::collections::HashMap;

use keymill_core::access::{AccessKey, AccessKeyStatus};
use keymill_core::audit::RecordStamp;
use keymill_core::id::{CmkId, NodeName};
use keymill_core::key::{Cmk, KeyState};
use keymill_core::limit;
use keymill_core::seam::store::{Entry, Page, Path, Revision, Row, Store, StoreError, Write};
use keymill_core::time::Timestamp;
use keymill_crypto::audit::{Remembered, RememberedTag, Stamps};
use keymill_crypto::record::{RecordSealer, sequence_of, tag_of};
use keymill_crypto::{digest, payload};
use serde::Serialize;

use super::history::Standing;
use crate::load::{self, Judgement};
use crate::records::{self, EndedRecord, HistoryRecord, InstallationRecord, InvocationsRecord, Kind};
use crate::scan;

/// How far above all that was given numbers go on: no record is written as often between two histories.
const LEAP: u64 = 1 << 32;
/// Reservations that other nodes may have made which this one had not heard of.
const UNHEARD: u64 = 16;
/// Writes and bytes of one commit, about.
const WRITES: usize = 64;
const BYTES: usize = 256 << 10;
/// Records that the log names; the audit names all.
const LOGGED: usize = 1_000;

/// Accepts what stands in a store, against what the audit remembers: of records, and of what the node itself has left there. Returns what was
/// written.
///
/// # Errors
/// A sentence that says why not, and that it may be tried again.
pub(crate) fn accept(
    node: &NodeName,
    store: &dyn Store,
    sealer: &RecordSealer,
    (stamps, witnesses): (Stamps, &[RecordStamp]),
    now: Timestamp,
) -> Result<Vec<RecordStamp>, String> {
    let failed = |error: StoreError| {
        format!("store: {error}; what was accepted so far stays, and the same may be run again")
    };
    let installation = store.get(&records::installation_path()).map_err(failed)?;
    let is_ours = installation.is_some_and(|Entry { path, value, .. }| {
        records::open::<InstallationRecord>(sealer, &path, Kind::Installation, &value).is_ok()
    });
    if !is_ours {
        return Err(
            "--accept-history: the store is empty, or another installation's: nothing is accepted".to_owned()
        );
    }
    let standing = Standing::read(store, sealer).map_err(failed)?;
    let lost = lost(store, stamps).map_err(failed)?;
    let is_well = standing.trouble(node, store, witnesses).map_err(failed)?.is_none();
    if lost.is_empty() && is_well {
        tracing::warn!(
            "--accept-history: there is nothing to accept. Start the next time without it: it would accept what nobody has looked at"
        );
        return Ok(Vec::new());
    }
    let mut acceptance = Acceptance {
        store,
        sealer,
        now,
        spared: spared(store, sealer, &lost).map_err(failed)?,
        writes: Vec::new(),
        bytes: 0,
        stamps: Vec::new(),
    };
    for (path, known) in &lost {
        acceptance.take(path, *known).map_err(failed)?;
    }
    acceptance.commit().map_err(failed)?;
    let stamps = acceptance.stamps;
    forget_witnesses(store).map_err(failed)?;
    let accepted = now.as_ms().max(standing.record.accepted + 1);
    // Last: until here the alarm stands.
    standing.replace(store, sealer, &HistoryRecord { accepted, alarm: None }).map_err(failed)?;
    tracing::warn!(records = stamps.len(), "the history of the store was accepted, by an operator's word");
    Ok(stamps)
}

/// Lists the records that the audit remembers otherwise: older than they were, removed, or not there.
fn lost(store: &dyn Store, mut stamps: Stamps) -> Result<Vec<(Path, Remembered)>, StoreError> {
    let mut lost = Vec::new();
    store.scan(&mut |row| {
        let Some((sequence, tag)) = sequence_of(row.value).zip(tag_of(row.value)) else { return true };
        let Some(known) = stamps.recall(row.path) else { return true };
        let judged = match records::says_ended(row.value) {
            true => load::judge_end(Some(known), sequence),
            false => load::judge(Some(known), sequence, &tag),
        };
        if let (Judgement::Rejected(_), Ok(path)) = (judged, Path::new(row.path)) {
            lost.push((path, known));
        }
        true
    })?;
    let missing = stamps.iter().filter(|stamp| !stamp.tag.is_empty());
    lost.extend(missing.filter_map(|stamp| {
        let known = Remembered::from(&stamp);
        Some((Path::new(stamp.path).ok()?, known))
    }));
    // In an order that does not depend on that of the scan.
    lost.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    Ok(lost)
}

/// Lists the access keys that stay active although they went back: where none is left that has not and may do everything, those that may.
fn spared(
    store: &dyn Store,
    sealer: &RecordSealer,
    lost: &[(Path, Remembered)],
) -> Result<Vec<String>, StoreError> {
    let lost: HashMap<&str, &Remembered> = lost.iter().map(|(path, known)| (path.as_str(), known)).collect();
    let (mut is_any_left, mut spared) = (false, Vec::new());
    load::each(store, "access-key/", |Entry { path, value, .. }| {
        let opened = records::open::<AccessKey>(sealer, &path, Kind::AccessKey, &value);
        let Ok((key, ..)) = opened else { return };
        if key.status != AccessKeyStatus::Active || !key.is_root() {
            return;
        }
        match lost.get(path.as_str()) {
            None => is_any_left = true,
            Some(known) if known.tag == RememberedTag::Removed => {}
            Some(_) => spared.push(path.to_string()),
        }
    })?;
    Ok(if is_any_left { Vec::new() } else { spared })
}

/// Takes away what nodes had left for their next starts: those begin anew.
fn forget_witnesses(store: &dyn Store) -> Result<(), StoreError> {
    let below = records::prefix(records::WITNESSES);
    loop {
        let page = store.list(&below, Page { after: None, limit: WRITES })?;
        if page.is_empty() {
            return Ok(());
        }
        let removal = |entry: Entry| Write { path: entry.path, expected: Some(entry.revision), value: None };
        store.commit(&page.into_iter().map(removal).collect::<Vec<_>>())?;
    }
}

/// What is being written.
struct Acceptance<'a> {
    store: &'a dyn Store,
    sealer: &'a RecordSealer,
    now: Timestamp,
    spared: Vec<String>,
    writes: Vec<Write>,
    bytes: usize,
    /// What the audit is to remember of what was written, and is about to be.
    stamps: Vec<RecordStamp>,
}

/// What a record comes to.
struct Anew {
    kind: u8,
    payload: keymill_core::Sensitive,
}

impl Acceptance<'_> {
    /// Accepts one record.
    fn take(&mut self, path: &Path, known: Remembered) -> Result<(), StoreError> {
        let stored = self.store.get(path)?;
        let stands = stored.as_ref().and_then(|stored| sequence_of(&stored.value)).unwrap_or(0);
        let anew = match &stored {
            Some(stored) => self.anew(path, stored, known, stands),
            None => self.in_place_of_nothing(path, known),
        };
        let anew = match anew {
            Ok(anew) => anew,
            Err(why) => {
                tracing::error!(%path, why, "a record cannot be accepted: it stays quarantined");
                return Ok(());
            }
        };
        let expected = stored.map(|stored| stored.revision);
        let sequence = leap(known.sequence.max(stands));
        if self.stamps.len() < LOGGED {
            let says = if anew.kind == Kind::Ended as u8 { "it has ended" } else { "it stands" };
            tracing::warn!(%path, remembered = known.sequence, stands, says, "a record that went back is accepted");
        }
        self.write(path, expected, sequence, &anew)
    }

    fn write(
        &mut self,
        path: &Path,
        expected: Option<Revision>,
        sequence: u64,
        anew: &Anew,
    ) -> Result<(), StoreError> {
        let sealed = self.sealer.seal(path.as_str(), anew.kind, sequence, anew.payload.expose());
        let sealed = sealed.map_err(|error| StoreError::Unavailable(error.to_string()))?;
        let has_ended = anew.kind == Kind::Ended as u8;
        let tag = if has_ended { String::new() } else { digest::hex(&sealed.tag) };
        self.bytes += sealed.bytes.len();
        self.writes.push(Write { path: path.clone(), expected, value: Some(sealed.bytes) });
        self.stamps.push(RecordStamp { path: path.to_string(), sequence, tag });
        if self.writes.len() >= WRITES || self.bytes >= BYTES {
            self.commit()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.bytes = 0;
        match std::mem::take(&mut self.writes) {
            writes if writes.is_empty() => Ok(()),
            writes => self.store.commit(&writes).map(drop),
        }
    }

    /// Returns what a record comes to that stands there.
    fn anew(&self, path: &Path, stored: &Entry, known: Remembered, stands: u64) -> Result<Anew, String> {
        let kind = *stored.value.get(1).ok_or("it is cut")?;
        let opened = self.sealer.open(path.as_str(), kind, &stored.value);
        let payload = opened.map_err(|error| error.to_string())?.payload;
        if kind == Kind::Ended as u8 {
            return Ok(Anew { kind, payload });
        }
        let row = Row { path: path.as_str(), value: &stored.value, revision: stored.revision };
        let name = || scan::open(self.sealer, row).and_then(|what| what.name());
        if known.tag == RememberedTag::Removed || gives_rights(path) {
            return self.end(name());
        }
        let kinds = [Kind::Cmk, Kind::AccessKey, Kind::Invocations];
        match kinds.into_iter().find(|one| *one as u8 == kind) {
            Some(Kind::Cmk) => encoded(Kind::Cmk, &at_rest(decoded(&payload)?)),
            Some(Kind::AccessKey) => {
                let mut key: AccessKey = decoded(&payload)?;
                if !self.spared.iter().any(|spared| spared == path.as_str()) {
                    key.status = AccessKeyStatus::Inactive;
                }
                encoded(Kind::AccessKey, &key)
            }
            Some(Kind::Invocations) => {
                let InvocationsRecord(rows) = decoded(&payload)?;
                let more = reserved_in(known.sequence.saturating_sub(stands));
                let raised = rows.into_iter().map(|(version, count)| (version, raise(count, more)));
                encoded(Kind::Invocations, &InvocationsRecord(raised.collect()))
            }
            _ => Ok(Anew { kind, payload }),
        }
    }

    /// Returns what stands where a record is missing: its end, or the most that can have been counted there.
    fn in_place_of_nothing(&self, path: &Path, known: Remembered) -> Result<Anew, String> {
        let counted = path.as_str().strip_prefix("invocations/").and_then(CmkId::parse);
        let Some(id) = counted else { return self.end(None) };
        let stored = self.store.get(&records::cmk_path(&id)).map_err(|error| error.to_string())?;
        let opened = stored.and_then(|stored| {
            records::open::<Cmk>(self.sealer, &stored.path, Kind::Cmk, &stored.value).ok()
        });
        let Some((cmk, ..)) = opened else { return self.end(None) };
        let most = raise(0, reserved_in(known.sequence));
        let rows = cmk.versions.iter().map(|version| (version.number, most)).collect();
        encoded(Kind::Invocations, &InvocationsRecord(rows))
    }

    fn end(&self, name: Option<Box<str>>) -> Result<Anew, String> {
        encoded(Kind::Ended, &EndedRecord { at: self.now, name })
    }
}

fn decoded<T: serde::de::DeserializeOwned>(payload: &keymill_core::Sensitive) -> Result<T, String> {
    payload::decode(payload).map_err(|error| error.to_string())
}

fn encoded<T: Serialize>(kind: Kind, record: &T) -> Result<Anew, String> {
    let payload = payload::encode(record).map_err(|error| error.to_string())?;
    Ok(Anew { kind: kind as u8, payload })
}

/// Returns a key as it comes back: it is used again, or deleted, by somebody's word alone.
fn at_rest(cmk: Cmk) -> Cmk {
    match cmk.state {
        // That of a certificate is led to by the certificate alone, and has no state of its own.
        _ if cmk.certificate.is_some() => cmk,
        KeyState::PendingImport => cmk,
        _ => Cmk { state: KeyState::Disabled, delete_at: None, ..cmk },
    }
}

/// Tells whether a record says who may do what, and is none of an access key itself.
fn gives_rights(path: &Path) -> bool {
    let kind = path.as_str().split('/').next().unwrap_or_default();
    records::is_of_access(path.as_str()) && !["access-key", "access-epoch"].contains(&kind)
}

/// Returns how many messages so many writes of a count can have reserved, with what was not heard of.
fn reserved_in(writes: u64) -> u64 {
    writes.saturating_add(UNHEARD).saturating_mul(limit::RESERVED_INVOCATIONS)
}

fn raise(count: u64, more: u64) -> u64 {
    count.saturating_add(more).min(limit::MAX_INVOCATIONS)
}

/// Returns the number of a record that is above all that were given in what is lost.
fn leap(sequence: u64) -> u64 {
    (sequence / LEAP + 1).saturating_mul(LEAP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_on_far_above_what_was_given_and_leap_again() {
        assert_eq!((leap(0), leap(7)), (LEAP, LEAP));
        assert_eq!((leap(LEAP), leap(LEAP + 9)), (2 * LEAP, 2 * LEAP));
    }

    #[test]
    fn counts_are_raised_by_all_that_can_have_been_reserved_and_to_the_limit_at_most() {
        assert_eq!(reserved_in(2), 18 << 20);
        assert_eq!(raise(5, reserved_in(0)), 5 + (16 << 20));
        assert_eq!(raise(1, reserved_in(u64::MAX)), limit::MAX_INVOCATIONS);
    }

    #[test]
    fn what_may_have_allowed_more_is_of_policies_and_not_of_access_keys() {
        let gives = |path| gives_rights(&Path::new(path).unwrap());
        for path in ["aap/nx", "policy/nx", "client-key/1", "role/nx", "network-rule/nx", "approval/1"] {
            assert!(gives(path), "{path}");
        }
        for path in ["access-key/kx", "access-epoch/all", "cmk/1", "alias/nx"] {
            assert!(!gives(path), "{path}");
        }
    }
}
