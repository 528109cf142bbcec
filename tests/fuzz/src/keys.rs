//! Keys and what is made with them, as they come from outside: public halves, private keys that are imported, and ciphertexts and signatures
//! of SM2, whose DER is decoded here. There is one encoding of each, so that whatever is taken, is not taken cut, longer, or as another kind.

use std::sync::{Arc, OnceLock};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use keymill_core::Sensitive;
use keymill_core::key::{DecryptAlgorithm, KeySpec, KeyUsage, SignAlgorithm};
use keymill_core::seam::provider::{
    CryptoProvider, DecryptJob, JobError, KeyHandle, KeyMaterial, ProviderError, PublicHalf, PublicKey,
    StoredKey,
};
use keymill_provider_software::{Config, SoftwareProvider};

use crate::memory::{room, within};
use crate::target::Seed;

/// Every key pair; an input names one by its first byte.
const PAIRS: [KeySpec; 9] = [
    KeySpec::EcSm2,
    KeySpec::EcP256,
    KeySpec::EcP384,
    KeySpec::EcP256K,
    KeySpec::Ed25519,
    KeySpec::MlDsa65,
    KeySpec::Rsa2048,
    KeySpec::Rsa3072,
    KeySpec::Rsa4096,
];

/// What keys and their tables take, whatever the input: the longest is of ML-DSA.
const KEY_ROOM: usize = 1 << 20;

fn provider() -> &'static SoftwareProvider {
    static PROVIDER: OnceLock<SoftwareProvider> = OnceLock::new();
    PROVIDER.get_or_init(|| keymill_provider_software::open(Config {}).expect("the provider opens"))
}

fn import(spec: KeySpec, usage: KeyUsage, pkcs8: &[u8]) -> Result<StoredKey, ProviderError> {
    let mut custody = provider().custody().expect("the control lane is free");
    custody.import(spec, usage, None, &Sensitive::copied(pkcs8))
}

