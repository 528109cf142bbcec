//! What is built is what `openssl` takes: requests, certificates and chains, of every kind of key that it has.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use keymill_core::certificate::{AltName, DistinguishedName, NameConstraints};
use keymill_core::key::{KeySpec, SignAlgorithm};
use keymill_x509::{Certificate, SigningRequest, check_chain, pem, read_pem_chain, request};
use support::{Key, NOW, Wanted, openssl};

/// Ours, without ML-DSA, which this openssl has not.
const SPECS: [KeySpec; 5] =
    [KeySpec::Rsa2048, KeySpec::EcP256, KeySpec::EcP384, KeySpec::Ed25519, KeySpec::EcSm2];

#[test]
fn requests_verify_and_say_what_was_asked() {
    let folder = tempfile::tempdir().unwrap();
    let subject = DistinguishedName::parse("CN=orders,OU=Büro,O=Example,C=DE").unwrap();
    let names: Vec<AltName> =
        ["orders.example", "10.0.0.1", "URI:spiffe://example/orders", "email:a@b.example"]
            .map(|name| name.parse().unwrap())
            .to_vec();
    let mut kinds: Vec<_> = SPECS.into_iter().map(|spec| (spec, None)).collect();
    kinds.push((KeySpec::Rsa2048, Some(SignAlgorithm::RsaPssSha256)));
    for (spec, algorithm) in kinds {
        let key = Key::generate(spec);
        let algorithm = algorithm.unwrap_or(key.algorithm());
        let der = key.finish(request(&subject, &names, &key.spki(), algorithm).unwrap());
        let read = SigningRequest::read(&der).unwrap();
        assert_eq!((read.subject.as_ref(), &read.alt_names), (Some(&subject), &names));
        assert_eq!((read.key_spec, &read.public_key), (Some(spec), &key.spki()));
        let text = pem("CERTIFICATE REQUEST", &der);
        assert_eq!(SigningRequest::read(text.as_bytes()).unwrap().public_key, key.spki());

        std::fs::write(folder.path().join("csr.pem"), text).unwrap();
        let mut arguments =
            vec!["req", "-verify", "-noout", "-text", "-nameopt", "utf8,sep_comma_plus", "-in", "csr.pem"];
        if spec == KeySpec::EcSm2 {
            arguments.extend(["-vfyopt", "distid:1234567812345678"]);
        }
        let told =
            openssl(folder.path(), &arguments).unwrap_or_else(|told| panic!("{}: {told}", spec.name()));
        assert!(told.contains("verify OK"), "{told}");
        assert!(told.contains(
            "DNS:orders.example, IP Address:10.0.0.1, URI:spiffe://example/orders, email:a@b.example"
        ));
        assert!(told.contains("C=DE,O=Example,OU=Büro,CN=orders"), "{told}");
    }
}

#[test]
fn chains_of_every_kind_of_key_verify_there_and_here() {
    let folder = tempfile::tempdir().unwrap();
    let mut specs = SPECS.to_vec();
    specs.push(KeySpec::MlDsa65);
    for spec in specs {
        let keys = [(); 3].map(|()| Key::generate(spec));
        let root = Wanted::authority("CN=root,O=Example,C=DE", None).issue(&keys[0], None);
        let middle = Wanted::authority("CN=middle", Some(0)).issue(&keys[1], Some((&root, &keys[0])));
        let leaf = Wanted::leaf("CN=leaf", &["leaf.example"]).issue(&keys[2], Some((&middle, &keys[1])));
        let chain = [leaf, middle, root];
        check_chain(&chain, NOW).unwrap();
        check_chain(&chain[..2], NOW).unwrap();
        let text: String = chain.iter().map(Certificate::pem).collect();
        let again = read_pem_chain(&text, 3).unwrap();
        assert!(again.iter().map(|c| &c.der).eq(chain.iter().map(|c| &c.der)));
        if spec == KeySpec::MlDsa65 {
            continue;
        }
        for (name, certificate) in ["leaf", "middle", "root"].into_iter().zip(&chain) {
            std::fs::write(folder.path().join(name), certificate.pem()).unwrap();
        }
        let mut arguments = vec!["verify", "-x509_strict"];
        arguments.extend(match spec {
            // The identity is one of the leaf's check alone.
            KeySpec::EcSm2 => {
                &["-partial_chain", "-trusted", "middle", "-vfyopt", "distid:1234567812345678"][..]
            }
            _ => &["-CAfile", "root", "-untrusted", "middle"],
        });
        arguments.push("leaf");
        let told =
            openssl(folder.path(), &arguments).unwrap_or_else(|told| panic!("{}: {told}", spec.name()));
        assert!(told.contains("leaf: OK"), "{told}");
        let told = openssl(folder.path(), &["x509", "-noout", "-serial", "-in", "leaf"]).unwrap();
        assert!(told.to_lowercase().contains(&format!("serial={}", chain[0].serial)), "{told}");
    }
}

#[test]
fn name_constraints_are_those_that_were_meant() {
    let folder = tempfile::tempdir().unwrap();
    let constraints = NameConstraints {
        permitted_dns: vec!["example".into()],
        excluded_dns: vec!["secret.example".into()],
        permitted_ip: vec![("10.1.255.255".parse().unwrap(), 13), ("2001:db8::1".parse().unwrap(), 33)],
        excluded_ip: vec![("10.1.2.0".parse().unwrap(), 24)],
    };
    let (ca, key) = (Key::ec(), Key::ec());
    let mut wanted = Wanted::authority("CN=root", None);
    wanted.constraints = Some(constraints);
    let root = wanted.issue(&ca, None);
    std::fs::write(folder.path().join("root"), root.pem()).unwrap();
    let told = openssl(folder.path(), &["x509", "-noout", "-text", "-in", "root"]).unwrap();
    for part in [
        "X509v3 Name Constraints: critical",
        "10.0.0.0/255.248.0.0",
        "2001:DB8:0:0:0:0:0:0/FFFF:FFFF:8000:",
        "10.1.2.0/255.255.255.0",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    for (name, is_within) in [
        ("example", true),
        ("a.example", true),
        ("*.example", true),
        ("secret.example", false),
        ("a.secret.example", false),
        ("example.com", false),
        ("badexample", false),
        ("10.7.9.9", true),
        ("10.8.0.0", false),
        ("10.1.2.3", false),
        ("2001:db8:7fff::", true),
        ("2001:db9::", false),
        ("URI:spiffe://elsewhere/x", true),
    ] {
        let leaf = Wanted::leaf("CN=leaf", &[name]).issue(&key, Some((&root, &ca)));
        std::fs::write(folder.path().join("leaf"), leaf.pem()).unwrap();
        let there = openssl(folder.path(), &["verify", "-CAfile", "root", "leaf"]);
        assert_eq!(there.is_ok(), is_within || name == "*.example", "{name}: {there:?}");
        let here = check_chain(&[leaf, root.clone()], NOW);
        // A wildcard over an excluded name is refused here alone.
        assert_eq!(here.is_ok(), is_within && name != "*.example", "{name}: {here:?}");
    }
}
