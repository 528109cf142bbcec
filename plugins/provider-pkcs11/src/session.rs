//! The use of keys on one session of the token. What a failure means is decided here: the item, the key, the session or the token;
//! and a code that can mean either data or device is put to the proof by an operation whose answer is known.

use std::sync::Arc;

use cryptoki_sys::CKM_AES_CMAC;
use keymill_core::Sensitive;
use keymill_core::blob::TAG_BYTES;
use keymill_core::key::BulkMode;
use keymill_core::seam::provider::{
    AeadBatch, AeadItem, CryptoSession, DeriveJob, JobError, KeyHandle, ProviderError, SessionLost,
};
use zeroize::Zeroizing;

use crate::cache::{Loaded, Song};
use crate::module::{Class, Failure, Mechanism, Session};
use crate::profile::{CancelMethod, GcmMethod};
use crate::token::{Place, Token};

/// Doubtful items after which the proof is made in mid-batch: a dead device is not asked 65,536 times.
const DOUBTS: usize = 16;
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Encrypt,
    Decrypt,
}

/// What became of one call.
enum Verdict {
    Done,
    /// The item is at fault, or the device: unknown yet.
    Doubtful,
    Job(JobError),
    /// The key is gone from the token.
    KeyGone,
    Lost(Failure),
}

