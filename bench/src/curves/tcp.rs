//! Curves over MessagePack TCP, against the bare loop; one client for both.

use keymill_client::Credentials;

use super::{Curve, Draft, curve};
use crate::crowd::Crowd;
use crate::descriptors::open_files;
use crate::error::Result;
use crate::plan::{Leg, Plan};
use crate::pump::{Pump, Shape, What};
use crate::report::Unit;

const ITEM_BYTES: usize = 1024;
/// Items that are on their way on a connection, unless one request has more.
const ITEMS_IN_FLIGHT: usize = 1024;
/// Requests that are, at most.
const MOST_IN_FLIGHT: usize = 64;
/// Items of a request where it is connections or callers that grow in number.
const CROWD_ITEMS: usize = 16;
/// Connections where it is callers.
const CROWD: usize = 256;
/// Open files of a connection to each of both servers: both ends, some of them twice. Some files are left for everything else.
const FILES: usize = 8;
const OTHER_FILES: usize = 512;

/// Items a second by the items of a batch.
pub(super) fn batch_size(plan: &mut Plan<'_>) -> Result<Option<Curve>> {
    let draft = Draft {
        name: "batch-size",
        title: "MessagePack TCP, BatchEncrypt of 1 KiB items, 2 connections: rate by batch size".into(),
        x: "items a batch",
        unit: Unit::Items,
        against: "bare loop",
        xs: vec![1, 4, 16, 64, 256, 1024, 4096],
    };
    curve(plan, draft, |plan, items| {
        let what = What::BatchEncrypt;
        let shape = Shape { what, items, item_len: ITEM_BYTES, depth: depth(items), connections: 2 };
        let (fixture, bare) = (plan.fixture()?, plan.bare()?);
        let leg = |address| -> Result<Leg<'_>> {
            let mut pump = Pump::open(address, &fixture.credentials(), &fixture.key(), shape)?;
            Ok(Box::new(move |time| pump.run(time)))
        };
        Ok([leg(fixture.msgpack)?, leg(bare.addr)?])
    })
}

/// Returns how many batches of so many items are in flight: what they hold fits the sockets' buffers, since the bare loop reads nothing while it
/// writes.
fn depth(items: usize) -> usize {
    (ITEMS_IN_FLIGHT / items).clamp(1, MOST_IN_FLIGHT)
}

/// Items a second by the number of connections, with one request in flight on each.
pub(super) fn connections(plan: &mut Plan<'_>) -> Result<Option<Curve>> {
    let draft = Draft {
        name: "connections",
        title: format!(
            "MessagePack TCP, BatchEncrypt {CROWD_ITEMS} x 1 KiB, one in flight on each: rate by connections"
        ),
        x: "connections",
        unit: Unit::Items,
        against: "bare loop",
        xs: allowed(open_files()?, &[1, 4, 16, 64, 256, 1000]),
    };
    curve(plan, draft, |plan, connections| {
        let fixture = plan.fixture()?;
        beside_bare_loop(plan, &[fixture.credentials()], connections)
    })
}

/// Returns those numbers of connections that may be open with so many files.
fn allowed(files: usize, connections: &[usize]) -> Vec<usize> {
    let fits = |count: &usize| count * FILES + OTHER_FILES <= files;
    connections.iter().copied().filter(fits).collect()
}

/// Items a second by the number of access keys that share the connections.
pub(super) fn principals(plan: &mut Plan<'_>) -> Result<Option<Curve>> {
    let draft = Draft {
        name: "principals",
        title: format!(
            "MessagePack TCP, BatchEncrypt {CROWD_ITEMS} x 1 KiB, {CROWD} connections: rate by access keys"
        ),
        x: "access keys",
        unit: Unit::Items,
        against: "bare loop",
        xs: vec![1, 4, 16, 64, 256],
    };
    let mut made: Vec<Credentials> = Vec::new();
    curve(plan, draft, |plan, callers| {
        made.extend(plan.fixture()?.callers(callers - made.len())?);
        beside_bare_loop(plan, &made, CROWD)
    })
}

fn beside_bare_loop<'l>(
    plan: &mut Plan<'_>,
    callers: &[Credentials],
    connections: usize,
) -> Result<[Leg<'l>; 2]> {
    let (fixture, bare) = (plan.fixture()?, plan.bare()?);
    let shape =
        Shape { what: What::BatchEncrypt, items: CROWD_ITEMS, item_len: ITEM_BYTES, depth: 1, connections };
    let leg = |address| -> Result<Leg<'l>> {
        let mut crowd = Crowd::open(address, callers, &fixture.key(), shape)?;
        Ok(Box::new(move |time| crowd.run(time)))
    };
    Ok([leg(fixture.msgpack)?, leg(bare.addr)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_flight_fits_the_sockets_buffers() {
        assert_eq!([1, 4, 16, 64, 256, 1024, 4096].map(depth), [64, 64, 64, 16, 4, 1, 1]);
    }

    #[test]
    fn connections_that_may_not_be_open_are_left_out() {
        assert_eq!(allowed(20_000, &[1, 256, 1000]), [1, 256, 1000]);
        assert_eq!(allowed(4_096, &[1, 256, 1000]), [1, 256]);
        assert_eq!(allowed(1_024, &[1, 256, 1000]), [1]);
    }
}
