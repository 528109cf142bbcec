//! The fields of a request's record, and the text of a time, as a line has them.

use std::io::Write as _;

use keymill_core::Timestamp;
use keymill_core::audit::{Alike, AuditRecord, KeyTouch, Outcome, RecordStamp, SecretTouch};
use keymill_core::key::ProtectionLevel;

use super::json;

/// Appends the fields of `record`, in the order of the type.
pub(super) fn write_record(record: &AuditRecord<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"request\":");
    json::uuid(out, record.request.as_bytes());
    out.extend_from_slice(b",\"principal\":");
    match record.principal {
        Some(id) => json::text(out, id.as_str()),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"source\":");
    match record.source {
        Some(source) => json::address(out, source),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b",\"frontend\":");
    json::text(out, record.frontend);
    out.extend_from_slice(b",\"operation\":");
    json::text(out, record.operation);
    match record.outcome {
        Outcome::Done => out.extend_from_slice(b",\"outcome\":\"ok\""),
        Outcome::Failed(kind) => {
            write!(out, ",\"outcome\":\"{kind:?}\"").expect("a vector takes every write");
        }
    }
    out.extend_from_slice(b",\"rule\":");
    json::text(out, &record.rule);
    out.extend_from_slice(b",\"keys\":[");
    for (i, touch) in record.keys.iter().enumerate() {
        separate(out, i);
        write_touch(touch, out);
    }
    out.push(b']');
    if !record.secrets.is_empty() {
        out.extend_from_slice(b",\"secrets\":[");
        for (i, SecretTouch { name, version }) in record.secrets.iter().enumerate() {
            separate(out, i);
            out.extend_from_slice(b"{\"name\":");
            json::whole_text(out, name.as_str());
            if let Some(version) = version {
                out.extend_from_slice(b",\"version\":");
                json::text(out, version.as_str());
            }
            out.push(b'}');
        }
        out.push(b']');
    }
    if !record.certificates.is_empty() {
        out.extend_from_slice(b",\"certificates\":[");
        for (i, id) in record.certificates.iter().enumerate() {
            separate(out, i);
            out.push(b'"');
            out.extend_from_slice(&id.to_ascii());
            out.push(b'"');
        }
        out.push(b']');
    }
    if !record.providers.is_empty() {
        out.extend_from_slice(b",\"providers\":[");
        for (i, provider) in record.providers.iter().enumerate() {
            separate(out, i);
            json::text(out, provider);
        }
        out.push(b']');
    }
    out.extend_from_slice(b",\"items\":");
    json::number(out, u64::from(record.items));
    out.extend_from_slice(b",\"failed\":");
    json::number(out, u64::from(record.failed));
    if let Some(context) = &record.context {
        out.extend_from_slice(b",\"context\":");
        json::text(out, context);
    }
    if let Some(fallback) = record.fallback {
        out.extend_from_slice(b",\"fallback\":");
        json::text(out, fallback.name());
    }
    if let Some(recipient) = &record.recipient {
        out.extend_from_slice(b",\"recipient\":");
        json::text(out, recipient);
    }
    if let Some(approved_by) = &record.approved_by {
        out.extend_from_slice(b",\"approved_by\":");
        json::text(out, approved_by);
    }
    out.extend_from_slice(b",\"micros\":");
    json::number(out, record.micros);
    if !record.alike.is_empty() {
        write_alike(out, record.alike);
    }
    if !record.writes.is_empty() {
        write_stamps(out, record.writes);
    }
}

fn write_alike(out: &mut Vec<u8>, alike: &[Alike]) {
    out.reserve(64 * alike.len());
    out.extend_from_slice(b",\"alike\":[");
    for (i, Alike(request, micros)) in alike.iter().enumerate() {
        separate(out, i);
        out.push(b'[');
        json::uuid(out, request.as_bytes());
        out.push(b',');
        json::number(out, *micros);
        out.push(b']');
    }
    out.push(b']');
}

fn write_touch(touch: &KeyTouch, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"cmk\":");
    json::uuid(out, touch.cmk.as_bytes());
    out.extend_from_slice(b",\"version\":");
    json::number(out, u64::from(touch.version));
    out.extend_from_slice(b",\"items\":");
    json::number(out, u64::from(touch.items));
    out.extend_from_slice(match touch.protection {
        ProtectionLevel::Software => b",\"protection\":\"SOFTWARE\"}",
        ProtectionLevel::Hsm => b",\"protection\":\"HSM\"}",
    });
}

/// Appends the field that names written records.
pub(super) fn write_stamps(out: &mut Vec<u8>, writes: &[RecordStamp]) {
    out.extend_from_slice(b",\"writes\":[");
    for (i, stamp) in writes.iter().enumerate() {
        separate(out, i);
        write_stamp(stamp, out);
    }
    out.push(b']');
}

/// Appends what is remembered of a record.
pub(super) fn write_stamp(stamp: &RecordStamp, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"path\":");
    json::whole_text(out, &stamp.path);
    out.extend_from_slice(b",\"sequence\":");
    json::number(out, stamp.sequence);
    out.extend_from_slice(b",\"tag\":");
    json::whole_text(out, &stamp.tag);
    out.push(b'}');
}

/// Appends a comma before all but the first of a list.
pub(super) fn separate(out: &mut Vec<u8>, index: usize) {
    if index > 0 {
        out.push(b',');
    }
}

/// The quoted text of a time, to the millisecond. The date is worked out once a second, not once a line.
#[derive(Clone, Default)]
pub(super) struct TimeText {
    second: Option<u64>,
    quoted: Vec<u8>,
}

impl TimeText {
    /// Appends the quoted text of `time`.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, time: Timestamp) {
        if self.second != Some(time.as_s()) {
            self.second = Some(time.as_s());
            self.quoted.clear();
            write!(self.quoted, "\"{time}").expect("a vector takes every write");
            self.quoted.pop();
            self.quoted.extend_from_slice(b".000Z\"");
        }
        let ms = (time.as_ms() % 1000) as u16;
        let places = self.quoted.len() - 5;
        for (digit, value) in self.quoted[places..].iter_mut().zip([ms / 100, ms / 10 % 10, ms % 10]) {
            *digit = b'0' + value as u8;
        }
        out.extend_from_slice(&self.quoted);
    }

    /// Returns the text written last, without its quotes.
    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.quoted[1..self.quoted.len() - 1]).expect("a time is ASCII")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact_to_the_millisecond_across_seconds() {
        let mut time = TimeText::default();
        let text = ["00:00:00.000", "00:00:00.999", "00:00:01.000", "00:00:01.007", "00:00:00.010"];
        for (ms, text) in [0, 999, 1000, 1007, 10].into_iter().zip(text) {
            let mut out = Vec::new();
            time.write(&mut out, Timestamp::from_ms(ms));
            assert_eq!(out, format!("\"1970-01-01T{text}Z\"").into_bytes());
        }
    }
}
