//! The checks against a provider that computes wrongly: one that none of them finds out would be a check that cannot fail.

use keymill_core::Sensitive;
use keymill_core::key::{ProtectionLevel, WrappingAlgorithm};
use keymill_core::seam::provider::{
    Adopt, DeriveJob, JobError, KeyCustody, ProviderError, ProviderProfile, SessionLost, StoredKey,
    Unwrapped, WrappedImport,
};
use keymill_provider_software::SoftwareProvider;

use super::*;
use crate::hsm::doctor::check::Outcome;

/// What is wrong with a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vice {
    Nothing,
    HoldsNothing,
    SignsAnother,
    SignsNothing,
    RepeatsItself,
    OpensToAnother,
    OpensForged,
    SealsNothing,
}

/// The software provider, as if it were a token, with a vice.
struct Bent {
    inner: SoftwareProvider,
    profile: ProviderProfile,
    vice: Vice,
}

struct BentCustody(Box<dyn KeyCustody>);
struct BentSession(Box<dyn CryptoSession>, Vice);

fn bent(vice: Vice) -> Bent {
    let inner = keymill_provider_software::open(Default::default()).unwrap();
    let mut profile = inner.profile().clone();
    profile.protection = ProtectionLevel::Hsm;
    if vice == Vice::HoldsNothing {
        profile.specs.retain(|spec| *spec == KeySpec::Aes256);
    }
    Bent { inner, profile, vice }
}

impl CryptoProvider for Bent {
    fn profile(&self) -> &ProviderProfile {
        &self.profile
    }

    fn open_session(&self) -> Result<Box<dyn CryptoSession>, ProviderError> {
        Ok(Box::new(BentSession(self.inner.open_session()?, self.vice)))
    }

    fn custody(&self) -> Result<Box<dyn KeyCustody>, ProviderError> {
        Ok(Box::new(BentCustody(self.inner.custody()?)))
    }
}

impl KeyCustody for BentCustody {
    fn generate(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        _: Option<BulkMode>,
    ) -> Result<StoredKey, ProviderError> {
        self.0.generate(spec, usage, None)
    }

    fn import(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        _: Option<BulkMode>,
        material: &Sensitive,
    ) -> Result<StoredKey, ProviderError> {
        self.0.import(spec, usage, None, material)
    }

    fn generate_wrapping_key(
        &mut self,
        spec: KeySpec,
        algorithm: WrappingAlgorithm,
    ) -> Result<StoredKey, ProviderError> {
        self.0.generate_wrapping_key(spec, algorithm)
    }

    fn import_wrapped(&mut self, import: &WrappedImport) -> Result<Unwrapped, ProviderError> {
        self.0.import_wrapped(import)
    }

    fn destroy_wrapping_key(&mut self, wrapping: &StoredKey) -> Result<(), ProviderError> {
        self.0.destroy_wrapping_key(wrapping)
    }

    fn generate_to_stay(
        &mut self,
        spec: KeySpec,
        usage: KeyUsage,
        bulk_mode: Option<BulkMode>,
    ) -> Result<StoredKey, ProviderError> {
        self.0.generate_to_stay(spec, usage, bulk_mode)
    }

    fn adopt(&mut self, wanted: &Adopt) -> Result<StoredKey, ProviderError> {
        self.0.adopt(wanted)
    }

    fn load(&mut self, key: &StoredKey) -> Result<KeyHandle, ProviderError> {
        self.0.load(key)
    }

    fn unload(&mut self, key: KeyHandle) -> Result<(), ProviderError> {
        self.0.unload(key)
    }

    fn destroy(&mut self, key: &StoredKey) -> Result<(), ProviderError> {
        self.0.destroy(key)
    }

    fn canary(&mut self) -> Result<(), ProviderError> {
        self.0.canary()
    }
}

