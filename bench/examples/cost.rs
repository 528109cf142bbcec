//! What a decision takes of a batch, to be counted in instructions: `bench/README.md` has the command. Does `N` decisions over 10,000 access
//! points, or `N` batches of 256 items of 64 bytes by a caller in this process; with `N` zero, all but these.

use keymill_bench::access::{Records, address, asks, cmk};
use keymill_bench::in_process::Caller;
use keymill_bench::{BenchError, Fixture};
use keymill_core::access::decide;

const ITEMS: usize = 256;
const ITEM_BYTES: usize = 64;

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
        "batch" => {
            let fixture = Fixture::start()?;
            let mut caller = Caller::sealing(&fixture, ITEMS, ITEM_BYTES);
            (0..count).map(|_| caller.batch()).sum::<Result<usize, _>>()? / ITEMS
        }
        _ => return Err(BenchError::new("policy_cost decide|batch [N]")),
    };
    match done as u64 == count {
        true => Ok(()),
        false => Err(BenchError::new(format!("{done} of {count} were done"))),
    }
}
