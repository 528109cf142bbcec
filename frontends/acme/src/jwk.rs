//! Public keys of accounts as JWK (RFC 7517, RFC 7518 §6, RFC 8037), their thumbprints (RFC 7638), and the check of what they signed.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    VerificationAlgorithm,
};
use keymill_core::acme::{AccountKey, Outcome, Problem, ProblemKind};
use serde_json::Value;

use crate::base64url;
use crate::json::Members;

/// Bytes of a modulus, at least and at most.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=512;
/// 65537, the one public exponent that is taken: what keys have, and what costs a verifier nothing beyond what it must.
const EXPONENT: &str = "AQAB";

/// A public key: one of the four kinds that accounts have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Jwk {
    /// Signs by ES256.
    P256 {
        /// The coordinates, 32 bytes each.
        point: [u8; 64],
    },
    /// Signs by ES384.
    P384 {
        /// The coordinates, 48 bytes each.
        point: [u8; 96],
    },
    /// Signs by EdDSA.
    Ed25519 {
        /// The point, compressed.
        point: [u8; 32],
    },
    /// Signs by RS256.
    Rsa {
        /// The modulus, of 2048 to 4096 bits; the exponent is 65537.
        modulus: Vec<u8>,
    },
}

impl Jwk {
    /// Reads a key.
    ///
    /// # Errors
    /// `BadPublicKey` for another kind, another size, a point that is on no curve, or a key that shows its private half.
    pub fn read(value: Value) -> Outcome<Self> {
        let mut members = Members::of(value, "jwk").map_err(|problem| bad(problem.detail))?;
        Self::of(&mut members).map_err(|problem| bad(problem.detail))
    }

    fn of(members: &mut Members) -> Outcome<Self> {
        // RFC 7518 §6: every private part of every kind, and the key of a symmetric one.
        if ["d", "p", "q", "dp", "dq", "qi", "oth", "k"].iter().any(|part| members.has(part)) {
            return Err(bad("jwk holds a private key, which is to be given up now"));
        }
        let key = match (&*members.needed("kty")?, members.text("crv")?.as_deref()) {
            ("EC", Some("P-256")) => Jwk::P256 { point: point(members)? },
            ("EC", Some("P-384")) => Jwk::P384 { point: point(members)? },
            ("OKP", Some("Ed25519")) => Jwk::Ed25519 { point: bytes(members, "x")? },
            ("RSA", None) => Jwk::Rsa { modulus: modulus(members)? },
            _ => return Err(bad("a key is of RSA, P-256, P-384 or Ed25519")),
        };
        match key.parsed() {
            Some(_) => Ok(key),
            None => Err(bad("jwk is no public key of its kind")),
        }
    }

