//! The writing side of a chain. It turns records into lines and allocates nothing for it; the caller brings the bytes to the
//! sink in order, and keeps what the sink had no space for until it has: a line that was never kept breaks the chain.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::signature::Ed25519KeyPair;
use keymill_core::audit::AuditRecord;
use keymill_core::{Error, Result, Timestamp};

use super::keys::{ChainKey, ChainKeys};
use super::record::{TimeText, separate, write_record};
use super::{ChainHead, FORMAT_VERSION, MAC_BYTES, MAC_FIELD, Mac, Note, checkpoint_text, json};

const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);
const CHECKPOINT_RECORDS: u64 = 1024;

/// What the first line of a chain says.
pub struct Opening<'a> {
    /// When the chain begins.
    pub time: Timestamp,
    /// The name of this node.
    pub node: &'a str,
    /// The version of the software.
    pub software: &'a str,
    /// Heads of earlier chains that no line names yet, so that one whose file is cut or gone is missed.
    pub previous: &'a [ChainHead],
}

/// The one writer of a chain. A copy is for trying whether its next lines are taken; only one of the two may go on.
#[derive(Clone)]
pub struct ChainWriter {
    chain: Box<str>,
    signing: Arc<Ed25519KeyPair>,
    key: ChainKey,
    sequence: u64,
    mac: Mac,
    /// Lines since the last checkpoint, and the records in them.
    unsigned: u64,
    unsigned_records: u64,
    checkpoint_at: Timestamp,
    closed: bool,
    time: TimeText,
}

