//! Requests for certificates: what is taken of them, and those that are refused with what is wrong.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use keymill_core::certificate::{AltName, DistinguishedName};
use keymill_x509::{MAX_DER_BYTES, SigningRequest, pem, request};
use support::raw::{
    attribute, common_name, extension, modulus, request as raw, request_attribute, rsa, whole,
};
use support::{Key, hex, openssl, sequence, tlv};

fn told(bytes: &[u8]) -> String {
    let error = SigningRequest::read(bytes).unwrap_err().to_string();
    assert!(error.len() < 600 && !error.chars().any(char::is_control), "{error}");
    error
}

/// The attribute that asks for extensions.
fn asking(extensions: &[Vec<u8>]) -> Vec<u8> {
    request_attribute(14, &[&sequence(&[&extensions.concat()])])
}

fn dns(name: &[u8]) -> Vec<u8> {
    extension(17, false, &sequence(&[&tlv(0x82, &[name])]))
}

#[test]
fn one_whose_signature_does_not_verify_is_refused() {
    let key = Key::ec();
    let subject = common_name(0x0c, b"orders");
    let good = raw(&key, &subject, &key.spki(), &[asking(&[dns(b"orders.example")])]);
    let read = SigningRequest::read(&good).unwrap();
    assert_eq!(read.subject.unwrap().to_string(), "CN=orders");
    assert_eq!(read.alt_names, ["orders.example".parse::<AltName>().unwrap()]);
    // Another's key, and every byte that is changed.
    let stolen = raw(&key, &subject, &Key::ec().spki(), &[]);
    assert!(told(&stolen).contains("the signature does not verify"));
    for at in 0..good.len() {
        for bit in [0x01, 0x80] {
            let mut altered = good.clone();
            altered[at] ^= bit;
            assert!(SigningRequest::read(&altered).is_err(), "byte {at}");
        }
    }
    for length in 0..good.len() {
        assert!(SigningRequest::read(&good[..length]).is_err());
    }
}

#[test]
fn what_is_asked_for_beside_names_is_passed_over() {
    let key = Key::ec();
    let subject = common_name(0x0c, b"orders");
    let attributes = [
        // A challenge password, an unstructured name, one of Windows, and an authority that is not asked for here.
        request_attribute(7, &[&tlv(0x0c, &[b"secret"])]),
        request_attribute(2, &[&tlv(0x0c, &[b"name"])]),
        sequence(&[&hex("060a2b060104018237020103"), &tlv(0x31, &[])]),
        asking(&[
            extension(19, true, &hex("30030101ff")),
            extension(99, true, &[5, 0]),
            dns(b"orders.example"),
        ]),
    ];
    let read = SigningRequest::read(&raw(&key, &subject, &key.spki(), &attributes)).unwrap();
    assert_eq!(read.alt_names.len(), 1);
    assert!(!format!("{read:?}").contains("secret"));
}

#[test]
fn a_request_of_names_alone_has_no_subject() {
    let key = Key::ec();
    let read = SigningRequest::read(&raw(&key, &sequence(&[]), &key.spki(), &[asking(&[dns(b"a.example")])]));
    assert_eq!(read.unwrap().subject, None);
    assert!(told(&raw(&key, &sequence(&[]), &key.spki(), &[])).contains("neither a subject nor"));
}