    /// Reads the form that [`Self::canonical`] writes.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(text: &str) -> Outcome<Self> {
        Self::of(&mut Members::read(text.as_bytes(), "jwk").map_err(|problem| bad(problem.detail))?)
            .map_err(|problem| bad(problem.detail))
    }

    /// Returns the JSON that a thumbprint is of: required members in the order of their names, no white space (RFC 7638 §3).
    pub fn canonical(&self) -> String {
        let text = |bytes: &[u8]| base64url::encode(bytes);
        let of_curve = |curve: &str, point: &[u8]| {
            let (x, y) = point.split_at(point.len() / 2);
            format!(r#"{{"crv":"{curve}","kty":"EC","x":"{}","y":"{}"}}"#, text(x), text(y))
        };
        match self {
            Jwk::P256 { point } => of_curve("P-256", point),
            Jwk::P384 { point } => of_curve("P-384", point),
            Jwk::Ed25519 { point } => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, text(point)),
            Jwk::Rsa { modulus } => format!(r#"{{"e":"{EXPONENT}","kty":"RSA","n":"{}"}}"#, text(modulus)),
        }
    }

    /// Returns it as a record of an account has it.
    pub fn account_key(&self) -> AccountKey {
        let jwk = self.canonical();
        let thumbprint = base64url::encode(digest(&SHA256, jwk.as_bytes()));
        AccountKey { jwk, thumbprint }
    }

    /// Returns SubjectPublicKeyInfo in DER, which is what certificates have (RFC 5280 §4.1.2.7).
    pub fn spki(&self) -> Vec<u8> {
        // RFC 5480 §2: id-ecPublicKey with the curve, and a point that is not compressed.
        const P256: [u8; 27] = [
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
            0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
        ];
        const P384: [u8; 24] = [
            0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b,
            0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00, 0x04,
        ];
        // RFC 8410 §4.
        const ED25519: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        // RFC 8017, appendix A.1: rsaEncryption, NULL.
        const RSA: [u8; 15] =
            [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
        match self {
            Jwk::P256 { point } => [&P256[..], point].concat(),
            Jwk::P384 { point } => [&P384[..], point].concat(),
            Jwk::Ed25519 { point } => [&ED25519[..], point].concat(),
            Jwk::Rsa { modulus } => {
                // The sign is positive, whatever the first bit is.
                let sign: &[u8] = if modulus[0] & 0x80 == 0 { &[] } else { &[0] };
                let key = [der(0x02, &[sign, modulus]), der(0x02, &[&[1, 0, 1]])].concat();
                der(0x30, &[&RSA, &der(0x03, &[&[0], &der(0x30, &[&key])])])
            }
        }
    }

    /// Returns the algorithm of JWS by which it signs (RFC 7518 §3.1, RFC 8037 §3.1).
    pub fn algorithm(&self) -> &'static str {
        match self {
            Jwk::P256 { .. } => "ES256",
            Jwk::P384 { .. } => "ES384",
            Jwk::Ed25519 { .. } => "EdDSA",
            Jwk::Rsa { .. } => "RS256",
        }
    }

    /// Tells whether it signed a message.
    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        self.parsed().is_some_and(|key| key.verify_sig(message, signature).is_ok())
    }

    fn parsed(&self) -> Option<ParsedPublicKey> {
        let algorithm: &'static dyn VerificationAlgorithm = match self {
            Jwk::P256 { .. } => &ECDSA_P256_SHA256_FIXED,
            Jwk::P384 { .. } => &ECDSA_P384_SHA384_FIXED,
            Jwk::Ed25519 { .. } => &ED25519,
            Jwk::Rsa { .. } => &RSA_PKCS1_2048_8192_SHA256,
        };
        ParsedPublicKey::new(algorithm, self.spki()).ok()
    }
}

fn bad(why: impl AsRef<str>) -> Problem {
    Problem::new(ProblemKind::BadPublicKey, why)
}

/// Takes bytes of one length: leading zeros are written out (RFC 7518 §6.2.1.2), so that one key has one thumbprint.
fn bytes<const N: usize>(members: &mut Members, name: &str) -> Outcome<[u8; N]> {
    let bytes = base64url::decode(&members.needed(name)?, name)?;
    bytes.try_into().map_err(|_| bad(format!("jwk: {name} has not {N} bytes")))
}

fn point<const N: usize>(members: &mut Members) -> Outcome<[u8; N]> {
    let mut point = [0; N];
    let (x, y) = point.split_at_mut(N / 2);
    for (half, name) in [(x, "x"), (y, "y")] {
        let bytes = base64url::decode(&members.needed(name)?, name)?;
        if bytes.len() != half.len() {
            return Err(bad(format!("jwk: {name} has not {} bytes", half.len())));
        }
        half.copy_from_slice(&bytes);
    }
    Ok(point)
}

fn modulus(members: &mut Members) -> Outcome<Vec<u8>> {
    if members.needed("e")? != EXPONENT {
        return Err(bad("jwk: e is not 65537"));
    }
    let modulus = base64url::decode(&members.needed("n")?, "n")?;
    // RFC 7518 §6.3.1.1: no leading zero. 2048 bits are 256 bytes whose first has its highest bit.
    let is_of_size = MODULUS.contains(&modulus.len())
        && modulus.first().is_some_and(|first| *first != 0)
        && (modulus.len() > *MODULUS.start() || modulus[0] & 0x80 != 0);
    match is_of_size {
        true => Ok(modulus),
        false => Err(bad("jwk: n has 2048 to 4096 bits, and no leading zero")),
    }
}