fn half(spec: KeySpec, der: &[u8]) -> Option<Arc<dyn PublicHalf>> {
    match provider().public_half(spec, &PublicKey::from_der(der.to_vec())) {
        Ok(half) => Some(half),
        Err(ProviderError::Corrupt(why)) => {
            assert!(why.len() < 100, "{why}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// A public half: what is taken is whole, is of one specification, and uses no bytes wrongly.
pub(crate) mod public_half {
    use super::*;

    /// Decodes what follows the first byte as a public half, and uses it.
    pub(crate) fn check(bytes: &[u8]) {
        provider();
        let Some((kind, der)) = bytes.split_first() else { return };
        let spec = PAIRS[usize::from(*kind) % PAIRS.len()];
        let Some(half) = within(KEY_ROOM + room(der.len()), || half(spec, der)) else { return };
        for other in PAIRS.into_iter().filter(|other| *other != spec) {
            assert!(super::half(other, der).is_none(), "{} is {}", spec.name(), other.name());
        }
        assert!(super::half(spec, &der[1..]).is_none() && super::half(spec, &der[..der.len() - 1]).is_none());
        assert!(super::half(spec, &[der, &[0]].concat()).is_none());
        for algorithm in spec.signatures() {
            let signed = half.signed(*algorithm, b"message").expect("it has the algorithm");
            // Nobody has signed: all of this is noise, but for keys whose private half everybody knows.
            let _ = half.verify(*algorithm, &signed, der).expect("it is what was signed");
            assert_eq!(half.verify(*algorithm, &signed, &[]), Ok(false));
        }
        for algorithm in spec.decryptions() {
            // Nothing is encrypted under a small exponent.
            let Some(longest) = half.max_plaintext_bytes(*algorithm) else { continue };
            let sealed = half.encrypt(*algorithm, &vec![7; longest.min(190)]).expect("it fits");
            assert!(sealed.len() > longest.min(190));
        }
    }

    /// Returns the public half of every kind.
    pub(crate) fn seeds() -> Vec<Seed> {
        let public = |(spec, name, pkcs8): (KeySpec, _, Vec<u8>)| {
            let stored = import(spec, KeyUsage::SignVerify, &pkcs8).expect("it is a key");
            let public = stored.public_key.expect("a pair has a public half");
            (name, [&[kind(spec)][..], public.as_der()].concat())
        };
        keys().into_iter().map(public).collect()
    }
}

/// PKCS #8: what is taken is taken again, to the same key, and whatever is refused is refused in words.
pub(crate) mod private_key {
    use super::*;

    /// Imports what follows the first byte, for a usage that its highest bit chooses where there are two.
    pub(crate) fn check(bytes: &[u8]) {
        provider();
        let Some((kind, pkcs8)) = bytes.split_first() else { return };
        let spec = PAIRS[usize::from(*kind & 0x7f) % PAIRS.len()];
        let usage = spec.usages()[usize::from(*kind >> 7) % spec.usages().len()];
        match within(KEY_ROOM + room(pkcs8.len()), || import(spec, usage, pkcs8)) {
            Ok(stored) => {
                let KeyMaterial::Clear(material) = &stored.material else {
                    panic!("software has clear bytes")
                };
                let again = import(spec, usage, material.expose()).expect("what was taken is taken again");
                let KeyMaterial::Clear(same) = &again.material else { panic!("software has clear bytes") };
                assert!(same.expose() == material.expose() && again.public_key == stored.public_key);
                let public = stored.public_key.as_ref().expect("a pair has a public half");
                assert!(half(spec, public.as_der()).is_some());
                let mut custody = provider().custody().expect("the control lane is free");
                custody.load(&stored).expect("what was taken loads");
                assert!(import(spec, usage, &pkcs8[..pkcs8.len() - 1]).is_err());
                assert!(import(spec, usage, &[pkcs8, &[0]].concat()).is_err());
            }
            Err(ProviderError::Rejected(why)) => {
                assert!(why.len() < 120 && !why.chars().any(char::is_control), "{why:?}");
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Returns a private key of every kind, for each of its usages.
    pub(crate) fn seeds() -> Vec<Seed> {
        let mut seeds = Vec::new();
        for (spec, name, pkcs8) in keys() {
            seeds.push((name, [&[kind(spec)][..], &pkcs8].concat()));
            if spec == KeySpec::EcSm2 || spec == KeySpec::Rsa2048 {
                let name = if spec == KeySpec::EcSm2 { "sm2-opens" } else { "rsa-opens" };
                seeds.push((name, [&[kind(spec) | 0x80][..], &pkcs8].concat()));
            }
        }
        seeds
    }
}

/// SM2: a ciphertext or a signature under the key of the standard's examples. What is taken is what was made, to the byte.
pub(crate) mod sm2 {
    use super::*;

    /// A key that decrypts, and the public half of the same that verifies.
    fn pair() -> &'static (KeyHandle, Arc<dyn PublicHalf>) {
        static PAIR: OnceLock<(KeyHandle, Arc<dyn PublicHalf>)> = OnceLock::new();
        PAIR.get_or_init(|| {
            let (spec, _, pkcs8) = keys().swap_remove(0);
            let stored = import(spec, KeyUsage::EncryptDecrypt, &pkcs8).expect("it is a key");
            let half = half(spec, stored.public_key.as_ref().expect("a pair has a public half").as_der());
            let mut custody = provider().custody().expect("the control lane is free");
            (custody.load(&stored).expect("it loads"), half.expect("it is a public half"))
        })
    }

    /// Decrypts, or verifies where the first byte is odd, what follows that.
    pub(crate) fn check(bytes: &[u8]) {
        pair();
        let Some((kind, der)) = bytes.split_first() else { return };
        let works: fn(&[u8]) -> bool = if kind % 2 == 0 { opens } else { verifies };
        if !within(KEY_ROOM + room(der.len()), || works(der)) {
            return;
        }
        assert!(!works(&der[..der.len() - 1]) && !works(&[der, &[0]].concat()));
        for at in [0, 1, 2, 3, der.len() / 2, der.len() - 1] {
            let mut changed = der.to_vec();
            changed[at] ^= 1;
            assert!(!works(&changed), "byte {at}");
        }
    }

    fn opens(der: &[u8]) -> bool {
        let mut jobs = [DecryptJob::new(DecryptAlgorithm::Sm2Pke, der.to_vec())];
        let mut session = provider().open_session().expect("a session opens");
        session.decrypt_asymmetric(&pair().0, &mut jobs).expect("the session lives");
        let [job] = jobs;
        match job.output.expect("the job is done") {
            Ok(text) => {
                assert!(!text.is_empty() && text.len() < der.len());
                true
            }
            Err(error) => {
                assert_eq!(error, JobError::InvalidCiphertext);
                false
            }
        }
    }

    fn verifies(der: &[u8]) -> bool {
        let half = &pair().1;
        let signed = half.signed(SignAlgorithm::Sm2Dsa, b"message digest").expect("it has the algorithm");
        half.verify(SignAlgorithm::Sm2Dsa, &signed, der).expect("it is what was signed")
    }

    /// Returns the ciphertext and the signature of GM/T 0003.5.
    pub(crate) fn seeds() -> Vec<Seed> {
        let ciphertext = concat!(
            "MHwCIATr/HGOjReYYgQyJo53/rZBXi7eDgc8D09kDs0uFJpzAiEA6Fj52B5UMKV7Ntqrj5UKPGTm7mpjCU2ZKDr/dn4S",
            "TfAEIFmYPBj4CeJikjxTrsKV0wODtU451gnRYK/LGQjQvYdmBBMhiGypicqcfVgIcwfKkwktZR76"
        );
        let signature = concat!(
            "MEYCIQD1oDsGSNLEYw7qxRPhu4GhWUTaOCfVt0FDrH6s7ucgswIhALG2qinfIS/YdjGCvA1CHKG7kDj9H39C1IQLacSF",
            "u8Gq"
        );
        let seed = |kind: u8, text| [&[kind][..], &decoded(text)].concat();
        vec![("ciphertext", seed(0, ciphertext)), ("signature", seed(1, signature))]
    }
}

fn kind(spec: KeySpec) -> u8 {
    PAIRS.iter().position(|pair| *pair == spec).expect("it is a pair") as u8
}

fn decoded(base64: &str) -> Vec<u8> {
    STANDARD.decode(base64).expect("it is base64")
}

/// Returns a key of each algorithm, SM2 first: the examples of GM/T 0003.5 and RFC 8032, scalars of 5, Wycheproof's seed of ML-DSA and the
/// key of its rsa_oaep_2048_sha1_mgf1sha1_test.json.
fn keys() -> Vec<(KeySpec, &'static str, Vec<u8>)> {
    let curve = |name: &[u8], scalar: &[u8]| {
        let algorithm = [&[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1][..], name].concat();
        let key = element(0x30, &[&[2, 1, 1], &element(4, &[scalar])]);
        element(0x30, &[&[2, 1, 0], &element(0x30, &[&algorithm]), &element(4, &[&key])])
    };
    let five = |bytes: usize| [&vec![0u8; bytes - 1][..], &[5]].concat();
    let sm2 = decoded("OUUgj3shRLE/NuOKxtOflYiTk2koYLUaQvuB7033xbg=");
    let rsa = concat!(
        "MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQC9McegJpHS2Vh+9qlG/3iFRMyt1LKYitYghnkqa/lshha0",
        "rRMxfSJwuQHQ/NHYgMuPUvuHMEpSWMEbON/q6N9nCu7n6h0NnfjgDoCEfkHlmJ7UAtROeLMP7xe1Zx062/hoXk3CBEmezRhj",
        "4dWv8op89m6t8x/skjbBIK3RNFFSLGR8mDKmcs1k0yjBwyIYP0Zh0JvaYLjdXwMo2lQgghQkr9q7GoDF0SdjobAjjNidB0K/",
        "xQtqL8twHYJCGPmCb094ojorWqQqzn8XU3b7bL2yutKTulg9TTHGuPkCnkaxNokkmFX1BXVuAOIlpqRaGHab2NKzpKy58cI9",
        "PlGIJWHlAgMBAAECggEAB0fVIMqbLfwDNc+UMBFAuBAvuDjJLqmZF+NU4lcJYC3Aze8jH/Jq0t+rvDkecjBypO9Skp8/HPAh",
        "bkTACTAw+KwpCW+u8okzvJuSQocBTi6TXiFFvkdSzLgst2RicZNpecq3P1Ie6yeFWsKkEINK5Qguti72+Yme5cu2JKjYwEq3",
        "7c94/hNdD4CPY7XebgcXeb8dnqr40++WVIbyxSYl5uV6ZRx7vQGXyZwFezhgoyYMhkoRs88iukTeOjs/MRfmTr+akfYm67Pz",
        "wm0bC7gHU0aNS/apl7KDNfIO2MOE11WDYKmul1VmH6N0mEaxdOa/Mw5S0JlB9szX3lAEd5+buQKBgQD+PSONN2o4VtlZL9SW",
        "HBen+w+jnUQunfIuftoRXGSMXLc434nqktg3hVjQ2cHPPYv/dA03Q6AUCmp1I+kXbClTssEdf0RpHPi+wrNPtZxklTWYMxlI",
        "gRjAMRiudEXnDfRmzphnEmDwXVBoznd9qX4rqEd5SQUAzrT/f2LOypoUfwKBgQC+gUrya/PCcRW8dZXQ0Soa93E/7Kh3rm5t",
        "hYgl7aPRknBHdPQuGuG2fxc56MRaBHY4gHD6VFt8yWuKRAA7yNB/3nP1vN0YJoOV3MKEK1Aj/xSzUjgmB7cXml6jMIQPxFBF",
        "2G4KzE/rE18KubfOa4619aV18qKo3imcDT9QbfSHmwKBgGG7TPRXLgz0Td78BQOjTvCzEUL7DJ/C9bsr5lYwJzLR3VkOjWzQ",
        "AC/vocG/Q8KPzUZo7T+mTl4F1wCqykrHuGdFWvkk2D5z9acXH2jvzmvX899LHVgC0GnpNayyY8C7W409s9ZDeWJM7MEtRT/Y",
        "LPlJWhhkmnjB/VAOPwRxW6OvAoGAZknb6SCnqM65ghCM2auFdSdJiq5SorhpGKtrOBpKLLv5R5T3i03pxeilmvVtgHwG0j28",
        "69yhpvYrpPjwOymPMilKkDbRbCc53hzD4N200S8keUh7V4gq+iRsDil9r02UYHxeUbP0cV9cV9DybYZ5ASCdsCAQ0KVBKEZA",
        "qbnwY2MCgYA57GBvXJ8fM9lkYG4Sjp6Qz/kydyxXFap1mBbVBO/ixGIG8zeaph0x+I5ya1DdgLjOhVig10CFJfWMM5nOMuI5",
        "1wlB8S0h53YcBD4LAiINJf/QNXHHrlu9WcMfSBIGdvnXw3CnSdhJG9/OoBZioTbIXTSbbHEPxvbr+Kenm2Ktww==",
    );
    vec![
        (KeySpec::EcSm2, "sm2", curve(&[6, 8, 0x2a, 0x81, 0x1c, 0xcf, 0x55, 1, 0x82, 0x2d], &sm2)),
        (KeySpec::EcP256, "p256", curve(&[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], &five(32))),
        (KeySpec::EcP384, "p384", curve(&[6, 5, 0x2b, 0x81, 4, 0, 0x22], &five(48))),
        (KeySpec::EcP256K, "p256k", curve(&[6, 5, 0x2b, 0x81, 4, 0, 0x0a], &five(32))),
        (
            KeySpec::Ed25519,
            "ed25519",
            decoded("MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g"),
        ),
        (
            KeySpec::MlDsa65,
            "ml-dsa",
            decoded("MDQCAQAwCwYJYIZIAWUDBAMSBCKAICoqKioqKioqKioqKioqKioqKioqKioqKioqKioqKioq"),
        ),
        (KeySpec::Rsa2048, "rsa", decoded(rsa)),
    ]
}

/// Writes one element of DER of fewer than 128 bytes.
fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    [&[tag, content.len() as u8][..], &content].concat()
}
