//! Changes of access points, client keys, policies, network rules and roles.

use actix::{Handler, Message};
use keymill_core::access::{AccessChange, Edit};
use keymill_core::error::Result;

use super::{Pending, PolicyActor};
use crate::actor::Changed;
use crate::records::{self, Kind};

/// Makes a change, if what is published allows it.
pub(crate) struct ChangeAccess(pub(crate) AccessChange);

impl Message for ChangeAccess {
    type Result = Result<Changed<()>>;
}

impl PolicyActor {
    fn write_of(&self, edit: &Edit) -> Result<Pending> {
        match edit {
            Edit::PutAap(aap) => self.put(records::aap_path(&aap.name), Kind::Aap, aap),
            Edit::RemoveAap(name) => self.remove(records::aap_path(name)),
            Edit::PutClientKey(key) => self.put(records::client_key_path(&key.id), Kind::ClientKey, key),
            Edit::RemoveClientKey(id) => self.remove(records::client_key_path(id)),
            Edit::PutPolicy(policy) => self.put(records::policy_path(&policy.name), Kind::Policy, policy),
            Edit::RemovePolicy(name) => self.remove(records::policy_path(name)),
            Edit::PutNetworkRule(rule) => {
                self.put(records::network_rule_path(&rule.name), Kind::NetworkRule, rule)
            }
            Edit::RemoveNetworkRule(name) => self.remove(records::network_rule_path(name)),
            Edit::PutRole(role) => self.put(records::role_path(&role.name), Kind::Role, role),
            Edit::RemoveRole(name) => self.remove(records::role_path(name)),
            Edit::PutApproval(approval) => {
                self.put(records::approval_path(&approval.id), Kind::Approval, approval)
            }
            Edit::RemoveApproval(id) => self.remove(records::approval_path(id)),
        }
    }
}

impl Handler<ChangeAccess> for PolicyActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, ChangeAccess(change): ChangeAccess, _: &mut Self::Context) -> Self::Result {
        let edits = self.shared.access.read().plan(change)?;
        if edits.is_empty() {
            return Ok(Changed { value: (), keys: Vec::new(), writes: Vec::new() });
        }
        let pending = edits.iter().map(|edit| self.write_of(edit)).collect::<Result<_>>()?;
        self.commit(pending, |access| edits.into_iter().for_each(|edit| access.apply(edit)))
    }
}
