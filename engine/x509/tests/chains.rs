//! Chains that are none, each refused with the certificate and what is wrong with it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use keymill_core::certificate::{NameConstraints, Validity};
use keymill_core::time::Timestamp;
use keymill_x509::{Certificate, check_chain};
use support::raw::{Raw, attribute, common_name, extension};
use support::{Key, NOW, Wanted, hex, sequence, tlv};

fn refused(chain: &[&Certificate], expected: &str) {
    refused_at(chain, NOW, expected);
}

fn refused_at(chain: &[&Certificate], now: Timestamp, expected: &str) {
    let chain: Vec<_> = chain.iter().map(|one| (*one).clone()).collect();
    let error = check_chain(&chain, now).unwrap_err().to_string();
    assert!(error.contains(expected), "{expected}: {error}");
    assert!(error.len() < 900 && !error.chars().any(char::is_control), "{error}");
}

/// Keys of a root, two below it, and a leaf, and their certificates.
struct Line {
    keys: [Key; 4],
    root: Certificate,
    upper: Certificate,
    lower: Certificate,
    leaf: Certificate,
}

fn line() -> Line {
    let keys = [(); 4].map(|()| Key::ec());
    let root = Wanted::authority("CN=root", None).issue(&keys[0], None);
    let upper = Wanted::authority("CN=upper", Some(1)).issue(&keys[1], Some((&root, &keys[0])));
    let lower = Wanted::authority("CN=lower", Some(0)).issue(&keys[2], Some((&upper, &keys[1])));
    let leaf = Wanted::leaf("CN=leaf", &["leaf.example"]).issue(&keys[3], Some((&lower, &keys[2])));
    Line { keys, root, upper, lower, leaf }
}

#[test]
fn a_chain_in_order_passes_with_and_without_its_root_and_any_other_order_is_refused() {
    let Line { root, upper, lower, leaf, .. } = line();
    let all = [leaf, lower, upper, root];
    for length in 1..=4 {
        check_chain(&all[..length], NOW).unwrap();
    }
    for order in [[0, 2, 1, 3], [3, 2, 1, 0], [1, 0, 2, 3], [0, 1, 3, 2]] {
        let chain = order.map(|at| &all[at]);
        refused(&chain, "out of order, or lacks a certificate");
    }
    refused(&[&all[0], &all[2]], "certificate 1 (\"CN=leaf\"): it was issued by \"CN=lower\"");
    refused(&[], "1 to 10 certificates, not 0");
}

#[test]
fn loops_and_crowds() {
    let Line { root, upper, lower, leaf, .. } = line();
    refused(&[&leaf, &lower, &upper, &root, &root], "certificate 5 (\"CN=root\"): it is there twice");
    refused(&[&leaf, &lower, &leaf], "certificate 2 (\"CN=lower\"): it was issued by");
    // Two that issued each other.
    let (a, b) = (Key::ec(), Key::ec());
    let first = Wanted::authority("CN=a", None).issue(&a, None);
    let second = Wanted::authority("CN=b", None).issue(&b, Some((&first, &a)));
    let first = Wanted::authority("CN=a", None).issue(&a, Some((&second, &b)));
    refused(&[&first, &second, &first], "there twice");
    refused(&[&root; 11], "1 to 10 certificates, not 11");
}

#[test]
fn keys_that_signed_something_else() {
    let Line { keys, root, upper, lower, leaf } = line();
    // Another authority of the same name: by its identifier, and where there is none, by its signature.
    let impostor_key = Key::ec();
    let impostor = Wanted::authority("CN=lower", Some(0)).issue(&impostor_key, Some((&upper, &keys[1])));
    refused(&[&leaf, &impostor, &upper, &root], "another key of its issuer");
    let mut raw = Raw::of(&impostor_key).with(extension(19, true, &hex("30030101ff")));
    raw.subject = lower.subject_der.clone();
    let nameless = Certificate::read(&raw.sign(&impostor_key)).unwrap();
    refused(&[&leaf, &nameless], "the signature does not verify");
    // A root that did not sign itself, though it says so.
    let mut raw = Raw::of(&keys[0]);
    raw.issuer = raw.subject.clone();
    let false_root = Certificate::read(&raw.sign(&keys[1])).unwrap();
    refused(&[&false_root], "the signature does not verify");
    // A signature that the key of the issuer is not for.
    let ed = Key::generate(keymill_core::key::KeySpec::Ed25519);
    let mut raw = Raw::of(&ed).with(extension(19, true, &hex("30030101ff")));
    raw.subject = common_name(0x0c, b"issuer");
    let ed_issuer = Certificate::read(&raw.sign(&keys[0])).unwrap();
    let leaf = Certificate::read(&Raw::of(&keys[3]).sign(&keys[2])).unwrap();
    refused(&[&leaf, &ed_issuer], "signed with ECDSA_SHA_256, which the key of its issuer is not for");
    // One whose curve nobody here signs under.
    let mut raw = Raw::of(&keys[0]).with(extension(19, true, &hex("30030101ff")));
    raw.subject = common_name(0x0c, b"issuer");
    raw.public_key =
        sequence(&[&hex("301006072a8648ce3d020106052b81040023"), &tlv(3, &[&[0, 4], &[1; 132]])]);
    let odd_issuer = Certificate::read(&raw.sign(&keys[0])).unwrap();
    refused(&[&leaf, &odd_issuer], "which the key of its issuer is not for");
}

