//! Operations on secrets: credentials of a customer's, kept in versions to which stages point.

mod batch;
mod life;
mod list;
mod password;
mod policy;
mod rotation;
mod text;
mod value;

use serde::{Deserialize, Serialize};

pub use batch::*;
pub use life::*;
pub use list::*;
pub use password::*;
pub use policy::*;
pub use rotation::*;
pub use text::SecretText;
pub use value::*;

use super::TagPair;
use crate::error::{Error, ErrorKind, Result};
use crate::id::VersionStage;

/// What a secret is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SecretType {
    /// Text of the caller's own.
    #[default]
    Generic,
    /// The account of a database; a rotator changes its password.
    Rds,
    /// The account of a key-value store of the cloud; there are none here.
    Redis,
    /// The access key of an account of the cloud; there are none here.
    RAMCredentials,
    /// The password or SSH key of a machine of the cloud; there are none here.
    ECS,
    /// The account of a clustered database of the cloud; there are none here.
    PolarDB,
}

impl SecretType {
    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            SecretType::Generic => "Generic",
            SecretType::Rds => "Rds",
            SecretType::Redis => "Redis",
            SecretType::RAMCredentials => "RAMCredentials",
            SecretType::ECS => "ECS",
            SecretType::PolarDB => "PolarDB",
        }
    }

    /// Checks that there are secrets of this type here.
    ///
    /// # Errors
    /// `Unsupported` for any but `Generic` and `Rds`.
    pub fn check(self) -> Result<()> {
        match self {
            SecretType::Generic | SecretType::Rds => Ok(()),
            other => {
                let why = format!("SecretType {}: this server offers Generic and Rds", other.name());
                Err(Error::new(ErrorKind::Unsupported, why))
            }
        }
    }

    /// Checks that callers put values of it.
    ///
    /// # Errors
    /// `Unsupported` for any but `Generic`: its rotator makes the values of another.
    pub fn check_put(self) -> Result<()> {
        match self {
            SecretType::Generic => Ok(()),
            other => {
                let why = format!("values of SecretType {} are made by RotateSecret", other.name());
                Err(Error::new(ErrorKind::Unsupported, why))
            }
        }
    }
}

/// What the value of a secret is taken for; it is kept as it came either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretDataType {
    /// Text.
    #[default]
    Text,
    /// Bytes, in the caller's base64.
    Binary,
}

impl SecretDataType {
    /// Returns the name that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            SecretDataType::Text => "text",
            SecretDataType::Binary => "binary",
        }
    }
}

/// Stages, wrapped as the cloud has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VersionStageList {
    /// The stages.
    pub version_stage: Vec<VersionStage>,
}

/// Tags of a secret, wrapped as the cloud has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SecretTagList {
    /// The tags, by their names.
    pub tag: Vec<TagPair>,
}
