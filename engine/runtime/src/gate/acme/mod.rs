//! ACME at the gate: accounts, bound by client keys of access points and acting under their rights. The dialect has checked who signed before
//! anything comes here; each change is one message to the ACME actor, recorded durably, then answered.

mod order;
mod revoke;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use keymill_core::Sensitive;
use keymill_core::access::{ClientKeyAlgorithm, Principal};
use keymill_core::acme::{Account, AccountKey, Outcome, Problem, ProblemKind};
use keymill_core::audit;
use keymill_core::error::{Error, ErrorKind};
use keymill_core::id::{AapName, AccessKeyId, AcmeAccountId, ClientKeyId};

pub use revoke::Revoker;

use super::{Call, Gate};
use crate::acme::AcmeConfig;
use crate::actor::Changed;
use crate::actor::acme::{ChangeAccount, Register};
use crate::audit::ManagementRecord;
use crate::work::{Job, Served, Task};

pub use crate::actor::acme::AccountChange;

/// The name of the dialect in the audit.
const NAME: &str = "acme";

impl Gate {
    /// Returns how ACME is offered, where it is.
    pub fn acme(&self) -> Option<&AcmeConfig> {
        self.0.shared.config.acme.as_ref()
    }

    /// Finds the account that a key signs for, whether or not it has ended.
    pub fn acme_account_of_key(&self, thumbprint: &str) -> Option<Arc<Account>> {
        self.0.shared.acme.account_of_key(thumbprint)
    }

    /// Finds an account, whether or not it has ended.
    pub fn acme_account(&self, id: &AcmeAccountId) -> Option<Arc<Account>> {
        self.0.shared.acme.account(id)
    }

    /// Returns the key by which a client key binds accounts, where it does so now.
    pub fn acme_binding_key(&self, id: &ClientKeyId) -> Option<Sensitive> {
        self.binding(id).map(|_| self.0.shared.login_tokens.binding_key(id))
    }

    /// Returns the access point of a client key that binds accounts now.
    fn binding(&self, id: &ClientKeyId) -> Option<AapName> {
        let access = self.0.shared.access.read();
        let key = access.client_key(&AccessKeyId::from(id))?;
        let binds = key.algorithm == ClientKeyAlgorithm::Acme;
        let principal = Principal::of_client_key(AccessKeyId::from(id), key.aap.clone());
        (binds && access.admits(&principal, self.now())).then(|| key.aap.clone())
    }

    /// Checks that requests from there may be looked at.
    ///
    /// # Errors
    /// `RateLimited` where too many from there were signed by nobody who is known.
    pub fn check_acme_source(&self, id: &str, source: Option<IpAddr>) -> Outcome<()> {
        self.check_login(id, source)
            .inspect_err(|error| self.refused_stranger(error.kind(), source))
            .map_err(Problem::from)
    }

    /// Counts a request that nobody who is known has signed.
    pub fn refused_by_acme(&self, source: Option<IpAddr>) {
        self.note_failed_login(ErrorKind::SignatureMismatch, source);
        self.refused_stranger(ErrorKind::SignatureMismatch, source);
    }

    /// Makes the call of a request that an account has signed.
    ///
    /// # Errors
    /// `Unauthorized` where the account has ended, or the client key that binds it is gone or not taken at this time; `RateLimited` where its access
    /// point is over its quota.
    pub fn acme_call(&self, account: &Account, source: Option<IpAddr>, received: Instant) -> Outcome<Call> {
        account.check()?;
        self.0.shared.check_view()?;
        if self.binding(&account.binding).as_ref() != Some(&account.aap) {
            let why = "the client key that binds the account is revoked, or not taken at this time";
            return Err(Problem::new(ProblemKind::Unauthorized, why));
        }
        self.logged_in(&account.id.to_string(), source);
        let call = self.call_of(&account.binding, &account.aap, source, received);
        let counted = Job::new(call, None, Task::Refused(Error::internal("it is done elsewhere")));
        self.share_managed(&counted)?;
        Ok(counted.call)
    }

    fn call_of(
        &self,
        binding: &ClientKeyId,
        aap: &AapName,
        source: Option<IpAddr>,
        received: Instant,
    ) -> Call {
        Call {
            request_id: self.request_id(),
            principal: Principal::of_client_key(AccessKeyId::from(binding), aap.clone()),
            source,
            frontend: NAME,
            received,
            nonce: None,
        }
    }