#[test]
fn names_are_compared_as_people_read_them() {
    let (ca, key) = (Key::ec(), Key::ec());
    let mut raw = Raw::of(&ca).with(extension(19, true, &hex("30030101ff")));
    raw.subject = common_name(0x13, b"The  ROOT");
    let root = Certificate::read(&raw.sign(&ca)).unwrap();
    for (issuer, is_same) in
        [(common_name(0x0c, b" the root "), true), (common_name(0x0c, b"theroot"), false)]
    {
        let mut raw = Raw::of(&key);
        raw.issuer = issuer;
        let leaf = Certificate::read(&raw.sign(&ca)).unwrap();
        assert_eq!(check_chain(&[leaf, root.clone()], NOW).is_ok(), is_same);
    }
}

#[test]
fn times() {
    let Line { keys, root, upper, lower, leaf } = line();
    let all = [&leaf, &lower, &upper, &root];
    let at = |text| Timestamp::parse(text).unwrap();
    let chain = all.map(Clone::clone);
    for (moment, is_within) in [
        ("2024-12-31T23:59:59Z", false),
        ("2025-01-01T00:00:00Z", true),
        ("2049-12-31T23:59:59Z", true),
        ("2050-01-01T00:00:00Z", false),
    ] {
        assert_eq!(check_chain(&chain, at(moment)).is_ok(), is_within, "{moment}");
    }
    refused_at(&all, at("2024-01-01T00:00:00Z"), "it is not valid before 2025-01-01T00:00:00Z");
    refused_at(&all, at("2050-01-01T00:00:00Z"), "it expired on 2049-12-31T23:59:59Z");
    // One above the leaf alone.
    let short = Validity { not_before: at("2025-01-01T00:00:00Z"), not_after: at("2026-01-01T00:00:00Z") };
    let expired = Wanted { validity: short, ..Wanted::authority("CN=lower", Some(0)) };
    let expired = expired.issue(&keys[2], Some((&upper, &keys[1])));
    refused(&[&leaf, &expired, &upper, &root], "certificate 2 (\"CN=lower\"): it expired on 2026-01-01");
}

#[test]
fn issuers_that_may_not_issue() {
    let Line { keys, root, upper, lower, .. } = line();
    let (a, b) = (Key::ec(), Key::ec());
    // A leaf that issues.
    let leaf = Wanted::leaf("CN=leaf", &[]).issue(&a, Some((&lower, &keys[2])));
    let below = Wanted::leaf("CN=below", &[]).issue(&b, Some((&leaf, &a)));
    refused(&[&below, &leaf, &lower, &upper, &root], "certificate 2 (\"CN=leaf\"): it is no authority");
    // One more authority than the path length has room for.
    let third = Wanted::authority("CN=third", None).issue(&a, Some((&lower, &keys[2])));
    let below = Wanted::leaf("CN=below", &[]).issue(&b, Some((&third, &a)));
    refused(
        &[&below, &third, &lower, &upper, &root],
        "certificate 3 (\"CN=lower\"): 0 authorities may stand below",
    );
    // An authority at the end of the path stands below nobody that counts it.
    let chain = [third, lower.clone(), upper.clone(), root.clone()];
    check_chain(&chain, NOW).unwrap();
    // An authority whose key may not sign certificates.
    let mut raw =
        Raw::of(&a).with(extension(19, true, &hex("30030101ff"))).with(extension(15, true, &hex("03020780")));
    raw.subject = common_name(0x0c, b"issuer");
    let unfit = Certificate::read(&raw.sign(&keys[0])).unwrap();
    let below = Certificate::read(&Raw::of(&b).sign(&a)).unwrap();
    refused(&[&below, &unfit], "its key may not sign certificates");
}

