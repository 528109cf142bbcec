//! Signatures with software keys over MessagePack TCP, in batches, against the library on as many threads as there are cores.

use keymill_ceilings::RawSigner;
use keymill_core::key::{KeySpec, SignAlgorithm};

use crate::error::Result;
use crate::machine::cores;
use crate::plan::{Plan, Spec};
use crate::pump::{Pump, Shape, What};
use crate::report::Unit;
use crate::stats::Target;

/// Digests of a request: as many as take a core some ten milliseconds.
const ITEMS: [(KeySpec, SignAlgorithm, usize, f64); 3] = [
    (KeySpec::Rsa2048, SignAlgorithm::RsaPssSha256, 32, 0.90),
    (KeySpec::Rsa2048, SignAlgorithm::RsaPkcs1Sha256, 32, 0.90),
    (KeySpec::EcP256, SignAlgorithm::EcdsaSha256, 256, 0.75),
];

pub(super) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    for (spec, algorithm, items, least) in ITEMS {
        let name = format!("tcp BatchSign {} {items}, 4 in flight, 2 connections", algorithm.name());
        if !plan.args.wants(&name) {
            continue;
        }
        let fixture = plan.fixture()?;
        let (key, version) = fixture.key_pair(spec)?;
        let what = What::BatchSign(algorithm, version);
        let shape = Shape { what, items, item_len: 32, depth: 4, connections: 2 };
        let mut pump = Pump::open(fixture.msgpack, &fixture.credentials(), &key, shape)?;
        let signer = match spec {
            KeySpec::EcP256 => RawSigner::p256(),
            _ => RawSigner::rsa2048(algorithm == SignAlgorithm::RsaPssSha256),
        };
        plan.measure(
            Spec { name, against: vec![("raw", Some(Target::AtLeast(least)))], unit: Unit::Items },
            vec![Box::new(move |time| pump.run(time)), Box::new(move |time| Ok(signer.rate(cores(), time)))],
        )?;
    }
    Ok(())
}
