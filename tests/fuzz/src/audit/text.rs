//! Texts of strangers on their way into a chain: whatever they hold, each record stays one line of printable ASCII that
//! verifies, and what must be found again is found.

use keymill_core::audit::{Outcome, RecordStamp};
use keymill_core::{ErrorKind, Timestamp};
use keymill_crypto::audit::{ChainHead, ChainVerifier, ChainWriter, Note, Opening};
use serde_json::Value;

use super::{CHAIN, KEYS, at, feed, record};
use crate::memory::{room, within};
use crate::target::Seed;

/// Longer texts are cut in the chain.
const WHOLE_BYTES: usize = 1024;

/// Writes a chain of texts between bytes of 0xff, and verifies it.
pub(crate) fn check(bytes: &[u8]) {
    let texts: Vec<_> = bytes.split(|byte| *byte == 0xff).map(String::from_utf8_lossy).collect();
    let text = |index: usize| &**texts.get(index).unwrap_or(&texts[0]);
    let jump = bytes.first_chunk().map_or(0, |ms| u64::from_be_bytes(*ms));

    let previous = [ChainHead { chain: text(0).to_owned(), sequence: jump, mac: [3; 16] }];
    let writes = [1, 2].map(|sequence| RecordStamp {
        path: text(sequence).to_owned(),
        sequence: sequence as u64,
        tag: text(3).to_owned(),
    });
    let mut request = record(1);
    (request.frontend, request.operation) = (text(4), text(5));
    (request.rule, request.context) = (text(6).into(), Some(text(7).into()));
    (request.outcome, request.writes) = (Outcome::Failed(ErrorKind::Denied), &writes);
    request.time = Timestamp::from_ms(jump);
    let notes = [
        Note::Strangers { source: text(8), reason: text(9), count: jump },
        Note::ClockJump { from: at(0), to: Timestamp::from_ms(jump) },
        Note::Recovered { writes: &writes[..1] },
    ];

    // A byte becomes six where it is escaped, and each text stands in the chain a few times.
    let log = within(64 * 1024 + room(8 * bytes.len()), || {
        let opening = Opening { time: at(0), node: text(0), software: text(1), previous: &previous };
        let mut out = Vec::new();
        let mut writer = ChainWriter::new(&KEYS, CHAIN, &opening, &mut out).expect("the name is fine");
        writer.append(&request, &mut out);
        for note in &notes {
            writer.note(at(2), note, &mut out);
        }
        writer.close(at(3), &mut out);
        out
    });
    assert!(log.iter().all(|byte| (b' '..=b'~').contains(byte) || *byte == b'\n'));
    let lines: Vec<Value> = log
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("a line is JSON"))
        .collect();
    assert_eq!(lines.len(), 6);
    same(&lines[0]["node"], text(0));
    same(&lines[1]["operation"], text(5));
    same(&lines[1]["rule"], text(6));
    same(&lines[2]["reason"], text(9));

    let verifier = feed(ChainVerifier::new(&KEYS, CHAIN), &log);
    let report = verifier.report();
    assert_eq!(report.bad, None);
    assert!(report.closed);
    assert_eq!((report.requests, report.notes, report.previous), (1, 3, previous.to_vec()));
    let last = &writes[usize::from(text(1) != text(2))];
    assert!(verifier.into_stamps().iter().any(|stamp| stamp == *last));
}

fn same(value: &Value, text: &str) {
    let kept = value.as_str().expect("it is a text");
    match text.len() <= WHOLE_BYTES {
        true => assert_eq!(kept, text),
        false => assert!(text.starts_with(kept.strip_suffix('…').expect("a cut text says so"))),
    }
}

/// Returns plain texts, and those that would break out of a line.
pub(crate) fn seeds() -> Vec<Seed> {
    vec![
        (
            "plain",
            b"node\xff0.1\xffcmk/1\xff0a\xffhttp\xffEncrypt\xffrule\xffab\xff10.0.0.0/8\xffno key".to_vec(),
        ),
        ("breaks", "\n{\"seq\":1,\",\"mac\":\"\\\u{0}\u{1b}[2J\u{202e}\u{2028}\u{1F600}".into()),
        ("long", "ä".repeat(600).into()),
    ]
}
