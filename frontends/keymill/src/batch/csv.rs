//! Cuts CSV (RFC 4180; lines end in LF or CRLF) into records and finds the named fields, without touching a byte of the
//! rest. A reader that unquotes every field could not give back the quoting; hence our own, of field ranges only.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

use super::Direction;
use super::cell::{self, Form};
use super::error::BatchError;
use super::plan::Plan;
use super::reader::{Cutter, byte_order_mark};
use super::rows::{Adding, Rows};

/// Finds the cells of CSV rows.
#[derive(Debug)]
pub(super) struct CsvCutter<'p> {
    plan: &'p Plan,
    /// Field of the record, and place in the selection; in the order of fields. Empty until the header is read.
    selected: Vec<(usize, usize)>,
    /// Fields that give the context, in the order of the plan.
    context: Vec<usize>,
    header_missing: bool,
    at_start: bool,
    fields: Vec<Field>,
}

/// Where a field stands in its record, quotes included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Field {
    start: usize,
    end: usize,
    quoted: bool,
}

impl Field {
    fn value<'b>(&self, record: &'b [u8]) -> Cow<'b, [u8]> {
        if !self.quoted {
            return Cow::Borrowed(&record[self.start..self.end]);
        }
        let inside = &record[self.start + 1..self.end - 1];
        if memchr(b'"', inside).is_none() {
            return Cow::Borrowed(inside);
        }
        let mut value = Vec::with_capacity(inside.len());
        let mut rest = inside;
        // Inside a quoted field every quote is the first of two.
        while let Some(quote) = memchr(b'"', rest) {
            value.extend_from_slice(&rest[..=quote]);
            rest = &rest[quote + 2..];
        }
        value.extend_from_slice(rest);
        Cow::Owned(value)
    }
}

impl<'p> CsvCutter<'p> {
    /// Makes a cutter for the start of a file.
    pub(super) fn new(plan: &'p Plan) -> Result<Self, BatchError> {
        let mut cutter = Self {
            plan,
            selected: Vec::new(),
            context: Vec::new(),
            header_missing: plan.header,
            at_start: true,
            fields: Vec::new(),
        };
        if !plan.header {
            cutter.resolve(|name| match name.parse::<usize>() {
                Ok(number) if number > 0 => Ok(number - 1),
                _ => Err(format!("with --no-header a column is a number from 1, not {name}")),
            })?;
        }
        Ok(cutter)
    }

    /// Finds the fields of the plan's columns.
    fn resolve(&mut self, index: impl Fn(&str) -> Result<usize, String>) -> Result<(), BatchError> {
        for (place, name) in self.plan.selection.iter().enumerate() {
            let field = index(name).map_err(BatchError::usage)?;
            if self.selected.iter().any(|(known, _)| *known == field) {
                return Err(BatchError::usage(format!("--columns names {name} twice")));
            }
            self.selected.push((field, place));
        }
        self.selected.sort_unstable();
        for name in self.plan.context.columns() {
            let field = index(name).map_err(BatchError::usage)?;
            if self.selected.iter().any(|(sealed, _)| *sealed == field) {
                return Err(BatchError::usage(format!(
                    "column {name} is sealed itself, so decrypting could not take the context from it"
                )));
            }
            self.context.push(field);
        }
        Ok(())
    }

    fn read_header(&mut self, record: &[u8]) -> Result<(), BatchError> {
        let names: Vec<_> = self.fields.iter().map(|field| field.value(record)).collect();
        let index = |name: &str| {
            let mut found = names.iter().enumerate().filter(|(_, known)| ***known == *name.as_bytes());
            match (found.next(), found.next()) {
                (Some((index, _)), None) => Ok(index),
                (Some(_), Some(_)) => Err(format!("the header has two columns named {name}")),
                (None, _) => {
                    // What a file holds must not move the cursor of a terminal.
                    let all: Vec<_> = names
                        .iter()
                        .map(|name| String::from_utf8_lossy(name).escape_debug().to_string())
                        .collect();
                    Err(format!("no column is named {name}; the header has {}", all.join(", ")))
                }
            }
        };
        self.resolve(index)?;
        self.header_missing = false;
        Ok(())
    }

