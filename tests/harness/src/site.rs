//! Where an engine keeps its things: a scratch directory and the root that belongs to it. A stopped engine is its site, which a
//! test may damage before the next start.

use std::convert::Infallible;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use keymill_core::Sensitive;
use keymill_core::seam::audit::AuditLog;
use keymill_core::seam::store::Store;
use keymill_crypto::audit::{ChainKeys, ChainReport, ChainVerifier};
use keymill_crypto::derived::{DerivedKeys, cmac_pair};
use keymill_crypto::record::RecordSealer;
use keymill_crypto::root::RootKeys;
use keymill_databases::{Database as _, Etcd, Postgres, shared};
use keymill_runtime::scoped::Scoped;
use keymill_runtime::{EngineConfig, EngineError};
use keymill_store_postgres::Place;
use tempfile::TempDir;

use crate::tenancy::{Tenants, audit_of};
use crate::{Live, Setup};

/// Names the store that engines are started on: `sqlite`, as by default, or `etcd` or `postgres`, of which each test program starts one.
const STORE: &str = "KEYMILL_TEST_STORE";

static ETCD: Mutex<Weak<Etcd>> = Mutex::new(Weak::new());
static POSTGRES: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
static SCHEMAS: AtomicUsize = AtomicUsize::new(0);

/// A server that others reach beside an engine, and what is a site's own there.
#[derive(Clone)]
enum Server {
    /// A prefix.
    Etcd(Arc<Etcd>, String),
    /// A schema.
    Postgres(Arc<Postgres>, String),
}

/// Starts a PostgreSQL with a role for the stores, and room for those of all nodes that tests have at one time.
fn postgres() -> Postgres {
    let postgres = Postgres::start_with(&["fsync=on", "log_statement=none", "max_connections=200"]);
    postgres.sql("CREATE ROLE keymill LOGIN PASSWORD 'a password'");
    postgres.sql("GRANT CREATE ON DATABASE postgres TO keymill");
    postgres
}

/// A scratch directory and its root.
pub struct Site {
    directory: TempDir,
    root: RootKeys,
    /// Where the store is, if not in the directory.
    server: Option<Server>,
    /// Whose it is, once an engine was started here.
    pub(crate) whose: Whose,
}

/// Who has a site.
#[derive(Clone)]
pub(crate) enum Whose {
    Nobody,
    /// An engine.
    Engine,
    /// An installation with two instances, of which one is the scene.
    Tenants(Tenants),
}

impl Site {
    pub(crate) fn fresh() -> Self {
        // Ours alone, whatever the umask: the plugins refuse a looser place.
        let private = Permissions::from_mode(0o700);
        let directory = tempfile::Builder::new().permissions(private).tempdir().expect("a scratch directory");
        let server = match std::env::var(STORE).as_deref() {
            Ok("etcd") => {
                let etcd = shared(&ETCD, Etcd::start);
                let prefix = etcd.fresh_prefix();
                Some(Server::Etcd(etcd, prefix))
            }
            Ok("postgres") => {
                let schema = format!("site_{}", SCHEMAS.fetch_add(1, Ordering::Relaxed));
                Some(Server::Postgres(shared(&POSTGRES, postgres), schema))
            }
            Ok("sqlite") | Err(_) => None,
            Ok(other) => panic!("{STORE} is sqlite, etcd or postgres, not {other}"),
        };
        let root = RootKeys::generate().expect("random numbers");
        Self { directory, root, server, whose: Whose::Nobody }
    }

    /// Makes a place of its own for another node of the same root, which is given the same store.
    pub(crate) fn beside(&self) -> Self {
        Self { root: self.root(), whose: self.whose.clone(), ..Self::fresh() }
    }

    /// Tells whether the store is in an etcd, which others can open beside an engine.
    pub fn is_in_etcd(&self) -> bool {
        matches!(self.server, Some(Server::Etcd(..)))
    }

    pub(crate) fn tenants(&self) -> Option<&Tenants> {
        match &self.whose {
            Whose::Tenants(tenants) => Some(tenants),
            Whose::Nobody | Whose::Engine => None,
        }
    }

    /// Returns what stands before each path of the store that is the scene's.
    pub fn prefix(&self) -> String {
        self.tenants().map_or_else(String::new, |tenants| format!("instance-data/{}/", tenants.scene.id))
    }

