//! The checks against providers that misbehave: one that none of them finds out would be a check that cannot fail.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use keymill_core::Sensitive;
use keymill_core::key::{ProtectionLevel, WrappingAlgorithm};
use keymill_core::seam::provider::{
    Adopt, DecryptJob, DeriveJob, KeyCustody, KeyMaterial, ProviderProfile, SignJob, Unwrapped, WrappedImport,
};

use super::*;
use crate::hsm::doctor::check::{Check, Outcome};

/// What is wrong with a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vice {
    Nothing,
    SealsNothing,
    UnwrapsAnotherKey,
    OpensForged,
    LosesTheSession,
    StopsAfterForged,
    KeyOfItsOwnForEachSession,
    RepeatsItself,
}

#[derive(Clone)]
struct Fake {
    vice: Vice,
    loads: Arc<AtomicU8>,
    sessions: Arc<AtomicU8>,
    /// Who came from `open_session`, and what it has seen.
    number: u8,
    forged: bool,
}

fn fake(vice: Vice) -> Fake {
    Fake { vice, loads: Arc::default(), sessions: Arc::default(), number: 0, forged: false }
}

impl Fake {
    fn key(&self, handle: &KeyHandle) -> LessSafeKey {
        let loaded = *handle.object.downcast_ref::<u8>().unwrap();
        let variant = match self.vice {
            Vice::UnwrapsAnotherKey => loaded,
            Vice::KeyOfItsOwnForEachSession => self.number,
            _ => 0,
        };
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[variant; 32]).unwrap())
    }
}

impl CryptoProvider for Fake {
    fn profile(&self) -> &ProviderProfile {
        static PROFILE: OnceLock<ProviderProfile> = OnceLock::new();
        PROFILE.get_or_init(|| ProviderProfile {
            name: "fake",
            protection: ProtectionLevel::Hsm,
            token_serial: None,
            specs: Vec::new(),
            algorithms: Vec::new(),
            signatures: Vec::new(),
            decryptions: Vec::new(),
            imports: Vec::new(),
            derives: false,
            inline: false,
            max_batch: 256,
            max_item_bytes: 1 << 20,
            max_sessions: 2,
        })
    }

    fn open_session(&self) -> Result<Box<dyn CryptoSession>, ProviderError> {
        let number = self.sessions.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Fake { number, ..self.clone() }))
    }

    fn custody(&self) -> Result<Box<dyn KeyCustody>, ProviderError> {
        Ok(Box::new(self.clone()))
    }
}

impl KeyCustody for Fake {
    fn generate(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
    ) -> Result<StoredKey, ProviderError> {
        let material = KeyMaterial::Wrapped(vec![0; 40]);
        Ok(StoredKey { spec, usage, bulk_mode, material, public_key: None })
    }

    fn import(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
        _: &Sensitive,
    ) -> Result<StoredKey, ProviderError> {
        self.generate(spec, usage, bulk_mode)
    }

    fn generate_wrapping_key(
        &mut self,
        _: KeySpec,
        _: WrappingAlgorithm,
    ) -> Result<StoredKey, ProviderError> {
        Err(ProviderError::Rejected("no key comes in".into()))
    }

    fn import_wrapped(&mut self, _: &WrappedImport) -> Result<Unwrapped, ProviderError> {
        Err(ProviderError::Rejected("no key comes in".into()))
    }

    fn destroy_wrapping_key(&mut self, _: &StoredKey) -> Result<(), ProviderError> {
        Ok(())
    }

    fn generate_to_stay(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
    ) -> Result<StoredKey, ProviderError> {
        self.generate(spec, usage, bulk_mode)
    }

    fn adopt(&mut self, _: &Adopt) -> Result<StoredKey, ProviderError> {
        Err(ProviderError::Rejected("no key is here".into()))
    }

    fn load(&mut self, _: &StoredKey) -> Result<KeyHandle, ProviderError> {
        let object = Arc::new(self.loads.fetch_add(1, Ordering::Relaxed));
        Ok(KeyHandle { generation: 0, object })
    }

    fn unload(&mut self, _: KeyHandle) -> Result<(), ProviderError> {
        Ok(())
    }

    fn destroy(&mut self, _: &StoredKey) -> Result<(), ProviderError> {
        Ok(())
    }

    fn canary(&mut self) -> Result<(), ProviderError> {
        Ok(())
    }
}

