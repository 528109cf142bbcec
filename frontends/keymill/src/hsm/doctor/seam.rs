//! Checks through the seam that the engine uses: keys born, wrapped, loaded and used as keymill will, forged ciphertexts by the
//! thousand, two sessions on one key.

use std::thread;
use std::time::Instant;

use keymill_core::key::{BulkMode, KeySpec, KeyUsage};
use keymill_core::seam::provider::{
    AeadBatch, AeadItem, CryptoProvider, CryptoSession, JobError, KeyHandle, ProviderError, SessionLost,
    StoredKey,
};

use super::check::{Looked, Seen};
use crate::plugins::pkcs11::Pkcs11Provider;

mod speed;

pub(super) use speed::Rate;

const TEXT_BYTES: usize = 1024;
const TAG_BYTES: usize = 16;
/// Forged ciphertexts that a session must outlive.
const FORGED: usize = 1000;
/// Items of a batch in checks.
const ITEMS: usize = 64;

/// A session, and what it is to do.
type Lane = (Box<dyn CryptoSession>, Vec<AeadBatch>);

/// A key of the token that is generated for the checks and never stored.
pub(super) struct Trial<'a> {
    provider: &'a dyn CryptoProvider,
    /// As it would be stored.
    pub(super) stored: StoredKey,
    key: KeyHandle,
    /// Nonces given out; each is used once under the key.
    nonces: u64,
}

impl From<ProviderError> for Seen {
    fn from(error: ProviderError) -> Self {
        Seen::refused(error.to_string(), "look at the device and its log, and try again")
    }
}

impl From<SessionLost> for Seen {
    fn from(lost: SessionLost) -> Self {
        Seen::wrong(format!("the session is lost: {}", lost.reason))
    }
}

/// Generates a key, wraps it, and loads it from what is to be stored.
pub(super) fn trial(provider: &dyn CryptoProvider) -> Result<Trial<'_>, Seen> {
    let mut custody = provider.custody()?;
    let stored = custody.generate(KeySpec::Aes256, KeyUsage::EncryptDecrypt, Some(BulkMode::InHsm))?;
    let key = custody.load(&stored)?;
    Ok(Trial { provider, stored, key, nonces: 0 })
}

/// Draws random bytes twice.
pub(super) fn random(provider: &dyn CryptoProvider) -> Looked {
    let mut session = provider.open_session()?;
    let (mut one, mut other) = ([0; 64], [0; 64]);
    session.random(&mut one)?;
    session.random(&mut other)?;
    let constant = |bytes: &[u8]| bytes.iter().all(|byte| *byte == bytes[0]);
    match one == other || constant(&one) || constant(&other) {
        true => Err(Seen::wrong("the token's random bytes repeat")),
        false => Ok(Seen::ok("64 bytes, twice, and not the same")),
    }
}

/// Derives by the root MAC key, as the keys of the store are.
pub(super) fn root(provider: &Pkcs11Provider) -> Looked {
    let derive = |byte| {
        provider.root_derive([[byte; 16], [byte + 1; 16]]).map_err(|error| match error {
            ProviderError::Rejected(why) => Seen::refused(
                why,
                "the token was not made ready by `keymill hsm init`, which makes its keys: begin with a new token",
            ),
            other => other.into(),
        })
    };
    let (one, again, other) = (derive(1)?, derive(1)?, derive(3)?);
    match one.expose() == again.expose() && one.expose() != other.expose() {
        true => Ok(Seen::ok("gives the same bytes for the same message, and others for another")),
        false => {
            Err(Seen::wrong("the root MAC key gives different bytes for one message, or the same for two"))
        }
    }
}

