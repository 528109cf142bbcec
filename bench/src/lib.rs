#![doc = include_str!("../README.md")]

pub mod access;
mod affinity;
mod args;
mod count;
mod crowd;
mod curves;
mod descriptors;
mod error;
pub mod fixture;
pub mod hop;
mod identity;
pub mod in_process;
pub mod issue;
mod machine;
mod memory;
mod plan;
mod plot;
pub mod premade;
pub mod pump;
pub mod report;
mod rows;
pub mod secrets;
pub mod stats;
pub mod token;
pub mod web;

use std::process::ExitStatus;

pub use args::BenchArgs;
pub use count::{Allocator, Counts};
pub use curves::Curve;
pub use error::BenchError;
pub use fixture::Fixture;
pub use machine::Machine;
pub use memory::{Counted, Memory};
pub use report::{NotMeasured, Report, Row};

/// Measures everything that was asked for, and says on standard error what it is at. Where figures were, they are drawn.
///
/// # Errors
/// [`BenchError`] where something to be measured does not run, or does not answer as it should, or a figure cannot be written.
pub fn run(args: &BenchArgs) -> Result<Report, BenchError> {
    if let Some(directory) = &args.plot {
        // Whether it can be there is better known now than in ten minutes.
        let because = |error| BenchError::new(format!("{}: {error}", directory.display()));
        std::fs::create_dir_all(directory).map_err(because)?;
    }
    let rows_and_curves = plan::counted(args, |plan| {
        rows::measure(plan)?;
        curves::measure(plan).map(drop)
    })?;
    let args = &args.settled(rows_and_curves);
    let machine = Machine::look();
    let mut plan = plan::Plan::new(args, rows_and_curves);
    let memory = memory::measure(&mut plan)?;
    rows::measure(&mut plan)?;
    let counts = count::count(&mut plan)?;
    let curves = if args.curves() { curves::measure(&mut plan)? } else { Vec::new() };
    let report = Report::new(machine, plan.rows, counts).with(memory, curves).lacking(plan.not_measured);
    if report.is_empty() {
        return Err(BenchError::new("no row has such a name"));
    }
    if let Some(directory) = &args.plot {
        plot::write(directory, &report.machine, &report.curves)?;
    }
    Ok(report)
}

/// Runs this program again in an environment that has room for tokens, where a row is wanted that needs one and `args` name none yet;
/// returns how that ended. `None`: it is for the caller to [`run`].
///
/// # Errors
/// [`BenchError`] where the program cannot be started.
pub fn run_beside_tokens(args: &BenchArgs) -> Result<Option<ExitStatus>, BenchError> {
    match args.place.is_none() && rows::token::need_a_place(args) {
        true => token::scratch::run_again("keymill-bench-", "--token-place").map(Some),
        false => Ok(None),
    }
}
