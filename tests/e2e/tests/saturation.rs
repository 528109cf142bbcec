//! The audit loses nothing at saturation: batches, pipelined single requests and management operations over several connections, through
//! the real program, its audit files following one another all the while; then `kill -9`. Every request that was answered has exactly one
//! record, and beside those there are at most the requests that were under way. 3 seconds by default, 60 with `KEYMILL_TEST_ALL`.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keymill_client::{ClientError, Connection};
use keymill_core::id::{CmkId, KeyRef};
use keymill_core::operation::*;
use keymill_harness::program::{Server, credentials, program};

/// What one connection saw.
#[derive(Default)]
struct Seen {
    /// Requests that were handed to the connection.
    sent: u64,
    /// Those that were answered, whatever the answer.
    answered: u64,
    /// The ids of them, where the answer has one: that of a batch has none, and they are counted.
    ids: Vec<u128>,
}

impl Seen {
    fn take(&mut self, id: Option<u128>) {
        self.answered += 1;
        self.ids.extend(id);
    }
}

fn number(id: &str) -> u128 {
    u128::from_str_radix(&id.replace('-', ""), 16).unwrap()
}

/// Returns the id that the next answer carries, if it does; `None` where the connection is gone.
fn id_of(connection: &mut Connection) -> Option<Option<u128>> {
    let answer = connection.receive().ok()?;
    let id = match answer.result() {
        Ok(Reply::Encrypt(reply)) => reply.request_id,
        Ok(Reply::BatchEncrypt(_)) => return Some(None),
        Ok(Reply::CreateKey(reply)) => reply.request_id,
        Ok(Reply::UpdateKeyDescription(reply)) => reply.request_id,
        Ok(Reply::DescribeKey(reply)) => reply.request_id,
        Ok(other) => panic!("{other:?}"),
        // A refusal is an answer as well, and has its record.
        Err(ClientError::Refused(error)) => return Some(Some(number(&error.request_id))),
        Err(_) => return None,
    };
    Some(Some(u128::from_be_bytes(*id.as_bytes())))
}

/// Sends requests in turn, so many under way at once, until it is told to stop or the connection is gone.
fn load(
    mut connection: Connection,
    requests: &[Request<'_>],
    under_way: usize,
    is_over: &AtomicBool,
) -> Seen {
    let mut seen = Seen::default();
    let mut out = VecDeque::new();
    for request in requests.iter().cycle() {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        // Sent or not: one that failed may have arrived.
        seen.sent += 1;
        let Ok(sent) = connection.send(request) else { break };
        out.push_back(sent);
        if out.len() >= under_way {
            let Some(id) = id_of(&mut connection) else { return seen };
            out.pop_front();
            seen.take(id);
        }
    }
    // What was answered before the end is read, too.
    while seen.answered < seen.sent
        && let Some(id) = id_of(&mut connection)
    {
        seen.take(id);
    }
    seen
}

/// What the audit has of the requests over MessagePack TCP: the ids of all but batches, sorted, and how many batches that were done.
fn recorded(audit: &Path) -> (Vec<u128>, u64) {
    let (mut ids, mut batches) = (Vec::new(), 0);
    for file in std::fs::read_dir(audit).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        for line in std::fs::read(path).unwrap().split_inclusive(|byte| *byte == b'\n') {
            // The last line of a chain may be torn: it was never answered.
            let Some(line) = line.strip_suffix(b"\n") else { continue };
            let line: serde_json::Value = serde_json::from_slice(line).unwrap();
            if line["frontend"] != "msgpack" {
                continue;
            }
            let requests = keymill_e2e::requests_of(&line);
            match line["operation"] == "BatchEncrypt" && line["outcome"] == "ok" {
                true => batches += requests.len() as u64,
                false => ids.extend(requests.iter().map(|id| number(id))),
            }
        }
    }
    ids.sort_unstable();
    (ids, batches)
}

