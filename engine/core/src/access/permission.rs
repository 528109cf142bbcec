//! Permission policies: which operations the access points that name one may do, on which resources, and from where.

use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::network::Sources;
use super::operation_set::OperationSet;
use super::{Resource, ResourcePattern, RoleRef};
use crate::error::{Error, ErrorKind, Limit, Result};
use crate::id::{
    AuthorityName, CertificateId, CmkId, NetworkRuleName, PolicyName, RoleName, SecretName, Text,
};
use crate::limit;
use crate::operation::Operation;
use crate::time::Timestamp;

/// What the cloud calls the instance of a policy that is for no instance in particular.
pub const SHARED: &str = "shared";

/// A permission policy as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PermissionPolicy {
    /// Its name.
    pub name: PolicyName,
    /// Free text.
    pub description: String,
    /// The instance that it is for.
    pub instance: String,
    /// What may be done.
    pub permissions: Vec<RoleRef>,
    /// With which resources.
    pub resources: Vec<ResourcePattern>,
    /// From where.
    pub access_control: AccessControlRules,
    /// When it was made.
    pub created_at: Timestamp,
}

impl PermissionPolicy {
    /// Checks what it may say.
    ///
    /// # Errors
    /// `InvalidParameter` naming what it may not say, `LimitExceeded` past a bound.
    pub fn check(&self) -> Result<()> {
        let invalid = |why: String| Err(Error::new(ErrorKind::InvalidParameter, why));
        if self.permissions.is_empty() || self.resources.is_empty() {
            return invalid("Permissions and Resources have an entry each at least".into());
        }
        let is_administrators =
            |role: &&RoleRef| matches!(role, RoleRef::BuiltIn(role) if !role.is_for_applications());
        if let Some(role) = self.permissions.iter().find(is_administrators) {
            return invalid(format!(
                "Permissions: {role} is a role of administrators, which access keys are granted"
            ));
        }
        let bounds = [
            (self.permissions.len(), limit::PERMISSIONS, "Permissions"),
            (self.resources.len(), limit::POLICY_RESOURCES, "Resources"),
            (self.access_control.rules.len(), limit::POLICY_NETWORK_RULES, "AccessControlRules"),
        ];
        for (count, most, name) in bounds {
            if count > most {
                let why = format!("{name} of {count} entries exceeds the limit of {most}");
                return Err(Error::new(ErrorKind::LimitExceeded(Limit::Policies), why));
            }
        }
        if let Some(odd) = self.resources.iter().find(|resource| !resource.is_for_applications()) {
            return invalid(format!(
                "Resources: {odd} is none of key/*, key/<key id>, secret/*, secret/<name>, certificate/*, certificate/<id> and authority/<name>"
            ));
        }
        Ok(())
    }

    /// Tells whether it names a role of the installation's own.
    pub(super) fn names_role(&self, name: &RoleName) -> bool {
        self.permissions.iter().any(|role| role.custom() == Some(name))
    }
}

/// The network rules of a policy, and how they were written: the cloud gives that back as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessControlRules {
    /// The rules; an address of any of them will do. Without any, every address will.
    pub rules: Vec<NetworkRuleName>,
    /// As it was written.
    text: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Written {
    #[serde(default)]
    network_rules: Vec<NetworkRuleName>,
}

impl AccessControlRules {
    /// Reads `{"NetworkRules":["name", …]}`; an empty text is none.
    ///
    /// # Errors
    /// `InvalidParameter` naming what is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let wrong = |why: &str| {
            let shown: String = why.chars().take(200).collect();
            let why = format!("AccessControlRules is not {{\"NetworkRules\":[…]}}: {}", shown.escape_debug());
            Error::new(ErrorKind::InvalidParameter, why)
        };
        // A list would pass for an object whose fields are all left out, and so for no rule at all.
        if !text.trim_start().starts_with('{') {
            return Err(wrong("it is no object"));
        }
        let written: Written = serde_json::from_str(text).map_err(|error| wrong(&error.to_string()))?;
        Ok(Self { rules: written.network_rules, text: text.to_owned() })
    }

    /// Returns it as it was written.
    pub fn as_text(&self) -> &str {
        &self.text
    }
}

