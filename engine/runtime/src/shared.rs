//! What every part of one engine shares: snapshots, caches, the audit, the metrics. Nothing here waits for an actor.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use actix::Recipient;
use keymill_core::access::{
    AccessSnapshot, Caller, Decision, KeyPolicy, Principal, Question, Resource, decide,
};
use keymill_core::context::EncryptionContext;
use keymill_core::error::{Error, ErrorKind, Limit};
use keymill_core::id::{CmkId, NodeName, RequestId};
use keymill_core::instance::InstanceBook;
use keymill_core::key::{Cmk, KeySpec, KeyState, KeyVersionMaterial, ProtectionLevel};
use keymill_core::limit::{self, MaxRecords};
use keymill_core::operation::Operation;
use keymill_core::seam::auth::Authenticator;
use keymill_core::seam::provider::{CryptoProvider, KeyCustody, KeyHandle, PublicHalf, StoredKey};
use keymill_core::seam::store::{Entry, Path, Store, StoreError};
use keymill_crypto::epoch::EpochLimits;
use keymill_crypto::import::Fingerprints;
use keymill_crypto::login_token::LoginTokens;
use keymill_crypto::opening::SubkeyCache;
use keymill_crypto::record::{RecordSealer, tag_of};
use parking_lot::Mutex;

use crate::acme::AcmeBook;
use crate::actor::crew::Crew;
use crate::actor::keyring::Reserve;
use crate::audit::AuditHub;
use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::config::EngineConfig;
use crate::host::Hosting;
use crate::keyring::{CmkEntry, Keyring, VersionEntry};
use crate::lane::Lane;
use crate::logins::Logins;
use crate::metrics::Metrics;
use crate::nonces::KeptNonces;
use crate::pool::chunk::Chunk;
use crate::pool::{MAX_CHUNK, Pool};
use crate::quota::Quotas;
use crate::records::{self, EndedRecord, Kind};
use crate::rotation::RotationQueue;
use crate::snapshot::Published;
use crate::validation::ValidationQueue;
use crate::work::Fault;
use crate::work::Served;

/// What every part of one engine shares.
pub(crate) struct Shared {
    pub(crate) config: EngineConfig,
    pub(crate) clock: Clock,
    pub(crate) store: Arc<dyn Store>,
    /// Where this node is one of several on the store.
    pub(crate) cluster: Option<Cluster>,
    pub(crate) keyring: Keyring,
    pub(crate) nonces: KeptNonces,
    pub(crate) access: Published<AccessSnapshot>,
    /// Bumped after each publication of `access`.
    pub(crate) access_version: AtomicU64,
    /// What computes in this process.
    pub(crate) provider: Arc<dyn CryptoProvider>,
    pub(crate) custody: Mutex<Box<dyn KeyCustody>>,
    /// The tokens, if there are any.
    pub(crate) pool: Pool,
    /// The lane in front of the threads that use software keys where that takes long, or is counted.
    pub(crate) software: Lane<Caller, Box<Chunk>>,
    /// Those threads.
    pub(crate) crew: Crew,
    /// Has invocations of a key version reserved; set once the keyring actor runs.
    pub(crate) reserver: OnceLock<Recipient<Reserve>>,
    pub(crate) authenticators: HashMap<&'static str, Box<dyn Authenticator>>,
    pub(crate) sealer: RecordSealer,
    pub(crate) fingerprints: Fingerprints,
    pub(crate) login_tokens: LoginTokens,
    pub(crate) subkeys: SubkeyCache,
    pub(crate) epoch_limits: EpochLimits,
    pub(crate) audit: Arc<AuditHub>,
    pub(crate) metrics: Metrics,
    /// What callers and the instance may take.
    pub(crate) quotas: Quotas,
    /// Logins that failed, and who logged in.
    pub(crate) logins: Logins,
    /// Accounts and orders of ACME.
    pub(crate) acme: AcmeBook,
    /// The instances of the installation; an instance has none.
    pub(crate) instances: Published<InstanceBook>,
    /// Runs them, where the program has any.
    pub(crate) hosting: Hosting,
    /// How much callers may make; of an instance it changes as it runs.
    pub(crate) max_records: Published<MaxRecords>,
    /// What the engine weighs beside others on an arbiter; of an instance it changes as it runs.
    pub(crate) weight: Arc<AtomicU32>,
    /// Whether nothing is taken any more: the instance is being released.
    pub(crate) is_closed: AtomicBool,
    /// Proofs that are to be looked for.
    pub(crate) validations: ValidationQueue,
    /// Rotations that wait for a thread.
    pub(crate) rotations: RotationQueue,
    /// Bytes of requests and answers held over all connections.
    pub(crate) buffered: Arc<AtomicUsize>,
    pub(crate) request_ids: RequestIds,
    /// Records that failed their check at the start.
    pub(crate) quarantined: usize,
    /// Why the store refuses writes, if it does; for `/readyz`.
    pub(crate) store_trouble: Mutex<Option<String>>,
    /// When it was last logged that a key is used that waits for its deletion, in milliseconds since 1970.
    pub(crate) pending_uses_logged: Mutex<HashMap<CmkId, u64>>,
}

