//! How an engine starts: reads what is kept, judges it by what the audit remembers, and builds the actors from the parts that plugins gave.

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use actix::Actor;
use keymill_core::Sensitive;
use keymill_core::access::{Caller, Effect, Grant, ResourcePattern, Role};
use keymill_core::audit::RecordStamp;
use keymill_core::error::Result;
use keymill_core::id::NodeName;
use keymill_core::instance::InstanceBook;
use keymill_core::seam::audit::AuditLog;
use keymill_core::seam::store::{Revision, Store};
use keymill_core::time::Timestamp;
use keymill_crypto::audit::ChainKeys;
use keymill_crypto::derived::DerivedKeys;
use keymill_crypto::epoch::EpochLimits;
use keymill_crypto::import::Fingerprints;
use keymill_crypto::login_token::LoginTokens;
use keymill_crypto::opening::SubkeyCache;
use keymill_crypto::record::RecordSealer;
use keymill_crypto::{digest, random};

use crate::acme::AcmeBook;
use crate::actor::acme::AcmeActor;
use crate::actor::instances::InstancesActor;
use crate::actor::keyring::{Found, KeyringActor};
use crate::actor::policy::{AddAccessKey, PolicyActor, fresh_access_key};
use crate::actor::{Actors, AuditActor, CustodyActor, TokenActor};
use crate::audit::{AuditHub, AuditMessage, DeskChain, MANAGEMENT, ManagementChain, ManagementRecord};
use crate::authorities::AuthorityTimer;
use crate::clock::Clock;
use crate::cluster::{
    AsOf, Cluster, Follower, Founding, Herald, Member, accept, check_formats, check_history, check_known,
    finish_accepting, take_name,
};
use crate::config::EngineConfig;
use crate::gate::Gate;
use crate::host::Hosting;
use crate::keyring::Keyring;
use crate::lane::Lane;
use crate::load;
use crate::logins::Logins;
use crate::metrics::Metrics;
use crate::nonces::KeptNonces;
use crate::pool::token::Token;
use crate::pool::{MAX_CHUNK, Pool};
use crate::quota::Quotas;
use crate::records::Formats;
use crate::remember::{self, Remembered};
use crate::retention::Retention;
use crate::rotation::{RotationQueue, RotationThreads};
use crate::shared::{RequestIds, Shared};
use crate::snapshot::Published;
use crate::validation::{ValidationQueue, ValidationThreads};

use super::{Bootstrap, Engine, EngineError, Following, Parts};

impl Following {
    fn start(shared: &Arc<Shared>, actors: &Actors, from: Revision) -> Result<Option<Self>, EngineError> {
        let Some(cluster) = &shared.cluster else { return Ok(None) };
        cluster.set_audit(actors.audit.clone());
        let owners = [
            actors.keyring.clone().recipient(),
            actors.policy.clone().recipient(),
            actors.acme.clone().recipient(),
            actors.instances.clone().recipient(),
        ];
        let failed = EngineError::because("threads of the cluster");
        let follower = Follower::start(shared, owners, from).map_err(|e| failed(&e))?;
        let member = Member::start(shared).map_err(|e| failed(&e))?;
        let herald = Herald::start(shared).map_err(|e| failed(&e))?;
        Ok(Some(Self { follower, member, herald }))
    }
}

impl Engine {
    /// Starts an engine. Where there never was an access key it makes the bootstrap one, which has `Root`.
    ///
    /// # Errors
    /// [`EngineError`] where a part cannot be used: the store is another root's, the audit log cannot be written, …
    pub fn start(parts: Parts) -> Result<(Self, Option<Bootstrap>), EngineError> {
        Self::start_telling(parts, &mut |_| Ok(()))
    }

