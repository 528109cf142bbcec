//! A single caller's latency, one request at a time on an idle server, against the bare loop's.

use keymill_client::{Connection, Options};

use crate::error::Result;
use crate::plan::{Leg, Plan, Spec};
use crate::report::Unit;
use crate::stats::{Target, percentile};

use super::fairness::ask;

pub(super) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    let name = "tcp Encrypt 1 KiB, 1 in flight, p50";
    if !plan.args.wants(name) {
        return Ok(());
    }
    let (fixture, bare) = (plan.fixture()?, plan.bare()?);
    let (credentials, key) = (fixture.credentials(), fixture.key());
    let legs = [fixture.msgpack, bare.addr].map(|address| -> Result<Leg<'_>> {
        let mut connection = Connection::open(address, &credentials, &Options::default())?;
        let key = &key;
        Ok(Box::new(move |time| Ok(percentile(&ask(&mut connection, key, time)?, 0.50))))
    });
    let legs = legs.into_iter().collect::<Result<_>>()?;
    let against = vec![("bare loop", Some(Target::AtMost(1.15)))];
    plan.measure(Spec { name: name.into(), against, unit: Unit::Microseconds }, legs)?;
    Ok(())
}