impl CryptoSession for BentSession {
    fn encrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        match self.1 {
            Vice::SealsNothing => batch.items.iter_mut().for_each(|item| item.outcome = Some(Ok(()))),
            _ => self.0.encrypt(key, batch)?,
        }
        Ok(())
    }

    fn decrypt(&mut self, key: &KeyHandle, batch: &mut AeadBatch) -> Result<(), SessionLost> {
        match self.1 {
            Vice::SealsNothing => batch.items.iter_mut().for_each(|item| item.outcome = Some(Ok(()))),
            _ => self.0.decrypt(key, batch)?,
        }
        Ok(())
    }

    fn derive(&mut self, key: &KeyHandle, jobs: &mut [DeriveJob]) -> Result<(), SessionLost> {
        self.0.derive(key, jobs)
    }

    fn sign(&mut self, key: &KeyHandle, jobs: &mut [SignJob]) -> Result<(), SessionLost> {
        match self.1 {
            Vice::SignsNothing => jobs.iter_mut().for_each(|job| job.output = Some(Err(JobError::Rejected))),
            Vice::SignsAnother => {
                jobs.iter_mut().enumerate().for_each(|(i, job)| job.input[0] ^= 1 + i as u8);
                self.0.sign(key, jobs)?;
            }
            Vice::RepeatsItself => {
                jobs.iter_mut().for_each(|job| job.input.fill(1));
                self.0.sign(key, jobs)?;
            }
            _ => self.0.sign(key, jobs)?,
        }
        Ok(())
    }

    fn decrypt_asymmetric(&mut self, key: &KeyHandle, jobs: &mut [DecryptJob]) -> Result<(), SessionLost> {
        self.0.decrypt_asymmetric(key, jobs)?;
        for job in jobs {
            match self.1 {
                Vice::OpensToAnother => job.output = Some(Ok(Sensitive::copied(b"another text"))),
                Vice::OpensForged => job.output = Some(Ok(Sensitive::copied(TEXT))),
                _ => {}
            }
        }
        Ok(())
    }

    fn random(&mut self, out: &mut [u8]) -> Result<(), ProviderError> {
        self.0.random(out)
    }
}

fn seen(vice: Vice, spec: KeySpec, usage: KeyUsage) -> crate::hsm::doctor::check::Check {
    kind(&bent(vice), spec, usage).unwrap_or_else(|seen| seen).named("kind")
}

#[test]
fn each_kind_is_found_good_where_it_is_and_left_out_where_it_is_not() {
    let kinds =
        KINDS.into_iter().filter(|(_, spec, usage)| bent(Vice::Nothing).profile.offers(*spec, *usage));
    for (name, spec, usage) in kinds {
        let check = seen(Vice::Nothing, spec, usage);
        assert_eq!((check.result, check.needed), (Outcome::Ok, false), "{name}: {check:?}");
        let check = seen(Vice::HoldsNothing, spec, usage);
        assert!(check.result == Outcome::Refused && !check.blocks() && check.next.is_some(), "{check:?}");
    }
}

#[test]
fn each_vice_is_found_out_and_blocks() {
    use KeyUsage::{EncryptDecrypt, GenerateVerifyMac, SignVerify};
    for (vice, spec, usage) in [
        (Vice::SignsAnother, KeySpec::EcP256, SignVerify),
        (Vice::SignsAnother, KeySpec::EcP384, SignVerify),
        (Vice::SignsAnother, KeySpec::EcP256K, SignVerify),
        (Vice::SignsAnother, KeySpec::Rsa2048, SignVerify),
        (Vice::SignsAnother, KeySpec::HmacSha256, GenerateVerifyMac),
        (Vice::SignsNothing, KeySpec::EcP256, SignVerify),
        (Vice::RepeatsItself, KeySpec::HmacSha256, GenerateVerifyMac),
        (Vice::RepeatsItself, KeySpec::EcP256, SignVerify),
        (Vice::OpensToAnother, KeySpec::Rsa2048, EncryptDecrypt),
        (Vice::OpensForged, KeySpec::Rsa2048, EncryptDecrypt),
        (Vice::SealsNothing, KeySpec::Aes128, EncryptDecrypt),
    ] {
        let check = seen(vice, spec, usage);
        assert!(check.result == Outcome::Wrong && check.blocks(), "{vice:?} {}: {check:?}", spec.name());
    }
}
