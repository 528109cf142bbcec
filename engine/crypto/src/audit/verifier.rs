//! The reading side of a chain: takes its lines in order and finds the first that is wrong. It trusts no byte of a line before
//! the MAC has been checked, except the number, and that only to say what kind of wrong it is.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use keymill_core::audit::{Alike, RecordStamp};
use memchr::memmem;
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::keys::{ChainKey, ChainKeys};
use super::{
    BadLine, ChainHead, ChainReport, FORMAT_VERSION, Fault, MAC_BYTES, MAC_FIELD, Mac, Shed, Stamps,
    checkpoint_text, json,
};

/// Checks one chain, line by line.
#[derive(Clone)]
pub struct ChainVerifier {
    key: Option<ChainKey>,
    verifying_key: [u8; 32],
    remembered: Option<ChainHead>,
    /// Where they are wanted.
    stamps: Option<Stamps>,
    report: ChainReport,
}

impl ChainVerifier {
    /// Begins the check of the chain `name` with the keys of the instance: every line is checked.
    pub fn new(keys: &ChainKeys, name: &str) -> Self {
        Self::begin(Some(keys.chain_key(name)), keys.verifying_key(), name)
    }

    /// Begins the check of the chain `name` with the verifying key alone: numbering and checkpoints are checked, not what
    /// stands in the lines between.
    pub fn public(verifying_key: [u8; 32], name: &str) -> Self {
        Self::begin(None, verifying_key, name)
    }

    fn begin(key: Option<ChainKey>, verifying_key: [u8; 32], name: &str) -> Self {
        let head = ChainHead { chain: name.to_owned(), sequence: 0, mac: [0; MAC_BYTES] };
        let report = ChainReport {
            head,
            bad: None,
            torn: false,
            closed: false,
            checkpoints: 0,
            unsigned: 0,
            requests: 0,
            outcomes: BTreeMap::new(),
            notes: 0,
            from: String::new(),
            to: String::new(),
            retired: Vec::new(),
            shed: Vec::new(),
            previous: Vec::new(),
            witness: None,
        };
        Self { key, verifying_key, remembered: None, stamps: Some(Stamps::default()), report }
    }

    /// Has the chain reach the head that is remembered of it, if one is. To be said before the first line.
    pub fn verify_against(mut self, stored: Option<ChainHead>) -> Self {
        self.remembered = stored;
        self
    }

    /// Keeps nothing of the records that were written: a log may speak of millions.
    pub fn without_stamps(mut self) -> Self {
        self.stamps = None;
        self
    }

    /// Takes the next line, without its line end; `torn` where that is missing. Returns whether the line after it is of interest: behind one
    /// that is wrong nothing is looked at.
    pub fn line(&mut self, bytes: &[u8], torn: bool) -> bool {
        if self.report.bad.is_some() {
            return false;
        }
        if self.report.torn {
            self.reject(Fault::Malformed);
        } else if torn {
            self.report.torn = true;
        } else if let Err(fault) = self.check(bytes) {
            self.reject(fault);
        }
        self.report.bad.is_none()
    }

    /// Returns what was found so far, taking the last line for the end of the chain.
    pub fn report(&self) -> ChainReport {
        let mut report = self.report.clone();
        if let (None, Some(remembered)) = (&report.bad, &self.remembered)
            && report.head.sequence < remembered.sequence
        {
            let fault = Fault::Cut { remembered: remembered.sequence };
            report.bad = Some(BadLine { number: report.head.sequence + 1, fault });
        }
        report
    }

    /// Returns the last stamp of every record that the good lines say was written.
    pub fn into_stamps(self) -> Stamps {
        self.stamps.unwrap_or_default()
    }

    fn reject(&mut self, fault: Fault) {
        self.report.bad = Some(BadLine { number: self.report.head.sequence + 1, fault });
    }

    fn check(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let (body, mac) = split(bytes).ok_or(Fault::Malformed)?;
        let number = leading_number(body).ok_or(Fault::Malformed)?;
        let expected = self.report.head.sequence + 1;
        let placed = match number.cmp(&expected) {
            Ordering::Less => Err(Fault::OutOfOrder { found: number }),
            Ordering::Equal => Ok(()),
            Ordering::Greater => Err(Fault::Missing { found: number }),
        };
        if let Some(key) = &self.key {
            let ours = key.mac(&self.report.head.mac, body);
            if verify_slices_are_equal(&ours, &mac).is_err() {
                return placed.and(Err(Fault::Altered));
            }
        }
        placed?;
        if self.report.closed {
            return Err(Fault::AfterClose);
        }
        let fields = match self.key.as_ref().and_then(|_| Fields::of_request(body)) {
            Some(fields) => fields,
            None => serde_json::from_slice(bytes).map_err(|_| Fault::Malformed)?,
        };
        if self.remembered.as_ref().is_some_and(|head| head.sequence == number && head.mac != mac) {
            return Err(Fault::Replaced);
        }
        let time = fields.time.clone();
        self.take(number, fields)?;
        if number == 1 {
            self.report.from.push_str(&time);
        }
        self.report.to.clear();
        self.report.to.push_str(&time);
        self.report.head.sequence = number;
        self.report.head.mac = mac;
        Ok(())
    }

