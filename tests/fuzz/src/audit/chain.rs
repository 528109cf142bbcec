//! A chain that somebody else kept: with the audit key only the lines that were written are good, and without it the numbering
//! holds.

use std::sync::LazyLock;

use keymill_core::audit::RecordStamp;
use keymill_crypto::audit::{ChainHead, ChainVerifier, ChainWriter, Note, Opening};

use super::{CHAIN, KEYS, at, feed, record};
use crate::memory::{room, within};
use crate::target::Seed;

/// The one chain that was ever written: its bytes, and its head.
static WRITTEN: LazyLock<(Vec<u8>, ChainHead)> = LazyLock::new(|| {
    let writes = [RecordStamp { path: "cmk/1".into(), sequence: 2, tag: "0a".into() }];
    let previous = [ChainHead { chain: "20261123T000000Z-00000000-00".into(), sequence: 9, mac: [9; 16] }];
    let opening = Opening { time: at(0), node: "n", software: "0", previous: &previous };
    let mut out = Vec::new();
    let mut writer = ChainWriter::new(&KEYS, CHAIN, &opening, &mut out).expect("the name is fine");
    writer.append(&record(1), &mut out);
    writer.checkpoint(at(2), &mut out);
    let mut change = record(3);
    change.writes = &writes;
    writer.append(&change, &mut out);
    writer.note(at(4), &Note::Strangers { source: "10.0.0.0/8", reason: "no key", count: 3 }, &mut out);
    writer.close(at(5), &mut out);
    (out, writer.head())
});

/// Verifies the input with the audit key, with the verifying key alone, and against the head that is remembered.
pub(crate) fn check(bytes: &[u8]) {
    let (written, head) = &*WRITTEN;
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let verifier = ChainVerifier::new(&KEYS, CHAIN).verify_against(Some(head.clone()));
    let verifier = within(room(bytes.len()), || feed(verifier, bytes));
    let report = verifier.report();
    let good = usize::try_from(report.head.sequence).expect("the lines were counted");
    assert!(
        lines[..good].concat() == written[..lines[..good].concat().len()],
        "only what was written is good"
    );
    assert_eq!(
        report.is_good(),
        bytes.starts_with(written) && lines.len() <= good + usize::from(report.torn)
    );
    if let Some(bad) = &report.bad {
        assert_eq!(bad.number, report.head.sequence + 1);
    }

    let verifier = ChainVerifier::public(KEYS.verifying_key(), CHAIN);
    let verifier = within(room(bytes.len()), || feed(verifier, bytes));
    let report = verifier.report();
    let good = usize::try_from(report.head.sequence).expect("the lines were counted");
    assert!(good <= lines.len());
    let counted = report.requests + report.notes + report.checkpoints + u64::from(good > 0);
    // A checkpoint is one of the lines that it leaves unsigned no more.
    assert_eq!(counted, report.head.sequence);
    assert!(report.unsigned <= report.head.sequence);
    assert_eq!(report.outcomes.values().sum::<u64>(), report.requests);
    if report.is_good() {
        assert_eq!(good + usize::from(report.torn), lines.len());
    }
}

/// Returns the chain, cut and changed in a few ways.
pub(crate) fn seeds() -> Vec<Seed> {
    let (written, _) = &*WRITTEN;
    let lines: Vec<&[u8]> = written.split_inclusive(|byte| *byte == b'\n').collect();
    let altered =
        String::from_utf8(written.clone()).expect("a chain is ASCII").replace("no key", "no\\u006bey");
    vec![
        ("whole", written.clone()),
        ("torn", written[..written.len() - 40].to_vec()),
        ("missing", [lines[0], lines[1], lines[3]].concat()),
        ("twice", [lines[0], lines[1], lines[1]].concat()),
        ("altered", altered.into()),
    ]
}