    fn cells(&self, record: &[u8], adding: &mut Adding<'_>) -> Result<(), BatchError> {
        let row = adding.row();
        for &(index, column) in &self.selected {
            let name = &self.plan.selection[column];
            let field = self.field(index).map_err(|message| BatchError::cell(row, name, message))?;
            self.cell(&field, record, column, adding)
                .map_err(|message| BatchError::cell(row, name, message))?;
        }
        if !self.plan.context.is_per_row() || !adding.has_cells() {
            return Ok(());
        }
        let mut values = Vec::with_capacity(self.context.len());
        for (&index, name) in self.context.iter().zip(self.plan.context.columns()) {
            let value = self.field(index).and_then(|field| {
                String::from_utf8(field.value(record).into_owned())
                    .map_err(|_| "a value of the encryption context is not UTF-8".to_owned())
            });
            values.push(value.map_err(|message| BatchError::cell(row, name, message))?);
        }
        adding.context(self.plan.context.of_row(&values).map_err(|message| BatchError::row(row, message))?);
        Ok(())
    }

    fn field(&self, index: usize) -> Result<Field, String> {
        self.fields.get(index).copied().ok_or_else(|| {
            format!("the row has {} of its columns, and this is number {}", self.fields.len(), index + 1)
        })
    }

    fn cell(
        &self,
        field: &Field,
        record: &[u8],
        column: usize,
        adding: &mut Adding<'_>,
    ) -> Result<(), String> {
        let value = field.value(record);
        if value.is_empty() && self.plan.keep_empty {
            return Ok(());
        }
        let form = if field.quoted { Form::Quoted } else { Form::Bare { delimiter: self.plan.delimiter } };
        let place = field.start..field.end;
        match self.plan.direction {
            Direction::Encrypt => {
                cell::check_plain(&value, self.plan.allow_reencrypt)?;
                adding.cell(place, form, column, |items| {
                    items.extend_from_slice(&value);
                    Ok(())
                })
            }
            Direction::Decrypt | Direction::ReEncrypt => match value.strip_prefix(cell::SEALED.as_bytes()) {
                Some(text) => adding.cell(place, form, column, |items| cell::read_sealed(text, items)),
                None if self.plan.skip_plain => Ok(()),
                None => Err(cell::NOT_SEALED.to_owned()),
            },
        }
    }
}

impl Cutter for CsvCutter<'_> {
    fn cut(&mut self, unread: &[u8], ended: bool, rows: &mut Rows) -> Result<Option<usize>, BatchError> {
        let start = match self.at_start {
            true => match byte_order_mark(unread, ended) {
                Some(length) => length,
                None => return Ok(None),
            },
            false => 0,
        };
        let mut adding = rows.add();
        let split = split(unread, start, self.plan.delimiter, ended, &mut self.fields);
        let Some(length) = split.map_err(|message| BatchError::row(adding.row(), message))? else {
            return Ok(None);
        };
        self.at_start = false;
        let record = &unread[..length];
        if matches!(self.fields[..], [Field { start, end, .. }] if start == end) {
            adding.pass(record);
        } else if self.header_missing {
            self.read_header(record)?;
            adding.pass(record);
        } else {
            self.cells(record, &mut adding)?;
            adding.done(record);
        }
        Ok(Some(length))
    }

    fn header_missing(&self) -> bool {
        self.header_missing
    }

    fn skip_start(&mut self) {
        self.at_start = false;
    }
}