    /// Makes an account for a key that a client key binds, or finds the one that it has; tells whether it was made.
    ///
    /// # Errors
    /// `Unauthorized` where the client key does not bind, or the account of the key has ended; `RateLimited` past a bound.
    pub async fn register_acme(
        &self,
        (source, received): (Option<IpAddr>, Instant),
        key: AccountKey,
        contact: Vec<String>,
        binding: ClientKeyId,
    ) -> Outcome<(Arc<Account>, bool)> {
        let aap = self.binding(&binding).ok_or_else(|| {
            Problem::new(
                ProblemKind::Unauthorized,
                "the external account binding is revoked, or not taken now",
            )
        })?;
        let call = self.call_of(&binding, &aap, source, received);
        let asked = Register { key, contact, aap, binding };
        let gate = self.clone();
        self.to_the_end(async move {
            let came = gate.0.actors.acme(asked).await;
            gate.kept(&call, "AcmeNewAccount", "bound by the client key", came).await
        })
        .await
    }

    /// Changes an account.
    ///
    /// # Errors
    /// Those of the change.
    pub async fn change_acme_account(
        &self,
        call: Call,
        id: AcmeAccountId,
        change: AccountChange,
    ) -> Outcome<Arc<Account>> {
        let name = match &change {
            AccountChange::Contact(_) => "AcmeUpdateAccount",
            AccountChange::Deactivate => "AcmeDeactivateAccount",
            AccountChange::Key { .. } => "AcmeKeyChange",
        };
        let gate = self.clone();
        self.to_the_end(async move {
            let came = gate.0.actors.acme(ChangeAccount { id, change }).await;
            gate.kept(&call, name, "signed by the account", came).await
        })
        .await
    }

    /// Has work done to its end, whatever becomes of who asked.
    async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Outcome<T>> + Send + 'static,
    ) -> Outcome<T> {
        let gone = || Problem::new(ProblemKind::ServerInternal, "the engine is shutting down");
        let (sender, answer) = tokio::sync::oneshot::channel();
        let spawned = self.0.actors.control.spawn(async move {
            let _gone = sender.send(work.await);
        });
        match spawned {
            true => answer.await.map_err(|_| gone())?,
            false => Err(gone()),
        }
    }

    /// Has what came of a change recorded before it is answered; nothing is recorded of what changed nothing.
    async fn kept<T>(
        &self,
        call: &Call,
        change: &'static str,
        rule: &'static str,
        came: Outcome<Changed<T>>,
    ) -> Outcome<T> {
        self.0.shared.metrics.acme.changed(change, came.is_ok());
        let (value, writes) = match came {
            Ok(Changed { value, writes, .. }) if writes.is_empty() => return Ok(value),
            Ok(Changed { value, writes, .. }) => (Ok(value), writes),
            Err(problem) => (Err(problem), Vec::new()),
        };
        let outcome = match &value {
            Ok(_) => audit::Outcome::Done,
            Err(problem) => audit::Outcome::Failed(kind(problem.kind)),
        };
        let recorded = self
            .record(ManagementRecord {
                request: call.request_id,
                principal: Some(call.principal.access_key.clone()),
                source: call.source,
                frontend: call.frontend,
                operation: change,
                outcome,
                rule: rule.into(),
                keys: Vec::new(),
                secrets: Vec::new(),
                certificates: Vec::new(),
                approved_by: None,
                served: Served::default(),
                micros: call.received.elapsed().as_micros() as u64,
                writes,
            })
            .await;
        let value = value?;
        recorded.map(|()| value).map_err(Problem::from)
    }
}

/// Returns the kind that the audit has of a problem.
fn kind(problem: ProblemKind) -> ErrorKind {
    match problem {
        ProblemKind::AccountDoesNotExist
        | ProblemKind::ExternalAccountRequired
        | ProblemKind::Unauthorized => ErrorKind::Denied,
        ProblemKind::AlreadyRevoked | ProblemKind::OrderNotReady => ErrorKind::StateConflict,
        ProblemKind::RateLimited => ErrorKind::OverQuota,
        ProblemKind::ServerInternal => ErrorKind::Internal,
        _ => ErrorKind::InvalidParameter,
    }
}
