//! What commands print: JSON for programs, tables and sentences for people. All of standard output goes through here, so that a
//! reader that goes away ends the command quietly.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::failure::{Failure, Result};

/// Prints a line.
pub(crate) fn line(text: impl fmt::Display) -> Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::of_output)
}

/// Tells a person something on standard error, where standard output is for other things.
pub(crate) fn note(text: impl fmt::Display) -> Result<()> {
    // Nobody needs it.
    let _ = writeln!(io::stderr(), "{text}");
    Ok(())
}

/// Prints a value as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(Failure::because("JSON"))?;
    line(text)
}

/// Rows under a head, for a person.
pub(crate) struct Rows {
    table: Table,
    count: usize,
}

impl Rows {
    /// Begins a table with the names of its columns.
    pub(crate) fn new(head: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(head.iter().map(|name| name.to_uppercase()));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { table, count: 0 }
    }

    /// Has the columns of numbers end at the right.
    pub(crate) fn numbers(mut self, columns: &[usize]) -> Self {
        for &index in columns {
            if let Some(column) = self.table.column_mut(index) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        self
    }

    /// Adds a row; text from elsewhere is made harmless for the terminal.
    pub(crate) fn add(&mut self, cells: &[&dyn fmt::Display]) {
        self.table.add_row(cells.iter().map(|cell| harmless(&cell.to_string()).into_owned()));
        self.count += 1;
    }

    /// Prints the table, or `none` where it has no rows.
    pub(crate) fn print(&self, none: &str) -> Result<()> {
        match self.count {
            0 => line(none),
            // Without the blanks that fill the last column.
            _ => {
                line(self.table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n"))
            }
        }
    }
}

/// Pairs of names and values, one a line, for one thing that has many.
pub(crate) fn card(pairs: &[(&str, &dyn fmt::Display)]) -> Result<()> {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in pairs {
        let value = value.to_string();
        writeln!(text, "{name:width$}  {}", harmless(&value)).expect("a string grows");
    }
    line(text.trim_end())
}

/// Replaces control characters, which could otherwise move the cursor or hide what a key is called.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(2 * text.len());
    for c in text.chars() {
        match c.is_control() {
            true => safe.extend(c.escape_default()),
            false => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// Writes a number with commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a value, or a dash where there is none.
pub(crate) fn or_dash<T: fmt::Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_reach_no_terminal() {
        assert_eq!(harmless("plain é"), "plain é");
        assert_eq!(harmless("a\u{1b}[2Jb\n\u{9b}c"), "a\\u{1b}[2Jb\\n\\u{9b}c");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