/// Finds the fields of the record at `start`, and returns where the next one begins; nothing where its end is not there yet.
fn split(
    bytes: &[u8],
    start: usize,
    delimiter: u8,
    ended: bool,
    fields: &mut Vec<Field>,
) -> Result<Option<usize>, &'static str> {
    fields.clear();
    let mut at = start;
    loop {
        let start = at;
        if bytes.get(at) != Some(&b'"') {
            let end = memchr2(delimiter, b'\n', &bytes[at..]).map(|length| at + length);
            let (end, next) = match end {
                Some(end) if bytes[end] == delimiter => {
                    fields.push(Field { start, end, quoted: false });
                    at = end + 1;
                    continue;
                }
                Some(end) if end > start && bytes[end - 1] == b'\r' => (end - 1, end + 1),
                Some(end) => (end, end + 1),
                None if ended => (bytes.len(), bytes.len()),
                None => return Ok(None),
            };
            fields.push(Field { start, end, quoted: false });
            return Ok(Some(next));
        }
        let Some(end) = quoted_end(bytes, at, ended)? else { return Ok(None) };
        fields.push(Field { start, end, quoted: true });
        match &bytes[end..] {
            [byte, ..] if *byte == delimiter => at = end + 1,
            [b'\n', ..] => return Ok(Some(end + 1)),
            [b'\r', b'\n', ..] => return Ok(Some(end + 2)),
            [] | [b'\r'] if ended => return Ok(Some(bytes.len())),
            [] | [b'\r'] => return Ok(None),
            _ => return Err("text follows the closing quote of a field"),
        }
    }
}

/// Returns where the quoted field that begins at `start` ends, its closing quote included.
fn quoted_end(bytes: &[u8], start: usize, ended: bool) -> Result<Option<usize>, &'static str> {
    let mut at = start + 1;
    while let Some(length) = memchr(b'"', &bytes[at..]) {
        let quote = at + length;
        match bytes.get(quote + 1) {
            Some(b'"') => at = quote + 2,
            None if !ended => return Ok(None),
            _ => return Ok(Some(quote + 1)),
        }
    }
    if ended { Err("a quoted field is not closed") } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(record: &str) -> Vec<String> {
        let mut fields = Vec::new();
        split(record.as_bytes(), 0, b',', true, &mut fields).unwrap().unwrap();
        fields
            .iter()
            .map(|field| String::from_utf8(field.value(record.as_bytes()).into_owned()).unwrap())
            .collect()
    }

    #[test]
    fn quotes_line_ends_and_literal_quotes_are_told_apart() {
        assert_eq!(fields("a,\"b \"\"c\"\",\r\n\",,5\" pipe\r\n"), ["a", "b \"c\",\r\n", "", "5\" pipe"]);
        assert_eq!(fields("a\r"), ["a\r"]);
        assert_eq!(fields("\"a\"\r"), ["a"]);
        assert_eq!(fields("\"\",\"\"\"\""), ["", "\""]);
        assert_eq!(fields("a,"), ["a", ""]);
        assert_eq!(fields("\n"), [""]);
    }

    #[test]
    fn a_record_is_the_same_however_its_bytes_arrive() {
        let text = b"\"a\"\"\n\",b\r\nnext";
        let length = text.len() - b"next".len();
        let mut fields = Vec::new();
        for arrived in 0..length {
            assert_eq!(split(&text[..arrived], 0, b',', false, &mut fields), Ok(None), "{arrived}");
        }
        for arrived in length..=text.len() {
            assert_eq!(split(&text[..arrived], 0, b',', false, &mut fields), Ok(Some(length)));
            assert_eq!(fields.len(), 2);
        }
    }

    #[test]
    fn broken_quoting_is_refused() {
        let mut fields = Vec::new();
        assert!(split(b"\"a\"b,c\n", 0, b',', false, &mut fields).is_err());
        assert!(split(b"a,\"b\n", 0, b',', true, &mut fields).is_err());
        assert_eq!(split(b"a,\"b\n", 0, b',', false, &mut fields), Ok(None));
    }
}
