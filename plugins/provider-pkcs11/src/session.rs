//! The use of keys on one session of the token. Items that fail with a code that can mean either data or device are put to the proof
//! by an operation whose answer is known.

use std::sync::Arc;

use cryptoki_sys::CKM_AES_CMAC;
use keymill_core::Sensitive;
use keymill_core::blob::TAG_BYTES;
use keymill_core::seam::provider::{
    AeadBatch, AeadItem, CryptoSession, DecryptJob, DeriveJob, JobError, KeyHandle, ProviderError,
    SessionLost, SignJob,
};
use zeroize::Zeroizing;

use crate::cache::Loaded;
use crate::canary::Song;
use crate::kind::Kind;
use crate::module::{Class, Failure, Mechanism, Session};
use crate::profile::{CancelMethod, GcmMethod};
use crate::token::{Place, Token};
use crate::verdict::{Blame, Verdict, judge};

mod jobs;

/// Doubtful items after which the proof is made in mid-batch: a dead device is not asked 65,536 times.
const DOUBTS: usize = 16;
/// How often a doubtful item is tried again beside a canary that sings: a device that fails now and then must not make a good
/// ciphertext a forged one.
const RETRIES: usize = 2;
/// Random bytes asked for in one call.
const RANDOM_BYTES: usize = 4096;

pub(crate) struct Pkcs11Session {
    token: Arc<Token>,
    session: Session,
    slot: cryptoki_sys::CK_SLOT_ID,
    song: Song,
    /// Results go here first, so that an item that fails stays as it was, whatever the module left half done: it may have to be
    /// done again elsewhere.
    scratch: Zeroizing<Vec<u8>>,
    _place: Place,
}

/// What is done to a text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Encrypt,
    Decrypt,
}

impl Direction {
    fn blame(self) -> Blame {
        match self {
            Direction::Encrypt => Blame::JOB,
            Direction::Decrypt => Blame::CIPHERTEXT,
        }
    }
}

/// A batch under way.
struct Work<'a> {
    direction: Direction,
    key: &'a Loaded,
    buffer: &'a mut [u8],
    aad: &'a [u8],
    items: &'a mut [AeadItem],
    /// Whether the session encrypts messages under the key just now.
    messages: bool,
}

impl Pkcs11Session {
    pub(crate) fn open(token: &Arc<Token>) -> Result<Self, ProviderError> {
        let place = Place::take(token).ok_or_else(|| {
            ProviderError::unavailable(format!("all {} sessions are taken", token.max_sessions()))
        })?;
        let (session, slot, song) = token.with_link(|link| {
            Ok((token.module.open_session(link.slot, false)?, link.slot, link.canary.song()))
        })?;
        Ok(Self {
            token: Arc::clone(token),
            session,
            slot,
            song,
            scratch: Zeroizing::default(),
            _place: place,
        })
    }

    fn lost(&self, failure: &Failure) -> SessionLost {
        self.token.suspect();
        failure.cause(failure.to_string()).into()
    }

    /// Does every item that has no outcome yet.
    fn each(
        &mut self,
        direction: Direction,
        key: &KeyHandle,
        batch: &mut AeadBatch,
    ) -> Result<(), SessionLost> {
        let AeadBatch { buffer, aad, items } = batch;
        let token = Arc::clone(&self.token);
        // Before the handle is looked at: while this is held, no new object can come to have an old number.
        let _using = token.using.read();
        let key = match loaded(&token, key, Kind::seals) {
            Ok(key) => key,
            Err(error) => {
                refuse(items, error);
                return Ok(());
            }
        };
        let undone = items.iter().filter(|item| item.outcome.is_none()).count();
        let mut work = Work { direction, key, buffer, aad, items, messages: false };
        if direction == Direction::Encrypt && token.profile.gcm == GcmMethod::Message && undone > 1 {
            // Where it does not begin, the classic call says why.
            work.messages = self.retried(|session| session.message_encrypt_init(key.object)).is_ok();
        }
        let done = self.items(&mut work);
        self.scratch.fill(0);
        if work.messages && done.is_ok() && self.session.message_encrypt_final().is_err() {
            // The batch is done; what is left behind must not meet the next.
            self.clear().map_err(|failure| self.lost(&failure))?;
        }
        done
    }

