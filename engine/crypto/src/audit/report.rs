//! What a verifier found out about a chain.

use std::collections::BTreeMap;
use std::fmt;

use keymill_core::audit::RecordStamp;

use super::ChainHead;

/// What a chain holds, and the first line that is wrong.
#[derive(Clone, Debug)]
pub struct ChainReport {
    /// Where the chain ends, as far as it is good.
    pub head: ChainHead,
    /// The first line that is wrong; nothing after it was looked at.
    pub bad: Option<BadLine>,
    /// Whether a last line was cut by a crash; its request was never answered.
    pub torn: bool,
    /// Whether the writer ended the chain itself.
    pub closed: bool,
    /// Good checkpoints.
    pub checkpoints: u64,
    /// Intact lines after the last checkpoint: under the MAC, but not signed yet.
    pub unsigned: u64,
    /// Request records.
    pub requests: u64,
    /// Request records by outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Notes.
    pub notes: u64,
    /// The time of the first line, as it has it; empty where there is none.
    pub from: String,
    /// The time of the last line that is good.
    pub to: String,
    /// Where chains ended that notes say were removed, their time being over.
    pub retired: Vec<ChainHead>,
    /// Lines that a place beside the file did not get, by the notes of that.
    pub shed: Vec<Shed>,
    /// The heads of earlier chains that the `open` line names.
    pub previous: Vec<ChainHead>,
    /// What the node had left in the store for its own next start, by the last note of that.
    pub witness: Option<RecordStamp>,
}

/// Lines of a chain that a place beside its file did not get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shed {
    /// The place.
    pub sink: String,
    /// How many.
    pub lines: u64,
    /// The number of the first.
    pub first: u64,
    /// The number of the last.
    pub last: u64,
}

impl ChainReport {
    /// Tells whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.bad.is_none()
    }
}

/// A line that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its place, from 1.
    pub number: u64,
    /// What is wrong with it.
    pub fault: Fault,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.number, self.fault)
    }
}

/// What can be wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It has not the form of an audit line.
    Malformed,
    /// Its MAC differs.
    Altered,
    /// Lines before it are gone.
    Missing {
        /// The number that it carries.
        found: u64,
    },
    /// It stands later than it was written.
    OutOfOrder {
        /// The number that it carries.
        found: u64,
    },
    /// The chain does not begin with its `open` line.
    NotOpened,
    /// The `open` line is of another chain, or of another instance's keys.
    AnotherChain,
    /// The `open` line states a format that is not known here.
    UnknownFormat {
        /// The version stated.
        version: u32,
    },
    /// The signature or the count of a checkpoint is wrong.
    BadCheckpoint,
    /// It follows the end that the writer had set.
    AfterClose,
    /// The chain ends before it.
    Cut {
        /// The last line that is remembered.
        remembered: u64,
    },
    /// It is not the line that is remembered.
    Replaced,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Malformed => f.write_str("not an audit line"),
            Fault::Altered => f.write_str("altered, or brought from another chain"),
            Fault::Missing { found } => write!(f, "lines are missing before the one of number {found}"),
            Fault::OutOfOrder { found } => write!(f, "repeats or moves the line of number {found}"),
            Fault::NotOpened => f.write_str("the opening line is missing"),
            Fault::AnotherChain => f.write_str("opens another chain, or one of another instance"),
            Fault::UnknownFormat { version } => write!(f, "format version {version} is not known"),
            Fault::BadCheckpoint => f.write_str("the checkpoint does not verify"),
            Fault::AfterClose => f.write_str("follows the end of the chain"),
            Fault::Cut { remembered } => write!(f, "cut off here: line {remembered} is remembered"),
            Fault::Replaced => f.write_str("another line is remembered in its place"),
        }
    }
}
