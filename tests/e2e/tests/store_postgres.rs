//! The real program on PostgreSQL: what one start made, the next one has, and a second node on the same schema, too.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use keymill_databases::{Database, Postgres};
use keymill_e2e::Caller;
use keymill_harness::program::{Server, credentials};
use tempfile::TempDir;

/// Writes the configuration of a node.
fn configure(place: &Path, postgres: &Postgres) -> String {
    let write = |name: &str, text: &str| {
        let path = place.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    let password = write("store.password", "a password\n");
    let config = write(
        "keymill.toml",
        &format!(
            "[store]\nkind = \"postgres\"\n[store.postgres]\nhosts = [\"localhost:{}\"]\nca_file = {:?}\npassword_file = {password:?}\n",
            postgres.port(),
            postgres.ca_file(),
        ),
    );
    config.to_str().unwrap().to_owned()
}

fn call(server: &Server, place: &Path) -> Caller {
    Caller::of(Server::connect(server.msgpack, &credentials(place)).expect("the server is there"))
}

#[test]
fn a_key_made_on_postgresql_opens_what_it_sealed_after_a_restart() {
    let mut postgres = Postgres::start_with(&["fsync=on", "log_statement=none", "log_min_messages=warning"]);
    postgres.sql("CREATE ROLE keymill LOGIN PASSWORD 'a password'");
    postgres.sql("CREATE DATABASE keymill OWNER keymill");
    let place = TempDir::new().unwrap();
    let config = configure(place.path(), &postgres);
    let flags = ["--config", &config];

    let server = Server::start_with(place.path(), &flags);
    let mut caller = call(&server, place.path());
    let key = caller.create_key();
    let blob = caller.encrypt(key, b"a record", &[("table", "people")]).unwrap();
    assert!(server.stop().success());
    assert!(!place.path().join("data/keymill.db").exists());

    // The server of the database goes, too.
    postgres.kill();
    postgres.start_again();
    let server = Server::start_with(place.path(), &flags);
    let mut caller = call(&server, place.path());
    assert_eq!(caller.decrypt(&blob, &[("table", "people")]).unwrap(), b"a record");

    // And under the feet of one that runs.
    postgres.kill();
    postgres.start_again();
    let second = caller.create_key();
    let blob = caller.encrypt(second, b"another", &[]).unwrap();
    server.kill();
    let server = Server::start_with(place.path(), &flags);
    let mut caller = call(&server, place.path());
    assert_eq!(caller.decrypt(&blob, &[]).unwrap(), b"another");
    assert_eq!(caller.keys().unwrap().len(), 2);
}
