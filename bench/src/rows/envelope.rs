//! Sealing and opening of streams by the client, from memory to nowhere, against raw AES-256-GCM on one thread over as many bytes.

use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use keymill_ceilings::{Load, Run, raw};
use keymill_client::envelope::{Header, Totals};
use keymill_client::{DataKey, DataKeys, Envelope, EnvelopeError, KeysError, wait};
use keymill_core::id::CmkId;
use keymill_core::{EncryptionContext, Sensitive};

use crate::error::{BenchError, Result};
use crate::plan::{Plan, Spec};
use crate::report::Unit;
use crate::stats::Target;

const MIB: usize = 1024 * 1024;
/// MiB of a stream, more than any cache holds.
const STREAM_MIB: usize = 64;

pub(super) fn measure(plan: &mut Plan<'_>) -> Result<()> {
    for open in [false, true] {
        let name = format!("envelope {} 1 MiB segments", if open { "open" } else { "seal" });
        if !plan.args.wants(&name) {
            continue;
        }
        let ours = Stream::new()?;
        let load = Load { items: STREAM_MIB, item_len: MIB, aad_len: 0, threads: 1 };
        plan.measure(
            Spec {
                name,
                against: vec![("raw, one thread", Some(Target::AtLeast(0.80)))],
                unit: Unit::Mebibytes,
            },
            vec![
                Box::new(move |time| if open { ours.open(time) } else { ours.seal(time) }),
                Box::new(move |time| {
                    let run = Run::For(time);
                    Ok(if open { raw::open(load, run) } else { raw::seal(load, run) })
                }),
            ],
        )?;
    }
    Ok(())
}

struct Stream {
    envelope: Envelope,
    payload: Vec<u8>,
    sealed: Vec<u8>,
}

impl Stream {
    fn new() -> Result<Self> {
        let made =
            wait(Envelope::generate(&OneKey, CmkId::from_bytes([7; 16]), &EncryptionContext::default()));
        let envelope = made.map_err(told)?;
        let payload = vec![0x5a; STREAM_MIB * MIB];
        let sealed = envelope.seal(&payload).map_err(told)?;
        Ok(Self { envelope, payload, sealed })
    }

    fn seal(&self, time: Duration) -> Result<f64> {
        rate(time, || self.envelope.seal_stream(&self.payload[..], io::sink(), go_on))
    }

    fn open(&self, time: Duration) -> Result<f64> {
        rate(time, || {
            let mut input = &self.sealed[..];
            Header::read(&mut input)?;
            self.envelope.open_stream(input, io::sink(), go_on)
        })
    }
}

/// Passes the stream again and again, and returns MiB a second.
fn rate(time: Duration, once: impl Fn() -> Result<Totals, EnvelopeError>) -> Result<f64> {
    let (begun, mut passed) = (Instant::now(), 0);
    while begun.elapsed() < time {
        once().map_err(told)?;
        passed += STREAM_MIB;
    }
    Ok(passed as f64 / begun.elapsed().as_secs_f64())
}

fn go_on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

fn told(error: EnvelopeError) -> BenchError {
    BenchError::new(error.to_string())
}

/// The service is asked once a stream, which is not what is measured.
struct OneKey;

impl DataKeys for OneKey {
    async fn generate(&self, _: CmkId, _: &EncryptionContext) -> Result<DataKey, KeysError> {
        Ok(DataKey { data_key: Sensitive::new(vec![3; 32]), edk: b"edk".to_vec() })
    }

    async fn decrypt(&self, _: CmkId, _: &EncryptionContext, _: &[u8]) -> Result<Sensitive, KeysError> {
        Ok(Sensitive::new(vec![3; 32]))
    }
}
