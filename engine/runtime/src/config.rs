//! The engine's own options, with their defaults.

use std::num::NonZeroU64;
use std::time::Duration;

use keymill_core::id::InstanceId;
use keymill_core::instance::InstanceTerms;
use keymill_core::key::{BulkMode, ProtectionLevel};
use keymill_core::limit::MaxRecords;
use keymill_core::operation::Operation;
use keymill_core::quota::{Quota, Rate};

use crate::acme::AcmeConfig;
use crate::cluster::ClusterConfig;
use crate::logins::LoginConfig;
use crate::pool::PoolConfig;
use crate::quota::QuotaConfig;
use crate::rotation::{RotationConfig, Rotators};

/// Options of the engine.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// The instance that this engine serves.
    pub instance: InstanceId,
    /// Whether that is an instance of Dedicated KMS, whose id requests name and are told.
    pub is_dedicated: bool,
    /// Region and account in ARNs; they carry no meaning here.
    pub region: String,
    /// The account in ARNs.
    pub account: String,
    /// How long one arbiter works before it looks at its connections again.
    pub slice: Duration,
    /// Jobs that wait on one arbiter, at most; past that the answer is `Busy`.
    pub max_queued_jobs: usize,
    /// Bytes of requests and answers held over all connections, at most.
    pub max_buffered_bytes: usize,
    /// Subkeys kept for opening.
    pub subkey_cache: usize,
    /// Threads that use software keys where that would hold up an arbiter: private keys, and symmetric ones whose nonces are counted. Zero:
    /// as many as there are processors.
    pub software_workers: usize,
    /// Threads that generate software keys.
    pub key_workers: usize,
    /// Keys that wait to be generated, at most.
    pub key_queue: usize,
    /// How often use counts are written.
    pub usage_flush: Duration,
    /// How often deletions that are due are looked for.
    pub deletion_check: Duration,
    /// How far wall time may move against monotonic time before it counts as a jump.
    pub clock_jump: Duration,
    /// How long deletions rest after a jump of the clock.
    pub clock_jump_rest: Duration,
    /// Bytes of a frame or body and of an answer, at most.
    pub max_frame_bytes: usize,
    /// Requests in flight on one connection, at most.
    pub max_in_flight: usize,
    /// Whether requests are audited; off for measurements alone.
    pub audit: bool,
    /// When audit files are changed for new ones, and which are kept.
    pub audit_files: AuditFiles,
    /// The tokens' lanes.
    pub pool: PoolConfig,
    /// Where the material of a key lives for which nobody says.
    pub protection: ProtectionLevel,
    /// Where AES-GCM of an HSM key runs for which nobody says.
    pub bulk_mode: BulkMode,
    /// What callers and the instance may take.
    pub quota: QuotaConfig,
    /// How failed logins are throttled.
    pub login: LoginConfig,
    /// How much callers may make.
    pub max_records: MaxRecords,
    /// What it weighs beside other engines of the process where they share processors or tokens.
    pub weight: u32,
    /// What waits for a second caller.
    pub dual_control: Vec<Operation>,
    /// How secrets are rotated.
    pub rotation: RotationConfig,
    /// What certificate authorities do by themselves, and where they are known.
    pub authorities: AuthorityConfig,
    /// By what they are.
    pub rotators: Rotators,
    /// How ACME is offered, where it is.
    pub acme: Option<AcmeConfig>,
    /// How this node is one of several, where its store may be that of others, too.
    pub cluster: Option<ClusterConfig>,
}

/// What certificate authorities do by themselves, and where they are known.
#[derive(Clone, Debug)]
pub struct AuthorityConfig {
    /// The address below which the lists and answers of authorities are found, as certificates say: `http://pki.example.com`. None: they do not say.
    pub public_url: Option<String>,
    /// How often lists that are due and certificates that are to be renewed are looked for.
    pub check: Duration,
}

impl Default for AuthorityConfig {
    fn default() -> Self {
        Self { public_url: None, check: Duration::from_secs(30) }
    }
}

/// When audit files are changed for new ones, and which are kept.
#[derive(Clone, Debug)]
pub struct AuditFiles {
    /// Bytes after which a file is followed by another.
    pub rotate_bytes: u64,
    /// How long a file is written to before it is followed by another.
    pub rotate_age: Duration,
    /// How long after its last line a file is kept; `None`: for ever.
    pub keep_age: Option<Duration>,
    /// Bytes that all files may take before the oldest go; `None`: as the disk allows.
    pub keep_bytes: Option<u64>,
    /// How often it is looked which files are kept.
    pub check: Duration,
}

