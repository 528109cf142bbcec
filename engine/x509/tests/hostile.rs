//! Certificates that are not what they should be, each refused with what is wrong.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use keymill_x509::{Certificate, MAX_DER_BYTES, read_pem_chain};
use support::raw::{Raw, extension, modulus, rsa};
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
fn one_with_nothing_changed_is_read() {
    let key = Key::ec();
    let read = Certificate::read(&Raw::of(&key).sign(&key)).unwrap();
    assert_eq!((&*read.subject, &*read.issuer, &*read.serial), ("CN=subject", "CN=issuer", "07"));
    assert_eq!(read.signature_algorithm, "ECDSA_SHA_256");
    assert_eq!((read.authority, read.key_purposes.len(), read.alt_names.len()), (None, 0, 0));
}

#[test]
fn versions_and_serial_numbers() {
    let key = Key::ec();
    refused(&key, "version 1", |raw| raw.version = Vec::new());
    refused(&key, "another version", |raw| raw.version = vec![0xa0, 3, 2, 1, 0]);
    refused(&key, "version 2", |raw| raw.version = vec![0xa0, 3, 2, 1, 1]);
    refused(&key, "another version", |raw| raw.version = vec![0xa0, 3, 2, 1, 3]);
    refused(&key, "serial number is zero", |raw| raw.serial = vec![2, 1, 0]);
    refused(&key, "serial number is negative", |raw| raw.serial = vec![2, 1, 0x80]);
    refused(&key, "zeros in front", |raw| raw.serial = vec![2, 2, 0, 1]);
    refused(&key, "longer than 20 bytes", |raw| raw.serial = tlv(2, &[&[1; 21]]));
    refused(&key, "longer than 20 bytes", |raw| raw.serial = tlv(2, &[&[0], &[0xff; 20]]));
    refused(&key, "no bytes", |raw| raw.serial = vec![2, 0]);
    let mut raw = Raw::of(&key);
    raw.serial = tlv(2, &[&[0x7f; 20]]);
    assert_eq!(Certificate::read(&raw.sign(&key)).unwrap().serial, "7f".repeat(20));
}

#[test]
fn signatures_that_can_be_forged_or_are_told_differently_inside_and_out() {
    let key = Key::ec();
    for (oid, hash) in [
        ("2a864886f70d010102", "MD2"),
        ("2a864886f70d010104", "MD5"),
        ("2a864886f70d010105", "SHA-1"),
        ("2b0e03021d", "SHA-1"),
        ("2a8648ce380403", "SHA-1"),
        ("2a8648ce3d0401", "SHA-1"),
    ] {
        refused(&key, &format!("signed with {hash}"), |raw| {
            raw.inner = sequence(&[&tlv(6, &[&hex(oid)]), &[5, 0]]);
            raw.outer = raw.inner.clone();
        });
    }
    refused(&key, "another than that of the signature", |raw| {
        raw.inner = hex("300a06082a8648ce3d040303");
    });
    refused(&key, "another than that of the signature", |raw| {
        raw.inner = hex("300c06082a8648ce3d0403020500")
    });
    for (algorithm, expected) in [
        // ECDSA with NULL, Ed25519 with NULL, RSA with another parameter, one that nobody knows.
        ("300c06082a8648ce3d0403020500", "none it has"),
        ("300706032b65700500", "none it has"),
        ("300e06092a864886f70d01010b020100", "none it has"),
        ("300406022a03", "1.2.3 are not taken"),
        // RSA-PSS of SHA-1, which is what its defaults stand for, and with a salt of another length.
        ("300d06092a864886f70d01010a3000", "of RSA-PSS"),
        (
            "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402010500a203020114",
            "of RSA-PSS",
        ),
        // MGF1 of another hash.
        (
            "304106092a864886f70d01010a3034a00f300d06096086480165030402010500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020120",
            "of RSA-PSS",
        ),
    ] {
        refused(&key, expected, |raw| {
            raw.inner = hex(algorithm);
            raw.outer = raw.inner.clone();
        });
    }
}