    fn take(&mut self, number: u64, fields: Fields<'_>) -> Result<(), Fault> {
        let report = &mut self.report;
        if (number == 1) != (fields.kind == "open") {
            return Err(Fault::NotOpened);
        }
        match &*fields.kind {
            "open" => {
                if fields.chain.as_deref() != Some(&*report.head.chain)
                    || fields.verifying_key.as_deref() != Some(&*json::hex_text(&self.verifying_key))
                {
                    return Err(Fault::AnotherChain);
                }
                if fields.version != Some(FORMAT_VERSION) {
                    return Err(Fault::UnknownFormat { version: fields.version.unwrap_or(0) });
                }
                report.previous = fields.previous;
            }
            "request" => {
                let outcome = fields.outcome.ok_or(Fault::Malformed)?;
                let requests = 1 + fields.alike.0;
                report.requests += requests;
                match report.outcomes.get_mut(&*outcome) {
                    Some(count) => *count += requests,
                    None => drop(report.outcomes.insert(outcome.into_owned(), requests)),
                }
            }
            "note" => {
                report.notes += 1;
                report.retired.extend(fields.retired);
                report.witness = fields.witness.or(report.witness.take());
                if let (Some(Span { lines, first, last }), Some(sink)) = (fields.shed, fields.sink) {
                    report.shed.push(Shed { sink: sink.into_owned(), lines, first, last });
                }
            }
            "checkpoint" => return self.take_checkpoint(number, &fields),
            _ => return Err(Fault::Malformed),
        }
        report.unsigned += 1;
        if let Some(stamps) = &mut self.stamps {
            for stamp in fields.writes {
                stamps.put(&stamp.path, stamp.sequence, &stamp.tag);
            }
        }
        Ok(())
    }

    fn take_checkpoint(&mut self, number: u64, fields: &Fields<'_>) -> Result<(), Fault> {
        let report = &mut self.report;
        let closed = fields.closed.ok_or(Fault::Malformed)?;
        let signature: [u8; 64] = fields
            .signature
            .as_deref()
            .and_then(|text| json::unhex(text.as_bytes()))
            .ok_or(Fault::Malformed)?;
        let text = checkpoint_text(&report.head.chain, number, &report.head.mac, &fields.time, closed);
        let signed =
            UnparsedPublicKey::new(&ED25519, &self.verifying_key).verify(text.as_bytes(), &signature);
        if signed.is_err() || fields.count != Some(report.unsigned) {
            return Err(Fault::BadCheckpoint);
        }
        report.checkpoints += 1;
        report.unsigned = 0;
        report.closed = closed;
        if let Some(key) = &mut self.key {
            key.ratchet();
        }
        Ok(())
    }
}

impl<'a> Fields<'a> {
    /// Picks the fields out of the line of one request, whose MAC was right: it is as we write such lines. A start reads every management
    /// operation that ever was, and to read all of a line takes most of its time. `None` for a line that looks otherwise.
    fn of_request(body: &'a [u8]) -> Option<Self> {
        let rest = body.strip_prefix(b"{\"seq\":")?;
        let rest = rest[rest.iter().position(|c| *c == b',')?..].strip_prefix(b",\"time\":\"")?;
        let (time, rest) = rest.split_at(memchr::memchr(b'"', rest)?);
        let rest = rest.strip_prefix(b"\",\"type\":\"request\"")?;
        // Quotes within a text are escaped, so that what begins with one unescaped is a field. No other object in a line has one of these.
        if memmem::find(rest, b",\"alike\":").is_some() {
            return None;
        }
        let (_, outcome) = rest.split_at(memmem::find(rest, OUTCOME)?);
        let outcome = &outcome[OUTCOME.len()..];
        let (outcome, rest) = outcome.split_at(memchr::memchr2(b'"', b'\\', outcome)?);
        // The last field before the MAC.
        let writes = match memmem::find(rest, WRITES) {
            Some(at) => serde_json::from_slice(&rest[at + WRITES.len()..]).ok()?,
            None => Vec::new(),
        };
        let text = |bytes| std::str::from_utf8(bytes).ok().map(Cow::Borrowed);
        Some(Self {
            time: text(time)?,
            kind: Cow::Borrowed("request"),
            chain: None,
            version: None,
            verifying_key: None,
            previous: Vec::new(),
            outcome: Some(text(outcome)?),
            alike: Count(0),
            writes,
            retired: Vec::new(),
            sink: None,
            shed: None,
            witness: None,
            count: None,
            closed: None,
            signature: None,
        })
    }
}

const OUTCOME: &[u8] = b",\"outcome\":\"";
const WRITES: &[u8] = b",\"writes\":";

