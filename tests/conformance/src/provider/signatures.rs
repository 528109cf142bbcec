//! Signatures and MACs: what they are by another implementation, and who is blamed for what does not fit.

use std::sync::Arc;

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256K1_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, ML_DSA_65,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256, VerificationAlgorithm,
};
use keymill_core::key::{KeySpec, KeyUsage, SignAlgorithm};
use keymill_core::seam::provider::{CryptoSession, JobError, KeyHandle, PublicKey, SignJob, StoredKey};
use sm2::dsa::signature::hazmat::PrehashVerifier;
use sm2::dsa::{Signature, VerifyingKey};
use sm2::pkcs8::DecodePublicKey;

use super::{Fixture, Use, bytes, sign};

/// Tells whether another implementation takes a signature of a digest or message.
pub fn verifies(
    spec: KeySpec,
    algorithm: SignAlgorithm,
    public: &PublicKey,
    digest: &[u8],
    signature: &[u8],
) -> bool {
    let how: &'static dyn VerificationAlgorithm = match (spec, algorithm) {
        (_, SignAlgorithm::RsaPssSha256) => &RSA_PSS_2048_8192_SHA256,
        (_, SignAlgorithm::RsaPkcs1Sha256) => &RSA_PKCS1_2048_8192_SHA256,
        (KeySpec::EcP256K, SignAlgorithm::EcdsaSha256) => &ECDSA_P256K1_SHA256_ASN1,
        (_, SignAlgorithm::EcdsaSha256) => &ECDSA_P256_SHA256_ASN1,
        (_, SignAlgorithm::EcdsaSha384) => &ECDSA_P384_SHA384_ASN1,
        (_, SignAlgorithm::Ed25519) => &ED25519,
        (_, SignAlgorithm::MlDsa65) => &ML_DSA_65,
        (_, SignAlgorithm::Sm2Dsa) => {
            let key = VerifyingKey::new(SM2_IDENTITY, sm2_of(public)).expect("an identity of few bytes");
            return Signature::from_der(signature)
                .is_ok_and(|signature| key.verify_prehash(digest, &signature).is_ok());
        }
        (_, SignAlgorithm::HmacSha256 | SignAlgorithm::HmacSha384 | SignAlgorithm::HmacSha512) => {
            panic!("{} is no signature", algorithm.name())
        }
    };
    let key = ParsedPublicKey::new(how, public.as_der()).expect("a public key in SubjectPublicKeyInfo");
    if algorithm.digest_bytes().is_none() {
        return key.verify_sig(digest, signature).is_ok();
    }
    let hash = if algorithm == SignAlgorithm::EcdsaSha384 { &digest::SHA384 } else { &digest::SHA256 };
    let digest = Digest::import_less_safe(digest, hash).expect("a digest of the algorithm's length");
    key.verify_digest_sig(&digest, signature).is_ok()
}

/// The identity of those who have agreed on none (GB/T 35276, 10).
pub(super) const SM2_IDENTITY: &str = "1234567812345678";

pub(super) fn sm2_of(public: &PublicKey) -> sm2::PublicKey {
    sm2::PublicKey::from_public_key_der(public.as_der()).expect("a public key of SM2 in SubjectPublicKeyInfo")
}

/// Makes a digest of the algorithm's length, or a message.
pub(super) fn input(algorithm: SignAlgorithm, seed: u8) -> Vec<u8> {
    vec![seed; algorithm.digest_bytes().unwrap_or(100)]
}

/// RFC 4231, case 1: a key shorter than the block is filled up with zeroes (RFC 2104), so that its 20 bytes are these.
pub fn a_mac_is_the_hmac_of_the_standard(fixture: &Fixture) {
    let expected = [
        (
            KeySpec::HmacSha256,
            bytes::<32>("b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7").to_vec(),
        ),
        (
            KeySpec::HmacSha384,
            bytes::<48>(concat!(
                "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59c",
                "faea9ea9076ede7f4af152e8b2fa9cb6"
            ))
            .to_vec(),
        ),
        (
            KeySpec::HmacSha512,
            bytes::<64>(concat!(
                "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde",
                "daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854"
            ))
            .to_vec(),
        ),
    ];
    let offered = fixture.offered(KeyUsage::GenerateVerifyMac);
    for (spec, expected) in expected.into_iter().filter(|(spec, _)| offered.contains(spec)) {
        let algorithm = spec.signatures()[0];
        let mut material = vec![0x0b; 20];
        material.resize(spec.material_bytes().expect("a MAC has one key"), 0);
        let key = fixture.load(&(fixture.bring)(spec, &material, None));
        let mut session = fixture.session();
        let mac = sign(&mut *session, &key, algorithm, b"Hi There");
        assert_eq!(mac.as_ref(), Ok(&expected), "{}", spec.name());
        // Nothing is a message, too, and one of several blocks is done in one go.
        let others = [&b""[..], &[7; 5000]];
        let macs = others.map(|message| sign(&mut *session, &key, algorithm, message));
        let is_another = |mac: &Vec<u8>| mac.len() == expected.len() && *mac != expected;
        assert!(macs.iter().all(|mac| mac.as_ref().is_ok_and(is_another)), "{}", spec.name());
        assert_ne!(macs[0], macs[1]);
    }
}

