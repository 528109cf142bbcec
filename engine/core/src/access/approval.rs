//! Dual control: what an installation lists waits until a second caller has approved it. Who asked, for what, and who approved stands here; that the
//! approver may do it as well is decided where requests are.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{AccessSnapshot, Caller, Principal};
use crate::error::{Error, ErrorKind, Limit, Result};
use crate::id::{AapName, AccessKeyId, ApprovalId};
use crate::limit;
use crate::operation::Operation;
use crate::time::Timestamp;

/// For how long a request waits, and an approval stands.
pub const APPROVAL_MS: u64 = 24 * 3_600_000;

/// A request that waits for a second caller, or was approved by one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// Its id: of who asks for what, so that the same request is the same wait.
    pub id: ApprovalId,
    /// The name of the operation.
    pub operation: String,
    /// Its parameters as JSON, aliases of keys resolved.
    pub parameters: String,
    /// Who asked.
    pub asked_by: Asker,
    /// From where.
    pub source: Option<IpAddr>,
    /// When.
    pub asked_at: Timestamp,
    /// Who approved, where somebody has.
    pub approved_by: Option<Asker>,
    /// Until when it waits, or stands once it is approved; not then any more.
    pub expires_at: Timestamp,
}

/// A caller as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    /// The access key, or the client key.
    pub key: AccessKeyId,
    /// The access point of a client key.
    pub aap: Option<AapName>,
}

impl Asker {
    /// Takes a principal.
    pub fn of(principal: &Principal) -> Self {
        Self { key: (*principal.access_key).clone(), aap: principal.aap.clone() }
    }

    /// Returns the principal, as it would log in now.
    pub fn principal(&self) -> Principal {
        Principal { aap: self.aap.clone(), ..Principal::of_access_key(self.key.clone()) }
    }

    /// Returns whose share its requests are of: two client keys of one application are one caller.
    pub fn caller(&self) -> Caller {
        match &self.aap {
            Some(aap) => Caller::Aap(aap.clone()),
            None => Caller::from(self.key.clone()),
        }
    }
}

impl Approval {
    /// Tells whether it counts at that time.
    pub fn is_at(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    /// Tells whether it is of that request of that caller; an id alone is a hash.
    pub fn is_of(&self, operation: Operation, parameters: &str, by: &Asker) -> bool {
        self.operation == operation.name()
            && self.parameters == parameters
            && self.asked_by.caller() == by.caller()
    }

    /// Tells whether it lets its request go on.
    pub fn stands_at(&self, now: Timestamp) -> bool {
        self.approved_by.is_some() && self.is_at(now)
    }
}

impl Operation {
    /// Tells whether an installation may have it wait for a second caller: it changes something or gives keys out, and its parameters, which the
    /// second caller is shown, hold no secret.
    pub fn may_wait_for_approval(self) -> bool {
        use Operation::*;
        matches!(
            self,
            ScheduleKeyDeletion
                | DisableKey
                | DeleteKeyMaterial
                | DeleteAlias
                | UpdateAlias
                | SetKeyPolicy
                | SetDeletionProtection
                | DeleteManagedDataKey
                | ExportDataKey
                | GenerateAndExportDataKey
                | CreateAccessKey
                | UpdateAccessKey
                | DeleteAccessKey
                | CreateApplicationAccessPoint
                | DeleteApplicationAccessPoint
                | UpdateApplicationAccessPoint
                | RegisterClientKey
                | RegisterClientCertificate
                | CreateAcmeBinding
                | DeleteClientKey
                | CreatePolicy
                | UpdatePolicy
                | DeletePolicy
                | CreateNetworkRule
                | UpdateNetworkRule
                | DeleteNetworkRule
                | CreateRole
                | UpdateRole
                | DeleteRole
                | DeleteSecret
                | ResealSecret
                | ExportSecrets
                | UpdateCertificateStatus
                | IssueCertificate
                | BatchIssueCertificate
                | RenewCertificate
                | DeleteCertificate
                | CreateCertificateAuthority
                | ActivateCertificateAuthority
                | UpdateCertificateAuthority
                | DeleteCertificateAuthority
                | RevokeCertificate
                | SetSecretPolicy
                | DrainToken
                | AdoptKey
                | CreateKmsInstance
                | ConnectKmsInstance
                | UpdateKmsInstanceBindVpc
                | UpdateKmsInstancePool
                | ReleaseKmsInstance
        )
    }
}

impl AccessSnapshot {
    /// Decides on a request that waits: what is kept of it from now on; `None` where it waits already.
    ///
    /// # Errors
    /// `LimitExceeded` where too many wait.
    pub(super) fn ask_approval(&self, approval: Approval) -> Result<Option<Approval>> {
        let now = approval.asked_at;
        if let Some(known) = self.approval(&approval.id).filter(|known| known.is_at(now)) {
            let same = known.operation == approval.operation && known.parameters == approval.parameters;
            let lets_stay = known.approved_by.is_none() || self.is_approver_there(known, now);
            return match same && known.asked_by.caller() == approval.asked_by.caller() {
                true if lets_stay => Ok(None),
                // Whoever approved it was taken away since: it waits for another.
                true => Ok(Some(approval)),
                false => Err(Error::new(ErrorKind::StateConflict, "another request of this id waits")),
            };
        }
        let caller = approval.asked_by.caller();
        let waiting = self.approvals().filter(|known| known.is_at(now));
        let is_of_aap = approval.asked_by.aap.is_some();
        let (mut all, mut own, mut of_aaps) = (0, 0, 0);
        for known in waiting {
            all += 1;
            own += usize::from(known.asked_by.caller() == caller);
            of_aaps += usize::from(known.asked_by.aap.is_some());
        }
        // Applications leave room for those who administer.
        let has_room = !is_of_aap || of_aaps < limit::APPROVALS / 2;
        match all < limit::APPROVALS && own < limit::APPROVALS_OF_ONE && has_room {
            true => Ok(Some(approval)),
            false => Err(Error::new(
                ErrorKind::LimitExceeded(Limit::Approvals),
                format!(
                    "{all} requests wait for approval, {own} of this caller: the limits are {} and {}",
                    limit::APPROVALS,
                    limit::APPROVALS_OF_ONE
                ),
            )),
        }
    }

