//! Notes: what the audit must keep that is not the record of one request.

use keymill_core::Timestamp;
use keymill_core::audit::RecordStamp;

use super::{ChainHead, json, record};

/// Something that happened to the server rather than in a request.
#[derive(Clone, Debug)]
pub enum Note<'a> {
    /// The clock of the machine jumped.
    ClockJump {
        /// What it should have shown.
        from: Timestamp,
        /// What it shows.
        to: Timestamp,
    },
    /// Records that a crash had kept out of the audit, found again in the store.
    Recovered {
        /// The records as they stand.
        writes: &'a [RecordStamp],
    },
    /// Records that other nodes of a cluster wrote, as this one has seen them.
    Followed {
        /// The records; without a tag, those that ended.
        writes: &'a [RecordStamp],
    },
    /// Callers who never logged in were refused.
    Strangers {
        /// The prefix that they came from.
        source: &'a str,
        /// Why they were refused.
        reason: &'a str,
        /// How many times since the last such note.
        count: u64,
    },
    /// The log could not be written for a while, and audited requests were refused.
    Gap {
        /// When it began.
        since: Timestamp,
        /// How many requests were refused.
        refused: u64,
    },
    /// A chain was removed because its time was over: it had ended, and it was verified.
    Retired {
        /// Where it ended.
        head: &'a ChainHead,
        /// The requests that it recorded.
        requests: u64,
        /// The time of its first line, as the line had it.
        from: &'a str,
        /// The time of its last line.
        to: &'a str,
        /// The bytes that it took.
        bytes: u64,
        /// By which rule: `age` or `bytes`.
        rule: &'a str,
    },
    /// A place that lines are sent to beside this one took some of them not, and goes on without them. They are in this chain.
    Shed {
        /// The place.
        sink: &'a str,
        /// How many lines.
        lines: u64,
        /// The number of the first of them.
        first: u64,
        /// The number of the last of them.
        last: u64,
    },
    /// A record that this node has left in the store it shares, for its own next start: a store that does not hold it then was put back.
    Witness {
        /// The record.
        stamp: &'a RecordStamp,
    },
}

impl Note<'_> {
    /// Returns the name of its kind, as the line has it.
    pub fn name(&self) -> &'static str {
        match self {
            Note::ClockJump { .. } => "clock-jump",
            Note::Recovered { .. } => "recovered",
            Note::Followed { .. } => "followed",
            Note::Strangers { .. } => "strangers",
            Note::Gap { .. } => "gap",
            Note::Retired { .. } => "retired",
            Note::Shed { .. } => "shed",
            Note::Witness { .. } => "witness",
        }
    }

    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"note\":");
        json::text(out, self.name());
        match self {
            Note::ClockJump { from, to } => {
                time(out, b",\"from\":", *from);
                time(out, b",\"to\":", *to);
            }
            Note::Recovered { writes } | Note::Followed { writes } => record::write_stamps(out, writes),
            Note::Strangers { source, reason, count } => {
                out.extend_from_slice(b",\"source\":");
                json::text(out, source);
                out.extend_from_slice(b",\"reason\":");
                json::text(out, reason);
                out.extend_from_slice(b",\"count\":");
                json::number(out, *count);
            }
            Note::Gap { since, refused } => {
                time(out, b",\"since\":", *since);
                out.extend_from_slice(b",\"refused\":");
                json::number(out, *refused);
            }
            Note::Retired { head, requests, from, to, bytes, rule } => {
                out.extend_from_slice(b",\"retired\":[");
                head.write(out);
                out.extend_from_slice(b"],\"rule\":");
                json::text(out, rule);
                out.extend_from_slice(b",\"requests\":");
                json::number(out, *requests);
                out.extend_from_slice(b",\"from\":");
                json::text(out, from);
                out.extend_from_slice(b",\"to\":");
                json::text(out, to);
                out.extend_from_slice(b",\"bytes\":");
                json::number(out, *bytes);
            }
            Note::Shed { sink, lines, first, last } => {
                out.extend_from_slice(b",\"sink\":");
                json::text(out, sink);
                out.extend_from_slice(b",\"shed\":{\"lines\":");
                json::number(out, *lines);
                out.extend_from_slice(b",\"first\":");
                json::number(out, *first);
                out.extend_from_slice(b",\"last\":");
                json::number(out, *last);
                out.push(b'}');
            }
            Note::Witness { stamp } => {
                out.extend_from_slice(b",\"witness\":");
                record::write_stamp(stamp, out);
            }
        }
    }
}

fn time(out: &mut Vec<u8>, field: &[u8], time: Timestamp) {
    out.extend_from_slice(field);
    record::TimeText::default().write(out, time);
}
