//! `keymill batch encrypt|decrypt|reencrypt`: seals columns of CSV and fields of NDJSON, opens them again to the same bytes, and seals them
//! anew under another key or a new version of it, in the server, so that no plaintext comes here.
//!
//! A reader cuts the input into runs of rows, one worker a connection has them sealed or opened with several requests
//! underway, and the calling thread writes them in their order and keeps the checkpoint. Nothing is parsed and written
//! anew: bytes outside the named cells pass as they are, so decrypting restores the file byte for byte.

mod args;
mod cell;
mod checkpoint;
mod context;
mod csv;
mod error;
mod interrupt;
mod json;
mod ndjson;
mod output;
mod pipeline;
mod plan;
mod progress;
mod reader;
mod rows;
mod seal;
mod worker;

use std::fmt;
use std::time::Instant;

use keymill_client::Credentials;
use serde::Serialize;

use crate::credentials::Tcp;

pub(crate) use args::{BatchArgs, Place};
pub(crate) use error::BatchError;
pub(crate) use interrupt::Interrupt;

use checkpoint::Checkpoint;
use output::Output;
use pipeline::Settings;
use plan::Plan;
use progress::Progress;
use reader::Reader;
use seal::{Connector, Server};

/// Which way the cells go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// Cells are sealed.
    Encrypt,
    /// Sealed cells are opened.
    Decrypt,
    /// Sealed cells are sealed anew.
    ReEncrypt,
}

/// The server, and who we are to it.
#[derive(Debug)]
pub(crate) struct Target {
    /// The MessagePack TCP listener, or those of several nodes.
    pub(crate) tcp: Tcp,
    /// The access key.
    pub(crate) credentials: Credentials,
}

/// What a run did; rows and bytes of earlier runs that it went on from are not in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Rows written.
    pub(crate) rows: u64,
    /// Cells sealed or opened.
    pub(crate) items: u64,
    /// Bytes read.
    pub(crate) bytes_in: u64,
    /// Bytes written.
    pub(crate) bytes_out: u64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// Cells a second.
    pub(crate) items_per_s: f64,
    /// The first row of this run; nothing where it began at the start.
    pub(crate) resumed_from_row: Option<u64>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rows, items, seconds, .. } = self;
        write!(f, "{rows} rows, {items} cells in {seconds:.1} s ({:.0} cells/s)", self.items_per_s)?;
        match self.resumed_from_row {
            Some(row) => write!(f, ", resumed from row {row}"),
            None => Ok(()),
        }
    }
}

/// Encrypts, decrypts or re-encrypts as `args` say, shows progress on standard error, and returns what was done. Nothing is printed to
/// standard output unless `--out -` asks for it.
///
/// # Errors
/// Every failure says what to do next; [`BatchError::exit_code`] is 2 where the command line is at fault, else 1.
pub(crate) fn run(direction: Direction, args: &BatchArgs, target: Target) -> Result<Summary, BatchError> {
    let mut plan = Plan::new(direction, args)?;
    // No node is left without work.
    plan.connections = plan.connections.max(target.tcp.addresses.len());
    let interrupt = Interrupt::watch()?;
    let server = Server::new(&plan, target);
    let settings = Settings::new(&plan, interrupt);
    run_on(&plan, &server, &settings)
}

fn run_on<C: Connector>(plan: &Plan, connector: &C, settings: &Settings) -> Result<Summary, BatchError> {
    // A wrong address or access key, or a column that does not exist, shows before any file is touched.
    let first = connector.connect().map_err(BatchError::from)?;
    let mut reader = Reader::open(plan)?;
    let (mut output, start) = Output::open(plan, reader.identity())?;
    if start.input_offset > 0 {
        reader.resume(&start)?;
    }
    let resumed = plan.resume && start.rows > 0;
    let mut progress = Progress::new(plan, reader.input_bytes(), &start);
    let began = Instant::now();
    let outcome = pipeline::run(plan, connector, settings, first, &mut reader, &mut output, &mut progress);
    let end = output.written().clone();
    progress.finish();
    match outcome.and_then(|()| output.finish()) {
        Ok(()) => Ok(summary(&start, &end, began.elapsed().as_secs_f64(), resumed)),
        Err(error) => {
            let kept = output.abandon();
            Err(error.with_kept(kept.filter(|_| plan.input != Place::Standard)))
        }
    }
}

fn summary(start: &Checkpoint, end: &Checkpoint, seconds: f64, resumed: bool) -> Summary {
    let items = end.items - start.items;
    Summary {
        rows: end.rows - start.rows,
        items,
        bytes_in: end.input_offset - start.input_offset,
        bytes_out: end.output_bytes - start.output_bytes,
        seconds,
        items_per_s: if seconds > 0.0 { items as f64 / seconds } else { 0.0 },
        resumed_from_row: resumed.then_some(start.rows + 1),
    }
}

#[cfg(test)]
mod cluster;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;
