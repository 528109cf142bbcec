//! Dotenv files: `NAME=VALUE` lines, `export` before them or not, comments from `#` on. In single quotes a text is as it stands, in double ones
//! `\n`, `\r`, `\t`, `\"`, `\$` and `\\` are its escapes; both may go over lines. Nothing is put in the place of `$NAME`: a password may hold
//! a `$`.

use zeroize::Zeroizing;

use super::source::{Entry, Unreadable, checked};

/// Reads a file.
pub(crate) fn read(text: &str) -> Result<Vec<Entry>, Unreadable> {
    let mut cursor = Cursor { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    let mut entries = Vec::new();
    while cursor.next_line() {
        let line = cursor.line;
        let key = cursor.key().ok_or_else(|| Unreadable::at(line, "expected NAME=VALUE"))?;
        let value = cursor.value().map_err(|why| Unreadable::at(line, why))?;
        if value.contains('\0') {
            return Err(Unreadable::at(line, "a zero byte"));
        }
        entries.push(Entry::text(key, value));
    }
    checked(entries)
}

struct Cursor<'t> {
    rest: &'t str,
    line: usize,
}

impl<'t> Cursor<'t> {
    /// Goes to the next line that holds something.
    fn next_line(&mut self) -> bool {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\r']);
            match self.rest.chars().next() {
                None => return false,
                Some('\n') => drop(self.pass(1)),
                Some('#') => drop(self.pass(self.rest.find('\n').unwrap_or(self.rest.len()))),
                Some(_) => return true,
            }
        }
    }

    fn pass(&mut self, bytes: usize) -> &'t str {
        let (passed, rest) = self.rest.split_at(bytes);
        self.line += passed.bytes().filter(|c| *c == b'\n').count();
        self.rest = rest;
        passed
    }

    /// Reads a name up to behind its `=`.
    fn key(&mut self) -> Option<&'t str> {
        const BLANKS: [char; 2] = [' ', '\t'];
        if let Some(rest) = self.rest.strip_prefix("export").filter(|rest| rest.starts_with(BLANKS)) {
            self.rest = rest.trim_start_matches(BLANKS);
        }
        let is_of_a_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        let length = self.rest.find(|c| !is_of_a_name(c)).unwrap_or(self.rest.len());
        let name = self.pass(length);
        self.rest = self.rest.trim_start_matches(BLANKS).strip_prefix('=')?.trim_start_matches(BLANKS);
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_').then_some(name)
    }

    fn value(&mut self) -> Result<Zeroizing<String>, &'static str> {
        let value = match self.rest.chars().next() {
            Some('\'') => {
                self.pass(1);
                let length = self.rest.find('\'').ok_or("the single quote has no other")?;
                let text = Zeroizing::new(self.pass(length).to_owned());
                self.pass(1);
                text
            }
            Some('"') => {
                self.pass(1);
                self.double_quoted()?
            }
            _ => return Ok(self.unquoted()),
        };
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        let behind = self.pass(end).trim();
        match behind.is_empty() || behind.starts_with('#') {
            true => Ok(value),
            false => Err("something stands behind the quotes"),
        }
    }

    fn unquoted(&mut self) -> Zeroizing<String> {
        let end = self.rest.find('\n').unwrap_or(self.rest.len());
        let line = self.pass(end);
        let mut blank = true;
        let comment = line.char_indices().find(|(_, c)| {
            let begins = *c == '#' && blank;
            blank = matches!(c, ' ' | '\t');
            begins
        });
        let value = comment.map_or(line, |(at, _)| &line[..at]);
        Zeroizing::new(value.trim_end().to_owned())
    }

    fn double_quoted(&mut self) -> Result<Zeroizing<String>, &'static str> {
        let length = quoted_length(self.rest).ok_or("the double quote has no other")?;
        let quoted = self.pass(length);
        self.pass(1);
        // At once: a growing text would leave copies behind.
        let mut text = Zeroizing::new(String::with_capacity(length));
        let mut letters = quoted.chars();
        while let Some(c) = letters.next() {
            text.push(match c {
                '\\' => match letters.next() {
                    Some('n') => '\n',
                    Some('r') => '\r',
                    Some('t') => '\t',
                    Some(c @ ('"' | '$' | '\\')) => c,
                    _ => return Err("an escape that is none: single quotes keep a text as it is"),
                },
                c => c,
            });
        }
        Ok(text)
    }
}

/// Returns where a text in double quotes ends.
fn quoted_length(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|c| {
        let ends = c == b'"' && !escaped;
        escaped = c == b'\\' && !escaped;
        ends
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        let entries = read(text).unwrap();
        entries.iter().map(|entry| (entry.key.clone(), entry.value.to_string())).collect()
    }

    #[test]
    fn names_and_values_are_read_as_they_are_written() {
        let text = "\u{feff}# a comment\r\n\nA=plain value  # comment\nexport B = \"q \\\"x\\\" \\n\\$Y # in\" # out\n\
            C='as $it \\n stands'\nD=\nE=#none\nF=a#b$C\nG=\"two\nlines\"\nH='and\nhere'\r\n_i.j-k=ü";
        let expected = [
            ("A", "plain value"),
            ("B", "q \"x\" \n$Y # in"),
            ("C", "as $it \\n stands"),
            ("D", ""),
            ("E", ""),
            ("F", "a#b$C"),
            ("G", "two\nlines"),
            ("H", "and\nhere"),
            ("_i.j-k", "ü"),
        ];
        let expected: Vec<_> = expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        assert_eq!(pairs(text), expected);
        assert_eq!(pairs(""), []);
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line_and_without_the_value() {
        for (bad, line) in [
            ("MARKED", 2),
            ("1A=MARKED", 2),
            ("=MARKED", 2),
            ("A B=MARKED", 2),
            ("A='MARKED", 2),
            ("A=\"MARKED", 2),
            ("A=\"MARKED\\d\"", 2),
            ("A='x' MARKED", 2),
            ("A=MARKED\0", 2),
            ("A=x\nA=MARKED", 0),
        ] {
            let error = read(&format!("X=y\n{bad}")).unwrap_err();
            assert_eq!(error.line, line, "{bad}: {error:?}");
            assert!(!error.why.contains("MARKED"), "{error:?}");
        }
    }
}
