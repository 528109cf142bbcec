//! Changes of access points, client keys, policies and network rules: what one comes to is decided here, against what is published, before
//! anything is written.

use super::{
    Aap, AccessControlRules, AccessSnapshot, Approval, Asker, ClientKey, CustomRole, Grant, NetworkRule,
    PermissionPolicy, ResourcePattern, RoleRef,
};
use crate::error::{Error, ErrorKind, Limit, Result};
use crate::id::{AapName, AccessKeyId, ApprovalId, ClientKeyId, NetworkRuleName, PolicyName, RoleName};
use crate::limit;
use crate::time::Timestamp;

/// A change that somebody asks for.
#[derive(Debug)]
pub enum AccessChange {
    /// Makes an access point.
    CreateAap(Aap),
    /// Changes what is given of an access point.
    UpdateAap {
        /// Which one.
        name: AapName,
        /// Its policies from now on.
        policies: Option<Vec<PolicyName>>,
        /// Its description from now on.
        description: Option<String>,
    },
    /// Deletes an access point with its client keys.
    DeleteAap(AapName),
    /// Gives an access point another client key.
    AddClientKey(ClientKey),
    /// Revokes a client key.
    DeleteClientKey(ClientKeyId),
    /// Makes a policy.
    CreatePolicy(PermissionPolicy),
    /// Changes what is given of a policy.
    UpdatePolicy {
        /// Which one.
        name: PolicyName,
        /// What may be done from now on.
        permissions: Option<Vec<RoleRef>>,
        /// With which resources from now on.
        resources: Option<Vec<ResourcePattern>>,
        /// From where from now on.
        access_control: Option<AccessControlRules>,
        /// Its description from now on.
        description: Option<String>,
    },
    /// Deletes a policy that no access point names.
    DeletePolicy(PolicyName),
    /// Makes a network rule.
    CreateNetworkRule(NetworkRule),
    /// Changes what is given of a network rule.
    UpdateNetworkRule {
        /// Which one.
        name: NetworkRuleName,
        /// The texts of its addresses from now on.
        sources: Option<Vec<String>>,
        /// Its description from now on.
        description: Option<String>,
    },
    /// Deletes a network rule that no policy names.
    DeleteNetworkRule(NetworkRuleName),
    /// Has a request wait for a second caller.
    AskApproval(Approval),
    /// Approves a request that waits.
    Approve {
        /// Which one.
        id: ApprovalId,
        /// Who approves.
        by: Asker,
        /// When.
        now: Timestamp,
    },
    /// Uses an approval up, or takes a request that waits away.
    EndApproval {
        /// Which one.
        id: ApprovalId,
        /// Whether it must stand: it is used.
        used: bool,
        /// When.
        now: Timestamp,
    },
    /// Makes a role.
    CreateRole(CustomRole),
    /// Changes what is given of a role.
    UpdateRole {
        /// Which one.
        name: RoleName,
        /// What it covers from now on.
        actions: Option<Vec<String>>,
        /// Its description from now on.
        description: Option<String>,
    },
    /// Deletes a role that no grant and no policy names.
    DeleteRole(RoleName),
}

/// What is done to one record.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Writes an access point.
    PutAap(Aap),
    /// Removes one.
    RemoveAap(AapName),
    /// Writes a client key.
    PutClientKey(ClientKey),
    /// Removes one.
    RemoveClientKey(ClientKeyId),
    /// Writes a policy.
    PutPolicy(PermissionPolicy),
    /// Removes one.
    RemovePolicy(PolicyName),
    /// Writes a network rule.
    PutNetworkRule(NetworkRule),
    /// Removes one.
    RemoveNetworkRule(NetworkRuleName),
    /// Writes a request that waits, or was approved.
    PutApproval(Approval),
    /// Removes one.
    RemoveApproval(ApprovalId),
    /// Writes a role.
    PutRole(CustomRole),
    /// Removes one.
    RemoveRole(RoleName),
}

