//! A run of rows on its way: the raw bytes, the cells in them, and what of it goes into one request. A run is filled,
//! sealed, written and then filled again; as there is a fixed number of them, memory is bounded.

use std::ops::Range;

use keymill_core::context::EncryptionContext;

use super::Direction;
use super::cell::{self, Form};
use super::error::BatchError;

/// Bytes of a buffer that are kept from one use to the next.
const KEPT_BYTES: usize = 1024 * 1024;

/// A cell in a run of rows.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    /// Where it stands in the raw bytes, quotes included.
    place: Range<usize>,
    /// Where the bytes for the request stand.
    item: Range<usize>,
    form: Form,
    /// The row, counted from the first of the run.
    row: usize,
    /// Its place in the selection.
    column: usize,
    /// Its place among the contexts, where rows have their own.
    context: usize,
}

/// A run of rows.
#[derive(Debug, Default)]
pub(super) struct Rows {
    /// Its place among all runs.
    pub(super) number: u64,
    /// The first row, from 1.
    pub(super) first_row: u64,
    /// Rows; a header and empty lines are none.
    pub(super) count: u64,
    /// Bytes of the input up to its end.
    pub(super) input_offset: u64,
    /// The rows with their cells sealed or opened.
    pub(super) out: Vec<u8>,
    raw: Vec<u8>,
    cells: Vec<Cell>,
    items: Vec<u8>,
    contexts: Vec<EncryptionContext>,
}

impl Rows {
    /// Empties the run for another use.
    pub(super) fn clear(&mut self) {
        for buffer in [&mut self.out, &mut self.raw, &mut self.items] {
            buffer.clear();
            buffer.shrink_to(KEPT_BYTES);
        }
        self.cells.clear();
        self.contexts.clear();
        self.count = 0;
    }

    /// Returns the bytes of the rows as they were read.
    pub(super) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Returns how many cells go into the request.
    pub(super) fn cells(&self) -> usize {
        self.cells.len()
    }

    /// Returns the bytes of all items.
    pub(super) fn item_bytes(&self) -> usize {
        self.items.len()
    }

    /// Returns the items in their order.
    pub(super) fn items(&self) -> impl Iterator<Item = &[u8]> {
        self.cells.iter().map(|cell| &self.items[cell.item.clone()])
    }

    /// Returns the context of each item, where rows have their own.
    pub(super) fn contexts(&self) -> impl Iterator<Item = &EncryptionContext> {
        self.cells.iter().map(|cell| &self.contexts[cell.context])
    }

    /// Returns the row of an item, from 1, and its place in the selection.
    pub(super) fn locate(&self, item: usize) -> (u64, usize) {
        let cell = &self.cells[item];
        (self.first_row + cell.row as u64, cell.column)
    }

    /// Returns the last row.
    pub(super) fn last_row(&self) -> u64 {
        self.first_row + self.count.saturating_sub(1)
    }

    /// Begins to add a record; nothing of it counts before [`Adding::done`].
    pub(super) fn add(&mut self) -> Adding<'_> {
        let marks = (self.raw.len(), self.cells.len(), self.items.len(), self.contexts.len());
        Adding { rows: self, marks, kept: false }
    }

    /// Writes the rows into `out`, each cell replaced by what the server made of it.
    pub(super) fn render<'r>(
        &mut self,
        direction: Direction,
        columns: &[String],
        results: impl Iterator<Item = &'r [u8]>,
    ) -> Result<(), BatchError> {
        self.out.clear();
        let mut copied = 0;
        for (cell, result) in self.cells.iter().zip(results) {
            self.out.extend_from_slice(&self.raw[copied..cell.place.start]);
            match direction {
                Direction::Encrypt | Direction::ReEncrypt => {
                    cell::write_sealed(cell.form, result, &mut self.out)
                }
                Direction::Decrypt => {
                    let next = self.raw.get(cell.place.end).copied();
                    cell::write_opened(cell.form, result, next, &mut self.out).map_err(|message| {
                        BatchError::cell(self.first_row + cell.row as u64, &columns[cell.column], message)
                    })?;
                }
            }
            copied = cell.place.end;
        }
        self.out.extend_from_slice(&self.raw[copied..]);
        Ok(())
    }
}

/// A record that is being added to a run, and taken out again unless it is done.
#[derive(Debug)]
pub(super) struct Adding<'r> {
    rows: &'r mut Rows,
    marks: (usize, usize, usize, usize),
    kept: bool,
}

impl Adding<'_> {
    /// Returns the row that the record is, if it is one.
    pub(super) fn row(&self) -> u64 {
        self.rows.first_row + self.rows.count
    }

    /// Adds a cell; `place` counts from the start of the record, and `write` appends the bytes for the request.
    pub(super) fn cell(
        &mut self,
        place: Range<usize>,
        form: Form,
        column: usize,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), String>,
    ) -> Result<(), String> {
        let base = self.marks.0;
        let start = self.rows.items.len();
        write(&mut self.rows.items)?;
        self.rows.cells.push(Cell {
            place: base + place.start..base + place.end,
            item: start..self.rows.items.len(),
            form,
            row: self.rows.count as usize,
            column,
            context: self.marks.3,
        });
        Ok(())
    }

    /// Tells whether the record has cells for the request.
    pub(super) fn has_cells(&self) -> bool {
        self.rows.cells.len() > self.marks.1
    }

    /// Puts the cells into the order in which they stand in the record.
    pub(super) fn sort(&mut self) {
        self.rows.cells[self.marks.1..].sort_unstable_by_key(|cell| cell.place.start);
    }

    /// Sets the context of the record's cells.
    pub(super) fn context(&mut self, context: EncryptionContext) {
        self.rows.contexts.truncate(self.marks.3);
        self.rows.contexts.push(context);
    }

    /// Keeps a record that is a row.
    pub(super) fn done(self, record: &[u8]) {
        self.keep(record, 1);
    }

    /// Keeps bytes that are no row: a header or an empty line.
    pub(super) fn pass(self, record: &[u8]) {
        self.keep(record, 0);
    }

    fn keep(mut self, record: &[u8], rows: u64) {
        self.rows.raw.extend_from_slice(record);
        self.rows.count += rows;
        self.kept = true;
    }
}

impl Drop for Adding<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.rows.cells.truncate(self.marks.1);
            self.rows.items.truncate(self.marks.2);
            self.rows.contexts.truncate(self.marks.3);
        }
    }
}
