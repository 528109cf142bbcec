//! What went back: the records of which the audit remembers more than stands there, and those that are to be seen to with them.

use std::collections::{HashMap, HashSet};

use keymill_core::access::{AccessKey, AccessKeyStatus, Effect, RoleRef};
use keymill_core::audit::RecordStamp;
use keymill_core::seam::store::{Entry, PARTS, Path, Store, StoreError};
use keymill_crypto::audit::{Remembered, RememberedTag, Stamps};
use keymill_crypto::digest;
use keymill_crypto::record::{RecordSealer, sequence_of, tag_of};

use super::is_leapt;
use super::parent::head_of;
use crate::load::{self, Judgement};
use crate::records::{self, Kind};

/// A record that is to be accepted.
pub(super) struct Lost {
    /// Where the record stands that names it by its tag; else its own path.
    pub(super) head: Path,
    pub(super) path: Path,
    pub(super) known: Remembered,
}

impl Lost {
    pub(super) fn new(path: Path, known: Remembered) -> Self {
        Self { head: head_of(&path).unwrap_or_else(|| path.clone()), path, known }
    }
}

/// What was found.
pub(super) struct Found {
    /// Those that belong together one behind the other.
    pub(super) lost: Vec<Lost>,
    /// Those that stand as they were accepted, where that was begun before and cut short.
    pub(super) done: Vec<RecordStamp>,
}

impl Found {
    /// Compares all that stands in the store with what the audit remembers.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub(super) fn read(
        store: &dyn Store,
        sealer: &RecordSealer,
        mut stamps: Stamps,
        is_begun: bool,
    ) -> Result<Self, StoreError> {
        let (mut lost, mut done) = (Vec::new(), Vec::new());
        store.scan(&mut |row| {
            let Some((sequence, tag)) = sequence_of(row.value).zip(tag_of(row.value)) else { return true };
            // What is in an instance is for the engine of that.
            if row.path.starts_with(PARTS) {
                return true;
            }
            let known = stamps.recall(row.path);
            let has_ended = records::says_ended(row.value);
            let judged = match has_ended {
                true => load::judge_end(known, sequence),
                false => load::judge(known, sequence, &tag),
            };
            match (judged, known, Path::new(row.path)) {
                (Judgement::Rejected(_), Some(known), Ok(path)) => lost.push(Lost::new(path, known)),
                (Judgement::Fine | Judgement::Unrecorded, ..) if is_begun && is_leapt(sequence) => {
                    let tag = if has_ended { String::new() } else { digest::hex(&tag) };
                    done.push(RecordStamp { path: row.path.to_owned(), sequence, tag });
                }
                _ => {}
            }
            true
        })?;
        let missing = stamps.iter().filter(|stamp| !stamp.tag.is_empty());
        lost.extend(missing.filter_map(|stamp| {
            let known = Remembered::from(&stamp);
            Some(Lost::new(Path::new(stamp.path).ok()?, known))
        }));
        let denied = denied(store, sealer, &lost)?;
        lost.extend(denied);
        // In an order that does not depend on that of the scan.
        lost.sort_unstable_by(|one, other| (&one.head, &one.path).cmp(&(&other.head, &other.path)));
        Ok(Self { lost, done })
    }
}

/// Lists the access keys that did not go back, and that a role denies something which did: it ends, and would deny it no more.
fn denied(store: &dyn Store, sealer: &RecordSealer, lost: &[Lost]) -> Result<Vec<Lost>, StoreError> {
    let paths: HashSet<&str> = lost.iter().map(|lost| lost.path.as_str()).collect();
    let mut denied = Vec::new();
    if !paths.iter().any(|path| path.starts_with("role/")) {
        return Ok(denied);
    }
    load::each(store, "access-key/", |Entry { path, value, .. }| {
        let opened = records::open::<AccessKey>(sealer, &path, Kind::AccessKey, &value);
        let Ok((key, sequence, tag)) = opened else { return };
        let ends = |role: &RoleRef| match role {
            RoleRef::Custom(name) => paths.contains(records::role_path(name).as_str()),
            RoleRef::BuiltIn(_) => false,
        };
        let is_denied = key.grants.iter().any(|grant| grant.effect == Effect::Deny && ends(&grant.role));
        if is_denied && !paths.contains(path.as_str()) {
            denied.push(Lost::new(path, Remembered { sequence, tag: RememberedTag::Is(tag) }));
        }
    })?;
    Ok(denied)
}

/// Lists the access keys that stay active although they went back: where none is left that has not and may do everything, those that may.
///
/// # Errors
/// [`StoreError`] where the store cannot be read.
pub(super) fn spared(
    store: &dyn Store,
    sealer: &RecordSealer,
    lost: &[Lost],
) -> Result<Vec<String>, StoreError> {
    let lost: HashMap<&str, &Remembered> = lost.iter().map(|one| (one.path.as_str(), &one.known)).collect();
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
