//! What is held in memory: by a connection while nothing is asked on it, and by an item of a batch while it waits for its turn.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use alloc_tracker::Session;
use keymill_core::operation::Request;
use keymill_wire::answer::check_answer;
use keymill_wire::request::encode_request;
use serde::Serialize;

use crate::descriptors::open_files;
use crate::error::{BenchError, Result};
use crate::fixture::Fixture;
use crate::in_process::Caller;
use crate::plan::Plan;
use crate::premade::{log_in, read_frame};
use crate::pump::{self, What};
use crate::stats::Verdict;

/// Bytes of a connection, at most.
const CONNECTION: f64 = 64.0 * 1024.0;
/// Bytes of a queued item beside its own, at most.
const QUEUED_ITEM: f64 = 200.0;
/// Connections that are opened before those that are weighed, and those: what the process has at hand from earlier goes to the first.
const CONNECTIONS: usize = 250;
const FEW_CONNECTIONS: usize = 50;
/// Open files that all of them need, each at both ends, for both kinds; some are left for everything else.
const FILES: usize = 8;
const OTHER_FILES: usize = 512;
/// How long a connection is idle before it is weighed: a listener takes back after a quarter of a second what it had lent.
const SETTLING: Duration = Duration::from_secs(1);
const JOBS: usize = 256;
/// More than the answer to a batch has.
const ANSWER_ROOM: usize = 2 * ITEMS * ITEM_BYTES;
const ITEMS: usize = 256;
const ITEM_BYTES: usize = 1024;

/// What one of something holds.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Of what.
    pub name: String,
    /// Bytes; `None` where they could not be counted.
    pub bytes: Option<f64>,
    /// How they were counted.
    pub counted: Counted,
    /// Bytes, at most.
    pub target: Option<f64>,
    /// Whether that holds.
    pub verdict: Verdict,
}

/// How memory is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Counted {
    /// Pages of the process that became resident (`RssAnon`): what the allocator keeps beside is in it, what the kernel holds for a socket is not.
    Resident,
    /// Bytes that were asked of the allocator and not given back.
    Allocated,
}

impl Memory {
    fn new(name: String, counted: Counted, bytes: Option<f64>, target: Option<f64>) -> Self {
        Self { name, bytes, counted, target, verdict: judged(bytes, target) }
    }
}

/// Judges so many bytes. None at all were hidden by what the process had at hand, and tell nothing.
fn judged(bytes: Option<f64>, target: Option<f64>) -> Verdict {
    match bytes.zip(target) {
        None => Verdict::None,
        Some((bytes, _)) if bytes <= 0.0 => Verdict::NotResolved,
        Some((bytes, target)) if bytes <= target => Verdict::Met,
        Some(_) => Verdict::Missed,
    }
}

/// Measures what was asked for; before all else, since later the process has memory at hand that nobody uses.
pub(crate) fn measure(plan: &mut Plan<'_>) -> Result<Vec<Memory>> {
    let mut all = Vec::new();
    // They stay open, so that the second kind finds nothing that the first gave back.
    let mut open = Vec::new();
    for (what, items, after) in
        [(What::Encrypt, 1, "Encrypt 1 KiB"), (What::BatchEncrypt, ITEMS, "BatchEncrypt 256 x 1 KiB")]
    {
        let name = format!("connection, idle after {after}");
        if plan.args.wants(&format!("memory {name}")) {
            plan.say(&format!("memory {name}"));
            let fixture = plan.fixture()?;
            let count =
                connections(open_files()?, if plan.args.quick { FEW_CONNECTIONS } else { CONNECTIONS });
            let payloads = vec![vec![0x5a; ITEM_BYTES]; items];
            let request = pump::request(what, &fixture.key(), &payloads);
            let bytes = a_connection(&fixture, &request, count, &mut open)?;
            all.push(Memory::new(name, Counted::Resident, Some(bytes), Some(CONNECTION)));
        }
    }
    for is_open in [false, true] {
        let what = if is_open { "BatchDecrypt" } else { "BatchEncrypt" };
        let name = format!("queued item of {what} 256 x 1 KiB");
        if plan.args.wants(&format!("memory {name}")) {
            plan.say(&format!("memory {name}"));
            let fixture = plan.fixture()?;
            let mut caller = match is_open {
                true => Caller::opening(&fixture, ITEMS, ITEM_BYTES)?,
                false => Caller::sealing(&fixture, ITEMS, ITEM_BYTES),
            };
            for (beside, room, target) in [
                ("its bytes", 0, Some(QUEUED_ITEM)),
                ("its bytes and the room for its answer", ANSWER_ROOM, None),
            ] {
                let bytes = a_queued_item(&mut caller, room)?;
                all.push(Memory::new(format!("{name}, beside {beside}"), Counted::Allocated, bytes, target));
            }
        }
    }
    Ok(all)
}