/// Signs with each key that it offers, in each way that it says; PKCS #1 v1.5 alike each time, which makes it the one answer there is.
pub fn every_signature_verifies_elsewhere_and_for_its_digest_alone(fixture: &Fixture) {
    let profile = fixture.provider.profile();
    let specs = fixture.offered(KeyUsage::SignVerify);
    for spec in specs {
        let stored = fixture.made(spec, KeyUsage::SignVerify);
        let public = stored.public_key.as_ref().expect("a pair has a public half");
        let key = fixture.load(&stored);
        let mut session = fixture.session();
        for algorithm in spec.signatures().iter().filter(|algorithm| profile.signatures.contains(algorithm)) {
            // Leading zeroes and ones of each number come up among many.
            for seed in 0..8 {
                let input = input(*algorithm, seed);
                let signature = sign(&mut *session, &key, *algorithm, &input).expect("it signs");
                assert!(
                    verifies(spec, *algorithm, public, &input, &signature),
                    "{} {}",
                    spec.name(),
                    algorithm.name()
                );
                assert!(!verifies(spec, *algorithm, public, &self::input(*algorithm, seed + 1), &signature));
                if *algorithm == SignAlgorithm::RsaPkcs1Sha256 {
                    assert_eq!(sign(&mut *session, &key, *algorithm, &input), Ok(signature));
                }
            }
        }
    }
}

/// Sees to it that a digest of another length, or an algorithm of another key, never reaches what computes.
pub fn a_job_that_does_not_fit_is_rejected_and_leaves_its_neighbours_fine(fixture: &Fixture) {
    for (spec, usage) in signers(fixture) {
        let key = fixture.load(&fixture.made(spec, usage));
        let mut session = fixture.session();
        let own = *own(fixture, spec);
        let foreign =
            if spec == KeySpec::HmacSha256 { SignAlgorithm::EcdsaSha256 } else { SignAlgorithm::HmacSha256 };
        let mut jobs = vec![
            SignJob::new(own, input(own, 1)),
            SignJob::new(foreign, input(foreign, 1)),
            SignJob::new(own, input(own, 2)),
        ];
        if let Some(length) = own.digest_bytes() {
            for wrong in [0, 1, 20, length - 1, length + 1, 64, 4096] {
                jobs.insert(1, SignJob::new(own, vec![1; wrong]));
            }
        }
        session.sign(&key, &mut jobs).expect("the session lives");
        let last = jobs.len() - 1;
        for (i, job) in jobs.into_iter().enumerate() {
            match job.output.expect("each job is done") {
                Ok(_) => assert!(i == 0 || i == last, "{} job {i}", spec.name()),
                Err(error) => {
                    assert!(error == JobError::Rejected && i != 0 && i != last, "{} job {i}", spec.name())
                }
            }
        }
        session.sign(&key, &mut []).expect("nothing is a batch, too");
    }
}

/// Touches no job that another session has done.
pub fn a_signature_that_has_its_outcome_is_left_alone(fixture: &Fixture) {
    if fixture.offered(KeyUsage::GenerateVerifyMac).is_empty() {
        return;
    }
    let key = fixture.load(&fixture.made(KeySpec::HmacSha256, KeyUsage::GenerateVerifyMac));
    let mut jobs: Vec<_> = (0..5).map(|i| SignJob::new(SignAlgorithm::HmacSha256, vec![i; 9])).collect();
    jobs[2].output = Some(Ok(vec![1, 2, 3]));
    jobs[3].output = Some(Err(JobError::Rejected));
    let mut session = fixture.session();
    session.sign(&key, &mut jobs).expect("the session lives");
    for (i, job) in jobs.into_iter().enumerate() {
        let expected = match i {
            2 => Ok(vec![1, 2, 3]),
            3 => Err(JobError::Rejected),
            _ => sign(&mut *session, &key, job.algorithm, &job.input),
        };
        assert_eq!(job.output, Some(expected), "job {i}");
    }
}

/// Lets sessions on several threads sign with one key at once.
pub fn one_key_signs_on_every_session(fixture: &Fixture) {
    for (spec, usage) in
        signers(fixture).into_iter().filter(|(spec, _)| !matches!(spec, KeySpec::Rsa3072 | KeySpec::Rsa4096))
    {
        let stored = fixture.made(spec, usage);
        let key = fixture.load(&stored);
        let algorithm = *own(fixture, spec);
        let mac = sign(&mut *fixture.session(), &key, algorithm, &input(algorithm, 9)).expect("it signs");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let (mut session, key, mac, stored) = (fixture.session(), &key, &mac, &stored);
                scope.spawn(move || {
                    for _ in 0..20 {
                        let made =
                            sign(&mut *session, key, algorithm, &input(algorithm, 9)).expect("it signs");
                        match &stored.public_key {
                            Some(public) => {
                                assert!(verifies(spec, algorithm, public, &input(algorithm, 9), &made));
                            }
                            None => assert_eq!(made, *mac),
                        }
                    }
                });
            }
        });
    }
}