#[test]
fn keys_that_are_weak_or_malformed() {
    let key = Key::ec();
    let f4 = [1, 0, 1];
    let mut even = modulus(2_048);
    *even.last_mut().unwrap() = 0xfe;
    for (spki, expected) in [
        (rsa(&modulus(1_024), &f4), "1024 bits"),
        (rsa(&[0x7f; 255], &f4), "2039 bits"),
        (rsa(&modulus(8_200), &f4), "8200 bits"),
        (rsa(&modulus(2_048), &[1]), "0 or 1"),
        (rsa(&modulus(2_048), &[0]), "0 or 1"),
        (rsa(&modulus(2_048), &[2]), "exponent of the RSA key is even"),
        (rsa(&modulus(2_048), &[1, 0, 0]), "exponent of the RSA key is even"),
        (rsa(&modulus(2_048), &[2, 0, 0, 0, 1]), "33 bits"),
        (rsa(&modulus(2_048), &[1; 9]), "33 bits"),
        (rsa(&modulus(2_048), &[0xff]), "negative"),
        (rsa(&even, &f4), "modulus of the RSA key is even"),
        (rsa(&[0xff; 256], &f4), "negative"),
        (sequence(&[&hex("300d06092a864886f70d0101010500"), &tlv(3, &[&[0], &[5, 0]])]), "not SEQUENCE"),
        (sequence(&[&hex("300b06092a864886f70d010101"), &tlv(3, &[&[0], &[0x30, 0]])]), "not NULL"),
        // A curve that is spelled out, one without its name, a point of P-256 that is none, and one that is compressed.
        (sequence(&[&hex("300b06072a8648ce3d02013000"), &tlv(3, &[&[0; 66]])]), "not named"),
        (sequence(&[&hex("300906072a8648ce3d0201"), &tlv(3, &[&[0; 66]])]), "not named"),
        (
            sequence(&[&hex("301306072a8648ce3d020106082a8648ce3d030107"), &tlv(3, &[&[0, 4], &[1; 64]])]),
            "no point of EC_P256",
        ),
        (
            sequence(&[&hex("301306072a8648ce3d020106082a8648ce3d030107"), &tlv(3, &[&[0, 2], &[1; 32]])]),
            "uncompressed point",
        ),
        (
            sequence(&[&hex("301306072a8648ce3d020106082a811ccf5501822d"), &tlv(3, &[&[0, 4], &[1; 64]])]),
            "no point of EC_SM2",
        ),
        (sequence(&[&hex("300506032b6570"), &tlv(3, &[&[0; 32]])]), "32 bytes"),
        (sequence(&[&hex("300506032b6570"), &tlv(3, &[&[1], &[2; 32]])]), "end at a byte"),
    ] {
        refused(&key, expected, |raw| raw.public_key = spki);
    }
    // Small exponents, 33 bits, and 8,192 bits are weighed and taken; curves that are none of ours are read and never signed under.
    let p521 = [&hex("301006072a8648ce3d020106052b81040023")[..], &tlv(3, &[&[0, 4], &[1; 132]])];
    for (spki, spec) in [
        (rsa(&modulus(2_048), &[3]), Some("RSA_2048")),
        (rsa(&modulus(4_096), &[1, 0, 0, 0, 1]), Some("RSA_4096")),
        (rsa(&modulus(8_192), &f4), None),
        (sequence(&p521), None),
    ] {
        let mut raw = Raw::of(&key);
        raw.public_key = spki;
        let read = Certificate::read(&raw.sign(&key)).unwrap();
        assert_eq!(read.key_spec.map(|spec| spec.name()), spec);
    }
}

