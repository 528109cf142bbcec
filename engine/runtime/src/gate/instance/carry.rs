//! What changes instances is carried out by the owner of their records and by whoever runs them, in an order that an end of the process in between
//! does no harm to.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use keymill_core::audit::RecordStamp;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::InstanceId;
use keymill_core::instance::{Instance, InstanceChange, InstanceTerms, Stage, TokenShare};
use keymill_core::operation::*;
use keymill_core::seam::store::{Entry, Store, StoreError};

use super::InstancePlan;
use super::plan::TermsAsked;
use crate::actor::Owners;
use crate::actor::instances::ChangeInstance;
use crate::actor::keyring::{CountLeftBehind, FlushUsage};
use crate::audit::ManagementRecord;
use crate::gate::Gate;
use crate::gate::manage::Done;
use crate::host::{InstanceHost, aside, tell_terms, want};
use crate::load;
use crate::pool::Closed;
use crate::records;

impl Gate {
    /// Carries out what is to become of an instance.
    pub(in crate::gate) async fn carry_out_instance(
        &self,
        call: &crate::gate::Call,
        actors: &Owners<'_>,
        plan: InstancePlan,
        deadline: Instant,
    ) -> Result<Done> {
        let hosting = &self.0.shared.hosting;
        let host = hosting.need()?.clone();
        let request_id = call.request_id;
        match plan {
            InstancePlan::Create(instance) => {
                let _turn = hosting.turn()?;
                let (first, writes) = self.create_instance(actors, host, *instance.clone(), deadline).await?;
                let reply = CreateKmsInstanceReply {
                    kms_instance_id: instance.id,
                    access_key_id: first.id,
                    access_key_secret: String::from_utf8_lossy(first.secret.expose()).into_owned(),
                    request_id,
                };
                Ok((Reply::CreateKmsInstance(reply), Vec::new(), writes))
            }
            InstancePlan::Terms(id, asked) => {
                let _turn = hosting.turn_of_terms().await;
                let writes = self.change_terms(actors, host, &id, *asked).await?;
                let reply = Reply::UpdateKmsInstancePool(UpdateKmsInstancePoolReply { request_id });
                Ok((reply, Vec::new(), writes))
            }
            InstancePlan::Change(change, reply) => {
                let changed = actors.instances(ChangeInstance(change)).await?;
                Ok((reply(request_id), Vec::new(), changed.writes))
            }
            InstancePlan::Release { id, is_forced } => {
                let _turn = hosting.turn()?;
                let writes = self.release_instance(actors, host, id, is_forced).await?;
                let reply = Reply::ReleaseKmsInstance(ReleaseKmsInstanceReply { request_id });
                Ok((reply, Vec::new(), writes))
            }
        }
    }

    /// Gives an instance other terms. Who calls has the turn: what nobody asks to be other stays as it is now.
    async fn change_terms(
        &self,
        actors: &Owners<'_>,
        host: Arc<dyn InstanceHost>,
        id: &InstanceId,
        asked: TermsAsked,
    ) -> Result<Vec<RecordStamp>> {
        let book = self.0.shared.instances.read().clone();
        let instance = book.named(id.as_str())?;
        let of = Box::new(instance.terms.clone());
        let terms = Box::new(asked.over(&of));
        let change = InstanceChange::Terms { id: id.clone(), of, terms: terms.clone() };
        // Before any token is asked.
        book.plan(change.clone())?;
        check_new_tokens(host.clone(), instance.clone(), &terms).await?;
        // Until they are in force.
        let _closed = leave_tokens(&*host, instance, &terms).await?;
        let changed = actors.instances(ChangeInstance(change)).await?;
        tell_terms(&self.0.shared, id);
        Ok(changed.writes)
    }

