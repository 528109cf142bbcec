//! Detached signatures: `openssl cms -verify` takes them, for the content and no other.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;

use aws_lc_rs::digest::digest;
use keymill_core::key::{KeySpec, SignAlgorithm};
use keymill_x509::cms::{attributes, content_digest};
use keymill_x509::pem;
use support::{Key, NOW, Wanted, openssl};

#[test]
fn a_detached_signature_is_taken_for_its_content_alone() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let content = b"what is signed\r\nof two lines\n";
    fs::write(at("content"), content).unwrap();
    fs::write(at("other"), b"what is not").unwrap();
    let mut kinds: Vec<(KeySpec, Option<SignAlgorithm>)> =
        [KeySpec::Rsa2048, KeySpec::EcP256, KeySpec::EcP384].map(|spec| (spec, None)).to_vec();
    kinds.push((KeySpec::Rsa2048, Some(SignAlgorithm::RsaPssSha256)));
    for (spec, algorithm) in kinds {
        let (root_key, key) = (Key::ec(), Key::generate(spec));
        let root = Wanted::authority("CN=root", None).issue(&root_key, None);
        let leaf = Wanted::leaf("CN=signer", &[]).issue(&key, Some((&root, &root_key)));
        fs::write(at("root"), root.pem()).unwrap();
        let algorithm = algorithm.unwrap_or(key.algorithm());
        let hash = digest(content_digest(algorithm).unwrap(), content);
        let part = attributes(hash.as_ref(), NOW, algorithm).unwrap();
        assert_eq!(part.algorithm(), algorithm);
        let signature = key.sign(algorithm, part.bytes());
        let whole = part.finish(&[leaf, root], &signature).unwrap();
        fs::write(at("signature"), pem("CMS", &whole)).unwrap();
        let verify = |content: &str| {
            let fixed =
                ["cms", "-verify", "-binary", "-inform", "PEM", "-in", "signature", "-CAfile", "root"];
            openssl(
                folder.path(),
                &[&fixed[..], &["-purpose", "any", "-content", content, "-out", "out"]].concat(),
            )
        };
        let told = verify("content").unwrap_or_else(|told| panic!("{}: {told}", spec.name()));
        assert!(told.contains("Verification successful"), "{told}");
        assert_eq!(fs::read(at("out")).unwrap(), content);
        assert!(verify("other").is_err());
    }
}

#[test]
fn what_this_openssl_does_not_verify_is_read_by_it_and_of_the_form_that_the_rfcs_have() {
    let folder = tempfile::tempdir().unwrap();
    for spec in [KeySpec::Ed25519, KeySpec::MlDsa65] {
        let key = Key::generate(spec);
        let chain = [Wanted::leaf("CN=signer", &[]).issue(&key, None)];
        let algorithm = key.algorithm();
        let hash = digest(content_digest(algorithm).unwrap(), b"content");
        let part = attributes(hash.as_ref(), NOW, algorithm).unwrap();
        let (signed, signature) = (part.bytes().to_vec(), key.sign(algorithm, part.bytes()));
        let whole = part.finish(&chain, &signature).unwrap();
        // What is signed is a set (RFC 5652 §5.4), and stands in the message as `[0]`.
        assert_eq!(signed[0], 0x31);
        let inner = [&[0xa0], &signed[1..]].concat();
        assert!(whole.windows(inner.len()).any(|window| window == inner));
        assert!(whole.ends_with(&signature));
        fs::write(folder.path().join("signature"), whole).unwrap();
        let arguments = ["cms", "-cmsout", "-print", "-inform", "DER", "-in", "signature"];
        let told = openssl(folder.path(), &arguments).unwrap();
        assert!(told.contains("algorithm: sha512") && told.contains("signingTime"), "{told}");
    }
}

#[test]
fn what_signs_no_messages_and_odd_parts_are_refused() {
    for algorithm in [SignAlgorithm::Sm2Dsa, SignAlgorithm::HmacSha256] {
        assert!(content_digest(algorithm).unwrap_err().to_string().contains("signs no messages"));
    }
    let wrong = attributes(&[0; 20], NOW, SignAlgorithm::EcdsaSha256).unwrap_err().to_string();
    assert!(wrong.contains("a digest of 20 bytes"), "{wrong}");
    let part = || attributes(&[0; 32], NOW, SignAlgorithm::EcdsaSha256).unwrap();
    assert!(part().finish(&[], b"signature").is_err());
    let key = Key::ec();
    let chain = [Wanted::leaf("CN=a", &[]).issue(&key, None)];
    assert!(part().finish(&chain, b"").is_err());
    let many: Vec<_> = (0..11).map(|_| chain[0].clone()).collect();
    assert!(part().finish(&many, b"signature").is_err());
}