/// Writes a value of DER; what is in it is shorter than 64 KiB here.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [high, low] = (content.len() as u16).to_be_bytes();
    let mut written = match content.len() {
        0..0x80 => vec![tag, low],
        0x80..0x100 => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    written.extend_from_slice(&content);
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signed::Account;

    fn refused(json: &str) -> Problem {
        Jwk::parse(json).unwrap_err()
    }

    /// RFC 7638 §3.1.
    #[test]
    fn the_thumbprint_is_that_of_the_rfc() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let jwk = format!(r#"{{"kty":"RSA","n":"{n}","e":"AQAB","alg":"RS256","kid":"2011-04-29"}}"#);
        let key = Jwk::parse(&jwk).unwrap();
        assert_eq!(key.account_key().thumbprint, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert_eq!(Jwk::parse(&key.canonical()).unwrap(), key);
    }

    /// RFC 8037, appendix A.3.
    #[test]
    fn the_thumbprint_of_ed25519_is_that_of_the_rfc() {
        let key = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let thumbprint = Jwk::parse(key).unwrap().account_key().thumbprint;
        assert_eq!(thumbprint, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn every_kind_reads_back_and_has_an_spki_that_the_library_takes() {
        for account in Account::each() {
            let key = account.jwk();
            assert_eq!(Jwk::parse(&key.canonical()).unwrap(), key);
            assert_eq!(key.spki(), account.spki(), "{}", key.algorithm());
        }
    }

    #[test]
    fn keys_that_are_none_or_are_weak_are_refused() {
        let z32 = "A".repeat(43);
        let n = |bytes: usize, first: u8| base64url::encode([&[first][..], &vec![0xff; bytes - 1]].concat());
        let rsa = |n: &str, e: &str| format!(r#"{{"kty":"RSA","n":"{n}","e":"{e}"}}"#);
        let private = Account::p256().jwk().canonical().replace("{", r#"{"d":"AA","#);
        for (json, told) in [
            ("[]".into(), "not a JSON object"),
            ("{}".into(), "kty is missing"),
            (r#"{"kty":"oct","k":"AA"}"#.into(), "private"),
            (r#"{"kty":"EC","crv":"P-521","x":"","y":""}"#.into(), "P-256"),
            (r#"{"kty":"EC","crv":"secp256k1","x":"","y":""}"#.into(), "P-256"),
            (r#"{"kty":"RSA","crv":"P-256"}"#.into(), "P-256"),
            (r#"{"kty":"OKP","crv":"X25519","x":""}"#.into(), "P-256"),
            (format!(r#"{{"kty":"EC","crv":"P-256","x":"{z32}","y":"{z32}"}}"#), "no public key"),
            (format!(r#"{{"kty":"EC","crv":"P-256","x":"AA","y":"{z32}"}}"#), "32 bytes"),
            (format!(r#"{{"kty":"EC","crv":"P-384","x":"{z32}","y":"{z32}"}}"#), "48 bytes"),
            (format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{z32}AAA"}}"#), "32 bytes"),
            (rsa(&n(256, 0xff), "Aw"), "65537"),
            (rsa(&n(256, 0xff), "AAEAAQ"), "65537"),
            (rsa(&n(256, 0x7f), "AQAB"), "2048"),
            (rsa(&n(257, 0), "AQAB"), "2048"),
            (rsa(&n(128, 0xff), "AQAB"), "2048"),
            (rsa(&n(513, 0xff), "AQAB"), "2048"),
            (rsa("AQ==", "AQAB"), "base64url"),
            (private, "private"),
        ] {
            let problem = refused(&json);
            assert_eq!(problem.kind, ProblemKind::BadPublicKey, "{json}");
            assert!(problem.detail.contains(told), "{json}: {problem}");
        }
    }
}
