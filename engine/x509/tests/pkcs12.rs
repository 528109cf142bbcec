//! PKCS #12: what is written opens here and in `openssl`, what `openssl` writes opens here, and hostile files cost nothing.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;
use std::time::{Duration, Instant};

use keymill_core::Sensitive;
use keymill_core::key::KeySpec;
use keymill_x509::pkcs12::{open, seal};
use keymill_x509::{Certificate, pem};
use support::{Key, Wanted, hex, openssl, sequence, tlv};

fn chain(spec: KeySpec) -> (Key, [Certificate; 3]) {
    let keys = [Key::ec(), Key::ec(), Key::generate(spec)];
    let root = Wanted::authority("CN=root", None).issue(&keys[0], None);
    let middle = Wanted::authority("CN=middle", Some(0)).issue(&keys[1], Some((&root, &keys[0])));
    let leaf = Wanted::leaf("CN=leaf", &[]).issue(&keys[2], Some((&middle, &keys[1])));
    let [_, _, key] = keys;
    (key, [leaf, middle, root])
}

fn refused(bytes: &[u8], password: &str) -> String {
    match open(bytes, password) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("it was opened"),
    }
}

#[test]
fn what_is_sealed_opens_here_and_there_with_its_password_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (spec, password) in
        [(KeySpec::Rsa2048, "secret-1234"), (KeySpec::EcP256, "pässwörd €"), (KeySpec::Ed25519, "a")]
    {
        let (key, chain) = chain(spec);
        let (key, ders) = (Sensitive::new(key.pkcs8()), chain.each_ref().map(|one| &one.der[..]));
        let file = seal("orders", &key, &ders, password).unwrap();
        let (opened, certificates) = open(&file, password).unwrap();
        assert_eq!(opened.expose(), key.expose());
        assert_eq!(certificates, ders);
        assert!(refused(&file, "another").contains("the password is wrong"));
        assert!(refused(&file, "").contains("the password is wrong"));
        fs::write(folder.path().join("file"), &file).unwrap();
        let pass = format!("pass:{password}");
        let arguments = ["pkcs12", "-in", "file", "-passin", &pass, "-nodes"];
        let told = openssl(folder.path(), &arguments).unwrap();
        assert_eq!(told.matches("BEGIN CERTIFICATE").count(), 3);
        assert_eq!(told.matches("BEGIN PRIVATE KEY").count(), 1);
    }
}

#[test]
fn what_openssl_writes_opens_with_the_leaf_first() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (key, [leaf, middle, root]) = chain(KeySpec::EcP256);
    fs::write(at("key"), pem("PRIVATE KEY", &key.pkcs8())).unwrap();
    fs::write(at("leaf"), leaf.pem()).unwrap();
    fs::write(at("others"), [root.pem(), middle.pem()].concat()).unwrap();
    let export = |more: &[&str]| {
        let fixed =
            ["pkcs12", "-export", "-inkey", "key", "-in", "leaf", "-certfile", "others", "-out", "file"];
        openssl(folder.path(), &[&fixed[..], more].concat()).unwrap();
        fs::read(at("file")).unwrap()
    };
    for more in [
        &["-passout", "pass:secret"][..],
        &["-passout", "pass:secret", "-iter", "600000"],
        &["-passout", "pass:secret", "-macalg", "sha1", "-keypbe", "aes-128-cbc", "-certpbe", "AES-192-CBC"],
        &["-passout", "pass:secret", "-macalg", "sha512", "-certpbe", "NONE"],
        &["-passout", "pass:secret", "-macalg", "sha384", "-keypbe", "NONE"],
    ] {
        let (opened, certificates) = open(&export(more), "secret").unwrap();
        assert_eq!(opened.expose(), key.pkcs8(), "{more:?}");
        assert_eq!(certificates, [&leaf.der, &middle.der, &root.der].map(Clone::clone));
    }
    for (more, told) in [
        (&["-passout", "pass:secret", "-keypbe", "PBE-SHA1-3DES"][..], "write the file anew with AES"),
        (&["-passout", "pass:secret", "-nomac"], "no MAC"),
        (&["-passout", "pass:secret", "-nokeys"], "no private key"),
        (&["-passout", "pass:secret", "-iter", "600001"], "600000 iterations"),
        (&["-passout", "pass:secret", "-macalg", "md5"], "MAC is not taken"),
    ] {
        let error = refused(&export(more), "secret");
        assert!(error.contains(told), "{told}: {error}");
    }
    // Every byte that is changed is noticed, one way or another.
    let file = export(&["-passout", "pass:secret", "-iter", "3"]);
    for at in 0..file.len() {
        for bit in [0x01, 0x10] {
            let mut altered = file.clone();
            altered[at] ^= bit;
            assert!(open(&altered, "secret").is_err(), "byte {at}");
        }
    }
}