#[test]
fn odd_requests_are_refused_with_what_is_wrong() {
    let key = Key::ec();
    let subject = common_name(0x0c, b"orders");
    let spki = key.spki();
    let good = raw(&key, &subject, &spki, &[]);
    let make = |subject: &[u8], attributes: &[Vec<u8>]| raw(&key, subject, &spki, attributes);
    let two = asking(&[dns(b"a.example")]);
    let two_in_one = tlv(
        0x31,
        &[
            &sequence(&[&hex("0603550403"), &tlv(12, &[b"a"])]),
            &sequence(&[&hex("060355040a"), &tlv(12, &[b"b"])]),
        ],
    );
    let version = sequence(&[&[2, 1, 1], &subject, &spki, &tlv(0xa0, &[])]);
    let bare = sequence(&[&[2, 1, 0], &subject, &spki]);
    let ecdsa = hex("300a06082a8648ce3d040302");
    let weak = sequence(&[&[2, 1, 0], &subject, &rsa(&modulus(1_024), &[1, 0, 1]), &tlv(0xa0, &[])]);
    let sha1 = hex("300906072a8648ce3d0401");
    for (der, expected) in [
        (whole(&key, &version, &ecdsa), "another version"),
        (whole(&key, &bare, &ecdsa), "attributes is missing"),
        (whole(&key, &weak, &ecdsa), "1024 bits"),
        (whole(&key, &sequence(&[&[2, 1, 0], &subject, &spki, &tlv(0xa0, &[])]), &sha1), "signed with SHA-1"),
        (make(&common_name(0x0c, b"a\0b"), &[]), "U+0000"),
        (make(&common_name(0x0c, "p\u{430}ypal".as_bytes()), &[]), "mixes Latin and Cyrillic"),
        (make(&sequence(&[&attribute("2a03", &tlv(0x0c, &[b"a"]))]), &[]), "attribute 1.2.3 is not known"),
        (make(&sequence(&[&two_in_one]), &[]), "several attributes"),
        (make(&sequence(&[&attribute("550403", &[2, 1, 1])]), &[]), "CN is no string"),
        (make(&sequence(&[&attribute("550406", &tlv(0x13, &[b"de"]))]), &[]), "country"),
        (make(&subject, &[two.clone(), two]), "asked for twice"),
        (make(&subject, &[asking(&[dns(b"a.example"), dns(b"b.example")])]), "2.5.29.17 is there twice"),
        (make(&subject, &[asking(&[dns(b"a\0.example")])]), "DNS name"),
        (
            make(&subject, &[asking(&[extension(17, false, &sequence(&[&tlv(0x88, &[&[0x2a, 3]])]))])]),
            "another kind than",
        ),
        (make(&subject, &[request_attribute(14, &[])]), "missing"),
        (make(&subject, &[request_attribute(14, &[&sequence(&[]), &sequence(&[])])]), "belong to nothing"),
        (make(&subject, &[request_attribute(14, &[&sequence(&[])])]), "empty"),
        (make(&subject, &vec![request_attribute(7, &[&tlv(0x0c, &[b"a"])]); 17]), "more than 16 attributes"),
        (make(&subject, &[vec![5, 0]]), "not SEQUENCE"),
        ([&good[..], &[0]].concat(), "belong to nothing"),
        (vec![0x30; MAX_DER_BYTES + 1], "limit of 65536"),
        (pem("CERTIFICATE", &good).into_bytes(), "block of PEM is none"),
        (pem("CERTIFICATE REQUEST", &good).repeat(2).into_bytes(), "more than 1 block"),
        (b"-----BEGIN CERTIFICATE REQUEST-----".to_vec(), "no end"),
        (Vec::new(), "missing"),
    ] {
        let error = told(&der);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    // The other label that is in use.
    assert!(SigningRequest::read(pem("NEW CERTIFICATE REQUEST", &good).as_bytes()).is_ok());
}

#[test]
fn what_openssl_asks_is_read() {
    let folder = tempfile::tempdir().unwrap();
    for algorithm in [
        &["rsa:2048", "-sha512"][..],
        &["ed25519"],
        &["ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-sha256"],
    ] {
        let fixed = [
            "req",
            "-new",
            "-nodes",
            "-keyout",
            "key",
            "-out",
            "csr",
            "-subj",
            "/C=DE/O=Büro/CN=orders",
            "-utf8",
        ];
        let names =
            ["-addext", "subjectAltName=DNS:a.example,IP:10.0.0.1,email:a@b.example,URI:urn:x", "-newkey"];
        openssl(folder.path(), &[&fixed[..], &names, algorithm].concat()).unwrap();
        let read = SigningRequest::read(&std::fs::read(folder.path().join("csr")).unwrap()).unwrap();
        assert_eq!(read.subject.unwrap().to_string(), "CN=orders,O=Büro,C=DE");
        assert_eq!(read.alt_names.len(), 4);
        assert!(read.key_spec.is_some());
    }
}

#[test]
fn what_cannot_be_written_is_not_built() {
    let key = Key::ec();
    let name = |text| DistinguishedName::parse(text).unwrap();
    let build =
        |subject, names: &[AltName], spki: &[u8]| request(&name(subject), names, spki, key.algorithm());
    // PrintableString has no `@` (X.680, 41.4).
    assert!(build("SERIALNUMBER=a@b", &[], &key.spki()).unwrap_err().to_string().contains("SERIALNUMBER"));
    assert!(build("CN=p\u{430}ypal", &[], &key.spki()).unwrap_err().to_string().contains("mixes Latin"));
    assert!(build("CN=a", &[], b"none").is_err());
    assert!(build("CN=a", &[], &rsa(&modulus(1_024), &[1, 0, 1])).is_err());
    let many = vec![AltName::dns("a.example").unwrap(); 513];
    assert!(build("CN=a", &many, &key.spki()).unwrap_err().to_string().contains("512"));
    assert!(build("CN=a", &[], &key.spki()).unwrap().finish(b"").is_err());
}
