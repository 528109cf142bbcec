//! Manifests of Kubernetes Secrets, in YAML or JSON, one or many: each key of `data` (base64) and `stringData` is an entry, named by the Secret and
//! the key.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::source::{Entry, Unreadable, checked, clipped};
use super::yaml::{Kind, Node, documents};

/// Reads a file.
pub(crate) fn read(text: &str) -> Result<Vec<Entry>, Unreadable> {
    let mut entries = Vec::new();
    for document in documents(text.strip_prefix('\u{feff}').unwrap_or(text))? {
        match document.field("kind").and_then(Node::text) {
            // What `kubectl get secrets -o yaml` prints.
            Some("List") => match document.field("items").map(|items| &items.kind) {
                Some(Kind::List(items)) => items.iter().try_for_each(|item| secret(item, &mut entries))?,
                _ => return Err(Unreadable::at(document.line, "a List has items")),
            },
            _ => secret(&document, &mut entries)?,
        }
    }
    checked(entries)
}

fn secret(document: &Node, entries: &mut Vec<Entry>) -> Result<(), Unreadable> {
    let wrong = |why: &str| Err(Unreadable::at(document.line, why));
    if document.field("kind").and_then(Node::text) != Some("Secret") {
        return wrong("a document is of another kind than Secret");
    }
    let name = document.field("metadata").and_then(|metadata| metadata.field("name")).and_then(Node::text);
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        return wrong("the Secret has no metadata.name");
    };
    let written = fields(document, "stringData")?;
    for (key, node) in fields(document, "data")? {
        // What is written as text stands before it, as Kubernetes has it.
        if written.iter().any(|(other, _)| other == key) {
            continue;
        }
        entries.push(decoded(format!("{name}/{key}"), node)?);
    }
    for (key, node) in written {
        let text = node.text().filter(|_| !node.is_no_string());
        let Some(text) = text else {
            let why = format!("{}: the value is no text: put it in quotes", clipped(key));
            return Err(Unreadable::at(node.line, why));
        };
        entries.push(Entry::text(format!("{name}/{key}"), Zeroizing::new(text.to_owned())));
    }
    Ok(())
}

fn fields<'d>(document: &'d Node, name: &str) -> Result<&'d [(String, Node)], Unreadable> {
    match document.field(name) {
        None => Ok(&[]),
        Some(node) if node.is_null() => Ok(&[]),
        Some(Node { kind: Kind::Map(fields), .. }) => Ok(fields),
        Some(node) => Err(Unreadable::at(node.line, format!("{name} is a map of names and values"))),
    }
}

/// Reads base64, which may be folded over lines: text where it is some, else bytes.
fn decoded(key: String, node: &Node) -> Result<Entry, Unreadable> {
    let wrong = || Unreadable::at(node.line, format!("{}: the value is no base64", clipped(&key)));
    let text = node.text().ok_or_else(wrong)?;
    let base64: Zeroizing<String> =
        Zeroizing::new(text.chars().filter(|c| !c.is_ascii_whitespace()).collect());
    let bytes = Zeroizing::new(STANDARD.decode(base64.as_bytes()).map_err(|_| wrong())?);
    match std::str::from_utf8(&bytes).ok().filter(|text| !text.contains('\0')) {
        Some(text) => Ok(Entry::text(key, Zeroizing::new(text.to_owned()))),
        None => Ok(Entry { key, value: base64, is_binary: true }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Vec<(String, String, bool)> {
        let entries = read(text).unwrap();
        entries.iter().map(|entry| (entry.key.clone(), entry.value.to_string(), entry.is_binary)).collect()
    }

    fn rows(rows: &[(&str, &str, bool)]) -> Vec<(String, String, bool)> {
        rows.iter().map(|(key, value, is_binary)| ((*key).into(), (*value).into(), *is_binary)).collect()
    }

    #[test]
    fn each_key_of_each_secret_is_an_entry() {
        let yaml = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: db\n  labels: {a: b}\ntype: Opaque\ndata:\n  user: bWU=\n  \
            raw: |\n    AAEC\n    Aw==\n  over: b2xk\nstringData:\n  over: new # comment\n  text: |\n    two\n    lines\n  \
            quoted: \"5432\"\n---\n# nothing\n---\n{\"kind\":\"Secret\",\"metadata\":{\"name\":\"js\"},\"stringData\":{\"a\":\"\\u00e4\"}}\n";
        let expected = [
            ("db/user", "me", false),
            ("db/raw", "AAECAw==", true),
            ("db/over", "new", false),
            ("db/text", "two\nlines\n", false),
            ("db/quoted", "5432", false),
            ("js/a", "ä", false),
        ];
        assert_eq!(shown(yaml), rows(&expected));
        let list = "kind: List\nitems:\n- kind: Secret\n  metadata: {name: a}\n  data: {k: eA==}\n- kind: Secret\n  metadata: {name: b}\n  data: null\n";
        assert_eq!(shown(list), rows(&[("a/k", "x", false)]));
        assert_eq!(shown(""), []);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line_and_without_the_value() {
        let head = "kind: Secret\nmetadata: {name: db}\n";
        for (bad, line) in [
            (format!("{head}data:\n  k: MARKED!"), 4),
            (format!("{head}data:\n  k: [MARKED]"), 4),
            (format!("{head}data: MARKED"), 3),
            (format!("{head}stringData:\n  k: 5432"), 4),
            (format!("{head}stringData:\n  k: true"), 4),
            (format!("{head}stringData:\n  k: ~"), 4),
            (format!("{head}stringData:\n  k: &a MARKED\n  l: *a"), 4),
            (format!("{head}stringData:\n  k: !!str MARKED"), 4),
            (format!("{head}stringData:\n  k: MARKED\n  k: MARKED"), 5),
            ("kind: ConfigMap\nmetadata: {name: MARKED}".into(), 1),
            ("kind: Secret\ndata: {k: MARKED}".into(), 1),
            ("kind: List".into(), 1),
            ("- MARKED".into(), 1),
            (format!("{head}stringData: {{k: \"MARKED}}"), 3),
        ] {
            let error = read(&bad).unwrap_err();
            assert!(!error.why.contains("MARKED"), "{bad}: {error:?}");
            assert!(error.line >= line, "{bad}: {error:?}");
        }
        let deep = format!("kind: Secret\nx: {}{}", "[".repeat(40), "]".repeat(40));
        assert!(read(&deep).is_err());
        let twice = format!("{head}stringData: {{k: a}}\n---\n{head}stringData: {{k: b}}\n");
        assert!(read(&twice).unwrap_err().why.contains("twice"));
    }
}