impl AccessSnapshot {
    /// Tells what a change comes to: edits that are made all at once.
    ///
    /// # Errors
    /// `ResourceNotFound` for what is not there, `ResourceExists` for a name that is taken, `ResourceInUse` for what something else names,
    /// `LimitExceeded` past a bound, `InvalidParameter` for what may not be said.
    pub fn plan(&self, change: AccessChange) -> Result<Vec<Edit>> {
        use AccessChange::*;
        match change {
            CreateAap(aap) => {
                check_new(self.aap(&aap.name).is_some(), self.aaps().len(), "access point")?;
                self.check_policies(&aap.policies)?;
                Ok(vec![Edit::PutAap(aap)])
            }
            UpdateAap { name, policies, description } => {
                let before = self.aap(&name).ok_or_else(|| not_found("access point"))?;
                if let Some(policies) = &policies {
                    self.check_policies(policies)?;
                }
                let aap = Aap::clone(before);
                Ok(vec![Edit::PutAap(Aap {
                    policies: policies.unwrap_or(aap.policies),
                    description: description.unwrap_or(aap.description),
                    ..aap
                })])
            }
            DeleteAap(name) => {
                self.aap(&name).ok_or_else(|| not_found("access point"))?;
                let own = self.client_keys().filter(|key| key.aap == name);
                let mut edits: Vec<_> = own.map(|key| Edit::RemoveClientKey(key.id.clone())).collect();
                edits.push(Edit::RemoveAap(name));
                Ok(edits)
            }
            AddClientKey(key) => {
                self.check_room(&key.aap)?;
                if key.certificate.as_ref().is_some_and(|by| self.is_known(by)) {
                    let why = "a certificate that is known by this is a client key already";
                    return Err(Error::new(ErrorKind::ResourceExists, why));
                }
                Ok(vec![Edit::PutClientKey(key)])
            }
            DeleteClientKey(id) => {
                self.client_key(&AccessKeyId::from(&id)).ok_or_else(|| not_found("client key"))?;
                Ok(vec![Edit::RemoveClientKey(id)])
            }
            CreatePolicy(policy) => {
                check_new(self.policy(&policy.name).is_some(), self.policies().len(), "policy")?;
                self.check_policy(&policy)?;
                Ok(vec![Edit::PutPolicy(policy)])
            }
            UpdatePolicy { name, permissions, resources, access_control, description } => {
                let before = PermissionPolicy::clone(self.policy(&name).ok_or_else(|| not_found("policy"))?);
                let policy = PermissionPolicy {
                    permissions: permissions.unwrap_or(before.permissions),
                    resources: resources.unwrap_or(before.resources),
                    access_control: access_control.unwrap_or(before.access_control),
                    description: description.unwrap_or(before.description),
                    ..before
                };
                self.check_policy(&policy)?;
                Ok(vec![Edit::PutPolicy(policy)])
            }
            DeletePolicy(name) => {
                self.policy(&name).ok_or_else(|| not_found("policy"))?;
                match self.aaps().find(|aap| aap.policies.contains(&name)) {
                    Some(aap) => Err(in_use(format!("access point {} names the policy", aap.name))),
                    None => Ok(vec![Edit::RemovePolicy(name)]),
                }
            }
            CreateNetworkRule(rule) => {
                let is_taken = self.network_rule(&rule.name).is_some();
                check_new(is_taken, self.network_rules().len(), "network rule")?;
                Ok(vec![Edit::PutNetworkRule(rule)])
            }
            UpdateNetworkRule { name, sources, description } => {
                let before = self.network_rule(&name).ok_or_else(|| not_found("network rule"))?;
                let before = NetworkRule::clone(before);
                let description = description.unwrap_or(before.description);
                let rule = match sources {
                    Some(sources) => NetworkRule::new(name, description, &sources)?,
                    None => NetworkRule { description, ..before },
                };
                Ok(vec![Edit::PutNetworkRule(rule)])
            }
            DeleteNetworkRule(name) => {
                self.network_rule(&name).ok_or_else(|| not_found("network rule"))?;
                match self.policies().find(|policy| policy.access_control.rules.contains(&name)) {
                    Some(policy) => Err(in_use(format!("policy {} names the network rule", policy.name))),
                    None => Ok(vec![Edit::RemoveNetworkRule(name)]),
                }
            }
            AskApproval(approval) => {
                let now = approval.asked_at;
                // Who asks every minute whether it was approved has nothing written.
                let Some(approval) = self.ask_approval(approval)? else { return Ok(Vec::new()) };
                let mut edits = self.over(now, &approval.id);
                edits.push(Edit::PutApproval(approval));
                Ok(edits)
            }
            Approve { id, by, now } => Ok(vec![Edit::PutApproval(self.approve(&id, by, now)?)]),
            EndApproval { id, used, now } => match self.waiting(&id, now)? {
                approval if used && !approval.stands_at(now) => {
                    Err(Error::new(ErrorKind::StateConflict, "the request is not approved"))
                }
                _ => Ok(vec![Edit::RemoveApproval(id)]),
            },
            CreateRole(role) => {
                check_new(self.role(&role.name).is_some(), self.roles().len(), "role")?;
                role.check()?;
                Ok(vec![Edit::PutRole(role)])
            }
            UpdateRole { name, actions, description } => {
                let before = CustomRole::clone(self.role(&name).ok_or_else(|| not_found("role"))?);
                let role = CustomRole {
                    actions: actions.unwrap_or(before.actions),
                    description: description.unwrap_or(before.description),
                    ..before
                };
                role.check()?;
                Ok(vec![Edit::PutRole(role)])
            }
            DeleteRole(name) => {
                self.role(&name).ok_or_else(|| not_found("role"))?;
                let grants_it = |grant: &Grant| grant.role.custom() == Some(&name);
                if let Some(key) = self.access_keys.values().find(|key| key.grants.iter().any(grants_it)) {
                    return Err(in_use(format!("access key {} is granted the role", key.id)));
                }
                match self.policies().find(|policy| policy.names_role(&name)) {
                    Some(policy) => Err(in_use(format!("policy {} names the role", policy.name))),
                    None => Ok(vec![Edit::RemoveRole(name)]),
                }
            }
        }
    }

