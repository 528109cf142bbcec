//! One line of the audit, taken apart for people and other programs. A line that holds several requests gives a row for each.

use std::borrow::Cow;
use std::io;

use serde::{Deserialize, Serialize};
use serde_json::ser::{CompactFormatter, Formatter};
use serde_json::{Map, Value};

/// A line of the kinds that are shown; a field of another kind is absent.
#[derive(Deserialize)]
pub(super) struct Line<'a> {
    pub(super) seq: u64,
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    #[serde(rename = "type", borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(default, borrow)]
    pub(super) request: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub(super) principal: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub(super) source: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub(super) frontend: Cow<'a, str>,
    #[serde(default, borrow)]
    pub(super) operation: Cow<'a, str>,
    #[serde(default, borrow)]
    pub(super) outcome: Cow<'a, str>,
    #[serde(default, borrow)]
    pub(super) rule: Cow<'a, str>,
    #[serde(default, borrow)]
    pub(super) keys: Vec<Touch<'a>>,
    #[serde(default, borrow)]
    pub(super) secrets: Vec<SecretTouch<'a>>,
    #[serde(default, borrow)]
    pub(super) certificates: Vec<Cow<'a, str>>,
    #[serde(default)]
    pub(super) providers: Vec<String>,
    #[serde(default)]
    pub(super) items: u64,
    #[serde(default)]
    pub(super) failed: u64,
    #[serde(default, borrow)]
    pub(super) context: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub(super) fallback: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub(super) recipient: Option<Cow<'a, str>>,
    #[serde(default, borrow)]
    pub(super) approved_by: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) micros: u64,
    #[serde(default)]
    alike: Vec<(String, u64)>,
    #[serde(default, borrow)]
    pub(super) writes: Vec<Written<'a>>,
}

/// A key version that a request touched.
#[derive(Deserialize, Serialize)]
pub(super) struct Touch<'a> {
    #[serde(borrow)]
    pub(super) cmk: Cow<'a, str>,
    pub(super) version: u32,
    pub(super) items: u64,
    #[serde(borrow)]
    pub(super) protection: Cow<'a, str>,
}

/// A secret that a request was about.
#[derive(Deserialize, Serialize)]
pub(super) struct SecretTouch<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub(super) version: Option<Cow<'a, str>>,
}

impl SecretTouch<'_> {
    /// Returns it as `name:version`, which no name holds a colon of; of no version, its name.
    pub(super) fn text(&self) -> String {
        match &self.version {
            Some(version) => format!("{}:{version}", self.name),
            None => self.name.to_string(),
        }
    }
}

/// A record that a management operation wrote.
#[derive(Deserialize, Serialize)]
pub(super) struct Written<'a> {
    #[serde(borrow)]
    pub(super) path: Cow<'a, str>,
    pub(super) sequence: u64,
    #[serde(borrow)]
    pub(super) tag: Cow<'a, str>,
}

/// Where a line was found, and whether it holds.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) chain: &'a str,
    pub(super) verified: bool,
}

/// One request, as programs get it.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    pub(super) time: &'a str,
    pub(super) chain: &'a str,
    pub(super) seq: u64,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) verified: bool,
    pub(super) request: &'a str,
    pub(super) principal: Option<&'a str>,
    pub(super) source: Option<&'a str>,
    pub(super) frontend: &'a str,
    pub(super) operation: &'a str,
    pub(super) outcome: &'a str,
    pub(super) rule: &'a str,
    pub(super) keys: &'a [Touch<'a>],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) secrets: &'a [SecretTouch<'a>],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) certificates: &'a [Cow<'a, str>],
    pub(super) providers: &'a [String],
    pub(super) items: u64,
    pub(super) failed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) context: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fallback: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) recipient: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) approved_by: Option<&'a str>,
    pub(super) micros: u64,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub(super) writes: &'a [Written<'a>],
}

impl Line<'_> {
    /// Returns each request that the line records.
    pub(super) fn requests<'l>(&'l self, place: Place<'l>) -> impl Iterator<Item = Row<'l>> {
        let first = self.request.as_deref().map(|id| (id, self.micros));
        let all = first.into_iter().chain(self.alike.iter().map(|(id, micros)| (&**id, *micros)));
        all.map(move |(request, micros)| Row {
            time: &self.time,
            chain: place.chain,
            seq: self.seq,
            kind: "request",
            verified: place.verified,
            request,
            principal: self.principal.as_deref(),
            source: self.source.as_deref(),
            frontend: &self.frontend,
            operation: &self.operation,
            outcome: &self.outcome,
            rule: &self.rule,
            keys: &self.keys,
            secrets: &self.secrets,
            certificates: &self.certificates,
            providers: &self.providers,
            items: self.items,
            failed: self.failed,
            context: self.context.as_deref(),
            fallback: self.fallback.as_deref(),
            recipient: self.recipient.as_deref(),
            approved_by: self.approved_by.as_deref(),
            micros,
            writes: &self.writes,
        })
    }
}

