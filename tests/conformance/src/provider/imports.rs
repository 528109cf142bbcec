//! Key material that comes wrapped into a provider, by a pair of its own.

use aws_lc_rs::hmac;
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use aws_lc_rs::rsa::{
    OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OaepAlgorithm, OaepPublicEncryptingKey, PublicEncryptingKey,
};
use keymill_core::key::{KeyCheck, KeySpec, KeyUsage, SignAlgorithm, WrappingAlgorithm};
use keymill_core::seam::provider::{KeyCustody, ProviderError, SignJob, StoredKey, Unwrapped, WrappedImport};

use super::Fixture;

const ALGORITHMS: [WrappingAlgorithm; 5] = [
    WrappingAlgorithm::RsaesOaepSha1,
    WrappingAlgorithm::RsaesOaepSha256,
    WrappingAlgorithm::RsaAesKeyWrapSha256,
    WrappingAlgorithm::RsaesPkcs1V15,
    WrappingAlgorithm::Sm2Pke,
];
const MATERIAL: [u8; 32] = *b"thirty-two bytes made elsewhere.";

fn encrypted(wrapping: &StoredKey, oaep: &'static OaepAlgorithm, text: &[u8]) -> Vec<u8> {
    let public = wrapping.public_key.as_ref().expect("a pair has a public half");
    let key = PublicEncryptingKey::from_der(public.as_der()).expect("it is a key of RSA");
    let key = OaepPublicEncryptingKey::new(key).expect("it encrypts");
    let mut out = vec![0; key.ciphertext_size()];
    key.encrypt(oaep, text, &mut out, None).expect("it is short enough").to_vec()
}

/// Wraps material as somebody would who has it.
fn wrapped(wrapping: &StoredKey, algorithm: WrappingAlgorithm, material: &[u8]) -> Vec<u8> {
    let oaep = match algorithm {
        WrappingAlgorithm::RsaesOaepSha1 => &OAEP_SHA1_MGF1SHA1,
        _ => &OAEP_SHA256_MGF1SHA256,
    };
    if !algorithm.is_hybrid() {
        return encrypted(wrapping, oaep, material);
    }
    let key = [0x5c; 32];
    let mut out = vec![0; material.len().next_multiple_of(8) + 8];
    let kek = AesKek::new(&AES_256, &key).expect("it has 32 bytes");
    let inner = kek.wrap_with_padding(material, &mut out).expect("it can be wrapped");
    [&encrypted(wrapping, oaep, &key), &*inner].concat()
}

/// Brings what was wrapped, as a key that computes MACs.
fn bring(
    custody: &mut dyn KeyCustody,
    wrapping: StoredKey,
    algorithm: WrappingAlgorithm,
    wrapped: Vec<u8>,
    check: Option<KeyCheck>,
) -> (Result<Unwrapped, ProviderError>, StoredKey) {
    let (spec, usage) = (KeySpec::HmacSha256, KeyUsage::GenerateVerifyMac);
    let import = WrappedImport { spec, usage, bulk_mode: None, wrapping, algorithm, wrapped, check };
    (custody.import_wrapped(&import), import.wrapping)
}

/// Takes material in that was wrapped by a pair of its own: it is the key that was made elsewhere, each time, and never another.
pub fn wrapped_material_is_the_key_that_was_made_elsewhere(fixture: &Fixture) {
    let mut custody = fixture.custody();
    for algorithm in fixture.provider.profile().imports.clone() {
        let wrapping = custody.generate_wrapping_key(KeySpec::Rsa2048, algorithm).expect("it is offered");
        let good = wrapped(&wrapping, algorithm, &MATERIAL);
        let (first, wrapping) = bring(&mut *custody, wrapping, algorithm, good, None);
        let first = first.expect("it unwraps");
        let handle = custody.load(&first.key).expect("it loads");
        let mut jobs = [SignJob::new(SignAlgorithm::HmacSha256, b"message".to_vec())];
        fixture.session().sign(&handle, &mut jobs).expect("the session lives");
        let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &MATERIAL), b"message");
        let [SignJob { output, .. }] = jobs;
        assert_eq!(output.expect("it is done").expect("it signs"), expected.as_ref(), "{algorithm:?}");

        let check = Some(first.check.clone());
        let good = wrapped(&wrapping, algorithm, &MATERIAL);
        let (again, wrapping) = bring(&mut *custody, wrapping, algorithm, good, check.clone());
        assert_eq!(again.expect("it is the same").check, first.check);
        let mut wrapping = wrapping;
        let mut flipped = wrapped(&wrapping, algorithm, &MATERIAL);
        *flipped.last_mut().expect("it has bytes") ^= 1;
        for (wrong, check) in [
            (wrapped(&wrapping, algorithm, &[7; 32]), check),
            (wrapped(&wrapping, algorithm, &MATERIAL[1..]), None),
            (flipped, None),
            (Vec::new(), None),
        ] {
            let (refused, of) = bring(&mut *custody, wrapping, algorithm, wrong, check);
            assert!(matches!(refused, Err(ProviderError::Rejected(_))), "{algorithm:?}");
            wrapping = of;
        }
        custody.destroy_wrapping_key(&wrapping).expect("it is there");
        let good = wrapped(&wrapping, algorithm, &MATERIAL);
        let (refused, wrapping) = bring(&mut *custody, wrapping, algorithm, good, None);
        assert!(matches!(refused, Err(ProviderError::Corrupt(_))), "{algorithm:?}");
        custody.destroy_wrapping_key(&wrapping).expect("one that is gone is as good");
    }
}

/// Makes no pair for what its profile does not list.
pub fn wrapping_that_the_profile_does_not_list_is_rejected(fixture: &Fixture) {
    let mut custody = fixture.custody();
    for algorithm in ALGORITHMS {
        let is_listed = fixture.provider.profile().imports.contains(&algorithm);
        for spec in KeySpec::ALL {
            if !is_listed || spec.modulus_bytes().is_none() {
                let refused = custody.generate_wrapping_key(spec, algorithm).map(drop);
                assert!(matches!(refused, Err(ProviderError::Rejected(_))), "{algorithm:?} {spec:?}");
            }
        }
    }
}
