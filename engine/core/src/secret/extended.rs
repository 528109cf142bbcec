//! `ExtendedConfig`, JSON text in which a secret says how it is rotated: `{"SecretSubType":"SingleUser","DBInstanceId":"NAME"}` of type `Rds`,
//! and beyond the cloud `{"Rotator":"NAME"}` of type `Generic`, whose other members the cloud passes over. `CustomData` is for the rotator.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::error::{Error, ErrorKind, Result};
use crate::id::RotatorName;
use crate::limit;
use crate::operation::SecretType;
use crate::seam::rotator::{RotationSettings, RotationStrategy};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct OfRds {
    secret_sub_type: SubType,
    #[serde(rename = "DBInstanceId")]
    db_instance_id: RotatorName,
    #[serde(default)]
    custom_data: CustomData,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfGeneric {
    rotator: RotatorName,
    #[serde(default)]
    custom_data: CustomData,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum SubType {
    SingleUser,
    DoubleUsers,
}

/// Text by names, each once.
#[derive(Default, Serialize)]
struct CustomData(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for CustomData {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = CustomData;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of texts")
            }
            fn visit_map<A: de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<CustomData, A::Error> {
                let mut read = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if read.insert(name, value).is_some() {
                        return Err(de::Error::custom("a name comes twice"));
                    }
                }
                Ok(CustomData(read))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// Reads how a secret is to be rotated; `None` where it is not.
///
/// # Errors
/// `InvalidParameter` that names what is wrong; `MissingParameter` where a secret of type `Rds` has none.
pub fn parse(of: SecretType, text: Option<&str>) -> Result<Option<(RotatorName, RotationSettings)>> {
    let text = match (of, text) {
        (_, Some(text)) => text,
        (SecretType::Generic, None) => return Ok(None),
        (_, None) => {
            let why = "ExtendedConfig: it says how a secret of this SecretType is rotated, and is missing";
            return Err(Error::new(ErrorKind::MissingParameter, why));
        }
    };
    let characters = text.chars().count();
    if characters > limit::EXTENDED_CONFIG_CHARACTERS {
        return Err(invalid(format!(
            "it has {characters} characters, and the limit is {}",
            limit::EXTENDED_CONFIG_CHARACTERS
        )));
    }
    let (rotator, settings) = match of {
        SecretType::Generic => {
            // Whatever does not ask for a rotator is passed over, as the cloud does.
            let asks = serde_json::from_str::<BTreeMap<String, de::IgnoredAny>>(text)
                .is_ok_and(|members| members.contains_key("Rotator"));
            if !asks {
                return Ok(None);
            }
            let read: OfGeneric = serde_json::from_str(text).map_err(invalid)?;
            (read.rotator, RotationSettings { strategy: None, custom: read.custom_data.0 })
        }
        _ => {
            let read: OfRds = serde_json::from_str(text).map_err(invalid)?;
            let strategy = match read.secret_sub_type {
                SubType::SingleUser => RotationStrategy::SingleUser,
                SubType::DoubleUsers => RotationStrategy::AlternatingUsers,
            };
            let settings = RotationSettings { strategy: Some(strategy), custom: read.custom_data.0 };
            (read.db_instance_id, settings)
        }
    };
    check(of, &rotator, &settings)?;
    Ok(Some((rotator, settings)))
}

/// Checks that what a secret asks for is no more than `ExtendedConfig` holds.
///
/// # Errors
/// `InvalidParameter` where it is.
pub fn check(of: SecretType, rotator: &RotatorName, settings: &RotationSettings) -> Result<()> {
    if settings.custom.len() > limit::CUSTOM_DATA {
        return Err(invalid(format!("CustomData has up to {} entries", limit::CUSTOM_DATA)));
    }
    match text(of, rotator, settings).chars().count() > limit::EXTENDED_CONFIG_CHARACTERS {
        false => Ok(()),
        true => {
            let most = limit::EXTENDED_CONFIG_CHARACTERS;
            Err(invalid(format!("with CustomData it has more than {most} characters")))
        }
    }
}

/// Returns `ExtendedConfig` as it is told.
pub fn text(of: SecretType, rotator: &RotatorName, settings: &RotationSettings) -> String {
    let custom_data = CustomData(settings.custom.clone());
    let rotator = rotator.clone();
    let written = match of {
        SecretType::Generic => serde_json::to_string(&OfGeneric { rotator, custom_data }),
        _ => serde_json::to_string(&OfRds {
            secret_sub_type: match settings.strategy {
                Some(RotationStrategy::AlternatingUsers) => SubType::DoubleUsers,
                Some(RotationStrategy::SingleUser) | None => SubType::SingleUser,
            },
            db_instance_id: rotator,
            custom_data,
        }),
    };
    written.expect("texts have a JSON form")
}

/// Tells what is wrong in one short line, whatever names were in it.
fn invalid(why: impl fmt::Display) -> Error {
    const CHARACTERS: usize = 200;
    let why = why.to_string();
    let line: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARACTERS).collect();
    Error::new(ErrorKind::InvalidParameter, format!("ExtendedConfig: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(of: SecretType, text: &str) -> Result<Option<(RotatorName, RotationSettings)>> {
        parse(of, Some(text))
    }

    #[test]
    fn a_database_account_names_its_rotator_and_strategy_and_is_told_as_it_was_said() {
        let said = r#"{"SecretSubType":"DoubleUsers","DBInstanceId":"orders-db","CustomData":{"a":"b"}}"#;
        let (rotator, settings) = read(SecretType::Rds, said).unwrap().unwrap();
        assert_eq!(
            (rotator.as_str(), settings.strategy),
            ("orders-db", Some(RotationStrategy::AlternatingUsers))
        );
        assert_eq!(settings.custom["a"], "b");
        assert_eq!(text(SecretType::Rds, &rotator, &settings), said);
    }

    #[test]
    fn a_generic_secret_is_rotated_where_it_names_a_rotator_and_else_passed_over() {
        let (rotator, settings) =
            read(SecretType::Generic, r#"{"Rotator":"hook","Other":[1]}"#).unwrap().unwrap();
        assert_eq!((rotator.as_str(), settings), ("hook", RotationSettings::default()));
        for other in ["", "{}", "no JSON", r#"{"SecretSubType":"SingleUser"}"#, "[1]", r#"{"CustomData":7}"#]
        {
            assert_eq!(read(SecretType::Generic, other).unwrap(), None, "{other}");
        }
        assert_eq!(parse(SecretType::Generic, None).unwrap(), None);
    }

    #[test]
    fn what_is_wrong_is_told_in_one_short_line() {
        let odd =
            format!(r#"{{"SecretSubType":"SingleUser","DBInstanceId":"d","{}\\n":1}}"#, "x".repeat(900));
        let error = read(SecretType::Rds, &odd).unwrap_err();
        assert!(error.message().len() < 300 && !error.message().chars().any(char::is_control), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let missing = parse(SecretType::Rds, None).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::MissingParameter);
        let long = format!(
            r#"{{"SecretSubType":"SingleUser","DBInstanceId":"d","CustomData":{{"a":"{}"}}}}"#,
            "ü".repeat(1_024)
        );
        let many: Vec<_> = (0..11).map(|n| format!("\"k{n}\":\"v\"")).collect();
        let many = format!(
            r#"{{"SecretSubType":"SingleUser","DBInstanceId":"d","CustomData":{{{}}}}}"#,
            many.join(",")
        );
        for (of, said, told) in [
            (SecretType::Rds, "{}", "SecretSubType"),
            (SecretType::Rds, r#"{"SecretSubType":"SingleUser"}"#, "DBInstanceId"),
            (SecretType::Rds, r#"{"SecretSubType":"Both","DBInstanceId":"d"}"#, "Both"),
            (SecretType::Rds, r#"{"SecretSubType":"SingleUser","DBInstanceId":"d","Host":"h"}"#, "Host"),
            (SecretType::Rds, r#"{"SecretSubType":"SingleUser","DBInstanceId":"http://h/"}"#, "rotator"),
            (
                SecretType::Rds,
                r#"{"SecretSubType":"SingleUser","DBInstanceId":"d","CustomData":{"a":"1","a":"2"}}"#,
                "twice",
            ),
            (SecretType::Rds, &long, "1024"),
            (SecretType::Rds, &many, "10 entries"),
            (SecretType::Generic, r#"{"Rotator":"a b"}"#, "rotator"),
            (SecretType::Generic, r#"{"Rotator":"h","CustomData":{"a":1}}"#, "string"),
        ] {
            let error = read(of, said).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParameter, "{said}");
            assert!(error.message().contains(told), "{told} in {error}");
        }
    }
}
