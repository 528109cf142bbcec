//! The sections of the configuration, and their defaults: those of the crates that they configure, so that none is said twice.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use keymill_runtime::{AuditFiles, EngineConfig};
use serde::{Deserialize, Serialize};

use super::tls::TlsSection;
use super::{EtcdConfig, PostgresConfig, SyslogConfig};

/// What is logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogConfig {
    /// A filter as tracing-subscriber has it; `KEYMILL_LOG` comes before it.
    pub(crate) filter: String,
}

/// The process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ProcessConfig {
    /// Whether memory is kept out of swap, where the system allows that.
    pub(crate) lock_memory: bool,
}

/// The root of trust.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RootConfig {
    /// Which kind.
    pub(crate) kind: RootKind,
    /// Options of the kind `file`.
    pub(crate) file: RootFileConfig,
}

/// Where the root keys live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum RootKind {
    /// In a file.
    #[default]
    File,
    /// In the tokens of the pool.
    Pkcs11,
}

/// Options of the root file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RootFileConfig {
    /// The file.
    pub(crate) path: Option<PathBuf>,
}

/// Where records are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreConfig {
    /// Which plugin.
    pub(crate) kind: StoreKind,
    /// Options of the kind `sqlite`.
    pub(crate) sqlite: SqliteConfig,
    /// Options of the kind `etcd`.
    pub(crate) etcd: EtcdConfig,
    /// Options of the kind `postgres`.
    pub(crate) postgres: PostgresConfig,
}

/// The plugins that keep records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StoreKind {
    /// `store-sqlite`
    #[default]
    Sqlite,
    /// `store-etcd`
    Etcd,
    /// `store-postgres`
    Postgres,
}

/// Options of the embedded store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SqliteConfig {
    /// Removals that a watch can still be told of.
    pub(crate) kept_removals: u32,
    /// Pages of 4,096 bytes that the database may grow to; without it, as the disk allows.
    pub(crate) max_pages: Option<u32>,
}

/// Where the audit is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AuditConfig {
    /// Which plugin.
    pub(crate) kind: AuditKind,
    /// Bytes after which a file is followed by another.
    pub(crate) rotate_bytes: u64,
    /// Seconds after which a file is followed by another.
    pub(crate) rotate_age_s: u64,
    /// Seconds that a file is kept after its last line; without it, for ever.
    pub(crate) keep_age_s: Option<u64>,
    /// Bytes that all files may take before the oldest go; without it, as the disk allows.
    pub(crate) keep_bytes: Option<u64>,
    /// Options of the kind `file`.
    pub(crate) file: AuditFileConfig,
    /// The syslog server that lines are sent to beside the file, where there is one.
    pub(crate) syslog: Option<SyslogConfig>,
}

/// The plugins that keep the audit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum AuditKind {
    /// `audit-file`
    #[default]
    File,
}

/// Options of the audit in files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AuditFileConfig {
    /// The directory.
    pub(crate) directory: Option<PathBuf>,
    /// Bytes held back for the time after the disk has filled.
    pub(crate) reserve_bytes: u64,
}

/// What computes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ProviderConfig {
    /// Which plugin.
    pub(crate) kind: ProviderKind,
}

/// The plugins that compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProviderKind {
    /// `provider-software`
    #[default]
    Software,
}

/// The HTTP listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HttpConfig {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Worker threads; without it, one a core.
    pub(crate) workers: Option<usize>,
    /// Connections, at most.
    pub(crate) max_connections: usize,
    /// TLS, where it is on.
    pub(crate) tls: Option<TlsSection>,
    /// Milliseconds from the first byte of a head to its last.
    pub(crate) head_timeout_ms: u64,
    /// Milliseconds from the head of a request to the last byte of its body.
    pub(crate) body_timeout_ms: u64,
    /// Milliseconds that a connection may stay without a request.
    pub(crate) keep_alive_ms: u64,
    /// Milliseconds that a client may leave its answers unread.
    pub(crate) write_timeout_ms: u64,
    /// Milliseconds that a shutdown waits for answers to be written.
    pub(crate) drain_timeout_ms: u64,
    /// Signed requests of one access key that are remembered against replays, at most.
    pub(crate) max_nonces: usize,
}

/// The MessagePack TCP listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MsgpackConfig {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Worker threads; without it, two a core.
    pub(crate) workers: Option<usize>,
    /// Connections, at most.
    pub(crate) max_connections: usize,
    /// TLS, where it is on.
    pub(crate) tls: Option<TlsSection>,
    /// Milliseconds from the accept to the last byte of the hello.
    pub(crate) hello_timeout_ms: u64,
    /// Milliseconds that a client may leave its answers unread.
    pub(crate) write_timeout_ms: u64,
    /// Milliseconds that a shutdown waits for answers to be written.
    pub(crate) drain_timeout_ms: u64,
}

