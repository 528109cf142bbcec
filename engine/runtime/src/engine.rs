//! The engine as a whole: builds the actors from the parts that plugins gave, owns their lives, hands out the gate.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use actix::Actor;
use keymill_core::Sensitive;
use keymill_core::access::{Caller, Effect, Grant, ResourcePattern, Role};
use keymill_core::audit::RecordStamp;
use keymill_core::error::{Error, ErrorKind, Result};
use keymill_core::id::{AccessKeyId, NodeName};
use keymill_core::instance::{InstanceBook, Stage};
use keymill_core::seam::audit::AuditLog;
use keymill_core::seam::auth::Authenticator;
use keymill_core::seam::provider::CryptoProvider;
use keymill_core::seam::store::{Revision, Store};
use keymill_crypto::audit::ChainKeys;
use keymill_crypto::derived::{DerivedKeys, cmac_pair};
use keymill_crypto::epoch::EpochLimits;
use keymill_crypto::import::Fingerprints;
use keymill_crypto::login_token::LoginTokens;
use keymill_crypto::opening::SubkeyCache;
use keymill_crypto::record::RecordSealer;
use keymill_crypto::root::RootKeys;
use keymill_crypto::{digest, random};
use tokio::sync::oneshot;

use crate::acme::AcmeBook;
use crate::actor::acme::AcmeActor;
use crate::actor::instances::InstancesActor;
use crate::actor::keyring::{FlushUsage, Found, KeyringActor};
use crate::actor::policy::{AddAccessKey, PolicyActor, fresh_access_key};
use crate::actor::{Actors, AuditActor, CustodyActor, TokenActor};
use crate::audit::{AuditHub, AuditMessage, DeskChain, MANAGEMENT, ManagementChain, ManagementRecord};
use crate::authorities::AuthorityTimer;
use crate::clock::Clock;
use crate::cluster::{
    AsOf, Cluster, Follower, Founding, Herald, Member, accept, check_formats, check_history, take_name,
};
use crate::config::EngineConfig;
use crate::ending::Ending;
use crate::gate::Gate;
use crate::host::{self, Hosting, InstanceHost};
use crate::keyring::Keyring;
use crate::lane::Lane;
use crate::load;
use crate::logins::Logins;
use crate::metrics::Metrics;
use crate::nonces::KeptNonces;
use crate::pool::token::Token;
use crate::pool::{MAX_CHUNK, Pool, TokenPart};
use crate::quota::Quotas;
use crate::records::Formats;
use crate::remember::{self, Remembered};
use crate::retention::Retention;
use crate::rotation::{RotationQueue, RotationThreads};
use crate::shared::{RequestIds, Shared};
use crate::snapshot::Published;
use crate::validation::{ValidationQueue, ValidationThreads};

/// What an engine is made of.
pub struct Parts {
    /// Its options.
    pub config: EngineConfig,
    /// Its clock.
    pub clock: Clock,
    /// Where records are kept.
    pub store: Arc<dyn Store>,
    /// What computes.
    pub provider: Arc<dyn CryptoProvider>,
    /// Who checks credentials.
    pub authenticators: Vec<Box<dyn Authenticator>>,
    /// Where audit chains are kept.
    pub audit: Arc<dyn AuditLog>,
    /// The tokens, if there are any.
    pub tokens: Vec<TokenPart>,
    /// The root of trust.
    pub root: Root,
    /// The name of this node in the audit.
    pub node: String,
}

/// The root of trust: what the engine's own keys are derived by.
pub enum Root {
    /// Keys in this process.
    Keys(RootKeys),
    /// The root MAC key in a token: returns CMAC(key, messages\[0\]) ‖ CMAC(key, messages\[1\]); why not, else.
    Token(DeriveInToken),
}

/// Computes two CMACs by the root MAC key of a token.
pub type DeriveInToken = Box<dyn FnMut([[u8; 16]; 2]) -> std::result::Result<Sensitive, String> + Send>;

