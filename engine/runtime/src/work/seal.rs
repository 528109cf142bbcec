//! Sealing: plaintexts, re-encryption, data keys; consecutive parts under one key version share one run of its epoch.

use std::ops::Range;
use std::time::Instant;

use keymill_core::Sensitive;
use keymill_core::blob::{self, Blob};
use keymill_core::error::{Error, ErrorKind, Limit};
use keymill_core::seam::provider::{CryptoSession, DeriveJob};
use keymill_core::time::Timestamp;
use keymill_crypto::epoch::SealRun;
use keymill_crypto::random;
use zeroize::Zeroize;

use super::open::{Opener, Way, opaque};
use super::{Contexts, Destination, Fault, Items, Job, OpenTask, Sealing, Served, Sheet, Task};
use crate::keyring::Use;
use crate::shared::Shared;

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
    let range = job.next..job.next + count;
    let mut sealed = Sealed::default();
    let mut taken = count;
    match run {
        Ok(run) => {
            let mut aad = std::mem::take(opener.aad);
            let mut place = Place { run, to, contexts, sheet: &mut job.sheet, aad: &mut aad, laid_out: None };
            match what {
                Sealing::Plaintexts { items, max_item_bytes, is_text } => {
                    plaintexts(&mut place, items, (*max_item_bytes, *is_text), range, &mut sealed);
                }
                Sealing::Blobs(open) => taken = blobs(&mut place, open, range, opener, &mut sealed),
                Sealing::DataKeys { bytes, with_plaintext, .. } => {
                    data_keys(&mut place, *bytes, *with_plaintext, range, &mut sealed);
                }
                // It is a plaintext by the time that it is sealed.
                Sealing::Pair(_) => {
                    for i in range {
                        place.sheet.absent();
                        let unmade = Error::internal("a data key pair is sealed before it is made");
                        sealed.add(i, Err(unmade.into()));
                    }
                }
            }
            *opener.aad = aad;
        }
        Err(fault) => {
            for i in range {
                absent(&mut job.sheet, what);
                sealed.add(i, Err(fault.clone()));
            }
        }
    }
    *done += sealed.count;
    if sealed.count > 0 {
        job.served.add(Served::SOFTWARE);
    }
    opener.shared.keyring.count(&to.entry.cmk.id, &to.version, Use::Encrypted, sealed.count, at);
    for (i, fault) in sealed.faults {
        job.fail_item(i, fault);
    }
    taken
}

/// What became of items.
#[derive(Default)]
struct Sealed {
    count: u32,
    faults: Vec<(usize, Fault)>,
}

impl Sealed {
    #[inline]
    fn add(&mut self, i: usize, outcome: Result<(), Fault>) {
        match outcome {
            Ok(()) => self.count += 1,
            Err(fault) => self.faults.push((i, fault)),
        }
    }
}

/// Where items are sealed, and under what.
struct Place<'s> {
    run: &'s mut SealRun,
    to: &'s Destination,
    contexts: &'s Contexts,
    sheet: &'s mut Sheet,
    aad: &'s mut Vec<u8>,
    /// Whether the associated data is that of a text, where it is laid out and holds for every item of its kind.
    laid_out: Option<bool>,
}

impl Place<'_> {
    /// Lays out the associated data of item `i`; a common context gives all items one, and it is laid out once.
    #[inline]
    fn lay_out(&mut self, i: usize, is_text: bool) {
        if self.laid_out != Some(is_text) {
            self.aad.clear();
            self.aad.extend_from_slice(&self.to.header(is_text));
            self.aad.extend_from_slice(self.contexts.canonical(i));
            self.laid_out = (!matches!(self.contexts, Contexts::Each(_))).then_some(is_text);
        }
    }

    /// Seals a plaintext under what is laid out.
    #[inline]
    fn put(&mut self, plaintext: &[u8]) -> Result<(), Fault> {
        let Self { run, to, sheet, aad, .. } = self;
        sheet
            .put(to.algorithm.overhead() + plaintext.len(), |out| run.seal_to(aad, plaintext, out))
            .map_err(|exhausted| Error::from(exhausted).into())
    }
}

fn plaintexts(
    place: &mut Place<'_>,
    items: &Items,
    (max_item_bytes, is_text): (usize, bool),
    range: Range<usize>,
    sealed: &mut Sealed,
) {
    for i in range {
        place.lay_out(i, is_text);
        let plaintext = items.get(i);
        let outcome = match plaintext.len() > max_item_bytes {
            false => place.put(plaintext),
            true => {
                place.sheet.absent();
                Err(too_long(plaintext.len(), max_item_bytes))
            }
        };
        sealed.add(i, outcome);
    }
}

/// Returns how many were taken.
fn blobs(
    place: &mut Place<'_>,
    OpenTask { items, keys, .. }: &mut OpenTask,
    range: Range<usize>,
    opener: &mut Opener<'_>,
    sealed: &mut Sealed,
) -> usize {
    let (start, count) = (range.start, range.len());
    for i in range {
        let mut plaintext = std::mem::take(opener.plaintext);
        let opened = match Blob::parse(items.get(i)) {
            None => Err(opaque()),
            Some(blob) => match opener.way(keys, &blob, i, None) {
                Ok(Way::Away) => {
                    *opener.plaintext = plaintext;
                    return i - start;
                }
                Ok(way) => {
                    plaintext.resize(blob.ciphertext.len(), 0);
                    opener.open(&way, &blob, keys, i, None, &mut plaintext)
                }
                Err(fault) => Err(fault),
            },
        };
        let outcome = match opened {
            Ok(_) => {
                // Whether it is text its header says, which is a part of what was authenticated.
                place.lay_out(i, blob::says_text(items.get(i)));
                place.put(&plaintext)
            }
            Err(fault) => {
                place.sheet.absent();
                Err(fault)
            }
        };
        plaintext.zeroize();
        *opener.plaintext = plaintext;
        sealed.add(i, outcome);
    }
    count
}

fn data_keys(
    place: &mut Place<'_>,
    bytes: usize,
    with_plaintext: bool,
    range: Range<usize>,
    sealed: &mut Sealed,
) {
    let mut keys = Sensitive::zeroed(bytes * range.len());
    let drawn = random::draw(keys.expose_mut()).map_err(|failed| Fault::from(Error::from(failed)));
    for (n, i) in range.enumerate() {
        place.lay_out(i, false);
        place.sheet.pair();
        let key = &keys.expose()[n * bytes..(n + 1) * bytes];
        let outcome = match &drawn {
            Ok(()) => place.put(key),
            Err(fault) => {
                place.sheet.absent();
                Err(fault.clone())
            }
        };
        if with_plaintext && outcome.is_ok() {
            place
                .sheet
                .put(key.len(), |out| {
                    out.copy_from_slice(key);
                    Ok::<(), Fault>(())
                })
                .expect("copying cannot fail");
        } else {
            place.sheet.absent();
        }
        sealed.add(i, outcome);
    }
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
