//! Sealing: plaintexts, re-encryption, data keys; consecutive parts under one key version share one run of its epoch.

use keymill_core::Sensitive;
use keymill_core::error::{Error, ErrorKind, Limit};
use keymill_core::seam::provider::{CryptoSession, DeriveJob};
use keymill_core::time::Timestamp;
use keymill_crypto::epoch::SealRun;
use keymill_crypto::random;
use std::time::Instant;

use super::{Destination, Fault, Job, OpenTask, Sealing, Served, Task};
use crate::keyring::Use;
use crate::shared::Shared;
use crate::work::open::Opener;

/// Begins a run of `count` messages under the destination's key version.
pub(super) fn begin(
    shared: &Shared,
    session: &mut dyn CryptoSession,
    to: &Destination,
    count: u32,
    now: Instant,
) -> Result<SealRun, Fault> {
    let handle = shared.handle(&to.entry, &to.version)?;
    let mut derive = |messages| -> Result<Sensitive, Error> {
        let mut jobs = [DeriveJob::new(messages)];
        session.derive(&handle, &mut jobs).map_err(|lost| {
            Error::new(ErrorKind::Unavailable, "the crypto session was lost").caused_by(lost.reason)
        })?;
        let [job] = jobs;
        match job.output {
            Some(Ok(subkey)) => Ok(subkey),
            other => Err(Error::internal(format!("derivation failed: {:?}", other.map(|r| r.err())))),
        }
    };
    to.version
        .in_use()
        .epoch
        .begin(count, now, &shared.epoch_limits(&to.entry), &mut derive)
        .map_err(|error| Fault::from(Error::from(error)))
}

/// Seals items from `next` on, up to `count`, onto the job's sheet; returns how many: fewer where one has to go to a token first.
pub(super) fn seal(
    job: &mut Job,
    count: usize,
    run: &mut Result<SealRun, Fault>,
    at: Timestamp,
    opener: &mut Opener<'_>,
) -> usize {
    let Task::Seal { to, contexts, what, done } = &mut job.task else { return count };
    let mut aad = std::mem::take(opener.aad);
    let overhead = to.algorithm.overhead();
    let mut faults: Vec<(usize, Fault)> = Vec::new();
    let range = job.next..job.next + count;
    let mut sealed = 0u32;
    let mut laid_out = None;
    let mut taken = count;

    // None where no data keys are made: to wipe nothing takes longer than to seal a short item (a store of no bytes to an address that is
    // not mapped takes the processor's slow path).
    let mut secret = None;
    if let Sealing::DataKeys { bytes, .. } = what {
        let mut fresh = Sensitive::zeroed(*bytes * count);
        if let Err(failed) = random::draw(fresh.expose_mut()) {
            *run = Err(Error::from(failed).into());
        }
        secret = Some(fresh);
    }
    for i in range.clone() {
        let context = contexts.canonical(i);
        let is_text = what.is_text(i);
        // A common context gives all items one associated data; it is laid out once.
        if laid_out != Some(is_text) || matches!(contexts, super::Contexts::Each(_)) {
            aad.clear();
            aad.extend_from_slice(&to.header(is_text));
            aad.extend_from_slice(context);
            laid_out = Some(is_text);
        }
        let run = match run {
            Ok(run) => run,
            Err(fault) => {
                absent(&mut job.sheet, what);
                faults.push((i, fault.clone()));
                continue;
            }
        };
        let sheet = &mut job.sheet;
        let mut put = |plaintext: &[u8]| {
            sheet
                .put(overhead + plaintext.len(), |out| run.seal_to(&aad, plaintext, out))
                .map_err(|exhausted| Fault::from(Error::from(exhausted)))
        };
        let outcome = match what {
            Sealing::Plaintexts { items, max_item_bytes, .. } => {
                if items.item_len(i) > *max_item_bytes {
                    sheet.absent();
                    Err(too_long(items.item_len(i), *max_item_bytes))
                } else {
                    put(items.get(i))
                }
            }
            Sealing::Blobs(open) => {
                let OpenTask { items, keys, .. } = &mut **open;
                let way = match opener.way(keys, items.get(i), i, None) {
                    Ok((super::open::Way::Away, _)) => {
                        taken = i - range.start;
                        break;
                    }
                    way => way,
                };
                let mut plaintext = std::mem::take(opener.plaintext);
                plaintext.resize(super::open::plaintext_len(items.get(i)), 0);
                let opened =
                    way.and_then(|(way, blob)| opener.open(&way, &blob, keys, i, None, &mut plaintext));
                let outcome = match opened {
                    Ok(_) => put(&plaintext),
                    Err(fault) => {
                        sheet.absent();
                        Err(fault)
                    }
                };
                zeroize::Zeroize::zeroize(&mut plaintext);
                *opener.plaintext = plaintext;
                outcome
            }
            // It is a plaintext by the time that it is sealed.
            Sealing::Pair(_) => {
                sheet.absent();
                Err(Error::internal("a data key pair is sealed before it is made").into())
            }
            Sealing::DataKeys { bytes, with_plaintext, .. } => {
                let at = (i - range.start) * *bytes;
                let key = &secret.as_ref().expect("drawn for data keys").expose()[at..at + *bytes];
                sheet.pair();
                let outcome = sheet
                    .put(overhead + key.len(), |out| run.seal_to(&aad, key, out))
                    .map_err(|exhausted| Fault::from(Error::from(exhausted)));
                if *with_plaintext && outcome.is_ok() {
                    sheet
                        .put(key.len(), |out| {
                            out.copy_from_slice(key);
                            Ok::<(), Fault>(())
                        })
                        .expect("copying cannot fail");
                } else {
                    sheet.absent();
                }
                outcome
            }
        };
        match outcome {
            Ok(()) => sealed += 1,
            Err(fault) => faults.push((i, fault)),
        }
    }
    *done += sealed;
    if sealed > 0 {
        job.served.add(Served::SOFTWARE);
    }
    opener.shared.keyring.count(&to.entry.cmk.id, &to.version, Use::Encrypted, sealed, at);
    *opener.aad = aad;
    for (i, fault) in faults {
        job.fail_item(i, fault);
    }
    taken
}

/// Writes that an item is absent; one of data keys is a pair.
pub(super) fn absent(sheet: &mut super::Sheet, what: &Sealing) {
    if matches!(what, Sealing::DataKeys { .. }) {
        sheet.pair();
        sheet.absent();
    }
    sheet.absent();
}

pub(super) fn too_long(bytes: usize, limit: usize) -> Fault {
    Error::new(
        ErrorKind::LimitExceeded(Limit::ItemBytes),
        format!("item of {bytes} bytes exceeds the limit of {limit}"),
    )
    .into()
}
