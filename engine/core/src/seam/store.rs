//! The seam to the store: a small versioned key-value map with compare-and-commit, watch and leases. It holds metadata and
//! wrapped or sealed material, never plaintext keys.

use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};

/// A small versioned key-value map.
pub trait Store: Send + Sync {
    /// Returns the entry at `path`.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn get(&self, path: &Path) -> Result<Option<Entry>, StoreError>;
    /// Returns entries whose path begins with `prefix`, in order of their paths (as bytes).
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn list(&self, prefix: &Path, page: Page<'_>) -> Result<Vec<Entry>, StoreError>;
    /// Calls `each` for every record as of one moment, in whatever order is the fastest, until it returns false.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    fn scan(&self, each: &mut dyn FnMut(Row<'_>) -> bool) -> Result<(), StoreError>;
    /// Writes all or none, and returns once it is durable; each write names the revision that it read.
    ///
    /// # Errors
    /// `Conflict` where a path is at another revision than named, `Full` where there is no space, `OtherHistory` where the store was found not to
    /// hold what this process has seen: from then on nothing is written but the [alarm](ALARM).
    fn commit(&self, writes: &[Write]) -> Result<Revision, StoreError>;
    /// Calls `each` for every commit behind revision `from` that wrote something under `prefix`, in order, until it returns false or the
    /// store closes. Blocks. A write that a later commit replaced before it was told of may be left out: the later one is told before
    /// the next [`Change::Current`].
    ///
    /// [`Change::Current`] comes at least once a second, under load too. A caller that sees none for longer is behind, or cut off. It is told
    /// only where the store itself was asked after `as_of`: an answer that was held up on its way, or by a pause of this process, makes
    /// nothing fresh.
    ///
    /// # Errors
    /// `Compacted` where changes after `from` are no longer known: list again. `Unavailable` where the store was away for too long: watch
    /// again from the revision that was told last. `OtherHistory` where the store does not hold what this process has seen of it, whichever watch
    /// or commit that was told by.
    fn watch(
        &self,
        prefix: &Path,
        from: Revision,
        each: &mut dyn FnMut(Change<'_>) -> bool,
    ) -> Result<(), StoreError>;
    /// Takes or renews the lease `name` for `holder`; `None` while another holds it.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be written, `OtherHistory` among them where taking one is a commit.
    fn lease(&self, name: &Path, holder: &str, ttl: Duration) -> Result<Option<Lease>, StoreError>;
    /// Returns the revision of the newest commit, zero for an empty store.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read, `OtherHistory` where it does not hold what this process has seen.
    fn revision(&self) -> Result<Revision, StoreError>;
}

/// The number of a commit; it only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

/// Where a record stands: segments of `a-z`, `0-9`, `.`, `_`, `-` and upper-case letters, joined by `/`; at most 512 bytes.
/// As a prefix it may end in `/`, or be that [of everything](Path::all).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Box<str>);

impl Path {
    /// Checks and takes a path.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, InvalidPath> {
        let text = text.into();
        let fine = (1..=512).contains(&text.len())
            && !text.starts_with('/')
            && !text.contains("//")
            && text.split('/').all(|segment| segment != "." && segment != "..")
            && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'/'));
        if fine { Ok(Self(text)) } else { Err(InvalidPath) }
    }

    /// Returns the prefix of everything, for lists and watches: the empty path. No record can stand there.
    pub fn all() -> Self {
        Self(Box::default())
    }

    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns what is greater than every path that begins with this one, as bytes are ordered: no path holds a byte above `z`.
    pub fn end(&self) -> String {
        format!("{}\u{7f}", self.0)
    }

    /// Returns from where on paths stand that begin with this one and follow `after`, as bytes are ordered.
    pub fn start_behind(&self, after: Option<&Path>) -> String {
        match after {
            // No path holds a byte below "-", so this stands right behind `after` and before all that follow it.
            Some(after) if after >= self => format!("{after}\u{1}"),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not a path.
#[derive(Debug)]
pub struct InvalidPath;

impl fmt::Display for InvalidPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a path is segments of letters, digits, ., _ and -, joined by /, of at most 512 bytes")
    }
}

impl std::error::Error for InvalidPath {}

/// A stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub path: Path,
    /// Its bytes.
    pub value: Vec<u8>,
    /// The commit that wrote it.
    pub revision: Revision,
}

