//! Byte ranges of values in a line of JSON, and what strings say. Parsers give values; to leave all other bytes as they are
//! one needs places.

use std::borrow::Cow;
use std::ops::Range;

use memchr::{memchr, memchr2};

/// Splits a path at its dots; `\.` and `\\` stand for a dot and a backslash.
pub(super) fn segments(path: &str) -> Vec<String> {
    let mut segments = vec![String::new()];
    let mut characters = path.chars().peekable();
    while let Some(character) = characters.next() {
        let last = segments.last_mut().expect("there is one from the start");
        match character {
            '.' => segments.push(String::new()),
            '\\' => last.push(characters.next_if(|next| matches!(next, '.' | '\\')).unwrap_or('\\')),
            other => last.push(other),
        }
    }
    segments
}

/// Returns what a JSON string says; nothing for other values and for lone surrogates, which are no text.
pub(super) fn plain_text(json: &str) -> Option<Cow<'_, str>> {
    let inside = json.strip_prefix('"')?.strip_suffix('"')?;
    match memchr(b'\\', inside.as_bytes()) {
        None => Some(Cow::Borrowed(inside)),
        Some(_) => serde_json::from_str::<String>(json).ok().map(Cow::Owned),
    }
}

/// Tells whether opening `text` would write `json` again.
pub(super) fn is_shortest(json: &str, text: &str) -> bool {
    // What needs no escape has one spelling only.
    memchr(b'\\', json.as_bytes()).is_none() || serde_json::to_string(text).is_ok_and(|again| again == json)
}

/// A pass over a line that is known to be JSON.
#[derive(Debug)]
pub(super) struct Scan<'l> {
    line: &'l str,
    at: usize,
}

impl<'l> Scan<'l> {
    /// Begins at byte `at` of a line that is JSON from there.
    pub(super) fn new(line: &'l str, at: usize) -> Self {
        Self { line, at }
    }

    /// Passes an object and notes the values of the `wanted` paths, whose first `depth` segments led here.
    pub(super) fn object(
        &mut self,
        paths: &[Vec<String>],
        depth: usize,
        wanted: &[usize],
        found: &mut [Option<Range<usize>>],
    ) -> Result<(), String> {
        if self.peek() != Some(b'{') {
            return Err("the line is not a JSON object".to_owned());
        }
        self.at += 1;
        while self.peek() == Some(b'"') {
            let key = self.value();
            let key = plain_text(&self.line[key]);
            self.peek();
            self.at += 1; // the colon
            let first = self.peek();
            let start = self.at;
            let below: Vec<usize> = wanted
                .iter()
                .copied()
                .filter(|path| key.as_deref() == Some(paths[*path][depth].as_str()))
                .collect();
            match below.first() {
                Some(&path) if paths[path].len() > depth + 1 && first == Some(b'{') => {
                    self.object(paths, depth + 1, &below, found)?;
                }
                _ => {
                    let place = self.value();
                    debug_assert_eq!(place.start, start);
                    for path in below.into_iter().filter(|path| paths[*path].len() == depth + 1) {
                        // One of two would stay as it is, and readers differ in which one they take.
                        if found[path].replace(place.clone()).is_some() {
                            return Err(format!("the field {} comes twice", paths[path].join(".")));
                        }
                    }
                }
            }
            if self.peek() == Some(b',') {
                self.at += 1;
            }
        }
        self.at += 1; // the closing brace
        Ok(())
    }

    /// Passes white space and returns the next byte.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.line.as_bytes()[self.at.min(self.line.len())..];
        self.at += rest.iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
        self.line.as_bytes().get(self.at).copied()
    }

    /// Passes a value and returns where it stands.
    fn value(&mut self) -> Range<usize> {
        let bytes = self.line.as_bytes();
        let start = self.at;
        let mut depth = 0_usize;
        while let Some(byte) = bytes.get(self.at) {
            match byte {
                b'"' => self.string(),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    let scalar = |byte: &&u8| !b",:]} \t\r\n".contains(byte);
                    self.at += bytes[self.at..].iter().take_while(scalar).count();
                }
            }
            if depth == 0 {
                break;
            }
        }
        start..self.at
    }

    /// Passes a string.
    fn string(&mut self) {
        let bytes = self.line.as_bytes();
        self.at += 1;
        while let Some(length) = memchr2(b'"', b'\\', &bytes[self.at..]) {
            self.at += length;
            if bytes[self.at] == b'"' {
                self.at += 1;
                return;
            }
            self.at += 2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::IgnoredAny;

    fn find<'l>(line: &'l str, paths: &[&str]) -> Result<Vec<Option<&'l str>>, String> {
        serde_json::from_str::<IgnoredAny>(line).unwrap();
        let paths: Vec<_> = paths.iter().map(|path| segments(path)).collect();
        let mut found = vec![None; paths.len()];
        let wanted: Vec<_> = (0..paths.len()).collect();
        Scan::new(line, 0).object(&paths, 0, &wanted, &mut found)?;
        Ok(found.into_iter().map(|place| place.map(|place| &line[place])).collect())
    }

    #[test]
    fn values_of_every_type_are_found_at_any_depth() {
        let line = r#" { "a" : {"b":{"c":[1, {"c":2}, "]}"]}, "d" : -1.5e3 } ,"e\n":"x\"}\\" , "f":{},"g":null,"h.i":true}  "#;
        assert_eq!(
            find(line, &["a.b.c", "a.d", "e", "e\n", "f", "g", "h\\.i", "a.b.x", "g.x"]).unwrap(),
            [
                Some(r#"[1, {"c":2}, "]}"]"#),
                Some("-1.5e3"),
                None,
                Some(r#""x\"}\\""#),
                Some("{}"),
                Some("null"),
                Some("true"),
                None,
                None
            ]
        );
    }

    #[test]
    fn an_escaped_key_is_the_same_key() {
        assert_eq!(find(r#"{"\u0061":1}"#, &["a"]).unwrap(), [Some("1")]);
        assert_eq!(find(r#"{"\ud800":1,"a":2}"#, &["a"]).unwrap(), [Some("2")]);
    }

    #[test]
    fn a_doubled_field_is_refused_for_one_would_stay_in_the_clear() {
        for line in
            [r#"{"a":{"b":1,"b":2}}"#, r#"{"a":{"b":1},"a":{"b":2}}"#, r#"{"a":{"b":1},"a":{"\u0062":2}}"#]
        {
            assert_eq!(find(line, &["a.b"]).unwrap_err(), "the field a.b comes twice");
        }
    }

    #[test]
    fn only_strings_in_their_shortest_escapes_are_sealed_as_text() {
        let shortest = |json: &str| plain_text(json).is_some_and(|text| is_shortest(json, &text));
        for json in [r#""""#, r#""a/é\n\"\\\u0001""#] {
            assert!(shortest(json), "{json}");
        }
        for json in [r#""\/""#, r#""\u00e9""#, r#""\u000a""#, r#""\u001F""#, r#""\ud800""#, "1", "null", "\""]
        {
            assert!(!shortest(json), "{json}");
        }
    }
}
