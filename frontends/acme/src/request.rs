//! What verified requests say, each read from its payload.

use keymill_core::acme::{Outcome, Problem, ProblemKind, contacts, identifier};
use keymill_core::certificate::AltName;
use keymill_core::limit;

use crate::base64url;
use crate::binding::BindingClaim;
use crate::json::{Members, malformed};
use crate::jwk::Jwk;
use crate::jws::{Jws, Signer, Verified};

/// What `newAccount` asks for (RFC 8555 §7.3).
pub struct NewAccount {
    /// Where the holder is reached.
    pub contact: Vec<String>,
    /// Whether an account is only looked for.
    pub only_existing: bool,
    /// By what it is bound.
    pub binding: Option<BindingClaim>,
}

impl NewAccount {
    /// Reads a request that `key` has signed.
    ///
    /// # Errors
    /// `Malformed`, and those of contacts and of the binding.
    pub fn read(said: &Verified, key: &Jwk) -> Outcome<Self> {
        let mut members = Members::read(&said.payload, "newAccount")?;
        let contact = contacts(members.texts("contact")?.unwrap_or_default())?;
        // There are no terms; who agrees to them agrees to nothing.
        members.flag("termsOfServiceAgreed")?;
        let only_existing = members.flag("onlyReturnExisting")?;
        let binding = members.take("externalAccountBinding");
        let binding = binding.map(|value| BindingClaim::read(value, &said.url, key)).transpose()?;
        Ok(Self { contact, only_existing, binding })
    }
}

/// What a request to an account asks for (RFC 8555 §7.3.2, §7.3.6).
#[derive(Debug, PartialEq, Eq)]
pub enum AccountRequest {
    /// To be shown.
    Show,
    /// That its contacts be others.
    Contact(Vec<String>),
    /// That it end.
    Deactivate,
}

impl AccountRequest {
    /// Reads one.
    ///
    /// # Errors
    /// `Malformed` for another status, or a status together with contacts; those of contacts.
    pub fn read(said: &Verified) -> Outcome<Self> {
        if said.payload.is_empty() {
            return Ok(Self::Show);
        }
        let mut members = Members::read(&said.payload, "the account")?;
        let contact = members.texts("contact")?;
        match (members.text("status")?.as_deref(), contact) {
            (None | Some("valid"), None) => Ok(Self::Show),
            (None | Some("valid"), Some(contact)) => contacts(contact).map(Self::Contact),
            (Some("deactivated"), None) => Ok(Self::Deactivate),
            _ => Err(malformed("an account is deactivated, or has its contacts changed")),
        }
    }
}

/// Reads for which names `newOrder` asks (RFC 8555 §7.4).
///
/// # Errors
/// `Malformed`, also for times, which are the profile's to say; those of names, several at once where there are several.
pub fn new_order(said: &Verified) -> Outcome<Vec<AltName>> {
    let mut members = Members::read(&said.payload, "newOrder")?;
    if members.take("notBefore").or(members.take("notAfter")).is_some() {
        return Err(malformed(
            "newOrder: notBefore and notAfter are not taken, the profile says for how long",
        ));
    }
    let asked = members.list("identifiers")?.ok_or_else(|| members.wrong("identifiers", "is missing"))?;
    if asked.len() > limit::ACME_IDENTIFIERS {
        let most = limit::ACME_IDENTIFIERS;
        return Err(malformed(format!("{} identifiers exceed the limit of {most}", asked.len())));
    }
    let (mut names, mut problems) = (Vec::new(), Vec::new());
    for value in asked {
        let mut one = Members::of(value, "an identifier")?;
        let (kind, value) = (one.needed("type")?, one.needed("value")?);
        match identifier(&kind, &value) {
            Ok(name) => names.push(name),
            Err(problem) => problems.push(problem),
        }
    }
    Problem::all(problems).map_or(Ok(names), Err)
}

/// Reads the request for a certificate that `finalize` carries, in DER.
///
/// # Errors
/// `Malformed`.
pub fn finalize(said: &Verified) -> Outcome<Vec<u8>> {
    let mut members = Members::read(&said.payload, "finalize")?;
    base64url::decode(&members.needed("csr")?, "csr")
}

/// What `revokeCert` asks for (RFC 8555 §7.6).
#[derive(Debug, PartialEq, Eq)]
pub struct Revoke {
    /// The certificate, in DER.
    pub certificate: Vec<u8>,
    /// Why (RFC 5280 §5.3.1).
    pub reason: Option<u8>,
}

impl Revoke {
    /// Reads one.
    ///
    /// # Errors
    /// `Malformed`; `BadRevocationReason` for a reason that is not for a subscriber to give.
    pub fn read(said: &Verified) -> Outcome<Self> {
        let mut members = Members::read(&said.payload, "revokeCert")?;
        let certificate = base64url::decode(&members.needed("certificate")?, "certificate")?;
        let reason = match members.take("reason") {
            None => None,
            // Unspecified, key compromise, affiliation changed, superseded, cessation of operation. That an authority is compromised, that
            // something is on hold or comes back, and that a privilege is taken away are the authority's to say.
            Some(value) => match value.as_u64() {
                Some(reason @ (0 | 1 | 3 | 4 | 5)) => Some(reason as u8),
                _ => {
                    let why = "reason is one of 0, 1, 3, 4 and 5";
                    return Err(Problem::new(ProblemKind::BadRevocationReason, why));
                }
            },
        };
        Ok(Self { certificate, reason })
    }
}

