//! Measuring with records made on the spot. A window of them is encrypted, then decrypted and compared, on two connections with
//! several batches underway, and nothing but that is timed; every fourth window goes to the bare loop as well.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use keymill_ceilings::{BareLoop, Mode};
use keymill_client::{Connection, Options};
use keymill_core::id::{CmkId, KeyRef};
use keymill_core::operation::{BatchDecryptRequest, BatchEncryptRequest, Bin, Reply, Request};

use super::{Interrupted, Rates, Report, Server, records};
use crate::failure::{Failure, Result};

/// Connections to each server.
pub(super) const CONNECTIONS: usize = 2;
/// Items of a batch, at most.
const BATCH_ITEMS: usize = 256;
/// Bytes of a batch, about: a frame of 64 to 256 KiB stays in the L2 cache.
const BATCH_BYTES: usize = 256 * 1024;
/// Batches underway on a connection; all of them fit the socket's buffers, which the bare loop needs.
const UNDERWAY: usize = 4;
/// Batches of a window: enough that its first and last batch do not count, and 32 MiB at most.
const WINDOW_BATCHES: usize = 128;
/// Of so many windows, one goes to the bare loop as well.
const CEILING_EVERY: u64 = 4;

/// Encrypts, decrypts and compares `count` records of `size` bytes; `between` runs after each window.
pub(super) fn measure(
    server: &Server,
    count: u64,
    size: u32,
    interrupted: &Interrupted,
    between: &mut dyn FnMut() -> Result<()>,
) -> Result<Report> {
    let bytes = size as usize;
    let shape = Shape { size: bytes, batch: (BATCH_BYTES / bytes).clamp(1, BATCH_ITEMS) };
    let address = server.address.parse().map_err(Failure::because("demo"))?;
    let mut ours = Lanes::connect(address, server, server.key_id)?;
    let bare_loop = BareLoop::start(Mode::Seal).map_err(Failure::because("the bare loop"))?;
    let mut ceiling = Lanes::connect(bare_loop.addr, server, server.key_id)?;
    let progress = progress(count);
    let mut window = vec![0; shape.size * shape.batch * WINDOW_BATCHES];
    let (mut done, mut mismatches) = (0, 0);
    for number in 0.. {
        if done == count {
            break;
        }
        interrupted.check()?;
        let items = (count - done).min((shape.batch * WINDOW_BATCHES) as u64);
        let records = &mut window[..items as usize * shape.size];
        records::fill(records, shape.size, done);
        mismatches += ours.window(records, shape)?;
        if number % CEILING_EVERY == 0 && ceiling.window(records, shape)? > 0 {
            return Err(Failure::new("the bare loop gave back other records: its rates mean nothing"));
        }
        between()?;
        done += items;
        progress.set_position(done);
        progress.set_message(format!(
            "{} encrypted/s, {} decrypted/s",
            millions(ours.rates.encrypt.rate()),
            millions(ours.rates.decrypt.rate())
        ));
    }
    progress.finish_and_clear();
    let report = Report::new(count, mismatches, ours.rates, ceiling.rates, server.key_id);
    Ok(Report { item_bytes: Some(size), ..report })
}

fn progress(count: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:32} {human_pos} of {human_len} records, {msg}, {eta} left")
            .expect("the template is well formed");
    ProgressBar::new(count).with_style(style)
}

fn millions(rate: f64) -> String {
    format!("{:.2} M", rate / 1e6)
}

/// Bytes of a record and records of a batch.
#[derive(Clone, Copy)]
struct Shape {
    size: usize,
    batch: usize,
}

/// The connections to one server, and what it has done.
struct Lanes {
    lanes: Vec<Lane>,
    rates: Rates,
}

/// One connection, and the blobs that came over it.
struct Lane {
    connection: Connection,
    key: KeyRef,
    sealed: Vec<Sealed>,
}

/// The blobs of a batch; its memory is used again for the next window.
#[derive(Default)]
struct Sealed {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Sealed {
    fn take(&mut self, items: &[Option<Bin<'_>>]) {
        self.bytes.clear();
        self.ends.clear();
        for item in items {
            // An item that failed leaves an empty blob, which will not open, and so counts as a mismatch.
            self.bytes.extend_from_slice(item.as_deref().unwrap_or_default());
            self.ends.push(self.bytes.len());
        }
    }

    fn blobs(&self) -> Vec<Bin<'_>> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts.zip(&self.ends).map(|(start, end)| Bin::from(&self.bytes[*start..*end])).collect()
    }
}

impl Lanes {
    fn connect(address: SocketAddr, server: &Server, key: CmkId) -> Result<Self> {
        let credentials = server.credentials();
        let lane = || -> Result<Lane> {
            let connection = Connection::open(address, &credentials, &Options::default())?;
            Ok(Lane { connection, key: KeyRef::Id(key), sealed: Vec::new() })
        };
        let lanes = (0..CONNECTIONS).map(|_| lane()).collect::<Result<_>>()?;
        Ok(Self { lanes, rates: Rates::default() })
    }

    /// Encrypts `records`, then decrypts and compares them; returns how many came back differently.
    fn window(&mut self, records: &[u8], shape: Shape) -> Result<u64> {
        let items = (records.len() / shape.size) as u64;
        let (_, time) = self.each(records, shape, |lane, part| lane.seal(part, shape).map(|()| 0))?;
        self.rates.encrypt.add(items, time);
        let (mismatches, time) = self.each(records, shape, |lane, part| lane.open(part, shape))?;
        self.rates.decrypt.add(items, time);
        Ok(mismatches)
    }