impl Root {
    fn derive(&mut self, messages: [[u8; 16]; 2]) -> std::result::Result<Sensitive, String> {
        match self {
            Root::Keys(keys) => Ok(cmac_pair(&keys.mac, messages)),
            Root::Token(derive) => derive(messages),
        }
    }
}

impl From<RootKeys> for Root {
    fn from(keys: RootKeys) -> Self {
        Self::Keys(keys)
    }
}

/// The access key that a first start makes; its secret is shown once.
pub struct Bootstrap {
    /// The id.
    pub id: AccessKeyId,
    /// The secret.
    pub secret: Sensitive,
}

/// Why an engine does not start.
#[derive(Debug)]
pub struct EngineError(pub String);

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for EngineError {}

impl EngineError {
    fn because(what: &'static str) -> impl Fn(&dyn fmt::Display) -> Self {
        move |why| Self(format!("{what}: {why}"))
    }
}

/// How long the threads of tokens may take to end; one in a call that does not return is left behind.
const POOL_ENDS_WITHIN: Duration = Duration::from_secs(3);

/// A running engine.
pub struct Engine {
    gate: Gate,
    system: actix::System,
    threads: Vec<JoinHandle<()>>,
    /// Removes audit files whose time is over, where any ever is.
    retention: Option<Retention>,
    /// Rotates secrets, where there is a rotator.
    rotations: Option<RotationThreads>,
    /// Look for proofs of ACME, where that is offered.
    validations: Option<ValidationThreads>,
    /// Makes what certificate authorities owe.
    authorities: Option<AuthorityTimer>,
    /// Knows of other nodes, where there may be any.
    following: Option<Following>,
}