/// A stored record as a scan passes it by: nothing is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row<'a> {
    /// Where it stands; where somebody altered that, it may be no path.
    pub path: &'a str,
    /// Its bytes.
    pub value: &'a [u8],
    /// The commit that wrote it.
    pub revision: Revision,
}

/// Which rows of a list to return.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// Only paths behind this one.
    pub after: Option<&'a Path>,
    /// At most so many rows.
    pub limit: usize,
}

/// One write of a commit.
#[derive(Clone, Debug)]
pub struct Write {
    /// Where.
    pub path: Path,
    /// The revision that was read; `None`: there must be no record.
    pub expected: Option<Revision>,
    /// The new bytes; `None` removes the record.
    pub value: Option<Vec<u8>>,
}

/// Where the record stands by which whoever finds a store to be of another history has all others know. It is the one that may be written then.
pub const ALARM: &str = "history";

/// Below here lie parts of a store that are stores of their own, each below its own name.
pub const PARTS: &str = "instance-data/";

/// Tells whether a commit writes the alarm and nothing else, that of the store or of a part of it. What others call by that name, an alias among them,
/// is none.
pub fn is_alarm(writes: &[Write]) -> bool {
    let is_its = |path: &str| match path.strip_prefix(PARTS) {
        Some(part) => part.split_once('/').is_some_and(|(_, path)| path == ALARM),
        None => path == ALARM,
    };
    matches!(writes, [write] if is_its(write.path.as_str()))
}

/// Refuses a commit that writes a path twice, since the second write cannot name a revision that anyone has read, and one that writes to
/// the prefix of everything, where no record stands.
///
/// # Errors
/// `Conflict` with the first such path.
pub fn check_distinct(writes: &[Write]) -> Result<(), StoreError> {
    let mut seen = HashSet::with_capacity(writes.len());
    match writes.iter().find(|write| write.path.as_str().is_empty() || !seen.insert(&write.path)) {
        Some(write) => Err(StoreError::Conflict(write.path.clone())),
        None => Ok(()),
    }
}

/// What a watch reports.
#[derive(Debug)]
pub enum Change<'a> {
    /// One commit: all that it wrote under the prefix, whole, in one call.
    Commit {
        /// Its number.
        revision: Revision,
        /// What it wrote, in its order; never nothing.
        writes: &'a [Wrote<'a>],
    },
    /// The view holds every commit that was acknowledged before this moment.
    Current {
        /// A moment from before the store was asked.
        as_of: Instant,
    },
}

/// A record that a commit wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrote<'a> {
    /// Where.
    pub path: &'a Path,
    /// The new bytes; `None`: removed.
    pub value: Option<&'a [u8]>,
}

/// When a watch that reads commits piece by piece is current: once it has told what was the newest when it first looked, so that commits
/// which come faster than it tells do not keep it from ever saying so.
#[derive(Debug, Default)]
pub struct Goal(Option<(Revision, Instant)>);

impl Goal {
    /// Takes note that the store was asked at `asked`, that its newest commit was `newest` then, and that everything up to `told` was told;
    /// returns as of when the watch is current, where it is.
    pub fn reached(&mut self, asked: Instant, newest: Revision, told: Revision) -> Option<Instant> {
        let (revision, as_of) = match told >= newest {
            true => (newest, asked),
            false => *self.0.get_or_insert((newest, asked)),
        };
        (told >= revision).then(|| {
            self.0 = None;
            as_of
        })
    }
}

/// A lease that was given; writes made under it are fenced by its revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Grows each time that the lease changes hands.
    pub fence: Revision,
}

