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
pub mod web;

pub use args::BenchArgs;
pub use count::{Allocator, Counts};
pub use error::BenchError;
pub use fixture::Fixture;
pub use machine::Machine;
pub use report::{Report, Row};

/// Measures every row that was asked for, and says on standard error which one it is at.
///
/// # Errors
/// [`BenchError`] where something to be measured does not run, or does not answer as it should.
pub fn run(args: &BenchArgs) -> Result<Report, BenchError> {
    let machine = Machine::look();
    let mut plan = plan::Plan::new(args);
    rows::measure(&mut plan)?;
    let counts = count::count(&mut plan)?;
    if plan.rows.is_empty() && counts.is_empty() {
        return Err(BenchError::new("no row has such a name"));
    }
    Ok(Report::new(machine, plan.rows, counts))
}
