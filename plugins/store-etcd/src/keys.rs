//! Where things stand in etcd, under the prefix:
//!
//! | key | holds |
//! |---|---|
//! | `format` | the version of this layout |
//! | `lease/NAME` | who holds a lease of the seam |
//! | `record/PATH` | a record |
//! | `revision` | the mark of the newest commit; every commit writes it, last, so that its own revision is that of the newest commit |
//! | `slot/PROCESS/NUMBER` | the mark of the last commit that a process made by that slot |
//!
//! Records and `revision` stand beside each other, so that one watch has both, in the order in which they were written.

use bytes::Bytes;
use keymill_core::seam::store::Path;

/// The version of the layout.
pub(crate) const FORMAT: &str = "1";

/// The keys under a prefix.
pub(crate) struct Keys {
    /// With its `/`.
    base: String,
}

/// A range of keys.
#[derive(Clone)]
pub(crate) struct Span {
    pub(crate) from: Bytes,
    /// The first key behind it.
    pub(crate) end: Bytes,
}

impl Keys {
    pub(crate) fn under(prefix: &str) -> Self {
        Self { base: format!("{prefix}/") }
    }

    pub(crate) fn format(&self) -> Bytes {
        self.at("format")
    }

    pub(crate) fn newest(&self) -> Bytes {
        self.at("revision")
    }

    pub(crate) fn lease(&self, name: &Path) -> Bytes {
        self.at(&format!("lease/{name}"))
    }

    pub(crate) fn record(&self, path: &Path) -> Bytes {
        self.at(&format!("record/{path}"))
    }

    pub(crate) fn slot(&self, process: &str, number: u64) -> Bytes {
        self.at(&format!("slot/{process}/{number}"))
    }

    /// Returns where the records stand whose path begins with `prefix`, from behind `after` on.
    pub(crate) fn records(&self, prefix: &str, after: Option<&str>) -> Span {
        let from = match after {
            // Right behind it: no key stands between.
            Some(after) if after >= prefix => self.at(&format!("record/{after}\0")),
            _ => self.at(&format!("record/{prefix}")),
        };
        // No path holds a byte above "z".
        Span { from, end: self.at(&format!("record/{prefix}\u{7f}")) }
    }

    /// Returns where all records and the newest revision stand.
    pub(crate) fn watched(&self) -> Span {
        Span { from: self.at("record/"), end: self.at("revision\0") }
    }

    /// Returns the path of a record as text; where somebody else wrote it, it may be no path.
    pub(crate) fn path_of<'a>(&self, key: &'a [u8]) -> Option<&'a str> {
        let rest = key.strip_prefix(self.base.as_bytes())?.strip_prefix(b"record/")?;
        std::str::from_utf8(rest).ok()
    }

    fn at(&self, name: &str) -> Bytes {
        Bytes::from(format!("{}{name}", self.base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_has_records_and_revision_and_nothing_else() {
        let keys = Keys::under("km");
        let span = keys.watched();
        let path = Path::new("key/a").expect("a path");
        let is_in = |key: &Bytes| *key >= span.from && *key < span.end;
        assert!(is_in(&keys.record(&path)) && is_in(&keys.newest()));
        assert!(keys.record(&path) < keys.newest());
        for other in [keys.format(), keys.lease(&path), keys.slot("p", 1)] {
            assert!(!is_in(&other), "{other:?}");
        }
    }

    #[test]
    fn a_page_begins_right_behind_a_path() {
        let keys = Keys::under("km");
        assert_eq!(keys.records("a/", None).from, "km/record/a/");
        assert_eq!(keys.records("a/", Some("a/b")).from, "km/record/a/b\0");
        assert_eq!(keys.records("b/", Some("a/b")).from, "km/record/b/");
        assert_eq!(keys.path_of(b"km/record/a/b"), Some("a/b"));
        assert_eq!(keys.path_of(b"km/revision"), None);
        assert_eq!(keys.path_of(b"kn/record/a"), None);
    }
}