    /// Checks that an access point is there and may have another client key.
    ///
    /// # Errors
    /// `ResourceNotFound` or `LimitExceeded`.
    pub fn check_room(&self, aap: &AapName) -> Result<()> {
        self.aap(aap).ok_or_else(|| not_found("access point"))?;
        let count = self.client_keys().filter(|key| key.aap == *aap).count();
        match count < limit::CLIENT_KEYS {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::LimitExceeded(Limit::ClientKeys),
                format!("an access point has up to {} client keys", limit::CLIENT_KEYS),
            )),
        }
    }

    fn check_policies(&self, policies: &[PolicyName]) -> Result<()> {
        let invalid = |why: String| Err(Error::new(ErrorKind::InvalidParameter, why));
        if policies.is_empty() {
            return invalid("Policies has one entry at least".into());
        }
        if policies.len() > limit::AAP_POLICIES {
            let why = format!(
                "Policies of {} entries exceeds the limit of {}",
                policies.len(),
                limit::AAP_POLICIES
            );
            return Err(Error::new(ErrorKind::LimitExceeded(Limit::Policies), why));
        }
        for (at, name) in policies.iter().enumerate() {
            if policies[..at].contains(name) {
                return invalid(format!("Policies: {name} comes twice"));
            }
            if self.policy(name).is_none() {
                let why = format!("Policies: there is no policy {name}");
                return Err(Error::new(ErrorKind::ResourceNotFound, why));
            }
        }
        Ok(())
    }

    /// Returns the removal of what waited, or stood, until its time was over, but `anew`, which is written anew; some at once, since they are one
    /// commit.
    fn over(&self, now: Timestamp, anew: &ApprovalId) -> Vec<Edit> {
        const AT_ONCE: usize = 64;
        let is_over = |known: &&std::sync::Arc<Approval>| !known.is_at(now) && known.id != *anew;
        let over = self.approvals().filter(is_over).take(AT_ONCE);
        over.map(|known| Edit::RemoveApproval(known.id.clone())).collect()
    }

    /// Checks that the roles of the installation's own are there that are named.
    ///
    /// # Errors
    /// `ResourceNotFound` naming one that is not.
    pub fn check_roles<'a>(&self, mut roles: impl Iterator<Item = &'a RoleRef>, of: &str) -> Result<()> {
        match roles.find(|role| role.custom().is_some_and(|name| self.role(name).is_none())) {
            None => Ok(()),
            Some(role) => Err(Error::new(ErrorKind::ResourceNotFound, format!("{of}: there is no {role}"))),
        }
    }

    fn check_policy(&self, policy: &PermissionPolicy) -> Result<()> {
        policy.check()?;
        self.check_roles(policy.permissions.iter(), "Permissions")?;
        match policy.access_control.rules.iter().find(|name| self.network_rule(name).is_none()) {
            None => Ok(()),
            Some(name) => {
                let why = format!("AccessControlRules: there is no network rule {name}");
                Err(Error::new(ErrorKind::ResourceNotFound, why))
            }
        }
    }
}

fn check_new(is_taken: bool, count: usize, what: &str) -> Result<()> {
    if is_taken {
        return Err(Error::new(ErrorKind::ResourceExists, format!("a {what} of this name is there already")));
    }
    if count >= limit::ACCESS_RECORDS {
        let why = format!("there are {} of this kind already: {what}", limit::ACCESS_RECORDS);
        return Err(Error::new(ErrorKind::LimitExceeded(Limit::AccessRecords), why));
    }
    Ok(())
}

fn not_found(what: &str) -> Error {
    Error::new(ErrorKind::ResourceNotFound, format!("the specified {what} is not found"))
}

fn in_use(why: String) -> Error {
    Error::new(ErrorKind::ResourceInUse, why)
}
