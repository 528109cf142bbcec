#![doc = include_str!("../README.md")]

mod certificate;
mod client_key;

use std::fmt;
use std::hint::black_box;

use aws_lc_rs::hmac::{self, HMAC_SHA1_FOR_LEGACY_USE_ONLY, HMAC_SHA256};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use keymill_core::Sensitive;
use keymill_core::access::{AccessKeyStatus, AccessSnapshot, Principal};
use keymill_core::id::AccessKeyId;
use keymill_core::seam::auth::{AccessKeyMac, AuthError, Authenticator, Credential};

pub use certificate::CertificateAuthenticator;
pub use client_key::ClientKeyAuthenticator;

/// The options of this plugin; there are none yet.
#[derive(Clone, Debug, Default)]
pub struct Config {}

/// Makes the authenticator.
///
/// # Errors
/// [`OpenError`] where the system has no randomness.
pub fn open(_config: Config) -> Result<AccessKeyAuthenticator, OpenError> {
    let mut stand_in = Sensitive::zeroed(32);
    SystemRandom::new().fill(stand_in.expose_mut()).map_err(|_| OpenError)?;
    Ok(AccessKeyAuthenticator { stand_in })
}

/// Makes every authenticator of this plugin: which scheme a caller uses is the caller's choice.
///
/// # Errors
/// As of [`open`].
pub fn all(config: Config) -> Result<Vec<Box<dyn Authenticator>>, OpenError> {
    Ok(vec![Box::new(open(config)?), Box::new(ClientKeyAuthenticator), Box::new(CertificateAuthenticator)])
}

/// The system has no randomness.
#[derive(Debug)]
pub struct OpenError;

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system has no randomness to offer")
    }
}

impl std::error::Error for OpenError {}

/// Checks access keys by the MACs of [`AccessKeyMac`].
pub struct AccessKeyAuthenticator {
    /// Checked in the place of a key that does not exist.
    stand_in: Sensitive,
}

impl Authenticator for AccessKeyAuthenticator {
    fn scheme(&self) -> &'static str {
        "access-key"
    }

    fn authenticate(
        &self,
        offered: &Credential<'_>,
        signed: &[u8],
        known: &AccessSnapshot,
    ) -> Result<Principal, AuthError> {
        let Credential::AccessKey { id, mac, signature } = *offered else { return Err(AuthError::Unknown) };
        let found = id.parse::<AccessKeyId>().ok().and_then(|id| known.access_keys.get(&id));
        let secret = found.map_or(&self.stand_in, |key| &key.secret);
        let matches = black_box(verify(secret, mac, signed, signature));
        let key = found.ok_or(AuthError::Unknown)?;
        if !matches {
            return Err(AuthError::Mismatch);
        }
        match key.status {
            AccessKeyStatus::Active => Ok(Principal::of_access_key(key.id.clone())),
            AccessKeyStatus::Inactive => Err(AuthError::Inactive),
        }
    }
}

fn verify(secret: &Sensitive, mac: AccessKeyMac<'_>, signed: &[u8], signature: &[u8]) -> bool {
    let key = match mac {
        AccessKeyMac::HmacSha256 => hmac::Key::new(HMAC_SHA256, secret.expose()),
        AccessKeyMac::Derived { prefix, texts } => {
            let first = hmac::Key::new(HMAC_SHA256, joined(prefix.as_bytes(), secret.expose()).expose());
            texts.iter().fold(first, |key, text| {
                hmac::Key::new(HMAC_SHA256, hmac::sign(&key, text.as_bytes()).as_ref())
            })
        }
        AccessKeyMac::HmacSha1Rpc => {
            hmac::Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, joined(secret.expose(), b"&").expose())
        }
    };
    hmac::verify(&key, signed, signature).is_ok()
}