impl Trial<'_> {
    /// What was sealed before the key left the token opens after it was unwrapped again.
    pub(super) fn round_trip(&mut self) -> Looked {
        let mut session = self.provider.open_session()?;
        let mut batch = self.batch(ITEMS);
        let texts = batch.buffer.clone();
        session.encrypt(&self.key, &mut batch)?;
        all_done(&batch, "does not seal")?;
        if batch.items.iter().any(|item| batch.buffer[item.text.clone()] == texts[item.text.clone()]) {
            return Err(Seen::wrong("it seals a text as it is"));
        }
        let mut custody = self.provider.custody()?;
        let again = custody.load(&self.stored)?;
        custody.unload(std::mem::replace(&mut self.key, again))?;
        custody.destroy(&self.stored)?;
        self.key = custody.load(&self.stored)?;
        undo(&mut batch);
        session.decrypt(&self.key, &mut batch)?;
        all_done(&batch, "does not open after its key was unwrapped again")?;
        opened(&batch, &texts)?;
        custody.canary()?;
        Ok(Seen::ok(format!(
            "{ITEMS} texts sealed, the key unloaded and unwrapped again, all opened and equal"
        )))
    }

    /// A thousand forged ciphertexts are refused one by one, and the session goes on.
    pub(super) fn forged(&mut self) -> Looked {
        let mut session = self.provider.open_session()?;
        let mut good = self.batch(ITEMS);
        let texts = good.buffer.clone();
        session.encrypt(&self.key, &mut good)?;
        all_done(&good, "does not seal")?;
        let began = Instant::now();
        let mut tried = 0;
        while tried < FORGED {
            let mut forged = copied(&good);
            for (index, item) in forged.items.iter().enumerate() {
                let bit = (tried + index) % (8 * TAG_BYTES);
                forged.buffer[item.text.end + bit / 8] ^= 1 << (bit % 8);
            }
            forged.items.truncate(FORGED - tried);
            session.decrypt(&self.key, &mut forged)?;
            for item in &forged.items {
                match item.outcome {
                    Some(Err(JobError::InvalidCiphertext)) => tried += 1,
                    Some(Ok(())) => return Err(Seen::wrong("a forged ciphertext opens")),
                    other => {
                        return Err(Seen::wrong(format!("a forged ciphertext is answered with {other:?}")));
                    }
                }
            }
        }
        let took = began.elapsed();
        undo(&mut good);
        session.decrypt(&self.key, &mut good)?;
        all_done(&good, "does not open after forged ones")?;
        opened(&good, &texts)?;
        let each = took.as_micros() / FORGED as u128;
        Ok(Seen::ok(format!("all refused, {each} µs each, and the session opens good ones as before")))
    }

    /// Two threads seal and open with one key at the same moment, each what the other has sealed.
    pub(super) fn two_sessions(&mut self) -> Looked {
        if self.provider.profile().max_sessions < 2 {
            return Ok(Seen::not_tried("the token gives keymill one session"));
        }
        let mut work: Vec<Lane> = Vec::new();
        for _ in 0..2 {
            let session = self.provider.open_session()?;
            work.push((session, (0..8).map(|_| self.batch(ITEMS)).collect::<Vec<_>>()));
        }
        let texts: Vec<Vec<u8>> =
            work.iter().flat_map(|(_, batches)| batches.iter().map(|batch| batch.buffer.clone())).collect();
        self.at_once(&mut work, |session, key, batch| session.encrypt(key, batch))?;
        let (first, second) = work.split_at_mut(1);
        std::mem::swap(&mut first[0].1, &mut second[0].1);
        self.at_once(&mut work, |session, key, batch| session.decrypt(key, batch))?;
        work.swap(0, 1);
        for (batch, text) in work.iter().flat_map(|(_, batches)| batches).zip(&texts) {
            opened(batch, text)?;
        }
        Ok(Seen::ok("each opened what the other had sealed, at the same time"))
    }

    fn at_once(
        &self,
        work: &mut [Lane],
        call: impl Fn(&mut dyn CryptoSession, &KeyHandle, &mut AeadBatch) -> Result<(), SessionLost> + Sync,
    ) -> Result<(), Seen> {
        let (key, call) = (&self.key, &call);
        thread::scope(|scope| {
            let threads: Vec<_> = work
                .iter_mut()
                .map(|(session, batches)| {
                    scope.spawn(move || {
                        batches.iter_mut().try_for_each(|batch| {
                            undo(batch);
                            call(session.as_mut(), key, batch)?;
                            all_done(batch, "fails beside another session")
                        })
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| thread.join().expect("a check does not panic"))
        })
    }

    /// Makes texts that are told apart, with nonces that nothing else has.
    fn batch(&mut self, items: usize) -> AeadBatch {
        let mut batch = AeadBatch { aad: b"keymill hsm doctor".to_vec(), ..AeadBatch::default() };
        for _ in 0..items {
            self.nonces += 1;
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&self.nonces.to_be_bytes());
            let start = batch.buffer.len();
            batch.buffer.extend((0..TEXT_BYTES).map(|at| (at as u64 * 7 + self.nonces) as u8));
            batch.buffer.extend([0; TAG_BYTES]);
            let (aad, text) = (0..batch.aad.len(), start..start + TEXT_BYTES);
            batch.items.push(AeadItem { nonce, aad, text, outcome: None });
        }
        batch
    }
}

fn copied(batch: &AeadBatch) -> AeadBatch {
    let fresh = |item: &AeadItem| AeadItem {
        nonce: item.nonce,
        aad: item.aad.clone(),
        text: item.text.clone(),
        outcome: None,
    };
    AeadBatch {
        buffer: batch.buffer.clone(),
        aad: batch.aad.clone(),
        items: batch.items.iter().map(fresh).collect(),
    }
}

/// Makes a batch that is done one that is to be done.
fn undo(batch: &mut AeadBatch) {
    batch.items.iter_mut().for_each(|item| item.outcome = None);
}

fn all_done(batch: &AeadBatch, what: &str) -> Result<(), Seen> {
    match batch.items.iter().find(|item| !matches!(item.outcome, Some(Ok(())))) {
        None => Ok(()),
        Some(item) => Err(Seen::wrong(format!("an item of 1 KiB {what}: {:?}", item.outcome))),
    }
}

fn opened(batch: &AeadBatch, texts: &[u8]) -> Result<(), Seen> {
    match batch.items.iter().all(|item| batch.buffer[item.text.clone()] == texts[item.text.clone()]) {
        true => Ok(()),
        false => Err(Seen::wrong("a text opens to other bytes than were sealed")),
    }
}

#[cfg(test)]
mod tests;
