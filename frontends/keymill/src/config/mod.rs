//! The configuration: what can be set, its defaults, and how a file and flags change them. `config/keymill.toml` in the
//! repository lists every option; a test keeps the two alike.

mod acme;
mod authority;
mod cluster;
mod database;
mod dual_control;
mod etcd;
mod networks;
mod options;
mod places;
mod pool;
mod postgres;
mod rotator;
mod share;
mod syslog;
mod tls;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keymill_core::id::NodeName;
use keymill_core::limit::INSTANCE_WEIGHT;
use keymill_http::Readiness;
use keymill_runtime::{AuditFiles, EngineConfig};
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::plugins;

pub(crate) use acme::{AcmeSection, ValidationSection};
pub(crate) use authority::AuthoritySection;
pub(crate) use cluster::ClusterSection;
pub(crate) use dual_control::DualControlSection;
pub(crate) use etcd::EtcdConfig;
pub(crate) use networks::NetworkSection;
pub(crate) use options::*;
pub(crate) use places::Places;
pub(crate) use pool::{Isolation, KeysConfig, PoolSection, TokenSection};
pub(crate) use postgres::PostgresConfig;
pub(crate) use rotator::{RotationSection, RotatorSection};
pub(crate) use share::{LimitsSection, LoginSection, QuotaSection};
pub(crate) use syslog::SyslogConfig;
pub(crate) use tls::{TlsSection, read_key};

/// Smaller or younger audit files would be many.
const MIN_ROTATE_BYTES: u64 = 64 << 10;
const MIN_ROTATE_AGE_S: u64 = 60;

/// Every option. What is absent has its default, which needs no file at all.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where the store lies.
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the bootstrap access key is written at the first start.
    pub(crate) credentials: Option<PathBuf>,
    /// What is logged.
    pub(crate) log: LogConfig,
    /// The process.
    pub(crate) process: ProcessConfig,
    /// The root of trust.
    pub(crate) root: RootConfig,
    /// Where records are kept.
    pub(crate) store: StoreConfig,
    /// Where the audit is kept.
    pub(crate) audit: AuditConfig,
    /// What computes.
    pub(crate) provider: ProviderConfig,
    /// The tokens.
    pub(crate) pool: PoolSection,
    /// What keys are like of which nobody says it.
    pub(crate) keys: KeysConfig,
    /// HTTP.
    pub(crate) http: HttpConfig,
    /// MessagePack over TCP.
    pub(crate) msgpack: MsgpackConfig,
    /// The engine.
    pub(crate) engine: EngineOptions,
    /// What callers may take.
    pub(crate) quota: QuotaSection,
    /// How failed logins are throttled.
    pub(crate) login: LoginSection,
    /// How much callers may make.
    pub(crate) limits: LimitsSection,
    /// What waits for a second caller.
    pub(crate) dual_control: DualControlSection,
    /// How secrets are rotated.
    pub(crate) rotation: RotationSection,
    /// Certificate authorities.
    pub(crate) authorities: AuthoritySection,
    /// By what, by name.
    pub(crate) rotators: BTreeMap<String, RotatorSection>,
    /// The networks that instances are bound to, by name.
    pub(crate) networks: BTreeMap<String, NetworkSection>,
    /// How this server is one of several on its store.
    pub(crate) cluster: ClusterSection,
    /// How ACME is offered, where it is.
    pub(crate) acme: Option<AcmeSection>,
}