    fn items(&mut self, work: &mut Work<'_>) -> Result<(), SessionLost> {
        let mut doubtful = Vec::new();
        for at in 0..work.items.len() {
            if work.items[at].outcome.is_some() {
                continue;
            }
            match self.item(work, at) {
                Verdict::Outcome(outcome) => work.items[at].outcome = Some(outcome),
                Verdict::Doubtful => doubtful.push(at),
                Verdict::KeyGone => {
                    work.key.set_gone();
                    refuse(work.items, JobError::StaleHandle);
                    return Ok(());
                }
                Verdict::Lost(failure) => return Err(self.lost(&failure)),
            }
            if doubtful.len() >= DOUBTS {
                self.settle(work, &mut doubtful)?;
            }
        }
        self.settle(work, &mut doubtful)
    }

    /// Settles what the doubtful items are. Where the canary does not sing they are not done, and the session is lost; where it
    /// does, each is tried again, and is at fault if it goes on failing.
    fn settle(&mut self, work: &mut Work<'_>, doubtful: &mut Vec<usize>) -> Result<(), SessionLost> {
        if doubtful.is_empty() {
            return Ok(());
        }
        if work.messages {
            work.messages = false;
            self.clear().map_err(|failure| self.lost(&failure))?;
        }
        self.hear()?;
        for at in doubtful.drain(..) {
            let mut verdict = Verdict::Doubtful;
            for _ in 0..RETRIES {
                verdict = self.item(work, at);
                if !matches!(verdict, Verdict::Doubtful) {
                    break;
                }
            }
            work.items[at].outcome = Some(match verdict {
                Verdict::Outcome(outcome) => outcome,
                Verdict::Doubtful => Err(work.direction.blame().error),
                Verdict::KeyGone => {
                    work.key.set_gone();
                    Err(JobError::StaleHandle)
                }
                Verdict::Lost(failure) => return Err(self.lost(&failure)),
            });
        }
        Ok(())
    }

    /// Listens to the canary: where it does not sing, the session is lost.
    fn hear(&mut self) -> Result<(), SessionLost> {
        let mut heard = self.song.hear(&self.session);
        if heard.as_ref().is_err_and(|failure| failure.class() == Class::Active) {
            self.clear().map_err(|failure| self.lost(&failure))?;
            heard = self.song.hear(&self.session);
        }
        heard.map_err(|failure| self.lost(&failure))
    }

    fn item(&mut self, work: &mut Work<'_>, at: usize) -> Verdict {
        let item = &work.items[at];
        let limit = self.token.profile.max_item_bytes;
        let rejected = Verdict::Outcome(Err(JobError::Rejected));
        let tagged = item.text.start..item.text.end.saturating_add(TAG_BYTES);
        // A range that ends before it starts slips through the second where only the tag lies behind it.
        let (Some(len), Some(tagged), Some(aad)) = (
            item.text.end.checked_sub(item.text.start),
            work.buffer.get_mut(tagged),
            work.aad.get(item.aad.clone()),
        ) else {
            return rejected;
        };
        if len > limit || aad.len() > limit {
            return rejected;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        if scratch.len() < tagged.len() {
            scratch = Zeroizing::new(vec![0; tagged.len().next_power_of_two()]);
        }
        let out = &mut scratch[..tagged.len()];
        let done = match work.direction {
            Direction::Encrypt if work.messages => self.seal_message(item, aad, &tagged[..len], out),
            Direction::Encrypt => self.seal(work.key, item, aad, &tagged[..len], out),
            Direction::Decrypt => self.open_sealed(work.key, item, aad, tagged, out),
        };
        let verdict = match done {
            Ok(written) => {
                tagged[..written].copy_from_slice(&out[..written]);
                Verdict::Outcome(Ok(()))
            }
            Err(failure) => judge(work.direction.blame(), failure),
        };
        self.scratch = scratch;
        verdict
    }

    fn seal(
        &mut self,
        key: &Loaded,
        item: &AeadItem,
        aad: &[u8],
        text: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Failure> {
        let mechanism = Mechanism::Gcm { nonce: &item.nonce, aad };
        self.retried(|session| session.encrypt_init(mechanism, key.object))?;
        exactly("C_Encrypt", out.len(), self.session.encrypt(text, out)?)
    }

    fn seal_message(
        &mut self,
        item: &AeadItem,
        aad: &[u8],
        text: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Failure> {
        let (sealed, tag) = out.split_at_mut(text.len());
        let tag = tag.first_chunk_mut().expect("a tag's room follows each text");
        let written = self.session.encrypt_message(&item.nonce, aad, text, sealed, tag)?;
        exactly("C_EncryptMessage", text.len(), written)?;
        Ok(text.len() + TAG_BYTES)
    }

    fn open_sealed(
        &mut self,
        key: &Loaded,
        item: &AeadItem,
        aad: &[u8],
        sealed: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Failure> {
        let mechanism = Mechanism::Gcm { nonce: &item.nonce, aad };
        self.retried(|session| session.decrypt_init(mechanism, key.object))?;
        exactly("C_Decrypt", sealed.len() - TAG_BYTES, self.session.decrypt(sealed, out)?)
    }

    fn mac(&mut self, key: &Loaded, message: &[u8], out: &mut [u8]) -> Result<(), Failure> {
        self.retried(|session| session.sign_init(Mechanism::Plain(CKM_AES_CMAC), key.object))?;
        exactly("C_Sign", out.len(), self.session.sign(message, out)?).map(|_| ())
    }

    /// Begins an operation; where one is under way, which a failed call left behind, that is ended first.
    fn retried(&mut self, begin: impl Fn(&Session) -> Result<(), Failure>) -> Result<(), Failure> {
        match begin(&self.session) {
            Err(failure) if failure.class() == Class::Active => {
                self.clear()?;
                begin(&self.session)
            }
            other => other,
        }
    }

    /// Ends whatever the session has under way, or replaces the session.
    fn clear(&mut self) -> Result<(), Failure> {
        if self.token.profile.cancel == CancelMethod::SessionCancel && self.session.cancel().is_ok() {
            return Ok(());
        }
        // The new one first: were this the last, the login would go with it.
        self.session = self.token.module.open_session(self.slot, false)?;
        Ok(())
    }
}

/// Returns the key of a handle of now, if it has the use.
fn loaded<'a>(
    token: &Token,
    handle: &'a KeyHandle,
    has_use: impl FnOnce(Kind) -> bool,
) -> Result<&'a Loaded, JobError> {
    match handle.object.downcast_ref::<Loaded>() {
        Some(key) if handle.generation == token.generation() => {
            if has_use(key.kind) {
                Ok(key)
            } else {
                Err(JobError::Rejected)
            }
        }
        _ => Err(JobError::StaleHandle),
    }
}

/// Gives every item without an outcome this one.
fn refuse(items: &mut [AeadItem], error: JobError) {
    items.iter_mut().filter(|item| item.outcome.is_none()).for_each(|item| item.outcome = Some(Err(error)));
}

fn exactly(call: &'static str, expected: usize, bytes: usize) -> Result<usize, Failure> {
    if bytes == expected { Ok(bytes) } else { Err(Failure::Overlong { call, bytes }) }
}

impl CryptoSession for Pkcs11Session {
    fn encrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        self.each(Direction::Encrypt, key, batch)
    }

    fn decrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        self.each(Direction::Decrypt, key, batch)
    }