/// Why a store could not do what it was asked.
#[derive(Debug)]
pub enum StoreError {
    /// A path is at another revision: read again.
    Conflict(Path),
    /// The changes asked for are no longer known: list again.
    Compacted,
    /// There is no space: writes are refused, reads go on.
    Full(String),
    /// The store cannot be reached: try later.
    Unavailable(String),
    /// The store does not hold what was seen of it: it was put back to an earlier time, or a server took over that had not all. Stop, and have
    /// somebody look.
    OtherHistory(String),
    /// The store is damaged: stop.
    Corrupt(String),
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Conflict(path) => write!(f, "the record {path} was changed meanwhile"),
            StoreError::Compacted => f.write_str("the changes asked for are no longer known"),
            StoreError::Full(why) => write!(f, "the store is full: {why}"),
            StoreError::Unavailable(why) => write!(f, "the store is unavailable: {why}"),
            StoreError::OtherHistory(why) => write!(f, "the store is of another history: {why}"),
            StoreError::Corrupt(why) => write!(f, "the store is damaged: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let (kind, message) = match &error {
            StoreError::Conflict(_) => (ErrorKind::Conflict, "the resource was changed meanwhile"),
            StoreError::Compacted => (ErrorKind::Unavailable, "the store must be read anew"),
            StoreError::Full(_) => {
                (ErrorKind::StoreUnavailable, "the store has no space: writes are refused")
            }
            StoreError::Unavailable(_) => (ErrorKind::StoreUnavailable, "the store is unavailable"),
            StoreError::OtherHistory(_) => (ErrorKind::StoreUnavailable, "the store is of another history"),
            StoreError::Corrupt(_) => (ErrorKind::Internal, "the store is damaged"),
        };
        Error::new(kind, message).caused_by(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_climb_or_hide_a_byte() {
        for good in ["cmk/0a-1b", "a", "alias/People_1", "cmk/"] {
            assert!(Path::new(good).is_ok(), "{good}");
        }
        for bad in ["", "/a", "a//b", "a/../b", "./a", "a b", "a\0", "a%2e", "é"] {
            assert!(Path::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_begins_with_a_path_stands_between_its_start_and_its_end() {
        let path = |text: &str| Path::new(text).expect("a path");
        let prefix = path("cmk/a");
        let inside = ["cmk/a", "cmk/a-", "cmk/a/z", "cmk/aZ", "cmk/az"].map(path);
        for (at, one) in inside.iter().enumerate() {
            assert!(*prefix.start_behind(None) <= *one.as_str() && *one.as_str() < *prefix.end(), "{one}");
            for (than, other) in inside.iter().enumerate() {
                assert_eq!(
                    *other.as_str() >= *prefix.start_behind(Some(one)),
                    than > at,
                    "{other} behind {one}"
                );
            }
        }
        for outside in ["cmk/Z", "cmk/b", "cmk-a", "cmk/"].map(path) {
            let outside = outside.as_str();
            assert!(outside < &*prefix.start_behind(None) || outside >= &*prefix.end(), "{outside}");
        }
        assert_eq!(prefix.start_behind(Some(&path("alias/x"))), "cmk/a");
    }

    #[test]
    fn everything_begins_with_the_prefix_of_everything() {
        let (all, least, greatest) = (Path::all(), Path::new("-").expect("a path"), "z".repeat(512));
        let greatest = Path::new(greatest).expect("a path");
        for one in [&least, &greatest] {
            assert!(*all.start_behind(None) <= *one.as_str() && *one.as_str() < *all.end(), "{one}");
        }
        assert!(*least.as_str() < *all.start_behind(Some(&least)));
        assert!(*greatest.as_str() >= *all.start_behind(Some(&least)));
    }

    #[test]
    fn a_watch_under_load_is_current_as_of_when_it_began_to_catch_up() {
        let (start, mut goal) = (Instant::now(), Goal::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut reached = |asked, newest, told| goal.reached(at(asked), Revision(newest), Revision(told));
        assert_eq!(reached(0, 5, 5), Some(at(0)));
        assert_eq!(reached(1, 100, 60), None);
        assert_eq!(reached(2, 150, 99), None);
        assert_eq!(reached(3, 200, 130), Some(at(1)));
        assert_eq!(reached(4, 250, 190), None);
        assert_eq!(reached(5, 250, 250), Some(at(5)), "the newest of all is the freshest");
        assert_eq!(reached(6, 300, 270), None);
    }

    #[test]
    fn a_path_is_written_once_in_a_commit() {
        let write =
            |text: &str| Write { path: Path::new(text).expect("a path"), expected: None, value: None };
        assert!(check_distinct(&[write("a"), write("b")]).is_ok());
        match check_distinct(&[write("a"), write("b"), write("a")]) {
            Err(StoreError::Conflict(path)) => assert_eq!(path.as_str(), "a"),
            other => panic!("a conflict was due, not {other:?}"),
        }
        let alarms = [("history", true), ("instance-data/a/history", true)];
        let others = ["histories", "alias/history", "instance-data/history", "instance-data/a/alias/history"];
        for (path, is_its) in alarms.into_iter().chain(others.map(|other| (other, false))) {
            assert_eq!((is_alarm(&[write(path)]), is_alarm(&[write(path), write("a")])), (is_its, false));
        }
        let nowhere = Write { path: Path::all(), expected: None, value: Some(Vec::new()) };
        assert!(matches!(check_distinct(&[nowhere]), Err(StoreError::Conflict(_))));
    }
}
