//! Sealing epochs (`spec/ciphertext.md`): a 12-byte prefix and the subkey derived from it, shared by all workers of a node
//! for one key version. A batch takes its share of an epoch's messages, draws one batch value, and seals item after item
//! under prefix ‖ (batch value + i mod 2^96), so that derivation and randomness are paid once an epoch and once a batch.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use keymill_core::blob::HEADER_BYTES;
use keymill_core::{Error, Sensitive, limit};
use parking_lot::{Mutex, RwLock};

use crate::random::{self, RandomFailed};
use crate::xaes::{PREFIX_BYTES, Subkey, SubkeyCipher, WrongLength, XAES_NONCE_BYTES, subkey_messages};

/// Messages of one epoch, at most, whatever the configuration says.
pub const EPOCH_MESSAGES: u32 = 1 << 20;
/// Messages that one call of [`EpochSlot::begin`] takes, at most.
pub const RUN_MESSAGES: u32 = limit::BATCH_ITEMS as u32;
/// Bytes of the second half of a nonce: batch value plus index.
const NONCE_LEN: usize = XAES_NONCE_BYTES - PREFIX_BYTES;
const MASK_96: u128 = (1 << 96) - 1;

/// When an epoch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochLimits {
    /// Messages, at most [`EPOCH_MESSAGES`].
    pub messages: u32,
    /// Age (`epoch_max_age`).
    pub max_age: Duration,
}

impl Default for EpochLimits {
    fn default() -> Self {
        Self { messages: EPOCH_MESSAGES, max_age: Duration::from_secs(10) }
    }
}

/// Where the current epoch of one key version stands; a few words until it is first used.
#[derive(Default)]
pub struct EpochSlot {
    current: RwLock<Current>,
    // Held while an epoch is made, so that its derivation is paid once; readers of `current` do not wait for it.
    starting: Mutex<()>,
}

#[derive(Default)]
struct Current {
    epoch: Option<Arc<SealingEpoch>>,
    clears: u64,
}

struct SealingEpoch {
    prefix: [u8; PREFIX_BYTES],
    cipher: SubkeyCipher,
    started: Instant,
    taken: AtomicU32,
}

impl SealingEpoch {
    /// Takes `count` messages, all or none.
    fn take(&self, count: u32, now: Instant, limits: &EpochLimits) -> bool {
        // `started` may be another thread's later clock: that epoch is young.
        now.saturating_duration_since(self.started) < limits.max_age
            && self
                .taken
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                    taken.checked_add(count).filter(|sum| *sum <= limits.messages.min(EPOCH_MESSAGES))
                })
                .is_ok()
    }
}

impl EpochSlot {
    /// Makes a slot without an epoch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes `count` messages out of the current epoch, or of a new one where it is over or holds fewer; `derive` computes
    /// the subkey from its two messages, and is called by one thread at a time.
    ///
    /// # Errors
    /// [`BeginError`]; nothing may be sealed then.
    pub fn begin<E>(
        &self,
        count: u32,
        now: Instant,
        limits: &EpochLimits,
        derive: &mut dyn FnMut([[u8; 16]; 2]) -> Result<Sensitive, E>,
    ) -> Result<SealRun, BeginError<E>> {
        self.begin_with(&random::draw, count, now, limits, derive)
    }

    /// Takes `count` messages out of the current epoch, where there is one that holds them; where there is none, the caller has a
    /// subkey derived for a [`Self::draft`], which takes its time in a token, and comes again.
    ///
    /// # Errors
    /// [`BeginError`]; nothing may be sealed then.
    pub fn try_begin(
        &self,
        count: u32,
        now: Instant,
        limits: &EpochLimits,
    ) -> Result<Option<SealRun>, BeginError<Error>> {
        if count == 0 || count > RUN_MESSAGES.min(limits.messages) {
            return Err(BeginError::Count(count));
        }
        let Some(epoch) = self.taken(count, now, limits) else { return Ok(None) };
        let mut batch_value = [0; 16];
        random::draw(&mut batch_value[4..]).map_err(BeginError::Random)?;
        Ok(Some(SealRun { epoch, next: u128::from_be_bytes(batch_value), remaining: count }))
    }