    /// Starts an engine as [`Self::start`] does, and has the bootstrap access key told before it is kept: whatever ends the process
    /// in between, nobody is left with an installation that cannot be entered.
    ///
    /// # Errors
    /// As [`Self::start`], and what `tell` says.
    pub fn start_telling(
        parts: Parts,
        tell: &mut dyn FnMut(&Bootstrap) -> Result<(), String>,
    ) -> Result<(Self, Option<Bootstrap>), EngineError> {
        let Parts { config, clock, store, provider, authenticators, audit, tokens, mut root, node } = parts;
        let derived = DerivedKeys::derive(1, &config.instance, &mut |messages| root.derive(messages))
            .map_err(|e| EngineError::passing(format!("root: {e}")))?;
        let sealer = RecordSealer::new(&derived.storage).map_err(|e| EngineError::because("root")(&e))?;
        let keys = ChainKeys::new(&derived.audit, &derived.audit_signing)
            .map_err(|e| EngineError::because("audit keys")(&e))?;

        let random = |what| move |e: random::RandomFailed| EngineError::new(format!("{what}: {e}"));
        let tag: [u8; 4] = random::array().map_err(random("audit chain name"))?;
        let process = format!("{}-{}", compact(clock.now()), digest::hex(&tag));
        let cluster = join(&config, &node, &process, &*store, &sealer, &clock)?;
        let accepted = match cluster.as_ref().filter(|cluster| cluster.config.accept_history) {
            Some(cluster) => accept_history(cluster, &*store, &sealer, (&*audit, &keys), clock.now())?,
            None => None,
        };
        let founding = cluster.as_ref().map(|_| Founding::begin(&*store, &process)).transpose()?.flatten();
        let shared_by_others = cluster.is_some();
        let followed_from = store.revision()?;
        let node_name = cluster.as_ref().map(|cluster| cluster.node.clone());
        let (heads, unopened) = remember::stored_heads(&*store, &sealer, node_name.as_ref())?;
        let keyring = Keyring::default();
        // Both may be long, and neither needs the other.
        let (remembered, read) = std::thread::scope(|scope| {
            let read = scope.spawn(|| load::read(&*store, &sealer, &keyring));
            let remembered = remember::remember(&*audit, &keys, heads);
            (remembered, read.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let remembered = remembered.map_err(|e| EngineError::because("reading the audit log")(&e))?;
        if let Some(cluster) = &cluster {
            check_history(cluster, &*store, &sealer, &clock, &remembered.witnesses)?;
        }
        let read = read?;
        let loaded =
            load::judge_all(&*store, &sealer, read, remembered.stamps, &keyring, node_name.as_ref())?;
        if let Some(cluster) = &cluster {
            check_known(cluster, &remembered.witnesses, &loaded.lost)?;
        }
        let nonces = KeptNonces::load(&*store)?;
        for trouble in unopened.iter().chain(&remembered.troubles) {
            tracing::error!("{trouble}; run `keymill audit verify`");
        }
        for (path, why) in &loaded.quarantined {
            tracing::error!(path, why, "a stored record is quarantined");
        }

        let hub = Arc::new(AuditHub::new(
            audit,
            keys,
            process.clone(),
            node,
            clock.clone(),
            remembered.to_name,
            (config.audit, config.audit_files.clone()),
        ));
        let custody = provider.custody().map_err(|e| EngineError::because("crypto provider")(&e))?;
        let shared = Arc::new(Shared {
            keyring,
            nonces,
            access: Published::new(loaded.access),
            access_version: Default::default(),
            custody: parking_lot::Mutex::new(custody),
            authenticators: authenticators.into_iter().map(|a| (a.scheme(), a)).collect(),
            sealer,
            fingerprints: Fingerprints::new(derived.fingerprint),
            login_tokens: LoginTokens::new(&derived.login_token),
            subkeys: SubkeyCache::new(NonZeroUsize::new(config.subkey_cache).unwrap_or(NonZeroUsize::MIN)),
            epoch_limits: EpochLimits::default(),
            audit: hub.clone(),
            metrics: Metrics::of(&config.instance, config.is_dedicated),
            quotas: Quotas::new(&config.quota, cluster.is_some()),
            logins: Logins::new(&config.login),
            acme: AcmeBook::of(loaded.acme.accounts, loaded.acme.orders),
            instances: Published::new(InstanceBook::of(loaded.instances.instances)),
            hosting: Hosting::default(),
            max_records: Published::new(config.max_records),
            weight: Arc::new(AtomicU32::new(config.weight)),
            is_closed: Default::default(),
            validations: ValidationQueue::new(config.acme.as_ref().map_or(1, |acme| acme.queue)),
            rotations: RotationQueue::new(config.rotation.queue, config.rotation.threads),
            buffered: Arc::default(),
            request_ids: RequestIds::new(u64::from_be_bytes(random::array().map_err(random("request ids"))?)),
            store_trouble: parking_lot::Mutex::new(None),
            pending_uses_logged: parking_lot::Mutex::default(),
            quarantined: loaded.quarantined.len(),
            pool: Pool::new(config.pool.clone(), tokens),
            software: Lane::new(config.max_queued_jobs, MAX_CHUNK),
            crew: Default::default(),
            reserver: OnceLock::new(),
            store: store.clone(),
            cluster,
            provider,
            clock,
            config,
        });

        let (audit_sender, audit_receiver) = flume::bounded(4_096);
        let chain = DeskChain::open(&hub, MANAGEMENT)?;
        let chain = ManagementChain { chain };
        let audit_actor = AuditActor::new(shared.clone(), audit_receiver, chain, remembered.to_forget);
        if !loaded.unrecorded.is_empty() {
            let records = loaded.unrecorded.len();
            match shared.cluster {
                Some(_) => tracing::info!(records, "records that other nodes wrote meanwhile are noted"),
                None => tracing::warn!(records, "records without an audit record are noted"),
            }
            let _closed = audit_sender.send(AuditMessage::Recovered(loaded.unrecorded));
        }

        let lane = Arc::new(Lane::new(shared.config.key_queue, 64));
        let mut threads = Vec::new();
        for number in 0..shared.config.key_workers.max(1) {
            threads.push(CustodyActor::start(&shared, &lane, number).map_err(EngineError::new)?);
        }
        shared.crew.keep_to(&shared, shared.config.software_workers()).map_err(EngineError::new)?;
        let keyring_actor = KeyringActor::new(shared.clone(), audit_sender.clone(), loaded.inherited);
        let policy_actor = PolicyActor::new(shared.clone(), loaded.access_stamps, loaded.access_ended);
        let acme_actor = AcmeActor::new(shared.clone(), loaded.acme.stamps, loaded.acme.ended);
        let instances_actor =
            InstancesActor::new(shared.clone(), loaded.instances.stamps, loaded.instances.ended);
        let owners = (keyring_actor, policy_actor, acme_actor, instances_actor);
        let (system, actors, thread) =
            start_system(&shared, owners, lane, audit_sender).map_err(EngineError::new)?;
        let _set_once = shared.reserver.set(actors.keyring.clone().recipient());
        threads.push(thread);
        let retired_by = actors.audit.clone();
        let following = Following::start(&shared, &actors, followed_from)?;
        let gate = Gate::new(shared, actors);
        let audit_thread = audit_actor.start(gate.clone());
        threads.push(audit_thread.map_err(|e| EngineError::because("audit thread")(&e))?);
        let mut engine = Self {
            gate,
            system,
            threads,
            retention: None,
            rotations: None,
            authorities: None,
            validations: None,
            following,
        };
        engine.rotations =
            RotationThreads::start(&engine.gate).map_err(|e| EngineError::because("rotation threads")(&e))?;
        engine.authorities = Some(AuthorityTimer::start(&engine.gate));
        engine.validations = ValidationThreads::start(&engine.gate)
            .map_err(|e| EngineError::because("validation threads")(&e))?;
        engine.retention = Retention::start(engine.gate.inner().shared.clone(), retired_by)
            .map_err(|e| EngineError::because("audit retention thread")(&e))?;
        if let Some(writes) = accepted
            && let Err(why) = engine.finish_accepted(writes)
        {
            engine.stop();
            return Err(EngineError::new(format!("the acceptance of the store is not finished: {why}")));
        }
        if !loaded.needs_bootstrap {
            return Ok((engine, None));
        }
        if shared_by_others && founding.is_none() {
            engine.stop();
            let why = "other servers have used this store, and there is no access key in it: it was taken away, and is not made anew";
            return Err(EngineError::new(why));
        }
        match engine.bootstrap(tell) {
            Ok(bootstrap) => {
                drop(founding);
                Ok((engine, Some(bootstrap)))
            }
            Err(why) => {
                engine.stop();
                Err(EngineError::new(format!("bootstrap access key: {why}")))
            }
        }
    }

    /// Makes the first access key, tells it, then makes it and a record of it durable.
    fn bootstrap(&self, tell: &mut dyn FnMut(&Bootstrap) -> Result<(), String>) -> Result<Bootstrap, String> {
        let grant =
            Grant { effect: Effect::Allow, role: Role::Root.into(), resources: vec![ResourcePattern::All] };
        let key =
            fresh_access_key("bootstrap".into(), vec![grant], self.gate.now()).map_err(|e| e.to_string())?;
        let bootstrap = Bootstrap { id: key.id.clone(), secret: Sensitive::copied(key.secret.expose()) };
        tell(&bootstrap)?;
        let gate = self.gate.clone();
        self.block_on(async move {
            let made = gate.inner().actors.policy(AddAccessKey(key)).await?;
            let record = ManagementRecord {
                writes: made.writes,
                ..ManagementRecord::own(gate.request_id(), "CreateAccessKey", "first start")
            };
            gate.record(record).await?;
            gate.inner().actors.keyring(Found).await
        })
        .map_err(|error| format!("{error:?}"))?;
        Ok(bootstrap)
    }

    /// Has the audit say which records were accepted by an operator's word, and lets other nodes start once it does.
    fn finish_accepted(&self, writes: Vec<RecordStamp>) -> Result<(), String> {
        self.record_accepted(writes).map_err(|error| format!("{error:?}"))?;
        let shared = &self.gate.inner().shared;
        finish_accepting(&*shared.store, &shared.sealer).map_err(|error| format!("store: {error}"))
    }

    fn record_accepted(&self, writes: Vec<RecordStamp>) -> Result<()> {
        /// Records that one line names, at most.
        const AT_ONCE: usize = 1_024;
        let gate = self.gate.clone();
        self.block_on(async move {
            // Also where there is none: a history was accepted.
            let lines = writes.chunks(AT_ONCE).chain(writes.is_empty().then_some(&[][..]));
            for writes in lines {
                let record = ManagementRecord {
                    writes: writes.to_vec(),
                    ..ManagementRecord::own(gate.request_id(), "AcceptHistory", "--accept-history")
                };
                gate.record(record).await?;
            }
            Ok(())
        })
    }
}

/// Makes the node one of several, where it is to be: by its name, and in records that all of them can read.
fn join(
    config: &EngineConfig,
    node: &str,
    process: &str,
    store: &dyn Store,
    sealer: &RecordSealer,
    clock: &Clock,
) -> Result<Option<Cluster>, EngineError> {
    let Some(options) = config.cluster.clone() else { return Ok(None) };
    let node: NodeName = node.parse().map_err(|e| EngineError::because("engine.node")(&e))?;
    take_name(store, &node, process, options.lease)?;
    // All that is read from here on is at least as new as this.
    let cluster = Cluster::new(node, process.to_owned(), options, AsOf::now(clock));
    cluster.members.read(store, sealer, &cluster.node)?;
    check_formats(&cluster, store, sealer, Formats::OURS)?;
    Ok(Some(cluster))
}

/// Accepts the history of the store, by what the audit remembers of it.
fn accept_history(
    cluster: &Cluster,
    store: &dyn Store,
    sealer: &RecordSealer,
    (audit, keys): (&dyn AuditLog, &ChainKeys),
    now: Timestamp,
) -> Result<Option<Vec<RecordStamp>>, EngineError> {
    let remembered = remember::remember(audit, keys, Vec::new());
    let Remembered { stamps, witnesses, .. } =
        remembered.map_err(|e| EngineError::because("reading the audit log")(&e))?;
    accept(&cluster.node, store, sealer, (stamps, &*witnesses), now).map_err(EngineError::new)
}

/// Starts the system that the management actors run in, each on an arbiter of its own, since a store blocks.
fn start_system(
    shared: &Arc<Shared>,
    (keyring, policy, acme, instances): (KeyringActor, PolicyActor, AcmeActor, InstancesActor),
    lane: Arc<Lane<Caller, crate::actor::CustodyJob>>,
    audit: flume::Sender<AuditMessage>,
) -> Result<(actix::System, Actors, JoinHandle<()>), String> {
    let (sender, started) = flume::bounded(1);
    let shared = shared.clone();
    let run = move || {
        let runner = actix::System::new();
        let arbiters = std::array::from_fn::<_, 5, _>(|_| actix::Arbiter::new());
        let [keys, access, orders, control, pool] = &arbiters;
        let supervise = |token: &Arc<Token>| {
            let actor = TokenActor::new(shared.clone(), token.clone());
            TokenActor::start_in_arbiter(&pool.handle(), move |_| actor)
        };
        let actors = Actors {
            tokens: shared.pool.tokens.iter().map(supervise).collect(),
            keyring: KeyringActor::start_in_arbiter(&keys.handle(), move |_| keyring),
            policy: PolicyActor::start_in_arbiter(&access.handle(), move |_| policy),
            acme: AcmeActor::start_in_arbiter(&orders.handle(), move |_| acme),
            // As seldom asked as whoever owns access, and by the same people.
            instances: InstancesActor::start_in_arbiter(&access.handle(), move |_| instances),
            lane,
            audit,
            control: control.handle(),
        };
        let _gone = sender.send((actix::System::current(), actors));
        if let Err(error) = runner.run() {
            tracing::error!(%error, "the engine's system failed");
        }
        for arbiter in arbiters {
            arbiter.stop();
            let _panicked = arbiter.join();
        }
    };
    let thread = std::thread::Builder::new()
        .name("km-engine".into())
        .spawn(run)
        .map_err(|error| format!("engine thread: {error}"))?;
    let (system, actors) = started.recv().map_err(|_| "the engine's system did not start".to_owned())?;
    Ok((system, actors, thread))
}

/// `20261124T053017Z`, for names.
fn compact(now: Timestamp) -> String {
    now.to_string().replace(['-', ':'], "")
}
