//! Certificates whose names are not what they look like, each refused with what is wrong.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use keymill_x509::Certificate;
use support::raw::{Raw, attribute, common_name, extension};
use support::{Key, hex, sequence, tlv};

fn told(der: &[u8]) -> String {
    let error = Certificate::read(der).unwrap_err().to_string();
    assert!(error.len() < 600 && !error.chars().any(char::is_control), "{error}");
    error
}

/// Asserts what is told of a certificate of which something was changed.
fn refused(key: &Key, expected: &str, change: impl FnOnce(&mut Raw)) {
    let mut raw = Raw::of(key);
    change(&mut raw);
    let error = told(&raw.sign(key));
    assert!(error.contains(expected), "{expected}: {error}");
}

#[test]
fn names_that_deceive() {
    let key = Key::ec();
    let utf16: Vec<u8> = "ab\u{202e}".encode_utf16().flat_map(u16::to_be_bytes).collect();
    for (tag, value, expected) in [
        (0x0c, "bank.example\0.evil.example".as_bytes(), "U+0000"),
        (0x16, b"bank\0", "U+0000"),
        (0x13, b"bank\x1b[31m", "U+001B"),
        (0x0c, "a\u{202e}b".as_bytes(), "U+202E"),
        (0x0c, "a\u{200b}b".as_bytes(), "U+200B"),
        (0x0c, "a\u{feff}".as_bytes(), "U+FEFF"),
        (0x0c, "p\u{430}ypal".as_bytes(), "mixes Latin and Cyrillic"),
        (0x0c, "\u{391}pple".as_bytes(), "mixes Greek and Latin"),
        (0x0c, "\u{ff42}ank".as_bytes(), "looks like an ASCII"),
        (0x0c, "\u{1d41b}ank".as_bytes(), "looks like an ASCII"),
        (0x0c, b"a\xff", "not UTF-8"),
        (0x16, b"a\xe4", "kind of string"),
        (0x14, b"a\xe4", "kind of string"),
        (0x1e, b"abc", "not UTF-16"),
        (0x1e, &utf16, "U+202E"),
        (0x0c, &[b'a'; 1_025], "1024 bytes"),
    ] {
        refused(&key, expected, |raw| raw.subject = common_name(tag, value));
        refused(&key, expected, |raw| raw.issuer = common_name(tag, value));
    }
    let many = attribute("550403", &tlv(0x0c, &[b"a"])).repeat(65);
    refused(&key, "more than 64 attributes", |raw| raw.subject = sequence(&[&many]));
    refused(&key, "no attributes", |raw| raw.subject = sequence(&[&tlv(0x31, &[])]));
    refused(&key, "no issuer", |raw| raw.issuer = sequence(&[]));
    refused(&key, "neither a subject", |raw| raw.subject = sequence(&[]));
    // Words of one script each are what people are called.
    for (value, text) in [
        ("Борис Smith", "CN=Борис Smith"),
        ("中国 example", "CN=中国 example"),
        ("#a, b+", "CN=\\#a\\, b\\+"),
        (" ", "CN=\\ "),
    ] {
        let mut raw = Raw::of(&key);
        raw.subject = common_name(0x0c, value.as_bytes());
        assert_eq!(Certificate::read(&raw.sign(&key)).unwrap().subject, text);
    }
    // What is not known here is shown as it is: in hexadecimal, and with what stands beside it.
    let odd = tlv(
        0x31,
        &[
            &sequence(&[&tlv(6, &[&hex("550403")]), &tlv(0x0c, &[b"a"])]),
            &sequence(&[&tlv(6, &[&hex("2a03")]), &tlv(0x0c, &[b"b"])]),
        ],
    );
    let mut raw = Raw::of(&key);
    raw.subject = sequence(&[&odd, &attribute("550406", &tlv(0x13, &[b"DE"]))]);
    assert_eq!(Certificate::read(&raw.sign(&key)).unwrap().subject, "C=DE,CN=a+1.2.3=#0c0162");
}

#[test]
fn alternative_names_that_deceive_or_are_malformed() {
    let key = Key::ec();
    let names = |names: &[&[u8]]| extension(17, false, &sequence(names));
    let crowd = tlv(0x82, &[b"a"]).repeat(513);
    for (value, expected) in [
        (names(&[&tlv(0x82, &[b"bank.example\0.evil.example"])]), "bank.example"),
        (names(&[&tlv(0x82, &["ex\u{430}mple.com".as_bytes()])]), "not ASCII"),
        (names(&[&tlv(0x82, &[b"a b"])]), "DNS name"),
        (names(&[&tlv(0x82, &[])]), "DNS name"),
        (names(&[&tlv(0x82, &[b"10.0.0.1"])]), "address"),
        (names(&[&tlv(0x81, &[b"none"])]), "mail address"),
        (names(&[&tlv(0x86, &[b"a\nb:c"])]), "URI"),
        (names(&[&tlv(0x87, &[&[1, 2, 3]])]), "address of 3 bytes"),
        (names(&[&tlv(0x0c, &[b"a"])]), "no kind"),
        (names(&[&tlv(0x89, &[b"a"])]), "no kind"),
        (names(&[&tlv(0xa2, &[b"a"])]), "malformed"),
        (names(&[]), "has none"),
        (names(&[&crowd]), "more than 512"),
    ] {
        let error = told(&Raw::of(&key).with(value).sign(&key));
        assert!(error.contains(expected), "{expected}: {error}");
    }
    // Names of other kinds are passed over.
    let mut raw =
        Raw::of(&key).with(names(&[&tlv(0xa4, &[&common_name(12, b"a")]), &tlv(0x82, &[b"A.example"])]));
    raw.subject = sequence(&[]);
    let read = Certificate::read(&raw.sign(&key)).unwrap();
    assert_eq!(read.alt_names.iter().map(ToString::to_string).collect::<Vec<_>>(), ["DNS:a.example"]);
}
