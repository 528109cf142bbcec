//! Cutting: what of a job goes to tokens, as chunks. Chunks are cut for about a millisecond of a session's time, so that a large batch is
//! done by many sessions at once and a lost session loses little.

use std::collections::VecDeque;
use std::sync::Arc;

use keymill_core::Sensitive;
use keymill_core::blob::{Algorithm, Blob};
use keymill_core::error::Error;
use keymill_core::key::ProtectionLevel;
use keymill_core::seam::provider::AeadBatch;
use keymill_crypto::random;
use keymill_crypto::xaes::PREFIX_BYTES;

use super::away::{Away, Place, Segment};
use super::open::{Opener, prefix_of};
use super::seal::too_long;
use super::trips::Trips;
use super::{Computation, Destination, Fault, Job, NamedKeys, OpenTask, Sealing, Task, compute};
use crate::keyring::{CmkEntry, VersionEntry};
use crate::pool::MAX_CHUNK;
use crate::pool::chunk::{Tag, Work, push};
use crate::pool::token::out_of_sessions;
use crate::shared::Shared;

/// Bytes of text in one chunk, at most, but for an item that is longer by itself.
const MAX_CHUNK_BYTES: usize = 256 * 1024;
/// Bytes of messages in a chunk that is computed, where there is more than one: they are digested while it is cut.
const MAX_COMPUTED_BYTES: usize = 64 * 1024;
/// Items of one segment of a job that opens, at least: what is opened here needs no token.
const MIN_OPENED: usize = 32;
/// Items that are re-encrypted at a time.
pub(super) const RELAYED: usize = 256;
/// How often chunks of one segment are sent out again that a call did not return.
const HANGS: u32 = 8;

/// What came of cutting.
pub(super) enum Cut {
    Done,
    /// Invocations of the key have to be reserved first.
    Reserve,
}

/// What of a segment goes out under one key version.
struct Parcel {
    slot: usize,
    batches: Vec<(usize, AeadBatch)>,
    prefixes: Vec<[u8; PREFIX_BYTES]>,
}

/// Cuts segments of ciphertexts until enough is under way.
pub(super) fn open(job: &mut Job, away: &mut Away, trips: &mut Trips, opener: &mut Opener<'_>) {
    let total = job.len();
    while away.cut_to < total && away.has_room(opener.shared.window()) {
        let items = opener.shared.pool.chunk_items().clamp(MIN_OPENED, MAX_CHUNK);
        let end = total.min(away.cut_to + items);
        open_segment(job, away, trips, opener, end);
    }
}

/// Cuts one segment of ciphertexts, up to `end`.
pub(super) fn open_segment(
    job: &mut Job,
    away: &mut Away,
    trips: &mut Trips,
    opener: &mut Opener<'_>,
    end: usize,
) {
    let shared = opener.shared;
    let mut segment = Segment::new(away.cut_to..end);
    let mut parcels: Vec<Parcel> = Vec::new();
    let Some(OpenTask { items, keys: named, .. }) = open_task(&mut job.task) else { return };
    for i in segment.range.clone() {
        let place = sort(items.get(i), named, i, opener, (&away.segments, &mut parcels, &mut segment));
        segment.places.push(place);
    }
    let keys: Vec<_> = parcels
        .iter()
        .map(|parcel| match &named.slots[parcel.slot].state {
            Ok((entry, version)) => (entry.clone(), version.clone()),
            Err(_) => unreachable!("nothing goes out under a key that is refused"),
        })
        .collect();
    let trip = job.trip.expect("a job that is cut has a number");
    let start = segment.range.start;
    let each = (shared.pool.chunk_items() / 2).max(1);
    for (parcel, (entry, version)) in parcels.into_iter().zip(&keys) {
        for (number, batch) in parcel.batches {
            let work = Work::Decrypt(batch);
            send(job, away, trips, &mut segment, (entry, version), number, work);
        }
        if !parcel.prefixes.is_empty() {
            let asked = trips.derive(job, (trip, start), (entry, version), parcel.prefixes, each);
            segment.waiting += asked.waiting;
            away.out += asked.chunks;
            let refused = asked.refused.into_iter();
            segment.subkeys.extend(refused.map(|(prefix, fault)| ((version.id, prefix), Err(fault))));
        }
    }
    away.cut_to = end;
    away.segments.push_back(segment);
}