impl Default for AuditFiles {
    fn default() -> Self {
        Self {
            rotate_bytes: 256 << 20,
            rotate_age: Duration::from_secs(24 * 3600),
            keep_age: None,
            keep_bytes: None,
            check: Duration::from_secs(60),
        }
    }
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            instance: "default".parse().expect("the name is valid"),
            is_dedicated: false,
            region: "local".into(),
            account: "0".into(),
            slice: Duration::from_micros(100),
            max_queued_jobs: 65_536,
            max_buffered_bytes: 1 << 30,
            subkey_cache: 16_384,
            software_workers: 0,
            key_workers: 1,
            key_queue: 1_024,
            usage_flush: Duration::from_secs(10),
            deletion_check: Duration::from_secs(30),
            clock_jump: Duration::from_secs(3600),
            clock_jump_rest: Duration::from_secs(24 * 3600),
            max_frame_bytes: keymill_core::limit::MAX_FRAME_BYTES,
            max_in_flight: keymill_core::limit::MAX_IN_FLIGHT,
            audit: true,
            audit_files: AuditFiles::default(),
            pool: PoolConfig::default(),
            protection: ProtectionLevel::Software,
            bulk_mode: BulkMode::InHsm,
            quota: QuotaConfig::default(),
            login: LoginConfig::default(),
            max_records: MaxRecords::default(),
            weight: 1,
            dual_control: Vec::new(),
            rotation: RotationConfig::default(),
            authorities: AuthorityConfig::default(),
            acme: None,
            cluster: None,
            rotators: Rotators::default(),
        }
    }
}

/// What an instance may do and hold, and can be changed as it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ceilings {
    /// Of everything that it does.
    pub quota: Quota,
    /// How much its callers may make.
    pub max_records: MaxRecords,
    /// What it weighs beside others.
    pub weight: u32,
}

impl Ceilings {
    /// Returns the ceilings of an instance: rates are as its terms say, and what it may hold is at most what its installation may.
    pub fn of(terms: &InstanceTerms, installation: &EngineConfig) -> Self {
        // A second of each rate may come at once.
        let rate = |own: Option<NonZeroU64>| own.map(|per_second| Rate::new(per_second, per_second));
        let records = installation.max_records;
        let most = |own: Option<u64>, of_installation: usize| {
            own.map_or(of_installation, |own| usize::try_from(own).unwrap_or(usize::MAX).min(of_installation))
        };
        Self {
            quota: Quota {
                requests: rate(terms.requests_per_s),
                items: rate(terms.items_per_s),
                bytes: rate(terms.bytes_per_s),
            },
            max_records: MaxRecords {
                keys: most(terms.keys, records.keys),
                secrets: most(terms.secrets, records.secrets),
                certificates: most(terms.certificates, records.certificates),
                ..records
            },
            weight: terms.weight.unwrap_or(1),
        }
    }
}

impl EngineConfig {
    /// Returns the options of an instance of this installation. What the installation reaches for its own secrets, and offers to its own clients,
    /// is none of an instance's: it has no rotators and no ACME, and its certificates do not say where lists are.
    #[must_use]
    pub fn of_instance(&self, id: InstanceId, terms: &InstanceTerms) -> Self {
        let Ceilings { quota, max_records, weight } = Ceilings::of(terms, self);
        Self {
            instance: id,
            is_dedicated: true,
            software_workers: terms.workers(),
            key_workers: 1,
            quota: QuotaConfig { instance: quota, named: Vec::new(), ..self.quota.clone() },
            max_records,
            weight,
            rotators: Rotators::default(),
            // At one address there are the authorities of one engine, and others' may be called the same.
            authorities: AuthorityConfig { public_url: None, ..self.authorities.clone() },
            acme: None,
            ..self.clone()
        }
    }

    /// Returns the number of threads that use software keys.
    pub fn software_workers(&self) -> usize {
        match self.software_workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            workers => workers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_keeps_to_its_terms_and_has_nothing_of_what_its_installation_reaches() {
        let installation = EngineConfig {
            max_records: MaxRecords { keys: 10, ..MaxRecords::default() },
            authorities: AuthorityConfig {
                public_url: Some("http://pki.example.com".into()),
                ..AuthorityConfig::default()
            },
            ..EngineConfig::default()
        };
        let rate = NonZeroU64::new(7);
        let terms =
            InstanceTerms { keys: Some(11), secrets: Some(3), bytes_per_s: rate, ..Default::default() };
        let own = installation.of_instance("kst-1".parse().unwrap(), &terms);
        assert!(own.is_dedicated && own.authorities.public_url.is_none() && own.acme.is_none());
        // More than the installation there is not.
        assert_eq!((own.max_records.keys, own.max_records.secrets), (10, 3));
        let quota = own.quota.instance;
        assert!(quota.bytes.is_some() && quota.requests.is_none() && quota.items.is_none());
        assert_eq!(Ceilings::of(&terms, &installation).quota, quota);
    }
}
