//! A single caller's latency, one request at a time on an idle server, against the bare loop's: where the system puts client and server, and
//! with both on one core. To wake a processor that has nothing to do takes a virtual machine longer than all that is measured here, so that the
//! first of the two shows above all on how many cores either leg ran.

use std::net::SocketAddr;

use keymill_ceilings::{BareLoop, Mode};
use keymill_client::{Connection, Credentials, Options};
use keymill_core::id::KeyRef;

use crate::affinity::Affinity;
use crate::error::Result;
use crate::fixture::Fixture;
use crate::plan::{Leg, Plan, Spec};
use crate::report::Unit;
use crate::stats::{Target, percentile};

use super::fairness::ask;

const ANYWHERE: &str = "tcp Encrypt 1 KiB, 1 in flight, p50";
const ON_ONE_CORE: &str = "tcp Encrypt 1 KiB, 1 in flight, p50, all on one core";

pub(super) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    if plan.args.wants(ANYWHERE) {
        let (fixture, bare) = (plan.fixture()?, plan.bare()?);
        let servers = [fixture.msgpack, bare.addr];
        compare(plan, ANYWHERE, usize::MAX, (&fixture.credentials(), &fixture.key()), servers)?;
    }
    if plan.args.wants(ON_ONE_CORE) {
        // Threads stay where those were that started them.
        let affinity = Affinity::now()?;
        let fixture = affinity.within(1, Fixture::start)?;
        let bare = affinity.within(1, || Ok(BareLoop::start(Mode::Seal)?))?;
        let servers = [fixture.msgpack, bare.addr];
        compare(plan, ON_ONE_CORE, 1, (&fixture.credentials(), &fixture.key()), servers)?;
    }
    Ok(())
}

fn compare(
    plan: &mut Plan<'_>,
    name: &str,
    cores: usize,
    (credentials, key): (&Credentials, &KeyRef),
    servers: [SocketAddr; 2],
) -> Result<()> {
    let legs = servers.map(|address| -> Result<Leg<'_>> {
        let mut connection = Connection::open(address, credentials, &Options::default())?;
        Ok(Box::new(move |time| {
            let asked = || Ok(percentile(&ask(&mut connection, key, time)?, 0.50));
            Affinity::now()?.within(cores, asked)
        }))
    });
    let legs = legs.into_iter().collect::<Result<_>>()?;
    let against = vec![("bare loop", Some(Target::AtMost(1.15)))];
    plan.measure(Spec { name: name.into(), against, unit: Unit::Microseconds }, legs)?;
    Ok(())
}
