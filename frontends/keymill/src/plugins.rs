//! The one place that names every plugin: from the `kind` of a configuration to what opens it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use keymill_core::seam::audit::AuditLog;
use keymill_core::seam::auth::Authenticator;
use keymill_core::seam::provider::CryptoProvider;
use keymill_core::seam::rotator::Rotator;
use keymill_core::seam::store::Store;
use keymill_core::seam::validator::Validator;

/// Tokens: `tokens.rs` opens them by the configuration, and the commands of `hsm` drive the plugin itself.
pub(crate) use keymill_provider_pkcs11 as pkcs11;
/// Tokens whose module is in a process of its own.
pub(crate) use keymill_provider_worker as worker;

/// What the rotators of databases have in common.
pub(crate) mod database {
    pub(crate) use keymill_rotate_postgresql::{Config, Place, Tls};
}

use keymill_runtime::Rotators;

use crate::config::{
    AuditConfig, AuditKind, Config, ProviderConfig, ProviderKind, RotatorSection, StoreConfig, StoreKind,
    ValidationSection,
};
use crate::failure::{Failure, Result};
use crate::private;

/// Opens the store, for the one process that has the data directory.
pub(crate) fn store(config: &StoreConfig, data: &Path) -> Result<Arc<dyn Store>> {
    Ok(match config.kind {
        StoreKind::Sqlite => Arc::new(sqlite(config, data)?),
        StoreKind::Etcd => {
            // What else lies there is one process's alone: the audit, the addresses.
            let lock = private::take_directory(data)?;
            Arc::new(etcd(config)?.keeping(lock))
        }
        StoreKind::Postgres => {
            // What else lies there is one process's alone: the audit, the addresses.
            let lock = private::take_directory(data)?;
            Arc::new(postgres(config)?.keeping(lock))
        }
    })
}

/// Opens the store and nothing beside it: servers on other machines, or on this one, may have it open as well where its kind allows that.
pub(crate) fn store_beside_servers(config: &StoreConfig, data: &Path) -> Result<Arc<dyn Store>> {
    Ok(match config.kind {
        StoreKind::Sqlite => Arc::new(sqlite(config, data)?),
        StoreKind::Etcd => Arc::new(etcd(config)?),
        StoreKind::Postgres => Arc::new(postgres(config)?),
    })
}

/// Says which store a configuration means, alike for each that means the same.
pub(crate) fn name_of_store(config: &StoreConfig, data: &Path) -> String {
    let sorted = |places: &[String]| {
        let mut places = places.to_vec();
        places.sort();
        places.join(", ")
    };
    match config.kind {
        StoreKind::Sqlite => format!("the SQLite store in {}", data.display()),
        StoreKind::Etcd => {
            let endpoints = sorted(config.etcd.endpoints.as_deref().unwrap_or_default());
            format!("the etcd store under {} of {endpoints}", config.etcd.prefix)
        }
        StoreKind::Postgres => {
            let ours = &config.postgres;
            format!("the PostgreSQL store in {} of {} on {}", ours.schema, ours.database, sorted(&ours.hosts))
        }
    }
}

fn sqlite(config: &StoreConfig, data: &Path) -> Result<keymill_store_sqlite::SqliteStore> {
    let mut options = keymill_store_sqlite::Config::new(data);
    options.kept_removals = config.sqlite.kept_removals;
    options.max_pages = config.sqlite.max_pages;
    keymill_store_sqlite::open(options).map_err(Failure::because("store"))
}

fn etcd(config: &StoreConfig) -> Result<keymill_store_etcd::EtcdStore> {
    keymill_store_etcd::open(config.etcd.options()?).map_err(Failure::because("store.etcd"))
}

fn postgres(config: &StoreConfig) -> Result<keymill_store_postgres::PostgresStore> {
    keymill_store_postgres::open(config.postgres.options()?).map_err(Failure::because("store.postgres"))
}

/// Opens the audit log.
pub(crate) fn audit(config: &AuditConfig, directory: &Path) -> Result<Arc<dyn AuditLog>> {
    match config.kind {
        AuditKind::File => {
            let mut options = keymill_audit_file::Config::at(directory);
            options.reserve_bytes = config.file.reserve_bytes;
            let log = keymill_audit_file::open(options).map_err(Failure::because("audit"))?;
            Ok(Arc::new(log))
        }
    }
}

/// Puts the syslog server beside the audit log, where one is configured.
pub(crate) fn audit_beside(config: &Config, log: Arc<dyn AuditLog>) -> Result<Arc<dyn AuditLog>> {
    let Some(syslog) = &config.audit.syslog else { return Ok(log) };
    let options = syslog.options(&config.engine.node)?;
    let log = keymill_audit_syslog::open(options, log).map_err(Failure::because("audit.syslog"))?;
    Ok(Arc::new(log))
}

/// Opens the crypto provider.
pub(crate) fn provider(config: &ProviderConfig) -> Result<Arc<dyn CryptoProvider>> {
    match config.kind {
        ProviderKind::Software => {
            let options = keymill_provider_software::Config::default();
            let provider = keymill_provider_software::open(options).map_err(Failure::because("provider"))?;
            Ok(Arc::new(provider))
        }
    }
}

/// Opens the rotators, by their names.
pub(crate) fn rotators(sections: &BTreeMap<String, RotatorSection>) -> Result<Rotators> {
    let mut rotators = Rotators::default();
    for (name, section) in sections {
        let place = format!("rotators.{name}");
        let rotator: Arc<dyn Rotator> = match section {
            RotatorSection::Password(section) => {
                let options = keymill_rotate_password::Config { passwords: section.passwords() };
                Arc::new(keymill_rotate_password::open(options).map_err(Failure::because(&place))?)
            }
            RotatorSection::Postgresql(section) => {
                if section.account_host.is_some() {
                    return Err(Failure::new(format!("{place}.account_host is of kind mysql alone")));
                }
                let options = section.options(5432).map_err(Failure::because(&place))?;
                Arc::new(keymill_rotate_postgresql::open(&options).map_err(Failure::because(&place))?)
            }
            RotatorSection::Mysql(section) => {
                let options = section.options(3306).map_err(Failure::because(&place))?;
                let host = section.account_host.as_deref().unwrap_or("%");
                Arc::new(keymill_rotate_mysql::open(&options, host).map_err(Failure::because(&place))?)
            }
            RotatorSection::Webhook(section) => {
                let options = section.options()?;
                Arc::new(keymill_rotate_webhook::open(options).map_err(Failure::because(&place))?)
            }
        };
        rotators.add(name.parse().map_err(Failure::because(&place))?, rotator);
    }
    Ok(rotators)
}

/// Makes who looks for proofs of ACME.
pub(crate) fn validators(section: &ValidationSection) -> Result<Vec<Arc<dyn Validator>>> {
    Ok(keymill_validate_network::open(section.options()?))
}

/// Makes every authenticator; which scheme a caller uses is the caller's choice.
pub(crate) fn authenticators() -> Result<Vec<Box<dyn Authenticator>>> {
    let options = keymill_auth_credentials::Config::default();
    keymill_auth_credentials::all(options).map_err(Failure::because("authentication"))
}
