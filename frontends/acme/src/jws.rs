//! Signed requests (RFC 8555 §6.2): JWS in the flattened JSON form alone (RFC 7515 §7.2.2), everything said of it under the signature.

use keymill_core::acme::{Outcome, Problem, ProblemKind};
use keymill_core::limit;

use crate::base64url;
use crate::json::{Members, malformed};
use crate::jwk::Jwk;

/// The algorithms of signatures that are taken. `none` is not among them, and HMAC signs bindings alone.
pub const ALGORITHMS: [&str; 4] = ["ES256", "ES384", "EdDSA", "RS256"];

/// The three parts, and the bytes that are signed.
pub(crate) struct Envelope {
    pub(crate) header: Members,
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) signed: Vec<u8>,
}

impl Envelope {
    pub(crate) fn of(mut parts: Members) -> Outcome<Self> {
        if parts.has("signatures") || parts.has("header") {
            let why = "a request has one signature, in the flattened form, and no header beside it";
            return Err(malformed(why));
        }
        let protected = parts.needed("protected")?;
        let payload = parts.needed("payload")?;
        let signature = base64url::decode(&parts.needed("signature")?, "signature")?;
        parts.end()?;
        let header = Members::read(&base64url::decode(&protected, "protected")?, "protected")?;
        // RFC 7515 §4.1.11: what must be understood and is not. `b64` (RFC 7797) is among that.
        if header.has("crit") || header.has("b64") {
            return Err(malformed("protected: extensions are not understood here"));
        }
        let signed = [protected.as_bytes(), b".", payload.as_bytes()].concat();
        Ok(Self { header, payload: base64url::decode(&payload, "payload")?, signature, signed })
    }
}

/// Who is said to have signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// A key, told whole.
    Key(Jwk),
    /// An account, told by its URL.
    Account(String),
}

/// A signed request before its signature is checked.
pub struct Jws {
    algorithm: &'static str,
    /// Who is said to have signed.
    pub signer: Signer,
    /// The URL that it is said to be for.
    pub url: String,
    /// The nonce; none in what is signed inside a request.
    pub nonce: Option<String>,
    payload: Vec<u8>,
    signed: Vec<u8>,
    signature: Vec<u8>,
}

impl Jws {
    /// Reads the body of a request.
    ///
    /// # Errors
    /// `Malformed` for what is no such request, `BadSignatureAlgorithm`, `BadPublicKey`, `BadNonce` where it has none.
    pub fn read(body: &[u8]) -> Outcome<Self> {
        if body.len() > limit::ACME_BODY_BYTES {
            let most = limit::ACME_BODY_BYTES;
            return Err(malformed(format!("a body of {} bytes exceeds the limit of {most}", body.len())));
        }
        let read = Self::of(Members::read(body, "the request")?)?;
        match read.nonce {
            Some(_) => Ok(read),
            None => Err(Problem::new(ProblemKind::BadNonce, "protected: nonce is missing")),
        }
    }

    /// Reads what is signed inside a request; it has no nonce of its own (RFC 8555 §7.3.5).
    pub(crate) fn inner(value: Members) -> Outcome<Self> {
        let read = Self::of(value)?;
        match read.nonce {
            None => Ok(read),
            Some(_) => Err(malformed("what is signed inside a request has no nonce")),
        }
    }

    fn of(parts: Members) -> Outcome<Self> {
        let Envelope { mut header, payload, signature, signed } = Envelope::of(parts)?;
        let algorithm = header.needed("alg")?;
        let Some(algorithm) = ALGORITHMS.into_iter().find(|known| *known == algorithm) else {
            let why = format!("alg is one of {}", ALGORITHMS.join(", "));
            return Err(Problem::new(ProblemKind::BadSignatureAlgorithm, why));
        };
        let (nonce, url) = (header.text("nonce")?, header.needed("url")?);
        let signer = match (header.take("jwk"), header.text("kid")?) {
            (Some(key), None) => Signer::Key(Jwk::read(key)?),
            (None, Some(account)) => Signer::Account(account),
            // RFC 8555 §6.2.
            _ => return Err(malformed("protected has one of jwk and kid")),
        };
        Ok(Self { algorithm, signer, url, nonce, payload, signed, signature })
    }

    /// Checks that it is for the URL at which it came (RFC 8555 §6.4).
    ///
    /// # Errors
    /// `Unauthorized` where it is for another.
    pub fn check_url(&self, url: &str) -> Outcome<()> {
        match self.url == url {
            true => Ok(()),
            false => {
                let why = "url of the signed header is not the one that was asked";
                Err(Problem::new(ProblemKind::Unauthorized, why))
            }
        }
    }

    /// Checks that a key has signed it.
    ///
    /// # Errors
    /// `BadSignatureAlgorithm` where the key signs by another, `Malformed` where it did not sign this.
    pub fn verify(self, key: &Jwk) -> Outcome<Verified> {
        if self.algorithm != key.algorithm() {
            let why = format!("a key of this kind signs by {}", key.algorithm());
            return Err(Problem::new(ProblemKind::BadSignatureAlgorithm, why));
        }
        match key.has_signed(&self.signed, &self.signature) {
            true => Ok(Verified { url: self.url, payload: self.payload }),
            false => Err(malformed("the signature is not one of the key over this request")),
        }
    }
}

/// What was signed.
#[derive(Debug)]
pub struct Verified {
    /// The URL that it is for.
    pub url: String,
    /// What it says; nothing in a request that asks for what there is (POST-as-GET, RFC 8555 §6.3).
    pub payload: Vec<u8>,
}