impl Serialize for AccessControlRules {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for AccessControlRules {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = Text::deserialize(deserializer)?;
        Self::parse(&text.0).map_err(|error| serde::de::Error::custom(error.message()))
    }
}

/// A policy made for being asked.
#[derive(Debug)]
pub struct Permissions {
    name: PolicyName,
    operations: OperationSet,
    all_keys: bool,
    /// In order.
    keys: Box<[CmkId]>,
    all_secrets: bool,
    /// In order.
    secrets: Box<[SecretName]>,
    all_certificates: bool,
    /// In order.
    certificates: Box<[CertificateId]>,
    /// In order.
    authorities: Box<[AuthorityName]>,
    /// `None` where every address will do.
    sources: Option<Box<[Arc<Sources>]>>,
}

/// What a policy says of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permits {
    /// It does not speak of it.
    Nothing,
    /// It would allow it from another address.
    Elsewhere,
    /// It allows it.
    Allows,
}

impl Permissions {
    /// Makes it of a policy and of what its roles give; `sources` finds a network rule. One that is not there has no address.
    pub(super) fn of(
        policy: &PermissionPolicy,
        operations: OperationSet,
        sources: impl Fn(&NetworkRuleName) -> Option<Arc<Sources>>,
    ) -> Arc<Self> {
        let mut keys: Vec<CmkId> = policy.resources.iter().filter_map(ResourcePattern::key).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut secrets: Vec<SecretName> =
            policy.resources.iter().filter_map(ResourcePattern::secret).cloned().collect();
        secrets.sort_unstable();
        secrets.dedup();
        let named = policy.resources.iter().filter_map(ResourcePattern::certificate);
        let mut certificates: Vec<CertificateId> = named.collect();
        certificates.sort_unstable();
        certificates.dedup();
        let named = policy.resources.iter().filter_map(ResourcePattern::authority);
        let mut authorities: Vec<AuthorityName> = named.cloned().collect();
        authorities.sort_unstable();
        authorities.dedup();
        let rules = &policy.access_control.rules;
        let found = || rules.iter().filter_map(sources).collect();
        Arc::new(Self {
            name: policy.name.clone(),
            operations,
            all_keys: policy.resources.contains(&ResourcePattern::AllKeys),
            keys: keys.into(),
            all_secrets: policy.resources.contains(&ResourcePattern::AllSecrets),
            secrets: secrets.into(),
            all_certificates: policy.resources.contains(&ResourcePattern::AllCertificates),
            certificates: certificates.into(),
            authorities: authorities.into(),
            sources: (!rules.is_empty()).then(found),
        })
    }

    /// Returns the name of the policy.
    pub fn name(&self) -> &PolicyName {
        &self.name
    }

    /// Returns the keys that it names.
    pub(super) fn keys(&self) -> &[CmkId] {
        &self.keys
    }

    /// Tells whether it names a certificate by its id.
    pub(super) fn names_certificate(&self, id: &CertificateId) -> bool {
        self.certificates.binary_search(id).is_ok()
    }

    /// Returns the secrets that it names.
    pub(super) fn secrets(&self) -> &[SecretName] {
        &self.secrets
    }

