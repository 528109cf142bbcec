//! Lists and answers about revocation: `openssl` believes them, and asks what is read here.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::path::Path;

use keymill_core::key::KeySpec;
use keymill_core::time::Timestamp;
use keymill_x509::crl::{Reason, Revoked, list};
use keymill_x509::ocsp::{Answer, Asked, Failure, IdHash, Status, answer, failure, read_request};
use keymill_x509::{Certificate, key_id, pem};
use support::{Key, Wanted, openssl, sequence, tlv};

const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);

/// `openssl` goes by the clock, and so do lists that it is asked to believe.
fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Timestamp::from_ms(since.as_millis() as u64)
}

struct Authority {
    key: Key,
    certificate: Certificate,
}

fn authority(spec: KeySpec, folder: &Path) -> Authority {
    let key = Key::generate(spec);
    let certificate = Wanted::authority("CN=root,O=Example", None).issue(&key, None);
    fs::write(folder.join("root"), certificate.pem()).unwrap();
    Authority { key, certificate }
}

impl Authority {
    fn list(&self, number: u64, revoked: &[Revoked]) -> Vec<u8> {
        let id = key_id(&self.key.spki()).unwrap();
        let name = &self.certificate.subject_der;
        let (from, to) = (now().minus(HOUR), now().plus(HOUR));
        self.key.finish(list(name, &id, number, from, to, revoked, self.key.algorithm()).unwrap())
    }
}

fn revoked(certificate: &Certificate, reason: Option<Reason>) -> Revoked {
    Revoked { serial: certificate.serial_bytes(), at: now().minus(HOUR), reason }
}

#[test]
fn a_list_is_believed_and_what_is_in_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for spec in [KeySpec::Rsa2048, KeySpec::EcP256, KeySpec::EcP384, KeySpec::Ed25519] {
        let authority = authority(spec, folder.path());
        let by = Some((&authority.certificate, &authority.key));
        let [kept, gone, held] =
            ["CN=kept", "CN=gone", "CN=held"].map(|name| Wanted::leaf(name, &[]).issue(&Key::ec(), by));
        let entries =
            [revoked(&gone, Some(Reason::KeyCompromise)), revoked(&held, Some(Reason::CertificateHold))];
        let der = authority.list(0x1_0000_0000, &entries);
        fs::write(folder.path().join("crl"), pem("X509 CRL", &der)).unwrap();
        let told =
            openssl(folder.path(), &["crl", "-CAfile", "root", "-noout", "-text", "-in", "crl"]).unwrap();
        for part in
            ["verify OK", "Version 2", "Key Compromise", "Certificate Hold", "4294967296", &*gone.serial]
        {
            assert!(told.to_lowercase().contains(&part.to_lowercase()), "{part}: {told}");
        }
        for (certificate, is_good) in [(&kept, true), (&gone, false), (&held, false)] {
            fs::write(folder.path().join("leaf"), certificate.pem()).unwrap();
            let arguments =
                ["verify", "-x509_strict", "-crl_check", "-CAfile", "root", "-CRLfile", "crl", "leaf"];
            let told = openssl(folder.path(), &arguments);
            assert_eq!(told.is_ok(), is_good, "{told:?}");
            assert!(is_good || told.unwrap_err().contains("certificate revoked"));
        }
    }
}

#[test]
fn a_list_of_nothing_and_one_of_many_are_believed_and_odd_ones_are_not_built() {
    let folder = tempfile::tempdir().unwrap();
    let authority = authority(KeySpec::EcP256, folder.path());
    let many: Vec<_> = (1..=5_000u32)
        .map(|n| Revoked { serial: n.to_be_bytes().to_vec(), at: now(), reason: None })
        .collect();
    for entries in [&many[..0], &many] {
        fs::write(folder.path().join("crl"), pem("X509 CRL", &authority.list(0, entries))).unwrap();
        let told =
            openssl(folder.path(), &["crl", "-CAfile", "root", "-noout", "-text", "-in", "crl"]).unwrap();
        assert!(told.contains("verify OK"));
        assert_eq!(told.contains("No Revoked Certificates"), entries.is_empty());
        assert_eq!(told.matches("Serial Number:").count(), entries.len());
    }
    let one = |serial: &[u8]| Revoked { serial: serial.to_vec(), at: now(), reason: None };
    let build = |revoked: &[Revoked], until| {
        let name = &authority.certificate.subject_der;
        list(name, &[1; 20], 1, now(), until, revoked, authority.key.algorithm()).map(drop)
    };
    let later = now().plus(HOUR);
    for (entries, told) in [
        (&[one(&[0, 0])][..], "zero"),
        (&[one(&[1]), one(&[2]), one(&[0, 1])], "twice"),
        (&[one(&[0; 0])], "zero"),
        (&[one(&[1; 21])], "more than 20 bytes"),
    ] {
        assert!(build(entries, later).unwrap_err().to_string().contains(told));
    }
    let crowd: Vec<_> = (0..100_001u32).map(|n| one(&n.to_be_bytes())).collect();
    assert!(build(&crowd, later).unwrap_err().to_string().contains("limit of 100000"));
    assert!(build(&[], now().minus(HOUR)).unwrap_err().to_string().contains("next update"));
    for reason in Reason::ALL {
        assert_eq!(Reason::from_number(reason.number()), Some(reason));
    }
    assert!([0, 7, 8, 10, 11].iter().all(|number| Reason::from_number(*number).is_none()));
}

