//! What the records of several nodes on one store are: what each says of itself, and what all rely on.

use keymill_core::access::Caller;
use keymill_core::id::{AapName, AccessKeyId, NodeName};
use keymill_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::Kind;

/// What a node says of itself to the others of its cluster, for as long as it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The process that has the name.
    pub process: Box<str>,
    /// The version of the software.
    pub software: Box<str>,
    /// The record formats that it reads.
    pub formats: Formats,
    /// When it started.
    pub started_at: Timestamp,
    /// It takes nothing new, and will end.
    #[serde(default)]
    pub drains: bool,
    /// What it was asked for of late of the requests, items and bytes that the instance may have: thousandths of a unit a second.
    #[serde(default)]
    pub asked: [u64; 3],
    /// Requests that it answered a second, of late.
    #[serde(default)]
    pub requests_per_s: u64,
    /// The same of callers that came to their limits, of what each may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callers: Vec<CallerAsked>,
}

/// What a caller asks a node for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallerAsked {
    /// The caller, where it is an access key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    access_key: Option<AccessKeyId>,
    /// The caller, where it is an application access point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    aap: Option<AapName>,
    /// Requests, items and bytes of late: thousandths of a unit a second.
    pub asked: [u64; 3],
}

impl CallerAsked {
    /// Says what a caller asks for.
    pub fn new(caller: &Caller, asked: [u64; 3]) -> Self {
        match caller {
            Caller::AccessKey(id) => Self { access_key: Some(id.as_ref().clone()), aap: None, asked },
            Caller::Aap(name) => Self { access_key: None, aap: Some(name.clone()), asked },
        }
    }

    /// Returns the caller, where it is of a kind that is known here.
    pub fn caller(&self) -> Option<Caller> {
        let access_key = self.access_key.clone().map(Caller::from);
        access_key.or_else(|| self.aap.clone().map(Caller::Aap))
    }
}

/// A range of record formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Formats {
    /// The oldest.
    pub oldest: u16,
    /// The newest.
    pub newest: u16,
}

impl Formats {
    /// Those that this software reads; it writes the newest, where all nodes read that.
    pub const OURS: Self = Self { oldest: 1, newest: 1 };
}

/// What stands in the place of a record that ended, for the other nodes of a cluster to know that one of them ended it, and nobody else. It
/// follows the record with the next sequence number, and goes once no node can have missed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndedRecord {
    /// When it ended.
    pub at: Timestamp,
    /// The name of what ended, where the path has only a hash of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Box<str>>,
}

/// What every change of who may do what writes, on whichever node: so of two at once one is told that it came second, and rules that look at more
/// than one record hold.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct AccessEpochRecord {
    /// When.
    pub at: Timestamp,
}

/// Whether a store that several nodes use was found to be of another history than one of them had seen, and which history was accepted last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRecord {
    /// When one was accepted last, in milliseconds, and later than the one before; zero: never.
    #[serde(default)]
    pub accepted: u64,
    /// Set by whoever finds another one, and taken away when it is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarm: Option<AlarmRecord>,
    /// The node at which the store is being accepted; still there where that was cut short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepting: Option<NodeName>,
}

/// That a node did not find in the store what it had seen there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmRecord {
    /// The node.
    pub node: NodeName,
    /// When.
    pub at: Timestamp,
    /// What it missed.
    pub why: Box<str>,
}

/// What a node leaves in the store for its own next start: its sequence number is what counts.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct WitnessRecord {
    /// When.
    pub at: Timestamp,
}

/// Tells whether stored bytes say of themselves that a record ended; whether it is so is told by opening them.
pub fn says_ended(bytes: &[u8]) -> bool {
    bytes.get(1) == Some(&(Kind::Ended as u8))
}
