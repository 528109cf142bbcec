//! How requests name what is there: by id, name, alias or ARN.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{AliasName, CertificateId, CmkId, SecretName, Text};
use crate::error::Error;

/// How a request names a key: by id, by ARN (read as its id or alias), or by alias.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyRef {
    /// A key id.
    Id(CmkId),
    /// An alias.
    Alias(AliasName),
    /// Text that can name no key of ours; it is looked up in vain, so that the answer is the not-found error.
    Unknown,
}

impl KeyRef {
    /// Reads a key id, an alias, or the ARN of either.
    pub fn parse(text: &str) -> Self {
        let name = match text.strip_prefix("acs:kms:") {
            // acs:kms:<region>:<account>:key/<id> or …:alias/<name>
            Some(rest) => match rest.splitn(3, ':').nth(2) {
                Some(resource) => resource.strip_prefix("key/").unwrap_or(resource),
                None => return KeyRef::Unknown,
            },
            None => text,
        };
        if let Some(id) = CmkId::parse(name) {
            KeyRef::Id(id)
        } else if let Ok(alias) = name.parse() {
            KeyRef::Alias(alias)
        } else {
            KeyRef::Unknown
        }
    }
}

impl Serialize for KeyRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            KeyRef::Id(id) => id.serialize(serializer),
            KeyRef::Alias(alias) => alias.serialize(serializer),
            KeyRef::Unknown => serializer.serialize_str(""),
        }
    }
}

impl<'de> Deserialize<'de> for KeyRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(KeyRef::parse(&Text::deserialize(deserializer)?.0))
    }
}

/// How a request names a secret that is there: by its name, or by its ARN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretRef(pub SecretName);

impl FromStr for SecretRef {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let resource = text.strip_prefix("acs:kms:").and_then(|rest| rest.splitn(3, ':').nth(2));
        // acs:kms:<region>:<account>:secret/<name>; no name holds a colon.
        resource.map_or(text, |resource| resource.strip_prefix("secret/").unwrap_or("")).parse().map(Self)
    }
}

impl From<SecretName> for SecretRef {
    fn from(name: SecretName) -> Self {
        Self(name)
    }
}

impl Serialize for SecretRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        text.0.parse().map_err(|error: Error| de::Error::custom(error.message()))
    }
}

/// How a request names a certificate that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateRef {
    /// Its id.
    Id(CertificateId),
    /// Text that can name no certificate of ours; it is looked up in vain, so that the answer is the not-found error.
    Unknown,
}

impl CertificateRef {
    /// Reads an id, or an ARN: `acs:kms:<region>:<account>:certificate/<id>`.
    pub fn parse(text: &str) -> Self {
        let resource = text.strip_prefix("acs:kms:").and_then(|rest| rest.splitn(3, ':').nth(2));
        let id = resource.map_or(text, |resource| resource.strip_prefix("certificate/").unwrap_or(""));
        CertificateId::parse(id).map_or(CertificateRef::Unknown, CertificateRef::Id)
    }
}

impl From<CertificateId> for CertificateRef {
    fn from(id: CertificateId) -> Self {
        CertificateRef::Id(id)
    }
}

impl Serialize for CertificateRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            CertificateRef::Id(id) => id.serialize(serializer),
            CertificateRef::Unknown => serializer.serialize_str(""),
        }
    }
}

impl<'de> Deserialize<'de> for CertificateRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(CertificateRef::parse(&Text::deserialize(deserializer)?.0))
    }
}

#[cfg(test)]
mod tests {
    use super::super::SecretVersionId;
    use super::*;
    use crate::error::ErrorKind;

    const ID: &str = "0a1b2c3d-4e5f-4071-8293-a4b5c6d7e8f9";

    #[test]
    fn a_key_is_named_by_id_arn_or_alias_and_anything_else_names_none() {
        let id = CmkId::parse(ID).unwrap();
        assert_eq!(KeyRef::parse(ID), KeyRef::Id(id));
        assert_eq!(KeyRef::parse(&format!("acs:kms:cn-hangzhou:1234:key/{ID}")), KeyRef::Id(id));
        assert_eq!(KeyRef::parse("alias/people"), KeyRef::Alias("alias/people".parse().unwrap()));
        assert_eq!(
            KeyRef::parse("acs:kms:cn-hangzhou:1234:alias/people"),
            KeyRef::Alias("alias/people".parse().unwrap())
        );
        for other in ["", "people", "alias/", "alias/acs/x", "acs:kms:key/x", "key-hzz62f1cb66fa42qo2c4d"] {
            assert_eq!(KeyRef::parse(other), KeyRef::Unknown, "{other}");
        }
    }

    #[test]
    fn a_secret_is_named_by_its_name_or_arn_and_tricks_with_names_are_refused() {
        let name = |text: &str| text.parse::<SecretRef>().map(|secret| secret.0.to_string());
        assert_eq!(name("db/orders").unwrap(), "db/orders");
        assert_eq!(name("acs:kms:cn-hangzhou:1234:secret/db/orders").unwrap(), "db/orders");
        for odd in [
            "",
            "a b",
            "a\nb",
            "a\0",
            "secret:a",
            "acs:kms:r:1:key/a",
            "acs:kms:r:1:secret/",
            "acs:kms:a",
            "пароль",
        ] {
            assert_eq!(name(odd).unwrap_err().kind(), ErrorKind::InvalidParameter, "{odd:?}");
        }
        assert!(name(&"x".repeat(192)).is_ok() && name(&"x".repeat(193)).is_err());
        assert!("v".repeat(64).parse::<SecretVersionId>().is_ok());
        assert!("v".repeat(65).parse::<SecretVersionId>().is_err());
    }

    #[test]
    fn a_certificate_is_named_by_its_id_or_arn_and_anything_else_is_nobodys() {
        let id = CertificateId::parse(ID).unwrap();
        for named in [ID.to_owned(), format!("acs:kms:cn-hangzhou:1234:certificate/{ID}")] {
            assert_eq!(CertificateRef::parse(&named), CertificateRef::Id(id));
        }
        for other in ["", "a", "acs:kms:r:1:key/", &format!("acs:kms:r:1:key/{ID}"), &ID.to_uppercase()] {
            assert_eq!(CertificateRef::parse(other), CertificateRef::Unknown, "{other}");
        }
    }
}
