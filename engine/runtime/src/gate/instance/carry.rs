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
use crate::actor::Owners;
use crate::actor::instances::ChangeInstance;
use crate::actor::keyring::{CountLeftBehind, FlushUsage};
use crate::audit::ManagementRecord;
use crate::gate::Gate;
use crate::gate::manage::Done;
use crate::host::{InstanceHost, aside, tell_terms};
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
            InstancePlan::Change(change, reply) => {
                let _turn = hosting.turn_of_terms().await;
                let _closed = match &change {
                    InstanceChange::Terms(id, terms) => {
                        self.check_new_tokens(host, id, terms).await?;
                        self.leave_tokens(id, terms).await?
                    }
                    _ => None,
                };
                let changed = actors.instances(ChangeInstance(change)).await?;
                if let Some(instance) = &changed.value {
                    tell_terms(&self.0.shared, &instance.id);
                }
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

    /// Checks that tokens which an instance comes to have hold its domain, where it has one of its own.
    ///
    /// # Errors
    /// As of [`InstanceHost::check_domain`].
    async fn check_new_tokens(
        &self,
        host: Arc<dyn InstanceHost>,
        id: &InstanceId,
        terms: &InstanceTerms,
    ) -> Result<()> {
        let instance = self.0.shared.instances.read().named(id.as_str())?.clone();
        let is_new = |share: &&TokenShare| instance.terms.sessions_of(&share.name) == 0;
        let tokens: Vec<_> = terms.tokens.iter().filter(is_new).cloned().collect();
        match instance.domain.is_none() || tokens.is_empty() {
            true => Ok(()),
            false => aside(move || host.check_domain(&instance, &tokens)).await,
        }
    }

    /// Checks that no key is left behind in a token that an instance is no longer to have; as long as what is returned is kept, none is made that
    /// would be.
    ///
    /// # Errors
    /// `InstanceState` where keys stay in such a token, or nobody knows whether they do.
    async fn leave_tokens(&self, id: &InstanceId, terms: &InstanceTerms) -> Result<Option<Arc<Closed>>> {
        let host = self.0.shared.hosting.need()?;
        let refused = |why: String| Err(Error::new(ErrorKind::InstanceState, why));
        let remains = |name: &str| terms.sessions_of(name) > 0;
        let leaving: Vec<_> = {
            let book = self.0.shared.instances.read();
            let before = &book.named(id.as_str())?.terms.tokens;
            before.iter().map(|share| share.name.clone()).filter(|name| !remains(name)).collect()
        };
        if leaving.is_empty() {
            return Ok(None);
        }
        let leaving = leaving.join(", ");
        let Some(gate) = host.gate(id) else {
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
                let why = format!(
                    "the instance holds {keys} keys, which would be lost: ForceDeleteWithoutBackup true releases it all the same"
                );
                return Err(Error::new(ErrorKind::InstanceState, why));
            }
        }
        let gate = host.gate(&id);
        let removed = self.remove_instance(actors, host, id).await;
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
        let ended = actors.instances(ChangeInstance(InstanceChange::End(id.clone()))).await?;
        let mut writes = ended.writes;
        let of_host = id.clone();
        aside(move || host.release(&of_host)).await?;
        let removed = actors.instances(ChangeInstance(InstanceChange::Remove(id))).await?;
        writes.extend(removed.writes);
        Ok(writes)
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
}

/// Counts the keys that stand in a store.
fn stored_keys(store: &dyn Store) -> std::result::Result<usize, StoreError> {
    let mut keys = 0;
    load::each(store, "cmk/", |Entry { value, .. }| keys += usize::from(!records::says_ended(&value)))?;
    Ok(keys)
}