impl Pkcs11Session {
    pub(crate) fn open(token: &Arc<Token>) -> Result<Self, ProviderError> {
        let place = Place::take(token).ok_or_else(|| {
            ProviderError::Unavailable(format!("all {} sessions are taken", token.max_sessions()))
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
        SessionLost { reason: failure.to_string() }
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
        let Some(key) = loaded(&token, key) else {
            refuse(items, JobError::StaleHandle);
            return Ok(());
        };
        if key.mode != BulkMode::InHsm {
            refuse(items, JobError::Rejected);
            return Ok(());
        }
        let undone = items.iter().filter(|item| item.outcome.is_none()).count();
        let messages =
            direction == Direction::Encrypt && token.profile.gcm == GcmMethod::Message && undone > 1;
        if messages {
            let begun = self.retried(|session| session.message_encrypt_init(key.object));
            match begun.map(|()| Verdict::Done).unwrap_or_else(|failure| judge(direction, failure)) {
                Verdict::Done => {}
                Verdict::KeyGone => {
                    key.set_gone();
                    refuse(items, JobError::StaleHandle);
                    return Ok(());
                }
                Verdict::Lost(failure) => return Err(self.lost(&failure)),
                Verdict::Doubtful | Verdict::Job(_) => {
                    return Err(SessionLost { reason: "C_MessageEncryptInit failed".into() });
                }
            }
        }
        let done = self.items(direction, key, buffer, aad, items, messages);
        self.wipe();
        if messages && done.is_ok() && self.session.message_encrypt_final().is_err() {
            // The batch is done; what is left behind must not meet the next.
            self.clear().map_err(|failure| self.lost(&failure))?;
        }
        done
    }

    fn items(
        &mut self,
        direction: Direction,
        key: &Loaded,
        buffer: &mut [u8],
        aad: &[u8],
        items: &mut [AeadItem],
        messages: bool,
    ) -> Result<(), SessionLost> {
        let blamed = match direction {
            Direction::Encrypt => JobError::Rejected,
            Direction::Decrypt => JobError::InvalidCiphertext,
        };
        let mut doubtful = Vec::new();
        for at in 0..items.len() {
            if items[at].outcome.is_some() {
                continue;
            }
            match self.item(direction, key, buffer, aad, &items[at], messages) {
                Verdict::Done => {
                    items[at].outcome = Some(Ok(()));
                    // The device works: it was their data.
                    doubtful.drain(..).for_each(|at: usize| items[at].outcome = Some(Err(blamed)));
                }
                Verdict::Job(error) => items[at].outcome = Some(Err(error)),
                Verdict::Doubtful => doubtful.push(at),
                Verdict::KeyGone => {
                    key.set_gone();
                    self.prove(&mut doubtful, items, blamed, messages)?;
                    refuse(items, JobError::StaleHandle);
                    return Ok(());
                }
                Verdict::Lost(failure) => return Err(self.lost(&failure)),
            }
            if doubtful.len() >= DOUBTS {
                self.prove(&mut doubtful, items, blamed, messages)?;
                if messages {
                    // The proof has ended the messages.
                    self.session.message_encrypt_init(key.object).map_err(|failure| self.lost(&failure))?;
                }
            }
        }
        self.prove(&mut doubtful, items, blamed, messages)
    }

    /// Settles what the doubtful items are: at fault, where the canary sings; not done, where it does not.
    fn prove(
        &mut self,
        doubtful: &mut Vec<usize>,
        items: &mut [AeadItem],
        blamed: JobError,
        messages: bool,
    ) -> Result<(), SessionLost> {
        if doubtful.is_empty() {
            return Ok(());
        }
        if messages {
            self.clear().map_err(|failure| self.lost(&failure))?;
        }
        let Self { song, session, .. } = self;
        if let Err(failure) = song.hear(session) {
            return Err(self.lost(&failure));
        }
        doubtful.drain(..).for_each(|at| items[at].outcome = Some(Err(blamed)));
        Ok(())
    }

    fn item(
        &mut self,
        direction: Direction,
        key: &Loaded,
        buffer: &mut [u8],
        aad: &[u8],
        item: &AeadItem,
        messages: bool,
    ) -> Verdict {
        let limit = self.token.profile.max_item_bytes;
        let tagged = item.text.start..item.text.end.saturating_add(TAG_BYTES);
        let (Some(aad), Some(tagged)) = (aad.get(item.aad.clone()), buffer.get_mut(tagged)) else {
            return Verdict::Job(JobError::Rejected);
        };
        // A range that ends before it starts slips through where only the tag lies behind it.
        let Some(len) = item.text.end.checked_sub(item.text.start) else {
            return Verdict::Job(JobError::Rejected);
        };
        if len > limit || aad.len() > limit {
            return Verdict::Job(JobError::Rejected);
        }
        if self.scratch.len() < tagged.len() {
            self.scratch = Zeroizing::new(vec![0; tagged.len().next_power_of_two()]);
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let out = &mut scratch[..tagged.len()];
        let done = match direction {
            Direction::Encrypt if messages => self.seal_message(item, aad, &tagged[..len], out),
            Direction::Encrypt => self.seal(key, item, aad, &tagged[..len], out),
            Direction::Decrypt => self.open_sealed(key, item, aad, tagged, out),
        };
        let verdict = match done {
            Ok(written) => {
                tagged[..written].copy_from_slice(&out[..written]);
                Verdict::Done
            }
            Err(failure) => judge(direction, failure),
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

    /// Wipes what passed through.
    fn wipe(&mut self) {
        self.scratch.fill(0);
    }
}

/// Returns the key of a handle of now.
fn loaded<'a>(token: &Token, handle: &'a KeyHandle) -> Option<&'a Loaded> {
    handle.object.downcast_ref().filter(|_| handle.generation == token.generation())
}

/// Gives every item without an outcome this one.
fn refuse(items: &mut [AeadItem], error: JobError) {
    items.iter_mut().filter(|item| item.outcome.is_none()).for_each(|item| item.outcome = Some(Err(error)));
}

fn exactly(call: &'static str, expected: usize, bytes: usize) -> Result<usize, Failure> {
    if bytes == expected { Ok(bytes) } else { Err(Failure::Overlong { call, bytes }) }
}

/// Decides whose fault a failure is.
fn judge(direction: Direction, failure: Failure) -> Verdict {
    match failure.class() {
        Class::Data if direction == Direction::Decrypt => Verdict::Job(JobError::InvalidCiphertext),
        Class::Data | Class::Unsupported => Verdict::Job(JobError::Rejected),
        Class::Ambiguous | Class::Other => match failure {
            Failure::Forked { .. } => Verdict::Lost(failure),
            _ => Verdict::Doubtful,
        },
        Class::Object => Verdict::KeyGone,
        // Nothing is done and nothing is blamed: another session may do it.
        Class::SessionGone
        | Class::TokenGone
        | Class::ModuleGone
        | Class::Login
        | Class::Pin
        | Class::Busy
        | Class::Active => Verdict::Lost(failure),
    }
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
        let key = loaded(&token, key).ok_or(JobError::StaleHandle);
        let mut key = key.and_then(|key| match key.mode {
            BulkMode::HsmDerived => Ok(key),
            BulkMode::InHsm => Err(JobError::Rejected),
        });
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
            job.output = match computed.map_err(|failure| judge(Direction::Encrypt, failure)) {
                Ok(()) => Some(Ok(output)),
                Err(Verdict::KeyGone) => {
                    usable.set_gone();
                    key = Err(JobError::StaleHandle);
                    Some(Err(JobError::StaleHandle))
                }
                Err(Verdict::Job(error)) => Some(Err(error)),
                Err(Verdict::Lost(failure)) => return Err(self.lost(&failure)),
                // Two blocks of ours are never at fault.
                Err(Verdict::Doubtful | Verdict::Done) => {
                    self.token.suspect();
                    return Err(SessionLost { reason: "the token computes no AES-CMAC".into() });
                }
            };
        }
        Ok(())
    }

    fn random(&mut self, out: &mut [u8]) -> Result<(), ProviderError> {
        let drawn = out.chunks_mut(RANDOM_BYTES).try_for_each(|chunk| self.session.random(chunk));
        drawn.map_err(|failure| {
            out.fill(0);
            self.token.suspect();
            ProviderError::Unavailable(format!("the token gives no random bytes: {failure}"))
        })
    }
}
