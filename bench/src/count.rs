//! What the batch path costs beside time: allocations and bytes an item, counted by the program's allocator where that one
//! counts (`#[global_allocator] static ALLOCATOR: keymill_bench::Allocator<std::alloc::System> = Allocator::system();`).

use std::hint::black_box;

use alloc_tracker::Session;
use keymill_client::Connection;
use keymill_core::operation::{Bin, Reply, Request};
use serde::Serialize;

pub use alloc_tracker::Allocator;

use crate::error::{BenchError, Result};
use crate::fixture::Fixture;
use crate::in_process::Caller;
use crate::plan::Plan;
use crate::premade::Premade;
use crate::pump::{self, What};
use crate::stats::Verdict;

/// Allocations an item that a batch may cost, whatever its item's length.
const TARGET: f64 = 0.05;

/// What an item costs on one path.
#[derive(Clone, Debug, Serialize)]
pub struct Counts {
    /// The path.
    pub name: String,
    /// Allocations, by every thread of the process; `None` where the program's allocator does not count.
    pub allocations: Option<f64>,
    /// Bytes that they asked for.
    pub allocated_bytes: Option<f64>,
    /// Bytes moved in memory, beside the kernel's work and the cipher's own writing, as the engine's metrics count them; `None`
    /// where they do not.
    pub copied_bytes: Option<f64>,
    /// Allocations, at most.
    pub target: Option<f64>,
    /// Whether that holds.
    pub verdict: Verdict,
}

const ITEM_BYTES: usize = 1024;
/// The series of bytes moved, and the space behind its name.
const MOVED: &str = "keymill_moved_bytes_total ";

/// Counts what was asked for.
pub(crate) fn count(plan: &mut Plan<'_>) -> Result<Vec<Counts>> {
    let mut counts = Vec::new();
    for open in [false, true] {
        let name = format!("in-process {} 256 x 1 KiB", if open { "BatchDecrypt" } else { "BatchEncrypt" });
        if plan.args.wants(&format!("count {name}")) {
            plan.say(&format!("count {name}"));
            let fixture = plan.fixture()?;
            let mut caller = match open {
                true => Caller::opening(&fixture, 256, ITEM_BYTES)?,
                false => Caller::sealing(&fixture, 256, ITEM_BYTES),
            };
            let mut batches = |count: usize| (0..count).try_for_each(|_| caller.batch().map(|_| ()));
            batches(64)?;
            counts.push(counted(&fixture, name, (512, 256), Some(TARGET), batches)?);
        }
    }
    let shapes = [
        ("tcp BatchEncrypt 256 x 1 KiB", What::BatchEncrypt, 256, 4, Some(TARGET)),
        ("tcp BatchDecrypt 256 x 1 KiB", What::BatchDecrypt, 256, 4, Some(TARGET)),
        ("tcp Encrypt 1 KiB, 64 in flight", What::Encrypt, 1, 64, None),
    ];
    for (name, what, items, depth, target) in shapes {
        if plan.args.wants(&format!("count {name}")) {
            plan.say(&format!("count {name}"));
            let fixture = plan.fixture()?;
            let mut payloads = vec![vec![0x5a; ITEM_BYTES]; items];
            if what == What::BatchDecrypt {
                payloads = sealed(
                    &mut fixture.connect()?,
                    &pump::request(What::BatchEncrypt, &fixture.key(), &payloads),
                )?;
            }
            let request = pump::request(what, &fixture.key(), &payloads);
            let mut client = Premade::connect(fixture.msgpack, fixture.access_key(), &request)?;
            client.pump(64 * depth, depth)?;
            let size = (256 * depth, items);
            counts
                .push(counted(&fixture, name.to_owned(), size, target, |frames| client.pump(frames, depth))?);
        }
    }
    Ok(counts)
}

fn sealed(connection: &mut Connection, request: &Request<'_>) -> Result<Vec<Vec<u8>>> {
    connection.send(request)?;
    let answer = connection.receive()?;
    match answer.result()? {
        Reply::BatchEncrypt(reply) => Ok(reply.items.into_iter().flatten().map(Bin::into_vec).collect()),
        _ => Err(BenchError::new("BatchEncrypt was answered by another reply")),
    }
}

/// Runs `work` for so many frames and shares what the process spent meanwhile among their items.
fn counted(
    fixture: &Fixture,
    name: String,
    (frames, items): (usize, usize),
    target: Option<f64>,
    work: impl FnOnce(usize) -> Result<()>,
) -> Result<Counts> {
    let before = moved(fixture);
    let spent = spent((frames * items) as u64, || work(frames))?;
    let moved = moved(fixture).zip(before).map(|(after, before)| after - before);
    let copied_bytes = moved.map(|bytes| bytes / (frames * items) as f64);
    let allocations = spent.map(|(allocations, _)| allocations);
    let verdict = match (allocations, target) {
        (Some(allocations), Some(target)) if allocations <= target => Verdict::Met,
        (Some(_), Some(_)) => Verdict::Missed,
        _ => Verdict::None,
    };
    let allocated_bytes = spent.map(|(_, bytes)| bytes);
    Ok(Counts { name, allocations, allocated_bytes, copied_bytes, target, verdict })
}

/// Reads what the frontends count of bytes that they moved from one buffer to another.
fn moved(fixture: &Fixture) -> Option<f64> {
    let metrics = fixture.gate().expose_metrics();
    metrics.lines().find_map(|line| line.strip_prefix(MOVED)).and_then(|value| value.trim().parse().ok())
}

/// Returns allocations and bytes an iteration of what `work` does, if the allocator counts.
fn spent(iterations: u64, work: impl FnOnce() -> Result<()>) -> Result<Option<(f64, f64)>> {
    let session = Session::new().no_stdout().no_file();
    let probe = session.operation("probe");
    {
        let _span = probe.measure_process().iterations(1);
        drop(black_box(Box::new(7u64)));
    }
    let operation = session.operation("work");
    let outcome = {
        let _span = operation.measure_process().iterations(iterations);
        work()
    };
    outcome?;
    let report = session.to_report();
    let figures =
        |name| report.operations().find(|(found, _)| *found == name).map(|(_, operation)| operation);
    let counts = figures("probe").is_some_and(|probe| probe.total_allocations_count() > 0);
    Ok(figures("work").filter(|_| counts).map(|work| {
        let share = |total: u64| total as f64 / iterations as f64;
        (share(work.total_allocations_count()), share(work.total_bytes_allocated()))
    }))
}
