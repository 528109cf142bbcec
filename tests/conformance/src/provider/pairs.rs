//! Key pairs: their halves belong together, in the store as in use, and the private one opens what the public one encrypts.

use std::collections::HashSet;

use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey,
};
use keymill_core::Sensitive;
use keymill_core::key::{DecryptAlgorithm, KeySpec, KeyUsage};
use keymill_core::limit;
use keymill_core::seam::provider::{JobError, KeyMaterial, ProviderError, PublicKey, StoredKey};
use sm2::elliptic_curve::common::getrandom::SysRng;
use sm2::pke::EncryptingKey;

use super::signatures::{input, is_quick, own, pairs, sm2_of};
use super::{Fixture, decrypt, sign, verifies};

/// Draws each pair anew.
pub fn a_key_pair_has_a_public_half_of_its_own(fixture: &Fixture) {
    let mut seen = HashSet::new();
    for (_, stored) in pairs(fixture).into_iter().chain(pairs(fixture)) {
        let public = stored.public_key.expect("a pair has a public half");
        assert!(seen.insert(public.as_der().to_vec()));
    }
}

/// Gives signatures that the stored public half verifies after each loading.
pub fn a_stored_pair_signs_alike_each_time_it_is_loaded(fixture: &Fixture) {
    for (spec, stored) in pairs(fixture) {
        let algorithm = *own(fixture, spec);
        let mut custody = fixture.custody();
        for seed in 0..3 {
            let handle = custody.load(&stored).expect("it loads");
            let input = input(algorithm, seed);
            let signature = sign(&mut *fixture.session(), &handle, algorithm, &input).expect("it signs");
            let public = stored.public_key.as_ref().expect("a pair has a public half");
            assert!(verifies(spec, algorithm, public, &input, &signature), "{}", spec.name());
            custody.unload(handle).expect("the provider is up");
            custody.destroy(&stored).expect("the provider is up");
        }
    }
}

/// Refuses a private half that stands beside another's public one, or beside none, as a reason to stop.
pub fn a_pair_whose_halves_do_not_match_is_corrupt(fixture: &Fixture) {
    for ((spec, one), (_, other)) in pairs(fixture).into_iter().zip(pairs(fixture)) {
        let mut custody = fixture.custody();
        let whole = one.public_key.clone().expect("a pair has a public half");
        let cut = PublicKey::from_der(whole.as_der()[..whole.as_der().len() - 1].to_vec());
        for public in [other.public_key.clone(), None, Some(cut), Some(PublicKey::from_der(Vec::new()))] {
            let mixed = StoredKey { public_key: public, ..copy(&one) };
            let refused = custody.load(&mixed).err();
            assert!(matches!(refused, Some(ProviderError::Corrupt(_))), "{}: {refused:?}", spec.name());
        }
        custody.load(&one).expect("it loads");
        // Of another usage it is another key.
        let misused = StoredKey { usage: KeyUsage::GenerateVerifyMac, ..copy(&one) };
        let refused = custody.load(&misused).err();
        assert!(matches!(refused, Some(ProviderError::Corrupt(_))), "{}: {refused:?}", spec.name());
    }
}

/// Refuses private material that lost, gained or changed bytes, as a reason to stop.
pub fn damaged_private_material_is_corrupt(fixture: &Fixture) {
    for (spec, stored) in pairs(fixture) {
        let mut custody = fixture.custody();
        let whole = bytes_of(&stored);
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 1;
        let half = whole[..whole.len() / 2].to_vec();
        for damaged in [Vec::new(), vec![7], half, whole[..whole.len() - 1].to_vec(), flipped] {
            let count = damaged.len();
            let refused =
                custody.load(&StoredKey { material: like(&stored, damaged), ..copy(&stored) }).err();
            assert!(
                matches!(refused, Some(ProviderError::Corrupt(_))),
                "{}, {count} bytes: {refused:?}",
                spec.name()
            );
        }
        custody.load(&stored).expect("it loads");
    }
}

