//! What is counted in instructions, which no neighbour disturbs: `bench/guard` and `bench/README.md` have the commands. Does `N` decisions over 10,000
//! access points; or seals or opens `N` batches of 256 items of so many bytes by a caller in this process, or decodes the frame of one to be sealed;
//! with `N` zero, all but these.

use bytes::Bytes;
use keymill_bench::access::{Records, address, asks, cmk};
use keymill_bench::in_process::Caller;
use keymill_bench::pump::{self, What};
use keymill_bench::{BenchError, Fixture};
use keymill_core::access::decide;
use keymill_core::id::KeyRef;
use keymill_core::operation::{Operation, Request};
use keymill_wire::frame::{self, LENGTH_BYTES};
use keymill_wire::request::encode_request;

const ITEMS: usize = 256;

/// Does one of what is counted; `bench/guard` counts what happens in here and nothing else.
#[inline(never)]
fn counted_once<T>(work: impl FnOnce() -> T) -> T {
    work()
}

fn main() -> Result<(), BenchError> {
    let mut args = std::env::args().skip(1);
    let what = args.next().unwrap_or_default();
    let count: u64 = args.next().and_then(|text| text.parse().ok()).unwrap_or(1_000);
    let item_bytes = args.next().and_then(|text| text.parse().ok()).unwrap_or(64);
    let done = match &*what {
        "decide" => {
            let records = Records::new().map_err(|error| BenchError::new(error.to_string()))?;
            let callers: Vec<_> = (0..1_000).map(|n| (n * 7, records.application(n * 7))).collect();
            let snapshot = records.compiled();
            let asked = (0..count).map(|n| &callers[n as usize % callers.len()]);
            let allowed = |(n, principal): &&(u64, _)| {
                let asked = asks(principal, cmk(*n, 3), address(*n));
                counted_once(|| decide(&snapshot, &asked, None).allowed)
            };
            asked.filter(allowed).count()
        }
        "seal" | "open" => {
            let fixture = Fixture::start()?;
            let mut caller = match &*what {
                "open" => Caller::opening(&fixture, ITEMS, item_bytes)?,
                _ => Caller::sealing(&fixture, ITEMS, item_bytes),
            };
            (0..count).map(|_| counted_once(|| caller.batch())).sum::<Result<usize, _>>()? / ITEMS
        }
        "decode" => {
            let payloads = vec![vec![7; item_bytes]; ITEMS];
            let mut sent = Vec::new();
            encode_request(
                1,
                &pump::request(What::BatchEncrypt, &KeyRef::parse("alias/a"), &payloads),
                &mut sent,
            )
            .map_err(|error| BenchError::new(error.to_string()))?;
            let body = Bytes::from(sent).split_off(LENGTH_BYTES);
            let whole = |_: &u64| counted_once(|| items(&body)).is_some_and(|items| items == ITEMS);
            (0..count).filter(whole).count()
        }
        _ => return Err(BenchError::new("cost decide|seal|open|decode [N [BYTES]]")),
    };
    match done as u64 == count {
        true => Ok(()),
        false => Err(BenchError::new(format!("{done} of {count} were done"))),
    }
}

/// Reads a frame as a listener does, and tells how many items it brings.
fn items(body: &[u8]) -> Option<usize> {
    let shape = frame::check(body).ok()?;
    match shape.decode(Operation::BatchEncrypt).ok()? {
        Request::BatchEncrypt(request) => Some(request.items.len()),
        _ => None,
    }
}