/// Puts an item into the parcel that it goes out with, or says that it stays.
fn sort(
    item: &[u8],
    named: &mut NamedKeys,
    i: usize,
    opener: &mut Opener<'_>,
    (earlier, parcels, segment): (&VecDeque<Segment>, &mut Vec<Parcel>, &mut Segment),
) -> Place {
    let shared = opener.shared;
    // What is refused here is refused again, in its turn, and told then.
    let Some(blob) = Blob::parse(item) else { return Place::Here };
    let Ok(slot) = opener.find(named, &blob, i) else { return Place::Here };
    let Ok((entry, version)) = &named.slots[slot].state else { return Place::Here };
    let is_here =
        entry.cmk.protection == ProtectionLevel::Software && blob.header.algorithm == Algorithm::Xaes256Gcm;
    if is_here || Some(blob.header.algorithm) != entry.cmk.algorithm() {
        return Place::Here;
    }
    let parcel = match parcels.iter().position(|parcel| parcel.slot == slot) {
        Some(at) => &mut parcels[at],
        None => {
            parcels.push(Parcel { slot, batches: Vec::new(), prefixes: Vec::new() });
            parcels.last_mut().expect("it was just pushed")
        }
    };
    if blob.header.algorithm == Algorithm::Xaes256Gcm {
        let id = (version.id, *prefix_of(&blob));
        if segment.subkeys.contains_key(&id) || parcel.prefixes.contains(&id.1) {
            return Place::Here;
        }
        match shared.subkeys.lookup(&id.0, &id.1, entry.generation) {
            // Held for its turn: it could leave the cache until then.
            Some(cipher) => drop(segment.subkeys.insert(id, Ok(cipher))),
            // It is kept when an item has been opened under it: one that an earlier segment has back is not derived twice.
            None => match earlier.iter().find_map(|earlier| earlier.subkeys.get(&id)?.as_ref().ok()) {
                Some(cipher) => drop(segment.subkeys.insert(id, Ok(Arc::clone(cipher)))),
                None => parcel.prefixes.push(id.1),
            },
        }
        return Place::Here;
    }
    let max = shared.max_item_bytes(&entry.cmk);
    if blob.ciphertext.len() > max {
        return Place::Failed(too_long(blob.ciphertext.len(), max));
    }
    let items = shared.chunk_items(&entry.cmk);
    if parcel
        .batches
        .last()
        .is_none_or(|(_, batch)| batch.items.len() >= items || batch.buffer.len() >= MAX_CHUNK_BYTES)
    {
        parcel.batches.push((segment.chunks.len(), AeadBatch::default()));
        segment.chunks.push(None);
    }
    let (chunk, batch) = parcel.batches.last_mut().expect("there is one now");
    let item = batch.items.len();
    take_in(batch, &blob, named.contexts.canonical(i));
    Place::In { chunk: *chunk, item }
}

fn take_in(batch: &mut AeadBatch, blob: &Blob<'_>, context: &[u8]) {
    let nonce = blob.nonce.try_into().expect("a nonce of 12 bytes");
    push(batch, nonce, &[blob.header_bytes, context], blob.ciphertext, Some(blob.tag));
}

/// Cuts segments of plaintexts or data keys until enough is under way.
pub(super) fn seal(job: &mut Job, away: &mut Away, trips: &mut Trips, shared: &Shared) -> Result<Cut, Fault> {
    let total = job.len();
    while away.cut_to < total && away.has_room(shared.window()) {
        if let Cut::Reserve = seal_segment(job, away, trips, shared, total)? {
            return Ok(Cut::Reserve);
        }
    }
    Ok(Cut::Done)
}

/// Cuts one segment, of one chunk, to be sealed; it ends before `end` at the latest.
pub(super) fn seal_segment(
    job: &mut Job,
    away: &mut Away,
    trips: &mut Trips,
    shared: &Shared,
    end: usize,
) -> Result<Cut, Fault> {
    let start = away.cut_to;
    let Task::Seal { to, what, .. } = &job.task else { return Ok(Cut::Done) };
    let to = to.clone();
    let most = end.min(start + shared.chunk_items(&to.entry.cmk));
    let mut bytes = 0;
    let stop = (start..most).find(|i| {
        bytes += text_len(what, away, *i);
        bytes > MAX_CHUNK_BYTES
    });
    let range = start..stop.map_or(most, |stop| stop.max(start + 1));
    let count = range.len() as u64;
    if !to.version.in_use().invocations.take(count) {
        return Ok(Cut::Reserve);
    }
    let mut segment = Segment::new(range.clone());
    if let Sealing::DataKeys { bytes, .. } = what {
        let mut fresh = Sensitive::zeroed(*bytes * range.len());
        random::draw(fresh.expose_mut()).map_err(Error::from)?;
        segment.secrets = Some(fresh);
    }
    let mut batch = AeadBatch::default();
    batch.buffer.reserve_exact(bytes + count as usize * crate::pool::chunk::TAG_BYTES);
    fill(&mut batch, job, away, &mut segment, &to, shared, None)?;
    if !batch.items.is_empty() {
        segment.chunks.push(None);
        let work = Work::Encrypt(batch);
        send(job, away, trips, &mut segment, (&to.entry, &to.version), 0, work);
    }
    away.cut_to = range.end;
    away.segments.push_back(segment);
    Ok(Cut::Done)
}

