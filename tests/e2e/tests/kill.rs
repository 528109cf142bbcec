//! `kill -9` at random moments under write load, through the real program: no acknowledged key, version, alias or audit record is lost, and the
//! audit chains verify. 20 kills by default, 1,000 with `KEYMILL_TEST_ALL`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keymill_client::{Connection, Credentials};
use keymill_core::id::{AliasName, CmkId, KeyRef, RequestId};
use keymill_core::operation::*;
use keymill_harness::program::{Server, credentials, program};

#[derive(Default)]
struct Acknowledged {
    /// Keys with the number of their newest version.
    keys: Vec<(CmkId, u32)>,
    aliases: Vec<(AliasName, CmkId)>,
    /// Blobs with their plaintexts.
    blobs: Vec<(Vec<u8>, Vec<u8>)>,
    requests: Vec<RequestId>,
}

fn call<'a, T>(
    connection: &mut Connection,
    request: impl Into<Request<'a>>,
    take: impl FnOnce(Reply<'_>) -> T,
) -> Option<T> {
    connection.send(&request.into()).ok()?;
    let answer = connection.receive().ok()?;
    answer.result().ok().map(take)
}

fn create_key(connection: &mut Connection) -> Option<(CmkId, RequestId)> {
    let request = CreateKeyRequest::default();
    call(connection, request, |reply| match reply {
        Reply::CreateKey(reply) => (reply.key_metadata.key_id, reply.request_id),
        other => panic!("{other:?}"),
    })
}

/// Writes until the connection breaks.
fn write(mut connection: Connection, name: String, stop: &AtomicBool) -> Acknowledged {
    let mut done = Acknowledged::default();
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let Some((key, request)) = create_key(&mut connection) else { break };
        done.keys.push((key, 1));
        done.requests.push(request);
        let alias: AliasName = format!("alias/{name}-{n}").parse().unwrap();
        let request =
            CreateAliasRequest { alias_name: alias.clone(), key_id: KeyRef::Id(key), timeout_ms: None };
        let Some(request) = call(&mut connection, request, |reply| match reply {
            Reply::CreateAlias(reply) => reply.request_id,
            other => panic!("{other:?}"),
        }) else {
            break;
        };
        done.aliases.push((alias, key));
        done.requests.push(request);
        for i in 0..8u8 {
            if i % 4 == 3 {
                let request = RotateKeyRequest { key_id: KeyRef::Id(key), timeout_ms: None };
                let Some(request) = call(&mut connection, request, |reply| match reply {
                    Reply::RotateKey(reply) => reply.request_id,
                    other => panic!("{other:?}"),
                }) else {
                    return done;
                };
                done.keys.last_mut().unwrap().1 += 1;
                done.requests.push(request);
            }
            let plaintext = vec![i; 100];
            let request = EncryptRequest {
                key_id: KeyRef::Id(key),
                plaintext: Bin::from(&plaintext[..]),
                encryption_context: None,
                timeout_ms: None,
            };
            let Some((blob, request)) = call(&mut connection, request, |reply| match reply {
                Reply::Encrypt(reply) => (reply.ciphertext_blob.into_vec(), reply.request_id),
                other => panic!("{other:?}"),
            }) else {
                return done;
            };
            done.blobs.push((blob, plaintext));
            done.requests.push(request);
        }
    }
    done
}