    /// Draws the prefix of an epoch to come.
    ///
    /// # Errors
    /// [`RandomFailed`] where a source of randomness fails.
    pub fn draft(&self) -> Result<EpochDraft, RandomFailed> {
        let mut prefix = [0; PREFIX_BYTES];
        random::draw(&mut prefix)?;
        Ok(EpochDraft { prefix, clears: self.current.read().clears })
    }

    /// Begins the epoch of a draft, unless the slot was cleared meanwhile: its key may no longer be used then.
    ///
    /// # Errors
    /// [`WrongLength`] where `subkey` is none.
    pub fn install(&self, draft: &EpochDraft, subkey: Sensitive, now: Instant) -> Result<(), WrongLength> {
        let cipher = SubkeyCipher::new(&Subkey::from_sensitive(subkey)?);
        let epoch = SealingEpoch { prefix: draft.prefix, cipher, started: now, taken: AtomicU32::new(0) };
        let mut current = self.current.write();
        if current.clears == draft.clears {
            current.epoch = Some(Arc::new(epoch));
        }
        Ok(())
    }

    /// Forgets the current epoch; its subkey is wiped when the last run under it is dropped, and an epoch that is being
    /// made meanwhile is not kept.
    pub fn clear(&self) {
        let mut current = self.current.write();
        current.clears += 1;
        current.epoch = None;
    }

    fn begin_with<E>(
        &self,
        draw: random::Source<'_>,
        count: u32,
        now: Instant,
        limits: &EpochLimits,
        derive: &mut dyn FnMut([[u8; 16]; 2]) -> Result<Sensitive, E>,
    ) -> Result<SealRun, BeginError<E>> {
        if count == 0 || count > RUN_MESSAGES.min(limits.messages) {
            return Err(BeginError::Count(count));
        }
        let epoch = match self.taken(count, now, limits) {
            Some(epoch) => epoch,
            None => self.start(draw, count, now, limits, derive)?,
        };
        // Drawn last: whoever repeats an earlier state of this process draws another value for the same epoch.
        let mut batch_value = [0; 16];
        draw(&mut batch_value[4..]).map_err(BeginError::Random)?;
        Ok(SealRun { epoch, next: u128::from_be_bytes(batch_value), remaining: count })
    }

    fn taken(&self, count: u32, now: Instant, limits: &EpochLimits) -> Option<Arc<SealingEpoch>> {
        self.current.read().epoch.as_ref().filter(|epoch| epoch.take(count, now, limits)).cloned()
    }

    fn start<E>(
        &self,
        draw: random::Source<'_>,
        count: u32,
        now: Instant,
        limits: &EpochLimits,
        derive: &mut dyn FnMut([[u8; 16]; 2]) -> Result<Sensitive, E>,
    ) -> Result<Arc<SealingEpoch>, BeginError<E>> {
        let _starting = self.starting.lock();
        if let Some(epoch) = self.taken(count, now, limits) {
            return Ok(epoch);
        }
        let clears = self.current.read().clears;
        let mut prefix = [0; PREFIX_BYTES];
        draw(&mut prefix).map_err(BeginError::Random)?;
        let subkey = derive(subkey_messages(&prefix)).map_err(BeginError::Derive)?;
        let cipher = SubkeyCipher::new(&Subkey::from_sensitive(subkey).map_err(BeginError::Subkey)?);
        let epoch = Arc::new(SealingEpoch { prefix, cipher, started: now, taken: AtomicU32::new(count) });
        let mut current = self.current.write();
        if current.clears == clears {
            current.epoch = Some(Arc::clone(&epoch));
        }
        Ok(epoch)
    }
}

/// An epoch whose subkey is being derived elsewhere.
#[derive(Clone, Copy)]
pub struct EpochDraft {
    prefix: [u8; PREFIX_BYTES],
    clears: u64,
}