/// Builds a file whose safes are `safes`, and whose MAC has a count of iterations.
fn file(safes: &[u8], iterations: &[u8]) -> Vec<u8> {
    let data = hex("06092a864886f70d010701");
    let content = sequence(&[&data, &tlv(0xa0, &[&tlv(4, &[&sequence(&[safes])])])]);
    let sha256 = sequence(&[&hex("0609608648016503040201"), &[5, 0]]);
    let mac = sequence(&[
        &sequence(&[&sha256, &tlv(4, &[&[0; 32]])]),
        &tlv(4, &[b"saltsalt"]),
        &tlv(2, &[iterations]),
    ]);
    sequence(&[&[2, 1, 3], &content, &mac])
}

/// An encrypted safe whose key takes a count of iterations.
fn safe(iterations: &[u8]) -> Vec<u8> {
    let pbkdf2 = sequence(&[
        &hex("06092a864886f70d01050c"),
        &sequence(&[
            &tlv(4, &[b"salt"]),
            &tlv(2, &[iterations]),
            &sequence(&[&hex("06082a864886f70d0209"), &[5, 0]]),
        ]),
    ]);
    let aes = sequence(&[&hex("060960864801650304012a"), &tlv(4, &[&[0; 16]])]);
    let pbes2 = sequence(&[&hex("06092a864886f70d01050d"), &sequence(&[&pbkdf2, &aes])]);
    let info = sequence(&[&hex("06092a864886f70d010701"), &pbes2, &tlv(0x80, &[&[0; 32]])]);
    sequence(&[&hex("06092a864886f70d010706"), &tlv(0xa0, &[&sequence(&[&[2, 1, 0], &info])])])
}

#[test]
fn work_is_counted_before_any_is_done() {
    let six_hundred_thousand = [0x09, 0x27, 0xc0];
    let begun = Instant::now();
    for (bytes, told) in [
        (file(&safe(&[1]), &[0x7f, 0xff, 0xff, 0xff]), "600000 iterations is taken"),
        (file(&safe(&[1]), &[1, 0, 0, 0, 0, 0, 0]), "600000 iterations is taken"),
        (file(&safe(&[1]), &[0]), "600000 iterations is taken"),
        (file(&safe(&[1]), &[0xff]), "negative"),
        (file(&safe(&[0x7f, 0xff, 0xff, 0xff]), &[1]), "600000 iterations is taken"),
        (file(&safe(&six_hundred_thousand).repeat(4), &[1]), "more than 2000000 iterations"),
        (file(&safe(&[1]).repeat(17), &[1]), "more than 16 safes"),
        (vec![0x30; 256 * 1024 + 1], "limit of 262144"),
        (sequence(&[&[2, 1, 2]]), "another version"),
        (vec![0x30, 0x80, 2, 1, 3, 0, 0], "indefinite"),
        ([&file(&safe(&[1]), &[1])[..], &[0]].concat(), "belong to nothing"),
    ] {
        let error = refused(&bytes, "secret");
        assert!(error.contains(told), "{told}: {error}");
    }
    assert!(begun.elapsed() < Duration::from_millis(500), "no key was derived");
    // The same work for a right and a wrong password.
    assert!(refused(&file(&safe(&[1]), &[1]), "secret").contains("the password is wrong"));
    assert!(refused(&file(&safe(&[1]), &[1]), &"a".repeat(1_025)).contains("1024"));
}

#[test]
fn an_error_shows_nothing_of_the_key_or_the_password() {
    let odd = Sensitive::copied(b"hidden-key-material");
    let (_, chain) = chain(KeySpec::EcP256);
    let error = seal("a", &odd, &[&chain[0].der], "hidden-password").unwrap_err();
    assert!(!format!("{error:?} {error}").contains("hidden"));
    assert!(seal("a", &odd, &[b"none"], "x").is_err());
    let key = Sensitive::new(Key::ec().pkcs8());
    let error = seal("a", &key, &[&chain[0].der], "hidden 🔑").unwrap_err().to_string();
    assert!(error.contains("U+FFFF") && !error.contains("hidden"), "{error}");
}