/// What a request to an authorization or a challenge asks for (RFC 8555 §7.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asks {
    /// To be shown.
    Show,
    /// Of a challenge: that the proof be looked for. Of an authorization: that it be given up.
    Act,
}

/// Reads a request to a challenge: nothing, or an object of which no member is asked for.
///
/// # Errors
/// `Malformed`.
pub fn challenge(said: &Verified) -> Outcome<Asks> {
    match said.payload.is_empty() {
        true => Ok(Asks::Show),
        false => Members::read(&said.payload, "the challenge").map(|_| Asks::Act),
    }
}

/// Reads a request to an authorization.
///
/// # Errors
/// `Malformed` for any other status than `deactivated`.
pub fn authorization(said: &Verified) -> Outcome<Asks> {
    if said.payload.is_empty() {
        return Ok(Asks::Show);
    }
    let mut members = Members::read(&said.payload, "the authorization")?;
    match &*members.needed("status")? {
        "deactivated" => Ok(Asks::Act),
        _ => Err(members.wrong("status", "is deactivated where it is given")),
    }
}

/// What `keyChange` asks for (RFC 8555 §7.3.5).
#[derive(Debug)]
pub struct KeyChange {
    /// The key that is to sign from now on; it has signed its part of the request.
    pub new: Jwk,
    /// The key that has signed so far, as the new one's holder names it.
    pub old: Jwk,
}

impl KeyChange {
    /// Reads a request that the old key has signed for the account at a URL.
    ///
    /// # Errors
    /// `Malformed` where the inner request is of another form, URL or account, or the new key did not sign it; `BadPublicKey`.
    pub fn read(said: &Verified, account: &str) -> Outcome<Self> {
        let outer = Members::read(&said.payload, "keyChange")?;
        let inner = Jws::inner(outer)?;
        if inner.url != said.url {
            return Err(malformed("keyChange: the inner request is for another URL"));
        }
        let Signer::Key(new) = inner.signer.clone() else {
            return Err(malformed("keyChange: the inner request is signed by a key that it tells whole"));
        };
        let inner = inner.verify(&new)?;
        let mut members = Members::read(&inner.payload, "keyChange")?;
        if members.needed("account")? != account {
            return Err(malformed("keyChange: account is another than that of the request"));
        }
        let old = members.take("oldKey").ok_or_else(|| members.wrong("oldKey", "is missing"))?;
        Ok(Self { new, old: Jwk::read(old)? })
    }
}

#[cfg(test)]
mod tests {
    use keymill_core::acme::ProblemKind;
    use serde_json::{Value, json};

    use super::*;
    use crate::signed::{Account, binds};

    const URL: &str = "https://ca.example/acme/x";

    fn said(payload: &Value) -> Verified {
        Verified { url: URL.into(), payload: payload.to_string().into_bytes() }
    }

    fn empty() -> Verified {
        Verified { url: URL.into(), payload: Vec::new() }
    }

    #[test]
    fn a_new_account_may_have_contacts_and_a_binding() {
        let account = Account::p256();
        let key = account.jwk();
        let header = json!({"alg": "HS256", "kid": "KAAP.0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9", "url": URL});
        let bound = binds(&[7; 32], &header, key.canonical().as_bytes());
        let payload = json!({
            "termsOfServiceAgreed": true, "contact": ["mailto:a@b.example"], "externalAccountBinding": bound,
        });
        let read = NewAccount::read(&said(&payload), &key).unwrap();
        assert_eq!((read.contact.len(), read.only_existing, read.binding.is_some()), (1, false, true));
        let read = NewAccount::read(&said(&json!({"onlyReturnExisting": true})), &key).unwrap();
        assert!(read.only_existing && read.binding.is_none());
        for odd in [json!([]), json!({"contact": "mailto:a@b.example"}), json!({"onlyReturnExisting": 1})] {
            assert!(NewAccount::read(&said(&odd), &key).is_err(), "{odd}");
        }
        assert!(NewAccount::read(&empty(), &key).is_err());
    }