/// Cuts segments of what is to be computed, of one chunk each, until enough is under way, or `count` items are cut: messages are digested
/// here, and a turn is short. Tells whether there is more to be cut at once.
pub(super) fn compute(
    job: &mut Job,
    away: &mut Away,
    trips: &mut Trips,
    shared: &Shared,
    count: usize,
) -> bool {
    let total = job.len();
    let stop = away.cut_to.saturating_add(count);
    while away.cut_to < total && away.has_room(shared.window()) {
        if away.cut_to >= stop {
            return true;
        }
        let Task::Compute(task) = &job.task else { return false };
        let keys = (task.entry.clone(), task.version.clone());
        let most = total.min(away.cut_to + task.chunk_items());
        let mut bytes = 0;
        let long = (away.cut_to..most).find(|i| {
            bytes += task.items.item_len(*i);
            bytes > MAX_COMPUTED_BYTES
        });
        let end = long.map_or(most, |long| long.max(away.cut_to + 1));
        let mut segment = Segment::new(away.cut_to..end);
        let (work, places) = compute::work(task, shared, &segment, None);
        segment.places = places;
        if segment.places.iter().any(|place| matches!(place, Place::In { .. })) {
            segment.chunks.push(None);
            send(job, away, trips, &mut segment, (&keys.0, &keys.1), 0, work);
        }
        away.cut_to = end;
        away.segments.push_back(segment);
    }
    false
}

/// Fills a batch with the texts of a segment, each under a nonce of its own; `again`: the places are known, of this chunk.
fn fill(
    batch: &mut AeadBatch,
    job: &Job,
    away: &Away,
    segment: &mut Segment,
    to: &Destination,
    shared: &Shared,
    again: Option<usize>,
) -> Result<(), Fault> {
    let Task::Seal { contexts, what, .. } = &job.task else { return Ok(()) };
    let mut nonces = vec![0; 12 * segment.range.len()];
    random::draw(&mut nonces).map_err(Error::from)?;
    let max = shared.max_item_bytes(&to.entry.cmk);
    // Cut anew, the chunk holds the same items in the same places, whatever the tokens take by now.
    let max = if again.is_some() { usize::MAX } else { max };
    for (i, nonce) in segment.range.clone().zip(nonces.chunks_exact(12)) {
        if again.is_some() && !matches!(segment.place(i), Place::In { .. }) {
            continue;
        }
        let text = match what {
            Sealing::Plaintexts { items, max_item_bytes, .. } => match items.item_len(i) {
                len if len > max.min(*max_item_bytes) => Err(too_long(len, max.min(*max_item_bytes))),
                _ => Ok(items.get(i)),
            },
            Sealing::DataKeys { bytes, .. } => {
                let at = (i - segment.range.start) * *bytes;
                let secrets = segment.secrets.as_ref().expect("drawn for data keys");
                Ok(&secrets.expose()[at..at + *bytes])
            }
            Sealing::Pair(_) => Err(Error::internal("a data key pair is sealed before it is made").into()),
            Sealing::Blobs(_) => {
                let relay = away.relay.as_ref().expect("opened before it is sealed");
                match &relay.texts[i - relay.range.start] {
                    Ok(place) if place.len() > max => Err(too_long(place.len(), max)),
                    Ok(place) => Ok(&relay.buffer[place.clone()]),
                    Err(fault) => Err(fault.clone()),
                }
            }
        };
        let place = match text {
            Ok(text) => {
                let nonce = nonce.try_into().expect("chunks of 12 bytes");
                let item = batch.items.len();
                push(batch, nonce, &[&to.header(what.is_text(i)), contexts.canonical(i)], text, None);
                Place::In { chunk: 0, item }
            }
            Err(fault) => Place::Failed(fault),
        };
        if again.is_none() {
            segment.places.push(place);
        }
    }
    Ok(())
}

fn text_len(what: &Sealing, away: &Away, i: usize) -> usize {
    match what {
        Sealing::Plaintexts { items, .. } => items.item_len(i),
        Sealing::DataKeys { bytes, .. } => *bytes,
        Sealing::Pair(_) => 0,
        Sealing::Blobs(_) => away
            .relay
            .as_ref()
            .map_or(0, |relay| relay.texts[i - relay.range.start].as_ref().map_or(0, std::ops::Range::len)),
    }
}