    fn derive(&mut self, key: &KeyHandle, jobs: &mut [DeriveJob]) -> Result<(), SessionLost> {
        let token = Arc::clone(&self.token);
        let _using = token.using.read();
        let mut key = loaded(&token, key, Kind::derives);
        for job in jobs.iter_mut().filter(|job| job.output.is_none()) {
            let usable = match &key {
                Ok(usable) => *usable,
                Err(error) => {
                    job.output = Some(Err(*error));
                    continue;
                }
            };
            let mut output = Sensitive::zeroed(2 * TAG_BYTES);
            let halves = output.expose_mut().chunks_exact_mut(TAG_BYTES);
            let computed =
                halves.zip(&job.messages).try_for_each(|(half, message)| self.mac(usable, message, half));
            job.output = match computed.map_err(|failure| judge(Blame::JOB, failure)) {
                Ok(()) => Some(Ok(output)),
                Err(Verdict::KeyGone) => {
                    usable.set_gone();
                    key = Err(JobError::StaleHandle);
                    Some(Err(JobError::StaleHandle))
                }
                Err(Verdict::Outcome(outcome)) => Some(outcome.map(|()| output)),
                Err(Verdict::Lost(failure)) => return Err(self.lost(&failure)),
                // Two blocks of ours are never at fault.
                Err(Verdict::Doubtful) => {
                    self.token.suspect();
                    return Err("the token computes no AES-CMAC".into());
                }
            };
        }
        Ok(())
    }

    fn sign(&mut self, key: &KeyHandle, jobs: &mut [SignJob]) -> Result<(), SessionLost> {
        self.sign_each(key, jobs)
    }

    fn decrypt_asymmetric(&mut self, key: &KeyHandle, jobs: &mut [DecryptJob]) -> Result<(), SessionLost> {
        self.open_each(key, jobs)
    }

    fn random(&mut self, out: &mut [u8]) -> Result<(), ProviderError> {
        let drawn = out.chunks_mut(RANDOM_BYTES).try_for_each(|chunk| self.session.random(chunk));
        drawn.map_err(|failure| {
            out.fill(0);
            self.token.suspect();
            ProviderError::Unavailable(failure.cause(format!("the token gives no random bytes: {failure}")))
        })
    }
}
