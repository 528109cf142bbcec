//! Public halves: what the private ones sign verifies under them, what they encrypt the private ones open, and nothing else passes for
//! one. Other providers than that of software leave them to it, and say so.

use std::sync::Arc;

use keymill_core::key::{DecryptAlgorithm, KeySpec, KeyUsage, SignAlgorithm};
use keymill_core::seam::provider::{JobError, ProviderError, PublicHalf, PublicKey, StoredKey};
use sm2::dsa::SigningKey;
use sm2::dsa::signature::Signer;
use sm2::pkcs8::EncodePublicKey;

use super::pairs::decryptions;
use super::signatures::{SM2_IDENTITY, is_quick, pairs};
use super::{Fixture, decrypt, sign};

/// Verifies signatures of the message that was signed, in the one form that they have.
pub fn a_public_half_verifies_what_the_private_one_signs(fixture: &Fixture) {
    for (spec, stored) in pairs(fixture) {
        let Some(half) = half(fixture, &stored) else { continue };
        let key = fixture.load(&stored);
        let mut session = fixture.session();
        for algorithm in signatures(fixture, spec) {
            let name = format!("{} {}", spec.name(), algorithm.name());
            let signed = half.signed(algorithm, b"message").expect("it has the algorithm");
            match algorithm.digest_bytes() {
                Some(bytes) => assert_eq!(signed.len(), bytes, "{name}"),
                None => assert_eq!(signed, b"message", "{name}"),
            }
            let other = half.signed(algorithm, b"another message").expect("it has the algorithm");
            let signature = sign(&mut *session, &key, algorithm, &signed).expect("it signs");
            assert_eq!(half.verify(algorithm, &signed, &signature), Ok(true), "{name}");
            assert_eq!(half.verify(algorithm, &other, &signature), Ok(false), "{name}");
            let (mut first, mut last) = (signature.clone(), signature.clone());
            first[0] ^= 1;
            *last.last_mut().expect("it is not empty") ^= 1;
            let (shorter, longer) = (signature[1..].to_vec(), [&signature[..], &[0]].concat());
            let zeroes = vec![0; signature.len()];
            for forged in [first, last, shorter, longer, zeroes, Vec::new()] {
                assert_eq!(half.verify(algorithm, &signed, &forged), Ok(false), "{name}");
            }
            if algorithm.digest_bytes().is_some() {
                for digest in [&signed[1..], &[&signed[..], &[0]].concat(), &[]] {
                    assert_eq!(half.verify(algorithm, digest, &signature), Err(JobError::Rejected), "{name}");
                }
            }
        }
        for foreign in KeySpec::ALL.iter().flat_map(|spec| spec.signatures()) {
            if !spec.signatures().contains(foreign) {
                let signed = vec![1; foreign.digest_bytes().unwrap_or(9)];
                assert_eq!(half.signed(*foreign, b"message"), Err(JobError::Rejected), "{}", spec.name());
                assert_eq!(half.verify(*foreign, &signed, &[1; 64]), Err(JobError::Rejected));
            }
        }
    }
}

/// Takes a signature by none but the algorithm that it was made by.
pub fn a_signature_is_of_one_algorithm_alone(fixture: &Fixture) {
    for (spec, stored) in pairs(fixture) {
        let Some(half) = half(fixture, &stored) else { continue };
        let key = fixture.load(&stored);
        let mut session = fixture.session();
        for by in signatures(fixture, spec) {
            let signed = half.signed(by, b"message").expect("it has the algorithm");
            let signature = sign(&mut *session, &key, by, &signed).expect("it signs");
            for other in signatures(fixture, spec) {
                let signed = half.signed(other, b"message").expect("it has the algorithm");
                let taken = half.verify(other, &signed, &signature);
                assert_eq!(taken, Ok(other == by), "{} as {}", by.name(), other.name());
            }
        }
    }
}

/// Takes a signature of SM2 by none but the identity of those who have agreed on none.
pub fn a_signature_of_sm2_by_another_identity_is_none(fixture: &Fixture) {
    if !fixture.halves {
        return;
    }
    let secret = sm2::SecretKey::from_slice(&[7; 32]).expect("a scalar");
    let public = secret.public_key().to_public_key_der().expect("a public key has a form in DER");
    let public = PublicKey::from_der(public.as_bytes().to_vec());
    let half = fixture.provider.public_half(KeySpec::EcSm2, &public).expect("it is a public half");
    let signed = half.signed(SignAlgorithm::Sm2Dsa, b"message").expect("it has the algorithm");
    for (identity, taken) in [(SM2_IDENTITY, true), ("ALICE", false), ("", false)] {
        let signer = SigningKey::new(identity, &secret).expect("an identity of few bytes");
        let signature = signer.try_sign(b"message").expect("it signs");
        let verified = half.verify(SignAlgorithm::Sm2Dsa, &signed, signature.to_der().as_bytes());
        assert_eq!(verified, Ok(taken), "{identity}");
    }
}