impl Config {
    /// Reads a file, or returns the defaults where none is named.
    pub(crate) fn read(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path).map_err(Failure::because(path.display()))?;
        // toml's text shows the line and points at what is wrong.
        toml::from_str(&text)
            .map_err(|error| Failure::new(format!("{}: {}", path.display(), error.to_string().trim_end())))
    }

    /// Returns the engine's own options.
    pub(crate) fn engine(&self) -> Result<EngineConfig> {
        let ours = &self.engine;
        let files = &self.audit;
        if files.rotate_bytes < MIN_ROTATE_BYTES || files.rotate_age_s < MIN_ROTATE_AGE_S {
            return Err(Failure::new(format!(
                "audit.rotate_bytes is at least {MIN_ROTATE_BYTES}, and audit.rotate_age_s at least {MIN_ROTATE_AGE_S}"
            )));
        }
        if !(1..=INSTANCE_WEIGHT).contains(&ours.weight) {
            return Err(Failure::wrong_use(format!("engine.weight is not in 1 to {INSTANCE_WEIGHT}")));
        }
        Ok(EngineConfig {
            weight: ours.weight,
            instance: ours.instance.parse().map_err(Failure::because("engine.instance"))?,
            is_dedicated: false,
            region: ours.region.clone(),
            account: ours.account.clone(),
            slice: Duration::from_micros(ours.slice_us),
            max_queued_jobs: ours.max_queued_jobs,
            max_buffered_bytes: ours.max_buffered_bytes,
            subkey_cache: ours.subkey_cache,
            software_workers: ours.software_workers,
            key_workers: ours.key_workers,
            key_queue: ours.key_queue,
            usage_flush: Duration::from_millis(ours.usage_flush_ms),
            deletion_check: Duration::from_millis(ours.deletion_check_ms),
            clock_jump: Duration::from_millis(ours.clock_jump_ms),
            clock_jump_rest: Duration::from_millis(ours.clock_jump_rest_ms),
            max_frame_bytes: ours.max_frame_bytes,
            max_in_flight: ours.max_in_flight,
            audit: true,
            audit_files: AuditFiles {
                rotate_bytes: files.rotate_bytes,
                rotate_age: Duration::from_secs(files.rotate_age_s),
                keep_age: files.keep_age_s.map(Duration::from_secs),
                keep_bytes: files.keep_bytes,
                ..AuditFiles::default()
            },
            pool: self.pool.lanes(),
            protection: self.keys.protection_level,
            bulk_mode: self.keys.bulk_mode,
            quota: self.quota.read()?,
            login: self.login.read()?,
            max_records: self.limits.read(),
            dual_control: self.dual_control.read()?,
            rotation: self.rotation.read(),
            authorities: self.authorities.read()?,
            rotators: plugins::rotators(&self.rotators)?,
            acme: self.acme.as_ref().map(AcmeSection::read).transpose()?,
            cluster: self.cluster.of_store(self.store.kind)?,
        })
    }

    /// Returns the networks that instances are bound to.
    pub(crate) fn networks(&self) -> Result<keymill_core::instance::Networks> {
        networks::read(&self.networks)
    }

    /// Returns what clients of the HTTP listener trust as the issuer of its certificate: the last one of its chain, in PEM.
    pub(crate) fn issuer(&self) -> Result<Option<String>> {
        let Some(path) = self.http.tls.as_ref().and_then(|tls| tls.certificate.as_deref()) else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path).map_err(Failure::because(path.display()))?;
        const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
        Ok(text.rfind(BEGIN).map(|at| text[at..].trim_end().to_owned() + "\n"))
    }

    /// Returns the name of this server, where it is one of several on its store.
    ///
    /// # Errors
    /// A failure that names the option.
    pub(crate) fn node(&self) -> Result<Option<NodeName>> {
        let cluster = self.cluster.of_store(self.store.kind)?;
        let name = || self.engine.node.parse().map_err(Failure::because("engine.node"));
        cluster.map(|_| name()).transpose()
    }

    /// Returns the options of the HTTP frontend, which tells `readiness` to whoever asks. The files of its TLS are read.
    pub(crate) fn http(&self, readiness: Readiness) -> Result<keymill_http::Config> {
        let ours = &self.http;
        let theirs = keymill_http::Config::new(ours.address);
        let open = |tls: &TlsSection| tls.open("http.tls", keymill_http::ALPN);
        Ok(keymill_http::Config {
            tls: ours.tls.as_ref().map(open).transpose()?,
            workers: ours.workers.unwrap_or(theirs.workers),
            max_connections: ours.max_connections,
            head_timeout: Duration::from_millis(ours.head_timeout_ms),
            body_timeout: Duration::from_millis(ours.body_timeout_ms),
            keep_alive: Duration::from_millis(ours.keep_alive_ms),
            write_timeout: Duration::from_millis(ours.write_timeout_ms),
            drain_timeout: Duration::from_millis(ours.drain_timeout_ms),
            max_nonces: ours.max_nonces,
            readiness,
            ..theirs
        })
    }

    /// Returns the options of the MessagePack TCP frontend. The files of its TLS are read.
    pub(crate) fn msgpack(&self) -> Result<keymill_msgpack::Config> {
        let ours = &self.msgpack;
        let theirs = keymill_msgpack::Config::new(ours.address);
        let open = |tls: &TlsSection| tls.open("msgpack.tls", keymill_msgpack::ALPN);
        Ok(keymill_msgpack::Config {
            tls: ours.tls.as_ref().map(open).transpose()?,
            workers: ours.workers.unwrap_or(theirs.workers),
            max_connections: ours.max_connections,
            hello_timeout: Duration::from_millis(ours.hello_timeout_ms),
            write_timeout: Duration::from_millis(ours.write_timeout_ms),
            drain_timeout: Duration::from_millis(ours.drain_timeout_ms),
            ..theirs
        })
    }
}

