//! One lane hop, alone and in batches, against a plain channel.

use crate::error::Result;
use crate::hop::{ChannelHop, LaneHop, nanoseconds};
use crate::plan::{Plan, Spec};
use crate::report::Unit;

pub(super) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    for in_flight in [1, 16, 256] {
        let name = format!("lane hop, {in_flight} in flight, a job");
        if !plan.args.wants(&name) {
            continue;
        }
        let (lane, channel) = (LaneHop::start()?, ChannelHop::start()?);
        plan.measure(
            Spec { name, against: vec![("channel", None)], unit: Unit::Nanoseconds },
            vec![
                Box::new(move |time| nanoseconds(time, in_flight, |rounds| lane.rounds(rounds, in_flight))),
                Box::new(move |time| {
                    nanoseconds(time, in_flight, |rounds| channel.rounds(rounds, in_flight))
                }),
            ],
        )?;
    }
    Ok(())
}