impl ChainWriter {
    /// Begins the chain `name` and appends its `open` line to `out`.
    ///
    /// # Errors
    /// `Internal` where the name is not 1 to 64 letters, digits or `-`: it stands in signed text and in a file name.
    pub fn new(keys: &ChainKeys, name: &str, opening: &Opening<'_>, out: &mut Vec<u8>) -> Result<Self> {
        if !(1..=64).contains(&name.len()) || !name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
            return Err(Error::internal("an audit chain's name is not 1 to 64 letters, digits or -"));
        }
        let mut writer = Self {
            chain: name.into(),
            signing: keys.signing(),
            key: keys.chain_key(name),
            sequence: 0,
            mac: [0; MAC_BYTES],
            unsigned: 0,
            unsigned_records: 0,
            checkpoint_at: opening.time,
            closed: false,
            time: TimeText::default(),
        };
        let start = writer.begin(opening.time, b"open", out);
        out.extend_from_slice(b",\"chain\":");
        json::text(out, name);
        out.extend_from_slice(b",\"version\":");
        json::number(out, u64::from(FORMAT_VERSION));
        out.extend_from_slice(b",\"node\":");
        json::text(out, opening.node);
        out.extend_from_slice(b",\"software\":");
        json::text(out, opening.software);
        out.extend_from_slice(b",\"verifying_key\":\"");
        json::hex(out, &keys.verifying_key());
        out.extend_from_slice(b"\",\"previous\":[");
        for (i, head) in opening.previous.iter().enumerate() {
            separate(out, i);
            head.write(out);
        }
        out.push(b']');
        writer.end(start, out);
        Ok(writer)
    }

    /// Appends the line of a request, and of those that are alike, to `out`.
    pub fn append(&mut self, record: &AuditRecord<'_>, out: &mut Vec<u8>) {
        let start = self.begin(record.time, b"request", out);
        write_record(record, out);
        self.end(start, out);
        self.unsigned_records += record.alike.len() as u64;
    }

    /// Appends the line of a note to `out`.
    pub fn note(&mut self, now: Timestamp, note: &Note<'_>, out: &mut Vec<u8>) {
        let start = self.begin(now, b"note", out);
        note.write(out);
        self.end(start, out);
    }

    /// Tells whether a checkpoint should be written: a second or 1,024 records after the last, if there is a line to sign.
    pub fn due(&self, now: Timestamp) -> bool {
        // A clock set back must not put the next checkpoint off.
        let late = now < self.checkpoint_at || now.since(self.checkpoint_at) >= CHECKPOINT_INTERVAL;
        self.unsigned > 0 && !self.closed && (late || self.unsigned_records >= CHECKPOINT_RECORDS)
    }

    /// Appends a signed checkpoint to `out` and steps to the next key.
    pub fn checkpoint(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        self.sign(now, false, out);
    }

    /// Appends the checkpoint that ends the chain to `out`; nothing may follow it.
    pub fn close(&mut self, now: Timestamp, out: &mut Vec<u8>) {
        self.sign(now, true, out);
        self.closed = true;
    }

    /// Returns the number and the MAC of the last line, as [`Self::head`] does with the name.
    pub fn position(&self) -> (u64, [u8; MAC_BYTES]) {
        (self.sequence, self.mac)
    }

    /// Returns how far the chain has come, counting what `out` holds.
    pub fn head(&self) -> ChainHead {
        ChainHead { chain: self.chain.to_string(), sequence: self.sequence, mac: self.mac }
    }

    fn sign(&mut self, now: Timestamp, closed: bool, out: &mut Vec<u8>) {
        let (before, count) = (self.mac, self.unsigned);
        let start = self.begin(now, b"checkpoint", out);
        let text = checkpoint_text(&self.chain, self.sequence, &before, self.time.text(), closed);
        out.extend_from_slice(b",\"count\":");
        json::number(out, count);
        out.extend_from_slice(if closed { b",\"closed\":true" } else { b",\"closed\":false" });
        out.extend_from_slice(b",\"signature\":\"");
        json::hex(out, self.signing.sign(text.as_bytes()).as_ref());
        out.push(b'"');
        self.end(start, out);
        self.key.ratchet();
        self.unsigned = 0;
        self.unsigned_records = 0;
        self.checkpoint_at = now;
    }

    /// Takes the next number and writes what every line begins with; returns where it begins.
    fn begin(&mut self, time: Timestamp, kind: &[u8], out: &mut Vec<u8>) -> usize {
        debug_assert!(!self.closed, "nothing follows the end of a chain");
        let start = out.len();
        out.reserve(640);
        self.sequence += 1;
        out.extend_from_slice(b"{\"seq\":");
        json::number(out, self.sequence);
        out.extend_from_slice(b",\"time\":");
        self.time.write(out, time);
        out.extend_from_slice(b",\"type\":\"");
        out.extend_from_slice(kind);
        out.push(b'"');
        start
    }

    fn end(&mut self, start: usize, out: &mut Vec<u8>) {
        self.mac = self.key.mac(&self.mac, &out[start..]);
        self.unsigned += 1;
        self.unsigned_records += 1;
        out.extend_from_slice(MAC_FIELD);
        json::hex(out, &self.mac);
        out.extend_from_slice(b"\"}\n");
    }
}

#[cfg(test)]
mod tests {
    use keymill_core::audit::{Alike, AuditRecord, KeyTouch, Outcome, RecordStamp, SecretTouch};
    use keymill_core::error::{ErrorKind, Limit};
    use keymill_core::id::{CertificateId, CmkId, RequestId};
    use keymill_core::key::{Fallback, ProtectionLevel};
    use keymill_core::{Sensitive, Timestamp};
    use serde_json::{Value, json};

    use super::*;

    const NOON: Timestamp = Timestamp::from_ms(1_795_521_617_042);