#[cfg(test)]
mod tests {
    use super::tls::{ClientCertificateMode, TlsVersion};
    use super::*;
    use crate::plugins::pkcs11::{CancelMethod, GcmMethod, Overrides, WrapMechanism};
    use toml::{Table, Value};

    const EVERY_OPTION: &str = include_str!("../../../../config/keymill.toml");
    const HSM: &str = include_str!("../../../../config/hsm.toml");
    const VENDORS: [&str; 6] = [
        include_str!("../../../../config/hsm/softhsm.toml"),
        include_str!("../../../../config/hsm/kryoptic.toml"),
        include_str!("../../../../config/hsm/luna.toml"),
        include_str!("../../../../config/hsm/cloudhsm.toml"),
        include_str!("../../../../config/hsm/nshield.toml"),
        include_str!("../../../../config/hsm/utimaco.toml"),
    ];
    const DEV: &str = include_str!("../../../../config/dev.toml");

    /// The defaults, with something in the place of each option that has none.
    fn all_set() -> Config {
        let mut config =
            Config { data_dir: Some("d".into()), credentials: Some("c".into()), ..Config::default() };
        config.root.file.path = Some("r".into());
        config.store.sqlite.max_pages = Some(1);
        config.store.etcd = EtcdConfig::all_set();
        config.store.postgres = PostgresConfig::all_set();
        config.audit.file.directory = Some("a".into());
        (config.audit.keep_age_s, config.audit.keep_bytes) = (Some(1), Some(1));
        config.audit.syslog = Some(SyslogConfig {
            ca_file: Some("c".into()),
            server_name: Some("s".into()),
            cert_file: Some("c".into()),
            key_file: Some("k".into()),
            host: Some("h".into()),
            ..SyslogConfig::default()
        });
        config.pool.token = vec![TokenSection {
            serial: Some("s".into()),
            domain: Some("acme".parse().unwrap()),
            pin_file: Some("p".into()),
            pin_env: Some("e".into()),
            sessions: Some(1),
            profile: Overrides {
                wrap: Some(WrapMechanism::Kwp),
                unwrap_value_len: Some(true),
                unwrap_ec_params: Some(true),
                specs: Some(Vec::new()),
                gcm: Some(GcmMethod::Classic),
                cancel: Some(CancelMethod::ReplaceSession),
                max_item_bytes: Some(1),
            },
            ..TokenSection::default()
        }];
        let tls = TlsSection {
            certificate: Some("c".into()),
            key: Some("k".into()),
            authority: Some("a".parse().unwrap()),
            names: vec!["a.example".parse().unwrap()],
            profile: "server".parse().unwrap(),
            min_version: TlsVersion::Tls12,
            client_certificates: ClientCertificateMode::Required,
            client_ca: vec!["a".into()],
            crl: vec!["r".into()],
            handshake_timeout_ms: 1,
            reload_interval_ms: 1,
        };
        (config.http.tls, config.msgpack.tls) = (Some(tls.clone()), Some(tls));
        config.http.workers = Some(1);
        config.quota = QuotaSection::all_set();
        config.msgpack.workers = Some(1);
        config.authorities = AuthoritySection::all_set();
        config.rotators = rotator::all_set();
        config.networks = [("shop".to_owned(), NetworkSection::all_set())].into();
        config.acme = Some(acme::all_set());
        config
    }

