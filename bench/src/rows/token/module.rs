//! Keys in the token of a module in software, against the module's own calls in a plain loop: on one thread, and on a thread a core. What
//! is better of these is the ceiling. Ours has a token's defaults; how many sessions are at work is found by its feedback.

use std::time::Duration;

use keymill_core::key::{BulkMode, KeySpec, SignAlgorithm};

use super::{TokenRow, Tokens};
use crate::error::Result;
use crate::fixture::Fixture;
use crate::in_process::{self, Caller};
use crate::machine::cores;
use crate::plan::{Leg, Plan, Spec};
use crate::report::Unit;
use crate::stats::Target;
use crate::token::Kind;
use crate::token::raw::{Operation, TEXT_BYTES};

/// Within so much time under load, feedback has found how many sessions are to be at work. Legs that take turns are too short for it to learn from.
const FOUND_WITHIN: Duration = Duration::from_secs(6);

#[derive(Clone, Copy)]
enum Work {
    Seal,
    Open,
    Sign(KeySpec, SignAlgorithm),
}

const RSA: Work = Work::Sign(KeySpec::Rsa2048, SignAlgorithm::RsaPkcs1Sha256);
const EC: Work = Work::Sign(KeySpec::EcP256, SignAlgorithm::EcdsaSha256);

/// What is asked of each module, with the items of a batch.
const ROWS: [(&[Kind], Work, usize, f64); 8] = [
    (&[Kind::SoftHsm], Work::Seal, 256, 0.92),
    (&[Kind::SoftHsm], Work::Open, 256, 0.92),
    (&[Kind::SoftHsm], RSA, 32, 0.98),
    (&[Kind::SoftHsm], EC, 256, 0.92),
    (&[Kind::Kryoptic], Work::Seal, 256, 0.85),
    (&[Kind::Kryoptic], Work::Open, 256, 0.85),
    (&[Kind::Kryoptic], RSA, 32, 0.98),
    (&[Kind::Kryoptic], EC, 256, 0.92),
];

pub(super) fn rows() -> Vec<TokenRow> {
    let row = |(needs, work, items, least): (&'static [Kind], Work, usize, f64)| TokenRow {
        name: format!("hsm {} {}", needs[0].name(), work.name(items)),
        needs,
        hsms: 0,
        measure: Box::new(move |plan, tokens, name| {
            measure(plan, tokens, name, needs[0], work, items, least)
        }),
    };
    ROWS.into_iter().map(row).collect()
}

impl Work {
    fn name(self, items: usize) -> String {
        match self {
            Work::Seal => format!("BatchEncrypt {items} x 1 KiB"),
            Work::Open => format!("BatchDecrypt {items} x 1 KiB"),
            Work::Sign(_, algorithm) => format!("BatchSign {} {items}", algorithm.name()),
        }
    }
}

fn measure(
    plan: &mut Plan<'_>,
    tokens: &mut Tokens,
    name: String,
    kind: Kind,
    work: Work,
    items: usize,
    least: f64,
) -> Result<()> {
    let token = tokens.of(kind)?;
    let fixture = Fixture::start_in_tokens(vec![token.part(None)], BulkMode::InHsm)?;
    let pair = match work {
        Work::Sign(spec, algorithm) => Some((fixture.key_pair(spec)?, algorithm)),
        Work::Seal | Work::Open => None,
    };
    let caller = || match (&pair, work) {
        (Some((pair, algorithm)), _) => Ok(Caller::signing(&fixture, pair.clone(), *algorithm, items)),
        (None, Work::Open) => Caller::opening(&fixture, items, TEXT_BYTES),
        _ => Ok(Caller::sealing(&fixture, items, TEXT_BYTES)),
    };
    // While one batch of a core is in the token, the next is made ready.
    let callers = 2 * cores();
    let plain = token.plain(match work {
        Work::Seal => token.seals_by(),
        Work::Open => Operation::Open,
        Work::Sign(KeySpec::EcP256, _) => Operation::SignEc,
        Work::Sign(..) => Operation::SignRsa,
    })?;
    let mut against = vec![("raw, 1 thread", 1), ("raw, a thread a core", cores())];
    against.truncate(cores().min(2));
    let mut legs: Vec<Leg<'_>> = vec![Box::new(|time| in_process::rate(callers, time, caller))];
    for (_, threads) in &against {
        let (mut workers, plain) = (plain.workers(*threads)?, &plain);
        legs.push(Box::new(move |time| plain.rate(&mut workers, time)));
    }
    if !plan.args.quick {
        in_process::rate(callers, FOUND_WITHIN, caller)?;
    }
    let ceilings = against.len();
    let target = Some(Target::AtLeast(least));
    let against = against.into_iter().map(|(name, _)| (name, target)).collect();
    plan.measure(Spec { name, against, unit: Unit::Items }, legs)?;
    plan.keep_the_highest(ceilings);
    Ok(())
}