    /// Opens the store.
    ///
    /// # Errors
    /// What the plugin says.
    pub fn store(&self) -> Result<Arc<dyn Store>, EngineError> {
        let whole = self.whole_store()?;
        Ok(match self.tenants() {
            Some(tenants) => Arc::new(Scoped::of(whole, &tenants.scene.id)),
            None => whole,
        })
    }

    pub(crate) fn whole_store(&self) -> Result<Arc<dyn Store>, EngineError> {
        let failed = |error: &dyn std::fmt::Display| EngineError::new(error.to_string());
        match &self.server {
            None => {
                let config = keymill_store_sqlite::Config::new(self.data());
                Ok(Arc::new(keymill_store_sqlite::open(config).map_err(|error| failed(&error))?))
            }
            Some(Server::Etcd(etcd, prefix)) => {
                let config = keymill_store_etcd::Config {
                    prefix: prefix.clone(),
                    ..keymill_store_etcd::Config::new(etcd.endpoints())
                };
                Ok(Arc::new(keymill_store_etcd::open(config).map_err(|error| failed(&error))?))
            }
            Some(Server::Postgres(postgres, schema)) => {
                let place = Place::Tcp { host: "127.0.0.1".into(), port: postgres.port() };
                let config = keymill_store_postgres::Config {
                    password: Some(Sensitive::copied(b"a password")),
                    database: "postgres".into(),
                    schema: schema.clone(),
                    ..keymill_store_postgres::Config::new([place])
                };
                Ok(Arc::new(keymill_store_postgres::open(config).map_err(|error| failed(&error))?))
            }
        }
    }

    /// Returns the scratch directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Returns the directory of the store.
    pub fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    /// Returns the file of the store, where that is SQLite.
    pub fn database(&self) -> PathBuf {
        self.data().join("keymill.db")
    }

    /// Returns the directory of the audit log.
    pub fn audit(&self) -> PathBuf {
        let all = self.whole_audit();
        self.tenants().map_or_else(|| all.clone(), |tenants| audit_of(&all, &tenants.scene.id))
    }

    pub(crate) fn whole_audit(&self) -> PathBuf {
        self.path().join("audit")
    }

    /// Starts an engine here.
    ///
    /// # Errors
    /// What the engine says.
    pub fn try_start(self, setup: Setup) -> Result<Live, EngineError> {
        Live::over(self, setup)
    }

    /// Tries to start an engine here that does not start; returns why.
    pub fn refused(&self, setup: Setup) -> EngineError {
        match Live::begin(self, setup) {
            Err(why) => why,
            Ok(_) => panic!("the engine starts"),
        }
    }

    /// Starts an engine here.
    pub fn start(self, setup: Setup) -> Live {
        self.try_start(setup).expect("the engine starts")
    }

    /// Checks every audit chain that is kept here.
    pub fn verify(&self) -> Vec<ChainReport> {
        let derived = self.derived();
        let keys =
            ChainKeys::new(&derived.audit, &derived.audit_signing).expect("derived keys have 32 bytes");
        let log = keymill_audit_file::open(keymill_audit_file::Config::at(self.audit())).expect("it opens");
        let check = |chain: &String| {
            let mut verifier = ChainVerifier::new(&keys, chain);
            log.read(chain, &mut |line| verifier.line(line.bytes, line.torn)).expect("a chain can be read");
            verifier.report()
        };
        log.chains().expect("the directory can be read").iter().map(check).collect()
    }

    /// Returns what opens the records of the store.
    pub fn sealer(&self) -> RecordSealer {
        RecordSealer::new(&self.derived().storage).expect("derived keys have 32 bytes")
    }

    pub(crate) fn root(&self) -> RootKeys {
        RootKeys::decode(self.root.encode().expose()).expect("a root survives its text form")
    }

    fn derived(&self) -> DerivedKeys {
        let instance = match self.tenants() {
            Some(tenants) => tenants.scene.id.clone(),
            None => EngineConfig::default().instance,
        };
        DerivedKeys::derive(1, &instance, &mut |messages| {
            Ok::<_, Infallible>(cmac_pair(&self.root.mac, messages))
        })
        .expect("it cannot fail")
    }
}