/// What a verifier reads of a line; a field of another kind of line is absent.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    chain: Option<Cow<'a, str>>,
    #[serde(default)]
    version: Option<u32>,
    #[serde(default, borrow)]
    verifying_key: Option<Cow<'a, str>>,
    #[serde(default)]
    previous: Vec<ChainHead>,
    #[serde(default, borrow)]
    outcome: Option<Cow<'a, str>>,
    #[serde(default)]
    alike: Count,
    #[serde(default, borrow)]
    writes: Vec<Written<'a>>,
    #[serde(default)]
    retired: Vec<ChainHead>,
    #[serde(default, borrow)]
    sink: Option<Cow<'a, str>>,
    #[serde(default)]
    shed: Option<Span>,
    #[serde(default)]
    witness: Option<RecordStamp>,
    #[serde(default)]
    count: Option<u64>,
    #[serde(default)]
    closed: Option<bool>,
    #[serde(default, borrow)]
    signature: Option<Cow<'a, str>>,
}

/// Lines that were shed, as a note has them.
#[derive(Deserialize)]
struct Span {
    lines: u64,
    first: u64,
    last: u64,
}

/// A stamp of a record, as a line has it.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
    sequence: u64,
    #[serde(borrow)]
    tag: Cow<'a, str>,
}

/// How many requests a line holds beside its first, each checked to be one.
#[derive(Default)]
struct Count(u64);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("pairs of an id and a time")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut pairs: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while pairs.next_element::<Alike>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }
        }
        deserializer.deserialize_seq(Each)
    }
}

/// Splits a line into what its MAC covers and the MAC.
fn split(line: &[u8]) -> Option<(&[u8], Mac)> {
    let (rest, digits) = line.strip_suffix(b"\"}")?.split_last_chunk::<{ 2 * MAC_BYTES }>()?;
    Some((rest.strip_suffix(MAC_FIELD)?, json::unhex(digits)?))
}

/// Reads the number that a line begins with.
fn leading_number(body: &[u8]) -> Option<u64> {
    let rest = body.strip_prefix(b"{\"seq\":")?;
    let digits = &rest[..rest.iter().position(|c| *c == b',')?];
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use keymill_core::audit::{AuditRecord, Outcome, RecordStamp};
    use keymill_core::error::ErrorKind;
    use keymill_core::id::RequestId;
    use keymill_core::{Sensitive, Timestamp};

    use super::super::{ChainWriter, Opening};
    use super::*;

    /// Lines of requests with texts of callers' making, which look like the fields that are picked out.
    fn log() -> Vec<u8> {
        let keys = ChainKeys::new(&Sensitive::copied(&[1; 32]), &Sensitive::copied(&[2; 32])).unwrap();
        let time = Timestamp::from_ms(1_795_521_617_000);
        let opening = Opening { time, node: "n", software: "0", previous: &[] };
        let mut out = Vec::new();
        let mut writer = ChainWriter::new(&keys, "chain", &opening, &mut out).unwrap();
        let stamp = |path: &str| RecordStamp { path: path.into(), sequence: 7, tag: "ab".into() };
        let both = [stamp("cmk/1"), stamp("a\"b\\c")];
        let alike = [Alike(RequestId::from_bytes([9; 16]), 3)];
        let texts = ["x", "\"", ",\"writes\":[]", "\\\",\"outcome\":\"ok\"", ",\"alike\":[", "é"];
        for text in texts {
            for (outcome, alike, writes) in [
                (Outcome::Done, &[][..], &both[..]),
                (Outcome::Failed(ErrorKind::Denied), &[], &both[..1]),
                (Outcome::Done, &alike, &[]),
                (Outcome::Done, &[], &[]),
            ] {
                let record = AuditRecord {
                    time,
                    request: RequestId::from_bytes([1; 16]),
                    principal: None,
                    source: None,
                    frontend: text,
                    operation: text,
                    outcome,
                    rule: text.into(),
                    keys: &[],
                    secrets: &[],
                    certificates: &[],
                    providers: &[],
                    items: 1,
                    failed: 0,
                    context: Some(text.into()),
                    fallback: None,
                    recipient: Some(text.into()),
                    approved_by: Some(text.into()),
                    micros: 5,
                    alike,
                    writes,
                };
                writer.append(&record, &mut out);
            }
        }
        writer.checkpoint(time, &mut out);
        out
    }

    #[test]
    fn what_is_picked_out_of_a_request_is_what_the_whole_line_says() {
        let (log, mut picked) = (log(), 0);
        for line in log.strip_suffix(b"\n").unwrap().split(|c| *c == b'\n') {
            let whole: Fields<'_> = serde_json::from_slice(line).unwrap();
            let Some(fields) = Fields::of_request(split(line).unwrap().0) else {
                assert!(whole.kind != "request" || whole.alike.0 > 0, "{}", String::from_utf8_lossy(line));
                continue;
            };
            picked += 1;
            assert_eq!(
                (&fields.time, &fields.kind, &fields.outcome),
                (&whole.time, &whole.kind, &whole.outcome)
            );
            let writes = |fields: &Fields<'_>| -> Vec<_> {
                fields.writes.iter().map(|w| (w.path.to_string(), w.sequence, w.tag.to_string())).collect()
            };
            assert_eq!((fields.alike.0, writes(&fields)), (whole.alike.0, writes(&whole)));
        }
        assert_eq!(picked, 6 * 3);
    }
}
