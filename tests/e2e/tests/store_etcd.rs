//! The real program with its records in an etcd of three members: what one process wrote the next one has, though a leader died in between.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::process::Command;
use std::time::{Duration, Instant};

use keymill_client::Connection;
use keymill_core::id::{CmkId, KeyRef};
use keymill_core::operation::*;
use keymill_databases::{Etcd, EtcdOptions};
use keymill_harness::program::{Server, credentials, program};
use tempfile::TempDir;

fn call<'a, T>(
    connection: &mut Connection,
    request: impl Into<Request<'a>>,
    take: impl FnOnce(Reply<'_>) -> T,
) -> Result<T, String> {
    connection.send(&request.into()).unwrap();
    let answer = connection.receive().unwrap();
    answer.result().map(take).map_err(|refused| format!("{refused:?}"))
}

fn create_key(connection: &mut Connection) -> Result<CmkId, String> {
    call(connection, CreateKeyRequest::default(), |reply| match reply {
        Reply::CreateKey(reply) => reply.key_metadata.key_id,
        other => panic!("{other:?}"),
    })
}

fn encrypt(connection: &mut Connection, key: CmkId, plaintext: &[u8]) -> Vec<u8> {
    let request = EncryptRequest {
        key_id: KeyRef::Id(key),
        plaintext: Bin::from(plaintext),
        encryption_context: None,
        timeout_ms: None,
    };
    let blob = call(connection, request, |reply| match reply {
        Reply::Encrypt(reply) => reply.ciphertext_blob.into_vec(),
        other => panic!("{other:?}"),
    });
    blob.unwrap()
}

fn decrypt(connection: &mut Connection, blob: &[u8]) -> Vec<u8> {
    let request = DecryptRequest {
        ciphertext_blob: Bin::from(blob),
        key_id: None,
        encryption_context: None,
        timeout_ms: None,
    };
    let plaintext = call(connection, request, |reply| match reply {
        Reply::Decrypt(reply) => reply.plaintext.into_vec(),
        other => panic!("{other:?}"),
    });
    plaintext.unwrap()
}

#[test]
fn a_server_on_etcd_serves_on_behind_a_restart_and_a_dead_leader() {
    let mut etcd = Etcd::start_with(EtcdOptions { members: 3, is_tls: true, ..EtcdOptions::default() });
    let place = TempDir::new().unwrap();
    let (cert_file, key_file) = etcd.identity();
    let config = place.path().join("keymill.toml");
    let text = format!(
        "[store]\nkind = \"etcd\"\n[store.etcd]\nendpoints = {:?}\nprefix = \"site-1\"\nca_file = {:?}\ncert_file = {cert_file:?}\n\
         key_file = {key_file:?}\n",
        etcd.endpoints(),
        etcd.ca_file(),
    );
    std::fs::write(&config, text).unwrap();
    let start = || Server::start_with(place.path(), &["--config", config.to_str().unwrap()]);

    let server = start();
    let who = credentials(place.path());
    let mut connection = Server::connect(server.msgpack, &who).unwrap();
    let key = create_key(&mut connection).unwrap();
    let blob = encrypt(&mut connection, key, b"before");
    assert_eq!(decrypt(&mut connection, &blob), b"before");
    // No record is in the data directory.
    assert!(!place.path().join("data/keymill.db").exists());

    let leader = etcd.leader();
    etcd.kill(leader);
    // What is read needs no etcd; what is changed waits for the next leader.
    assert_eq!(decrypt(&mut connection, &blob), b"before");
    let began = Instant::now();
    let another = loop {
        match create_key(&mut connection) {
            Ok(key) => break key,
            Err(refused) => assert!(began.elapsed() < Duration::from_secs(60), "{refused}"),
        }
    };
    println!("a key is made {:?} after the death of the leader", began.elapsed());
    let second = encrypt(&mut connection, another, b"behind");
    drop(connection);
    server.kill();

    let server = start();
    let mut connection = Server::connect(server.msgpack, &who).unwrap();
    assert_eq!(decrypt(&mut connection, &blob), b"before");
    assert_eq!(decrypt(&mut connection, &second), b"behind");
    create_key(&mut connection).unwrap();
    drop(connection);
    etcd.start_again(leader);
    assert!(server.stop().success());

    // With the server stopped, its records are compared with what the audit remembers.
    let verify = Command::new(program())
        .args(["audit", "verify", "--store", "--config"])
        .arg(&config)
        .arg("--data-dir")
        .arg(place.path().join("data"))
        .output()
        .unwrap();
    assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stderr));

    // The root is of this instance: another that finds its records does not take them for its own.
    let elsewhere = TempDir::new().unwrap();
    let refused =
        keymill_harness::program::serve(elsewhere.path()).arg("--config").arg(&config).output().unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("root"), "{refused:?}");
}