/// Cuts anew what is in the hands of calls that do not return.
pub(super) fn again(job: &mut Job, away: &mut Away, trips: &mut Trips, shared: &Shared) -> Result<(), Fault> {
    for at in 0..away.segments.len() {
        if away.segments[at].lost.is_empty() {
            continue;
        }
        let mut segment = std::mem::replace(&mut away.segments[at], Segment::new(0..0));
        let recut = recut(job, away, trips, &mut segment, shared);
        away.segments[at] = segment;
        recut?;
    }
    Ok(())
}

fn recut(
    job: &mut Job,
    away: &mut Away,
    trips: &mut Trips,
    segment: &mut Segment,
    shared: &Shared,
) -> Result<(), Fault> {
    for number in std::mem::take(&mut segment.lost) {
        segment.hangs += 1;
        let mut batch = AeadBatch::default();
        let (keys, work) = match open_or_seal(job, away) {
            Side::Opens(task) => {
                let mut of = None;
                for (i, place) in segment.range.clone().zip(&segment.places) {
                    if matches!(place, Place::In { chunk, .. } if *chunk == number)
                        && let Some(blob) = Blob::parse(task.items.get(i))
                    {
                        take_in(&mut batch, &blob, task.keys.contexts.canonical(i));
                        let same = |slot: &&super::KeySlot| {
                            slot.cmk == blob.header.cmk && slot.version_number == blob.header.version
                        };
                        of = task.keys.slots.iter().find(same).and_then(|slot| slot.state.clone().ok());
                    }
                }
                let Some(of) = of else { continue };
                (of, Work::Decrypt(batch))
            }
            Side::Computes(task) => {
                let (work, _) = compute::work(task, shared, segment, Some(number));
                ((task.entry.clone(), task.version.clone()), work)
            }
            Side::Seals(to) => {
                // Under other nonces: both may come to be used. Those of before are counted as used.
                if !to.version.in_use().invocations.take(segment.range.len() as u64) {
                    return Err(out_of_sessions());
                }
                if let Task::Seal { what, .. } = &job.task {
                    // At once: a buffer that grows leaves copies of plaintexts behind.
                    let bytes: usize = segment.range.clone().map(|i| text_len(what, away, i)).sum();
                    batch.buffer.reserve_exact(bytes + segment.range.len() * crate::pool::chunk::TAG_BYTES);
                }
                fill(&mut batch, job, away, segment, &to, shared, Some(number))?;
                ((to.entry.clone(), to.version.clone()), Work::Encrypt(batch))
            }
        };
        segment.waiting -= 1;
        away.out -= 1;
        send(job, away, trips, segment, (&keys.0, &keys.1), number, work);
    }
    Ok(())
}

/// Sends a chunk out, or puts it back at once with the reason why the lane did not take it.
fn send(
    job: &Job,
    away: &mut Away,
    trips: &mut Trips,
    segment: &mut Segment,
    (entry, version): (&Arc<CmkEntry>, &Arc<VersionEntry>),
    number: usize,
    work: Work,
) {
    let trip = job.trip.expect("a job that is cut has a number");
    let tag = Tag::Items { trip, segment: segment.range.start, chunk: number };
    let chunk = trips.chunk(job, tag, entry, version, work);
    let sent = match segment.hangs > HANGS {
        false => trips.send(chunk),
        true => trips.fall_back(chunk, out_of_sessions()),
    };
    match sent {
        Ok(()) => {
            segment.waiting += 1;
            away.out += 1;
        }
        Err(chunk) => segment.chunks[number] = Some(chunk),
    }
}

/// Whether what a job has under way is being opened or sealed.
enum Side<'j> {
    Opens(&'j mut OpenTask),
    Computes(&'j Computation),
    Seals(Destination),
}

fn open_or_seal<'j>(job: &'j mut Job, away: &Away) -> Side<'j> {
    match &mut job.task {
        Task::Open(task) => Side::Opens(task),
        Task::Seal { what: Sealing::Blobs(task), .. } if away.relay.is_none() => Side::Opens(task),
        Task::Seal { to, .. } => Side::Seals(to.clone()),
        Task::Compute(task) => Side::Computes(task),
        Task::Answered(_) | Task::Refused(_) => unreachable!("only data operations go to tokens"),
    }
}

fn open_task(task: &mut Task) -> Option<&mut OpenTask> {
    match task {
        Task::Open(task) => Some(task),
        Task::Seal { what: Sealing::Blobs(task), .. } => Some(task),
        _ => None,
    }
}
