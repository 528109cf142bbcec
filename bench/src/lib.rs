#![doc = include_str!("../README.md")]

pub mod access;
mod args;
mod count;
mod error;
pub mod fixture;
pub mod hop;
mod identity;
pub mod in_process;
pub mod issue;
mod machine;
mod plan;
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
pub use error::BenchError;
pub use fixture::Fixture;
pub use machine::Machine;
pub use report::{NotMeasured, Report, Row};

/// Measures every row that was asked for, and says on standard error which one it is at.
///
/// # Errors
/// [`BenchError`] where something to be measured does not run, or does not answer as it should.
pub fn run(args: &BenchArgs) -> Result<Report, BenchError> {
    let machine = Machine::look();
    let mut plan = plan::Plan::new(args);
    rows::measure(&mut plan)?;
    let counts = count::count(&mut plan)?;
    if plan.rows.is_empty() && counts.is_empty() && plan.not_measured.is_empty() {
        return Err(BenchError::new("no row has such a name"));
    }
    Ok(Report::new(machine, plan.rows, counts).lacking(plan.not_measured))
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
