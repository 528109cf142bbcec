//! The instances actor: owns what the installation knows of its instances, and publishes it. What a change comes to is decided by pure rules; here
//! it is committed, and then published.

use std::collections::HashMap;
use std::sync::Arc;

use actix::{Actor, AsyncContext, Context, Handler, Message};
use keymill_core::audit::RecordStamp;
use keymill_core::error::Result;
use keymill_core::instance::{Instance, InstanceBook, InstanceChange, InstanceEdit};

use super::follow::{Follows, catch_up, catches_up};
use super::ledger::Ledger;
use super::signed::{Claims, Signed};
use super::{Changed, MAILBOX};
use crate::cluster::{Owner, Written};
use crate::host;
use crate::keyring::{Ended, Stamp};
use crate::nonces::Claim;
use crate::records::{self, Kind};
use crate::scan::What;
use crate::shared::Shared;

/// Owns the instances.
pub struct InstancesActor {
    shared: Arc<Shared>,
    ledger: Ledger,
    /// What the signed request claims whose message is handled.
    claim: Option<Arc<Claim>>,
}

/// Makes a change, if what is published allows it; returns the instance as it is then, where it still is.
pub(crate) struct ChangeInstance(pub(crate) InstanceChange);

impl Message for ChangeInstance {
    type Result = Result<Changed<Option<Arc<Instance>>>>;
}

impl InstancesActor {
    pub(crate) fn new(
        shared: Arc<Shared>,
        stamps: HashMap<String, Stamp>,
        ended: HashMap<String, Ended>,
    ) -> Self {
        Self { ledger: Ledger::new(shared.clone(), stamps, ended), shared, claim: None }
    }

    fn publish(&self, edits: impl IntoIterator<Item = InstanceEdit>) -> InstanceBook {
        let mut next = InstanceBook::clone(&self.shared.instances.read());
        edits.into_iter().for_each(|edit| next.apply(edit));
        self.shared.instances.publish(next.clone());
        self.shared.hosting.bump();
        next
    }
}

catches_up!(InstancesActor);

/// Returns what a record that another node wrote comes to, with its sequence number; why it cannot be used, else.
fn followed(path: &str, what: What) -> std::result::Result<(InstanceEdit, u64), String> {
    match what {
        What::Instance(opened) => opened.map(|(instance, at)| (InstanceEdit::Put(Box::new(instance)), at)),
        What::Ended(opened) => {
            let (_, at) = opened?;
            let id = path.strip_prefix("instance/").and_then(|id| id.parse().ok());
            id.map(|id| (InstanceEdit::Remove(id), at)).ok_or_else(|| "nobody's record".to_owned())
        }
        _ => Err("it is of no kind that stands there".to_owned()),
    }
}

impl Follows for InstancesActor {
    const OWNER: Owner = Owner::Instances;

    fn follow(&mut self, commit: Vec<Written>) -> Vec<RecordStamp> {
        // An instance goes on as it was known: what its own keys are like is refused in its own part of the store.
        let (taken, edits) = self.ledger.follow(commit, followed, |_| None);
        if !edits.is_empty() {
            self.publish(edits);
            host::reconcile(&self.shared);
        }
        taken
    }
}

impl Handler<ChangeInstance> for InstancesActor {
    type Result = Result<Changed<Option<Arc<Instance>>>>;

    fn handle(&mut self, ChangeInstance(change): ChangeInstance, _: &mut Self::Context) -> Self::Result {
        let edit = self.shared.instances.read().plan(change)?;
        let (id, draft) = match &edit {
            InstanceEdit::Put(instance) => {
                let path = records::instance_path(&instance.id);
                (instance.id.clone(), self.ledger.put(path, Kind::Instance, &**instance)?)
            }
            InstanceEdit::Remove(id) => (id.clone(), self.ledger.remove(records::instance_path(id))?),
        };
        let writes = self.ledger.commit(self.claim.as_deref(), vec![draft])?;
        let value = self.publish([edit]).instance(&id).cloned();
        Ok(Changed { value, keys: Vec::new(), writes })
    }
}

impl Actor for InstancesActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
        ctx.run_interval(self.shared.config.deletion_check, |actor, _| actor.ledger.purge());
    }
}

impl Claims for InstancesActor {
    fn claim(&mut self) -> &mut Option<Arc<Claim>> {
        &mut self.claim
    }

    fn catch_up(&mut self) {
        let shared = self.shared.clone();
        catch_up(self, &shared);
    }
}

impl<T: 'static> Handler<Signed<Self, T>> for InstancesActor {
    type Result = Result<T>;

    fn handle(&mut self, signed: Signed<Self, T>, ctx: &mut Self::Context) -> Self::Result {
        signed.handle(self, ctx)
    }
}