/// Checks that everything of the last round is there.
fn check(connection: &mut Connection, done: &Acknowledged) {
    for (key, newest) in &done.keys {
        let request = ListKeyVersionsRequest {
            key_id: KeyRef::Id(*key),
            page_number: None,
            page_size: None,
            timeout_ms: None,
        };
        let numbers = call(connection, request, |reply| match reply {
            Reply::ListKeyVersions(reply) => {
                reply.key_versions.key_version.iter().map(|row| row.version_number).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        });
        let numbers = numbers.unwrap_or_else(|| panic!("key {key} was acknowledged and is lost"));
        // The kill may have come between the making of one more and its answer.
        assert!(
            numbers.iter().copied().eq(1..=*newest) || numbers.iter().copied().eq(1..=*newest + 1),
            "versions {numbers:?} of key {key}, of which {newest} were acknowledged"
        );
    }
    for (alias, key) in &done.aliases {
        let request = DescribeKeyRequest { key_id: KeyRef::Alias(alias.clone()), timeout_ms: None };
        let named = call(connection, request, |reply| match reply {
            Reply::DescribeKey(reply) => reply.key_metadata.key_id,
            other => panic!("{other:?}"),
        });
        assert_eq!(named, Some(*key), "{alias} was acknowledged");
    }
    for (blob, plaintext) in &done.blobs {
        let request = DecryptRequest {
            ciphertext_blob: Bin::from(&blob[..]),
            key_id: None,
            encryption_context: None,
            timeout_ms: None,
        };
        let opened = call(connection, request, |reply| match reply {
            Reply::Decrypt(reply) => reply.plaintext.into_vec(),
            other => panic!("{other:?}"),
        });
        assert_eq!(opened.as_ref(), Some(plaintext));
    }
}

/// One round: three writers, a kill after so long.
fn round(
    place: &Path,
    credentials: &Credentials,
    number: usize,
    after: Duration,
    last: &Acknowledged,
) -> Acknowledged {
    let server = Server::start(place);
    let mut connection =
        Server::connect(server.msgpack, credentials).expect("a server that serves lets us in");
    check(&mut connection, last);
    let stop = AtomicBool::new(false);
    let writers: Vec<_> = (0..3).filter_map(|_| Server::connect(server.msgpack, credentials)).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = writers
            .into_iter()
            .enumerate()
            .map(|(w, connection)| {
                let stop = &stop;
                scope.spawn(move || write(connection, format!("r{number}w{w}"), stop))
            })
            .collect();
        // The moment of the kill is what is random here; nothing is waited for.
        std::thread::sleep(after);
        server.kill();
        stop.store(true, Ordering::Relaxed);
        let mut all = Acknowledged::default();
        for done in threads.into_iter().map(|thread| thread.join().unwrap()) {
            all.keys.extend(done.keys);
            all.aliases.extend(done.aliases);
            all.blobs.extend(done.blobs);
            all.requests.extend(done.requests);
        }
        all
    })
}

#[test]
fn kill_9_under_write_load_loses_nothing_that_was_acknowledged() {
    let kills = if std::env::var_os("KEYMILL_TEST_ALL").is_some() { 1_000 } else { 20 };
    let place = tempfile::tempdir().unwrap();
    let first = Server::start(place.path());
    let credentials = credentials(place.path());
    first.kill();
    // A fixed sequence of moments between 1 and 250 ms (Lehmer, MINSTD), so that a failure can be repeated.
    let mut seed = 20_261_124u64;
    let mut last = Acknowledged::default();
    let mut requests = HashSet::new();
    let mut keys = 0;
    for number in 0..kills {
        seed = seed * 48_271 % 0x7fff_ffff;
        last = round(place.path(), &credentials, number, Duration::from_millis(1 + seed % 250), &last);
        requests.extend(last.requests.iter().map(ToString::to_string));
        keys += last.keys.len();
    }
    assert!(keys > kills, "the load was real: {keys} keys in {kills} rounds");
    let server = Server::start(place.path());
    check(&mut Server::connect(server.msgpack, &credentials).unwrap(), &last);
    assert!(server.stop().success(), "an orderly end exits 0");

    let verified = Command::new(program())
        .args(["audit", "verify", "--store", "--data-dir"])
        .arg(place.path().join("data"))
        .output()
        .unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    for file in std::fs::read_dir(place.path().join("data/audit")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            for line in std::fs::read(path).unwrap().split(|byte| *byte == b'\n') {
                if let Ok(record) = serde_json::from_slice::<serde_json::Value>(line) {
                    for id in keymill_e2e::requests_of(&record) {
                        requests.remove(&id);
                    }
                }
            }
        }
    }
    assert!(requests.is_empty(), "{} acknowledged requests have no record", requests.len());
}

#[test]
fn a_second_process_on_the_same_data_is_refused_and_says_why() {
    let place = tempfile::tempdir().unwrap();
    let server = Server::start(place.path());
    let second = keymill_harness::program::serve(place.path()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let told = String::from_utf8_lossy(&second.stderr);
    assert!(told.contains("in use") || told.contains("another process"), "{told}");
    assert!(server.stop().success());
}

#[test]
fn a_kill_during_the_first_start_leaves_an_installation_that_can_be_entered() {
    for after in 0..12u64 {
        let place = tempfile::tempdir().unwrap();
        let mut child = keymill_harness::program::serve(place.path()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(after * 4));
        child.kill().unwrap();
        child.wait().unwrap();
        let server = Server::start(place.path());
        let credentials = credentials(place.path());
        assert!(Server::connect(server.msgpack, &credentials).is_some(), "killed after {} ms", after * 4);
    }
}
