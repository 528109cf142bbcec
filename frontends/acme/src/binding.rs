//! External account binding (RFC 8555 §7.3.4): the key of a new account, signed by an HMAC key that an administrator has handed out.

use aws_lc_rs::hmac;
use keymill_core::Sensitive;
use keymill_core::acme::{Outcome, Problem, ProblemKind};
use keymill_core::id::ClientKeyId;
use serde_json::Value;

use crate::json::{Members, malformed};
use crate::jwk::Jwk;
use crate::jws::Envelope;

/// The claim of a new account that it is bound, before that is checked.
pub struct BindingClaim {
    /// By which client key it claims to be bound.
    pub id: ClientKeyId,
    algorithm: hmac::Algorithm,
    signed: Vec<u8>,
    signature: Vec<u8>,
}

impl BindingClaim {
    /// Reads the claim of an account whose request went to `url` and is signed by `account`.
    ///
    /// # Errors
    /// `Malformed` for what is no such claim, or one of another URL or another key; `BadSignatureAlgorithm` for what is no HMAC; `Unauthorized` for
    /// a binding that cannot be.
    pub fn read(value: Value, url: &str, account: &Jwk) -> Outcome<Self> {
        let parts = Members::of(value, "externalAccountBinding")?;
        let Envelope { mut header, payload, signature, signed } = Envelope::of(parts)?;
        let algorithm = match &*header.needed("alg")? {
            "HS256" => hmac::HMAC_SHA256,
            "HS384" => hmac::HMAC_SHA384,
            "HS512" => hmac::HMAC_SHA512,
            _ => {
                let why = "externalAccountBinding is signed by HS256, HS384 or HS512";
                return Err(Problem::new(ProblemKind::BadSignatureAlgorithm, why));
            }
        };
        if header.has("nonce") || header.has("jwk") {
            return Err(malformed("externalAccountBinding has neither nonce nor jwk"));
        }
        if header.needed("url")? != url {
            return Err(malformed("externalAccountBinding is for another URL than its request"));
        }
        let id = header.needed("kid")?.parse().map_err(|_| unknown())?;
        // RFC 8555 §7.3.4: the same key, whatever the spelling.
        let bound =
            serde_json::from_slice(&payload).map_err(|_| malformed("externalAccountBinding holds no key"));
        if Jwk::read(bound?)? != *account {
            return Err(malformed("externalAccountBinding holds another key than that of the request"));
        }
        Ok(Self { id, algorithm, signed, signature })
    }

    /// Checks that the binding's key has signed it; `None` where there is no such binding, and no less is computed then.
    ///
    /// # Errors
    /// `Unauthorized`, alike for a binding that is unknown and for another key.
    pub fn verify(&self, key: Option<&Sensitive>) -> Outcome<()> {
        let none = [0; 32];
        let material = key.map_or(&none[..], Sensitive::expose);
        let holds = hmac::verify(&hmac::Key::new(self.algorithm, material), &self.signed, &self.signature);
        match (holds, key) {
            (Ok(()), Some(_)) => Ok(()),
            _ => Err(unknown()),
        }
    }
}

fn unknown() -> Problem {
    Problem::new(ProblemKind::Unauthorized, "the external account binding is unknown, or its key another")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::signed::{Account, binds};

    const URL: &str = "https://ca.example/acme/new-account";
    const KID: &str = "KAAP.0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9";

    fn header() -> Value {
        json!({"alg": "HS256", "kid": KID, "url": URL})
    }

    fn key() -> Sensitive {
        Sensitive::copied(&[7; 32])
    }

    #[test]
    fn who_has_the_key_binds_an_account_and_nobody_else() {
        let account = Account::p256();
        for algorithm in ["HS256", "HS384", "HS512"] {
            let mut header = header();
            header["alg"] = algorithm.into();
            let bound = binds(&[7; 32], &header, account.jwk().canonical().as_bytes());
            let claim = BindingClaim::read(bound, URL, &account.jwk()).unwrap();
            assert_eq!(claim.id.to_string(), KID);
            claim.verify(Some(&key())).unwrap();
            let refused = [claim.verify(None), claim.verify(Some(&Sensitive::copied(&[8; 32])))];
            assert_eq!(refused[0], refused[1], "alike");
            assert_eq!(refused[0].as_ref().unwrap_err().kind, ProblemKind::Unauthorized);
        }
    }

    #[test]
    fn a_binding_that_is_unknown_is_not_signed_by_zeros() {
        let account = Account::p256();
        let bound = binds(&[0; 32], &header(), account.jwk().canonical().as_bytes());
        assert!(BindingClaim::read(bound, URL, &account.jwk()).unwrap().verify(None).is_err());
    }

    #[test]
    fn claims_of_another_key_url_or_form_are_refused() {
        let (account, other) = (Account::p256(), Account::p256());
        let jwk = account.jwk();
        let refused = |header: &Value, payload: &[u8]| {
            BindingClaim::read(binds(&[7; 32], header, payload), URL, &jwk).map(drop).unwrap_err().kind
        };
        let canonical = jwk.canonical();
        let mine = canonical.as_bytes();
        assert_eq!(refused(&header(), other.jwk().canonical().as_bytes()), ProblemKind::Malformed);
        assert_eq!(refused(&header(), b"{}"), ProblemKind::BadPublicKey);
        assert_eq!(refused(&header(), b""), ProblemKind::Malformed);
        for (member, value, is) in [
            ("alg", json!("ES256"), ProblemKind::BadSignatureAlgorithm),
            ("alg", json!("none"), ProblemKind::BadSignatureAlgorithm),
            ("nonce", json!("n"), ProblemKind::Malformed),
            ("jwk", json!({}), ProblemKind::Malformed),
            ("url", json!("https://ca.example/acme/new-order"), ProblemKind::Malformed),
            ("kid", Value::Null, ProblemKind::Malformed),
            ("kid", json!("../acme-binding"), ProblemKind::Unauthorized),
        ] {
            let mut odd = header();
            odd[member] = value;
            assert_eq!(refused(&odd, mine), is, "{member}");
        }
        for odd in [json!("text"), json!({}), Value::Null] {
            assert!(BindingClaim::read(odd, URL, &jwk).is_err());
        }
    }
}
