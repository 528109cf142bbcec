//! Who may do what: principals, roles, grants, permission policies, and the one pure decision over them.

mod aap;
mod approval;
mod caller;
mod change;
mod condition;
mod custom_role;
mod decide;
mod explain;
mod key_policy;
mod network;
mod operation_set;
mod permission;
mod role;
mod scope;
mod snapshot;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use aap::{Aap, ClientKey, ClientKeyAlgorithm, ClientKeyOrigin, KnownBy};
pub use approval::{APPROVAL_MS, Approval, Asker};
pub use caller::Caller;
pub use change::{AccessChange, Edit};
pub use custom_role::{CustomRole, RoleRef};
pub use decide::{Decision, Question, Resource, Rule, decide};
pub use explain::explain;
pub use key_policy::{KeyPolicy, PolicyTarget, default_document};
pub use network::{Network, NetworkRule, Sources};
pub use permission::{AccessControlRules, PermissionPolicy, Permissions, SHARED};
pub use role::Role;
pub use scope::{Scope, scope, scope_of_secrets};
pub use snapshot::AccessSnapshot;

use crate::error::{Error, ErrorKind};
use crate::id::{AapName, AccessKeyId, AliasName, AuthorityName, CertificateId, CmkId, SecretName};
use crate::operation::Bin;
use crate::sensitive::Sensitive;
use crate::time::Timestamp;

/// Who calls, as authentication found it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The access key that signed; of an application the id of its client key, which is unique among them.
    pub access_key: Arc<AccessKeyId>,
    /// The application access point of a client key.
    pub aap: Option<AapName>,
    /// Until when it is who it is, where it logged in by a token; not then any more.
    pub until: Option<Timestamp>,
}

impl Principal {
    /// Makes the principal of an access key.
    pub fn of_access_key(id: AccessKeyId) -> Self {
        Self { access_key: Arc::new(id), aap: None, until: None }
    }

    /// Makes the principal of an application that signed with a client key.
    pub fn of_client_key(id: AccessKeyId, aap: AapName) -> Self {
        Self { access_key: Arc::new(id), aap: Some(aap), until: None }
    }

    /// Tells whether it is who it is at that time.
    pub fn is_at(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.aap {
            None => write!(f, "access-key/{}", self.access_key),
            Some(aap) => write!(f, "aap/{aap}/{}", self.access_key),
        }
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

impl AccessKey {
    /// Tells whether it is granted `Root` over everything: what it may do bounds nothing that it gives out. A deny is no grant, and `Root` over one
    /// key is `Root` over that.
    pub fn is_root(&self) -> bool {
        self.grants.iter().any(|grant| grant.gives_root() && grant.resources.contains(&ResourcePattern::All))
    }

    /// Tells whether it is granted `Root` over anything.
    pub fn has_root(&self) -> bool {
        self.grants.iter().any(Grant::gives_root)
    }
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
    pub role: RoleRef,
    /// The resources that it covers.
    #[serde(default = "all_resources")]
    pub resources: Vec<ResourcePattern>,
}

impl Grant {
    fn gives_root(&self) -> bool {
        self.effect == Effect::Allow && self.role.is(Role::Root)
    }
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
    /// `aap/*`: access points, with their client keys, policies and network rules.
    AllAaps,
    /// `secret/*`
    AllSecrets,
    /// `secret/<name>`; names are whole, too.
    Secret(SecretName),
    /// `certificate/*`: certificates, and the authorities that sign them.
    AllCertificates,
    /// `certificate/<id>`
    Certificate(CertificateId),
    /// `authority/<name>`: one that signs certificates.
    Authority(AuthorityName),
}

impl ResourcePattern {
    /// Returns the one key that it covers, if it is such a pattern.
    pub fn key(&self) -> Option<CmkId> {
        match self {
            ResourcePattern::Key(id) => Some(*id),
            _ => None,
        }
    }

    /// Returns the one secret that it covers, if it is such a pattern.
    pub fn secret(&self) -> Option<&SecretName> {
        match self {
            ResourcePattern::Secret(name) => Some(name),
            _ => None,
        }
    }

    /// Returns the one authority that it covers, if it is such a pattern.
    pub fn authority(&self) -> Option<&AuthorityName> {
        match self {
            ResourcePattern::Authority(name) => Some(name),
            _ => None,
        }
    }

    /// Returns the one certificate that it covers, if it is such a pattern.
    pub fn certificate(&self) -> Option<CertificateId> {
        match self {
            ResourcePattern::Certificate(id) => Some(*id),
            _ => None,
        }
    }

    /// Tells whether the policy of an application may name it.
    pub(crate) fn is_for_applications(&self) -> bool {
        use ResourcePattern::*;
        matches!(
            self,
            AllKeys | Key(_) | AllSecrets | Secret(_) | AllCertificates | Certificate(_) | Authority(_)
        )
    }
}

impl fmt::Display for ResourcePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ResourcePattern::All => f.write_str("*"),
            ResourcePattern::AllKeys => f.write_str("key/*"),
            ResourcePattern::Key(id) => write!(f, "key/{id}"),
            ResourcePattern::AllAccessKeys => f.write_str("access-key/*"),
            ResourcePattern::AllAaps => f.write_str("aap/*"),
            ResourcePattern::AllSecrets => f.write_str("secret/*"),
            ResourcePattern::Secret(name) => write!(f, "secret/{name}"),
            ResourcePattern::AllCertificates => f.write_str("certificate/*"),
            ResourcePattern::Certificate(id) => write!(f, "certificate/{id}"),
            ResourcePattern::Authority(name) => write!(f, "authority/{name}"),
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
            "aap/*" => Ok(ResourcePattern::AllAaps),
            "secret/*" => Ok(ResourcePattern::AllSecrets),
            "certificate/*" => Ok(ResourcePattern::AllCertificates),
            _ => match text.split_once('/') {
                Some(("key", id)) => CmkId::parse(id).map(ResourcePattern::Key),
                Some(("secret", name)) => name.parse().ok().map(ResourcePattern::Secret),
                Some(("authority", name)) => name.parse().ok().map(ResourcePattern::Authority),
                Some(("certificate", id)) => CertificateId::parse(id).map(ResourcePattern::Certificate),
                _ => None,
            }
            .ok_or_else(|| {
                let why = "a resource is *, key/*, key/<key id>, secret/*, secret/<name>, certificate/*, certificate/<id>, authority/<name>, access-key/* or aap/*";
                Error::new(ErrorKind::InvalidParameter, why)
            }),
        }
    }
}

/// A resource as a policy of applications is told it: an alias stands for the key that it names then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedResource {
    /// As it is kept.
    Pattern(ResourcePattern),
    /// `alias/<name>`
    Alias(AliasName),
}

impl From<ResourcePattern> for NamedResource {
    fn from(pattern: ResourcePattern) -> Self {
        NamedResource::Pattern(pattern)
    }
}

impl fmt::Display for NamedResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NamedResource::Pattern(pattern) => write!(f, "{pattern}"),
            NamedResource::Alias(name) => write!(f, "{name}"),
        }
    }
}

impl Serialize for NamedResource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            NamedResource::Pattern(pattern) => pattern.serialize(serializer),
            NamedResource::Alias(name) => name.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for NamedResource {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = crate::id::Text::deserialize(deserializer)?;
        let read = match text.0.starts_with("alias/") {
            true => text.0.parse().map(NamedResource::Alias),
            false => text.0.parse().map(NamedResource::Pattern),
        };
        read.map_err(serde::de::Error::custom)
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