    fn names(table: &Table, above: &str, into: &mut Vec<String>) {
        for (name, value) in table {
            let path = format!("{above}{name}");
            match value {
                Value::Table(table) => names(table, &format!("{path}."), into),
                Value::Array(rows) if matches!(rows.first(), Some(Value::Table(_))) => {
                    names(rows[0].as_table().unwrap(), &format!("{path}."), into);
                }
                _ => into.push(path),
            }
        }
    }

    fn sorted_names(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        names(&text.parse().unwrap(), "", &mut found);
        found.sort();
        found
    }

    #[test]
    fn the_sample_of_every_option_is_the_defaults() {
        assert_eq!(toml::from_str::<Config>(EVERY_OPTION).unwrap(), Config::default());
    }

    #[test]
    fn the_sample_names_every_option_and_no_other() {
        // An option without a default of its own stands there behind a #, without a space.
        let uncommented: String = EVERY_OPTION
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(option) if option.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
                    format!("{option}\n")
                }
                _ => format!("{line}\n"),
            })
            .collect();
        toml::from_str::<Config>(&uncommented).unwrap();
        assert_eq!(sorted_names(&uncommented), sorted_names(&toml::to_string(&all_set()).unwrap()));
    }

    #[test]
    fn tls_needs_its_certificate_and_key_alone() {
        let text = "[http.tls]\ncertificate = \"c\"\nkey = \"k\"\n";
        let tls = toml::from_str::<Config>(text).unwrap().http.tls.unwrap();
        assert_eq!(
            (tls.min_version, tls.client_certificates),
            (TlsVersion::Tls13, ClientCertificateMode::None)
        );
        assert_eq!((tls.handshake_timeout_ms, tls.reload_interval_ms), (5000, 5000));
        for bad in [format!("{text}min_version = \"1.1\"\n"), format!("{text}cipher = 1\n")] {
            assert!(toml::from_str::<Config>(&bad).is_err(), "{bad}");
        }
        let opened = |text: &str| {
            let tls = toml::from_str::<Config>(text).unwrap().http.tls.unwrap();
            tls.open("http.tls", keymill_http::ALPN).map(drop).map_err(|error| error.to_string())
        };
        for half in [
            "[http.tls]\nkey = \"k\"\n",
            "[http.tls]\nauthority = \"a\"\n",
            &format!("{text}authority = \"a\"\nnames = [\"a.example\"]\n"),
        ] {
            assert!(opened(half).unwrap_err().contains("[http.tls]"), "{half}");
        }
    }

    #[test]
    fn the_sample_for_development_loads() {
        let config: Config = toml::from_str(DEV).unwrap();
        assert_eq!((config.store.kind, config.provider.kind), (StoreKind::Sqlite, ProviderKind::Software));
        config.engine().unwrap();
    }

    #[test]
    fn the_sample_for_tokens_loads() {
        let config: Config = toml::from_str(HSM).unwrap();
        assert_eq!(config.root.kind, RootKind::Pkcs11);
        assert_eq!(config.pool.token.len(), 2);
        config.engine().unwrap();
    }

    #[test]
    fn the_samples_for_each_vendor_load() {
        for text in VENDORS {
            let config: Config = toml::from_str(text).unwrap();
            assert_eq!((config.root.kind, config.pool.token.len()), (RootKind::Pkcs11, 1), "{text}");
            config.engine().unwrap();
        }
    }

    #[test]
    fn an_unknown_option_is_named_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keymill.toml");
        std::fs::write(&path, "[http]\nadress = \"127.0.0.1:1\"\n").unwrap();
        let told = Config::read(Some(&path)).unwrap_err().to_string();
        assert!(
            told.contains("adress") && told.contains("line 2") && told.contains("keymill.toml"),
            "{told}"
        );
    }

    #[test]
    fn audit_files_of_a_few_bytes_or_seconds_are_refused() {
        for text in ["[audit]\nrotate_bytes = 65535\n", "[audit]\nrotate_age_s = 59\n"] {
            let config: Config = toml::from_str(text).unwrap();
            assert!(config.engine().unwrap_err().to_string().contains("at least"), "{text}");
        }
    }

    #[test]
    fn the_engine_has_its_own_defaults_where_nothing_is_set() {
        let (ours, theirs) = (Config::default().engine().unwrap(), EngineConfig::default());
        assert_eq!(format!("{ours:?}"), format!("{theirs:?}"));
    }
}