    #[test]
    fn an_account_is_shown_changed_or_ended() {
        let read = |payload: &Value| AccountRequest::read(&said(payload));
        assert_eq!(AccountRequest::read(&empty()).unwrap(), AccountRequest::Show);
        assert_eq!(read(&json!({})).unwrap(), AccountRequest::Show);
        assert_eq!(read(&json!({"status": "deactivated"})).unwrap(), AccountRequest::Deactivate);
        assert_eq!(read(&json!({"contact": []})).unwrap(), AccountRequest::Contact(vec![]));
        for odd in [
            json!({"status": "revoked"}),
            json!({"status": "deactivated", "contact": []}),
            json!({"contact": ["tel:1"]}),
            json!({"status": 1}),
        ] {
            assert!(read(&odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn an_order_names_what_is_wrong_with_each_name() {
        let of = |list: Value| new_order(&said(&json!({"identifiers": list})));
        let read = of(json!([{"type": "dns", "value": "A.example"}, {"type": "ip", "value": "10.0.0.1"}]));
        let read: Vec<_> = read.unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(read, ["DNS:a.example", "IP:10.0.0.1"]);
        let two =
            of(json!([{"type": "email", "value": "x"}, {"type": "dns", "value": "*.com"}])).unwrap_err();
        assert_eq!((two.kind, two.each.len()), (ProblemKind::Compound, 2));
        for odd in [
            json!({}),
            json!([1]),
            json!([{"type": "dns"}]),
            json!([{"type": "dns", "value": 1}]),
            json!(null),
        ] {
            assert_eq!(of(odd.clone()).unwrap_err().kind, ProblemKind::Malformed, "{odd}");
        }
        let many = vec![json!({"type": "dns", "value": "a.example"}); limit::ACME_IDENTIFIERS + 1];
        assert!(of(many.into()).unwrap_err().detail.contains("limit of 100"));
        for name in ["notBefore", "notAfter"] {
            let payload = json!({"identifiers": [], name: "2027-01-01T00:00:00Z"});
            assert!(new_order(&said(&payload)).unwrap_err().detail.contains("the profile says"), "{name}");
        }
    }

    #[test]
    fn requests_and_certificates_come_in_base64url() {
        assert_eq!(finalize(&said(&json!({"csr": "MAA"}))).unwrap(), [0x30, 0]);
        for odd in [json!({}), json!({"csr": "MAA="}), json!({"csr": "-----BEGIN"}), json!({"csr": 1})] {
            assert_eq!(finalize(&said(&odd)).unwrap_err().kind, ProblemKind::Malformed, "{odd}");
        }
        let read = |payload: &Value| Revoke::read(&said(payload));
        let got = read(&json!({"certificate": "MAA", "reason": 4})).unwrap();
        assert_eq!(got, Revoke { certificate: vec![0x30, 0], reason: Some(4) });
        assert_eq!(read(&json!({"certificate": "MAA"})).unwrap().reason, None);
        for odd in
            [json!(2), json!(6), json!(7), json!(8), json!(9), json!(10), json!(-1), json!(1.0), json!("1")]
        {
            let refused = read(&json!({"certificate": "MAA", "reason": odd})).unwrap_err();
            assert_eq!(refused.kind, ProblemKind::BadRevocationReason, "{odd}");
        }
    }

    #[test]
    fn an_empty_payload_shows_and_an_object_acts() {
        assert_eq!(
            (challenge(&empty()).unwrap(), authorization(&empty()).unwrap()),
            (Asks::Show, Asks::Show)
        );
        assert_eq!(challenge(&said(&json!({}))).unwrap(), Asks::Act);
        assert!(challenge(&said(&json!([]))).is_err());
        assert_eq!(authorization(&said(&json!({"status": "deactivated"}))).unwrap(), Asks::Act);
        assert!(authorization(&said(&json!({"status": "valid"}))).is_err());
        assert!(authorization(&said(&json!({}))).is_err());
        assert!(empty().check_get().is_ok() && said(&json!({})).check_get().is_err());
    }

    #[test]
    fn a_key_is_changed_by_both_keys_for_one_account() {
        let (old, new) = (Account::p256(), Account::ed25519());
        let account = "https://ca.example/acme/account/1";
        let payload = |account: &str, key: &Account| {
            let key: Value = serde_json::from_str(&key.jwk().canonical()).unwrap();
            json!({"account": account, "oldKey": key}).to_string()
        };
        let outer = |inner: String| Verified { url: URL.into(), payload: inner.into_bytes() };
        let good = new.signs(json!({"url": URL}), payload(account, &old).as_bytes());
        let change = KeyChange::read(&outer(good.clone()), account).unwrap();
        assert_eq!((change.new, change.old), (new.jwk(), old.jwk()));
        let other_url =
            new.signs(json!({"url": "https://ca.example/acme/y"}), payload(account, &old).as_bytes());
        let with_nonce = new.signs(json!({"url": URL, "nonce": "n"}), payload(account, &old).as_bytes());
        let by_kid = new.signs(json!({"url": URL, "kid": account}), payload(account, &old).as_bytes());
        let not_signed = good.replace(r#""signature":""#, r#""signature":"AAAA"#);
        for (inner, why) in [
            (other_url, "URL"),
            (with_nonce, "nonce"),
            (by_kid, "whole"),
            (not_signed, "signature"),
            (new.signs(json!({"url": URL}), b"{}"), "account"),
            (new.signs(json!({"url": URL}), payload("other", &old).as_bytes()), "account"),
        ] {
            let refused = KeyChange::read(&outer(inner), account).unwrap_err();
            assert!(refused.detail.contains(why), "{why}: {refused}");
        }
    }
}