impl EpochDraft {
    /// Returns the two messages that its subkey is the CMACs of.
    pub fn messages(&self) -> [[u8; 16]; 2] {
        subkey_messages(&self.prefix)
    }
}

/// The right to seal a fixed number of messages under one epoch and batch value.
pub struct SealRun {
    epoch: Arc<SealingEpoch>,
    next: u128,
    remaining: u32,
}

impl SealRun {
    /// Returns how many messages may still be sealed.
    pub fn remaining(&self) -> u32 {
        self.remaining
    }

    /// Appends a whole blob to `out`; `scratch` is overwritten with its associated data, and keeps its memory for the next.
    ///
    /// # Errors
    /// [`RunExhausted`] past the count that the run was begun with; `out` is as it was.
    pub fn seal(
        &mut self,
        header: &[u8; HEADER_BYTES],
        context: &[u8],
        scratch: &mut Vec<u8>,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), RunExhausted> {
        scratch.clear();
        scratch.extend_from_slice(header);
        scratch.extend_from_slice(context);
        self.seal_with_aad(scratch, plaintext, out)
    }

    /// Appends a whole blob to `out`: header ‖ prefix ‖ (batch value + i) ‖ ciphertext ‖ tag. `aad` is header ‖ canonical
    /// context, which the items of a batch mostly share.
    ///
    /// # Errors
    /// [`RunExhausted`] past the count that the run was begun with; `out` is as it was.
    ///
    /// # Panics
    /// Where `aad` is shorter than a header.
    #[inline]
    pub fn seal_with_aad(
        &mut self,
        aad: &[u8],
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), RunExhausted> {
        let nonce = self.next_nonce()?;
        out.extend_from_slice(header_of(aad));
        out.extend_from_slice(&self.epoch.prefix);
        out.extend_from_slice(&nonce);
        self.epoch.cipher.seal_into(&nonce, aad, plaintext, out);
        Ok(())
    }

    /// Writes a whole blob to `out`, as [`SealRun::seal_with_aad`] appends it; for buffers that are used again and need no
    /// zeroes first.
    ///
    /// # Errors
    /// [`RunExhausted`] past the count that the run was begun with; `out` is as it was.
    ///
    /// # Panics
    /// Where `aad` is shorter than a header, or `out` is not 62 bytes longer than the plaintext.
    #[inline]
    pub fn seal_to(&mut self, aad: &[u8], plaintext: &[u8], out: &mut [u8]) -> Result<(), RunExhausted> {
        let nonce = self.next_nonce()?;
        let (header, rest) = out.split_first_chunk_mut().expect("room for a blob");
        let (prefix, rest) = rest.split_first_chunk_mut().expect("room for a blob");
        let (value, sealed) = rest.split_first_chunk_mut().expect("room for a blob");
        *header = *header_of(aad);
        *prefix = self.epoch.prefix;
        *value = nonce;
        self.epoch.cipher.seal_to(&nonce, aad, plaintext, sealed);
        Ok(())
    }

    /// Takes the last 12 bytes of the next nonce: batch value + i.
    #[inline]
    fn next_nonce(&mut self) -> Result<[u8; NONCE_LEN], RunExhausted> {
        self.remaining = self.remaining.checked_sub(1).ok_or(RunExhausted)?;
        let nonce = *self.next.to_be_bytes().last_chunk().expect("16 bytes end in 12");
        self.next = (self.next + 1) & MASK_96;
        Ok(nonce)
    }
}

#[inline]
fn header_of(aad: &[u8]) -> &[u8; HEADER_BYTES] {
    aad.first_chunk().expect("associated data begins with a header")
}

/// Why a run could not begin.
#[derive(Debug)]
pub enum BeginError<E> {
    /// No message, or more than one run or epoch takes.
    Count(u32),
    /// A source of randomness failed.
    Random(RandomFailed),
    /// The subkey could not be derived.
    Derive(E),
    /// What was derived is no subkey.
    Subkey(WrongLength),
}