/// The engine, as a file names its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct EngineOptions {
    /// The instance that is served; the keys of its records are derived from the name.
    pub(crate) instance: String,
    /// The name of this node in the audit.
    pub(crate) node: String,
    /// The region in ARNs.
    pub(crate) region: String,
    /// The account in ARNs.
    pub(crate) account: String,
    /// Microseconds that one arbiter works before it looks at its connections again.
    pub(crate) slice_us: u64,
    /// Jobs that wait on one arbiter, at most.
    pub(crate) max_queued_jobs: usize,
    /// Bytes of requests and answers held over all connections, at most.
    pub(crate) max_buffered_bytes: usize,
    /// Bytes of a frame, body or answer, at most.
    pub(crate) max_frame_bytes: usize,
    /// Requests in flight on one connection, at most.
    pub(crate) max_in_flight: usize,
    /// Subkeys kept for opening.
    pub(crate) subkey_cache: usize,
    /// Threads that use private keys held in software, and symmetric ones but of AES-256; 0: as many as there are processors.
    pub(crate) software_workers: usize,
    /// What the installation weighs beside its instances.
    pub(crate) weight: u32,
    /// Threads that generate keys in software.
    pub(crate) key_workers: usize,
    /// Keys that wait to be generated, at most.
    pub(crate) key_queue: usize,
    /// Milliseconds between two writings of the use counts.
    pub(crate) usage_flush_ms: u64,
    /// Milliseconds between two looks for deletions that are due.
    pub(crate) deletion_check_ms: u64,
    /// Milliseconds that wall time may move against monotonic time before it counts as a jump.
    pub(crate) clock_jump_ms: u64,
    /// Milliseconds that deletions rest after a jump.
    pub(crate) clock_jump_rest_ms: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into() }
    }
}

impl Default for ProcessConfig {
    fn default() -> Self {
        Self { lock_memory: true }
    }
}

impl Default for SqliteConfig {
    fn default() -> Self {
        let theirs = keymill_store_sqlite::Config::new("");
        Self { kept_removals: theirs.kept_removals, max_pages: theirs.max_pages }
    }
}

impl Default for AuditConfig {
    fn default() -> Self {
        let AuditFiles { rotate_bytes, rotate_age, .. } = AuditFiles::default();
        Self {
            kind: AuditKind::default(),
            rotate_bytes,
            rotate_age_s: rotate_age.as_secs(),
            keep_age_s: None,
            keep_bytes: None,
            file: AuditFileConfig::default(),
            syslog: None,
        }
    }
}

impl Default for AuditFileConfig {
    fn default() -> Self {
        Self { directory: None, reserve_bytes: keymill_audit_file::Config::at("").reserve_bytes }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 8470));
        let theirs = keymill_http::Config::new(address);
        Self {
            address,
            workers: None,
            max_connections: theirs.max_connections,
            tls: None,
            head_timeout_ms: ms(theirs.head_timeout),
            body_timeout_ms: ms(theirs.body_timeout),
            keep_alive_ms: ms(theirs.keep_alive),
            write_timeout_ms: ms(theirs.write_timeout),
            drain_timeout_ms: ms(theirs.drain_timeout),
            max_nonces: theirs.max_nonces,
        }
    }
}

impl Default for MsgpackConfig {
    fn default() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 8471));
        let theirs = keymill_msgpack::Config::new(address);
        Self {
            address,
            workers: None,
            max_connections: theirs.max_connections,
            tls: None,
            hello_timeout_ms: ms(theirs.hello_timeout),
            write_timeout_ms: ms(theirs.write_timeout),
            drain_timeout_ms: ms(theirs.drain_timeout),
        }
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        let theirs = EngineConfig::default();
        Self {
            instance: theirs.instance.to_string(),
            node: "keymill".into(),
            region: theirs.region,
            account: theirs.account,
            slice_us: theirs.slice.as_micros() as u64,
            max_queued_jobs: theirs.max_queued_jobs,
            max_buffered_bytes: theirs.max_buffered_bytes,
            max_frame_bytes: theirs.max_frame_bytes,
            max_in_flight: theirs.max_in_flight,
            subkey_cache: theirs.subkey_cache,
            software_workers: theirs.software_workers,
            weight: theirs.weight,
            key_workers: theirs.key_workers,
            key_queue: theirs.key_queue,
            usage_flush_ms: ms(theirs.usage_flush),
            deletion_check_ms: ms(theirs.deletion_check),
            clock_jump_ms: ms(theirs.clock_jump),
            clock_jump_rest_ms: ms(theirs.clock_jump_rest),
        }
    }
}

pub(super) fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}
