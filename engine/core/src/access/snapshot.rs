//! All that decisions read: published whole by the policy actor, read without a lock. What an access point may do is put together when it
//! or something that it names changes, never when it is asked.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::network::{NetworkRule, Sources};
use super::operation_set::OperationSet;
use super::permission::{PermissionPolicy, Permissions};
use super::{
    Aap, AccessKey, AccessKeyStatus, Approval, ClientKey, CustomRole, Edit, KnownBy, Principal, Role, RoleRef,
};
use crate::id::{
    AapName, AccessKeyId, ApprovalId, CertificateId, NameMap, NetworkRuleName, PolicyName, RoleName,
};
use crate::operation::Operation;
use crate::seam::auth::PeerCertificate;
use crate::time::Timestamp;

/// All that decisions read; clones share what they hold.
#[derive(Clone, Default)]
pub struct AccessSnapshot {
    /// The access keys by id.
    pub access_keys: NameMap<AccessKeyId, Arc<AccessKey>>,
    client_keys: NameMap<AccessKeyId, Arc<ClientKey>>,
    /// Those that are TLS certificates, by what these are known by.
    certificates: HashMap<KnownBy, AccessKeyId>,
    aaps: HashMap<AapName, AapEntry>,
    policies: HashMap<PolicyName, PolicyEntry>,
    network_rules: HashMap<NetworkRuleName, NetworkRuleEntry>,
    roles: HashMap<RoleName, RoleEntry>,
    approvals: HashMap<ApprovalId, Arc<Approval>>,
}

#[derive(Clone)]
struct RoleEntry {
    role: Arc<CustomRole>,
    operations: OperationSet,
}

#[derive(Clone)]
struct AapEntry {
    aap: Arc<Aap>,
    /// In the order of its policies; one that is not there permits nothing.
    permissions: Arc<[Arc<Permissions>]>,
}

#[derive(Clone)]
struct PolicyEntry {
    policy: Arc<PermissionPolicy>,
    permissions: Arc<Permissions>,
}

#[derive(Clone)]
struct NetworkRuleEntry {
    rule: Arc<NetworkRule>,
    sources: Arc<Sources>,
}

impl AccessSnapshot {
    /// Tells whether a principal may do anything at all at that time: its access key is there and active, or its client key is there, of that
    /// access point, and taken then.
    pub fn admits(&self, principal: &Principal, now: Timestamp) -> bool {
        let id = &*principal.access_key;
        match &principal.aap {
            None => self.access_keys.get(id).is_some_and(|key| key.status == AccessKeyStatus::Active),
            Some(aap) => {
                let key = self.client_keys.get(id);
                let is_taken = |key: &Arc<ClientKey>| key.aap == *aap && key.is_valid_at(now);
                self.aaps.contains_key(aap) && key.is_some_and(is_taken) && principal.is_at(now)
            }
        }
    }

    /// Finds a client key by the id that a request is signed under.
    pub fn client_key(&self, id: &AccessKeyId) -> Option<&Arc<ClientKey>> {
        self.client_keys.get(id)
    }

    /// Finds the client key that a TLS certificate stands for: by its fingerprint, else by the one URI that is known. Where its URIs stand
    /// for several, it is none.
    pub fn certificate(&self, peer: &PeerCertificate) -> Option<&Arc<ClientKey>> {
        let find = |by: KnownBy| self.client_keys.get(self.certificates.get(&by)?);
        let digits = peer.fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
        find(KnownBy::Fingerprint(digits)).or_else(|| {
            let mut found = peer.uris.iter().filter_map(|uri| find(KnownBy::Uri(uri.clone())));
            let first = found.next()?;
            found.all(|other| other.id == first.id).then_some(first)
        })
    }

    /// Tells whether a client key is a certificate that is known by this already.
    pub(super) fn is_known(&self, by: &KnownBy) -> bool {
        self.certificates.contains_key(by)
    }

    /// Lists the client keys, in no order.
    pub fn client_keys(&self) -> impl Iterator<Item = &Arc<ClientKey>> {
        self.client_keys.values()
    }

    /// Finds an access point.
    pub fn aap(&self, name: &AapName) -> Option<&Arc<Aap>> {
        self.aaps.get(name).map(|entry| &entry.aap)
    }

    /// Lists the access points, in no order.
    pub fn aaps(&self) -> impl ExactSizeIterator<Item = &Arc<Aap>> {
        self.aaps.values().map(|entry| &entry.aap)
    }

    /// Finds a permission policy.
    pub fn policy(&self, name: &PolicyName) -> Option<&Arc<PermissionPolicy>> {
        self.policies.get(name).map(|entry| &entry.policy)
    }

