//! The main job over real TCP, against an engine with its shipped parts.
#![allow(clippy::unwrap_used, reason = "tests")]

use keymill_client::{ClientError, Connection};
use keymill_core::id::{CmkId, KeyRef};
use keymill_core::operation::*;
use keymill_harness::{Live, Started};
use keymill_runtime::EngineConfig;

fn call<'a, T>(
    connection: &mut Connection,
    request: impl Into<Request<'a>>,
    take: impl FnOnce(Reply<'_>) -> T,
) -> Result<T, ClientError> {
    connection.send(&request.into())?;
    let answer = connection.receive()?;
    answer.result().map(take)
}

fn create_key(connection: &mut Connection) -> CmkId {
    let request = CreateKeyRequest { description: Some("people".into()), ..Default::default() };
    call(connection, request, |reply| match reply {
        Reply::CreateKey(reply) => reply.key_metadata.key_id,
        other => panic!("{other:?}"),
    })
    .unwrap()
}

fn encrypt(key: CmkId, items: &[Vec<u8>]) -> BatchEncryptRequest<'_> {
    BatchEncryptRequest {
        key_id: KeyRef::Id(key),
        items: items.iter().map(|item| Bin::from(&item[..])).collect(),
        encryption_context: None,
        encryption_contexts: None,
        timeout_ms: None,
    }
}

fn sealed(reply: Reply<'_>) -> Vec<Vec<u8>> {
    match reply {
        Reply::BatchEncrypt(reply) => {
            assert!(reply.errors.is_empty());
            reply.items.into_iter().map(|item| item.unwrap().into_vec()).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn decrypt(items: &[Vec<u8>]) -> BatchDecryptRequest<'_> {
    BatchDecryptRequest {
        items: items.iter().map(|item| Bin::from(&item[..])).collect(),
        key_id: None,
        encryption_context: None,
        encryption_contexts: None,
        timeout_ms: None,
    }
}

#[test]
fn what_was_sealed_in_batches_opens_again_also_after_a_restart() {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut connection = live.connect(&credentials);
    let key = create_key(&mut connection);
    let items: Vec<Vec<u8>> = (0..5_000usize).map(|i| vec![i as u8; i % 1_500]).collect();
    let blobs = call(&mut connection, encrypt(key, &items), sealed).unwrap();
    assert_eq!(blobs.len(), items.len());
    drop(connection);
    let live = live.restart(EngineConfig::default());
    let mut connection = live.connect(&credentials);
    let opened = call(&mut connection, decrypt(&blobs), |reply| match reply {
        Reply::BatchDecrypt(reply) => {
            assert!(reply.errors.is_empty());
            assert_eq!(reply.key_ids, [key]);
            assert!(reply.key_index.iter().all(|index| *index == Some(0)));
            reply.items.into_iter().map(|item| item.unwrap().into_vec()).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    })
    .unwrap();
    assert!(opened == items, "every item comes back as it was");
}

#[test]
fn a_server_that_stops_answers_what_it_read_and_says_that_it_did_nothing_else() {
    let Started { mut live, credentials } = Live::start(EngineConfig::default());
    let mut connection = live.connect(&credentials);
    let key = create_key(&mut connection);
    let items = vec![b"x".to_vec(); 100];
    let sent: Vec<u64> = (0..200).map(|_| connection.send(&encrypt(key, &items).into()).unwrap()).collect();
    connection.flush().unwrap();
    let first = connection.receive().unwrap().id();
    let stopping = std::thread::spawn(move || live.stop());
    let mut answered = vec![first];
    let last = loop {
        match connection.receive() {
            Ok(answer) => {
                answer.result().unwrap();
                answered.push(answer.id());
            }
            Err(error) => break error,
        }
    };
    let last = last.refusal().expect("last words").clone();
    assert!((last.status, last.retryable, last.nothing_done) == (503, true, true), "{last:?}");
    assert!(answered.iter().all(|id| sent.contains(id)));
    drop(connection);
    stopping.join().unwrap();
}

#[test]
fn one_bad_item_is_an_error_of_its_own_and_its_neighbours_open() {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut connection = live.connect(&credentials);
    let key = create_key(&mut connection);
    let items: Vec<Vec<u8>> = (0..100u8).map(|i| vec![i; 40]).collect();
    let mut blobs = call(&mut connection, encrypt(key, &items), sealed).unwrap();
    blobs[50][60] ^= 1;
    blobs[70].truncate(10);
    call(&mut connection, decrypt(&blobs), |reply| match reply {
        Reply::BatchDecrypt(reply) => {
            assert_eq!(reply.errors.iter().map(|e| e.0).collect::<Vec<_>>(), [50, 70]);
            assert_eq!(reply.errors[0].1, "InvalidParameter");
            assert_eq!(reply.errors[0].2, reply.errors[1].2, "one message, whatever the part");
            for (i, item) in reply.items.iter().enumerate() {
                match i {
                    50 | 70 => assert!(item.is_none()),
                    _ => assert_eq!(item.as_deref().unwrap(), &items[i][..]),
                }
            }
        }
        other => panic!("{other:?}"),
    })
    .unwrap();
}

#[test]
fn a_disabled_key_is_refused_at_once_on_every_connection() {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut one = live.connect(&credentials);
    let mut other = live.connect(&credentials);
    let key = create_key(&mut one);
    let items = vec![b"x".to_vec()];
    let blobs = call(&mut other, encrypt(key, &items), sealed).unwrap();
    let disable = DisableKeyRequest { key_id: KeyRef::Id(key), timeout_ms: None };
    call(&mut one, disable, |_| ()).unwrap();
    let refused = call(&mut other, encrypt(key, &items), |_| ()).unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused(error) if error.code == "Rejected.Disabled"),
        "{refused}"
    );
    call(&mut other, decrypt(&blobs), |reply| match reply {
        Reply::BatchDecrypt(reply) => assert_eq!(reply.errors[0].1, "Rejected.Disabled"),
        other => panic!("{other:?}"),
    })
    .unwrap();
}

#[test]
fn single_operations_pipelined_a_thousand_deep_all_get_their_own_answer() {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut connection = live.connect(&credentials);
    let key = create_key(&mut connection);
    let mut sent = std::collections::HashMap::new();
    for i in 0..1_000u32 {
        let plaintext = i.to_be_bytes();
        let request = EncryptRequest {
            key_id: KeyRef::Id(key),
            plaintext: Bin::from(&plaintext[..]),
            encryption_context: None,
            timeout_ms: None,
        };
        sent.insert(connection.send(&request.into()).unwrap(), i);
    }
    let mut blobs = Vec::new();
    for _ in 0..1_000 {
        let answer = connection.receive().unwrap();
        let i = sent.remove(&answer.id()).expect("each id is answered once");
        match answer.result().unwrap() {
            Reply::Encrypt(reply) => blobs.push((i, reply.ciphertext_blob.into_vec())),
            other => panic!("{other:?}"),
        }
    }
    for (i, blob) in blobs {
        let request = DecryptRequest {
            ciphertext_blob: Bin::from(blob),
            key_id: None,
            encryption_context: None,
            timeout_ms: None,
        };
        let opened = call(&mut connection, request, |reply| match reply {
            Reply::Decrypt(reply) => reply.plaintext.into_vec(),
            other => panic!("{other:?}"),
        })
        .unwrap();
        assert_eq!(opened, i.to_be_bytes());
    }
}
