//! Envelopes of the client: sealed and opened in memory, as the cache does, and as streams, with the threads that read ahead and write
//! behind; against raw AES-256-GCM on one thread over as many bytes.

use std::cell::RefCell;
use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use keymill_ceilings::{Load, Run, raw};
use keymill_client::envelope::Header;
use keymill_client::{DataKey, DataKeys, Envelope, EnvelopeError, KeysError, wait};
use keymill_core::id::CmkId;
use keymill_core::{EncryptionContext, Sensitive};

use crate::error::{BenchError, Result};
use crate::plan::{Plan, Spec};
use crate::report::Unit;
use crate::stats::Target;

const MIB: usize = 1024 * 1024;
/// MiB of a payload, more than any cache holds.
const PAYLOAD_MIB: usize = 64;

pub(super) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    for (what, open, target) in [
        ("seal 1 MiB segments", false, Some(Target::AtLeast(0.80))),
        ("open 1 MiB segments", true, Some(Target::AtLeast(0.80))),
        ("seal a stream", false, None),
        ("open a stream", true, None),
    ] {
        let name = format!("envelope {what}");
        if !plan.args.wants(&name) {
            continue;
        }
        let ours = Payload::new()?;
        let load = Load { items: PAYLOAD_MIB, item_len: MIB, aad_len: 0, threads: 1 };
        plan.measure(
            Spec { name, against: vec![("raw, one thread", target)], unit: Unit::Mebibytes },
            vec![
                Box::new(move |time| match (target.is_some(), open) {
                    (true, false) => ours.seal(time),
                    (true, true) => ours.open(time),
                    (false, false) => ours.seal_stream(time),
                    (false, true) => ours.open_stream(time),
                }),
                Box::new(move |time| {
                    let run = Run::For(time);
                    Ok(if open { raw::open(load, run) } else { raw::seal(load, run) })
                }),
            ],
        )?;
    }
    Ok(())
}

struct Payload {
    envelope: Envelope,
    payload: Vec<u8>,
    sealed: Vec<u8>,
    /// Where the results go, again and again.
    out: RefCell<Vec<u8>>,
}

impl Payload {
    fn new() -> Result<Self> {
        let key_id = CmkId::from_bytes([7; 16]);
        let made = wait(Envelope::generate(&OneKey, key_id, &EncryptionContext::default()));
        let envelope = made.map_err(told)?;
        let payload = vec![0x5a; PAYLOAD_MIB * MIB];
        let sealed = envelope.seal(&payload).map_err(told)?;
        Ok(Self { envelope, payload, sealed, out: RefCell::default() })
    }

    fn seal(&self, time: Duration) -> Result<f64> {
        rate(time, || self.envelope.seal_into(&self.payload, &mut self.out.borrow_mut()))
    }

    fn open(&self, time: Duration) -> Result<f64> {
        rate(time, || {
            let mut stream = &self.sealed[..];
            Header::read(&mut stream)?;
            self.envelope.open_into(stream, &mut self.out.borrow_mut())
        })
    }

    fn seal_stream(&self, time: Duration) -> Result<f64> {
        rate(time, || self.envelope.seal_stream(&self.payload[..], io::sink(), go_on).map(drop))
    }

    fn open_stream(&self, time: Duration) -> Result<f64> {
        rate(time, || {
            let mut stream = &self.sealed[..];
            Header::read(&mut stream)?;
            self.envelope.open_stream(stream, io::sink(), go_on).map(drop)
        })
    }
}

/// Passes the payload again and again, and returns MiB a second.
fn rate(time: Duration, once: impl Fn() -> Result<(), EnvelopeError>) -> Result<f64> {
    let (begun, mut passed) = (Instant::now(), 0);
    while begun.elapsed() < time {
        once().map_err(told)?;
        passed += PAYLOAD_MIB;
    }
    Ok(passed as f64 / begun.elapsed().as_secs_f64())
}

fn go_on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn told(error: EnvelopeError) -> BenchError {
    BenchError::new(error.to_string())
}

/// The service is asked once a payload, which is not what is measured.
struct OneKey;

impl DataKeys for OneKey {
    async fn generate(&self, _: CmkId, _: &EncryptionContext) -> Result<DataKey, KeysError> {
        Ok(DataKey { data_key: Sensitive::new(vec![3; 32]), edk: b"edk".to_vec() })
    }

    async fn decrypt(&self, _: CmkId, _: &EncryptionContext, _: &[u8]) -> Result<Sensitive, KeysError> {
        Ok(Sensitive::new(vec![3; 32]))
    }
}
