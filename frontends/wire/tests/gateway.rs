//! Requests that a published SDK of the instance gateway signed, with an invented client key, at 2026-01-02T03:04:05Z: they verify, and changed
//! in any part they do not.
#![allow(clippy::unwrap_used, reason = "tests")]

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use keymill_core::operation::Request;
use keymill_core::{ErrorKind, Timestamp};
use keymill_wire::gateway::Api;
use keymill_wire::gateway::headers::{Offered, read};

struct Vector {
    api: &'static str,
    sha256: &'static str,
    signature: &'static str,
    body: &'static [u8],
}

const PUBLIC_KEY: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAshxTe7VOP92AvKsXnUBirxK1f/kfnaklA31vsQH5u/wO6P9FDvwMJgUBrFrdtc6DdO5sWpZUvEx5DI5rMKywb6ankS0a9efDuiuo3laOfAMhTszLuchsZsa3SC8KFW3qRzV+okD37MsnHxuequtf/O7h3nDaLCvKOVW6Kimv9Uy9Gy591K9ia6/NSgIdD1xVsTKkQUaN4ONlz0BM/eZf0jNExjFNB2jMJfvSSWjuGhOIcauVkGRFsrM/Ppvjc4ZDRuXMYepheS9l11j64hBDlmdUUCtnThqnmd8wHPKVkg+Q/qClJk0fQ0Yt1BkxciR2EaY2rlNQqusxvgSlQHzFnQIDAQAB";
const CLIENT_KEY: &str = "KAAP.00000000-0000-4000-8000-000000000001";
const DATE: &str = "Fri, 02 Jan 2026 03:04:05 GMT";

const VECTORS: [Vector; 3] = [
    Vector {
        api: "Encrypt",
        sha256: "9E91C0FC00126A52BF2E12BC9F2FC9E53454470B004A8A0DB4919AE4BDC93427",
        signature: "GqQY+vOl03diS5J2v55cWTtwtWumZQDYaOYRc7vThB5IgSxfQyYvA3RheKAERi7NuFNV77s4KdSFhR2aubhb5neips2qizehIBRekEGH7ivYoVn2Krw+M9RM1PEsvn9sT+PaV+XmAiVFPoOmohmYT/ZRypeU1vJAjrjCurhEuVxC44u/7GV9xKpxuQG0qRNu1Yr8Gh5hONoG+WzI3nTw/AN6Qbqb8S2vNOhwWVcdrlXNzGQ2NVjl24igjozYInPWRUQzxJj2VwR9VyzPfN9GOrB9M+h9k0BbSEu6sq6oeP3u5F+brhG6SjMbTeOE8IZdp/NfOe+JIrpsFbUuP8WLOA==",
        body: b"\x0a\x0bkey-hzz0001\x12\x05hello\x1a\x07AES_GCM\x22\x03aad",
    },
    Vector {
        api: "GetSecretValue",
        sha256: "CC18F627A4E253C248A4DCCCB4E06B4A59620246EA3160A6C21C6FD7B0978120",
        signature: "JShPf6KQOpLLde7uz3sltc3CtSlwe8XH9jFtfFkEU7uIcmcsfXkZscq9LlpMMW7Qn+zPBfKYl8gz6AnerYIWN500hayLsihTx4Ex+JbYwB5bLPkkhhVss9uvT7mzwBh7fQGn+gllXRB0IfY1rNuBeJtt1ntKYgzQ8rvn3TiVF8pbodT5fkYZeoJbIJi2w9JAfNsBttrdOhrrRZWHV8gtR8GSaTFXZirpJkxScZUJM9FxgwPmCK4fMOnoL4OstjGk+aJTfA+i46efM0yZdekue88EUPKThG2nqXnX4tTjn4vDaZdTYmzn1HGk9snAr9jUDi9F/XLOsVqSAz9vNA3LwA==",
        body: b"\x0a\x07db/conn\x12\x0aACSCurrent \x01",
    },
    Vector {
        api: "GenerateRandom",
        sha256: "E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
        signature: "Oad5hnUyi6MLDdPLmS2WQh0FKmE84Llgaixf9npcePgw5rskEMO6L1Z3/kvA4c/W0L6cTarbkDb4gmHLHdcWjWTbNkSWYu+G8lt/dUpoGL1U/i4o16gk9IaE/eghGC7n6blgapBwC4TkVTJaizAVTh5vV5/oLbnOQDP5vCNmTYgYc7Pd2O12Bh77WZ+Jfs1mwXfvHKM/aarVGI+KOjDDQa/pnBImgRZa6dd3CnytKe8HmxGJSeVFlMZZS+b+OGW89NRnSW/vCAAm1EnekSdvpSDaEn37lnOmUD7hzybyZqY7zE0zqDdisHwHj8DV/FUxULH9HdiZEapQb1AeqZlC7Q==",
        body: b"",
    },
];

type Headers = Vec<(String, String)>;