    /// Has each lane work on its part of the records, on a thread of its own; returns the sum of what they return, and the time.
    fn each(
        &mut self,
        records: &[u8],
        shape: Shape,
        work: impl Fn(&mut Lane, &[u8]) -> Result<u64> + Copy + Send,
    ) -> Result<(u64, Duration)> {
        let batches = records.len().div_ceil(shape.size * shape.batch);
        let part = batches.div_ceil(self.lanes.len()) * shape.size * shape.batch;
        let began = Instant::now();
        let sum = std::thread::scope(|scope| {
            let parts = self.lanes.iter_mut().zip(records.chunks(part));
            let threads: Vec<_> = parts.map(|(lane, part)| scope.spawn(move || work(lane, part))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a lane returns its failures"))
                .sum::<Result<u64>>()
        })?;
        Ok((sum, began.elapsed()))
    }
}

impl Lane {
    fn seal(&mut self, records: &[u8], shape: Shape) -> Result<()> {
        let Self { connection, key, sealed } = self;
        let batches: Vec<&[u8]> = records.chunks(shape.size * shape.batch).collect();
        sealed.resize_with(batches.len(), Sealed::default);
        let request = |batch: usize| {
            let items = batches[batch].chunks(shape.size).map(Bin::from).collect();
            let (encryption_context, encryption_contexts, timeout_ms) = (None, None, None);
            let key_id = key.clone();
            Request::from(BatchEncryptRequest {
                key_id,
                items,
                encryption_context,
                encryption_contexts,
                timeout_ms,
            })
        };
        pipelined(connection, batches.len(), request, |batch, reply| match reply {
            Reply::BatchEncrypt(reply) => {
                sealed[batch].take(&reply.items);
                Ok(())
            }
            other => Err(crate::admin::of_another(other.operation())),
        })
    }

    /// Returns how many records came back differently, or not at all.
    fn open(&mut self, records: &[u8], shape: Shape) -> Result<u64> {
        let Self { connection, sealed, .. } = self;
        let batches: Vec<&[u8]> = records.chunks(shape.size * shape.batch).collect();
        let mut mismatches = 0;
        let request = |batch: usize| {
            let (key_id, encryption_context, encryption_contexts, timeout_ms) = (None, None, None, None);
            let items = sealed[batch].blobs();
            Request::from(BatchDecryptRequest {
                items,
                key_id,
                encryption_context,
                encryption_contexts,
                timeout_ms,
            })
        };
        pipelined(connection, batches.len(), request, |batch, reply| match reply {
            Reply::BatchDecrypt(reply) => {
                let originals = batches[batch].chunks(shape.size);
                let missing = originals.len().saturating_sub(reply.items.len());
                let differs =
                    |(item, original): &(&Option<Bin<'_>>, &[u8])| item.as_deref() != Some(*original);
                mismatches += (missing + reply.items.iter().zip(originals).filter(differs).count()) as u64;
                Ok(())
            }
            other => Err(crate::admin::of_another(other.operation())),
        })?;
        Ok(mismatches)
    }
}

/// Sends requests ahead of their answers, which come in any order.
fn pipelined<'r>(
    connection: &mut Connection,
    batches: usize,
    request: impl Fn(usize) -> Request<'r>,
    mut answered: impl FnMut(usize, Reply<'_>) -> Result<()>,
) -> Result<()> {
    let mut underway: VecDeque<(u64, usize)> = VecDeque::with_capacity(UNDERWAY);
    let mut next = 0;
    while next < batches || !underway.is_empty() {
        while next < batches && underway.len() < UNDERWAY {
            underway.push_back((connection.send(&request(next))?, next));
            next += 1;
        }
        let answer = connection.receive()?;
        let (_, batch) = underway
            .iter()
            .position(|(id, _)| *id == answer.id())
            .and_then(|place| underway.remove(place))
            .ok_or_else(|| Failure::new(format!("answer {} belongs to no request", answer.id())))?;
        answered(batch, answer.result()?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    const SHAPE: Shape = Shape { size: 100, batch: 16 };

    fn lanes() -> (BareLoop, Lanes) {
        let server = Server {
            address: String::new(),
            id: "KM00000001".parse().unwrap(),
            secret: Zeroizing::new("secret".into()),
            key_id: CmkId::from_bytes([1; 16]),
        };
        let bare_loop = BareLoop::start(Mode::Seal).unwrap();
        let lanes = Lanes::connect(bare_loop.addr, &server, server.key_id).unwrap();
        (bare_loop, lanes)
    }

    #[test]
    fn every_record_of_a_window_comes_back_whatever_their_number() {
        let (_bare_loop, mut lanes) = lanes();
        let mut done = 0;
        for count in [1, 15, 16, 17, 500, 2_000, 3] {
            let mut records = vec![0; count * SHAPE.size];
            records::fill(&mut records, SHAPE.size, done);
            assert_eq!(lanes.window(&records, SHAPE).unwrap(), 0, "{count} records");
            done += count as u64;
        }
        assert_eq!((lanes.rates.encrypt.items, lanes.rates.decrypt.items), (done, done));
    }

    #[test]
    fn a_record_that_comes_back_otherwise_is_counted() {
        let (_bare_loop, mut lanes) = lanes();
        let mut records = vec![0; 1_000 * SHAPE.size];
        records::fill(&mut records, SHAPE.size, 0);
        let sealed = lanes.each(&records, SHAPE, |lane, part| lane.seal(part, SHAPE).map(|()| 0));
        assert_eq!(sealed.unwrap().0, 0);
        for altered in [0, 5_050, 99_999] {
            records[altered] ^= 1;
        }
        let (mismatches, _) = lanes.each(&records, SHAPE, |lane, part| lane.open(part, SHAPE)).unwrap();
        assert_eq!(mismatches, 3);
    }
}
