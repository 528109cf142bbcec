//! The actors, one a file, and the addresses by which the gate reaches them. An actor awaits only those below it.

pub mod acme;
pub mod instances;
pub mod keyring;
pub mod policy;

mod arbiter;
mod audit;
mod control;
pub(crate) mod crew;
mod custody;
mod follow;
mod ledger;
mod private;
mod regulator;
mod session;
mod signed;
mod software;
mod token;
mod wrapped;

use std::sync::Arc;

use actix::{Addr, Handler, Message};
use keymill_core::access::Caller;
use keymill_core::acme::{Outcome, Problem, ProblemKind};
use keymill_core::audit::{KeyTouch, RecordStamp};
use keymill_core::error::{Error, ErrorKind, Result};

pub use software::{ArbiterHandle, SoftwareActor};

use acme::AcmeActor;
pub(crate) use audit::AuditActor;
pub(crate) use custody::{CustodyActor, CustodyJob, Made, Wanted};
use instances::InstancesActor;
use keyring::KeyringActor;
use policy::PolicyActor;
pub(crate) use signed::Owners;
pub(crate) use token::{Drain, Enable, PoolChanged, TokenActor};
pub(crate) use wrapped::Wrapped;

use crate::audit::AuditMessage;
use crate::lane::Lane;

/// Messages that wait for a management actor, at most.
pub(crate) const MAILBOX: usize = 1_024;

/// What a change gives back: its value, and what the audit keeps of it.
pub struct Changed<T> {
    /// The value.
    pub value: T,
    /// The keys that it touched.
    pub keys: Vec<KeyTouch>,
    /// The records that it wrote.
    pub writes: Vec<RecordStamp>,
}

/// The addresses of one engine's actors.
#[derive(Clone)]
pub(crate) struct Actors {
    pub(crate) keyring: Addr<KeyringActor>,
    pub(crate) policy: Addr<PolicyActor>,
    pub(crate) acme: Addr<AcmeActor>,
    pub(crate) instances: Addr<InstancesActor>,
    /// In the order of the pool's tokens.
    pub(crate) tokens: Vec<Addr<TokenActor>>,
    pub(crate) lane: Arc<Lane<Caller, CustodyJob>>,
    pub(crate) audit: flume::Sender<AuditMessage>,
    /// The arbiter that management operations run on.
    pub(crate) control: actix::ArbiterHandle,
}

impl Actors {
    pub(crate) fn lane_len(&self) -> usize {
        self.lane.len()
    }

    pub(crate) async fn keyring<M, T>(&self, message: M) -> Result<T>
    where
        M: Message<Result = Result<T>> + Send + 'static,
        T: Send + 'static,
        KeyringActor: Handler<M>,
    {
        ask(&self.keyring, message).await
    }

    pub(crate) async fn policy<M, T>(&self, message: M) -> Result<T>
    where
        M: Message<Result = Result<T>> + Send + 'static,
        T: Send + 'static,
        PolicyActor: Handler<M>,
    {
        ask(&self.policy, message).await
    }

    pub(crate) async fn instances<M, T>(&self, message: M) -> Result<T>
    where
        M: Message<Result = Result<T>> + Send + 'static,
        T: Send + 'static,
        InstancesActor: Handler<M>,
    {
        ask(&self.instances, message).await
    }
}

impl Actors {
    pub(crate) async fn acme<M, T>(&self, message: M) -> Outcome<T>
    where
        M: Message<Result = Outcome<T>> + Send + 'static,
        T: Send + 'static,
        AcmeActor: Handler<M>,
    {
        self.acme.send(message).await.unwrap_or_else(|error| {
            let (kind, why) = match error {
                actix::MailboxError::Closed => (ProblemKind::ServerInternal, "the engine is shutting down"),
                actix::MailboxError::Timeout => (ProblemKind::RateLimited, "too many changes wait already"),
            };
            Err(Problem::new(kind, why))
        })
    }
}

async fn ask<A, M, T>(to: &Addr<A>, message: M) -> Result<T>
where
    A: Handler<M, Context = actix::Context<A>>,
    M: Message<Result = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    to.send(message).await.unwrap_or_else(|error| match error {
        actix::MailboxError::Closed => Err(Error::new(ErrorKind::Unavailable, "the engine is shutting down")),
        actix::MailboxError::Timeout => Err(Error::new(ErrorKind::Busy, "too many changes wait already")),
    })
}