/// Has `openssl` ask about certificates; returns what is read of that.
fn ask(folder: &Path, arguments: &[&str]) -> Asked {
    let all = [&["ocsp", "-issuer", "root", "-reqout", "request"], arguments].concat();
    openssl(folder, &all).unwrap();
    read_request(&fs::read(folder.join("request")).unwrap()).unwrap()
}

#[test]
fn openssl_asks_and_believes_the_answer_of_the_authority_and_of_whom_it_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for spec in [KeySpec::Rsa2048, KeySpec::EcP256, KeySpec::Ed25519] {
        let authority = authority(spec, folder.path());
        let by = (&authority.certificate, &authority.key);
        let leaves = ["CN=a", "CN=b", "CN=c"].map(|name| Wanted::leaf(name, &[]).issue(&Key::ec(), Some(by)));
        for (name, leaf) in ["a", "b", "c"].into_iter().zip(&leaves) {
            fs::write(at(name), leaf.pem()).unwrap();
        }
        let responder_key = Key::ec();
        let responder = support::responder(&responder_key, by);
        for (hash, with_nonce, delegated) in
            [("-sha1", true, false), ("-sha256", false, true), ("-sha512", true, true)]
        {
            let mut arguments = vec![hash, "-cert", "a", hash, "-cert", "b", hash, "-cert", "c"];
            arguments.push(if with_nonce { "-nonce" } else { "-no_nonce" });
            let asked = ask(folder.path(), &arguments);
            assert_eq!((asked.ids.len(), asked.nonce.is_some()), (3, with_nonce));
            for (id, leaf) in asked.ids.iter().zip(&leaves) {
                assert_eq!(id.serial, leaf.serial_bytes());
                assert!(id.is_of(&authority.certificate.subject_der, &authority.key.spki()).unwrap());
                assert!(!id.is_of(&authority.certificate.subject_der, &responder_key.spki()).unwrap());
                assert!(!id.is_of(&leaf.subject_der, &authority.key.spki()).unwrap());
            }
            let statuses =
                [Status::Good, Status::Revoked(now().minus(HOUR), Some(Reason::Superseded)), Status::Unknown];
            let answers: Vec<_> = asked
                .ids
                .iter()
                .zip(statuses)
                .map(|(id, status)| Answer {
                    id,
                    status,
                    this_update: now().minus(HOUR),
                    next_update: now().plus(HOUR),
                })
                .collect();
            let (certificate, key) = if delegated {
                (&responder, &responder_key)
            } else {
                (&authority.certificate, &authority.key)
            };
            let beside: &[&[u8]] = if delegated { &[&responder.der] } else { &[] };
            let nonce = asked.nonce.as_deref();
            let part = answer(&certificate.subject_der, now(), &answers, nonce, beside, key.algorithm());
            fs::write(at("response"), key.finish(part.unwrap())).unwrap();
            let told = openssl(
                folder.path(),
                &[
                    "ocsp",
                    "-issuer",
                    "root",
                    "-CAfile",
                    "root",
                    "-reqin",
                    "request",
                    "-respin",
                    "response",
                    "-resp_text",
                ],
            );
            let told = told.unwrap();
            for part in
                ["Response verify OK", "Status: good", "Status: revoked", "superseded", "Status: unknown"]
            {
                assert!(told.contains(part), "{part}: {told}");
            }
            assert!(!told.contains("WARNING"), "{told}");
        }
    }
}