    pub(super) fn permits(
        &self,
        operation: Operation,
        resource: Resource<'_>,
        source: Option<IpAddr>,
    ) -> Permits {
        let covers = match resource {
            Resource::Key(id) => self.all_keys || self.keys.binary_search(&id).is_ok(),
            Resource::Keys => self.all_keys,
            Resource::Secret(name) => self.all_secrets || self.secrets.binary_search(name).is_ok(),
            Resource::Secrets => self.all_secrets,
            Resource::Certificate(id) => {
                self.all_certificates || self.certificates.binary_search(&id).is_ok()
            }
            Resource::Certificates => self.all_certificates,
            Resource::Authority(name) => {
                self.all_certificates || self.authorities.binary_search(name).is_ok()
            }
            // Needs a role, but no resource.
            Resource::Nothing => true,
            Resource::AccessKeys | Resource::Aaps => false,
        };
        if !covers || !self.operations.has(operation) {
            return Permits::Nothing;
        }
        let Some(rules) = &self.sources else { return Permits::Allows };
        match source.is_some_and(|address| rules.iter().any(|sources| sources.has(address))) {
            true => Permits::Allows,
            false => Permits::Elsewhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::super::network::NetworkRule;
    use super::*;

    const A: CmkId = CmkId::from_bytes([1; 16]);
    const B: CmkId = CmkId::from_bytes([2; 16]);

    fn policy(resources: &[&str], rules: &str) -> PermissionPolicy {
        PermissionPolicy {
            name: "p".parse().unwrap(),
            description: String::new(),
            instance: SHARED.into(),
            permissions: vec![Role::CryptoServiceKeyUser.into()],
            resources: resources.iter().map(|text| text.parse().unwrap()).collect(),
            access_control: AccessControlRules::parse(rules).unwrap(),
            created_at: Timestamp::from_ms(0),
        }
    }

    fn permits(
        policy: &PermissionPolicy,
        operation: Operation,
        resource: Resource<'_>,
        from: &str,
    ) -> Permits {
        let office = ["10.0.0.0/8".to_owned()];
        let office = NetworkRule::new("office".parse().unwrap(), String::new(), &office).unwrap();
        let find = |name: &NetworkRuleName| (*name == office.name).then(|| Sources::of(&office));
        let operations = OperationSet::of_roles(&[Role::CryptoServiceKeyUser]);
        Permissions::of(policy, operations, find).permits(operation, resource, from.parse().ok())
    }

    #[test]
    fn a_policy_speaks_of_its_operations_on_its_keys_from_its_addresses() {
        let some = policy(&[&format!("key/{A}"), "secret/*"], "");
        let encrypt = Operation::Encrypt;
        assert_eq!(permits(&some, encrypt, Resource::Key(A), "9.9.9.9"), Permits::Allows);
        assert_eq!(permits(&some, encrypt, Resource::Key(A), "nowhere"), Permits::Allows);
        assert_eq!(permits(&some, encrypt, Resource::Key(B), "9.9.9.9"), Permits::Nothing);
        assert_eq!(permits(&some, Operation::DisableKey, Resource::Key(A), "9.9.9.9"), Permits::Nothing);
        assert_eq!(permits(&some, Operation::DescribeLimits, Resource::Nothing, "9.9.9.9"), Permits::Allows);
        let all = policy(&["key/*"], r#"{"NetworkRules":["office"]}"#);
        assert_eq!(permits(&all, encrypt, Resource::Key(B), "10.1.1.1"), Permits::Allows);
        assert_eq!(permits(&all, encrypt, Resource::Key(B), "9.9.9.9"), Permits::Elsewhere);
        // Whoever has no address comes from none of the rule.
        assert_eq!(permits(&all, encrypt, Resource::Key(B), "nowhere"), Permits::Elsewhere);
        let gone = policy(&["key/*"], r#"{"NetworkRules":["gone"]}"#);
        assert_eq!(permits(&gone, encrypt, Resource::Key(B), "10.1.1.1"), Permits::Elsewhere);
    }

    #[test]
    fn rules_are_given_back_as_they_were_written() {
        let text = "{ \"NetworkRules\" : [\"a\", \"b\"] }";
        let rules = AccessControlRules::parse(text).unwrap();
        assert_eq!((rules.rules.len(), rules.as_text()), (2, text));
        for wrong in
            ["x", "[]", r#"{"NetworkRules":"a"}"#, r#"{"Networks":[]}"#, r#"{"NetworkRules":["a b"]}"#]
        {
            let error = AccessControlRules::parse(wrong).unwrap_err();
            assert!(error.message().starts_with("AccessControlRules"), "{wrong}: {error}");
        }
        assert!(AccessControlRules::parse("").unwrap().rules.is_empty());
    }

    #[test]
    fn what_a_policy_may_not_say_is_refused() {
        let mut wrong = policy(&["key/*"], "");
        wrong.permissions = vec![Role::KeyAdministrator.into()];
        assert!(wrong.check().unwrap_err().message().contains("KeyAdministrator"));
        assert!(policy(&[], "").check().is_err());
        assert!(policy(&["access-key/*"], "").check().unwrap_err().message().contains("access-key/*"));
        assert!(policy(&["*"], "").check().is_err());
        policy(&["key/*", "secret/a/b"], "").check().unwrap();
    }
}
