//! `ExtendedConfig` of secrets: what is taken is told as text that is taken again and means the same, and neither is longer than it may be.

use keymill_core::operation::SecretType;
use keymill_core::secret::extended;
use keymill_core::{ErrorKind, limit};

use crate::memory::{room, within};
use crate::target::{Seed, tells};

/// Reads the text as of each type of secret.
pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for of in [SecretType::Generic, SecretType::Rds] {
        match within(room(16 * bytes.len()), || extended::parse(of, Some(text))) {
            Ok(None) => assert_eq!(of, SecretType::Generic, "a database account has a rotator"),
            Ok(Some((rotator, settings))) => {
                assert_eq!(settings.strategy.is_some(), of == SecretType::Rds);
                assert!(settings.custom.len() <= limit::CUSTOM_DATA);
                let told = extended::text(of, &rotator, &settings);
                assert!(told.chars().count() <= limit::EXTENDED_CONFIG_CHARACTERS);
                assert_eq!(extended::parse(of, Some(&told)).ok().flatten(), Some((rotator, settings)));
            }
            Err(error) => {
                tells(&error);
                assert_eq!(error.kind(), ErrorKind::InvalidParameter);
            }
        }
    }
}

pub(crate) fn seeds() -> Vec<Seed> {
    let texts = [
        ("single", r#"{"SecretSubType":"SingleUser","DBInstanceId":"orders-db"}"#),
        ("double", r#"{"SecretSubType":"DoubleUsers","DBInstanceId":"d","CustomData":{"a":"b","c":""}}"#),
        ("generic", r#"{"Rotator":"hook","CustomData":{"Member":"password"},"Else":[1,{"x":null}]}"#),
        ("passed-over", r#"{"CustomData":7}"#),
    ];
    texts.into_iter().map(|(name, text)| (name, text.as_bytes().to_vec())).collect()
}
