//! A store that was put back to an earlier time, an etcd from a snapshot and a PostgreSQL as after a failover to one that had not all: no node uses a key
//! there, none starts, and an operator's word brings back no more than is safe.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use keymill_client::Credentials;
use keymill_core::Sensitive;
use keymill_core::access::{Effect, Grant, ResourcePattern, Role};
use keymill_core::key::KeyState;
use keymill_core::seam::store::{Path, Store, Write};
use keymill_databases::{Database as _, Etcd, Postgres};
use keymill_e2e::{Answered, Caller, audit_lines, eventually, metric, verified};
use keymill_harness::{Live, Setup, Site, Started};
use keymill_runtime::{ClusterConfig, EngineConfig};

/// A server that nodes share, and that can be put back.
trait Ground {
    fn open(&self) -> Arc<dyn Store>;
    fn save(&mut self);
    fn put_back(&mut self);
}

impl Ground for Etcd {
    fn open(&self) -> Arc<dyn Store> {
        Arc::new(keymill_store_etcd::open(keymill_store_etcd::Config::new(self.endpoints())).unwrap())
    }

    fn save(&mut self) {
        Self::save(self);
    }

    fn put_back(&mut self) {
        Self::put_back(self);
    }
}

impl Ground for Postgres {
    fn open(&self) -> Arc<dyn Store> {
        let place = keymill_store_postgres::Place::Tcp { host: "127.0.0.1".into(), port: self.port() };
        let config = keymill_store_postgres::Config {
            password: Some(Sensitive::copied(b"a password")),
            database: "postgres".into(),
            ..keymill_store_postgres::Config::new([place])
        };
        Arc::new(keymill_store_postgres::open(config).unwrap())
    }

    fn save(&mut self) {
        Self::save(self);
    }

    fn put_back(&mut self) {
        Self::put_back(self);
    }
}

fn postgres() -> Postgres {
    let postgres = Postgres::start_with(&["fsync=on", "log_statement=none"]);
    postgres.sql("CREATE ROLE keymill LOGIN PASSWORD 'a password'");
    postgres.sql("GRANT CREATE ON DATABASE postgres TO keymill");
    postgres
}

/// A node with a way of its own to the store: nodes are processes of their own.
fn node(name: &str, ground: &dyn Ground) -> Setup {
    by_word(name, ground, false)
}

fn by_word(name: &str, ground: &dyn Ground, accept_history: bool) -> Setup {
    let cluster = ClusterConfig { accept_history, lease: Duration::from_secs(2), ..ClusterConfig::default() };
    let store = ground.open();
    Setup::new(EngineConfig::default()).as_node(name, cluster).with_store(move |_| store)
}

fn code<T>(answered: Answered<T>) -> Option<String> {
    answered.err().map(|error| error.code.to_string())
}

/// Waits until a node says that the store is of another history, to callers, operators and in its metrics.
fn finds_out(live: &Live, root: &Credentials, what: &str) {
    eventually(what, || (metric(live, "keymill_cluster_other_history") == 1.0).then_some(()));
    assert!(live.gate().troubles().iter().any(|trouble| trouble.contains("--accept-history")));
    // Not even a login is answered by what may be gone.
    let refused = match Caller::try_new(live, root) {
        Ok(mut caller) => caller.keys().err().unwrap(),
        Err(refused) => refused,
    };
    assert!(refused.message.contains("of another history"), "{}", refused.message);
}

/// Says of which records an audit says that they were accepted.
fn accepted(site: &Site) -> Vec<String> {
    let lines = audit_lines(site);
    let lines = lines.iter().filter(|line| line["operation"] == "AcceptHistory");
    let writes = lines.flat_map(|line| line["writes"].as_array().unwrap().clone());
    writes.map(|write| write["path"].as_str().unwrap().to_owned()).collect()
}

