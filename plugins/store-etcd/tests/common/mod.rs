//! What the tests of the store have in common.
#![allow(dead_code)]

use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use keymill_core::seam::store::{Change, Path, Revision, Store, StoreError, Write};
use keymill_databases::Etcd;
use keymill_store_etcd::{Config, EtcdStore, open};

pub(crate) fn path(text: &str) -> Path {
    Path::new(text).expect("the tests name paths")
}

pub(crate) fn put(at: &str, expected: Option<Revision>, value: &[u8]) -> Write {
    Write { path: path(at), expected, value: Some(value.to_vec()) }
}

pub(crate) fn removal(at: &str, expected: Revision) -> Write {
    Write { path: path(at), expected: Some(expected), value: None }
}

pub(crate) fn value_at(store: &dyn Store, at: &str) -> Option<Vec<u8>> {
    store.get(&path(at)).expect("the store reads").map(|entry| entry.value)
}

pub(crate) fn config(etcd: &Etcd) -> Config {
    Config { prefix: etcd.fresh_prefix(), ..Config::new(etcd.endpoints()) }
}

/// Returns the options once more: they are taken whole, and hold a password.
pub(crate) fn again(config: &Config) -> Config {
    Config {
        prefix: config.prefix.clone(),
        timeout: config.timeout,
        tls: config.tls.clone(),
        ..Config::new(config.endpoints.clone())
    }
}

pub(crate) fn opened(config: Config) -> EtcdStore {
    open(config).expect("the store opens")
}

/// What a watch told.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    Wrote(String, Option<Vec<u8>>, Revision),
    Current,
}

/// Watches on a thread of its own until nobody listens.
pub(crate) fn watched(
    store: std::sync::Arc<EtcdStore>,
    prefix: &str,
    from: Revision,
) -> (Receiver<Heard>, JoinHandle<Result<(), StoreError>>) {
    let (tell, told) = channel();
    let prefix = path(prefix);
    let watching = std::thread::spawn(move || {
        store.watch(&prefix, from, &mut |change| {
            let heard = match change {
                Change::Commit { revision, writes } => writes
                    .iter()
                    .map(|write| {
                        let value = write.value.map(<[u8]>::to_vec);
                        Heard::Wrote(write.path.to_string(), value, revision)
                    })
                    .collect(),
                Change::Current { .. } => vec![Heard::Current],
            };
            heard.into_iter().all(|heard| tell.send(heard).is_ok())
        })
    });
    (told, watching)
}

/// Longer than any of the tests waits for what should come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