fn joined(first: &[u8], second: &[u8]) -> Sensitive {
    let mut joined = Sensitive::zeroed(first.len() + second.len());
    let (one, two) = joined.expose_mut().split_at_mut(first.len());
    one.copy_from_slice(first);
    two.copy_from_slice(second);
    joined
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use aws_lc_rs::{digest, hmac};
    use keymill_core::access::AccessKey;
    use keymill_core::{Error, Timestamp};

    use super::*;

    const SIGNED: &[u8] = b"ACS3-HMAC-SHA256\n0a1b2c3d";
    const SECRET: &[u8] = b"4s8bGq1mYx0cQ2vT7nRkLz3WdEfHjUpA";
    const HMAC_SHA256_OF_SIGNED: &str = "94ddb856556747ea60d8a1a9f09fd1a3c4f97c14adc19301f62a34797f70052d";
    const DERIVED_OF_SIGNED: &str = "aab145e198fa7d90b7201908e412a27bd4f4c4f22719b15add2af537224a56e6";
    const HMAC_SHA1_OF_SIGNED: &str = "42d683152ecf797ddf89d9d30b3eb921eeab8545";

    fn snapshot() -> AccessSnapshot {
        let mut snapshot = AccessSnapshot::default();
        let keys = [("active-key", AccessKeyStatus::Active), ("inactive-key", AccessKeyStatus::Inactive)];
        for (id, status) in keys {
            let id: AccessKeyId = id.parse().unwrap();
            let key = AccessKey {
                id: id.clone(),
                secret: Sensitive::copied(SECRET),
                description: String::new(),
                status,
                grants: Vec::new(),
                created_at: Timestamp::from_ms(0),
            };
            snapshot.access_keys.insert(id, Arc::new(key));
        }
        snapshot
    }

    fn signature(secret: &[u8]) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(HMAC_SHA256, secret), SIGNED).as_ref().to_vec()
    }

    fn ask(id: &str, signed: &[u8], signature: &[u8]) -> Result<Principal, AuthError> {
        ask_by(AccessKeyMac::HmacSha256, id, signed, signature)
    }

    fn ask_by(
        mac: AccessKeyMac<'_>,
        id: &str,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<Principal, AuthError> {
        let offered = Credential::AccessKey { id, mac, signature };
        open(Config {}).unwrap().authenticate(&offered, signed, &snapshot())
    }

    #[test]
    fn the_holder_of_the_secret_is_known_by_the_access_key() {
        let principal = ask("active-key", SIGNED, &signature(SECRET)).unwrap();
        assert_eq!(principal.access_key.as_str(), "active-key");
    }

    // D1: no, empty, shortened or extended signatures, and those of other algorithms.
    #[test]
    fn anything_but_the_whole_hmac_sha256_is_refused() {
        let right = signature(SECRET);
        for length in 0..right.len() {
            assert_eq!(
                ask("active-key", SIGNED, &right[..length]),
                Err(AuthError::Mismatch),
                "{length} bytes"
            );
        }
        let extended = [&right[..], &[0]].concat();
        let twice = [&right[..], &right[..]].concat();
        let text: String = right.iter().map(|b| format!("{b:02x}")).collect();
        let of = |algorithm| hmac::sign(&hmac::Key::new(algorithm, SECRET), SIGNED).as_ref().to_vec();
        let unkeyed = digest::digest(&digest::SHA256, SIGNED).as_ref().to_vec();
        let (sha1, sha512) = (of(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY), of(hmac::HMAC_SHA512));
        for other in [extended, twice, text.into_bytes(), sha1, sha512, unkeyed, vec![0; 32], signature(b"")]
        {
            assert_eq!(ask("active-key", SIGNED, &other), Err(AuthError::Mismatch));
        }
    }

    /// Each MAC is that of its own kind alone: the signature of one is none of another. Values by Python's `hmac`.
    #[test]
    fn a_mac_of_another_kind_is_refused() {
        let derived = AccessKeyMac::Derived {
            prefix: "aliyun_v4",
            texts: &["20260102", "cn-hangzhou", "Kms", "aliyun_v4_request"],
        };
        let other_day = AccessKeyMac::Derived {
            prefix: "aliyun_v4",
            texts: &["20260103", "cn-hangzhou", "Kms", "aliyun_v4_request"],
        };
        let kinds = [
            (AccessKeyMac::HmacSha256, HMAC_SHA256_OF_SIGNED),
            (derived, DERIVED_OF_SIGNED),
            (AccessKeyMac::HmacSha1Rpc, HMAC_SHA1_OF_SIGNED),
        ];
        let unhex = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        for (i, (mac, _)) in kinds.iter().enumerate() {
            for (j, (_, signature)) in kinds.iter().enumerate() {
                let asked = ask_by(*mac, "active-key", SIGNED, &unhex(signature));
                assert_eq!(asked.is_ok(), i == j, "{mac:?}, {signature}");
            }
        }
        let asked = ask_by(other_day, "active-key", SIGNED, &unhex(DERIVED_OF_SIGNED));
        assert_eq!(asked, Err(AuthError::Mismatch));
    }

    #[test]
    fn every_changed_bit_of_signature_or_text_is_refused() {
        let right = signature(SECRET);
        for bit in 0..8 * right.len() {
            let mut changed = right.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ask("active-key", SIGNED, &changed), Err(AuthError::Mismatch));
        }
        for bit in 0..8 * SIGNED.len() {
            let mut changed = SIGNED.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ask("active-key", &changed, &right), Err(AuthError::Mismatch));
        }
    }

    // D1, D5: a key that is switched off shows itself only to its holder.
    #[test]
    fn an_inactive_key_with_a_wrong_signature_looks_like_any_wrong_signature() {
        assert_eq!(ask("inactive-key", SIGNED, &signature(SECRET)), Err(AuthError::Inactive));
        let texts = ["inactive-key", "active-key"].map(|id| {
            let error = Error::from(ask(id, SIGNED, &signature(b"another secret")).unwrap_err());
            (error.kind(), error.message().to_owned())
        });
        assert_eq!(texts[0], texts[1]);
    }

    #[test]
    fn an_id_that_is_absent_and_one_that_cannot_be_are_alike() {
        let long = "x".repeat(1 << 20);
        let (prefix, cased) = ("active-ke", "Active-key");
        for id in
            ["", "short", "absent-key", prefix, cased, "active-key ", "active-key\0", "ключ-ключ", &long]
        {
            for signature in [&signature(SECRET)[..], &[]] {
                assert_eq!(ask(id, SIGNED, signature), Err(AuthError::Unknown));
            }
        }
    }

    // D5, as far as it shows here: medians of 10^4 interleaved samples a class. A few nanoseconds of the map's lookup remain, so
    // Welch's t belongs where a caller can measure, at a connection. The best of five rounds, since the machine is shared.
    #[test]
    fn an_unknown_key_takes_as_long_as_a_wrong_signature_within_a_twentieth() {
        let (authenticator, snapshot, wrong) = (open(Config {}).unwrap(), snapshot(), signature(b"wrong"));
        let sample = |id| {
            let offered = Credential::AccessKey { id, mac: AccessKeyMac::HmacSha256, signature: &wrong };
            let begin = Instant::now();
            let answer = black_box(authenticator.authenticate(&offered, SIGNED, &snapshot));
            let took = begin.elapsed().as_nanos() as f64;
            assert!(answer.is_err());
            took
        };
        let ratios: Vec<f64> = (0..5)
            .map(|_| {
                let pairs = (0..10_000).map(|_| (sample("absent-key"), sample("active-key")));
                let (absent, present) = pairs.unzip();
                median(absent) / median(present)
            })
            .collect();
        assert!(ratios.iter().any(|ratio| (0.95..1.05).contains(ratio)), "absent to present: {ratios:?}");
    }

    fn median(mut samples: Vec<f64>) -> f64 {
        samples.sort_by(f64::total_cmp);
        samples[samples.len() / 2]
    }
}
