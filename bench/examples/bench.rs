//! `keymill bench` without the program around it: `cargo run --release -p keymill-bench --example bench -- --only tcp`.

use std::process::ExitCode;

use clap::Parser;
use keymill_bench::{Allocator, BenchArgs};

#[global_allocator]
static ALLOCATOR: Allocator<std::alloc::System> = Allocator::system();

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: BenchArgs,
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let Cli { args } = Cli::parse();
    let report = keymill_bench::run(&args)?;
    report.print(args.json)?;
    Ok(if report.all_met() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