impl Vector {
    fn headers(&self) -> Headers {
        [
            ("accept", "application/x-protobuf"),
            ("host", "127.0.0.1:18444"),
            ("date", DATE),
            ("user-agent", "keymill-vector-agent/1.0"),
            ("x-kms-apiversion", "dkms-gcs-0.2"),
            ("x-kms-apiname", self.api),
            ("x-kms-signaturemethod", "RSA_PKCS1_SHA_256"),
            ("x-kms-acccesskeyid", CLIENT_KEY),
            ("content-type", "application/x-protobuf"),
            ("content-sha256", self.sha256),
            ("authorization", &format!("Bearer {}", self.signature)),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}

fn lent(headers: &Headers) -> Vec<(&str, &str)> {
    headers.iter().map(|(name, value)| (&**name, &**value)).collect()
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest::digest(&digest::SHA256, bytes).as_ref().try_into().unwrap()
}

fn verifies(offered: &Offered<'_>) -> bool {
    let key = STANDARD.decode(PUBLIC_KEY).unwrap();
    let key = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).unwrap();
    key.verify_sig(&offered.to_sign, &offered.signature).is_ok()
}

/// Tells whether a request of these headers and this body would be let in.
fn is_let_in(method: &str, headers: &Headers, body: &[u8]) -> bool {
    let headers = lent(headers);
    read(method, &headers).is_ok_and(|offered| {
        let now = Timestamp::parse("2026-01-02T03:04:05Z").unwrap();
        let known = offered.client_key == CLIENT_KEY && verifies(&offered);
        known && offered.check_date(now).is_ok() && offered.check_body(&sha256(body)).is_ok()
    })
}

#[test]
fn requests_that_a_published_sdk_signed_verify() {
    for vector in &VECTORS {
        let headers = vector.headers();
        let headers = lent(&headers);
        let offered = read("POST", &headers).unwrap();
        let expected = format!(
            "POST\n{}\napplication/x-protobuf\n{DATE}\nx-kms-acccesskeyid:{CLIENT_KEY}\nx-kms-apiname:{}\nx-kms-apiversion:dkms-gcs-0.2\nx-kms-signaturemethod:RSA_PKCS1_SHA_256\n/",
            vector.sha256, vector.api
        );
        assert_eq!(std::str::from_utf8(&offered.to_sign).unwrap(), expected);
        assert_eq!((offered.api, offered.client_key), (vector.api, CLIENT_KEY));
        assert!(verifies(&offered), "{}", vector.api);
        offered.check_version().unwrap();
        offered.check_body(&sha256(vector.body)).unwrap();
    }
}

#[test]
fn their_bodies_are_read() {
    let body = Bytes::from_static(VECTORS[0].body);
    let said = Api::by_name("Encrypt").unwrap().decode(&body).unwrap();
    let asked = said.ask(None).unwrap();
    let Request::AdvanceEncrypt(request) = asked.request else { panic!("{:?}", asked.request) };
    assert_eq!((&*request.plaintext, request.aad.as_deref()), (&b"hello"[..], Some(&b"aad"[..])));
    assert!(body.as_ptr_range().contains(&request.plaintext.as_ptr()));
    let said = Api::by_name(VECTORS[1].api).unwrap().decode(&Bytes::from_static(VECTORS[1].body)).unwrap();
    let Request::GetSecretValue(request) = said.ask(None).unwrap().request else { panic!() };
    assert_eq!((request.secret_name.0.as_str(), request.version_id), ("db/conn", None));
    assert_eq!(request.version_stage.unwrap().as_str(), "ACSCurrent");
    assert_eq!(Api::by_name("Hash").unwrap_err().kind(), ErrorKind::Unsupported);
    let said = Api::GenerateRandom.decode(&Bytes::from_static(VECTORS[2].body)).unwrap();
    let Request::GenerateRandom(request) = said.ask(None).unwrap().request else { panic!() };
    assert_eq!(request.length, 0);
}

#[test]
fn any_part_changed_after_signing_is_refused() {
    let vector = &VECTORS[0];
    let good = vector.headers();
    assert!(is_let_in("POST", &good, vector.body));
    assert!(!is_let_in("GET", &good, vector.body));
    for i in 0..vector.body.len() {
        let mut body = vector.body.to_vec();
        body[i] ^= 1;
        assert!(!is_let_in("POST", &good, &body), "byte {i} of the body");
    }
    assert!(!is_let_in("POST", &good, b""));
    // What the signature does not cover changes nothing that is done.
    let unsigned = ["accept", "host", "user-agent"];
    for at in 0..good.len() {
        let is_signed = !unsigned.contains(&&*good[at].0);
        let (mut changed, mut absent) = (good.clone(), good.clone());
        changed[at].1.push('0');
        absent.remove(at);
        assert_eq!(is_let_in("POST", &changed, vector.body), !is_signed, "{}", good[at].0);
        assert_eq!(is_let_in("POST", &absent, vector.body), !is_signed, "{}", good[at].0);
        if is_signed {
            let mut twice = good.clone();
            twice.push(good[at].clone());
            assert!(!is_let_in("POST", &twice, vector.body), "{} twice", good[at].0);
        }
    }
    let mut more = good.clone();
    more.push(("x-kms-more".to_owned(), "1".to_owned()));
    assert!(!is_let_in("POST", &more, vector.body), "a header of the signed kind that was not signed");
    // Another request's hash with its body, and another one's name.
    let mut other = good.clone();
    other.iter_mut().find(|(name, _)| name == "content-sha256").unwrap().1 = VECTORS[2].sha256.to_owned();
    assert!(!is_let_in("POST", &other, VECTORS[2].body));
    let mut other = good;
    other.iter_mut().find(|(name, _)| name == "x-kms-apiname").unwrap().1 = "Decrypt".to_owned();
    assert!(!is_let_in("POST", &other, vector.body));
}

#[test]
fn token_stands_for_bearer() {
    let mut headers = VECTORS[2].headers();
    headers.last_mut().unwrap().1 = format!("TOKEN {}", VECTORS[2].signature);
    assert!(is_let_in("POST", &headers, b""));
}

#[test]
fn a_header_that_is_not_of_its_form_is_named() {
    let vector = &VECTORS[2];
    let refused = |name: &str, value: Option<&str>| {
        let mut headers = vector.headers();
        headers.retain(|(found, _)| found != name);
        headers.extend(value.map(|value| (name.to_owned(), value.to_owned())));
        let headers = lent(&headers);
        read("POST", &headers).map(|_| ()).map_err(|error| (error.kind(), error.message().contains(name)))
    };
    for name in [
        "authorization",
        "content-type",
        "date",
        "content-sha256",
        "x-kms-acccesskeyid",
        "x-kms-apiname",
        "x-kms-apiversion",
        "x-kms-signaturemethod",
    ] {
        assert_eq!(refused(name, None), Err((ErrorKind::MissingParameter, true)), "{name}");
        assert_eq!(refused(name, Some("")), Err((ErrorKind::MissingParameter, true)), "{name}");
    }
    let long = format!("Bearer {}", "A".repeat(4_000));
    for (name, value) in [
        ("content-type", "application/json"),
        ("content-type", "application/x-protobuf2"),
        ("content-sha256", &*vector.sha256.to_lowercase()),
        ("content-sha256", &vector.sha256[..62]),
        ("content-sha256", "0x"),
        ("authorization", vector.signature),
        ("authorization", &format!("Basic {}", vector.signature)),
        ("authorization", "Bearer %%%"),
        ("authorization", &long),
    ] {
        assert_eq!(refused(name, Some(value)), Err((ErrorKind::IncompleteSignature, true)), "{name} {value}");
    }
    for method in ["RSA_PSS_SHA_256", "rsa_pkcs1_sha_256", "HMAC_SHA_256", "none"] {
        let kind = ErrorKind::UnsupportedAuthentication;
        assert_eq!(refused("x-kms-signaturemethod", Some(method)), Err((kind, true)));
    }
    for date in [
        "2026-01-02T03:04:05Z",
        "Thu, 02 Jan 2026 03:04:05 GMT",
        "Fri, 2 Jan 2026 03:04:05 GMT",
        "Fri, 02 Jan 2026 03:04:05 CST",
        "Fri, 02 Jan 2026 03:04:05",
        "Fri, 02 jan 2026 03:04:05 GMT",
        "Fri, 02 Jan 2026 24:04:05 GMT",
        "Fri, 30 Feb 2026 03:04:05 GMT",
        "Fri, 02  Jan 2026 03:04:05 GMT",
        "Friday, 02-Jan-26 03:04:05 GMT",
        "Fri Jan  2 03:04:05 2026",
    ] {
        assert_eq!(refused("date", Some(date)), Err((ErrorKind::TimestampInvalid, true)), "{date}");
    }
    let mut many = vector.headers();
    many.extend((0..40).map(|i| (format!("x-kms-{i}"), "1".to_owned())));
    let many = lent(&many);
    assert_eq!(read("POST", &many).unwrap_err().kind(), ErrorKind::IncompleteSignature);
}

#[test]
fn a_date_passes_to_the_second_15_minutes_either_side() {
    let headers = VECTORS[2].headers();
    let headers = lent(&headers);
    let offered = read("POST", &headers).unwrap();
    for (now, is_good) in [
        ("2026-01-02T02:49:05Z", true),
        ("2026-01-02T03:19:05Z", true),
        ("2026-01-02T02:49:04Z", false),
        ("2026-01-02T03:19:06Z", false),
        ("1970-01-01T00:00:00Z", false),
        ("9999-12-31T23:59:59Z", false),
    ] {
        let checked = offered.check_date(Timestamp::parse(now).unwrap());
        assert_eq!(checked.is_ok(), is_good, "{now}");
        assert!(checked.is_ok() || checked.unwrap_err().kind() == ErrorKind::TimestampExpired);
    }
}
