//! A single caller's latency while another one saturates a token, against the plain loop under the same load: as many sessions on the same
//! simulated HSM, all but one of which are kept at work, and one that makes single calls. Nothing waits there but for the HSM.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keymill_core::key::BulkMode;

use super::{TokenRow, Tokens};
use crate::error::Result;
use crate::fixture::Fixture;
use crate::plan::{Plan, Spec};
use crate::pump::{Shape, What};
use crate::report::Unit;
use crate::rows::fairness::Contest;
use crate::stats::{Target, percentile};
use crate::token::raw::Worker;
use crate::token::{Kind, Plain};

const SESSIONS: usize = 8;
const LATENCY: Duration = Duration::from_millis(1);
const PER_SECOND: u64 = 5_000;
/// Of a bulk connection. Of larger ones the last are still on their way when a leg ends.
const BULK: Shape = Shape { what: What::BatchEncrypt, items: 64, item_len: 1024, depth: 4, connections: 1 };

pub(super) fn rows() -> Vec<TokenRow> {
    vec![TokenRow {
        name: format!("hsm single Encrypt 1 KiB under bulk {} x 1 KiB, p99", BULK.items),
        needs: &[Kind::SoftHsm, Kind::Simulator],
        hsms: 1,
        measure: Box::new(measure),
    }]
}

fn measure(plan: &mut Plan<'_>, tokens: &mut Tokens, name: String) -> Result<()> {
    let farm = tokens.farm()?;
    let token = &farm.hsms[0].token;
    let fixture = Fixture::start_in_tokens(vec![token.part(Some(SESSIONS))], BulkMode::InHsm)?;
    let (single, bulk, key) = (fixture.another_caller()?, fixture.credentials(), fixture.key());
    let mut ours = Contest::open(fixture.msgpack, &single, &bulk, &key, BULK)?;
    let plain = token.plain(token.seals_by())?;
    let mut workers = plain.workers(SESSIONS)?;
    farm.pace(LATENCY, PER_SECOND)?;
    plan.measure(
        Spec { name, against: vec![("plain loop", Some(Target::AtMost(1.5)))], unit: Unit::Microseconds },
        vec![
            Box::new(|time| Ok(ours.run(time)?.p99)),
            Box::new(|time| Ok(percentile(&beside(&plain, &mut workers, time)?, 0.99))),
        ],
    )?;
    farm.unpaced()
}

/// Returns the microseconds of each call of the first worker, while the others call without a pause.
fn beside(plain: &Plain<'_>, workers: &mut [Worker], time: Duration) -> Result<Vec<f64>> {
    let stop = AtomicBool::new(false);
    let (single, bulk) = workers.split_first_mut().expect("there are several");
    let saturate = |worker: &mut Worker| -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            plain.call(worker)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let bulk: Vec<_> = bulk.iter_mut().map(|worker| scope.spawn(|| saturate(worker))).collect();
        let latencies = one_by_one(plain, single, time);
        stop.store(true, Ordering::Relaxed);
        bulk.into_iter().try_for_each(|worker| worker.join().expect("a bulk caller runs to its end"))?;
        latencies
    })
}

/// Returns the microseconds of each call of one who calls again and again.
fn one_by_one(plain: &Plain<'_>, worker: &mut Worker, time: Duration) -> Result<Vec<f64>> {
    let (begun, mut latencies) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        let start = Instant::now();
        plain.call(worker)?;
        latencies.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(latencies)
}
