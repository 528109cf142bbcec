//! What `keymill secret` reads of other people's: dotenv files, JSON, manifests, templates, and JSON in values. What was read is written in one
//! spelling and reads back the same. The program has no library, so its files are taken in by their paths.

#[path = "../../../frontends/keymill/src/admin/secret/import/dotenv.rs"]
mod dotenv;
#[path = "../../../frontends/keymill/src/admin/secret/import/json.rs"]
mod json;
#[path = "../../../frontends/keymill/src/admin/secret/import/manifest.rs"]
mod manifest;
#[path = "../../../frontends/keymill/src/admin/secret/place.rs"]
mod place;
#[path = "../../../frontends/keymill/src/admin/secret/import/source.rs"]
mod source;
#[path = "../../../frontends/keymill/src/admin/secret/template.rs"]
mod template;
#[path = "../../../frontends/keymill/src/admin/secret/import/yaml.rs"]
mod yaml;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::memory::{room, within};
use crate::target::Seed;
use source::{Entry, Unreadable};
use template::Piece;

/// Reads the input as what its first byte picks.
pub(crate) fn check(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match choice % 5 {
        0 => check_dotenv(text),
        1 => check_json(text),
        2 => drop(read(text, manifest::read)),
        3 => check_template(text),
        _ => check_field(text),
    }
}

/// Reads a file: names are there once, and what is wrong is told in a short line.
fn read(text: &str, by: fn(&str) -> Result<Vec<Entry>, Unreadable>) -> Option<Vec<Entry>> {
    match within(room(256 * text.len()), || by(text)) {
        Ok(entries) => {
            let names: BTreeSet<&str> = entries.iter().map(|entry| &*entry.key).collect();
            assert_eq!(names.len(), entries.len());
            Some(entries)
        }
        Err(Unreadable { line, why }) => {
            assert!(line <= text.len() + 1 && !why.is_empty() && why.len() < 1024, "{line}: {why}");
            assert!(!why.contains('\n'));
            None
        }
    }
}

fn check_dotenv(text: &str) {
    let Some(entries) = read(text, dotenv::read) else { return };
    let quoted = |entry: &Entry| {
        let value = entry.value.replace('\\', "\\\\").replace('"', "\\\"");
        format!("{}=\"{value}\"\n", entry.key)
    };
    let again: String = entries.iter().map(quoted).collect();
    assert_eq!(dotenv::read(&again).as_ref().map(Vec::as_slice).map(values), Ok(values(&entries)));
}

fn check_json(text: &str) {
    let Some(entries) = read(text, json::read) else { return };
    let value = |entry: &Entry| match entry.is_binary {
        true => json!({ "Binary": *entry.value }),
        false => Value::from(&**entry.value),
    };
    let object: Map<String, Value> = entries.iter().map(|entry| (entry.key.clone(), value(entry))).collect();
    let again = json::read(&Value::Object(object).to_string()).expect("it was written here");
    let sorted = |entries: &[Entry]| values(entries).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(sorted(&again), sorted(&entries));
}

fn values(entries: &[Entry]) -> Vec<(String, String, bool)> {
    entries.iter().map(|entry| (entry.key.clone(), entry.value.to_string(), entry.is_binary)).collect()
}

fn check_template(text: &str) {
    let pieces = match within(room(64 * text.len()), || template::parse(text)) {
        Ok(pieces) => pieces,
        Err(wrong) => {
            assert!(wrong.line >= 1 && wrong.line <= text.lines().count().max(1) && !wrong.why.is_empty());
            return;
        }
    };
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let written = |piece: &Piece<'_>| match piece {
        Piece::Text(text) => (*text).to_owned(),
        Piece::Literal(text) => format!("{{{{ {} }}}}", quoted(text)),
        Piece::Secret { place, .. } => {
            let path = place.path.as_deref().map(quoted).unwrap_or_default();
            format!("{{{{ secret {} {path} }}}}", quoted(place.name.as_str()))
        }
    };
    let again: String = pieces.iter().map(written).collect();
    assert_eq!(template::parse(&again), Ok(pieces), "a template has one spelling, and its lines stay");
}

/// The first line is a place, the others are a value.
fn check_field(text: &str) {
    let Some((line, value)) = text.split_once('\n') else { return };
    let Ok(place) = line.parse::<place::Place>() else { return };
    assert_eq!(place.to_string().parse(), Ok(place.clone()));
    let Some(path) = place.path else { return };
    match within(room(64 * text.len()), || place::pick(value, &path)) {
        // The last name of a path is that of a field, of text or of something that is spelled as text.
        Ok(_) => assert!(serde_json::from_str::<serde::de::IgnoredAny>(value).is_ok()),
        Err(why) => assert!(!why.is_empty()),
    }
}

/// Returns input of each kind.
pub(crate) fn seeds() -> Vec<Seed> {
    let of = |choice: u8, text: &str| [&[choice], text.as_bytes()].concat();
    let manifest = "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\ndata:\n  a: AAE=\n  b: |\n    bWU=\nstringData:\n  c: \"5\"\n---\n\
        {\"kind\":\"List\",\"items\":[{\"kind\":\"Secret\",\"metadata\":{\"name\":\"x\"},\"data\":null}]}\n";
    vec![
        ("dotenv", of(0, "# c\nexport A = \"x\\n\\\"\" # d\nB='y\nz'\r\nC=plain # e\nD=\n")),
        ("json", of(1, r#"{"a":"ä","b":7,"c":{"Binary":"AAE="},"d":{"e":[null,true]}}"#)),
        ("manifest", of(2, manifest)),
        ("template", of(3, "a={{ secret \"db\" }}\n{{secret \"shop/db\" \"user.name\"}}{{ \"{{ \\\"\" }}b")),
        ("template-wrong", of(3, "a\n{{ secret db }}")),
        ("field", of(4, "shop/db#user.0.name\n{\"user\":[{\"name\":\"x\\u00e4\"},1.5],\"user2\":null}")),
        ("field-number", of(4, "db#a\n{\"a\":-1e5}")),
    ]
}
