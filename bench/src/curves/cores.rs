//! Curves by the cores that server, client and ceiling may use: threads take over the mask of the thread that started them, so that all that is
//! started for a point runs on its cores alone, and finds as many.

use std::time::Duration;

use keymill_ceilings::{BareLoop, Load, Mode, Run, raw};

use super::in_process::AAD_BYTES;
use super::{Curve, Draft, curve};
use crate::affinity::Affinity;
use crate::error::Result;
use crate::fixture::Fixture;
use crate::in_process::{self as inside, Caller};
use crate::plan::{Leg, Plan};
use crate::pump::{Pump, Shape, What};
use crate::report::Unit;

const ITEMS: usize = 256;
const ITEM_BYTES: usize = 1024;

/// Items a second in this process.
pub(super) fn in_process(plan: &mut Plan<'_>) -> Result<Option<Curve>> {
    let draft = Draft {
        name: "cores-in-process",
        title: format!("In process, BatchEncrypt {ITEMS} x 1 KiB, a thread a core: rate by cores"),
        x: "cores",
        unit: Unit::Items,
        against: "raw",
        xs: steps(Affinity::now()?.cores()),
    };
    curve(plan, draft, |_, threads| {
        let fixture = Affinity::now()?.within(threads, Fixture::start)?;
        let ours = on(threads, move |time| {
            inside::rate(threads, time, || Ok(Caller::sealing(&fixture, ITEMS, ITEM_BYTES)))
        });
        let load = Load { items: ITEMS, item_len: ITEM_BYTES, aad_len: AAD_BYTES, threads };
        Ok([ours, on(threads, move |time| Ok(raw::seal(load, Run::For(time))))])
    })
}

/// Items a second over MessagePack TCP, client and server together.
pub(super) fn tcp(plan: &mut Plan<'_>) -> Result<Option<Curve>> {
    let draft = Draft {
        name: "cores-tcp",
        title: format!(
            "MessagePack TCP, BatchEncrypt {ITEMS} x 1 KiB, two connections a core: rate by cores, client included"
        ),
        x: "cores",
        unit: Unit::Items,
        against: "bare loop",
        xs: steps(Affinity::now()?.cores()),
    };
    curve(plan, draft, |_, cores| {
        let affinity = Affinity::now()?;
        let fixture = affinity.within(cores, Fixture::start)?;
        let bare = affinity.within(cores, || Ok(BareLoop::start(Mode::Seal)?))?;
        let shape = Shape {
            what: What::BatchEncrypt,
            items: ITEMS,
            item_len: ITEM_BYTES,
            depth: 4,
            connections: 2 * cores,
        };
        let (credentials, key) = (fixture.credentials(), fixture.key());
        let mut to_ours = Pump::open(fixture.msgpack, &credentials, &key, shape)?;
        let mut to_bare = Pump::open(bare.addr, &credentials, &key, shape)?;
        // Each leg keeps its server.
        let ours = on(cores, move |time| {
            let _runs = &fixture;
            to_ours.run(time)
        });
        let ceiling = on(cores, move |time| {
            let _runs = &bare;
            to_bare.run(time)
        });
        Ok([ours, ceiling])
    })
}

/// Makes a leg that measures on so many cores.
fn on<'l>(cores: usize, mut leg: impl FnMut(Duration) -> Result<f64> + 'l) -> Leg<'l> {
    Box::new(move |time| Affinity::now()?.within(cores, || leg(time)))
}

/// Returns 1, 2, 4, … and all of them.
fn steps(cores: usize) -> Vec<usize> {
    let mut steps: Vec<usize> =
        std::iter::successors(Some(1), |n| Some(2 * n)).take_while(|n| *n < cores).collect();
    steps.push(cores);
    steps
}

#[cfg(test)]
mod tests {
    use super::steps;

    #[test]
    fn cores_are_doubled_up_to_all_of_them() {
        assert_eq!(steps(1), [1]);
        assert_eq!(steps(2), [1, 2]);
        assert_eq!(steps(6), [1, 2, 4, 6]);
        assert_eq!(steps(16), [1, 2, 4, 8, 16]);
    }
}
