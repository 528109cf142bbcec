//! The keys that go beyond AES-256, each kind made, wrapped, unwrapped and used through the seam, as keymill will. Signatures are verified,
//! and texts encrypted, by another implementation. keymill can do without any of them, but not with one that computes wrongly.

use keymill_core::key::{BulkMode, DecryptAlgorithm, KeySpec, KeyUsage, SignAlgorithm};
use keymill_core::seam::provider::{
    AeadBatch, AeadItem, CryptoProvider, CryptoSession, DecryptJob, KeyHandle, PublicHalf, SignJob,
};

use keymill_provider_software::public_half;

use super::check::{Looked, Seen};

/// Every kind, and what its check is called.
pub(super) const KINDS: [(&str, KeySpec, KeyUsage); 12] = [
    ("AES-192", KeySpec::Aes192, KeyUsage::EncryptDecrypt),
    ("AES-128", KeySpec::Aes128, KeyUsage::EncryptDecrypt),
    ("HMAC-SHA-256", KeySpec::HmacSha256, KeyUsage::GenerateVerifyMac),
    ("HMAC-SHA-384", KeySpec::HmacSha384, KeyUsage::GenerateVerifyMac),
    ("HMAC-SHA-512", KeySpec::HmacSha512, KeyUsage::GenerateVerifyMac),
    ("RSA-2048, signatures", KeySpec::Rsa2048, KeyUsage::SignVerify),
    ("RSA-2048, decryption", KeySpec::Rsa2048, KeyUsage::EncryptDecrypt),
    ("RSA-3072, signatures", KeySpec::Rsa3072, KeyUsage::SignVerify),
    ("RSA-4096, signatures", KeySpec::Rsa4096, KeyUsage::SignVerify),
    ("EC P-256", KeySpec::EcP256, KeyUsage::SignVerify),
    ("EC P-384", KeySpec::EcP384, KeyUsage::SignVerify),
    ("EC P-256K", KeySpec::EcP256K, KeyUsage::SignVerify),
];

const TEXT: &[u8] = b"keymill hsm doctor";

/// Makes a key of a kind, loads it from what is to be stored, and uses it in every way that it is offered for.
pub(super) fn kind(provider: &dyn CryptoProvider, spec: KeySpec, usage: KeyUsage) -> Looked {
    let profile = provider.profile();
    if !profile.offers(spec, usage) {
        return Err(Seen::refused(
            format!("the token holds no keys of {} for {}: they are refused", spec.name(), usage.name()),
            "use another kind of key, or ask the vendor for its mechanisms",
        )
        .optional());
    }
    let mode = matches!(spec, KeySpec::Aes192 | KeySpec::Aes128).then_some(BulkMode::InHsm);
    let mut custody = provider.custody().map_err(Seen::from)?;
    let stored = custody.generate(spec, usage, mode).map_err(Seen::from)?;
    let key = custody.load(&stored).map_err(Seen::from)?;
    let mut session = provider.open_session().map_err(Seen::from)?;
    let public = match &stored.public_key {
        Some(public) => match public_half(spec, public) {
            Ok(half) => Some(half),
            Err(_) => return Err(Seen::wrong("its public key is none that another implementation takes")),
        },
        None => None,
    };
    let public = public.as_deref();
    let mut works = Vec::new();
    if mode.is_some() {
        seals(&mut *session, &key)?;
        works.push("AES-GCM");
    }
    let signs = usage != KeyUsage::EncryptDecrypt;
    for algorithm in
        spec.signatures().iter().filter(|algorithm| signs && profile.signatures.contains(algorithm))
    {
        signed(&mut *session, &key, *algorithm, public)?;
        works.push(algorithm.name());
    }
    for algorithm in
        spec.decryptions().iter().filter(|algorithm| !signs && profile.decryptions.contains(algorithm))
    {
        opened(&mut *session, &key, *algorithm, public)?;
        works.push(algorithm.name());
    }
    custody.destroy(&stored).map_err(Seen::from)?;
    let lacking: Vec<_> = spec
        .decryptions()
        .iter()
        .filter(|algorithm| !signs && !profile.decryptions.contains(algorithm))
        .collect();
    let without =
        lacking.iter().map(|algorithm| format!("; without {}", algorithm.name())).collect::<String>();
    Ok(Seen::ok(format!("born, wrapped, unwrapped; {} as elsewhere{without}", works.join(", "))).optional())
}

