//! What holds for whatever is built: it is read again as it was meant, here and by x509-cert, whose decoder has nothing of ours.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use keymill_core::certificate::{
    AltName, AttributeKind, DistinguishedName, ExtendedUsage, KeyPurpose, NameConstraints, Serial, Template,
    Validity,
};
use keymill_core::time::Timestamp;
use keymill_x509::crl::{Reason, Revoked, list};
use keymill_x509::{Certificate, SigningRequest, certificate, check_chain, key_id, name_der, request};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use support::{Key, NOW, Wanted};
use x509_cert::der::{Decode, Encode};

static KEY: LazyLock<Key> = LazyLock::new(Key::ec);

fn attribute() -> impl Strategy<Value = (AttributeKind, String)> {
    let text = "[a-z0-9 ,;+#\"\\\\<>=éß中]{1,20}";
    let kind = select(&[
        AttributeKind::CommonName,
        AttributeKind::Organization,
        AttributeKind::OrganizationalUnit,
        AttributeKind::Locality,
        AttributeKind::State,
        AttributeKind::Street,
        AttributeKind::UserId,
    ]);
    prop_oneof![
        (kind, text),
        (Just(AttributeKind::Country), "[A-Z]{2}"),
        (Just(AttributeKind::SerialNumber), "[A-Za-z0-9 '()+,./:=?-]{1,20}"),
        (select(&[AttributeKind::DomainComponent, AttributeKind::EmailAddress]), "[a-z@.]{1,20}"),
    ]
}

fn name() -> impl Strategy<Value = DistinguishedName> {
    vec(attribute(), 1..8)
        .prop_filter_map("a value of spaces", |attributes| DistinguishedName::new(attributes).ok())
}

fn alt_name() -> impl Strategy<Value = AltName> {
    prop_oneof![
        "(\\*\\.)?[a-z][a-z0-9]{0,10}(\\.[a-z][a-z0-9]{0,10}){0,3}"
            .prop_map(|text| AltName::dns(&text).unwrap()),
        any::<Ipv4Addr>().prop_map(|address| AltName::Ip(address.into())),
        any::<Ipv6Addr>()
            .prop_filter_map("an address of IPv4 in its mapped form", |address| AltName::ip(address.into())
                .ok()),
        "[a-z]{1,8}@[a-z]{1,8}".prop_map(|text| format!("email:{text}").parse().unwrap()),
        "spiffe://[a-z]{1,8}/[a-z/]{0,8}".prop_map(|text| format!("URI:{text}").parse().unwrap()),
    ]
}

