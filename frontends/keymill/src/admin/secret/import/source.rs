//! What is read from the files of others: entries with their values, or the line in which a file is wrong. No error holds a value.

use std::collections::BTreeSet;
use std::fmt;

use zeroize::Zeroizing;

/// Entries of one file, at most.
pub(crate) const MAX_ENTRIES: usize = 10_000;

/// A name and its value.
#[derive(PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name, as the file has it.
    pub(crate) key: String,
    /// The value: text, or bytes in base64.
    pub(crate) value: Zeroizing<String>,
    /// Whether it is bytes.
    pub(crate) is_binary: bool,
}

/// Why a file cannot be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// The line, from 1; 0 where there is none to tell.
    pub(crate) line: usize,
    /// What is wrong, without a word of the values.
    pub(crate) why: String,
}

impl Unreadable {
    pub(crate) fn at(line: usize, why: impl Into<String>) -> Self {
        Self { line, why: why.into() }
    }
}

impl Entry {
    /// Makes an entry of text.
    pub(crate) fn text(key: impl Into<String>, value: Zeroizing<String>) -> Self {
        Self { key: key.into(), value, is_binary: false }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({})", self.key)
    }
}

/// Checks that there are not too many, and none twice: of two, nobody knows which was meant.
pub(crate) fn checked(entries: Vec<Entry>) -> Result<Vec<Entry>, Unreadable> {
    if entries.len() > MAX_ENTRIES {
        return Err(Unreadable::at(0, format!("more than {MAX_ENTRIES} entries")));
    }
    let mut seen = BTreeSet::new();
    match entries.iter().find(|entry| !seen.insert(entry.key.as_str())) {
        None => Ok(entries),
        Some(twice) => Err(Unreadable::at(0, format!("{} is there twice", clipped(&twice.key)))),
    }
}

/// Shows a name that may be anything.
pub(crate) fn clipped(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}