impl Verified {
    /// Checks that it asks for what there is, and says nothing.
    ///
    /// # Errors
    /// `Malformed` where it says something.
    pub fn check_get(&self) -> Outcome<()> {
        match self.payload.is_empty() {
            true => Ok(()),
            false => Err(malformed("what is asked for here is asked for with an empty payload")),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::signed::{Account, flattened};

    const URL: &str = "https://ca.example/acme/new-order";

    fn kind(body: &Value) -> ProblemKind {
        Jws::read(body.to_string().as_bytes()).map(drop).unwrap_err().kind
    }

    #[test]
    fn each_kind_of_key_signs_requests_and_no_other_key_did() {
        for account in Account::each() {
            let body = account.signs(json!({"nonce": "n", "url": URL}), b"{}");
            let key = account.jwk();
            let read = |body: &str| Jws::read(body.as_bytes()).unwrap();
            let jws = read(&body);
            assert_eq!(jws.signer, Signer::Key(key.clone()));
            jws.check_url(URL).unwrap();
            assert_eq!(
                jws.check_url("https://ca.example/acme/order").unwrap_err().kind,
                ProblemKind::Unauthorized
            );
            assert_eq!(jws.verify(&key).unwrap().payload, b"{}");
            for other in Account::each() {
                if other.jwk() != key {
                    assert!(read(&body).verify(&other.jwk()).is_err());
                }
            }
        }
    }

    #[test]
    fn a_change_of_any_part_breaks_the_signature() {
        let account = Account::p256();
        let body: Value =
            serde_json::from_str(&account.signs(json!({"nonce": "n", "url": URL}), b"{\"a\":1}")).unwrap();
        let other: Value =
            serde_json::from_str(&account.signs(json!({"nonce": "m", "url": URL}), b"{\"a\":2}")).unwrap();
        for part in ["protected", "payload", "signature"] {
            let mut mixed = body.clone();
            mixed[part] = other[part].clone();
            let jws = Jws::read(mixed.to_string().as_bytes()).unwrap();
            assert_eq!(jws.verify(&account.jwk()).unwrap_err().kind, ProblemKind::Malformed, "{part}");
        }
        let mut empty = body;
        empty["signature"] = "".into();
        assert!(Jws::read(empty.to_string().as_bytes()).unwrap().verify(&account.jwk()).is_err());
    }

    #[test]
    fn algorithms_that_check_nothing_or_check_by_another_key_are_refused() {
        let jwk: Value = serde_json::from_str(&Account::p256().jwk().canonical()).unwrap();
        for algorithm in ["none", "None", "HS256", "HS512", "ES512", "PS256", "RS512", "es256", ""] {
            let header = json!({"alg": algorithm, "nonce": "n", "url": URL, "jwk": jwk});
            assert_eq!(
                kind(&flattened(&header, b"", b"")),
                ProblemKind::BadSignatureAlgorithm,
                "{algorithm}"
            );
        }
        let header = json!({"alg": "ES384", "nonce": "n", "url": URL, "jwk": jwk});
        let jws = Jws::read(flattened(&header, b"", b"").to_string().as_bytes()).unwrap();
        let refused = jws.verify(&Account::p256().jwk()).unwrap_err();
        assert_eq!(refused.kind, ProblemKind::BadSignatureAlgorithm);
    }

    #[test]
    fn what_is_not_under_the_signature_or_not_understood_is_refused() {
        let account = Account::ed25519();
        let jwk: Value = serde_json::from_str(&account.jwk().canonical()).unwrap();
        let header = json!({"alg": "EdDSA", "nonce": "n", "url": URL, "jwk": jwk});
        let good = flattened(&header, b"", b"x");
        Jws::read(good.to_string().as_bytes()).unwrap();
        for (member, value) in [
            ("header", json!({"alg": "none"})),
            ("signatures", json!([])),
            ("extra", json!(1)),
            ("payload", json!({})),
            ("payload", Value::Null),
            ("protected", json!("")),
            ("protected", json!("e30=")),
            ("signature", json!("A")),
        ] {
            let mut body = good.clone();
            body[member] = value;
            assert_eq!(kind(&body), ProblemKind::Malformed, "{member}");
        }
        for (member, value, is) in [
            ("crit", json!(["exp"]), ProblemKind::Malformed),
            ("b64", json!(false), ProblemKind::Malformed),
            ("kid", json!("https://ca.example/acme/account/1"), ProblemKind::Malformed),
            ("jwk", Value::Null, ProblemKind::Malformed),
            ("url", Value::Null, ProblemKind::Malformed),
            ("alg", json!(7), ProblemKind::Malformed),
            ("nonce", Value::Null, ProblemKind::BadNonce),
            ("jwk", json!("key"), ProblemKind::BadPublicKey),
        ] {
            let mut odd = header.clone();
            odd[member] = value;
            assert_eq!(kind(&flattened(&odd, b"", b"x")), is, "{member}");
        }
        let twice = good.to_string().replacen('{', r#"{"payload":"","#, 1);
        assert_eq!(Jws::read(twice.as_bytes()).map(drop).unwrap_err().kind, ProblemKind::Malformed);
        let compact = format!("{}.{}.{}", "e30", "", "AA");
        assert_eq!(Jws::read(compact.as_bytes()).map(drop).unwrap_err().kind, ProblemKind::Malformed);
    }

    #[test]
    fn a_body_has_a_limit() {
        let body = vec![b' '; limit::ACME_BODY_BYTES + 1];
        assert!(Jws::read(&body).map(drop).unwrap_err().detail.contains("65536"));
    }
}