#[test]
fn authorities_are_found_by_the_hashes_that_are_asked_by() {
    let key = Key::ec();
    let root = Wanted::authority("CN=root", None).issue(&key, None);
    for (hash, length) in IdHash::ALL.into_iter().zip([20, 32, 48, 64]) {
        let (name, bits) = hash.authority(&root.subject_der, &root.public_key).unwrap();
        assert_eq!((name.len(), bits.len()), (length, length));
    }
    assert!(IdHash::Sha1.authority(&root.subject_der, b"none").is_err());
}

/// Builds a question by hand.
fn question(hash: &[u8], ids: usize, serial: &[u8], extensions: &[u8]) -> Vec<u8> {
    let id = sequence(&[
        &sequence(&[hash, &[5, 0]]),
        &tlv(4, &[&[1; 20]]),
        &tlv(4, &[&[2; 20]]),
        &tlv(2, &[serial]),
    ]);
    let list = vec![sequence(&[&id]); ids].concat();
    sequence(&[&sequence(&[&sequence(&[&list]), extensions])])
}

const SHA1: &[u8] = &[6, 5, 0x2b, 0x0e, 3, 2, 0x1a];

#[test]
fn odd_questions_are_refused_with_what_is_wrong() {
    let extension = |critical: bool, oid: &[u8], value: &[u8]| {
        let critical: &[u8] = if critical { &[1, 1, 0xff] } else { &[] };
        tlv(0xa2, &[&sequence(&[&sequence(&[&tlv(6, &[oid]), critical, &tlv(4, &[value])])])])
    };
    let nonce: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 2];
    let good = read_request(&question(SHA1, 16, &[0, 0x80], &extension(true, nonce, &tlv(4, &[&[7; 128]]))))
        .unwrap();
    assert_eq!((good.ids.len(), &good.ids[0].serial[..], good.nonce.unwrap().len()), (16, &[0x80][..], 128));
    assert_eq!(good.ids[0].hash, Some(IdHash::Sha1));
    // A hash that nothing is found by is answered for, as unknown.
    let md5 = [6, 8, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 5];
    let unknown = read_request(&question(&md5, 1, &[1], &[])).unwrap();
    assert_eq!(unknown.ids[0].hash, None);
    assert!(!unknown.ids[0].is_of(b"", b"").unwrap());

    let whole = question(SHA1, 1, &[1], &[]);
    for (der, told) in [
        (question(SHA1, 0, &[1], &[]), "about no certificate"),
        (question(SHA1, 17, &[1], &[]), "more than 16"),
        (question(SHA1, 1, &[0x80], &[]), "negative"),
        (question(SHA1, 1, &[1; 21], &[]), "longer than 20"),
        (question(SHA1, 1, &[0, 1], &[]), "zeros in front"),
        (question(SHA1, 1, &[1], &extension(false, nonce, &tlv(4, &[&[7; 129]]))), "nonce"),
        (question(SHA1, 1, &[1], &extension(false, nonce, &tlv(4, &[]))), "nonce"),
        (question(SHA1, 1, &[1], &extension(false, nonce, &[7; 16])), "nonce"),
        (question(SHA1, 1, &[1], &extension(true, &[0x2a, 3], &[5, 0])), "critical"),
        ([&whole[..], &[0]].concat(), "belong to nothing"),
        (whole[..whole.len() - 1].to_vec(), "cut short"),
        (vec![0x30, 0x80, 0, 0], "indefinite"),
        (vec![0x30, 0x81, 2, 0x30, 0], "shortest"),
        (vec![0; 16 * 1024 + 1], "limit of 16384"),
        (Vec::new(), "missing"),
    ] {
        let error = read_request(&der).unwrap_err().to_string();
        assert!(error.contains(told), "{told}: {error}");
    }
}

#[test]
fn failures_are_what_the_rfc_has() {
    let folder = tempfile::tempdir().unwrap();
    for (why, told) in [
        (Failure::MalformedRequest, "malformedrequest"),
        (Failure::InternalError, "internalerror"),
        (Failure::TryLater, "trylater"),
        (Failure::Unauthorized, "unauthorized"),
    ] {
        fs::write(folder.path().join("response"), failure(why)).unwrap();
        let said = openssl(folder.path(), &["ocsp", "-respin", "response", "-noverify"]);
        assert!(format!("{said:?}").contains(told), "{said:?}");
    }
}
