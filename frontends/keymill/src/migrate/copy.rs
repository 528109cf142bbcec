//! How the records of one store come into another. First both are walked beside each other, in the order of the paths, and what differs is
//! written: so a copy that was killed goes on, and what was removed meanwhile goes. Then the source is followed by its watch, from the
//! revision that it had before the walk. At the end both are compared by a digest over all that they hold.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use keymill_core::seam::store::{Change, Entry, Path, Revision, Store, StoreError};

use crate::failure::Failure;

use super::holdings::{Holdings, Pages};
use super::target::{Target, marker_path};

/// Changes that are gathered before they are written, at most; a commit of the source is taken whole.
const MAX_PENDING: usize = 100;
const MAX_PENDING_BYTES: usize = 512 << 10;
/// How often what both stores hold may differ although the source is quiet, before that is told.
const COMPARISONS: u32 = 2;

/// One of the two stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Source,
    Target,
}

/// How to migrate.
pub(super) struct Manner {
    /// Whether the servers of the source are stopped.
    pub(super) finish: bool,
    /// How long nothing may be written to the source at the end.
    pub(super) quiet: Duration,
    /// How often a store that is away is tried again, and after what time.
    pub(super) tries: u32,
    pub(super) pause: Duration,
}

/// How far a migration is. Whoever is told says whether it goes on.
#[derive(Debug)]
pub(super) enum Step<'a> {
    /// So many records of the source were compared with the target.
    Compared { records: u64 },
    /// The target has what the source had a moment ago.
    CaughtUp { changed: u64 },
    /// So many records of one side were read for the digest.
    Verified { side: Side, records: u64 },
    /// A store is away.
    Waiting { side: Side, why: &'a StoreError },
}

/// How a migration ended.
#[derive(Debug)]
pub(super) enum End {
    /// Both hold the same, and the target may be used.
    Finished { held: Holdings, changed: u64 },
    /// It was told to stop while it followed.
    Stopped { changed: u64 },
}

/// Why a migration did not go on.
#[derive(Debug)]
pub(super) enum Trouble {
    Store(Side, StoreError),
    /// Somebody has to see to it.
    Refused(Failure),
    Interrupted,
}

impl Trouble {
    pub(super) fn refused(why: impl Into<String>, next: &str) -> Self {
        Self::Refused(Failure::new(why).next(next))
    }
}

type Result<T, E = Trouble> = std::result::Result<T, E>;

/// Migrates, over stores that are away for a while.
pub(super) fn migrate(
    source: &dyn Store,
    target: &dyn Store,
    from: &str,
    manner: &Manner,
    step: &mut dyn FnMut(Step<'_>) -> bool,
) -> Result<End> {
    let mut tried = 0;
    let (mut taken, mut compared) = (None::<Target<'_>>, 0);
    loop {
        let round = round(source, target, from, &mut taken, manner, &mut |told| {
            if matches!(told, Step::CaughtUp { .. }) {
                tried = 0;
            }
            step(told)
        });
        match round {
            Ok(Round::Stopped) => {
                return Ok(End::Stopped { changed: taken.map_or(0, |target| target.changed) });
            }
            Ok(Round::Same(held)) => {
                let Some(target) = taken.take() else { continue };
                let changed = target.changed;
                target.release()?;
                return Ok(End::Finished { held, changed });
            }
            Ok(Round::Differ(source, target)) => {
                compared += 1;
                if compared >= COMPARISONS {
                    return Err(Trouble::refused(
                        format!(
                            "the source holds {} records of {} bytes, the target {} of {}: they are not the same",
                            source.records, source.bytes, target.records, target.bytes
                        ),
                        "see that nobody else writes to the target, and run the same again",
                    ));
                }
            }
            // Both are walked anew.
            Err(Trouble::Store(Side::Source, StoreError::Compacted)) if tried < manner.tries => tried += 1,
            Err(Trouble::Store(side, why @ StoreError::Unavailable(_))) if tried < manner.tries => {
                tried += 1;
                if !step(Step::Waiting { side, why: &why }) {
                    return Err(Trouble::Interrupted);
                }
                std::thread::sleep(manner.pause);
            }
            Err(trouble) => return Err(trouble),
        }
    }
}

/// What became of a round.
enum Round {
    Stopped,
    Same(Holdings),
    Differ(Holdings, Holdings),
}

/// Walks both stores, follows the source, and compares.
fn round<'a>(
    source: &dyn Store,
    store: &'a dyn Store,
    from: &str,
    taken: &mut Option<Target<'a>>,
    manner: &Manner,
    step: &mut dyn FnMut(Step<'_>) -> bool,
) -> Result<Round> {
    let target = match taken {
        None => taken.insert(Target::take(store, from)?),
        Some(target) => {
            target.again()?;
            target
        }
    };
    let began = source.revision().map_err(of_source)?;
    walk(source, target, step)?;
    if !follow(source, began, target, manner.finish, step)? {
        return Ok(Round::Stopped);
    }
    let (before, since) = (source.revision().map_err(of_source)?, Instant::now());
    let theirs = Holdings::of(source, Side::Source, step)?;
    let ours = Holdings::of(target.store, Side::Target, step)?;
    std::thread::sleep(manner.quiet.saturating_sub(since.elapsed()));
    if source.revision().map_err(of_source)? != before {
        return Err(Trouble::refused(
            "the source is still written to",
            "stop every server that has it as its store, and run the same again",
        ));
    }
    Ok(if theirs == ours { Round::Same(theirs) } else { Round::Differ(theirs, ours) })
}

fn of_source(error: StoreError) -> Trouble {
    Trouble::Store(Side::Source, error)
}

/// Walks both stores in the order of the paths, and writes to the target what differs. Either may change meanwhile behind the walk.
fn walk(source: &dyn Store, target: &mut Target<'_>, step: &mut dyn FnMut(Step<'_>) -> bool) -> Result<()> {
    let mut theirs = Pages::of(source, Side::Source);
    let mut ours = Pages::of(target.store, Side::Target);
    let mut records = 0;
    loop {
        let order = match (theirs.peek()?, ours.peek()?) {
            (None, None) => return target.flush(),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(theirs), Some(ours)) => theirs.path.cmp(&ours.path),
        };
        let wanted = if order.is_le() { theirs.next()? } else { None };
        let there = if order.is_ge() { ours.next()? } else { None };
        records += u64::from(wanted.is_some());
        bring(target, wanted.map(|entry| (entry.path, entry.value)), there)?;
        if !step(Step::Compared { records }) {
            return Err(Trouble::Interrupted);
        }
    }
}

