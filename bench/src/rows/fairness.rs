//! A single caller's latency while another caller saturates the server with bulk batches, against what the bare loop shows under
//! the same load. There is a bulk connection a core, so that the single caller shares its arbiter with one.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use keymill_client::{Connection, Credentials, Options};
use keymill_core::id::KeyRef;

use crate::error::Result;
use crate::machine::cores;
use crate::plan::{Plan, Spec};
use crate::pump::{self, Pump, Shape, What};
use crate::report::Unit;
use crate::stats::{Target, median, percentile};

/// Of a bulk connection.
const BULK: Shape = Shape { what: What::BatchEncrypt, items: 256, item_len: 1024, depth: 4, connections: 1 };
const BULK_SLICE: Duration = Duration::from_millis(20);

pub(super) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    let name = "single Encrypt 1 KiB under bulk 256 x 1 KiB, p99";
    if !plan.args.wants(name) {
        return Ok(());
    }
    let (fixture, bare) = (plan.fixture()?, plan.bare()?);
    let (single, bulk, key) = (fixture.another_caller()?, fixture.credentials(), fixture.key());
    let mut ours = Contest::open(fixture.msgpack, &single, &bulk, &key, BULK)?;
    let mut ceiling = Contest::open(bare.addr, &single, &bulk, &key, BULK)?;
    // p50 and the bulk rate of each leg, kept beside the p99 that the row is about.
    let beside: [RefCell<Vec<Outcome>>; 2] = Default::default();
    let [ours_beside, ceiling_beside] = &beside;
    let rows = plan.measure(
        Spec {
            name: name.into(),
            against: vec![("bare loop", Some(Target::AtMost(1.5)))],
            unit: Unit::Microseconds,
        },
        vec![
            Box::new(|time| {
                let outcome = ours.run(time)?;
                ours_beside.borrow_mut().push(outcome);
                Ok(outcome.p99)
            }),
            Box::new(|time| {
                let outcome = ceiling.run(time)?;
                ceiling_beside.borrow_mut().push(outcome);
                Ok(outcome.p99)
            }),
        ],
    )?;
    let p50 = |of: &RefCell<Vec<Outcome>>| {
        median(&of.borrow().iter().map(|outcome| outcome.p50).collect::<Vec<_>>())
    };
    rows[0].also.insert("p50", p50(ours_beside));
    rows[0].also.insert("p50 of the bare loop", p50(ceiling_beside));
    Ok(())
}

/// Microseconds of single requests.
#[derive(Clone, Copy)]
pub(super) struct Outcome {
    p50: f64,
    pub(super) p99: f64,
}

/// A single caller, and a bulk connection a core.
pub(super) struct Contest {
    single: Connection,
    bulk: Vec<Pump>,
    key: KeyRef,
}

impl Contest {
    pub(super) fn open(
        address: SocketAddr,
        single: &Credentials,
        bulk: &Credentials,
        key: &KeyRef,
        load: Shape,
    ) -> Result<Self> {
        Ok(Self {
            bulk: (0..cores()).map(|_| Pump::open(address, bulk, key, load)).collect::<Result<_>>()?,
            single: Connection::open(address, single, &Options::default())?,
            key: key.clone(),
        })
    }

    /// Keeps the bulk callers busy while the single one asks again and again, one request at a time.
    pub(super) fn run(&mut self, time: Duration) -> Result<Outcome> {
        let stop = AtomicBool::new(false);
        let (single, key) = (&mut self.single, &self.key);
        std::thread::scope(|scope| {
            let bulk: Vec<_> = self
                .bulk
                .iter_mut()
                .map(|pump| {
                    let stop = &stop;
                    scope.spawn(move || {
                        while !stop.load(Ordering::Relaxed) {
                            pump.run(BULK_SLICE)?;
                        }
                        Ok::<_, crate::BenchError>(())
                    })
                })
                .collect();
            let latencies = ask(single, key, time);
            stop.store(true, Ordering::Relaxed);
            for caller in bulk {
                caller.join().expect("a bulk caller runs to its end")?;
            }
            let latencies = latencies?;
            Ok(Outcome { p50: percentile(&latencies, 0.50), p99: percentile(&latencies, 0.99) })
        })
    }
}

/// Returns the microseconds of each request of one who asks again and again, one at a time.
pub(super) fn ask(connection: &mut Connection, key: &KeyRef, time: Duration) -> Result<Vec<f64>> {
    let payload = [vec![7; 1024]];
    let (begun, mut latencies) = (Instant::now(), Vec::new());
    while begun.elapsed() < time {
        let start = Instant::now();
        connection.send(&pump::request(What::Encrypt, key, &payload))?;
        connection.receive()?.result()?;
        latencies.push(start.elapsed().as_secs_f64() * 1e6);
    }
    Ok(latencies)
}
