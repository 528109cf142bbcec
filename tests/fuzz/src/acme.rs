//! ACME: signed requests, and what is in them.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use keymill_acme::Jwk;
use keymill_core::acme::Problem;

const URL: &str = "https://ca.example/acme/new-order";

/// Checks a problem that goes back to the client.
fn tells(problem: &Problem) {
    let document = keymill_acme::problem::document(problem);
    assert!(document["status"].as_u64().is_some_and(|status| (400..500).contains(&status)), "{document}");
    assert!(problem.detail.len() < 2_048 && !problem.detail.chars().any(char::is_control), "{problem}");
    problem.each.iter().for_each(tells);
}

/// Checks that a key has one spelling.
fn is_one(key: &Jwk) {
    let account = key.account_key();
    assert_eq!(Jwk::parse(&account.jwk).as_ref(), Ok(key));
    assert_eq!(account.thumbprint.len(), 43);
    assert!(key.spki().len() <= 550);
}

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("any 32 bytes are a seed")
}

fn jwk() -> String {
    let x = URL_SAFE_NO_PAD.encode(pair().public_key().as_ref());
    format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#)
}

/// Signs a request; the same each time, as EdDSA is.
fn signed(header: &str, payload: &str) -> String {
    let header = format!(r#"{{"alg":"EdDSA",{header}}}"#);
    let message = [header.as_str(), payload].map(|part| URL_SAFE_NO_PAD.encode(part));
    let signature = URL_SAFE_NO_PAD.encode(pair().sign(message.join(".").as_bytes()).as_ref());
    let [protected, payload] = message;
    format!(r#"{{"protected":"{protected}","payload":"{payload}","signature":"{signature}"}}"#)
}

/// Bodies of requests.
pub(crate) mod request {
    use keymill_acme::{Jws, Nonces, Signer};

    use super::{Jwk, URL, is_one, jwk, signed, tells};
    use crate::memory::{room, within};
    use crate::target::Seed;

    /// Reads a body, and holds it against the key that it names and another.
    pub(crate) fn check(bytes: &[u8]) {
        let jws = match within(room(16 * bytes.len()), || Jws::read(bytes)) {
            Ok(jws) => jws,
            Err(problem) => return tells(&problem),
        };
        let mut nonces = Nonces::new(&[1; 32]);
        nonces.give();
        let nonce = jws.nonce.clone().expect("a request has one");
        assert!(nonces.take(&nonce).is_err(), "it was not given out");
        let known = Jwk::parse(&jwk()).expect("it is one");
        let signer = match &jws.signer {
            Signer::Key(key) => key.clone(),
            Signer::Account(_) => known,
        };
        is_one(&signer);
        match jws.verify(&signer) {
            Ok(said) => assert!(said.payload.len() <= bytes.len()),
            Err(problem) => tells(&problem),
        }
    }

    pub(crate) fn seeds() -> Vec<Seed> {
        let by_key = signed(&format!(r#""nonce":"n","url":"{URL}","jwk":{}"#, jwk()), "{}");
        let by_account = signed(&format!(r#""nonce":"n","url":"{URL}","kid":"https://ca.example/a""#), "");
        let rsa = format!(r#"{{"kty":"RSA","e":"AQAB","n":"{}"}}"#, "x".repeat(342));
        let by_rsa = signed(&format!(r#""nonce":"n","url":"{URL}","jwk":{rsa}"#), "");
        let of = |text: String| text.into_bytes();
        vec![("key", of(by_key)), ("account", of(by_account)), ("rsa", of(by_rsa))]
    }
}

/// What is signed.
pub(crate) mod payload {
    use keymill_acme::request::{
        AccountRequest, KeyChange, NewAccount, Revoke, authorization, challenge, finalize, new_order,
    };
    use keymill_acme::{Route, Urls, Verified};
    use keymill_core::acme::Outcome;
    use keymill_core::certificate::AltName;

    use super::{Jwk, URL, is_one, jwk, signed, tells};
    use crate::memory::{room, within};
    use crate::target::Seed;

    const ACCOUNT: &str = "https://ca.example/acme/account/1";

    /// The first byte says what is read.
    pub(crate) fn check(bytes: &[u8]) {
        let Some((kind, payload)) = bytes.split_first() else { return };
        let key = Jwk::parse(&jwk()).expect("it is one");
        let said = Verified { url: URL.into(), payload: payload.to_vec() };
        let read: Outcome<()> = within(room(16 * bytes.len()), || match kind {
            0 => NewAccount::read(&said, &key).map(|account| {
                assert!(account.contact.iter().all(|contact| contact.starts_with("mailto:")));
                if let Some(claim) = account.binding {
                    assert!(claim.verify(None).is_err(), "no binding binds");
                }
            }),
            1 => AccountRequest::read(&said).map(drop),
            2 => new_order(&said).map(|order| {
                for name in &order {
                    assert_eq!(name.to_string().parse::<AltName>().as_ref().ok(), Some(name));
                }
            }),
            3 => finalize(&said).map(drop),
            4 => Revoke::read(&said).map(drop),
            5 => challenge(&said).and(authorization(&said)).map(drop),
            6 => KeyChange::read(&said, ACCOUNT).map(|change| {
                is_one(&change.new);
                is_one(&change.old);
            }),
            _ => {
                place(payload);
                Ok(())
            }
        });
        if let Err(problem) = read {
            tells(&problem);
        }
    }

    fn place(bytes: &[u8]) {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Some(route) = Route::parse(text) {
            assert_eq!(route.to_string(), text);
        }
        if let Ok(urls) = Urls::new(text) {
            assert_eq!(urls.read(&urls.of(Route::NewOrder)), Some(Route::NewOrder));
        }
    }

    pub(crate) fn seeds() -> Vec<Seed> {
        let key_change = signed(
            &format!(r#""url":"{URL}","jwk":{}"#, jwk()),
            &format!(r#"{{"account":"{ACCOUNT}","oldKey":{}}}"#, jwk()),
        );
        let bound =
            signed(&format!(r#""url":"{URL}","kid":"KAAP.00000000-0000-4000-8000-000000000000""#), &jwk());
        let account = format!(r#"{{"contact":["mailto:a@b.example"],"externalAccountBinding":{bound}}}"#);
        let order = r#"{"identifiers":[{"type":"dns","value":"*.a.example"},{"type":"ip","value":"::1"}]}"#;
        let place = "/acme/challenge/00000000-0000-4000-8000-000000000000/0/http-01";
        let of = |kind: u8, text: &str| [&[kind], text.as_bytes()].concat();
        vec![
            ("new-account", of(0, &account)),
            ("account", of(1, r#"{"status":"deactivated"}"#)),
            ("new-order", of(2, order)),
            ("finalize", of(3, r#"{"csr":"MAA"}"#)),
            ("revoke", of(4, r#"{"certificate":"MAA","reason":4}"#)),
            ("give-up", of(5, r#"{"status":"deactivated"}"#)),
            ("key-change", of(6, &key_change)),
            ("place", of(7, place)),
            ("base", of(7, "https://ca.example:8470")),
        ]
    }
}