    /// Lists the permission policies, in no order.
    pub fn policies(&self) -> impl ExactSizeIterator<Item = &Arc<PermissionPolicy>> {
        self.policies.values().map(|entry| &entry.policy)
    }

    /// Finds a network rule.
    pub fn network_rule(&self, name: &NetworkRuleName) -> Option<&Arc<NetworkRule>> {
        self.network_rules.get(name).map(|entry| &entry.rule)
    }

    /// Lists the network rules, in no order.
    pub fn network_rules(&self) -> impl ExactSizeIterator<Item = &Arc<NetworkRule>> {
        self.network_rules.values().map(|entry| &entry.rule)
    }

    /// Finds a role of the installation's own.
    pub fn role(&self, name: &RoleName) -> Option<&Arc<CustomRole>> {
        self.roles.get(name).map(|entry| &entry.role)
    }

    /// Lists the roles of the installation's own, in no order.
    pub fn roles(&self) -> impl ExactSizeIterator<Item = &Arc<CustomRole>> {
        self.roles.values().map(|entry| &entry.role)
    }

    /// Finds a request that waited or was approved, whether or not its time is over.
    pub fn approval(&self, id: &ApprovalId) -> Option<&Arc<Approval>> {
        self.approvals.get(id)
    }

    /// Lists them, in no order.
    pub fn approvals(&self) -> impl ExactSizeIterator<Item = &Arc<Approval>> {
        self.approvals.values()
    }

    /// Tells whether a role covers an operation; one that is not there covers nothing.
    pub(super) fn covers(&self, role: &RoleRef, operation: Operation) -> bool {
        match role {
            RoleRef::BuiltIn(role) => role.covers(operation),
            RoleRef::Custom(name) => {
                self.roles.get(name).is_some_and(|entry| entry.operations.has(operation))
            }
        }
    }

    /// Tells whether a policy of an access point names a certificate by its id.
    pub fn names_certificate(&self, aap: &AapName, id: &CertificateId) -> bool {
        let mut policies = self.permissions(aap).into_iter().flatten();
        policies.any(|policy| policy.names_certificate(id))
    }

    /// Returns what any of these roles gives an application: of the installation's own, what the templates for applications have as well.
    fn for_applications(&self, roles: &[RoleRef]) -> OperationSet {
        let templates: Vec<Role> = Role::ALL.into_iter().filter(|role| role.is_for_applications()).collect();
        let most = OperationSet::of_roles(&templates);
        let of = |role: &RoleRef| match role {
            RoleRef::BuiltIn(role) => OperationSet::of_roles(&[*role]),
            RoleRef::Custom(name) => self.roles.get(name).map(|entry| entry.operations).unwrap_or_default(),
        };
        roles.iter().map(of).fold(OperationSet::default(), OperationSet::or).and(most)
    }

    pub(super) fn permissions(&self, aap: &AapName) -> Option<&[Arc<Permissions>]> {
        self.aaps.get(aap).map(|entry| &*entry.permissions)
    }

    /// Makes one of all records, whatever their order.
    pub fn of(
        access_keys: NameMap<AccessKeyId, Arc<AccessKey>>,
        client_keys: impl IntoIterator<Item = ClientKey>,
        aaps: impl IntoIterator<Item = Aap>,
        policies: impl IntoIterator<Item = PermissionPolicy>,
        network_rules: impl IntoIterator<Item = NetworkRule>,
        roles: impl IntoIterator<Item = CustomRole>,
        approvals: impl IntoIterator<Item = Approval>,
    ) -> Self {
        let mut all = Self { access_keys, ..Self::default() };
        all.approvals = approvals.into_iter().map(|waiting| (waiting.id.clone(), waiting.into())).collect();
        for role in roles {
            all.insert_role(role);
        }
        for rule in network_rules {
            all.insert_network_rule(rule);
        }
        for policy in policies {
            all.insert_policy(policy);
        }
        for aap in aaps {
            all.put_aap(aap);
        }
        for key in client_keys {
            all.put_client_key(key);
        }
        all
    }