/// Takes in private keys, and derives the public half that each had where it was made. Where material does not leave in clear, none
/// is taken.
pub fn an_imported_pair_is_the_one_that_was_made_elsewhere(fixture: &Fixture) {
    for usage in [KeyUsage::SignVerify, KeyUsage::EncryptDecrypt] {
        let specs = fixture.offered(usage).into_iter().filter(|spec| spec.is_key_pair() && is_quick(spec));
        for spec in specs {
            let stored = fixture.made(spec, usage);
            let mut custody = fixture.custody();
            let KeyMaterial::Clear(material) = &stored.material else {
                let refused = custody.import(spec, usage, None, &Sensitive::zeroed(32)).err();
                assert!(matches!(refused, Some(ProviderError::Rejected(_))), "{}: {refused:?}", spec.name());
                continue;
            };
            let taken = custody.import(spec, usage, None, material).expect("it is a private key");
            assert_eq!((taken.spec, taken.usage, taken.bulk_mode), (spec, usage, None));
            assert_eq!(taken.public_key, stored.public_key, "{}", spec.name());
            let key = custody.load(&taken).expect("what was taken in loads");
            let mut session = fixture.session();
            if usage == KeyUsage::EncryptDecrypt {
                for algorithm in decryptions(fixture, spec) {
                    let sealed = encrypt(&stored, algorithm, b"text");
                    assert_eq!(decrypt(&mut *session, &key, algorithm, &sealed), Ok(b"text".to_vec()));
                }
            } else {
                let (algorithm, public) = (*own(fixture, spec), stored.public_key.as_ref());
                let input = input(algorithm, 4);
                let signature = sign(&mut *session, &key, algorithm, &input).expect("it signs");
                let public = public.expect("a pair has a public half");
                assert!(verifies(spec, algorithm, public, &input, &signature), "{}", spec.name());
            }
        }
    }
}

/// Refuses what is cut or goes on, is a key of another specification, or is for another usage, as the fault of the request.
pub fn what_is_no_pair_of_its_specification_is_not_imported(fixture: &Fixture) {
    let pairs = pairs(fixture);
    let mut custody = fixture.custody();
    for (spec, stored) in &pairs {
        let KeyMaterial::Clear(material) = &stored.material else { continue };
        let whole = material.expose();
        let mut bad =
            vec![Vec::new(), vec![0; 32], whole[..whole.len() - 1].to_vec(), [whole, &[0]].concat()];
        bad.extend(pairs.iter().filter(|(other, _)| other != spec).map(|(_, other)| bytes_of(other)));
        for bad in bad {
            let count = bad.len();
            let refused = custody.import(*spec, KeyUsage::SignVerify, None, &Sensitive::new(bad)).err();
            assert!(
                matches!(refused, Some(ProviderError::Rejected(_))),
                "{}, {count} bytes: {refused:?}",
                spec.name()
            );
        }
        let refused = custody.import(*spec, KeyUsage::GenerateVerifyMac, None, material).err();
        assert!(matches!(refused, Some(ProviderError::Rejected(_))), "{}: {refused:?}", spec.name());
        custody.import(*spec, KeyUsage::SignVerify, None, material).expect("it is a private key");
    }
}

/// Opens texts of every length that another implementation has encrypted under the public half.
pub fn what_was_encrypted_elsewhere_decrypts(fixture: &Fixture) {
    for spec in fixture.offered(KeyUsage::EncryptDecrypt) {
        let stored = fixture.made(spec, KeyUsage::EncryptDecrypt);
        let key = fixture.load(&stored);
        let mut session = fixture.session();
        for algorithm in decryptions(fixture, spec) {
            // SM2 has no ciphertext of nothing.
            let shortest = usize::from(algorithm == DecryptAlgorithm::Sm2Pke);
            for length in [shortest, 1, 32, longest(spec, algorithm)] {
                let text = vec![length as u8 ^ 0x5a; length];
                let sealed = encrypt(&stored, algorithm, &text);
                let opened = decrypt(&mut *session, &key, algorithm, &sealed);
                assert_eq!(opened, Ok(text), "{} {} of {length}", spec.name(), algorithm.name());
            }
        }
    }
}