/// Seconds up to the year 9999.
fn moment() -> impl Strategy<Value = Timestamp> {
    (0u64..253_402_300_800).prop_map(|s| Timestamp::from_ms(s * 1_000))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_request_asks_what_was_meant(subject in name(), names in vec(alt_name(), 0..6)) {
        let part = request(&subject, &names, &KEY.spki(), KEY.algorithm()).unwrap();
        let der = KEY.finish(part);
        let read = SigningRequest::read(&der).unwrap();
        prop_assert_eq!(read.subject, Some(subject));
        prop_assert_eq!(read.alt_names, names);
        let other = x509_cert::request::CertReq::from_der(&der).unwrap();
        prop_assert_eq!(other.to_der().unwrap(), der);
    }

    #[test]
    fn a_certificate_says_what_its_template_does(
        subject in name(),
        issuer in name(),
        names in vec(alt_name(), 0..6),
        moments in (moment(), moment()),
        serial in any::<[u8; 16]>(),
        authority in any::<Option<Option<u8>>>(),
        purposes in subsequence(&[KeyPurpose::DigitalSignature, KeyPurpose::NonRepudiation, KeyPurpose::KeyEncipherment,
            KeyPurpose::DataEncipherment, KeyPurpose::KeyAgreement, KeyPurpose::CrlSign][..], 0..=6),
        usages in subsequence(&[ExtendedUsage::ServerAuth, ExtendedUsage::ClientAuth, ExtendedUsage::CodeSigning,
            ExtendedUsage::EmailProtection, ExtendedUsage::TimeStamping, ExtendedUsage::OcspSigning][..], 0..=6),
    ) {
        let validity = Validity { not_before: moments.0.min(moments.1), not_after: moments.0.max(moments.1) };
        let issuer_der = name_der(&issuer).unwrap();
        let urls = ["http://ca.example/a".to_owned()];
        let template = Template {
            serial: Serial::from_random(serial),
            issuer_der: &issuer_der,
            subject: &subject,
            alt_names: &names,
            validity,
            public_key: &KEY.spki(),
            authority,
            key_purposes: &purposes,
            extended_usages: &usages,
            name_constraints: None,
            authority_key_id: Some(&[7; 20]),
            crl_urls: &urls,
            ocsp_urls: &urls,
            issuer_urls: &urls,
        };
        let der = KEY.finish(certificate(&template, KEY.algorithm()).unwrap());
        let read = Certificate::read(&der).unwrap();
        prop_assert_eq!(&read.subject, &subject.to_string());
        prop_assert_eq!(&read.issuer, &issuer.to_string());
        prop_assert_eq!(&read.issuer_der, &issuer_der);
        prop_assert_eq!(read.serial_bytes(), template.serial.as_bytes().to_vec());
        prop_assert_eq!((read.validity, read.authority), (validity, authority));
        prop_assert_eq!((&read.alt_names, &read.key_purposes, &read.extended_usages), (&names, &purposes, &usages));
        prop_assert_eq!(read.subject_key_id.as_deref(), Some(&key_id(&KEY.spki()).unwrap()[..]));
        prop_assert_eq!(read.authority_key_id.as_deref(), Some(&[7; 20][..]));
        // Times are of the kind that their year asks for, and all is in the one encoding that DER has.
        let other = x509_cert::Certificate::from_der(&der).unwrap();
        prop_assert_eq!(other.to_der().unwrap(), der);
    }

    #[test]
    fn a_network_holds_the_addresses_of_its_prefix(address in any::<u32>(), prefix in 0u8..=32, other in any::<u32>(), near in 0u32..32) {
        let constraints = NameConstraints {
            permitted_ip: vec![(IpAddr::from(Ipv4Addr::from(address)), prefix)],
            ..Default::default()
        };
        let root = Wanted { constraints: Some(constraints), ..Wanted::authority("CN=root", None) }.issue(&KEY, None);
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        for asked in [other, address ^ (1 << near)] {
            let text = Ipv4Addr::from(asked).to_string();
            let leaf = Wanted::leaf("CN=leaf", &[&text]).issue(&KEY, Some((&root, &KEY)));
            let is_within = asked & mask == address & mask;
            prop_assert_eq!(check_chain(&[leaf, root.clone()], NOW).is_ok(), is_within, "{}/{}", text, prefix);
        }
    }

    #[test]
    fn a_list_names_what_was_revoked(
        serials in btree_set(vec(1u8..=255, 1..=20), 0..20),
        at in moment(),
        reason in prop::option::of(select(&Reason::ALL[..])),
        number in any::<u64>(),
    ) {
        let revoked: Vec<_> =
            serials.iter().map(|serial| Revoked { serial: serial.clone(), at, reason }).collect();
        let issuer = name_der(&DistinguishedName::parse("CN=root").unwrap()).unwrap();
        let later = NOW.plus(std::time::Duration::from_secs(1));
        let der = KEY.finish(list(&issuer, &[7; 20], number, NOW, later, &revoked, KEY.algorithm()).unwrap());
        let read = x509_cert::crl::CertificateList::<x509_cert::certificate::Rfc5280>::from_der(&der).unwrap();
        let entries = read.tbs_cert_list.revoked_certificates.clone().unwrap_or_default();
        prop_assert_eq!(entries.len(), revoked.len());
        for (entry, revoked) in entries.iter().zip(&revoked) {
            let bytes = entry.serial_number.as_bytes();
            prop_assert_eq!(bytes.strip_prefix(&[0]).unwrap_or(bytes), &revoked.serial[..]);
            prop_assert_eq!(entry.revocation_date.to_unix_duration().as_secs(), at.as_s());
            prop_assert_eq!(entry.crl_entry_extensions.is_some(), reason.is_some());
        }
        prop_assert_eq!(read.to_der().unwrap(), der);
    }
}
