//! What is counted in instructions, which no neighbour disturbs: `bench/guard` and `bench/README.md` have the commands. Does `N` decisions over 10,000
//! access points, or seals or opens `N` batches of 256 items of so many bytes by a caller in this process; with `N` zero, all but these.

use keymill_bench::access::{Records, address, asks, cmk};
use keymill_bench::in_process::Caller;
use keymill_bench::{BenchError, Fixture};
use keymill_core::access::decide;

const ITEMS: usize = 256;

fn main() -> Result<(), BenchError> {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let count: u64 = args.next().and_then(|text| text.parse().ok()).unwrap_or(1_000);
    let done = match &*what {
        "decide" => {
            let records = Records::new().map_err(|error| BenchError::new(error.to_string()))?;
            let callers: Vec<_> = (0..1_000).map(|n| (n * 7, records.application(n * 7))).collect();
            let snapshot = records.compiled();
            let asked = (0..count).map(|n| &callers[n as usize % callers.len()]);
            let allowed = |(n, principal): &&(u64, _)| {
                decide(&snapshot, &asks(principal, cmk(*n, 3), address(*n)), None).allowed
            };
            asked.filter(allowed).count()
        }
        "seal" | "open" => {
            let item_bytes = args.next().and_then(|text| text.parse().ok()).unwrap_or(64);
            let fixture = Fixture::start()?;
            let mut caller = match &*what {
                "open" => Caller::opening(&fixture, ITEMS, item_bytes)?,
                _ => Caller::sealing(&fixture, ITEMS, item_bytes),
            };
            (0..count).map(|_| caller.batch()).sum::<Result<usize, _>>()? / ITEMS
        }
        _ => return Err(BenchError::new("cost decide|seal|open [N [BYTES]]")),
    };
    match done as u64 == count {
        true => Ok(()),
        false => Err(BenchError::new(format!("{done} of {count} were done"))),
    }
}