    /// Makes an edit, and puts together anew what depends on it.
    pub fn apply(&mut self, edit: Edit) {
        match edit {
            Edit::PutAap(aap) => self.put_aap(aap),
            Edit::RemoveAap(name) => drop(self.aaps.remove(&name)),
            Edit::PutClientKey(key) => self.put_client_key(key),
            Edit::RemoveClientKey(id) => {
                let removed = self.client_keys.remove(&AccessKeyId::from(&id));
                if let Some(by) = removed.as_ref().and_then(|key| key.certificate.as_ref()) {
                    self.certificates.remove(by);
                }
            }
            Edit::PutPolicy(policy) => {
                let name = policy.name.clone();
                self.insert_policy(policy);
                self.link(|aap| aap.policies.contains(&name));
            }
            Edit::RemovePolicy(name) => {
                self.policies.remove(&name);
                self.link(|aap| aap.policies.contains(&name));
            }
            Edit::PutNetworkRule(rule) => {
                let name = rule.name.clone();
                self.insert_network_rule(rule);
                self.compile_policies(|policy| policy.access_control.rules.contains(&name));
            }
            Edit::RemoveNetworkRule(name) => {
                self.network_rules.remove(&name);
                self.compile_policies(|policy| policy.access_control.rules.contains(&name));
            }
            Edit::PutApproval(approval) => {
                self.approvals.insert(approval.id.clone(), Arc::new(approval));
            }
            Edit::RemoveApproval(id) => drop(self.approvals.remove(&id)),
            Edit::PutRole(role) => {
                let name = role.name.clone();
                self.insert_role(role);
                self.compile_policies(|policy| policy.names_role(&name));
            }
            Edit::RemoveRole(name) => {
                self.roles.remove(&name);
                self.compile_policies(|policy| policy.names_role(&name));
            }
        }
    }

    fn insert_role(&mut self, role: CustomRole) {
        // What a later version wrote and this one does not know covers nothing.
        let operations = role.check().unwrap_or_default().with_what_is_told_to_all();
        self.roles.insert(role.name.clone(), RoleEntry { role: Arc::new(role), operations });
    }

    fn put_client_key(&mut self, key: ClientKey) {
        let id = AccessKeyId::from(&key.id);
        if let Some(by) = &key.certificate {
            self.certificates.insert(by.clone(), id.clone());
        }
        self.client_keys.insert(id, Arc::new(key));
    }

    fn put_aap(&mut self, aap: Aap) {
        let permissions = self.linked(&aap);
        self.aaps.insert(aap.name.clone(), AapEntry { aap: Arc::new(aap), permissions });
    }

    fn insert_network_rule(&mut self, rule: NetworkRule) {
        let sources = Sources::of(&rule);
        self.network_rules.insert(rule.name.clone(), NetworkRuleEntry { rule: Arc::new(rule), sources });
    }

    fn insert_policy(&mut self, policy: PermissionPolicy) {
        let permissions = self.compiled(&policy);
        let policy = Arc::new(policy);
        self.policies.insert(policy.name.clone(), PolicyEntry { policy, permissions });
    }

    fn compiled(&self, policy: &PermissionPolicy) -> Arc<Permissions> {
        let operations = self.for_applications(&policy.permissions);
        Permissions::of(policy, operations, |name| Some(self.network_rules.get(name)?.sources.clone()))
    }

    /// Puts together anew what these policies say.
    fn compile_policies(&mut self, which: impl Fn(&PermissionPolicy) -> bool) {
        let policies = self.policies.values().map(|entry| &entry.policy);
        let affected: Vec<_> = policies.filter(|policy| which(policy)).cloned().collect();
        for policy in &affected {
            let permissions = self.compiled(policy);
            if let Some(entry) = self.policies.get_mut(&policy.name) {
                entry.permissions = permissions;
            }
        }
        if !affected.is_empty() {
            let names: HashSet<_> = affected.iter().map(|policy| &policy.name).collect();
            self.link(|aap| aap.policies.iter().any(|name| names.contains(name)));
        }
    }

    /// Puts together anew what access points may do.
    fn link(&mut self, which: impl Fn(&Aap) -> bool) {
        let affected: Vec<_> =
            self.aaps.values().filter(|entry| which(&entry.aap)).map(|entry| entry.aap.clone()).collect();
        for aap in affected {
            let permissions = self.linked(&aap);
            if let Some(entry) = self.aaps.get_mut(&aap.name) {
                entry.permissions = permissions;
            }
        }
    }

