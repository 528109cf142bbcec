//! Key material that comes wrapped into a token: by each algorithm that it offers, as each kind of key that comes so; known again, and
//! refused where it is another, is damaged, or has another length; and the pairs that unwrap it, which leave nothing behind.

// All of it is test.
#![allow(clippy::unwrap_used)]

mod support;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::hmac;
use aws_lc_rs::key_wrap::{AES_256, AesKek, KeyWrapPadded};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RsaKeyPair};
use keymill_core::Sensitive;
use keymill_core::key::{BulkMode, KeyCheck, KeySpec, KeyUsage, SignAlgorithm, WrappingAlgorithm};
use keymill_core::seam::provider::{
    AeadBatch, AeadItem, CryptoProvider, DeriveJob, KeyMaterial, ProviderError, SignJob, StoredKey,
    Unwrapped, WrappedImport,
};
use keymill_provider_pkcs11::Pkcs11Provider;
use keymill_provider_pkcs11::module::{Attribute, Session, User, number::*};

const MATERIAL: [u8; 64] = *b"sixty-four bytes of material that somebody else has made himself";
const KEK: [u8; 32] = [0x5c; 32];

fn look(label: &str) -> Session {
    let session = support::module().open_session(support::slot(label), true).unwrap();
    let _already = session.login(User::User, &Sensitive::copied(support::PIN));
    session
}

/// Counts the objects that imports made on the token and those of sessions, but for the canary.
fn left(session: &Session) -> (usize, usize) {
    let count = |class, on_token| {
        let found = session
            .find_objects(&[Attribute::number(CKA_CLASS, class), Attribute::flag(CKA_TOKEN, on_token)]);
        found.unwrap().len()
    };
    let of_token = count(CKO_PRIVATE_KEY, true) + count(CKO_PUBLIC_KEY, true);
    (of_token, count(CKO_SECRET_KEY, false) + count(CKO_PRIVATE_KEY, false) + count(CKO_PUBLIC_KEY, false))
}

fn wrapping(provider: &Pkcs11Provider, algorithm: WrappingAlgorithm) -> StoredKey {
    provider.custody().unwrap().generate_wrapping_key(KeySpec::Rsa2048, algorithm).unwrap()
}

fn key_wrap(kek: &[u8; 32], material: &[u8]) -> Vec<u8> {
    let mut out = vec![0; material.len().next_multiple_of(8) + 8];
    AesKek::new(&AES_256, kek).unwrap().wrap_with_padding(material, &mut out).unwrap().to_vec()
}

fn wrapped(wrapping: &StoredKey, algorithm: WrappingAlgorithm, material: &[u8]) -> Vec<u8> {
    match algorithm {
        WrappingAlgorithm::RsaesOaepSha1 => support::encrypt(wrapping, &OAEP_SHA1_MGF1SHA1, material),
        WrappingAlgorithm::RsaesOaepSha256 => support::encrypt(wrapping, &OAEP_SHA256_MGF1SHA256, material),
        WrappingAlgorithm::RsaAesKeyWrapSha256 => {
            [support::encrypt(wrapping, &OAEP_SHA256_MGF1SHA256, &KEK), key_wrap(&KEK, material)].concat()
        }
        other => panic!("{other:?}"),
    }
}

type Kind = (KeySpec, KeyUsage, Option<BulkMode>);

fn kinds(provider: &Pkcs11Provider) -> Vec<Kind> {
    let seals = KeyUsage::EncryptDecrypt;
    let macs = KeyUsage::GenerateVerifyMac;
    [
        (KeySpec::Aes256, seals, Some(BulkMode::InHsm)),
        (KeySpec::Aes256, seals, Some(BulkMode::HsmDerived)),
        (KeySpec::Aes192, seals, Some(BulkMode::InHsm)),
        (KeySpec::Aes128, seals, Some(BulkMode::InHsm)),
        (KeySpec::HmacSha256, macs, None),
        (KeySpec::HmacSha384, macs, None),
        (KeySpec::HmacSha512, macs, None),
    ]
    .into_iter()
    .filter(|(spec, ..)| provider.profile().specs.contains(spec))
    .collect()
}

struct Import<'a> {
    provider: &'a Pkcs11Provider,
    wrapping: StoredKey,
    algorithm: WrappingAlgorithm,
}