impl CryptoSession for Fake {
    fn encrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        let key = self.key(key);
        for item in &mut batch.items {
            item.outcome = Some(Ok(()));
            if self.vice == Vice::SealsNothing {
                continue;
            }
            let (text, tag) =
                batch.buffer[item.text.start..item.text.end + TAG_BYTES].split_at_mut(item.text.len());
            let nonce = Nonce::assume_unique_for_key(item.nonce);
            let aad = Aad::from(&batch.aad[item.aad.clone()]);
            tag.copy_from_slice(key.seal_in_place_separate_tag(nonce, aad, text).unwrap().as_ref());
        }
        Ok(())
    }

    fn decrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        let key = self.key(key);
        if self.vice == Vice::StopsAfterForged && self.forged {
            batch.items.iter_mut().for_each(|item| item.outcome = Some(Err(JobError::InvalidCiphertext)));
            return Ok(());
        }
        for item in &mut batch.items {
            let sealed = &mut batch.buffer[item.text.start..item.text.end + TAG_BYTES];
            let nonce = Nonce::assume_unique_for_key(item.nonce);
            let opened = key.open_in_place(nonce, Aad::from(&batch.aad[item.aad.clone()]), sealed).is_ok();
            self.forged |= !opened;
            if !opened && self.vice == Vice::LosesTheSession {
                return Err("CKR_DEVICE_ERROR".into());
            }
            let ok = opened || self.vice == Vice::OpensForged;
            item.outcome = Some(if ok { Ok(()) } else { Err(JobError::InvalidCiphertext) });
        }
        Ok(())
    }

    fn derive(&mut self, _: &KeyHandle, _: &mut [DeriveJob]) -> Result<(), SessionLost> {
        Err("nothing is derived here".into())
    }

    fn sign(&mut self, _: &KeyHandle, _: &mut [SignJob]) -> Result<(), SessionLost> {
        Err("nothing is signed here".into())
    }

    fn decrypt_asymmetric(&mut self, _: &KeyHandle, _: &mut [DecryptJob]) -> Result<(), SessionLost> {
        Err("no private key decrypts here".into())
    }

    fn random(&mut self, out: &mut [u8]) -> Result<(), ProviderError> {
        // Bytes that differ from one another, and from call to call where it behaves.
        let start = if self.vice == Vice::RepeatsItself { 0 } else { self.number };
        self.number += 1;
        out.iter_mut().zip(start..).for_each(|(byte, value)| *byte = value);
        Ok(())
    }
}

/// Makes every check, and returns those that are not ok.
fn found_out(vice: Vice) -> Vec<Check> {
    let provider = fake(vice);
    let mut trial = trial(&provider).ok().unwrap();
    let checks = [
        random(&provider).unwrap_or_else(|seen| seen).named("random"),
        trial.round_trip().unwrap_or_else(|seen| seen).named("round trip"),
        trial.forged().unwrap_or_else(|seen| seen).named("forged"),
        trial.two_sessions().unwrap_or_else(|seen| seen).named("two sessions"),
    ];
    checks.into_iter().filter(|check| check.result != Outcome::Ok).collect()
}

#[test]
fn each_vice_is_found_out_and_blocks() {
    assert!(found_out(Vice::Nothing).is_empty(), "{:?}", found_out(Vice::Nothing));
    for (vice, check) in [
        (Vice::SealsNothing, "round trip"),
        (Vice::UnwrapsAnotherKey, "round trip"),
        (Vice::OpensForged, "forged"),
        (Vice::LosesTheSession, "forged"),
        (Vice::StopsAfterForged, "forged"),
        (Vice::KeyOfItsOwnForEachSession, "two sessions"),
        (Vice::RepeatsItself, "random"),
    ] {
        let found = found_out(vice);
        assert!(found.iter().any(|found| found.check == check && found.blocks()), "{vice:?}: {found:?}");
    }
}

#[test]
fn a_speed_is_measured_for_each_number_of_sessions_that_there_can_be() {
    let provider = fake(Vice::Nothing);
    let rates = trial(&provider).ok().unwrap().rates().ok().unwrap();
    assert_eq!(rates.iter().map(|rate| rate.sessions).collect::<Vec<_>>(), [1, 2]);
    assert!(rates.iter().all(|rate| rate.items_per_s > 100), "{rates:?}");
}