/// Encrypts texts up to the longest that there is, never twice alike, and by the algorithms of its own specification.
pub fn a_public_half_encrypts_for_the_private_one(fixture: &Fixture) {
    for spec in fixture.offered(KeyUsage::EncryptDecrypt).into_iter().filter(is_quick) {
        let stored = fixture.made(spec, KeyUsage::EncryptDecrypt);
        let Some(half) = half(fixture, &stored) else { continue };
        let key = fixture.load(&stored);
        let mut session = fixture.session();
        for algorithm in decryptions(fixture, spec) {
            let longest = half.max_plaintext_bytes(algorithm).expect("it has the algorithm");
            for length in [1, 31, 32, 33, longest] {
                let text = vec![length as u8 ^ 0x5a; length];
                let sealed = half.encrypt(algorithm, &text).expect("it fits");
                assert_ne!(half.encrypt(algorithm, &text), Ok(sealed.clone()));
                let opened = decrypt(&mut *session, &key, algorithm, &sealed);
                assert_eq!(opened, Ok(text), "{} of {length}", algorithm.name());
            }
            assert_eq!(half.encrypt(algorithm, &vec![1; longest + 1]), Err(JobError::Rejected));
        }
        for foreign in all_decryptions().filter(|algorithm| !spec.decryptions().contains(algorithm)) {
            assert_eq!(half.encrypt(foreign, b"text"), Err(JobError::Rejected), "{}", spec.name());
            assert_eq!(half.max_plaintext_bytes(foreign), None);
        }
    }
    for (spec, stored) in pairs(fixture) {
        let Some(half) = half(fixture, &stored) else { continue };
        for algorithm in all_decryptions().filter(|algorithm| !spec.decryptions().contains(algorithm)) {
            assert_eq!(half.encrypt(algorithm, b"text"), Err(JobError::Rejected), "{}", spec.name());
        }
    }
}

/// Refuses whatever is not to the byte what a pair of the specification has.
pub fn what_is_no_public_half_is_corrupt(fixture: &Fixture) {
    let pairs = pairs(fixture);
    for (spec, stored) in &pairs {
        if half(fixture, stored).is_none() {
            continue;
        }
        let whole = stored.public_key.as_ref().expect("a pair has a public half").as_der();
        let decode =
            |spec, der: &[u8]| fixture.provider.public_half(spec, &PublicKey::from_der(der.to_vec())).err();
        let cuts = (0..whole.len()).step_by(whole.len() / 50 + 1).map(|length| whole[..length].to_vec());
        let mut bad: Vec<_> = cuts.collect();
        bad.push(whole[..whole.len() - 1].to_vec());
        bad.push([whole, &[0]].concat());
        // The outer length, as BER would have it, and the name of the algorithm.
        for at in [0, 1, 9] {
            let mut changed = whole.to_vec();
            changed[at] ^= 0x80;
            bad.push(changed);
        }
        if matches!(spec, KeySpec::EcP256 | KeySpec::EcP384 | KeySpec::EcP256K | KeySpec::EcSm2) {
            // Another y to an x is on no curve, unless it is the negative one; compressed and hybrid points are not taken.
            let point = whole.len() - 1 - 2 * if *spec == KeySpec::EcP384 { 48 } else { 32 };
            for (at, bits) in [(whole.len() - 1, 1), (point, 4 ^ 2), (point, 4 ^ 6), (point, 4)] {
                let mut changed = whole.to_vec();
                changed[at] ^= bits;
                bad.push(changed);
            }
        }
        for bad in bad {
            let refused = decode(*spec, &bad);
            let count = bad.len();
            assert!(matches!(refused, Some(ProviderError::Corrupt(_))), "{} of {count}", spec.name());
        }
        for (other, _) in pairs.iter().filter(|(other, _)| other != spec) {
            let refused = decode(*other, whole);
            assert!(
                matches!(refused, Some(ProviderError::Corrupt(_))),
                "{} as {}",
                spec.name(),
                other.name()
            );
        }
        assert!(matches!(decode(KeySpec::Aes256, whole), Some(ProviderError::Rejected(_))));
    }
}

/// Decodes the public half of a pair; `None` where the provider leaves that to software.
fn half(fixture: &Fixture, stored: &StoredKey) -> Option<Arc<dyn PublicHalf>> {
    let public = stored.public_key.as_ref().expect("a pair has a public half");
    match (fixture.provider.public_half(stored.spec, public), fixture.halves) {
        (Ok(half), true) => Some(half),
        (Err(ProviderError::Rejected(_)), false) => None,
        (Ok(_), false) => panic!("it uses public halves, which its fixture does not say"),
        (Err(error), _) => panic!("{}: {error}", stored.spec.name()),
    }
}

fn signatures(fixture: &Fixture, spec: KeySpec) -> impl Iterator<Item = SignAlgorithm> {
    let offered = &fixture.provider.profile().signatures;
    spec.signatures().iter().copied().filter(|algorithm| offered.contains(algorithm))
}

fn all_decryptions() -> impl Iterator<Item = DecryptAlgorithm> {
    [KeySpec::Rsa2048, KeySpec::EcSm2].into_iter().flat_map(|spec| spec.decryptions()).copied()
}