/// One note, as programs get it: what it says stands behind its name.
#[derive(Serialize)]
pub(super) struct NoteRow<'a> {
    pub(super) time: &'a str,
    pub(super) chain: &'a str,
    pub(super) seq: u64,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) verified: bool,
    pub(super) note: String,
    #[serde(flatten)]
    pub(super) says: Map<String, Value>,
}

impl<'a> NoteRow<'a> {
    /// Takes a note's line apart, whose common fields were read before.
    pub(super) fn of(line: &'a Line<'_>, bytes: &[u8], place: Place<'a>) -> Option<Self> {
        let mut says: Map<String, Value> = serde_json::from_slice(bytes).ok()?;
        let note = says.remove("note")?.as_str()?.to_owned();
        for common in ["seq", "time", "type", "mac", "chain", "verified"] {
            says.remove(common);
        }
        let Place { chain, verified } = place;
        Some(Self { time: &line.time, chain, seq: line.seq, kind: "note", verified, note, says })
    }
}

/// Writes a row as one line of JSON, in printable ASCII alone: what a caller made up moves no cursor and turns no text around.
pub(super) fn write_json(row: &impl Serialize, out: &mut dyn io::Write) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, Ascii(CompactFormatter));
    row.serialize(&mut serializer)?;
    out.write_all(b"\n")
}

struct Ascii(CompactFormatter);

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if fragment.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return self.0.write_string_fragment(writer, fragment);
        }
        for c in fragment.chars() {
            match c {
                ' '..='~' => writer.write_all(&[c as u8])?,
                _ => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(writer, "\\u{unit:04x}")?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"seq":7,"time":"2026-11-24T12:00:17.042Z","type":"request","request":"r-1","principal":null,"source":"10.0.0.7","frontend":"http","operation":"a\u001b[2J\u202e\u009bb\n","outcome":"ok","rule":"default","keys":[{"cmk":"k","version":3,"items":2,"protection":"HSM"}],"providers":["hsm-1"],"items":2,"failed":0,"micros":5,"alike":[["r-2",6],["r-3",7]],"mac":"00"}"#;

    fn written(row: &impl Serialize) -> String {
        let mut out = Vec::new();
        write_json(row, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_request_of_a_line_is_a_row_with_its_own_id_and_time() {
        let line: Line<'_> = serde_json::from_str(LINE).unwrap();
        let place = Place { chain: "c", verified: true };
        let rows: Vec<_> = line.requests(place).map(|row| (row.request.to_owned(), row.micros)).collect();
        assert_eq!(rows, [("r-1".into(), 5), ("r-2".into(), 6), ("r-3".into(), 7)]);
    }

    #[test]
    fn a_row_stays_one_line_of_printable_ascii_and_says_the_same() {
        let line: Line<'_> = serde_json::from_str(LINE).unwrap();
        let row = line.requests(Place { chain: "c", verified: false }).next().unwrap();
        let text = written(&row);
        assert!(text.strip_suffix('\n').unwrap().bytes().all(|b| (b' '..=b'~').contains(&b)), "{text}");
        let back: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back["operation"], "a\u{1b}[2J\u{202e}\u{9b}b\n");
        assert_eq!((&back["verified"], &back["keys"][0]["version"]), (&Value::Bool(false), &3.into()));
        assert_eq!(back["principal"], Value::Null);
    }

    #[test]
    fn secrets_are_told_by_name_and_version_and_a_filter_finds_them() {
        use clap::Parser;
        #[derive(Parser)]
        struct Flags {
            #[command(flatten)]
            filter: super::super::filter::Filter,
        }
        let text = LINE.replace(
            r#""items":2,"failed":0"#,
            r#""secrets":[{"name":"db/orders","version":"v1"},{"name":"b"}],"items":2,"failed":0"#,
        );
        let line: Line<'_> = serde_json::from_str(&text).unwrap();
        let row = line.requests(Place { chain: "c", verified: true }).next().unwrap();
        assert_eq!(row.secrets.iter().map(SecretTouch::text).collect::<Vec<_>>(), ["db/orders:v1", "b"]);
        let back: Value = serde_json::from_str(&written(&row)).unwrap();
        assert_eq!(
            back["secrets"],
            serde_json::json!([{ "name": "db/orders", "version": "v1" }, { "name": "b" }])
        );
        for (name, is_wanted) in [("db/orders", true), ("b", true), ("db", false)] {
            let flags = Flags::try_parse_from(["search", "--secret", name]).unwrap();
            assert_eq!(flags.filter.wants(&row), is_wanted, "{name}");
        }
    }

    #[test]
    fn a_note_keeps_what_it_says_and_cannot_call_itself_verified() {
        let text = r#"{"seq":4,"time":"t","type":"note","note":"gap","since":"s","refused":3,"verified":true,"mac":"00"}"#;
        let line: Line<'_> = serde_json::from_str(text).unwrap();
        let note = NoteRow::of(&line, text.as_bytes(), Place { chain: "c", verified: false }).unwrap();
        let back: Value = serde_json::from_str(&written(&note)).unwrap();
        assert_eq!(
            (&back["note"], &back["refused"], &back["verified"]),
            (&"gap".into(), &3.into(), &false.into())
        );
        assert!(back.get("mac").is_none());
    }
}