impl Import<'_> {
    fn bring(
        &self,
        (spec, usage, bulk_mode): Kind,
        wrapped: Vec<u8>,
        check: Option<&KeyCheck>,
    ) -> Result<Unwrapped, ProviderError> {
        let wrapping: StoredKey =
            serde_json::from_str(&serde_json::to_string(&self.wrapping).unwrap()).unwrap();
        let (algorithm, check) = (self.algorithm, check.cloned());
        let import = WrappedImport { spec, usage, bulk_mode, wrapping, algorithm, wrapped, check };
        self.provider.custody().unwrap().import_wrapped(&import)
    }

    fn wrap(&self, material: &[u8]) -> Vec<u8> {
        wrapped(&self.wrapping, self.algorithm, material)
    }
}

/// What a loaded key makes of something, so that two can be compared.
fn used(provider: &Pkcs11Provider, key: &StoredKey) -> Vec<u8> {
    let handle = provider.custody().unwrap().load(key).unwrap();
    let mut session = provider.open_session().unwrap();
    match (key.bulk_mode, key.spec) {
        (Some(BulkMode::InHsm), _) => {
            let mut batch = AeadBatch { buffer: vec![7; 56], aad: Vec::new(), items: Vec::new() };
            batch.items.push(AeadItem { nonce: [1; 12], aad: 0..0, text: 0..40, outcome: None });
            session.encrypt(&handle, &mut batch).unwrap();
            assert_eq!(batch.items[0].outcome, Some(Ok(())));
            batch.buffer
        }
        (Some(BulkMode::HsmDerived), _) => {
            let mut jobs = [DeriveJob::new([[1; 16], [2; 16]])];
            session.derive(&handle, &mut jobs).unwrap();
            let [DeriveJob { output, .. }] = jobs;
            output.unwrap().unwrap().expose().to_vec()
        }
        (None, spec) => {
            let mut jobs = [SignJob::new(spec.signatures()[0], b"message".to_vec())];
            session.sign(&handle, &mut jobs).unwrap();
            let [SignJob { output, .. }] = jobs;
            output.unwrap().unwrap()
        }
    }
}

