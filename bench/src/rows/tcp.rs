//! MessagePack TCP, in batches and one by one, against the bare loop and the echo; one client for all three.

use super::size;
use crate::error::Result;
use crate::plan::{Leg, Plan, Spec};
use crate::pump::{Pump, Shape, What};
use crate::report::Unit;
use crate::stats::Target;

const ITEM_BYTES: usize = 1024;

/// What is in flight fits the sockets' buffers, since the bare loop reads nothing while it writes.
const BATCHES: [(What, usize, usize, usize); 6] = [
    (What::BatchEncrypt, 1, 64, 2),
    (What::BatchEncrypt, 16, 16, 2),
    (What::BatchEncrypt, 256, 4, 1),
    (What::BatchEncrypt, 256, 4, 2),
    (What::BatchDecrypt, 256, 4, 2),
    (What::BatchEncrypt, 4096, 1, 2),
];

pub(super) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    for (what, items, depth, connections) in BATCHES {
        let name = format!("tcp {what:?} {items} x {}, {}", size(ITEM_BYTES), flight(depth, connections));
        let shape = Shape { what, items, item_len: ITEM_BYTES, depth, connections };
        side_by_side(plan, name, shape, (items == 256).then_some(Target::AtLeast(0.90)))?;
    }
    for connections in [1, 2] {
        for depth in [64, 512] {
            let name = format!("tcp Encrypt {}, {}", size(ITEM_BYTES), flight(depth, connections));
            let shape = Shape { what: What::Encrypt, items: 1, item_len: ITEM_BYTES, depth, connections };
            side_by_side(plan, name, shape, Some(Target::AtLeast(0.60)))?;
        }
    }
    Ok(())
}

fn flight(depth: usize, connections: usize) -> String {
    let plural = if connections == 1 { "" } else { "s" };
    format!("{depth} in flight, {connections} connection{plural}")
}

fn side_by_side(plan: &mut Plan<'_>, name: String, shape: Shape, target: Option<Target>) -> Result<()> {
    if !plan.args.wants(&name) {
        return Ok(());
    }
    let (fixture, bare, echo) = (plan.fixture()?, plan.bare()?, plan.echo()?);
    let (credentials, key) = (fixture.credentials(), fixture.key());
    let legs = [fixture.msgpack, bare.addr, echo.addr].map(|address| -> Result<Leg<'_>> {
        let mut pump = Pump::open(address, &credentials, &key, shape)?;
        Ok(Box::new(move |time| pump.run(time)))
    });
    let legs = legs.into_iter().collect::<Result<_>>()?;
    plan.measure(
        Spec { name, against: vec![("bare loop", target), ("echo", None)], unit: Unit::Items },
        legs,
    )?;
    Ok(())
}