/// Refuses, and never uses, a handle of another opening, an older generation, another technology.
pub fn signing_with_a_handle_of_another_provider_is_stale(fixture: &Fixture) {
    if fixture.offered(KeyUsage::GenerateVerifyMac).is_empty() {
        return;
    }
    let ours = fixture.load(&fixture.made(KeySpec::HmacSha256, KeyUsage::GenerateVerifyMac));
    let mut strangers = fixture.other.open_session().expect("a session opens");
    let older = KeyHandle { generation: ours.generation.wrapping_sub(1), ..ours.clone() };
    let foreign =
        KeyHandle { generation: ours.generation, object: Arc::new("an object of another technology") };
    let mut own = fixture.session();
    let cases: [(&mut dyn CryptoSession, _); 3] =
        [(&mut *strangers, &ours), (&mut *own, &older), (&mut *fixture.session(), &foreign)];
    for (session, handle) in cases {
        let stale = sign(session, handle, SignAlgorithm::HmacSha256, b"message");
        assert_eq!(stale, Err(JobError::StaleHandle));
        let stale =
            super::decrypt(session, handle, keymill_core::key::DecryptAlgorithm::RsaesOaepSha1, &[7; 256]);
        assert_eq!(stale, Err(JobError::StaleHandle));
    }
}

/// Keeps each key to the usage that it was made for.
pub fn a_key_does_what_it_was_made_for_and_nothing_else(fixture: &Fixture) {
    let mut session = fixture.session();
    let encrypts = fixture.fresh(Use::Aead);
    for algorithm in [SignAlgorithm::HmacSha256, SignAlgorithm::EcdsaSha256, SignAlgorithm::RsaPssSha256] {
        assert_eq!(sign(&mut *session, &encrypts, algorithm, &input(algorithm, 1)), Err(JobError::Rejected));
    }
    let pairs = fixture.offered(KeyUsage::SignVerify);
    let all = signers(fixture)
        .into_iter()
        .filter(|(spec, _)| matches!(spec, KeySpec::Rsa2048 | KeySpec::EcP256 | KeySpec::HmacSha256));
    for (spec, usage) in all {
        let key = fixture.load(&fixture.made(spec, usage));
        let text = [super::Message::numbered(3)];
        assert_eq!(super::seal(&mut *session, &key, &text), [Err(JobError::Rejected)], "{}", spec.name());
        assert_eq!(super::derive(&mut *session, &key, [[1; 16]; 2]), Err(JobError::Rejected));
        for algorithm in KeySpec::Rsa2048.decryptions() {
            assert_eq!(super::decrypt(&mut *session, &key, *algorithm, &[7; 256]), Err(JobError::Rejected));
        }
    }
    if pairs.contains(&KeySpec::Rsa2048)
        && fixture.offered(KeyUsage::EncryptDecrypt).contains(&KeySpec::Rsa2048)
    {
        let opens = fixture.load(&fixture.made(KeySpec::Rsa2048, KeyUsage::EncryptDecrypt));
        for algorithm in KeySpec::Rsa2048.signatures() {
            assert_eq!(
                sign(&mut *session, &opens, *algorithm, &input(*algorithm, 1)),
                Err(JobError::Rejected)
            );
        }
    }
}

/// Returns what signs or computes MACs, with its usage; of RSA the smallest alone, for the others take long to be born.
fn signers(fixture: &Fixture) -> Vec<(KeySpec, KeyUsage)> {
    [KeyUsage::SignVerify, KeyUsage::GenerateVerifyMac]
        .into_iter()
        .flat_map(|usage| fixture.offered(usage).into_iter().filter(is_quick).map(move |spec| (spec, usage)))
        .collect()
}

pub(super) fn is_quick(spec: &KeySpec) -> bool {
    !matches!(spec, KeySpec::Rsa3072 | KeySpec::Rsa4096)
}

/// Returns the first algorithm of a key that the provider offers.
pub(super) fn own(fixture: &Fixture, spec: KeySpec) -> &'static SignAlgorithm {
    let offered = |algorithm: &&SignAlgorithm| fixture.provider.profile().signatures.contains(algorithm);
    spec.signatures().iter().find(offered).expect("the profile offers the key")
}

/// Returns one pair of each kind that signs: the smallest of RSA, and every curve.
pub(super) fn pairs(fixture: &Fixture) -> Vec<(KeySpec, StoredKey)> {
    let specs = fixture.offered(KeyUsage::SignVerify).into_iter().filter(is_quick);
    specs.map(|spec| (spec, fixture.made(spec, KeyUsage::SignVerify))).collect()
}