fn seals(session: &mut dyn CryptoSession, key: &KeyHandle) -> Result<(), Seen> {
    let mut batch = AeadBatch { buffer: [TEXT, &[0; 16]].concat(), ..AeadBatch::default() };
    batch.items.push(AeadItem { nonce: [1; 12], aad: 0..0, text: 0..TEXT.len(), outcome: None });
    session.encrypt(key, &mut batch)?;
    let sealed = batch.items[0].outcome.take();
    let changed = batch.buffer[..TEXT.len()] != *TEXT;
    session.decrypt(key, &mut batch)?;
    match (sealed, changed, batch.items[0].outcome) {
        (Some(Ok(())), true, Some(Ok(()))) if batch.buffer[..TEXT.len()] == *TEXT => Ok(()),
        _ => Err(Seen::wrong("what it seals is not sealed, or does not open to what it was")),
    }
}

fn signed(
    session: &mut dyn CryptoSession,
    key: &KeyHandle,
    algorithm: SignAlgorithm,
    public: Option<&dyn PublicHalf>,
) -> Result<(), Seen> {
    let input = |seed| vec![seed; algorithm.digest_bytes().unwrap_or(100)];
    let mut jobs = [1, 1, 2].map(|seed| SignJob::new(algorithm, input(seed)));
    session.sign(key, &mut jobs)?;
    let [one, again, other] = jobs.map(|job| job.output);
    let (Some(Ok(one)), Some(Ok(again)), Some(Ok(other))) = (one, again, other) else {
        return Err(Seen::wrong(format!("it does not sign by {}, which it says it does", algorithm.name())));
    };
    let good = match public {
        // Its known answer is a check of its own.
        None => one == again && one != other && one.len() == mac_bytes(algorithm),
        Some(public) => {
            let verifies =
                |seed, signature: &[u8]| public.verify(algorithm, &input(seed), signature) == Ok(true);
            verifies(1, &one) && verifies(1, &again) && verifies(2, &other) && !verifies(2, &one)
        }
    };
    match good {
        true => Ok(()),
        false => Err(Seen::wrong(format!("what it signs by {} does not verify elsewhere", algorithm.name()))),
    }
}

fn mac_bytes(algorithm: SignAlgorithm) -> usize {
    match algorithm {
        SignAlgorithm::HmacSha384 => 48,
        SignAlgorithm::HmacSha512 => 64,
        _ => 32,
    }
}

fn opened(
    session: &mut dyn CryptoSession,
    key: &KeyHandle,
    algorithm: DecryptAlgorithm,
    public: Option<&dyn PublicHalf>,
) -> Result<(), Seen> {
    let Some(Ok(sealed)) = public.map(|public| public.encrypt(algorithm, TEXT)) else {
        return Err(Seen::wrong("under its public key nothing is encrypted elsewhere"));
    };
    let mut forged = sealed.clone();
    forged[9] ^= 1;
    let mut jobs = [DecryptJob::new(algorithm, sealed), DecryptJob::new(algorithm, forged)];
    session.decrypt_asymmetric(key, &mut jobs)?;
    let [good, bad] = jobs.map(|job| job.output);
    if !matches!(good, Some(Ok(text)) if text.expose() == TEXT) {
        let why =
            format!("what was encrypted elsewhere by {} does not open to what it was", algorithm.name());
        return Err(Seen::wrong(why));
    }
    match bad {
        Some(Err(keymill_core::seam::provider::JobError::InvalidCiphertext)) => Ok(()),
        _ => Err(Seen::wrong(format!("a forged ciphertext of {} is not refused", algorithm.name()))),
    }
}

#[cfg(test)]
mod tests;