impl<E: fmt::Display> fmt::Display for BeginError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BeginError::Count(count) => {
                write!(f, "run of {count} messages is not within 1 to {RUN_MESSAGES}, or exceeds an epoch")
            }
            BeginError::Random(error) => error.fmt(f),
            BeginError::Derive(error) => write!(f, "no subkey for a new epoch: {error}"),
            BeginError::Subkey(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> std::error::Error for BeginError<E> {}

impl<E: Into<Error>> From<BeginError<E>> for Error {
    fn from(error: BeginError<E>) -> Self {
        match error {
            BeginError::Count(count) => Error::internal(format!(
                "a run of {count} messages was asked for, the limit is {RUN_MESSAGES}"
            )),
            BeginError::Random(error) => error.into(),
            BeginError::Derive(error) => error.into(),
            BeginError::Subkey(error) => error.into(),
        }
    }
}

/// More messages were to be sealed than the run was begun with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunExhausted;

impl fmt::Display for RunExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the run has sealed as many messages as it was begun with")
    }
}

impl std::error::Error for RunExhausted {}

impl From<RunExhausted> for Error {
    fn from(error: RunExhausted) -> Self {
        Error::internal(error)
    }
}

#[cfg(test)]
mod uniqueness;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derived::cmac_pair;
    use keymill_core::blob::{Algorithm, Blob, Header, TAG_BYTES};
    use keymill_core::context::EMPTY_CANONICAL;
    use keymill_core::id::CmkId;
    use std::convert::Infallible;
    use std::sync::Barrier;

    pub(super) fn header() -> [u8; HEADER_BYTES] {
        Header {
            algorithm: Algorithm::Xaes256Gcm,
            text: false,
            cmk: CmkId::from_bytes([0xc4; 16]),
            version: 1,
        }
        .to_bytes()
    }

    pub(super) fn derive(messages: [[u8; 16]; 2]) -> Result<Sensitive, Infallible> {
        Ok(cmac_pair(&Sensitive::copied(&[0x42; 32]), messages))
    }

    /// Opens a blob from the key alone, as a stranger's implementation would.
    fn open(blob: &[u8], context: &[u8]) -> Option<Vec<u8>> {
        let blob = Blob::parse(blob)?;
        let prefix = blob.nonce.first_chunk()?;
        let subkey = Subkey::from_sensitive(derive(subkey_messages(prefix)).unwrap()).unwrap();
        let aad = [blob.header_bytes, context].concat();
        let mut out = Vec::new();
        let nonce = blob.nonce.last_chunk()?;
        SubkeyCipher::new(&subkey).open_into(nonce, &aad, blob.ciphertext, blob.tag, &mut out).ok()?;
        Some(out)
    }

    fn begin(slot: &EpochSlot, count: u32, now: Instant, limits: &EpochLimits) -> SealRun {
        slot.begin(count, now, limits, &mut derive).unwrap()
    }

    #[test]
    fn every_blob_of_a_run_stands_alone_and_opens_from_the_key() {
        let mut run = begin(&EpochSlot::new(), 6, Instant::now(), &EpochLimits::default());
        let (mut out, mut scratch) = (b"frame".to_vec(), Vec::new());
        for plaintext in [&b""[..], b"x", &[7; 65_536]] {
            let start = out.len();
            run.seal(&header(), &EMPTY_CANONICAL, &mut scratch, plaintext, &mut out).unwrap();
            assert_eq!(out.len() - start, Algorithm::Xaes256Gcm.overhead() + plaintext.len());
            assert_eq!(open(&out[start..], &EMPTY_CANONICAL).unwrap(), plaintext);
            let mut place = vec![0xee; 62 + plaintext.len()];
            run.seal_to(&[&header()[..], &EMPTY_CANONICAL].concat(), plaintext, &mut place).unwrap();
            assert_eq!(open(&place, &EMPTY_CANONICAL).unwrap(), plaintext);
            assert_eq!(open(&out[start..], b"\0\0\0\x01another context"), None);
        }
        assert_eq!(out[..5], *b"frame");
    }

    #[test]
    fn a_run_past_its_count_is_refused_and_writes_nothing() {
        let mut run = begin(&EpochSlot::new(), 2, Instant::now(), &EpochLimits::default());
        let mut out = Vec::new();
        for remaining in [1, 0] {
            run.seal_with_aad(&header(), b"item", &mut out).unwrap();
            assert_eq!(run.remaining(), remaining);
        }
        let before = out.clone();
        assert_eq!(run.seal_with_aad(&header(), b"item", &mut out), Err(RunExhausted));
        assert_eq!(out, before);
    }

    #[test]
    fn items_count_up_from_the_batch_value_and_wrap_at_96_bits() {
        let slot = EpochSlot::new();
        let draw = |out: &mut [u8]| {
            out.fill(0xff);
            Ok(())
        };
        let mut run =
            slot.begin_with(&draw, 3, Instant::now(), &EpochLimits::default(), &mut derive).unwrap();
        let mut out = Vec::new();
        for (i, value) in [MASK_96, 0, 1].into_iter().enumerate() {
            run.seal_with_aad(&header(), b"", &mut out).unwrap();
            let blob = &out[i * Algorithm::Xaes256Gcm.overhead()..];
            assert_eq!(blob[HEADER_BYTES..][..PREFIX_BYTES], [0xff; 12]);
            assert_eq!(blob[HEADER_BYTES + PREFIX_BYTES..][..12], value.to_be_bytes()[4..]);
        }
    }

    #[test]
    fn an_epoch_ends_by_age_by_count_and_when_a_batch_exceeds_its_rest() {
        let limits = EpochLimits { messages: 100, max_age: Duration::from_secs(10) };
        let (slot, now) = (EpochSlot::new(), Instant::now());
        let at =
            |count, seconds| begin(&slot, count, now + Duration::from_secs(seconds), &limits).epoch.prefix;
        let first = at(60, 0);
        assert_eq!(at(39, 9), first);
        assert_ne!(at(2, 9), first, "one message is left, two are asked for");
        let second = at(98, 9);
        let third = at(1, 9);
        assert_ne!(third, second, "no message is left");
        assert_eq!(at(1, 18), third);
        assert_eq!(at(1, 0), third, "an earlier clock of another thread does not end it");
        assert_ne!(at(1, 19), third, "ten seconds are over");
    }

    #[test]
    fn counts_of_none_or_more_than_a_run_or_epoch_takes_are_refused() {
        let (slot, now) = (EpochSlot::new(), Instant::now());
        for (count, messages) in
            [(0, 100), (101, 100), (RUN_MESSAGES + 1, EPOCH_MESSAGES), (u32::MAX, u32::MAX)]
        {
            let limits = EpochLimits { messages, ..EpochLimits::default() };
            assert!(matches!(
                slot.begin(count, now, &limits, &mut derive),
                Err(BeginError::Count(refused)) if refused == count
            ));
        }
        begin(&slot, RUN_MESSAGES, now, &EpochLimits::default());
        // Configured past what an epoch may hold, the bound of the format stands: 16 runs of 65,536.
        let limits = EpochLimits { messages: u32::MAX, ..EpochLimits::default() };
        let first = slot.current.read().epoch.as_ref().unwrap().prefix;
        for _ in 0..15 {
            assert_eq!(begin(&slot, RUN_MESSAGES, now, &limits).epoch.prefix, first);
        }
        assert_ne!(begin(&slot, 1, now, &limits).epoch.prefix, first);
    }

    #[test]
    fn an_epoch_derived_elsewhere_is_begun_by_its_draft_unless_the_slot_was_cleared() {
        let (slot, now, limits) = (EpochSlot::new(), Instant::now(), EpochLimits::default());
        assert!(slot.try_begin(1, now, &limits).unwrap().is_none());
        let stale = slot.draft().unwrap();
        slot.clear();
        slot.install(&stale, derive(stale.messages()).unwrap(), now).unwrap();
        assert!(slot.try_begin(1, now, &limits).unwrap().is_none(), "its key was disabled meanwhile");
        let draft = slot.draft().unwrap();
        assert_ne!(draft.prefix, stale.prefix);
        assert!(slot.install(&draft, Sensitive::zeroed(31), now).is_err());
        slot.install(&draft, derive(draft.messages()).unwrap(), now).unwrap();
        let mut run = slot.try_begin(1, now, &limits).unwrap().unwrap();
        let mut blob = Vec::new();
        run.seal_with_aad(&[&header()[..], &EMPTY_CANONICAL].concat(), b"text", &mut blob).unwrap();
        assert_eq!(open(&blob, &EMPTY_CANONICAL).unwrap(), b"text");
        assert!(slot.try_begin(0, now, &limits).is_err());
    }

    #[test]
    fn workers_that_find_an_epoch_over_derive_once_between_them() {
        let (slot, now) = (EpochSlot::new(), Instant::now());
        let (derivations, barrier) = (AtomicU32::new(0), Barrier::new(8));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    slot.begin(100, now, &EpochLimits::default(), &mut |messages| {
                        derivations.fetch_add(1, Ordering::Relaxed);
                        derive(messages)
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(derivations.into_inner(), 1);
        assert_eq!(slot.current.read().epoch.as_ref().unwrap().taken.load(Ordering::Relaxed), 800);
    }

    #[test]
    fn a_cleared_slot_keeps_no_epoch_not_even_one_in_the_making() {
        let (slot, now) = (EpochSlot::new(), Instant::now());
        let run = begin(&slot, 1, now, &EpochLimits::default());
        slot.clear();
        assert!(slot.current.read().epoch.is_none());
        assert_eq!(Arc::strong_count(&run.epoch), 1);
        slot.begin(1, now, &EpochLimits::default(), &mut |messages| {
            slot.clear();
            derive(messages)
        })
        .unwrap();
        assert!(slot.current.read().epoch.is_none());
    }

    #[test]
    fn without_randomness_or_subkey_nothing_begins() {
        let (slot, now, limits) = (EpochSlot::new(), Instant::now(), EpochLimits::default());
        let dry = |_: &mut [u8]| Err(RandomFailed::OperatingSystem);
        assert!(matches!(slot.begin_with(&dry, 1, now, &limits, &mut derive), Err(BeginError::Random(_))));
        assert!(matches!(slot.begin(1, now, &limits, &mut |_| Err("down")), Err(BeginError::Derive("down"))));
        let short = slot.begin(1, now, &limits, &mut |_| Ok::<_, Infallible>(Sensitive::zeroed(31)));
        assert!(matches!(short, Err(BeginError::Subkey(WrongLength(31)))));
        assert!(slot.current.read().epoch.is_none());
        // With an epoch at hand, the batch value still has to be drawn.
        begin(&slot, 1, now, &limits);
        assert!(matches!(slot.begin_with(&dry, 1, now, &limits, &mut derive), Err(BeginError::Random(_))));
    }

    /// A1 and A2 of `security-cases.md`: no part of a blob can change, shrink or grow.
    #[test]
    fn each_flipped_bit_and_every_other_length_fails_opaquely() {
        let mut run = begin(&EpochSlot::new(), 1, Instant::now(), &EpochLimits::default());
        let aad = [&header()[..], &EMPTY_CANONICAL].concat();
        let mut blob = Vec::new();
        run.seal_with_aad(&aad, b"attack at dawn", &mut blob).unwrap();
        assert_eq!(open(&blob, &EMPTY_CANONICAL).unwrap(), b"attack at dawn");
        for bit in 0..8 * blob.len() {
            blob[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&blob, &EMPTY_CANONICAL), None, "bit {bit}");
            blob[bit / 8] ^= 1 << (bit % 8);
        }
        for len in 0..blob.len() {
            assert_eq!(open(&blob[..len], &EMPTY_CANONICAL), None, "{len} bytes");
        }
        let doubled = [&blob[..], &blob].concat();
        assert_eq!(open(&doubled, &EMPTY_CANONICAL), None);
        assert_eq!(open(&doubled[..blob.len() + TAG_BYTES], &EMPTY_CANONICAL), None);
        assert_eq!(open(&[&blob[..], &[0]].concat(), &EMPTY_CANONICAL), None);
    }
}