fn what_was_lost_comes_back_by_an_operators_word_alone(mut ground: impl Ground) {
    let Started { live: first, credentials: root } = Live::start_with(node("a", &ground));
    let second = first.beside(node("b", &ground)).unwrap();
    let (mut a, mut b) = (Caller::new(&first, &root), Caller::new(&second, &root));
    let (disabled, kept) = (a.create_key(), a.create_key());
    let grant =
        Grant { effect: Effect::Allow, role: Role::Root.into(), resources: vec![ResourcePattern::All] };
    let (taken, secret) = a.create_access_key(vec![grant]).unwrap();
    let theirs = Credentials::new(taken.clone(), secret);
    a.create_alias("alias/stays", disabled).unwrap();
    eventually("the other knows all", || b.describe("alias/stays").ok());
    let blob = a.encrypt(disabled, b"text", &[]).unwrap();
    ground.save();

    // What comes from here on will be lost.
    let disable = |caller: &mut Caller| caller.disable(disabled).ok();
    eventually("the store is there again", || disable(&mut a));
    a.delete_access_key(&taken).unwrap();
    let lost = a.create_key();
    a.move_alias("alias/stays", kept).unwrap();
    eventually("the other knows", || (b.describe("alias/stays").ok()?.key_id == kept).then_some(()));
    ground.put_back();

    finds_out(&first, &root, "the one that wrote finds out");
    finds_out(&second, &root, "the one that has seen finds out");
    drop((a, b));
    // What happens by the clock does not by what they know.
    let (other, timers) = (ground.open(), Path::new("timers").unwrap());
    let take = |time| other.lease(&timers, "another", time).unwrap();
    eventually("nobody has the timers", || take(Duration::from_secs(1)));
    take(Duration::ZERO);
    // Who has seen nothing takes the others' word for it.
    let why = first.beside(node("c", &ground)).err().unwrap().to_string();
    assert!(why.contains("of another history") && why.contains("--accept-history"), "{why}");
    let (site, other) = (first.halt(), second.halt());
    let why = site.refused(node("a", &ground)).to_string();
    assert!(why.contains("--accept-history"), "{why}");

    let first = site.start(by_word("a", &ground, true));
    let mut a = Caller::new(&first, &root);
    assert_eq!(a.describe(disabled).unwrap().key_state, KeyState::Disabled);
    assert_eq!(code(a.decrypt(&blob, &[])).as_deref(), Some("Rejected.Disabled"));
    assert!(a.describe(lost).is_err(), "it was made in what is lost");
    assert!(Caller::try_new(&first, &theirs).is_err(), "it was taken away in what is lost");
    assert_eq!(a.describe("alias/stays").unwrap().key_id, disabled, "as it stands");
    let sealed = a.encrypt(kept, b"on", &[]).unwrap();
    // The others need no word of their own: nothing is older than they know.
    let second = other.start(node("b", &ground));
    assert_eq!(metric(&second, "keymill_quarantined_records"), 0.0);
    let mut b = Caller::new(&second, &root);
    assert_eq!(b.decrypt(&sealed, &[]).unwrap(), b"on");
    assert_eq!(code(b.decrypt(&blob, &[])).as_deref(), Some("Rejected.Disabled"));
    assert!(Caller::try_new(&second, &theirs).is_err());
    b.enable(disabled).unwrap();
    eventually("it is enabled", || a.decrypt(&blob, &[]).ok());
    // And a new one starts beside them.
    let third = first.beside(node("c", &ground)).unwrap();
    assert_eq!(Caller::new(&third, &root).decrypt(&blob, &[]).unwrap(), b"text");

    drop((a, b));
    let sites = [first.halt(), second.halt(), third.halt()];
    let paths = accepted(&sites[0]);
    for path in [format!("cmk/{disabled}"), format!("cmk/{lost}"), format!("access-key/k{taken}")] {
        assert!(paths.contains(&path), "{path} in {paths:?}");
    }
    assert!(!paths.contains(&format!("cmk/{kept}")), "what did not go back stays as it is");
    sites.iter().for_each(|site| drop(verified(site)));
    let [site, ..] = sites;
    let again = site.start(node("a", &ground));
    assert_eq!(metric(&again, "keymill_cluster_other_history"), 0.0);
}

fn one_that_was_put_back_while_nobody_ran_is_found_out_at_the_start(mut ground: impl Ground) {
    let Started { live, credentials: root } = Live::start_with(node("a", &ground));
    let mut caller = Caller::new(&live, &root);
    let key = caller.create_key();
    drop(caller);
    let site = live.halt();
    ground.save();
    // A process of which no record is left.
    let live = site.start(node("a", &ground));
    let site = live.halt();
    ground.put_back();
    let why = site.refused(node("a", &ground)).to_string();
    assert!(why.contains("the audit of a remembers witness/a/0"), "{why}");
    let live = site.start(by_word("a", &ground, true));
    Caller::new(&live, &root).encrypt(key, b"text", &[]).unwrap();
    let site = live.halt();
    drop(verified(&site));
    // The word was for once, and is good for good.
    let live = site.start(node("a", &ground));
    Caller::new(&live, &root).encrypt(key, b"text", &[]).unwrap();
}

#[test]
fn of_an_etcd_that_was_restored_no_key_is_used_until_an_operator_has_looked() {
    what_was_lost_comes_back_by_an_operators_word_alone(Etcd::start());
}

#[test]
fn of_a_postgresql_that_lost_commits_no_key_is_used_until_an_operator_has_looked() {
    what_was_lost_comes_back_by_an_operators_word_alone(postgres());
}

#[test]
fn an_etcd_that_was_restored_while_nobody_ran_is_found_out_at_the_start() {
    one_that_was_put_back_while_nobody_ran_is_found_out_at_the_start(Etcd::start());
}

#[test]
fn a_postgresql_that_was_put_back_while_nobody_ran_is_found_out_at_the_start() {
    one_that_was_put_back_while_nobody_ran_is_found_out_at_the_start(postgres());
}

/// What only a node's own witness can tell: the store plugin has seen nothing else go back.
#[test]
fn a_witness_that_went_back_while_its_node_ran_raises_the_alarm() {
    let cluster = || ClusterConfig { lease: Duration::from_secs(2), ..ClusterConfig::default() };
    let node = |name: &str| Setup::new(EngineConfig::default()).as_node(name, cluster());
    let Started { live: first, credentials: root } = Live::start_with(node("a"));
    let second = first.beside(node("b")).unwrap();
    let (store, at) = (second.store(), Path::new("witness/a/0").unwrap());
    let older = eventually("it is left", || store.get(&at).unwrap());
    let site = first.halt();
    let old = store.get(&at).unwrap().unwrap();
    assert!(old.revision > older.revision, "one is left with the end");
    let first = second.join(site, node("a")).unwrap();
    let newer = eventually("another is left", || {
        store.get(&at).unwrap().filter(|newer| newer.revision > old.revision)
    });
    let write = Write { path: at, expected: Some(newer.revision), value: Some(old.value) };
    store.commit(&[write]).unwrap();
    assert_eq!(metric(&second, "keymill_cluster_other_history"), 0.0);
    // It leaves the last with its end.
    let site = first.halt();
    finds_out(&second, &root, "the other is told");
    let why = second.join(site, node("a")).err().unwrap().to_string();
    assert!(why.contains("this process left witness/a/0"), "{why}");
}
