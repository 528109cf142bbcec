//! The suite for `Store` on the PostgreSQL store: one server, a schema of its own for each test.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, Weak};

use keymill_conformance::store::Fixture;
use keymill_core::Sensitive;
use keymill_databases::{Database, Postgres, shared};
use keymill_store_postgres::{Config, Place, open};

static POSTGRES: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
static SCHEMAS: AtomicUsize = AtomicUsize::new(0);

fn start() -> Postgres {
    // In a log of all statements every value would be.
    let postgres = Postgres::start_with(&["fsync=on", "log_statement=none", "log_min_messages=warning"]);
    postgres.sql("CREATE ROLE keymill LOGIN PASSWORD 'a password'");
    postgres.sql("CREATE DATABASE keymill OWNER keymill");
    postgres
}

fn fixture() -> Fixture {
    let postgres = shared(&POSTGRES, start);
    let place = Place::Tcp { host: "127.0.0.1".into(), port: postgres.port() };
    let config = Config {
        password: Some(Sensitive::copied(b"a password")),
        schema: format!("suite_{}", SCHEMAS.fetch_add(1, Ordering::Relaxed)),
        // On a machine that does other things too.
        timeout: std::time::Duration::from_secs(30),
        ..Config::new([place])
    };
    Fixture::new(open(config).expect("the store opens")).keeping(postgres)
}

keymill_conformance::store_suite!(fixture);