/// Returns how many connections of a kind are opened before, and weighed: as many as are wanted, where so many files may be open.
fn connections(files: usize, wanted: usize) -> usize {
    (files.saturating_sub(OTHER_FILES) / FILES).clamp(1, wanted)
}

/// Opens connections, has `request` answered on each, opens as many again, and returns by how much the process grew for one of these.
fn a_connection(
    fixture: &Fixture,
    request: &Request<'_>,
    count: usize,
    open: &mut Vec<TcpStream>,
) -> Result<f64> {
    let mut frame = Vec::new();
    encode_request(1, request, &mut frame)?;
    open.reserve(2 * count);
    let mut more = || -> Result<()> {
        for _ in 0..count {
            let mut stream = log_in(fixture.msgpack, fixture.access_key())?;
            stream.write_all(&frame)?;
            let answer = read_frame(&mut stream)?;
            let status = check_answer(&answer).map_err(|fault| BenchError::new(format!("{fault:?}")))?.status;
            if status != 0 {
                return Err(BenchError::new(format!("a connection was answered by status {status}")));
            }
            open.push(stream);
        }
        Ok(())
    };
    // What a connection holds that has been idle for a while, and not what it is about to give back.
    let mut settled = || -> Result<f64> {
        more()?;
        std::thread::sleep(SETTLING);
        resident()
    };
    let before = settled()?;
    Ok((settled()? - before) / count as f64)
}

/// Returns the bytes of this process's own pages that are in memory.
fn resident() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    rss_anon(&status).ok_or_else(|| BenchError::new("/proc/self/status has no RssAnon"))
}

fn rss_anon(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

/// Has batches opened and not performed, as they wait in a queue, and returns what an item of theirs holds of this thread's allocations, where each
/// batch has `room` bytes for its answer already; all of them share the bytes of their items. `None` where the program's allocator does not count.
fn a_queued_item(caller: &mut Caller<'_>, room: usize) -> Result<Option<f64>> {
    let session = Session::new().no_stdout().no_file();
    let operation = session.operation("queued");
    let mut jobs = Vec::with_capacity(JOBS);
    let rooms: Vec<Vec<u8>> = (0..JOBS).map(|_| vec![0; room]).collect();
    {
        let _span = operation.measure_thread().iterations(1);
        for room in rooms {
            jobs.push(caller.queued_into(room)?);
        }
    }
    // They are performed, so that they were nothing less than jobs.
    for job in jobs {
        caller.perform(job)?;
    }
    let report = session.to_report();
    let queued = report.operations().find(|(name, _)| *name == "queued").map(|(_, queued)| queued);
    Ok(queued
        .filter(|queued| queued.total_allocations_count() > 0)
        .and_then(|queued| queued.peak_outstanding_bytes())
        .map(|bytes| bytes / (JOBS * ITEMS) as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_judged_by_its_bytes_and_no_growth_at_all_tells_nothing() {
        let verdicts = [Some(100.0), Some(200.0), Some(201.0), Some(0.0), Some(-3.0), None];
        let verdicts = verdicts.map(|bytes| judged(bytes, Some(200.0)));
        use Verdict::{Met, Missed, None as Unknown, NotResolved};
        assert_eq!(verdicts, [Met, Met, Missed, NotResolved, NotResolved, Unknown]);
        assert_eq!(judged(Some(1e9), None), Unknown);
    }

    #[test]
    fn as_many_connections_are_weighed_as_may_be_open() {
        assert_eq!(connections(20_000, 250), 250);
        assert_eq!(connections(1_024, 250), 64);
        assert_eq!(connections(256, 250), 1);
    }

    #[test]
    fn resident_pages_are_read_in_bytes() {
        assert_eq!(rss_anon("VmRSS:\t  900 kB\nRssAnon:\t     512 kB\n"), Some(524_288.0));
        assert_eq!(rss_anon("VmRSS:\t  900 kB\n"), None);
        assert!(resident().unwrap() > 0.0);
    }
}
