//! Templates of configuration files, as they are read: text with places for secrets, `{{ secret "shop/db" }}` and
//! `{{ secret "shop/db" "user.name" }}`. `{{ "{{" }}` stands for two braces. Anything else between braces is wrong, and is told by its line.

use super::place::Place;

/// A piece of a template.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'t> {
    /// Text as it stands.
    Text(&'t str),
    /// Text of a place, its escapes resolved.
    Literal(String),
    /// The value of a secret, or a field of it.
    Secret {
        /// Which.
        place: Place,
        /// The line that it stands in.
        line: usize,
    },
}

/// What is wrong with a template, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// The line, from 1.
    pub(crate) line: usize,
    /// What.
    pub(crate) why: String,
}

/// Cuts a template into its pieces.
pub(crate) fn parse(template: &str) -> Result<Vec<Piece<'_>>, Wrong> {
    let mut pieces = Vec::new();
    let (mut rest, mut line) = (template, 1);
    while let Some(at) = rest.find("{{") {
        let (text, place) = rest.split_at(at);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        line += newlines(text);
        let wrong = |why: &str| Wrong { line, why: why.to_owned() };
        let (inside, after) = cut(&place[2..]).ok_or_else(|| wrong("the {{ has no }} in its line"))?;
        pieces.push(piece(&inside, line).map_err(|why| wrong(&why))?);
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

fn newlines(text: &str) -> usize {
    text.bytes().filter(|c| *c == b'\n').count()
}

/// A word between braces.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Name(String),
    Quoted(String),
}

/// Cuts what is between braces into words, up to `}}`, which may stand in quotes; returns what is behind it.
fn cut(text: &str) -> Option<(Vec<Word>, &str)> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(after) = rest.strip_prefix("}}") {
            return Some((words, after));
        }
        let first = rest.chars().next().filter(|c| *c != '\n')?;
        if first == '"' {
            let (word, after) = quoted(&rest[1..])?;
            words.push(Word::Quoted(word));
            rest = after;
        } else {
            let end = rest.find([' ', '\t', '\n', '"', '}']).unwrap_or(rest.len());
            // A brace alone is a word of its own, which is wrong wherever it stands.
            let end = end.max(first.len_utf8());
            words.push(Word::Name(rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
}

/// Reads a text in quotes up to its end, in one line; `\"` and `\\` are its escapes.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut word = String::new();
    let mut letters = text.char_indices();
    while let Some((at, c)) = letters.next() {
        match c {
            '"' => return Some((word, &text[at + 1..])),
            '\\' => match letters.next() {
                Some((_, c @ ('"' | '\\'))) => word.push(c),
                _ => return None,
            },
            '\n' => return None,
            c => word.push(c),
        }
    }
    None
}

fn piece<'t>(words: &[Word], line: usize) -> Result<Piece<'t>, String> {
    let (name, path) = match words {
        [Word::Quoted(text)] => return Ok(Piece::Literal(text.clone())),
        [Word::Name(word), Word::Quoted(name)] if word == "secret" => (name, None),
        [Word::Name(word), Word::Quoted(name), Word::Quoted(path)] if word == "secret" => {
            (name, Some(path.clone()))
        }
        _ => {
            return Err(
                "between braces stands secret \"NAME\", secret \"NAME\" \"FIELD\", or a text in quotes"
                    .to_owned(),
            );
        }
    };
    let name = name.parse().map_err(|error: keymill_core::Error| error.message().to_owned())?;
    match path.as_deref() {
        Some("") => Err("the name of the field is empty".to_owned()),
        _ => Ok(Piece::Secret { place: Place { name, path }, line }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str, line: usize) -> Piece<'static> {
        Piece::Secret { place: text.parse().unwrap(), line }
    }

    #[test]
    fn places_stand_between_text_and_know_their_lines() {
        let text = "a={{secret \"db\"}}\n{{ secret  \"shop/db\" \"user.name\"}}}b\n{{ \"{{ \\\"x\\\" }}\" }}";
        let pieces = parse(text).unwrap();
        let expected = [
            Piece::Text("a="),
            place("db", 1),
            Piece::Text("\n"),
            place("shop/db#user.name", 2),
            Piece::Text("}b\n"),
            Piece::Literal("{{ \"x\" }}".to_owned()),
        ];
        assert_eq!(pieces, expected);
        assert_eq!(parse("").unwrap(), []);
        assert_eq!(parse("{ } { {").unwrap(), [Piece::Text("{ } { {")]);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for bad in [
            "{{",
            "{{ secret \"db\"",
            "{{ secret \"db\" }",
            "{{ secret \"db\n\" }}",
            "{{ secret \"d\\b\" }}",
            "{{\nsecret \"db\" }}",
            "{{ secret }}",
            "{{ secret db }}",
            "{{ Secret \"db\" }}",
            "{{- secret \"db\" -}}",
            "{{ secret \"db\" | upper }}",
            "{{ secret \"a\" \"b\" \"c\" }}",
            "{{ secret \"no name\" }}",
            "{{ secret \"db\" \"\" }}",
            "{{ }}",
            "{{ } }}",
        ] {
            let wrong = parse(&format!("first\nsecond {bad}")).unwrap_err();
            assert!(wrong.line == 2 && !wrong.why.is_empty(), "{bad}: {wrong:?}");
        }
    }
}
