//! Certificates issued in batches by an authority whose key is in software, against the library that signs with such a key on as many threads as
//! there are cores. What is issued is asked for by requests whose signatures are checked, and is kept before it is given out.

use keymill_ceilings::RawSigner;
use keymill_core::key::KeySpec;

use crate::error::Result;
use crate::issue::Issuing;
use crate::machine::cores;
use crate::plan::{Plan, Spec};
use crate::report::Unit;
use crate::stats::Target;

/// Requests of a batch.
const BATCH: usize = 128;
/// A request on P-256 takes longer to check than a certificate to sign by a key on P-256: no target could be met there.
const KEYS: [(KeySpec, Option<f64>); 2] = [(KeySpec::Rsa2048, Some(0.60)), (KeySpec::EcP256, None)];

pub(super) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    for (spec, least) in KEYS {
        let name = format!("tcp BatchIssueCertificate {BATCH} by {}, 8 in flight", spec.name());
        if !plan.args.wants(&name) {
            continue;
        }
        let fixture = plan.fixture()?;
        let issuing = Issuing::open(&fixture, spec, BATCH)?;
        let signer = match spec {
            KeySpec::EcP256 => RawSigner::p256(),
            _ => RawSigner::rsa2048(false),
        };
        plan.measure(
            Spec { name, against: vec![("raw", least.map(Target::AtLeast))], unit: Unit::Items },
            vec![Box::new(|time| issuing.rate(time)), Box::new(move |time| Ok(signer.rate(cores(), time)))],
        )?;
    }
    Ok(())
}