#[test]
fn extensions_that_are_unknown_twice_or_malformed() {
    let key = Key::ec();
    let ca = |value: &[u8]| extension(19, true, value);
    let usage = |value: &[u8]| extension(15, true, value);
    let id = |last: u8| sequence(&[&[6, 4, 0x55, 0x1d, 0x81, last], &tlv(4, &[])]);
    let many: Vec<u8> = (0..65).flat_map(id).collect();
    for (extensions, expected) in [
        (vec![extension(99, true, &[5, 0])], "2.5.29.99 is critical, and not known here"),
        // Policy constraints, and a promise that no certificate was issued yet (RFC 6962).
        (vec![extension(36, true, &[0x30, 0])], "2.5.29.36 is critical"),
        (
            vec![sequence(&[&hex("060a2b06010401d679020403"), &[1, 1, 0xff], &tlv(4, &[&[5, 0]])])],
            "is critical",
        ),
        (vec![extension(99, false, &[5, 0]), extension(99, false, &[5, 0])], "2.5.29.99 is there twice"),
        (vec![ca(&[0x30, 0]), ca(&[0x30, 0])], "2.5.29.19 is there twice"),
        (vec![many], "more than 64 extensions"),
        (vec![Vec::new()], "list of extensions that is empty"),
        (vec![sequence(&[&[6, 3, 0x55, 0x1d, 99], &[1, 1, 0], &tlv(4, &[])])], "not written as true"),
        (vec![sequence(&[&[6, 3, 0x55, 0x1d, 99], &[1, 1, 1], &tlv(4, &[])])], "not written as true"),
        (vec![sequence(&[&[6, 3, 0x55, 0x1d, 99], &tlv(4, &[]), &[5, 0]])], "belong to nothing"),
        (vec![sequence(&[&[6, 2, 0x80, 0x01], &tlv(4, &[])])], "malformed object identifier"),
        (vec![ca(&[0x30, 3, 2, 1, 0])], "path length without being"),
        (vec![ca(&[0x30, 3, 1, 1, 0])], "basic constraints are not written"),
        (vec![ca(&[0x30, 6, 1, 1, 0xff, 2, 1, 0xff])], "path length is negative"),
        (vec![ca(&[5, 0])], "not SEQUENCE"),
        (vec![usage(&[3, 1, 0])], "malformed, or names nothing"),
        (vec![usage(&[3, 2, 0, 0])], "malformed, or names nothing"),
        (vec![usage(&[3, 2, 1, 1])], "malformed, or names nothing"),
        (vec![usage(&[3, 2, 0, 1])], "names nothing that a key is used for"),
        (vec![usage(&[3, 3, 7, 0, 0x80])], "names nothing that a key is used for"),
        (vec![usage(&[3, 4, 0, 1, 1, 1])], "malformed, or names nothing"),
        (vec![extension(14, false, &[4, 0])], "key identifier has 1 to 64 bytes"),
        (vec![extension(14, false, &tlv(4, &[&[1; 65]]))], "key identifier has 1 to 64 bytes"),
        (vec![extension(14, false, &[4, 1, 1, 0])], "belong to nothing"),
        (vec![extension(35, false, &[0x30, 2, 0x80, 0])], "key identifier has 1 to 64 bytes"),
        (vec![extension(37, false, &[0x30, 0])], "names nothing"),
        (vec![extension(30, true, &[0x30, 0])], "name constraints that name nothing"),
        (vec![extension(30, true, &[0x30, 2, 0xa0, 0])], "name constraints that name nothing"),
        (
            vec![extension(30, true, &sequence(&[&tlv(0xa0, &[&sequence(&[&tlv(0x88, &[&[0x2a, 3]])])])]))],
            "kind that is not checked",
        ),
        (
            vec![extension(30, true, &sequence(&[&tlv(0xa0, &[&sequence(&[&tlv(0x87, &[&[1; 7]])])])]))],
            "neither of 8 nor of 32",
        ),
        (
            vec![extension(
                30,
                true,
                &sequence(&[&tlv(0xa0, &[&sequence(&[&tlv(0x82, &[b"a"]), &[0x81, 1, 1]])])]),
            )],
            "distance",
        ),
    ] {
        let mut raw = Raw::of(&key);
        raw.extensions = Some(extensions);
        let error = told(&raw.sign(&key));
        assert!(error.contains(expected), "{expected}: {error}");
    }
    // A use that is not known here is one all the same.
    let raw = Raw::of(&key).with(extension(37, false, &sequence(&[&[6, 2, 0x2a, 3]])));
    let read = Certificate::read(&raw.sign(&key)).unwrap();
    assert!(read.extended_usages.is_empty() && read.has_extended_usages);
    // One that is not known and not critical is passed over; a path length past all chains is as good as none.
    let raw = Raw::of(&key).with(extension(99, false, &[5, 0])).with(ca(&hex("30090101ff020403000000")));
    assert_eq!(Certificate::read(&raw.sign(&key)).unwrap().authority, Some(Some(255)));
}

#[test]
fn times_that_are_none() {
    let key = Key::ec();
    let span = |from: &[u8], to: &[u8]| sequence(&[from, to]);
    let (early, late) = (tlv(0x17, &[b"250101000000Z"]), tlv(0x18, &[b"20500101000000Z"]));
    for (validity, expected) in [
        (span(&late, &early), "last moment is before its first"),
        (span(&tlv(0x17, &[b"2501010000Z"]), &late), "first moment is no time"),
        (span(&early, &tlv(0x17, &[b"251301000000Z"])), "last moment is no time"),
        (span(&early, &tlv(0x18, &[b"20500101000000+0100"])), "last moment is no time"),
        (span(&early, &tlv(0x18, &[b"20500101000000.5Z"])), "last moment is no time"),
        (span(&early, &tlv(0x0c, &[b"250101000000Z"])), "last moment is no time"),
        (sequence(&[&early]), "last moment is missing"),
        (sequence(&[&early, &late, &late]), "belong to nothing"),
    ] {
        refused(&key, expected, |raw| raw.validity = validity);
    }
    let mut raw = Raw::of(&key);
    raw.validity = span(&early, &late);
    let read = Certificate::read(&raw.sign(&key)).unwrap();
    assert_eq!(read.validity.not_after.to_string(), "2050-01-01T00:00:00Z");
}