#[test]
fn names_outside_of_what_was_constrained_anywhere_above() {
    let keys = [(); 4].map(|()| Key::ec());
    let constrained =
        |subject, constraints| Wanted { constraints: Some(constraints), ..Wanted::authority(subject, None) };
    let permitted = NameConstraints { permitted_dns: vec!["example".into()], ..Default::default() };
    let excluded = NameConstraints { excluded_dns: vec!["a.example".into()], ..Default::default() };
    let root = constrained("CN=root", permitted).issue(&keys[0], None);
    let middle = constrained("CN=middle", excluded).issue(&keys[1], Some((&root, &keys[0])));
    let leaf =
        |subject, names: &[&str]| Wanted::leaf(subject, names).issue(&keys[2], Some((&middle, &keys[1])));
    let check = |leaf: &Certificate| check_chain(&[leaf.clone(), middle.clone(), root.clone()], NOW);
    for (names, is_within) in [
        (&["b.example"][..], true),
        (&["b.example", "10.0.0.1", "email:x@elsewhere"], true),
        (&["a.example"], false),
        (&["x.a.example"], false),
        (&["b.example", "elsewhere"], false),
        (&["*.example"], false),
        (&["*.b.example"], true),
    ] {
        assert_eq!(check(&leaf("CN=leaf", names)).is_ok(), is_within, "{names:?}");
    }
    let chain = [&leaf("CN=leaf", &["elsewhere"]), &middle, &root];
    refused(&chain, "\"DNS:elsewhere\" is not permitted by the name constraints of \"CN=root\"");
    refused(&[&leaf("CN=leaf", &["a.example"]), &middle], "\"DNS:a.example\" is excluded");
    // A host's name that is the common name alone.
    refused(&[&leaf("CN=elsewhere.com", &[]), &middle, &root], "not permitted");
    assert!(check(&leaf("CN=Some Body", &[])).is_ok());
}

#[test]
fn constraints_of_mail_addresses_uris_and_directories() {
    let (ca, key) = (Key::ec(), Key::ec());
    let tree = |name: &[u8]| sequence(&[name]);
    let with = |permitted: &[u8], excluded: &[u8]| {
        let part = |tag: u8, trees: &[u8]| if trees.is_empty() { Vec::new() } else { tlv(tag, &[trees]) };
        let value = sequence(&[&part(0xa0, permitted), &part(0xa1, excluded)]);
        let mut raw =
            Raw::of(&ca).with(extension(19, true, &hex("30030101ff"))).with(extension(30, true, &value));
        raw.subject = common_name(0x0c, b"issuer");
        Certificate::read(&raw.sign(&ca)).unwrap()
    };
    let check = |root: &Certificate, name: &str| {
        let leaf = Wanted::leaf("CN=leaf", &[name]).issue(&key, Some((root, &ca)));
        check_chain(&[leaf, root.clone()], NOW).is_ok()
    };
    let mail = |text: &str| tree(&tlv(0x81, &[text.as_bytes()]));
    for (constraint, passes, fails) in [
        ("Example.com", "email:a@example.com", "email:a@sub.example.com"),
        (".example.com", "email:a@sub.example.com", "email:a@example.com"),
        ("a@example.com", "email:a@EXAMPLE.com", "email:b@example.com"),
    ] {
        assert!(check(&with(&mail(constraint), &[]), passes) && !check(&with(&mail(constraint), &[]), fails));
        assert!(!check(&with(&[], &mail(constraint)), passes) && check(&with(&[], &mail(constraint)), fails));
    }
    let uri = |text: &str| tree(&tlv(0x86, &[text.as_bytes()]));
    for (constraint, passes, fails) in [
        ("host.example", "URI:https://host.example:8443/x?y#z", "URI:https://a.host.example/"),
        (".example", "URI:spiffe://a.b.example/x", "URI:spiffe://example/x"),
        ("host.example", "URI:ftp://host.example", "URI:urn:host.example"),
    ] {
        assert!(check(&with(&uri(constraint), &[]), passes), "{passes}");
        assert!(!check(&with(&uri(constraint), &[]), fails), "{fails}");
    }
    let dns = |text: &str| tree(&tlv(0x82, &[text.as_bytes()]));
    for (constraint, name, is_within) in [
        ("Example", "a.example", true),
        (".example", "a.example", true),
        (".example", "example", false),
        ("", "a", true),
    ] {
        assert_eq!(check(&with(&dns(constraint), &[]), name), is_within, "{constraint} {name}");
        assert_eq!(check(&with(&[], &dns(constraint)), name), !is_within, "{constraint} {name}");
    }
    // Directories: the first relative names.
    let unit =
        [attribute("550406", &tlv(0x13, &[b"DE"])), attribute("55040a", &tlv(0x0c, &[b"Example Inc"]))];
    let directory = tree(&tlv(0xa4, &[&sequence(&[&unit.concat()])]));
    let (permitted, excluded) = (with(&directory, &[]), with(&[], &directory));
    for (subject, is_below) in [
        ("CN=a,O=Example Inc,C=DE", true),
        ("CN=a,O=EXAMPLE  inc,C=DE", true),
        ("O=Example Inc,C=DE", true),
        ("CN=a,O=Example,C=DE", false),
        ("C=DE", false),
    ] {
        for (root, passes) in [(&permitted, is_below), (&excluded, !is_below)] {
            let leaf = Wanted::leaf(subject, &[]).issue(&key, Some((root, &ca)));
            assert_eq!(check_chain(&[leaf, root.clone()], NOW).is_ok(), passes, "{subject}");
        }
    }
}
