//! The options of the store, with their defaults.

use std::path::PathBuf;

/// What [`open`](crate::open) needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory; made with mode 0700 where it is absent.
    pub directory: PathBuf,
    /// Removals that a watch can still be told of, at most; a watch from before them is told to list again.
    pub kept_removals: u32,
    /// Pages of 4096 bytes that the database may grow to; writes beyond them are refused as `Full`. `None`: as the disk allows.
    pub max_pages: Option<u32>,
}

impl Config {
    /// Returns the defaults for a data directory.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), kept_removals: 4096, max_pages: None }
    }
}