#[test]
fn bytes_that_are_no_der_or_too_many() {
    let key = Key::ec();
    let good = Raw::of(&key).sign(&key);
    // The same length in one byte more, at the front and in what is signed.
    let length = (good.len() - 4) as u32;
    let longer = [&[0x30, 0x83][..], &length.to_be_bytes()[1..], &good[4..]].concat();
    let mut long_serial = Raw::of(&key);
    long_serial.serial = vec![2, 0x81, 1, 7];
    let mut endless = vec![0x30, 0x80];
    endless.extend(&good[4..]);
    endless.extend([0, 0]);
    let mut endless_serial = Raw::of(&key);
    endless_serial.serial = vec![0x22, 0x80, 2, 1, 7, 0, 0];
    for (der, expected) in [
        ([&good[..], &[0]].concat(), "belong to nothing"),
        (good[..good.len() - 1].to_vec(), "cut short"),
        (longer, "shortest form"),
        (long_serial.sign(&key), "shortest form"),
        (endless, "indefinite"),
        (endless_serial.sign(&key), "cannot be read"),
        (vec![0x30; MAX_DER_BYTES + 1], "limit of 65536"),
        (vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff], "certificate"),
        (vec![0x30, 0x84, 0x0f, 0xff, 0xff, 0xff], "cut short"),
        (vec![0x1f, 0xff, 0xff, 0xff, 0xff, 0x7f, 0], "certificate"),
        (Vec::new(), "missing"),
        (b"-----BEGIN CERTIFICATE-----".to_vec(), "certificate"),
    ] {
        let error = told(&der);
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn nesting_costs_nothing() {
    let key = Key::ec();
    let mut deep = vec![5, 0];
    while deep.len() < 60_000 {
        deep = sequence(&[&deep]);
    }
    assert!(told(&deep).contains("algorithm of the signature is missing"));
    refused(&key, "relative name is SEQUENCE", |raw| raw.subject = deep.clone());
    refused(&key, "not SEQUENCE", |raw| raw.subject = tlv(0x31, &[&deep]));
    // In what is not looked at, it is not looked at.
    let raw = Raw::of(&key).with(extension(99, false, &deep));
    assert!(Certificate::read(&raw.sign(&key)).is_ok());
}

#[test]
fn every_byte_that_is_changed_is_noticed() {
    let key = Key::ec();
    let mut raw = Raw::of(&key).with(extension(19, true, &[0x30, 3, 1, 1, 0xff]));
    raw.issuer = raw.subject.clone();
    let good = raw.sign(&key);
    let signer = Certificate::read(&good).unwrap();
    signer.is_signed_by(&signer).unwrap();
    for at in 0..good.len() {
        for bit in [0x01, 0x20, 0x80] {
            let mut altered = good.clone();
            altered[at] ^= bit;
            if let Ok(read) = Certificate::read(&altered) {
                assert!(read.is_signed_by(&signer).is_err(), "byte {at}");
            }
        }
    }
    for length in 0..good.len() {
        assert!(Certificate::read(&good[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn pem_that_is_no_chain() {
    let key = Key::ec();
    let one = Certificate::read(&Raw::of(&key).sign(&key)).unwrap().pem();
    let with_text = format!("subject=CN = a\n{one}\nissuer text\r\n{}", one.replace('\n', "\r\n"));
    assert_eq!(read_pem_chain(&with_text, 2).unwrap().len(), 2);
    let big = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", "A".repeat(90_000));
    for (text, expected) in [
        (String::new(), "no certificate in PEM"),
        ("MIIB".into(), "no certificate in PEM"),
        (one.repeat(3), "more than 2 blocks"),
        (one.replace("CERTIFICATE", "PRIVATE KEY"), "block 1 is no certificate"),
        (one.replace("END CERTIFICATE", "END PRIVATE KEY"), "ends as another"),
        (one.replace("-----END CERTIFICATE-----", ""), "has no end"),
        (one.replacen("MII", "M!I", 1), "not base64"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----".into(), "certificate 1: "),
        (big, "limit of 65536"),
    ] {
        let error = read_pem_chain(&text, 2).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}