/// Answers alike to whatever does not open, and goes on.
pub fn what_does_not_decrypt_is_opaque(fixture: &Fixture) {
    for spec in fixture.offered(KeyUsage::EncryptDecrypt).into_iter().filter(is_quick) {
        let stored = fixture.made(spec, KeyUsage::EncryptDecrypt);
        let other = fixture.made(spec, KeyUsage::EncryptDecrypt);
        let key = fixture.load(&stored);
        let mut session = fixture.session();
        for algorithm in decryptions(fixture, spec) {
            let good = encrypt(&stored, algorithm, b"text");
            let mut flipped = good.clone();
            flipped[100] ^= 1;
            let longer = [&[0], &good[..]].concat();
            let foreign = encrypt(&other, algorithm, b"text");
            let (nothing, zeroes, ones) = (Vec::new(), vec![0; good.len()], vec![0xff; good.len()]);
            let shorter = good[1..].to_vec();
            for bad in [flipped, longer, shorter, foreign, nothing, zeroes, ones, vec![7; 100_000]] {
                let count = bad.len();
                let refused = decrypt(&mut *session, &key, algorithm, &bad);
                assert_eq!(
                    refused,
                    Err(JobError::InvalidCiphertext),
                    "{} bytes, {}",
                    count,
                    algorithm.name()
                );
            }
            assert_eq!(decrypt(&mut *session, &key, algorithm, &good), Ok(b"text".to_vec()));
        }
        // Another hash than it was encrypted with, where both are there.
        if let [one, another] = decryptions(fixture, spec)[..] {
            let sealed = encrypt(&stored, one, b"text");
            assert_eq!(decrypt(&mut *session, &key, another, &sealed), Err(JobError::InvalidCiphertext));
        }
        // And an algorithm that is not offered is the job's fault.
        for lacking in
            spec.decryptions().iter().filter(|algorithm| !decryptions(fixture, spec).contains(algorithm))
        {
            assert_eq!(decrypt(&mut *session, &key, *lacking, &[7; 256]), Err(JobError::Rejected));
        }
    }
}

pub(super) fn decryptions(fixture: &Fixture, spec: KeySpec) -> Vec<DecryptAlgorithm> {
    let offered = &fixture.provider.profile().decryptions;
    spec.decryptions().iter().copied().filter(|algorithm| offered.contains(algorithm)).collect()
}

/// RFC 8017, 7.1.1: the modulus less two digests and two bytes. SM2 has no such limit of its own.
fn longest(spec: KeySpec, algorithm: DecryptAlgorithm) -> usize {
    let digest = match algorithm {
        DecryptAlgorithm::RsaesOaepSha256 => 32,
        DecryptAlgorithm::RsaesOaepSha1 => 20,
        DecryptAlgorithm::Sm2Pke => return limit::SM2_PLAINTEXT_BYTES,
    };
    spec.modulus_bytes().expect("RSA has a modulus") - 2 * digest - 2
}

fn encrypt(stored: &StoredKey, algorithm: DecryptAlgorithm, text: &[u8]) -> Vec<u8> {
    let public = stored.public_key.as_ref().expect("a pair has a public half");
    if algorithm == DecryptAlgorithm::Sm2Pke {
        let key = EncryptingKey::new(sm2_of(public));
        return key.encrypt_der(&mut SysRng, text).expect("a text of a fitting length");
    }
    let key = PublicEncryptingKey::from_der(public.as_der()).expect("a public key of RSA");
    let key = OaepPublicEncryptingKey::new(key).expect("OAEP takes any");
    let algorithm = match algorithm {
        DecryptAlgorithm::RsaesOaepSha256 => &OAEP_SHA256_MGF1SHA256,
        DecryptAlgorithm::RsaesOaepSha1 => &OAEP_SHA1_MGF1SHA1,
        DecryptAlgorithm::Sm2Pke => unreachable!("no OAEP"),
    };
    let mut out = vec![0; key.ciphertext_size()];
    key.encrypt(algorithm, text, &mut out, None).expect("a text of a fitting length").to_vec()
}

fn copy(stored: &StoredKey) -> StoredKey {
    StoredKey {
        spec: stored.spec,
        usage: stored.usage,
        bulk_mode: stored.bulk_mode,
        material: like(stored, bytes_of(stored)),
        public_key: stored.public_key.clone(),
    }
}

fn bytes_of(stored: &StoredKey) -> Vec<u8> {
    match &stored.material {
        KeyMaterial::Clear(clear) => clear.expose().to_vec(),
        KeyMaterial::Wrapped(wrapped) => wrapped.clone(),
        KeyMaterial::TokenObject(_) => panic!("what is generated is stored outside the token"),
    }
}

fn like(stored: &StoredKey, bytes: Vec<u8>) -> KeyMaterial {
    match &stored.material {
        KeyMaterial::Clear(_) => KeyMaterial::Clear(Sensitive::new(bytes)),
        KeyMaterial::Wrapped(_) => KeyMaterial::Wrapped(bytes),
        KeyMaterial::TokenObject(_) => panic!("what is generated is stored outside the token"),
    }
}