fn refused<T>(done: Result<T, ProviderError>) -> String {
    match done {
        Err(ProviderError::Rejected(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was taken"),
    }
}

#[test]
fn material_is_unwrapped_in_the_token_and_is_the_key_that_it_was() {
    let label = support::new_token();
    let provider = support::open_token(&label);
    let session = look(&label);
    let before = left(&session);
    let offered = provider.profile().imports.clone();
    // What SoftHSM has of OAEP is SHA-1; Kryoptic has all.
    let expected = match support::is_kryoptic() {
        true => 3,
        false => 1,
    };
    assert_eq!(offered.len(), expected, "{offered:?}");
    for algorithm in offered {
        let import = Import { provider: &provider, wrapping: wrapping(&provider, algorithm), algorithm };
        for kind in kinds(&provider) {
            let (spec, _, mode) = kind;
            let bytes = spec.material_bytes().unwrap();
            let material = &MATERIAL[..bytes];
            let first = import.bring(kind, import.wrap(material), None).unwrap();
            assert!(matches!(first.key.material, KeyMaterial::Wrapped(_)), "{kind:?}");
            assert!(first.check.as_bytes().len() >= 32, "{kind:?}");
            let known = support::bring(&label, provider.module_profile(), spec, material, mode);
            assert_eq!(used(&provider, &first.key), used(&provider, &known), "{algorithm:?} {kind:?}");
            if let Some(SignAlgorithm::HmacSha256) = spec.signatures().first() {
                let key = hmac::Key::new(hmac::HMAC_SHA256, material);
                assert_eq!(used(&provider, &first.key), hmac::sign(&key, b"message").as_ref());
            }
            // It is known again, by a check that is the same each time, and nothing else is.
            let again = import.bring(kind, import.wrap(material), Some(&first.check)).unwrap();
            assert_eq!(again.check, first.check);
            assert_eq!(import.bring(kind, import.wrap(material), None).unwrap().check, first.check);
            let other = &MATERIAL[MATERIAL.len() - bytes..];
            if other != material {
                refused(import.bring(kind, import.wrap(other), Some(&first.check)));
            }
        }
        provider.custody().unwrap().destroy_wrapping_key(&import.wrapping).unwrap();
    }
    provider.custody().unwrap().canary().unwrap();
    let loaded = kinds(&provider).len() * 2 * expected;
    let after = left(&session);
    assert_eq!(after.0, before.0, "no pair is left");
    assert!(after.1 <= before.1 + loaded, "{before:?} {after:?}: what was loaded, and nothing else");
}

#[test]
fn another_length_and_whatever_does_not_unwrap_is_refused_and_the_token_goes_on() {
    let label = support::new_token();
    let provider = support::open_token(&label);
    let session = look(&label);
    for algorithm in provider.profile().imports.clone() {
        let before = left(&session);
        let import = Import { provider: &provider, wrapping: wrapping(&provider, algorithm), algorithm };
        let other = wrapping(&provider, algorithm);
        for kind in kinds(&provider) {
            let bytes = kind.0.material_bytes().unwrap();
            for wrong in [1, 8, 15, 16, 24, bytes - 8, bytes - 1, bytes + 1, bytes + 8] {
                if wrong != bytes {
                    let material = vec![7; wrong];
                    let done = import.bring(kind, import.wrap(&material), None);
                    assert!(done.is_err(), "{wrong} bytes as {kind:?} by {algorithm:?}");
                    refused(done);
                }
            }
            let good = import.wrap(&MATERIAL[..bytes]);
            let mut flipped = good.clone();
            flipped[7] ^= 1;
            let mut last = good.clone();
            *last.last_mut().unwrap() ^= 1;
            for wrong in [
                flipped,
                last,
                wrapped(&other, algorithm, &MATERIAL[..bytes]),
                Vec::new(),
                vec![0; good.len()],
                vec![0xff; good.len()],
                good[..good.len() - 1].to_vec(),
                [&good[..], &[0]].concat(),
                [&good[..], &[0; 8]].concat(),
            ] {
                refused(import.bring(kind, wrong, None));
            }
            assert!(import.bring(kind, good, None).is_ok());
        }
        let custody = || provider.custody().unwrap();
        // A pair that is gone, and one of which somebody else took the place, open nothing.
        custody().destroy_wrapping_key(&import.wrapping).unwrap();
        custody().destroy_wrapping_key(&import.wrapping).unwrap();
        let kind = kinds(&provider)[0];
        match import.bring(kind, import.wrap(&MATERIAL[..32]), None) {
            Err(ProviderError::Corrupt(why)) => assert!(why.contains("any more"), "{why}"),
            other => panic!("{:?}", other.map(|done| done.check)),
        }
        custody().destroy_wrapping_key(&other).unwrap();
        custody().canary().unwrap();
        assert_eq!(left(&session), before, "{algorithm:?}");
    }
}

#[test]
fn key_pairs_of_rsa_come_as_pkcs_8_under_a_key_that_comes_by_rsa() {
    let label = support::new_token();
    let provider = support::open_token(&label);
    let algorithm = WrappingAlgorithm::RsaAesKeyWrapSha256;
    let (rsa, curve) = (KeySpec::Rsa2048, KeySpec::EcP256);
    if !provider.profile().imports(rsa, algorithm) {
        assert!(!support::is_kryoptic(), "it has OAEP with SHA-256");
        refused(provider.custody().unwrap().generate_wrapping_key(rsa, algorithm));
        return;
    }
    assert!(!provider.profile().imports(rsa, WrappingAlgorithm::RsaesOaepSha256));
    let session = look(&label);
    let import = Import { provider: &provider, wrapping: wrapping(&provider, algorithm), algorithm };
    let pkcs8 = |size| {
        let pair = RsaKeyPair::generate(size).unwrap();
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
        (private.as_ref().to_vec(), public.as_ref().to_vec())
    };
    let (private, public) = pkcs8(KeySize::Rsa2048);
    let (other, _) = pkcs8(KeySize::Rsa2048);
    let (longer, longer_public) = pkcs8(KeySize::Rsa3072);
    let signer = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let signer = signer.to_pkcs8v1().unwrap();
    let before = left(&session);
    for (usage, size, private, public) in [
        (KeyUsage::SignVerify, rsa, &private, &public),
        (KeyUsage::EncryptDecrypt, rsa, &private, &public),
        (KeyUsage::SignVerify, KeySpec::Rsa3072, &longer, &longer_public),
    ] {
        let kind = (size, usage, None);
        let taken = import.bring(kind, import.wrap(private), None).unwrap();
        assert_eq!(taken.key.public_key.as_ref().unwrap().as_der(), public);
        assert_eq!(taken.check.as_bytes(), public);
        // What loads is proved to belong to it.
        provider.custody().unwrap().load(&taken.key).unwrap();
        assert!(import.bring(kind, import.wrap(private), Some(&taken.check)).is_ok());
        refused(import.bring(kind, import.wrap(&other), Some(&taken.check)));
    }
    let kind = (rsa, KeyUsage::SignVerify, None);
    let mut flipped = private.clone();
    // In its modulus: another number can be wrong, and others make up for it.
    flipped[100] ^= 1;
    for wrong in [&longer[..], signer.as_ref(), &MATERIAL, &private[1..], &flipped, &[7; 1217]] {
        refused(import.bring(kind, import.wrap(wrong), None));
    }
    refused(import.bring(
        (KeySpec::Aes256, KeyUsage::EncryptDecrypt, Some(BulkMode::InHsm)),
        import.wrap(&private),
        None,
    ));
    // No module tells the public half of a private key on a curve.
    refused(import.bring((curve, KeyUsage::SignVerify, None), import.wrap(signer.as_ref()), None));
    let custody = || provider.custody().unwrap();
    custody().canary().unwrap();
    custody().destroy_wrapping_key(&import.wrapping).unwrap();
    let after = left(&session);
    assert_eq!((after.0, after.1), (0, before.1 + 3), "what was loaded is left");
}

#[test]
fn a_pair_unwraps_in_its_token_and_does_nothing_else() {
    let label = support::new_token();
    let provider = support::open_token(&label);
    let session = look(&label);
    let offered = provider.profile().imports.clone();
    let wrapping = wrapping(&provider, offered[0]);
    let object = wrapping.token_object().unwrap();
    assert!(object.label.starts_with("keymill import "), "{}", object.label);
    let found = session.find_objects(&[Attribute::bytes(CKA_ID, &object.id)]).unwrap();
    let &[private] = &found[..] else { panic!("{} objects", found.len()) };
    for (kind, wanted) in [
        (CKA_TOKEN, true),
        (CKA_PRIVATE, true),
        (CKA_SENSITIVE, true),
        (CKA_EXTRACTABLE, false),
        (CKA_NEVER_EXTRACTABLE, true),
        (CKA_UNWRAP, true),
        (CKA_DECRYPT, false),
        (CKA_SIGN, false),
        (CKA_MODIFIABLE, false),
    ] {
        assert_eq!(session.flag(private, kind).unwrap(), wanted, "0x{kind:x}");
    }
    // It is no key that a CMK could have.
    assert!(provider.custody().unwrap().load(&wrapping).is_err());
    // Whoever has the PIN unwraps nothing by it that can be read.
    let readable = [
        Attribute::number(CKA_CLASS, CKO_SECRET_KEY),
        Attribute::number(CKA_KEY_TYPE, CKK_AES),
        Attribute::flag(CKA_TOKEN, false),
        Attribute::flag(CKA_SENSITIVE, false),
        Attribute::flag(CKA_EXTRACTABLE, true),
    ];
    let oaep =
        keymill_provider_pkcs11::module::Mechanism::RsaOaep(keymill_provider_pkcs11::module::Hash::Sha1);
    let sealed = support::encrypt(&wrapping, &OAEP_SHA1_MGF1SHA1, &MATERIAL[..32]);
    if let Ok(key) = session.unwrap_key(oaep, private, &sealed, &readable) {
        assert!(session.flag(key, CKA_SENSITIVE).unwrap(), "it was unwrapped as one that can be read");
    }
    // Another token's is none of ours.
    let elsewhere = support::open_token(&support::new_token());
    refused(elsewhere.custody().unwrap().destroy_wrapping_key(&wrapping));
    let import = Import { provider: &elsewhere, wrapping, algorithm: offered[0] };
    let kind = kinds(&provider)[0];
    refused(import.bring(kind, import.wrap(&MATERIAL[..32]), None));
}

#[test]
fn what_a_token_does_not_offer_is_refused_before_there_is_a_pair() {
    let label = support::new_token();
    let provider = support::open_token(&label);
    let session = look(&label);
    let before = left(&session);
    let mut custody = provider.custody().unwrap();
    for algorithm in [
        WrappingAlgorithm::RsaesOaepSha256,
        WrappingAlgorithm::RsaAesKeyWrapSha256,
        WrappingAlgorithm::RsaesPkcs1V15,
        WrappingAlgorithm::Sm2Pke,
    ] {
        if !provider.profile().imports.contains(&algorithm) {
            let why = refused(custody.generate_wrapping_key(KeySpec::Rsa2048, algorithm));
            assert!(why.contains(algorithm.name()), "{why}");
        }
    }
    let algorithm = provider.profile().imports[0];
    for spec in [KeySpec::EcP256, KeySpec::Aes256, KeySpec::EcSm2] {
        refused(custody.generate_wrapping_key(spec, algorithm));
    }
    assert_eq!(left(&session), before);
}