impl Shared {
    /// Checks that requests are taken.
    ///
    /// # Errors
    /// `Unavailable` where the instance is being released.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match self.is_closed() {
            true => Err(Error::new(ErrorKind::Unavailable, "the instance is being released")),
            false => Ok(()),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Has nothing taken and nothing kept any more.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Release);
    }

    /// Takes it back.
    pub(crate) fn reopen(&self) {
        self.is_closed.store(false, Ordering::Release);
    }

    /// Returns where keys live of which nobody says it: of an instance that has no token, in software.
    pub(crate) fn protection(&self) -> ProtectionLevel {
        match self.config.is_dedicated && self.pool.is_empty() {
            true => ProtectionLevel::Software,
            false => self.config.protection,
        }
    }

    /// Checks that one more of a kind may be made.
    ///
    /// # Errors
    /// `LimitExceeded` where there are as many as there may be.
    pub(crate) fn check_room(&self, limit: Limit) -> Result<(), Error> {
        let max = self.max_records.read();
        let (count, max) = match limit {
            Limit::Keys => (self.keyring.len(), max.keys),
            Limit::Aliases => (self.keyring.alias_count(), max.aliases),
            Limit::DataKeys => (self.keyring.data_key_count(), max.data_keys),
            Limit::Secrets => (self.keyring.secrets.len(), max.secrets),
            Limit::AccessRecords => (self.access.read().access_keys.len(), max.access_keys),
            _ => return Ok(()),
        };
        limit::check_room(count, max, limit)
    }

    /// Tells whether `principal`, who asks from `source`, may do `operation` on `resource`, by what is published now.
    pub(crate) fn decide(
        &self,
        principal: &Principal,
        source: Option<IpAddr>,
        operation: Operation,
        resource: Resource<'_>,
    ) -> Decision {
        self.decide_under(principal, source, operation, resource, None)
    }

    /// The same for what is to be done under an encryption context.
    pub(crate) fn decide_under(
        &self,
        principal: &Principal,
        source: Option<IpAddr>,
        operation: Operation,
        resource: Resource<'_>,
        context: Option<&EncryptionContext>,
    ) -> Decision {
        let policy = match resource {
            Resource::Key(id) => self.keyring.policy(&id),
            // To make one is no right to the one that is there.
            Resource::Secret(name) if operation.is_right_to_a_secret() => self.keyring.secrets.policy(name),
            _ => None,
        };
        let spec = policy.as_ref().and_then(|policy| self.spec_for(policy, resource));
        let now = self.clock.now();
        let asked = Question { principal, operation, resource, source, now, spec, context };
        decide(&self.access.read(), &asked, policy.as_ref())
    }

    /// Returns the specification of a key, where its policy reads it.
    pub(crate) fn spec_for(&self, policy: &KeyPolicy, resource: Resource<'_>) -> Option<KeySpec> {
        match resource {
            Resource::Key(id) if policy.reads_spec() => Some(self.keyring.cmk(&id)?.cmk.spec),
            _ => None,
        }
    }

    /// Checks that a key may be used now. That somebody would use one that waits for its deletion is an alarm: it is counted, and for each
    /// key it is logged at most once a minute.
    ///
    /// # Errors
    /// As of [`KeyState::check_usable`](keymill_core::key::KeyState::check_usable).
    pub(crate) fn check_usable(&self, cmk: &Cmk) -> Result<(), Error> {
        const PAUSE_MS: u64 = 60_000;
        const LOGGED_KEYS: usize = 1_024;
        if cmk.state == KeyState::PendingDeletion {
            self.metrics.pending_uses.inc();
            let now = self.clock.now().as_ms();
            let mut logged = self.pending_uses_logged.lock();
            if logged.len() >= LOGGED_KEYS {
                logged.clear();
            }
            let last = logged.get(&cmk.id).copied();
            if last.is_none_or(|last| now.abs_diff(last) >= PAUSE_MS) {
                logged.insert(cmk.id, now);
                drop(logged);
                let delete_at = cmk.delete_at.map(|at| at.to_string()).unwrap_or_default();
                tracing::warn!(key = %cmk.id, delete_at, "a key that waits for its deletion is still asked for");
            }
        }
        cmk.state.check_usable()
    }

    /// Returns the loaded software key of a version, or the software copy of one in a token, loading it on first use.
    pub(crate) fn handle(&self, entry: &CmkEntry, version: &VersionEntry) -> Result<KeyHandle, Fault> {
        let mut slot = version.in_use().handle.lock();
        if let Some(handle) = &*slot {
            return Ok(handle.clone());
        }
        let material = self.material(entry, version)?;
        let stored = match entry.cmk.protection {
            ProtectionLevel::Software => material.key,
            // Asked here once more: whatever led here, a key that does not allow it is not served by software.
            ProtectionLevel::Hsm => match material.copy.filter(|_| !entry.cmk.fallback.is_never()) {
                Some(copy) => copy,
                None => return Err(Error::internal("a key of the tokens has no software copy").into()),
            },
        };
        let handle = self.custody.lock().load(&stored).map_err(|e| Fault::from(Error::from(e)))?;
        // A key that was disabled meanwhile is used by nobody, so nothing is kept for it.
        if entry.is_current() {
            *slot = Some(handle.clone());
        }
        Ok(handle)
    }

    /// Returns the public half of a version of a key pair, decoding it on first use. It is no secret, so that nothing forgets it.
    pub(crate) fn public_half(
        &self,
        entry: &CmkEntry,
        version: &VersionEntry,
    ) -> Result<Arc<dyn PublicHalf>, Fault> {
        if let Some(half) = version.if_used().and_then(|in_use| in_use.public.get()) {
            return Ok(half.clone());
        }
        let stored = self.stored_key(entry, version)?;
        let public = stored.public_key.ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "the public half of the key is not known here")
        })?;
        let half = self.provider.public_half(stored.spec, &public).map_err(Error::from)?;
        Ok(version.in_use().public.get_or_init(|| half).clone())
    }

    /// Returns how many sealed items a chunk of a key should hold.
    pub(crate) fn chunk_items(&self, cmk: &Cmk) -> usize {
        match cmk.protection {
            ProtectionLevel::Software => MAX_CHUNK,
            ProtectionLevel::Hsm => self.pool.chunk_items(),
        }
    }

    /// Returns the longest text that can be sealed or opened with a key, in bytes.
    pub(crate) fn max_item_bytes(&self, cmk: &Cmk) -> usize {
        match cmk.protection {
            ProtectionLevel::Software => usize::MAX,
            ProtectionLevel::Hsm => self.pool.max_item_bytes(),
        }
    }

    /// Lists the names of providers, as audit records have them.
    pub(crate) fn provider_names<'s>(&'s self, served: Served, out: &mut Vec<&'s str>) {
        let tokens = self.pool.tokens.iter().map(|token| &*token.config.name);
        served.names(tokens, self.provider.profile().name, out);
    }

    /// Returns how many chunks of one job may be under way.
    pub(crate) fn window(&self) -> usize {
        self.pool.window().max(4 * self.software.sessions())
    }

    /// Reads the stored key of a version, whose record is checked by its seal.
    pub(crate) fn stored_key(&self, entry: &CmkEntry, version: &VersionEntry) -> Result<StoredKey, Fault> {
        self.material(entry, version).map(|material| material.key)
    }

    fn material(&self, entry: &CmkEntry, version: &VersionEntry) -> Result<KeyVersionMaterial, Fault> {
        let path = records::material_path(&entry.cmk.id, version.number);
        let stored = self.stored(&path).map_err(Error::from)?;
        // The store is not trusted: what the audit remembers was compared with the record that was there at the start, or was written since.
        let known =
            stored.filter(|stored| version.material.is_some() && tag_of(&stored.value) == version.material);
        if known.is_none() {
            self.check_in_place(entry)?;
        }
        let damaged = |why: &str| {
            tracing::error!(key = %entry.cmk.id, version = version.number, why, "key material is damaged");
            Fault::from(Error::new(ErrorKind::Quarantined, "the stored key material failed its check"))
        };
        let stored = known.ok_or_else(|| damaged("the record is missing, or another"))?;
        let material = records::open_material(&self.sealer, &entry.cmk.id, version.number, &stored.value)
            .map_err(|error| damaged(&error.to_string()))?;
        if material.id != version.id {
            return Err(
                Error::new(ErrorKind::Quarantined, "the stored key material is of another version").into()
            );
        }
        Ok(material)
    }

    /// Checks that what was published of a key is what stands in the store, so that material that is not there is missing.
    fn check_in_place(&self, entry: &CmkEntry) -> Result<(), Error> {
        match self.stored(&records::cmk_path(&entry.cmk.id))? {
            // It went with its key, which whoever has just found that may still use.
            None => Err(Error::key_not_found()),
            Some(stored) if self.cluster.is_some() && stored.revision > entry.stamp.revision => {
                let why = "another node is changing the key: ask again";
                Err(Error::new(ErrorKind::Conflict, why).retry_after_ms(100))
            }
            Some(_) => Ok(()),
        }
    }

    /// Reads a record; `None` where there is none, or what was there has ended.
    ///
    /// # Errors
    /// As of [`Store::get`].
    pub(crate) fn stored(&self, path: &Path) -> Result<Option<Entry>, StoreError> {
        let has_ended = |stored: &Entry| {
            let opened =
                || records::open::<EndedRecord>(&self.sealer, path, Kind::Ended, &stored.value).is_ok();
            records::says_ended(&stored.value) && opened()
        };
        Ok(self.store.get(path)?.filter(|stored| !has_ended(stored)))
    }

    /// Returns the name of this node, where it is one of several.
    pub(crate) fn node(&self) -> Option<&NodeName> {
        self.cluster.as_ref().map(|cluster| &cluster.node)
    }

    /// Checks that keys may be used, and rights relied on: what other nodes have changed is known here.
    ///
    /// # Errors
    /// `Unavailable` where it may not be.
    pub(crate) fn check_view(&self) -> Result<(), Error> {
        self.cluster.as_ref().map_or(Ok(()), |cluster| cluster.view.check(&self.clock))
    }

    /// Tells whether this node does what is done by the clock.
    pub(crate) fn keeps_time(&self) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| {
            cluster.tenure.is_held(&self.clock) && cluster.view.check(&self.clock).is_ok()
        })
    }

    /// Returns the limits of the sealing epochs of a key.
    pub(crate) fn epoch_limits(&self, entry: &CmkEntry) -> EpochLimits {
        match entry.cmk.protection {
            ProtectionLevel::Software => self.epoch_limits,
            ProtectionLevel::Hsm => self.pool.epoch_limits(),
        }
    }

    /// Forgets everything that was computed from a key's material.
    pub(crate) fn forget(&self, entry: &CmkEntry) {
        self.pool.forget(entry);
        for version in &entry.versions {
            let Some(in_use) = version.if_used() else { continue };
            in_use.epoch.clear();
            self.subkeys.evict_version(&version.id);
            if let Some(handle) = in_use.handle.lock().take()
                && let Err(error) = self.custody.lock().unload(handle)
            {
                tracing::warn!(%error, "unloading a key failed");
            }
        }
    }
}

/// Gives ids to requests: unique, not secret, and cheap.
pub(crate) struct RequestIds {
    base: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new(base: u64) -> Self {
        Self { base, next: AtomicU64::new(0) }
    }

    pub(crate) fn next(&self) -> RequestId {
        let n = self.next.fetch_add(1, Ordering::Relaxed);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.base.to_be_bytes());
        // A bijection of the count (odd multiplier), so that ids do not look like neighbours.
        bytes[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
        // Version and variant (RFC 9562 §5.8) take six bits; the two that belong to the count move to byte 7.
        bytes[6] = 0x80 | bytes[6] & 0x0f;
        bytes[7] = bytes[7] & 0xfc | bytes[8] >> 6;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        RequestId::from_bytes(bytes)
    }
}
