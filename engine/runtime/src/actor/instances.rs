//! The instances actor: owns what the installation knows of its instances, and publishes it. What a change comes to is decided by pure rules; here
//! it is committed, and then published.

use std::collections::HashMap;
use std::sync::Arc;

use actix::{Actor, Context, Handler, Message};
use keymill_core::error::Result;
use keymill_core::instance::{Instance, InstanceBook, InstanceChange, InstanceEdit};

use super::ledger::Ledger;
use super::signed::{Claims, Signed};
use super::{Changed, MAILBOX};
use crate::keyring::Stamp;
use crate::nonces::Claim;
use crate::records::{self, Kind};
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
        ended: HashMap<String, u64>,
    ) -> Self {
        Self { ledger: Ledger::new(shared.clone(), stamps, ended), shared, claim: None }
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
        let mut next = InstanceBook::clone(&self.shared.instances.read());
        next.apply(edit);
        let value = next.instance(&id).cloned();
        self.shared.instances.publish(next);
        self.shared.hosting.bump();
        Ok(Changed { value, keys: Vec::new(), writes })
    }
}

impl Actor for InstancesActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(MAILBOX);
    }
}

impl Claims for InstancesActor {
    fn claim(&mut self) -> &mut Option<Arc<Claim>> {
        &mut self.claim
    }
}

impl<T: 'static> Handler<Signed<Self, T>> for InstancesActor {
    type Result = Result<T>;

    fn handle(&mut self, signed: Signed<Self, T>, ctx: &mut Self::Context) -> Self::Result {
        signed.handle(self, ctx)
    }
}
