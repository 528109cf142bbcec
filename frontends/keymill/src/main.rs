#![doc = include_str!("../README.md")]

mod admin;
mod audit;
mod batch;
mod cli;
mod config;
mod context;
mod credentials;
mod dedicated;
mod demo;
mod envelope;
mod failure;
mod hsm;
mod instance;
mod log;
mod migrate;
mod output;
mod own_certificate;
mod plugins;
mod private;
mod process;
mod renewal;
mod root;
mod serve;
mod tokens;

use std::process::ExitCode;

use clap::Parser;

/// Counts allocations for `keymill bench`, in memory of each thread's own; otherwise it is the system's.
#[global_allocator]
static ALLOCATOR: keymill_bench::Allocator<std::alloc::System> = keymill_bench::Allocator::system();

fn main() -> ExitCode {
    // Wrong use, --help and --version end here, with their own exit codes.
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}
