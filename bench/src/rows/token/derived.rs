//! A CMK whose subkeys a token derives, over MessagePack TCP, against a CMK in software at the same server by the same client.

use keymill_core::key::BulkMode;

use super::{TokenRow, Tokens};
use crate::error::Result;
use crate::fixture::Fixture;
use crate::plan::{Plan, Spec};
use crate::pump::{Pump, Shape, What};
use crate::report::Unit;
use crate::stats::Target;
use crate::token::Kind;

pub(super) fn rows() -> Vec<TokenRow> {
    let row = |what: What| TokenRow {
        name: format!("hsm derived tcp {what:?} 256 x 1 KiB, 4 in flight, 2 connections"),
        needs: &[Kind::SoftHsm],
        hsms: 0,
        measure: Box::new(move |plan, tokens, name| measure(plan, tokens, name, what)),
    };
    [What::BatchEncrypt, What::BatchDecrypt].map(row).into()
}

fn measure(plan: &mut Plan<'_>, tokens: &mut Tokens, name: String, what: What) -> Result<()> {
    let token = tokens.of(Kind::SoftHsm)?;
    let fixture = Fixture::start_in_tokens(vec![token.part(None)], BulkMode::HsmDerived)?;
    let shape = Shape { what, items: 256, item_len: 1024, depth: 4, connections: 2 };
    let open = |key| Pump::open(fixture.msgpack, &fixture.credentials(), &key, shape);
    let (mut derived, mut software) = (open(fixture.key())?, open(fixture.software_key()?)?);
    let against = vec![("software CMK", Some(Target::AtLeast(0.95)))];
    plan.measure(
        Spec { name, against, unit: Unit::Items },
        vec![Box::new(move |time| derived.run(time)), Box::new(move |time| software.run(time))],
    )?;
    Ok(())
}
