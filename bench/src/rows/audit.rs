//! What the audit costs: the same load on a keymill with it and on one without.

use std::sync::Arc;

use crate::error::Result;
use crate::fixture::Fixture;
use crate::plan::{Plan, Spec};
use crate::pump::{Pump, Shape, What};
use crate::report::Unit;
use crate::stats::Target;

const TARGET: Target = Target::AtLeast(0.95);

pub(super) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    let shapes = [
        (
            "audit on, tcp BatchEncrypt 256 x 1 KiB, 4 in flight",
            Shape { what: What::BatchEncrypt, items: 256, item_len: 1024, depth: 4, connections: 2 },
        ),
        (
            "audit on, tcp Encrypt 1 KiB, 512 in flight",
            Shape { what: What::Encrypt, items: 1, item_len: 1024, depth: 512, connections: 1 },
        ),
    ];
    let mut without = None;
    for (name, shape) in shapes {
        if !plan.args.wants(name) {
            continue;
        }
        let audited = plan.fixture()?;
        if without.is_none() {
            without = Some(Arc::new(Fixture::start_without_audit()?));
        }
        let bare = without.clone().expect("it was just started");
        let mut on = Pump::open(audited.msgpack, &audited.credentials(), &audited.key(), shape)?;
        let mut off = Pump::open(bare.msgpack, &bare.credentials(), &bare.key(), shape)?;
        plan.measure(
            Spec { name: name.into(), against: vec![("audit off", Some(TARGET))], unit: Unit::Items },
            vec![Box::new(move |time| on.run(time)), Box::new(move |time| off.run(time))],
        )?;
    }
    Ok(())
}
