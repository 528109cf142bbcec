//! Finds the named fields in lines of JSON objects, as byte ranges, without touching a byte of the rest. A line is checked
//! as a whole first, so that the scan for ranges may trust its form.

use std::borrow::Cow;
use std::ops::Range;

use memchr::memchr;
use serde::de::IgnoredAny;

use super::Direction;
use super::cell::{self, Form};
use super::error::BatchError;
use super::json::{Scan, is_shortest, plain_text, segments};
use super::plan::Plan;
use super::reader::{Cutter, byte_order_mark};
use super::rows::{Adding, Rows};

/// Finds the cells of NDJSON lines.
#[derive(Debug)]
pub(super) struct NdjsonCutter<'p> {
    plan: &'p Plan,
    /// The paths of the selection, then those of the context, each in its segments.
    paths: Vec<Vec<String>>,
    found: Vec<Option<Range<usize>>>,
    at_start: bool,
}

impl<'p> NdjsonCutter<'p> {
    /// Makes a cutter for the start of a file.
    pub(super) fn new(plan: &'p Plan) -> Result<Self, BatchError> {
        let names: Vec<&str> =
            plan.selection.iter().map(String::as_str).chain(plan.context.columns()).collect();
        let paths: Vec<_> = names.iter().map(|name| segments(name)).collect();
        for (a, path) in paths.iter().enumerate().take(plan.selection.len()) {
            for (b, other) in paths.iter().enumerate().filter(|(b, _)| *b != a) {
                if other.starts_with(path) {
                    return Err(BatchError::usage(format!(
                        "field {} is sealed with {}, so it cannot be named as well",
                        names[b], names[a]
                    )));
                }
            }
        }
        let found = vec![None; paths.len()];
        Ok(Self { plan, paths, found, at_start: true })
    }

    fn cells(&self, line: &str, adding: &mut Adding<'_>) -> Result<(), BatchError> {
        let row = adding.row();
        let (selected, context) = self.found.split_at(self.plan.selection.len());
        for (column, (place, name)) in selected.iter().zip(&self.plan.selection).enumerate() {
            let added = match place {
                Some(place) => self.cell(line, place.clone(), column, adding),
                None if self.plan.ignore_missing => Ok(()),
                None => Err("the line has no such field (--ignore-missing leaves such lines)".to_owned()),
            };
            added.map_err(|message| BatchError::cell(row, name, message))?;
        }
        adding.sort();
        if !self.plan.context.is_per_row() || !adding.has_cells() {
            return Ok(());
        }
        let mut values = Vec::with_capacity(context.len());
        for (place, name) in context.iter().zip(self.plan.context.columns()) {
            let value = match place {
                Some(place) => context_value(&line[place.clone()]),
                None => Err("the line has no such field, which the encryption context needs"),
            };
            values.push(value.map_err(|message| BatchError::cell(row, name, message))?);
        }
        adding.context(self.plan.context.of_row(&values).map_err(|message| BatchError::row(row, message))?);
        Ok(())
    }

    fn cell(
        &self,
        line: &str,
        place: Range<usize>,
        column: usize,
        adding: &mut Adding<'_>,
    ) -> Result<(), String> {
        let json = &line[place.clone()];
        if self.plan.keep_empty && (json == "\"\"" || json == "null") {
            return Ok(());
        }
        match self.plan.direction {
            Direction::Encrypt => {
                let text = plain_text(json);
                let (form, value) = match &text {
                    Some(text) if is_shortest(json, text) => (Form::Text, text.as_bytes()),
                    _ => (Form::Json, json.as_bytes()),
                };
                // A sealed cell is recognised by what it says, however it is escaped.
                let says = text.as_ref().map_or(value, |text| text.as_bytes());
                cell::check_plain(says, self.plan.allow_reencrypt)?;
                cell::check_plain(value, self.plan.allow_reencrypt)?;
                adding.cell(place, form, column, |items| {
                    items.extend_from_slice(value);
                    Ok(())
                })
            }
            Direction::Decrypt | Direction::ReEncrypt => {
                let text = plain_text(json);
                let sealed = text.as_deref().and_then(|text| {
                    let json = text.strip_prefix(cell::SEALED_JSON).map(|blob| (Form::Json, blob));
                    json.or_else(|| text.strip_prefix(cell::SEALED).map(|blob| (Form::Text, blob)))
                });
                match sealed {
                    Some((form, blob)) => {
                        adding.cell(place, form, column, |items| cell::read_sealed(blob.as_bytes(), items))
                    }
                    None if self.plan.skip_plain => Ok(()),
                    None => Err(cell::NOT_SEALED.to_owned()),
                }
            }
        }
    }
}

impl Cutter for NdjsonCutter<'_> {
    fn cut(&mut self, unread: &[u8], ended: bool, rows: &mut Rows) -> Result<Option<usize>, BatchError> {
        let start = match self.at_start {
            true => match byte_order_mark(unread, ended) {
                Some(length) => length,
                None => return Ok(None),
            },
            false => 0,
        };
        let length = match memchr(b'\n', unread) {
            Some(end) => end + 1,
            None if ended => unread.len(),
            None => return Ok(None),
        };
        self.at_start = false;
        let record = &unread[..length];
        let mut adding = rows.add();
        if record[start..].iter().all(|byte| b" \t\r\n".contains(byte)) {
            adding.pass(record);
            return Ok(Some(length));
        }
        let row = adding.row();
        // The parser's own message may quote the line; its column does not.
        let line = std::str::from_utf8(record).map_err(|_| BatchError::row(row, "the line is not UTF-8"))?;
        serde_json::from_str::<IgnoredAny>(&line[start..])
            .map_err(|error| BatchError::row(row, format!("not JSON at byte {}", start + error.column())))?;
        self.found.fill(None);
        Scan::new(line, start)
            .object(&self.paths, 0, &(0..self.paths.len()).collect::<Vec<_>>(), &mut self.found)
            .map_err(|message| BatchError::row(row, message))?;
        self.cells(line, &mut adding)?;
        adding.done(record);
        Ok(Some(length))
    }

    fn header_missing(&self) -> bool {
        false
    }

    fn skip_start(&mut self) {
        self.at_start = false;
    }
}

fn context_value(json: &str) -> Result<String, &'static str> {
    match json.as_bytes().first() {
        Some(b'"') => {
            plain_text(json).map(Cow::into_owned).ok_or("a lone surrogate is no text for the context")
        }
        Some(b'{' | b'[' | b'n') => Err("the encryption context takes strings, numbers and booleans"),
        _ => Ok(json.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_takes_scalars() {
        assert_eq!(context_value(r#""\u0061""#).unwrap(), "a");
        assert_eq!(context_value("1.0").unwrap(), "1.0");
        assert_eq!(context_value("true").unwrap(), "true");
        for bad in ["null", "{}", "[1]", r#""\ud800""#] {
            assert!(context_value(bad).is_err(), "{bad}");
        }
    }
}
