//! Audit chains: lines of JSON that hold each other, so that none can be altered, dropped, moved or cut without being noticed.
//! One chain has one writer and lives as long as its process; where the lines are kept is the sink's matter.
//!
//! ```text
//! {"seq":1,"time":"2026-11-24T05:30:17.000Z","type":"open","chain":"…","version":1,…,"mac":"<32 hex>"}
//! {"seq":2,"time":"2026-11-24T05:30:17.012Z","type":"request",…,"mac":"<32 hex>"}
//! {"seq":3,"time":"2026-11-24T05:30:17.013Z","type":"request",…,"alike":[["<id>",<microseconds>],…],"mac":"<32 hex>"}
//! {"seq":4,"time":"2026-11-24T05:30:18.000Z","type":"checkpoint","count":3,"closed":false,"signature":"…","mac":"<32 hex>"}
//! ```
//!
//! - `seq` counts lines from 1. A line holds printable ASCII only (JSON escapes carry the rest): a record stays a line.
//! - A line of type `request` is the record of one request; `alike` adds the ids and times of those that were answered in the same
//!   moment and differ in nothing else (caller, source, operation, outcome, rule, keys, number of items, context).
//! - `mac` = first 16 bytes of HMAC-SHA256(K, MAC of the line before ‖ bytes of this line up to `,"mac":`); 16 zero bytes
//!   stand before the first line.
//! - K = HMAC-SHA256(audit key, `keymill-audit-chain-1` ‖ chain name). After each checkpoint line K becomes
//!   HMAC-SHA256(K, `ratchet`) and the old K is wiped: who takes it from memory cannot rewrite what came before.
//! - `signature` = Ed25519 over six lines, each ended by `\n`: `keymill-audit-checkpoint-1`, chain name, `seq` of the
//!   checkpoint, `mac` of the line before it, `time` of the checkpoint, `true` or `false` for `closed`.
//!
//! With the audit key every line is checked. With the verifying key alone (the `open` line shows it, but take it from elsewhere)
//! numbering and checkpoints are: that this server stood at that MAC at that time, and that whole lines are neither
//! missing nor moved. Lines altered in place need the audit key. A cut tail needs a head kept elsewhere: in the store while the
//! process lives, then as `previous` in the `open` line of a later chain.
//!
//! A writer whose file has become large or old ends its chain and opens another, whose `open` line names the end of the one before as
//! `previous`: the files of one writer hold each other as the lines of one file do. A chain whose time is over is verified, named as
//! `retired` in a note of a management chain, and removed; one that is gone without such a note was taken.

mod head;
mod json;
mod keys;
mod note;
mod record;
mod report;
mod stamps;
#[cfg(test)]
mod tampering;
mod verifier;
mod writer;

pub use head::{ChainHead, Heads};
pub use keys::ChainKeys;
pub use note::Note;
pub use report::{BadLine, ChainReport, Fault, Shed};
pub use stamps::{Remembered, RememberedTag, Stamps};
pub use verifier::ChainVerifier;
pub use writer::{ChainWriter, Opening};

/// The version of the line format, in every `open` line.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes of a line's MAC.
pub const MAC_BYTES: usize = 16;

type Mac = [u8; MAC_BYTES];

/// What stands between a line's last field and its MAC; `"}` ends the line.
const MAC_FIELD: &[u8] = b",\"mac\":\"";

/// The six lines that a checkpoint signs, also what a public verifier builds.
fn checkpoint_text(chain: &str, sequence: u64, before: &Mac, time: &str, closed: bool) -> String {
    let before = json::hex_text(before);
    format!("keymill-audit-checkpoint-1\n{chain}\n{sequence}\n{before}\n{time}\n{closed}\n")
}
