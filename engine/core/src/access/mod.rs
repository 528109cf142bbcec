//! Who may do what: principals, roles, grants, and the one pure decision over them.

mod decide;
mod key_policy;
mod role;
mod scope;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use decide::{Decision, Resource, Rule, decide};
pub use key_policy::{KeyPolicy, PolicyTarget, default_document};
pub use role::Role;
pub use scope::{Scope, scope};

use crate::error::{Error, ErrorKind};
use crate::id::{AccessKeyId, CmkId, NameMap};
use crate::operation::Bin;
use crate::sensitive::Sensitive;
use crate::time::Timestamp;

/// Who calls, as authentication found it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The access key that signed.
    pub access_key: Arc<AccessKeyId>,
}

impl Principal {
    /// Makes the principal of an access key.
    pub fn of_access_key(id: AccessKeyId) -> Self {
        Self { access_key: Arc::new(id) }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "access-key/{}", self.access_key)
    }
}

/// An access key: a credential with what it grants.
#[derive(Serialize, Deserialize)]
pub struct AccessKey {
    /// The id.
    pub id: AccessKeyId,
    /// The secret; it signs as its UTF-8 bytes. Readable only where the record is unsealed.
    #[serde(with = "secret")]
    pub secret: Sensitive,
    /// Free text.
    pub description: String,
    /// Whether it may log in.
    pub status: AccessKeyStatus,
    /// What it grants or denies.
    pub grants: Vec<Grant>,
    /// When it was created.
    pub created_at: Timestamp,
}

mod secret {
    use super::*;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(secret: &Sensitive, serializer: S) -> Result<S::Ok, S::Error> {
        Bin::from(secret.expose()).serialize(serializer)
    }
    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sensitive, D::Error> {
        Ok(Sensitive::copied(&Bin::deserialize(deserializer)?))
    }
}

/// Whether an access key may log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessKeyStatus {
    /// It may.
    Active,
    /// It may not; connections that it opened are refused with their next request.
    Inactive,
}

/// Whether a grant allows or denies; an explicit deny wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
pub enum Effect {
    /// Allows.
    #[default]
    Allow,
    /// Denies, whatever else allows.
    Deny,
}

/// A role over resources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Grant {
    /// Allow or deny.
    #[serde(default)]
    pub effect: Effect,
    /// The set of operations.
    pub role: Role,
    /// The resources that it covers.
    #[serde(default = "all_resources")]
    pub resources: Vec<ResourcePattern>,
}

fn all_resources() -> Vec<ResourcePattern> {
    vec![ResourcePattern::All]
}

/// Which resources a grant covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ResourcePattern {
    /// `*`
    All,
    /// `key/*`
    AllKeys,
    /// `key/<id>`; ids are whole, so there are no prefixes to be surprised by.
    Key(CmkId),
    /// `access-key/*`
    AllAccessKeys,
}

impl fmt::Display for ResourcePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResourcePattern::All => f.write_str("*"),
            ResourcePattern::AllKeys => f.write_str("key/*"),
            ResourcePattern::Key(id) => write!(f, "key/{id}"),
            ResourcePattern::AllAccessKeys => f.write_str("access-key/*"),
        }
    }
}

impl std::str::FromStr for ResourcePattern {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "*" => Ok(ResourcePattern::All),
            "key/*" => Ok(ResourcePattern::AllKeys),
            "access-key/*" => Ok(ResourcePattern::AllAccessKeys),
            _ => {
                text.strip_prefix("key/").and_then(CmkId::parse).map(ResourcePattern::Key).ok_or_else(|| {
                    Error::new(
                        ErrorKind::InvalidParameter,
                        "a resource is *, key/*, key/<key id> or access-key/*",
                    )
                })
            }
        }
    }
}

impl Serialize for ResourcePattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ResourcePattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = crate::id::Text::deserialize(deserializer)?;
        text.0.parse().map_err(serde::de::Error::custom)
    }
}

/// All that decisions read: published whole by the policy actor, read without a lock.
#[derive(Default)]
pub struct AccessSnapshot {
    /// The access keys by id.
    pub access_keys: NameMap<AccessKeyId, Arc<AccessKey>>,
}
