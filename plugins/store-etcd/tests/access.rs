//! Who may come: TLS both ways, and a user with a password, whose login is made anew when etcd has forgotten it.

mod common;

use common::*;
use keymill_core::Sensitive;
use keymill_core::seam::store::{Revision, Store, StoreError};
use keymill_databases::{Etcd, EtcdOptions};
use keymill_store_etcd::{Config, Identity, OpenError, Tls, User, open};

fn tls(etcd: &Etcd) -> Tls {
    let (cert_file, key_file) = etcd.identity();
    Tls { ca_file: etcd.ca_file(), identity: Some(Identity { cert_file, key_file }), server_name: None }
}

fn user(name: &str, password: &str) -> Option<User> {
    Some(User { name: name.into(), password: Sensitive::copied(password.as_bytes()) })
}

fn quick(config: Config) -> Config {
    Config { timeout: std::time::Duration::from_secs(2), ..config }
}

#[test]
fn over_tls_each_side_knows_the_other() {
    let etcd = Etcd::start_with(EtcdOptions { is_tls: true, ..EtcdOptions::default() });
    let trusted = Config { tls: Some(tls(&etcd)), ..config(&etcd) };
    let store = opened(again(&trusted));
    store.commit(&[put("key/a", None, b"1")]).expect("it commits");
    assert_eq!(value_at(&store, "key/a").as_deref(), Some(&b"1"[..]));

    let refused = |tls: Tls| {
        let error = open(quick(Config { tls: Some(tls), ..config(&etcd) })).expect_err("it is refused");
        assert!(matches!(error, OpenError::Cluster(StoreError::Unavailable(_))), "{error}");
        error.to_string()
    };
    let why = refused(Tls { ca_file: etcd.other_ca_file(), ..tls(&etcd) });
    assert!(why.to_lowercase().contains("certificate"), "{why}");
    let why = refused(Tls { server_name: Some("etcd.example.com".into()), ..tls(&etcd) });
    assert!(why.to_lowercase().contains("certificate"), "{why}");
    refused(Tls { identity: None, ..tls(&etcd) });
    let absent = Tls { ca_file: etcd.ca_file().with_file_name("absent.pem"), ..tls(&etcd) };
    let error = open(Config { tls: Some(absent), ..config(&etcd) }).expect_err("it is refused");
    assert!(matches!(error, OpenError::File { .. }), "{error}");
}

#[test]
fn a_user_logs_in_and_again_when_etcd_has_forgotten_it() {
    let mut etcd = Etcd::start();
    let trusted = config(&etcd);
    let (prefix, end) = (format!("{}/", trusted.prefix), format!("{}0", trusted.prefix));
    let ctl = |arguments: &[&str]| etcd.ctl(arguments).expect("etcdctl does it");
    ctl(&["user", "add", "root:root-word"]);
    ctl(&["user", "grant-role", "root", "root"]);
    ctl(&["user", "add", "keymill:a-word"]);
    ctl(&["role", "add", "keymill"]);
    ctl(&["role", "grant-permission", "keymill", "readwrite", &prefix, &end]);
    ctl(&["user", "grant-role", "keymill", "keymill"]);
    ctl(&["auth", "enable"]);

    let as_user = |name, password| quick(Config { user: user(name, password), ..again(&trusted) });
    // Longer than etcd takes to start again.
    let timeout = std::time::Duration::from_secs(20);
    let store = std::sync::Arc::new(opened(Config { timeout, ..as_user("keymill", "a-word") }));
    let first = store.commit(&[put("key/a", None, b"1")]).expect("it commits");
    let (told, watching) = watched(store.clone(), "key/", Revision(0));
    assert!(matches!(told.recv_timeout(PATIENCE).expect("it is told"), Heard::Wrote(..)));
    store
        .lease(&path("timer"), "node-1", std::time::Duration::from_secs(60))
        .expect("it is given")
        .expect("it is free");

    for (name, password) in [("keymill", "another"), ("nobody", "a-word")] {
        let error = open(as_user(name, password)).expect_err("it is refused");
        assert!(error.to_string().contains("authentication failed"), "{error}");
        assert!(!error.to_string().contains(password), "{error}");
    }
    open(quick(again(&trusted))).expect_err("nobody comes without a user");
    // Its own prefix alone.
    let elsewhere = Config { prefix: "elsewhere".into(), ..as_user("keymill", "a-word") };
    let error = open(elsewhere).expect_err("it is refused");
    assert!(error.to_string().contains("permission denied"), "{error}");

    // Tokens live in the memory of a member.
    etcd.kill(0);
    etcd.start_again(0);
    let until = std::time::Instant::now() + PATIENCE;
    let second = loop {
        match store.commit(&[put("key/a", Some(first), b"2")]) {
            Ok(second) => break second,
            Err(StoreError::Unavailable(_)) if std::time::Instant::now() < until => {}
            Err(other) => panic!("it logs in again: {other}"),
        }
    };
    // A change of a role makes older tokens old.
    let as_root = |arguments: &[&str]| {
        etcd.ctl(&[&["--user", "root:root-word"], arguments].concat()).expect("etcdctl does it");
    };
    as_root(&["role", "add", "another"]);
    store.commit(&[put("key/a", Some(second), b"3")]).expect("it logs in again");
    let last = loop {
        if let Heard::Wrote(_, value, _) = told.recv_timeout(PATIENCE).expect("the watch goes on")
            && value.as_deref() == Some(b"3")
        {
            break value;
        }
    };
    assert_eq!(last.as_deref(), Some(&b"3"[..]));
    drop(told);
    watching.join().expect("the watch ends").expect("without an error");
}