    fn is_approver_there(&self, known: &Approval, now: Timestamp) -> bool {
        known.approved_by.as_ref().is_some_and(|by| self.admits(&by.principal(), now))
    }

    /// Decides on the approval of a request by a second caller.
    ///
    /// # Errors
    /// `ResourceNotFound` where none of that id waits at that time, `Denied` where the approver is who asked.
    pub(super) fn approve(&self, id: &ApprovalId, by: Asker, now: Timestamp) -> Result<Approval> {
        let waiting = self.waiting(id, now)?;
        if waiting.asked_by.caller() == by.caller() {
            return Err(Error::new(ErrorKind::Denied, "who asks for something does not approve it"));
        }
        match &waiting.approved_by {
            Some(_) => Err(Error::new(ErrorKind::StateConflict, "the request is approved already")),
            None => Ok(Approval { approved_by: Some(by), ..Approval::clone(waiting) }),
        }
    }

    /// Finds a request that waits or was approved.
    ///
    /// # Errors
    /// `ResourceNotFound` where there is none of that id at that time.
    pub fn waiting(&self, id: &ApprovalId, now: Timestamp) -> Result<&Approval> {
        let found = self.approval(id).filter(|known| known.is_at(now));
        found.map(AsRef::as_ref).ok_or_else(|| {
            Error::new(ErrorKind::ResourceNotFound, "no request of this id waits for approval")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::AccessChange;

    const NOW: Timestamp = Timestamp::from_ms(1_000_000);

    fn asker(key: &str, aap: Option<&str>) -> Asker {
        Asker { key: key.parse().unwrap(), aap: aap.map(|aap| aap.parse().unwrap()) }
    }

    fn wanted(number: usize, by: Asker, now: Timestamp) -> Approval {
        Approval {
            id: format!("APR.{number:032x}").parse().unwrap(),
            operation: "DisableKey".into(),
            parameters: "{}".into(),
            asked_by: by,
            source: None,
            asked_at: now,
            approved_by: None,
            expires_at: Timestamp::from_ms(now.as_ms() + APPROVAL_MS),
        }
    }

    fn change(access: &mut AccessSnapshot, change: AccessChange) -> Result<usize> {
        let edits = access.plan(change)?;
        let count = edits.len();
        edits.into_iter().for_each(|edit| access.apply(edit));
        Ok(count)
    }

    #[test]
    fn two_client_keys_of_one_application_are_one_caller() {
        let mut access = AccessSnapshot::default();
        let waits = wanted(1, asker("KMAK00000001", Some("shop")), NOW);
        let id = waits.id.clone();
        change(&mut access, AccessChange::AskApproval(waits)).unwrap();
        let approve = |access: &mut AccessSnapshot, by| {
            change(access, AccessChange::Approve { id: id.clone(), by, now: NOW })
        };
        let same = approve(&mut access, asker("KMAK00000002", Some("shop"))).unwrap_err();
        assert_eq!(same.kind(), ErrorKind::Denied);
        let end = |used| AccessChange::EndApproval { id: id.clone(), used, now: NOW };
        assert_eq!(change(&mut access, end(true)).unwrap_err().kind(), ErrorKind::StateConflict);
        approve(&mut access, asker("KMAK00000002", None)).unwrap();
        assert!(access.approval(&id).unwrap().stands_at(NOW));
        change(&mut access, end(true)).unwrap();
        assert_eq!(change(&mut access, end(false)).unwrap_err().kind(), ErrorKind::ResourceNotFound);
    }

    #[test]
    fn what_is_over_makes_room_and_is_cleared_away_some_at_a_time() {
        let mut access = AccessSnapshot::default();
        let ask = |access: &mut AccessSnapshot, number: usize, now| {
            let by = asker(&format!("KMAK{:08}", number / limit::APPROVALS_OF_ONE), None);
            change(access, AccessChange::AskApproval(wanted(number, by, now)))
        };
        for number in 0..limit::APPROVALS {
            ask(&mut access, number, NOW).unwrap();
        }
        let full = ask(&mut access, limit::APPROVALS, NOW).unwrap_err();
        assert_eq!(full.kind(), ErrorKind::LimitExceeded(Limit::Approvals));
        // The same that waits already is asked again, however many wait, and nothing is written for it.
        assert_eq!(ask(&mut access, 0, NOW).unwrap(), 0);
        let last = Timestamp::from_ms(NOW.as_ms() + APPROVAL_MS - 1);
        assert!(ask(&mut access, limit::APPROVALS, last).is_err());
        let over = Timestamp::from_ms(NOW.as_ms() + APPROVAL_MS);
        // One that is written anew is not cleared away in the same change.
        assert_eq!(ask(&mut access, 0, over).unwrap(), 65);
        let mut changes = 1;
        while access.approvals().any(|known| !known.is_at(over)) {
            ask(&mut access, changes, over).unwrap();
            changes += 1;
        }
        assert_eq!((changes, access.approvals().len()), (16, 16));
    }
}
