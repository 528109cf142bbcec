//! A read by name among many secrets and among a few: `cargo run --release -p keymill-bench --example secrets [MANY [PAIRS]]`. Both servers are in
//! this process and take turns; it takes what the making of so many takes, about a minute for the 100,000 of the target.
#![allow(clippy::print_stdout, reason = "its table")]

use std::time::{Duration, Instant};

use keymill_bench::secrets::{Reader, make};
use keymill_bench::stats::{self, Target};
use keymill_bench::{BenchError, Fixture};

const FEW: usize = 100;
/// How long one leg lasts.
const LEG: Duration = Duration::from_millis(500);
/// With many, a read by name takes at most so many times what it takes with a few.
const TARGET: f64 = 2.0;

fn main() -> Result<(), BenchError> {
    let mut args = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let mut next =
        |usual| args.next().unwrap_or(Ok(usual)).map_err(|_| BenchError::new("secrets [MANY [PAIRS]]"));
    let (many, pairs) = (next(100_000)?.max(FEW), next(15)?.max(1));
    let (with_few, with_many) = (Fixture::start()?, Fixture::start()?);
    let begun = Instant::now();
    make(&with_few, FEW)?;
    make(&with_many, many)?;
    println!("made {many} secrets in {:.1} s", begun.elapsed().as_secs_f64());
    let (mut few, mut all) = (Reader::new(&with_few, FEW)?, Reader::new(&with_many, many)?);
    leg(&mut few)?;
    leg(&mut all)?;
    let (mut ours, mut against) = (Vec::new(), Vec::new());
    for _ in 0..pairs {
        ours.push(leg(&mut all)?);
        against.push(leg(&mut few)?);
    }
    let ratio = stats::ratio(&ours, &against);
    println!(
        "GetSecretValue by name in this process: {:.1} us of {many} against {:.1} us of {FEW}, {:.2} ({:.2} to {:.2}), at most {TARGET} asked: {:?}",
        stats::median(&ours),
        stats::median(&against),
        ratio.median,
        ratio.min,
        ratio.max,
        Target::AtMost(TARGET).judge(&ratio),
    );
    Ok(())
}

/// Reads for a while, and returns the microseconds that one read took.
fn leg(reader: &mut Reader<'_>) -> Result<f64, BenchError> {
    let (begun, mut reads) = (Instant::now(), 0);
    while begun.elapsed() < LEG {
        reader.read()?;
        reads += 1;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e6 / f64::from(reads))
}