    /// Makes an instance: its record, its engine with the first access key, and then the record once more. One whose key reaches nobody is taken
    /// back.
    async fn create_instance(
        &self,
        actors: &Owners<'_>,
        host: Arc<dyn InstanceHost>,
        instance: Instance,
        deadline: Instant,
    ) -> Result<(crate::engine::Bootstrap, Vec<RecordStamp>)> {
        let id = instance.id.clone();
        let begun =
            actors.instances(ChangeInstance(InstanceChange::Create(Box::new(instance.clone())))).await?;
        let mut writes = begun.writes;
        let started = {
            let host = host.clone();
            aside(move || host.create(&instance)).await
        };
        let made = match started {
            Ok(_) if Instant::now() >= deadline => {
                Err(Error::new(ErrorKind::Deadline, "the instance was not made within the time allowed"))
            }
            Ok(first) => match actors.instances(ChangeInstance(InstanceChange::Make(id.clone()))).await {
                Ok(changed) => {
                    writes.extend(changed.writes);
                    Ok(first)
                }
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        match made {
            Ok(first) => Ok((first, writes)),
            Err(error) => {
                if let Err(left) = self.remove_instance(actors, host, id.clone()).await {
                    tracing::error!(instance = %id, ?left, "an instance that was not made is left: release it");
                }
                Err(error)
            }
        }
    }

    /// Releases an instance: from the first write on nobody reaches it, its engine ends, its records go, and then its own.
    async fn release_instance(
        &self,
        actors: &Owners<'_>,
        host: Arc<dyn InstanceHost>,
        id: InstanceId,
        is_forced: bool,
    ) -> Result<Vec<RecordStamp>> {
        let is_ending = match self.0.shared.instances.read().named(id.as_str())?.stage {
            Stage::Ending | Stage::Begun => true,
            Stage::Made => false,
        };
        if !is_forced && !is_ending {
            let why = "the instance does not run, so that nobody knows what it holds: force its release";
            let gate = host.gate(&id).ok_or_else(|| Error::new(ErrorKind::InstanceState, why))?;
            let keys = gate.close_empty().await?;
            if keys > 0 {
                return Err(not_empty(keys));
            }
        }
        let gate = host.gate(&id);
        let removed = match &gate {
            Some(gate) if !is_forced && !is_ending => self.remove_empty(actors, host, id, gate).await,
            _ => self.remove_instance(actors, host, id).await,
        };
        // Refused before anything was done: it goes on.
        if let (Err(_), Some(gate)) = (&removed, gate)
            && !is_ending
        {
            gate.0.shared.reopen();
        }
        removed
    }

    async fn remove_instance(
        &self,
        actors: &Owners<'_>,
        host: Arc<dyn InstanceHost>,
        id: InstanceId,
    ) -> Result<Vec<RecordStamp>> {
        let mut writes = actors.instances(ChangeInstance(InstanceChange::End(id.clone()))).await?.writes;
        writes.extend(self.remove_ended(actors, host, id).await?);
        Ok(writes)
    }

    /// Removes an instance that was empty when it was looked at. Where other nodes may have made a key between that and its end, which they have seen a
    /// moment later, it is counted once more; one that holds any goes on.
    async fn remove_empty(
        &self,
        actors: &Owners<'_>,
        host: Arc<dyn InstanceHost>,
        id: InstanceId,
        gate: &Gate,
    ) -> Result<Vec<RecordStamp>> {
        let mut writes = actors.instances(ChangeInstance(InstanceChange::End(id.clone()))).await?.writes;
        match gate.keys_of_others().await {
            Ok(0) => {
                writes.extend(self.remove_ended(actors, host, id).await?);
                Ok(writes)
            }
            counted => {
                let resumed = actors.instances(ChangeInstance(InstanceChange::Resume(id.clone()))).await?;
                writes.extend(resumed.writes);
                // What has seen its end meanwhile has stopped it.
                want(&self.0.shared, &id);
                let why = "keys were made meanwhile: it goes on";
                let record = ManagementRecord {
                    writes,
                    ..ManagementRecord::own(self.request_id(), Operation::ReleaseKmsInstance.name(), why)
                };
                self.record(record).await?;
                Err(not_empty(counted?))
            }
        }
    }

    async fn remove_ended(
        &self,
        actors: &Owners<'_>,
        host: Arc<dyn InstanceHost>,
        id: InstanceId,
    ) -> Result<Vec<RecordStamp>> {
        let of_host = id.clone();
        aside(move || host.release(&of_host)).await?;
        Ok(actors.instances(ChangeInstance(InstanceChange::Remove(id))).await?.writes)
    }

    /// Ends the release of an instance that was cut short by the end of the process.
    pub(crate) async fn end_released(&self, id: InstanceId) -> Result<()> {
        let host = self.0.shared.hosting.need()?.clone();
        let served = AtomicU64::new(0);
        let owners = Owners { actors: &self.0.actors, claim: None, served: &served };
        let writes = self.remove_instance(&owners, host, id).await?;
        let record = ManagementRecord {
            writes,
            ..ManagementRecord::own(
                self.request_id(),
                Operation::ReleaseKmsInstance.name(),
                "its release was cut short",
            )
        };
        self.record(record).await
    }

    /// Closes the gate of an instance where it holds no key, and returns how many it does: also of keys that other nodes have made and this one has not
    /// heard of.
    async fn close_empty(&self) -> Result<usize> {
        let shared = &self.0.shared;
        shared.close();
        // What its owner of keys was at is done behind this, and nothing more is kept.
        let _refused = self.0.actors.keyring(FlushUsage).await;
        let keys = match (shared.keyring.len(), &shared.cluster) {
            (0, Some(_)) => {
                let store = shared.store.clone();
                aside(move || Ok(stored_keys(&*store)?)).await
            }
            (known, _) => Ok(known),
        };
        if !matches!(keys, Ok(0)) {
            shared.reopen();
        }
        keys
    }

    /// Counts the keys that stand in the store once every other node has seen that nobody is to make one.
    async fn keys_of_others(&self) -> Result<usize> {
        let Some(cluster) = &self.0.shared.cluster else { return Ok(0) };
        let (view, store) = (cluster.config.view, self.0.shared.store.clone());
        let count = move || {
            std::thread::sleep(view);
            Ok(stored_keys(&*store)?)
        };
        aside(count).await
    }
}

/// Checks that tokens which an instance comes to have hold its domain.
///
/// # Errors
/// As of [`InstanceHost::check_domain`].
async fn check_new_tokens(
    host: Arc<dyn InstanceHost>,
    instance: Arc<Instance>,
    terms: &InstanceTerms,
) -> Result<()> {
    let is_new = |share: &&TokenShare| instance.terms.sessions_of(&share.name) == 0;
    let tokens: Vec<_> = terms.tokens.iter().filter(is_new).cloned().collect();
    match tokens.is_empty() {
        true => Ok(()),
        false => aside(move || host.check_domain(&instance, &tokens)).await,
    }
}

/// Checks that no key is left behind in a token that an instance is no longer to have; as long as what is returned is kept, none is made that
/// would be.
///
/// # Errors
/// `InstanceState` where keys stay in such a token, or nobody knows whether they do.
async fn leave_tokens(
    host: &dyn InstanceHost,
    instance: &Instance,
    terms: &InstanceTerms,
) -> Result<Option<Arc<Closed>>> {
    let refused = |why: String| Err(Error::new(ErrorKind::InstanceState, why));
    let remains = |name: &str| terms.sessions_of(name) > 0;
    let before = instance.terms.tokens.iter().map(|share| share.name.as_str());
    let leaving: Vec<_> = before.filter(|name| !remains(name)).collect();
    if leaving.is_empty() {
        return Ok(None);
    }
    let leaving = leaving.join(", ");
    let Some(gate) = host.gate(&instance.id) else {
        return refused(format!(
            "Tokens: the instance does not run here, so that nobody knows which keys stay in {leaving}: it keeps what it has"
        ));
    };
    let closed = Arc::new(gate.0.shared.pool.close_to_keys(remains));
    match gate.0.actors.keyring(CountLeftBehind(closed.clone())).await? {
        0 => Ok(Some(closed)),
        keys => refused(format!(
            "Tokens: without {}, {keys} keys that stay in a token of the instance would be left behind there: delete them first, or keep it",
            closed.names().join(", ")
        )),
    }
}

/// Says that an instance is not released, as it holds so many keys.
fn not_empty(keys: usize) -> Error {
    let why = format!(
        "the instance holds {keys} keys, which would be lost: ForceDeleteWithoutBackup true releases it all the same"
    );
    Error::new(ErrorKind::InstanceState, why)
}

/// Counts the keys that stand in a store.
fn stored_keys(store: &dyn Store) -> std::result::Result<usize, StoreError> {
    let mut keys = 0;
    load::each(store, "cmk/", |Entry { value, .. }| keys += usize::from(!records::says_ended(&value)))?;
    Ok(keys)
}