#[test]
fn a_kill_at_saturation_leaves_one_record_for_each_answer_and_none_for_what_never_came() {
    let seconds = if std::env::var_os("KEYMILL_TEST_ALL").is_some() { 60 } else { 3 };
    let place = tempfile::tempdir().unwrap();
    let config = place.path().join("keymill.toml");
    std::fs::write(&config, "[audit]\nrotate_bytes = 1048576\n").unwrap();
    let server = Server::start_with(place.path(), &["--config", config.to_str().unwrap()]);
    let credentials = credentials(place.path());
    let address = server.msgpack;
    let connect = || Server::connect(address, &credentials).unwrap();

    let mut connection = connect();
    connection.send(&CreateKeyRequest::default().into()).unwrap();
    let answer = connection.receive().unwrap();
    let (key, first): (CmkId, u128) = match answer.result().unwrap() {
        Reply::CreateKey(reply) => {
            (reply.key_metadata.key_id, u128::from_be_bytes(*reply.request_id.as_bytes()))
        }
        other => panic!("{other:?}"),
    };
    drop(connection);

    let single = |key_id: KeyRef| -> Request<'static> {
        EncryptRequest {
            key_id,
            plaintext: Bin::from(&b"sixteen bytes ok"[..]),
            encryption_context: None,
            timeout_ms: None,
        }
        .into()
    };
    let items = vec![vec![7u8; 64]; 256];
    let batch: Request<'_> = keymill_e2e::batch_encrypt(key, &items).into();
    let unknown = KeyRef::Id(CmkId::from_bytes([9; 16]));
    let change = |text: &str| -> Request<'static> {
        let description = text.to_owned();
        UpdateKeyDescriptionRequest { key_id: KeyRef::Id(key), description, timeout_ms: None }.into()
    };
    let singles = [single(KeyRef::Id(key)), single(KeyRef::Id(key)), single(unknown)];
    let batches = [batch];
    let management = [
        change("one"),
        CreateKeyRequest::default().into(),
        DescribeKeyRequest { key_id: KeyRef::Id(key), timeout_ms: None }.into(),
    ];
    // Kinds of load: requests, how many under way, connections.
    let kinds: [(&[Request<'_>], usize, usize); 4] =
        [(&singles, 64, 2), (&singles, 1, 2), (&batches, 4, 2), (&management, 8, 2)];

    let is_over = AtomicBool::new(false);
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (requests, under_way, connections) in kinds {
            for _ in 0..connections {
                let (connection, is_over) = (connect(), &is_over);
                threads.push(scope.spawn(move || load(connection, requests, under_way, is_over)));
            }
        }
        // So long the load lasts; nothing is waited for.
        std::thread::sleep(Duration::from_secs(seconds));
        server.kill();
        is_over.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });

    let of =
        |kinds: std::ops::Range<usize>, count: fn(&Seen) -> u64| seen[kinds].iter().map(count).sum::<u64>();
    let (named, batches, management) = (0..4, 4..6, 6..8);
    let sent = of(0..8, |seen| seen.sent) + 1;
    let answered = of(0..8, |seen| seen.answered) + 1;
    let batch_answers = of(batches.clone(), |seen| seen.answered);
    let management_answers = of(management, |seen| seen.answered);
    assert!(of(named, |seen| seen.answered) > 200 * seconds, "the load was real: {answered} answers");
    assert!(batch_answers > 10 && management_answers > 10, "{batch_answers} {management_answers}");
    // Of batches those that were refused, which have ids, are among the others.
    let batches_done = of(batches.clone(), |seen| seen.answered - seen.ids.len() as u64);
    let batches_under_way = of(batches, |seen| seen.sent - seen.answered);
    let mut ids: Vec<u128> = seen.iter().flat_map(|seen| &seen.ids).copied().chain([first]).collect();
    ids.sort_unstable();

    let (recorded, recorded_batches) = recorded(&place.path().join("data/audit"));
    assert!(recorded.windows(2).all(|pair| pair[0] != pair[1]), "a request has two records");
    let lost = ids.iter().filter(|id| recorded.binary_search(id).is_err()).count();
    assert_eq!(lost, 0, "of {} answers with an id", ids.len());
    assert!(recorded_batches >= batches_done, "{recorded_batches} records of {batches_done} batches");
    assert!(recorded_batches <= batches_done + batches_under_way, "{recorded_batches} of {batches_done}");
    // As many records as answers, but for what was under way.
    let records = recorded.len() as u64 + recorded_batches;
    assert!(
        records >= answered && records - answered <= sent - answered,
        "{records} for {answered} of {sent}"
    );

    // Files followed one another under this load, and hold together after the kill.
    let files = std::fs::read_dir(place.path().join("data/audit")).unwrap().count();
    let verified = Command::new(program())
        .args(["audit", "verify", "--data-dir"])
        .arg(place.path().join("data"))
        .output();
    let verified = verified.unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    eprintln!(
        "{answered} answers, {batch_answers} of batches, {management_answers} of management; {records} records; {files} files"
    );
}