    fn linked(&self, aap: &Aap) -> Arc<[Arc<Permissions>]> {
        aap.policies.iter().filter_map(|name| Some(self.policies.get(name)?.permissions.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::super::{AccessControlRules, Question, Resource, SHARED, decide};
    use super::*;
    use crate::id::{ClientKeyId, CmkId};

    fn role(number: u8, action: u8) -> CustomRole {
        let action = ["kms:Encrypt", "kms:Decrypt", "kms:DrainToken"][usize::from(action)];
        CustomRole {
            name: format!("r{number}").parse().unwrap(),
            description: String::new(),
            actions: vec![action.into()],
            created_at: Timestamp::from_ms(0),
        }
    }

    fn policy(number: u8, rules: &[u8]) -> PermissionPolicy {
        let rules: Vec<String> = rules.iter().map(|rule| format!("\"r{rule}\"")).collect();
        PermissionPolicy {
            name: format!("p{number}").parse().unwrap(),
            description: String::new(),
            instance: SHARED.into(),
            permissions: match number {
                0 => vec![Role::CryptoServiceKeyUser.into()],
                _ => vec![RoleRef::Custom(role(number, 0).name)],
            },
            resources: vec!["key/*".parse().unwrap()],
            access_control: AccessControlRules::parse(&format!(
                r#"{{"NetworkRules":[{}]}}"#,
                rules.join(",")
            ))
            .unwrap(),
            created_at: Timestamp::from_ms(0),
        }
    }

    fn rule(number: u8, network: u8) -> NetworkRule {
        let sources = [format!("10.{network}.0.0/16")];
        NetworkRule::new(format!("r{number}").parse().unwrap(), String::new(), &sources).unwrap()
    }

    fn aap(number: u8, policies: &[u8]) -> Aap {
        Aap {
            name: format!("a{number}").parse().unwrap(),
            description: String::new(),
            policies: policies.iter().map(|policy| format!("p{policy}").parse().unwrap()).collect(),
            created_at: Timestamp::from_ms(0),
        }
    }

    fn client_key(number: u8) -> ClientKey {
        ClientKey {
            id: ClientKeyId::from_random([number; 16]),
            aap: format!("a{number}").parse().unwrap(),
            algorithm: super::super::ClientKeyAlgorithm::Rsa2048,
            origin: super::super::ClientKeyOrigin::Kms,
            public_key: Vec::new(),
            shown: String::new(),
            certificate: None,
            not_before: Timestamp::from_ms(0),
            not_after: Timestamp::from_ms(u64::MAX),
            created_at: Timestamp::from_ms(0),
        }
    }

    fn any_edit() -> impl Strategy<Value = Edit> {
        let few = || 0u8..3;
        let some = || prop::collection::vec(0u8..3, 0..3);
        prop_oneof![
            (few(), some()).prop_map(|(n, policies)| Edit::PutAap(aap(n, &policies))),
            few().prop_map(|n| Edit::RemoveAap(aap(n, &[]).name)),
            few().prop_map(|n| Edit::PutClientKey(client_key(n))),
            few().prop_map(|n| Edit::RemoveClientKey(client_key(n).id)),
            (few(), some()).prop_map(|(n, rules)| Edit::PutPolicy(policy(n, &rules))),
            few().prop_map(|n| Edit::RemovePolicy(policy(n, &[]).name)),
            (few(), few()).prop_map(|(n, network)| Edit::PutNetworkRule(rule(n, network))),
            few().prop_map(|n| Edit::RemoveNetworkRule(rule(n, 0).name)),
            (few(), few()).prop_map(|(n, action)| Edit::PutRole(role(n, action))),
            few().prop_map(|n| Edit::RemoveRole(role(n, 0).name)),
        ]
    }

    proptest! {
        /// Whatever was changed in whatever order, it is as if all had been read at once.
        #[test]
        fn what_was_changed_bit_by_bit_is_what_is_read_whole(edits in prop::collection::vec(any_edit(), 0..24)) {
            let mut changed = AccessSnapshot::default();
            edits.into_iter().for_each(|edit| changed.apply(edit));
            let own = |arc: &Arc<_>| ClientKey::clone(arc);
            let whole = AccessSnapshot::of(
                NameMap::default(),
                changed.client_keys().map(own),
                changed.aaps().map(|aap| Aap::clone(aap)),
                changed.policies().map(|policy| PermissionPolicy::clone(policy)),
                changed.network_rules().map(|rule| NetworkRule::clone(rule)),
                changed.roles().map(|role| CustomRole::clone(role)),
                [],
            );
            for number in 0..3 {
                let key = client_key(number);
                let principal = Principal::of_client_key(AccessKeyId::from(&key.id), key.aap.clone());
                for network in 0..3 {
                    let source: IpAddr = format!("10.{network}.9.9").parse().unwrap();
                    for operation in [Operation::Encrypt, Operation::Decrypt, Operation::DrainToken] {
                    let asked = Question {
                        principal: &principal,
                        operation,
                        resource: Resource::Key(CmkId::from_bytes([9; 16])),
                        source: Some(source),
                        now: Timestamp::from_ms(1),
                        spec: None,
                        context: None,
                    };
                    prop_assert_eq!(decide(&changed, &asked, None), decide(&whole, &asked, None));
                    prop_assert!(operation != Operation::DrainToken || !decide(&whole, &asked, None).allowed);
                    }
                }
            }
        }
    }
}