    fn opening() -> Opening<'static> {
        Opening { time: NOON, node: "node-1", software: "0.1.0", previous: &[] }
    }

    fn writer(out: &mut Vec<u8>) -> ChainWriter {
        let keys = ChainKeys::new(&Sensitive::copied(&[1; 32]), &Sensitive::copied(&[2; 32])).unwrap();
        ChainWriter::new(&keys, "20261124T053017Z-a3f91c02-03", &opening(), out).unwrap()
    }

    fn record(time: Timestamp) -> AuditRecord<'static> {
        AuditRecord {
            time,
            request: RequestId::from_bytes([0xab; 16]),
            principal: None,
            source: None,
            frontend: "msgpack",
            operation: "BatchEncrypt",
            outcome: Outcome::Done,
            rule: "default".into(),
            keys: &[],
            secrets: &[],
            certificates: &[],
            providers: &[],
            items: 256,
            failed: 1,
            context: None,
            fallback: None,
            recipient: None,
            approved_by: None,
            micros: 88,
            alike: &[],
            writes: &[],
        }
    }

    fn line(out: &[u8]) -> Value {
        serde_json::from_slice(out.strip_suffix(b"\n").unwrap()).unwrap()
    }

    #[test]
    fn a_line_holds_the_record_as_its_serializer_would_write_it() {
        let id = "AK.root-0001".parse().unwrap();
        let touch =
            |protection| KeyTouch { cmk: CmkId::from_bytes([7; 16]), version: 3, items: 9, protection };
        let keys = [touch(ProtectionLevel::Software), touch(ProtectionLevel::Hsm)];
        let stamp = |path: &str, tag: &str| RecordStamp { path: path.into(), sequence: 4, tag: tag.into() };
        let writes = [stamp("cmk/1", "00ff"), stamp("alias/\"\n", "")];
        let secret = |version: Option<&str>| SecretTouch {
            name: "db/orders".parse().unwrap(),
            version: version.map(|version| version.parse().unwrap()),
        };
        let secrets = [secret(Some("v1")), secret(None)];
        let full = AuditRecord {
            principal: Some(&id),
            source: Some("2001:db8::7".parse().unwrap()),
            outcome: Outcome::Failed(ErrorKind::LimitExceeded(Limit::BatchItems)),
            keys: &keys,
            secrets: &secrets,
            certificates: &[CertificateId::from_bytes([1; 16]), CertificateId::from_bytes([0xfe; 16])],
            providers: &["hsm-1", "a\"b"],
            context: Some("00112233".into()),
            fallback: Some(Fallback::Saturated),
            recipient: Some("f00d".into()),
            approved_by: Some("access-key/AK.two\"".into()),
            alike: &[
                Alike(RequestId::from_bytes([3; 16]), 0),
                Alike(RequestId::from_bytes([4; 16]), u64::MAX),
            ],
            writes: &writes,
            ..record(NOON)
        };
        let mut out = Vec::new();
        let mut writer = writer(&mut out);
        for (record, seq) in [(record(NOON), 2), (full, 3)] {
            out.clear();
            writer.append(&record, &mut out);
            let mut expected = serde_json::to_value(&record).unwrap();
            expected["seq"] = json!(seq);
            expected["type"] = json!("request");
            expected["time"] = json!("2026-11-24T12:00:17.042Z");
            expected["mac"] = json!(json::hex_text(&writer.head().mac));
            assert_eq!(line(&out), expected);
        }
    }

    #[test]
    fn one_record_stays_one_line_whatever_its_texts_hold() {
        let mut out = Vec::new();
        let mut writer = writer(&mut out);
        for text in ["a\nb", "\",\"mac\":\"0", "\x1b[2J\u{9b}2J", "\u{202e}", &"x\n".repeat(1 << 19)] {
            out.clear();
            writer.append(&AuditRecord { operation: text, frontend: text, ..record(NOON) }, &mut out);
            assert_eq!(out.iter().filter(|c| **c == b'\n').count(), 1);
            assert!(out[..out.len() - 1].iter().all(|c| (b' '..=b'~').contains(c)));
            assert!(out.len() < 32 * 1024);
            assert_eq!(line(&out)["items"], 256);
        }
    }

    #[test]
    fn a_checkpoint_is_due_after_a_second_or_1024_records_and_never_for_nothing() {
        let mut out = Vec::new();
        let mut writer = writer(&mut out);
        let later = |ms| Timestamp::from_ms(NOON.as_ms() + ms);
        assert!(!writer.due(later(999)));
        assert!(writer.due(later(1000)));
        assert!(writer.due(Timestamp::from_ms(0)), "a clock set back puts nothing off");
        writer.checkpoint(NOON, &mut out);
        assert!(!writer.due(later(5000)));
        for _ in 0..1023 {
            writer.append(&record(NOON), &mut out);
        }
        assert!(!writer.due(NOON));
        writer.append(&record(NOON), &mut out);
        assert!(writer.due(NOON));
        writer.checkpoint(NOON, &mut out);
        let alike = [Alike(RequestId::from_bytes([1; 16]), 5); 1023];
        writer.append(&AuditRecord { alike: &alike[..1022], ..record(NOON) }, &mut out);
        assert!(!writer.due(NOON));
        writer.checkpoint(NOON, &mut out);
        writer.append(&AuditRecord { alike: &alike, ..record(NOON) }, &mut out);
        assert!(writer.due(NOON), "what one line holds counts as well");
    }

    #[test]
    fn notes_say_what_happened() {
        let mut out = Vec::new();
        let mut writer = writer(&mut out);
        let writes = [RecordStamp { path: "cmk/1".into(), sequence: 2, tag: "ab".into() }];
        let noon = "2026-11-24T12:00:17.042Z";
        for (note, field, expected) in [
            (Note::ClockJump { from: NOON, to: Timestamp::from_ms(0) }, "from", json!(noon)),
            (Note::Recovered { writes: &writes }, "writes", json!(writes)),
            (Note::Followed { writes: &writes }, "writes", json!(writes)),
            (
                Note::Strangers { source: "10.0.0.0/24", reason: "no\nkey", count: 3 },
                "reason",
                json!("no\nkey"),
            ),
            (Note::Gap { since: NOON, refused: 12 }, "refused", json!(12)),
            (
                Note::Retired {
                    head: &ChainHead { chain: "a-1".into(), sequence: 7, mac: [9; 16] },
                    requests: 5,
                    from: noon,
                    to: noon,
                    bytes: 4096,
                    rule: "age",
                },
                "retired",
                json!([{ "chain": "a-1", "sequence": 7, "mac": "09".repeat(16) }]),
            ),
            (
                Note::Shed { sink: "syslog", lines: 3, first: 4, last: 9 },
                "shed",
                json!({ "lines": 3, "first": 4, "last": 9 }),
            ),
            (Note::Witness { stamp: &writes[0] }, "witness", json!(writes[0])),
        ] {
            out.clear();
            writer.note(NOON, &note, &mut out);
            let line = line(&out);
            assert_eq!(line["type"], "note");
            assert_eq!(line["note"], note.name());
            assert_eq!(line[field], expected);
        }
    }

    #[test]
    fn a_name_that_is_no_file_name_is_refused() {
        let keys = ChainKeys::new(&Sensitive::copied(&[1; 32]), &Sensitive::copied(&[2; 32])).unwrap();
        for name in ["", "a/b", "a.b", "a\nb", "é", &"x".repeat(65)] {
            assert!(ChainWriter::new(&keys, name, &opening(), &mut Vec::new()).is_err(), "{name:?}");
        }
    }

    // The format is fixed: another language, or another year, must compute the same. `known.jsonl` was made with Python's hmac
    // and OpenSSL's Ed25519 from the keys above.
    #[test]
    fn the_first_lines_of_a_chain_are_known() {
        let mut out = Vec::new();
        let mut writer = writer(&mut out);
        writer.append(&record(NOON), &mut out);
        writer.checkpoint(NOON, &mut out);
        writer.append(&record(NOON), &mut out);
        writer.close(NOON, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), include_str!("known.jsonl"));
    }
}