/// What makes a node one of several.
struct Following {
    follower: Follower,
    member: Member,
    herald: Herald,
}

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
            .map_err(|e| EngineError::because("root")(&e))?;
        let sealer = RecordSealer::new(&derived.storage).map_err(|e| EngineError::because("root")(&e))?;
        let keys = ChainKeys::new(&derived.audit, &derived.audit_signing)
            .map_err(|e| EngineError::because("audit keys")(&e))?;
        let store_failed = EngineError::because("store");

        let random = |what| move |e: random::RandomFailed| EngineError(format!("{what}: {e}"));
        let tag: [u8; 4] = random::array().map_err(random("audit chain name"))?;
        let process = format!("{}-{}", compact(clock.now()), digest::hex(&tag));
        let cluster = config.cluster.clone().map(|cluster| {
            let node: NodeName = node.parse().map_err(|e| EngineError::because("engine.node")(&e))?;
            take_name(&*store, &node, &process, cluster.lease).map_err(EngineError)?;
            // All that is read from here on is at least as new as this.
            Ok(Cluster::new(node, process.clone(), cluster, AsOf::now(&clock)))
        });
        let cluster = cluster.transpose()?;
        if let Some(cluster) = &cluster {
            cluster.members.read(&*store, &sealer, &cluster.node).map_err(|e| store_failed(&e))?;
            check_formats(cluster, &*store, &sealer, Formats::OURS).map_err(EngineError)?;
        }
        let mut accepted = Vec::new();
        if let Some(cluster) = cluster.as_ref().filter(|cluster| cluster.config.accept_history) {
            let failed = EngineError::because("reading the audit log");
            let Remembered { stamps, witnesses, .. } =
                remember::remember(&*audit, &keys, Vec::new()).map_err(|e| failed(&e))?;
            let remembered = (stamps, &*witnesses);
            accepted =
                accept(&cluster.node, &*store, &sealer, remembered, clock.now()).map_err(EngineError)?;
        }
        let founding = cluster.as_ref().map(|_| Founding::begin(&*store, &process)).transpose();
        let founding = founding.map_err(EngineError)?.flatten();
        let shared_by_others = cluster.is_some();
        let followed_from = store.revision().map_err(|e| store_failed(&e))?;
        let node_name = cluster.as_ref().map(|cluster| cluster.node.clone());
        let (heads, unopened) =
            remember::stored_heads(&*store, &sealer, node_name.as_ref()).map_err(|e| store_failed(&e))?;
        let keyring = Keyring::default();
        // Both may be long, and neither needs the other.
        let (remembered, read) = std::thread::scope(|scope| {
            let read = scope.spawn(|| load::read(&*store, &sealer, &keyring));
            let remembered = remember::remember(&*audit, &keys, heads);
            (remembered, read.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let remembered = remembered.map_err(|e| EngineError::because("reading the audit log")(&e))?;
        if let Some(cluster) = &cluster {
            check_history(cluster, &*store, &sealer, &clock, &remembered.witnesses).map_err(EngineError)?;
        }
        let read = read.map_err(|e| store_failed(&e))?;
        let loaded = load::judge_all(&*store, &sealer, read, remembered.stamps, &keyring, node_name.as_ref())
            .map_err(|e| store_failed(&e))?;
        let nonces = KeptNonces::load(&*store).map_err(|e| store_failed(&e))?;
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
        let chain = DeskChain::open(&hub, MANAGEMENT).map_err(|e| EngineError::because("audit log")(&e))?;
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
            threads.push(CustodyActor::start(&shared, &lane, number).map_err(EngineError)?);
        }
        shared.crew.keep_to(&shared, shared.config.software_workers()).map_err(EngineError)?;
        let keyring_actor = KeyringActor::new(shared.clone(), audit_sender.clone(), loaded.inherited);
        let policy_actor = PolicyActor::new(shared.clone(), loaded.access_stamps, loaded.access_ended);
        let acme_actor = AcmeActor::new(shared.clone(), loaded.acme.stamps, loaded.acme.ended);
        let instances_actor =
            InstancesActor::new(shared.clone(), loaded.instances.stamps, loaded.instances.ended);
        let owners = (keyring_actor, policy_actor, acme_actor, instances_actor);
        let (system, actors, thread) =
            start_system(&shared, owners, lane, audit_sender).map_err(EngineError)?;
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
        if let Err(error) = engine.record_accepted(accepted) {
            engine.stop();
            return Err(EngineError(format!("the acceptance of the store cannot be recorded: {error:?}")));
        }
        if !loaded.needs_bootstrap {
            return Ok((engine, None));
        }
        if shared_by_others && founding.is_none() {
            engine.stop();
            let why = "other servers have used this store, and there is no access key in it: it was taken away, and is not made anew";
            return Err(EngineError(why.to_owned()));
        }
        match engine.bootstrap(tell) {
            Ok(bootstrap) => {
                drop(founding);
                Ok((engine, Some(bootstrap)))
            }
            Err(why) => {
                engine.stop();
                Err(EngineError(format!("bootstrap access key: {why}")))
            }
        }
    }

    /// Returns the way in.
    pub fn gate(&self) -> Gate {
        self.gate.clone()
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

    /// Has the audit say which records were accepted by an operator's word.
    fn record_accepted(&self, writes: Vec<RecordStamp>) -> Result<()> {
        /// Records that one line names, at most.
        const AT_ONCE: usize = 1_024;
        let gate = self.gate.clone();
        self.block_on(async move {
            for writes in writes.chunks(AT_ONCE) {
                let record = ManagementRecord {
                    writes: writes.to_vec(),
                    ..ManagementRecord::own(gate.request_id(), "AcceptHistory", "--accept-history")
                };
                gate.record(record).await?;
            }
            Ok(())
        })
    }

    /// Runs a future on the control arbiter and waits for it on this thread.
    fn block_on<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let answer = self.spawn(future).recv();
        answer.unwrap_or_else(|_| Err(Error::internal("the engine is shutting down")))
    }

    /// Runs a future on the control arbiter.
    fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> flume::Receiver<Result<T>> {
        let (sender, receiver) = flume::bounded(1);
        self.gate.inner().actors.control.spawn(async move {
            let _gone = sender.send(future.await);
        });
        receiver
    }

    /// Has instances run by `host`, and starts those that there are; one that does not start is told of, and tried again from time to time. One whose
    /// release was cut short is released.
    pub fn host(&self, host: Arc<dyn InstanceHost>) {
        let shared = &self.gate.inner().shared;
        shared.hosting.set(host.clone());
        let book = shared.instances.read().clone();
        for instance in book.instances() {
            let outcome = match instance.stage {
                Stage::Made => {
                    host::start(shared, instance);
                    Ok(())
                }
                Stage::Begun => {
                    Err(Error::new(ErrorKind::InstanceState, "it was never made whole: release it"))
                }
                Stage::Ending => {
                    let (gate, id) = (self.gate.clone(), instance.id.clone());
                    self.block_on(async move { gate.end_released(id).await })
                }
            };
            if let Err(error) = outcome {
                tracing::error!(instance = %instance.id, ?error, "an instance does not run");
            }
        }
        shared.hosting.bump();
    }

    /// Starts no instance any more that has not started.
    pub fn end_hosting(&self) {
        self.gate.inner().shared.hosting.end();
    }

    /// Ends the engine of an instance whose frontends go on: from now on everything is refused, what was taken is finished first.
    pub fn end(self) {
        self.gate.inner().shared.close();
        for arbiter in self.gate.take_arbiters() {
            let stopped = self.block_on(async move {
                arbiter.stop().await;
                Ok(())
            });
            if let Err(error) = stopped {
                tracing::error!(?error, "a desk of a released instance was not closed");
            }
        }
        self.stop();
    }

    /// Writes what is to be kept, closes the audit chains, and stops. Frontends are stopped before.
    pub fn stop(mut self) {
        let gate = self.gate.clone();
        // First: what they are at is kept by the others.
        if let Some(rotations) = self.rotations.take() {
            rotations.stop();
        }
        if let Some(validations) = self.validations.take() {
            validations.stop();
        }
        if let Some(authorities) = self.authorities.take() {
            authorities.stop();
        }
        let shared = gate.inner().shared.clone();
        let mut ending = Ending::begin(&shared);
        let flushed = match ending.is_store_away() {
            true => None,
            false => {
                let flushing = self.spawn(async move { gate.inner().actors.keyring(FlushUsage).await });
                ending.wait(&flushing)
            }
        };
        // Of an instance that is released nothing is kept.
        if !self.gate.is_closed() {
            match flushed {
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::error!(?error, "use counts could not be written"),
                None => tracing::error!("use counts could not be written: the store is away"),
            }
        }
        if let Some(retention) = self.retention {
            retention.stop();
        }
        for desk in self.gate.take_desks() {
            desk.close();
        }
        let (sender, stopped) = oneshot::channel();
        // The chains end whatever the store does; who writes them asks nothing of it any more where it is away.
        let _seen = ending.is_store_away();
        if self.gate.inner().actors.audit.send(AuditMessage::Stop(sender)).is_ok() {
            let _gone = stopped.blocking_recv();
        }
        if let Err(error) = self.gate.inner().shared.audit.log().close() {
            tracing::error!(%error, "audit log");
        }
        // Until here others must not take what is ours.
        ending.settle();
        if let Some(Following { follower, member, herald }) = self.following {
            match ending.is_store_away() {
                false => {
                    ending.join(herald.stop());
                    ending.join(follower.stop());
                    ending.join(member.stop());
                }
                true => {
                    let threads = [herald.stop(), follower.stop(), member.stop()];
                    threads.into_iter().for_each(|thread| ending.join(thread));
                }
            }
        }
        self.gate.inner().actors.lane.close();
        self.gate.inner().shared.software.close();
        self.gate.inner().shared.pool.end(POOL_ENDS_WITHIN);
        self.gate.inner().shared.crew.join();
        self.system.stop();
        self.threads.into_iter().for_each(|thread| ending.join(thread));
    }
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
fn compact(now: keymill_core::Timestamp) -> String {
    now.to_string().replace(['-', ':'], "")
}
