//! Changes of access points, client keys, policies, network rules and roles.

use actix::{Handler, Message};
use keymill_core::access::{AccessChange, Edit};
use keymill_core::error::Result;

use super::super::ledger::Draft;
use super::PolicyActor;
use crate::actor::Changed;
use crate::records::{self, Kind};

/// Makes a change, if what is published allows it.
pub(crate) struct ChangeAccess(pub(crate) AccessChange);

impl Message for ChangeAccess {
    type Result = Result<Changed<()>>;
}

impl PolicyActor {
    fn write_of(&self, edit: &Edit) -> Result<Draft> {
        match edit {
            Edit::PutAap(aap) => self.ledger.put(records::aap_path(&aap.name), Kind::Aap, aap),
            Edit::RemoveAap(name) => self.ledger.remove(records::aap_path(name)),
            Edit::PutClientKey(key) => {
                self.ledger.put(records::client_key_path(&key.id), Kind::ClientKey, key)
            }
            Edit::RemoveClientKey(id) => self.ledger.remove(records::client_key_path(id)),
            Edit::PutPolicy(policy) => {
                self.ledger.put(records::policy_path(&policy.name), Kind::Policy, policy)
            }
            Edit::RemovePolicy(name) => self.ledger.remove(records::policy_path(name)),
            Edit::PutNetworkRule(rule) => {
                self.ledger.put(records::network_rule_path(&rule.name), Kind::NetworkRule, rule)
            }
            Edit::RemoveNetworkRule(name) => self.ledger.remove(records::network_rule_path(name)),
            Edit::PutRole(role) => self.ledger.put(records::role_path(&role.name), Kind::Role, role),
            Edit::RemoveRole(name) => self.ledger.remove(records::role_path(name)),
            Edit::PutApproval(approval) => {
                self.ledger.put(records::approval_path(&approval.id), Kind::Approval, approval)
            }
            Edit::RemoveApproval(id) => self.ledger.remove(records::approval_path(id)),
        }
    }
}

impl Handler<ChangeAccess> for PolicyActor {
    type Result = Result<Changed<()>>;

    fn handle(&mut self, ChangeAccess(change): ChangeAccess, _: &mut Self::Context) -> Self::Result {
        let edits = self.shared.access.read().plan(change)?;
        // One that is one of several says so by a commit: what it knows may be older.
        if edits.is_empty() && self.shared.cluster.is_none() {
            return Ok(Changed { value: (), keys: Vec::new(), writes: Vec::new() });
        }
        let pending = edits.iter().map(|edit| self.write_of(edit)).collect::<Result<_>>()?;
        self.commit(pending, |access| edits.into_iter().for_each(|edit| access.apply(edit)))
    }
}