/// Has a record of the target become what is wanted.
fn bring(target: &mut Target<'_>, wanted: Option<(Path, Vec<u8>)>, there: Option<Entry>) -> Result<()> {
    match (wanted, there) {
        (Some((_, value)), Some(there)) if value == there.value => Ok(()),
        (Some((path, value)), there) => target.write(path, there.map(|entry| entry.revision), Some(value)),
        (None, Some(there)) => target.write(there.path, Some(there.revision), None),
        (None, None) => Ok(()),
    }
}

/// Follows the source until the target has caught up, where that is all that is wanted, or until it is told to stop: then false.
fn follow(
    source: &dyn Store,
    from: Revision,
    target: &mut Target<'_>,
    only_catch_up: bool,
    step: &mut dyn FnMut(Step<'_>) -> bool,
) -> Result<bool> {
    let mut pending = Pending::default();
    let mut outcome = Ok(false);
    let watched = source.watch(&Path::all(), from, &mut |change| {
        let took = match change {
            Change::Commit { writes, .. } => {
                for write in writes {
                    pending.take(write.path, write.value);
                }
                if pending.is_full() { pending.apply(target) } else { Ok(()) }
            }
            Change::Current { .. } => pending.apply(target),
        };
        if let Err(trouble) = took {
            outcome = Err(trouble);
            return false;
        }
        if matches!(change, Change::Commit { .. }) {
            return true;
        }
        let goes_on = step(Step::CaughtUp { changed: target.changed });
        outcome = Ok(goes_on && only_catch_up);
        goes_on && !only_catch_up
    });
    // What went wrong with the target comes first: the watch ended by it.
    outcome.and_then(|outcome| watched.map_err(of_source).map(|()| outcome))
}

/// The newest values of what was changed in the source and is not in the target yet.
#[derive(Default)]
struct Pending {
    values: BTreeMap<Path, Option<Vec<u8>>>,
    bytes: usize,
}

impl Pending {
    fn take(&mut self, path: &Path, value: Option<&[u8]>) {
        self.bytes += path.as_str().len() + value.map_or(0, <[u8]>::len);
        self.values.insert(path.clone(), value.map(<[u8]>::to_vec));
    }

    fn is_full(&self) -> bool {
        self.values.len() >= MAX_PENDING || self.bytes >= MAX_PENDING_BYTES
    }

    fn apply(&mut self, target: &mut Target<'_>) -> Result<()> {
        self.bytes = 0;
        for (path, value) in std::mem::take(&mut self.values) {
            if path == marker_path() {
                continue;
            }
            let there = target.store.get(&path).map_err(|error| Trouble::Store(Side::Target, error))?;
            bring(target, value.map(|value| (path, value)), there)?;
        }
        target.flush()
    }
}
