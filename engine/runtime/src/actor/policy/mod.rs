//! The policy actor: owns access keys with what they grant, and access points with theirs, and publishes the snapshot that every decision
//! reads. What a change comes to is decided by pure rules; here it is committed, and then published.

mod aap;
mod access_key;
mod followed;

use std::collections::HashMap;
use std::sync::Arc;

use actix::{Actor, AsyncContext, Context, Handler};
use keymill_core::access::AccessSnapshot;
use keymill_core::error::Result;

pub(crate) use aap::ChangeAccess;
pub(crate) use access_key::{AddAccessKey, ChangeAccessKey, RemoveAccessKey, fresh_access_key};

use super::ledger::{Draft, Ledger};
use super::signed::{Claims, Signed};
use super::{Changed, MAILBOX, follow};
use crate::keyring::{Ended, Stamp};
use crate::nonces::Claim;
use crate::shared::Shared;

/// Owns who may do what.
pub struct PolicyActor {
    shared: Arc<Shared>,
    ledger: Ledger,
    /// What the signed request claims whose message is handled.
    claim: Option<Arc<Claim>>,
}

impl PolicyActor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        stamps: HashMap<String, Stamp>,
        ended: HashMap<String, Ended>,
    ) -> Self {
        Self { ledger: Ledger::new(shared.clone(), stamps, ended), shared, claim: None }
    }

    /// Commits writes, all or none, and publishes what they make of the snapshot.
    fn commit(
        &mut self,
        drafts: Vec<Draft>,
        change: impl FnOnce(&mut AccessSnapshot),
    ) -> Result<Changed<()>> {
        let writes = self.ledger.commit(self.claim.as_deref(), drafts)?;
        self.publish(change);
        Ok(Changed { value: (), keys: Vec::new(), writes })
    }

    fn publish(&self, change: impl FnOnce(&mut AccessSnapshot)) {
        let mut next = AccessSnapshot::clone(&self.shared.access.read());
        change(&mut next);
        self.shared.access.publish(next);
        self.shared.access_version.fetch_add(1, std::sync::atomic::Ordering::Release);
    }
}

impl Actor for PolicyActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(self.shared.config.deletion_check, |actor, _| actor.ledger.purge());
    }
}

impl Claims for PolicyActor {
    fn claim(&mut self) -> &mut Option<Arc<Claim>> {
        &mut self.claim
    }

    fn catch_up(&mut self) {
        let shared = self.shared.clone();
        follow::catch_up(self, &shared);
    }
}

impl<T: 'static> Handler<Signed<Self, T>> for PolicyActor {
    type Result = Result<T>;

    fn handle(&mut self, signed: Signed<Self, T>, ctx: &mut Self::Context) -> Self::Result {
        signed.handle(self, ctx)
    }
}
