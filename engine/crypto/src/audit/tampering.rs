//! Attacks on a kept chain (security case F4): whatever is done to the bytes of a small log, the verifier finds the line.

use std::collections::BTreeMap;

use keymill_core::audit::{Alike, AuditRecord, Outcome, RecordStamp};
use keymill_core::error::ErrorKind;
use keymill_core::id::RequestId;
use keymill_core::{Sensitive, Timestamp};

use super::*;

const NAME: &str = "20261124T053017Z-a3f91c02-00";
const OTHER: &str = "20261124T053017Z-a3f91c02-01";

fn keys() -> ChainKeys {
    ChainKeys::new(&Sensitive::copied(&[1; 32]), &Sensitive::copied(&[2; 32])).unwrap()
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_ms(1_795_521_617_000 + ms)
}

fn record<'a>(ms: u64, outcome: Outcome, writes: &'a [RecordStamp]) -> AuditRecord<'a> {
    AuditRecord {
        time: at(ms),
        request: RequestId::from_bytes([ms as u8; 16]),
        principal: None,
        source: None,
        frontend: "http",
        operation: "CreateKey",
        outcome,
        rule: "default".into(),
        keys: &[],
        items: 1,
        failed: 0,
        context: None,
        fallback: None,
        recipient: None,
        micros: ms,
        alike: &[],
        writes,
    }
}

fn stamp(path: &str, sequence: u64) -> RecordStamp {
    RecordStamp { path: path.into(), sequence, tag: format!("{sequence:02x}") }
}

/// Ten lines: open, 3 requests, checkpoint, request, note, checkpoint, a request with three more alike, end.
fn log(name: &str) -> (Vec<u8>, ChainHead) {
    let mut out = Vec::new();
    let previous = [ChainHead { chain: "20261123T000000Z-00000000-00".into(), sequence: 9, mac: [9; 16] }];
    let opening = Opening { time: at(0), node: "n", software: "0", previous: &previous };
    let mut writer = ChainWriter::new(&keys(), name, &opening, &mut out).unwrap();
    writer.append(&record(1, Outcome::Done, &[stamp("cmk/1", 1)]), &mut out);
    writer.append(&record(2, Outcome::Failed(ErrorKind::Denied), &[]), &mut out);
    writer.append(&record(3, Outcome::Done, &[stamp("cmk/1", 2), stamp("cmk/2", 1)]), &mut out);
    writer.checkpoint(at(4), &mut out);
    writer.append(&record(5, Outcome::Done, &[]), &mut out);
    writer.note(at(6), &Note::Recovered { writes: &[stamp("cmk/2", 5)] }, &mut out);
    writer.checkpoint(at(7), &mut out);
    let alike = [7, 8, 9].map(|ms| Alike(RequestId::from_bytes([ms; 16]), 1));
    writer.append(&AuditRecord { alike: &alike, ..record(8, Outcome::Done, &[]) }, &mut out);
    writer.close(at(9), &mut out);
    (out, writer.head())
}

fn lines(log: &[u8]) -> Vec<&[u8]> {
    log.split_inclusive(|c| *c == b'\n').collect()
}

fn feed(mut verifier: ChainVerifier, log: &[u8]) -> ChainVerifier {
    for line in lines(log) {
        match line.strip_suffix(b"\n") {
            Some(whole) => verifier.line(whole, false),
            None => verifier.line(line, true),
        };
    }
    verifier
}

fn verify(log: &[u8], head: Option<&ChainHead>) -> ChainReport {
    feed(ChainVerifier::new(&keys(), NAME).verify_against(head.cloned()), log).report()
}

fn verify_publicly(log: &[u8], head: Option<&ChainHead>) -> ChainReport {
    let verifier = ChainVerifier::public(keys().verifying_key(), NAME);
    feed(verifier.verify_against(head.cloned()), log).report()
}

#[test]
fn an_untouched_chain_is_good_and_counted() {
    let (log, head) = log(NAME);
    for report in [verify(&log, Some(&head)), verify(&log, None), verify_publicly(&log, Some(&head))] {
        assert_eq!(report.bad, None);
        assert_eq!(report.head, head);
        assert_eq!((report.requests, report.notes, report.checkpoints, report.unsigned), (8, 1, 3, 0));
        assert!(report.closed && !report.torn && report.is_good());
        assert_eq!(report.outcomes.into_iter().collect::<Vec<_>>(), [("Denied".into(), 1), ("ok".into(), 7)]);
        assert_eq!(report.previous[0].sequence, 9);
    }
    let verifier = feed(ChainVerifier::new(&keys(), NAME), &log);
    let stamps = verifier.stamps().iter().map(|stamp| (stamp.path, stamp.sequence));
    assert_eq!(stamps.collect::<BTreeMap<_, _>>().into_values().collect::<Vec<_>>(), [2, 5]);
}

#[test]
fn every_edit_of_a_byte_names_its_line() {
    let (log, head) = log(NAME);
    let mut number = 1;
    for at in 0..log.len() {
        let end_of_line = log[at] == b'\n';
        for bit in 0..8 {
            let mut edited = log.clone();
            edited[at] ^= 1 << bit;
            let bad = verify(&edited, Some(&head)).bad.expect("an edit goes unnoticed");
            assert_eq!(bad.number, number, "byte {at} bit {bit}");
        }
        let mut edited = log.clone();
        edited[at] = b'\n';
        assert!(end_of_line || verify(&edited, Some(&head)).bad.is_some_and(|bad| bad.number == number));
        edited.remove(at);
        assert!(
            verify(&edited, Some(&head)).bad.is_some_and(|bad| bad.number == number),
            "byte {at} removed"
        );
        number += u64::from(end_of_line);
    }
}

#[test]
fn every_dropped_line_is_missed() {
    let (log, head) = log(NAME);
    let count = lines(&log).len();
    for dropped in 0..count {
        for until in dropped + 1..=count {
            let mut kept = lines(&log);
            kept.drain(dropped..until);
            let kept = kept.concat();
            for report in [verify(&kept, Some(&head)), verify_publicly(&kept, Some(&head))] {
                let bad = report.bad.expect("a drop goes unnoticed");
                assert_eq!(bad.number, dropped as u64 + 1);
                assert!(matches!(bad.fault, Fault::Missing { .. } | Fault::Cut { .. }), "{bad}");
            }
        }
    }
}

#[test]
fn every_swap_repetition_and_move_is_found() {
    let (log, head) = log(NAME);
    let count = lines(&log).len();
    for a in 0..count {
        for b in 0..count {
            let mut moved = lines(&log);
            let line = moved[a];
            moved.insert(b, line);
            let mut swapped = lines(&log);
            swapped.swap(a, b);
            let mut copied = lines(&log);
            copied[b] = copied[a];
            let bad = |log: Vec<&[u8]>| {
                let log = log.concat();
                verify_publicly(&log, Some(&head)).bad.expect("a move goes unnoticed in public");
                verify(&log, Some(&head)).bad.expect("a move goes unnoticed").number
            };
            assert!(bad(moved) <= b as u64 + 2);
            if a != b {
                assert_eq!(bad(swapped), a.min(b) as u64 + 1);
                assert_eq!(bad(copied), b as u64 + 1);
            }
        }
    }
}

#[test]
fn every_cut_is_found_against_a_remembered_head() {
    let (log, head) = log(NAME);
    for length in 0..log.len() {
        let kept = &log[..length];
        let whole = kept.iter().filter(|c| **c == b'\n').count() as u64;
        let report = verify(kept, Some(&head));
        assert_eq!(report.bad, Some(BadLine { number: whole + 1, fault: Fault::Cut { remembered: 10 } }));
        // Without a head a cut looks like a crash: what is left is good, and a half line is told.
        let report = verify(kept, None);
        assert_eq!((report.bad, report.head.sequence), (None, whole));
        assert_eq!(report.torn, kept.last().is_some_and(|c| *c != b'\n'));
        assert!(!report.closed);
    }
}

#[test]
fn every_splice_of_two_chains_is_found() {
    let ((log_a, head), (log_b, _)) = (log(NAME), log(OTHER));
    let (ours, theirs) = (lines(&log_a), lines(&log_b));
    for i in 0..=ours.len() {
        for j in 0..theirs.len() {
            let spliced = [&ours[..i], &theirs[j..]].concat().concat();
            let bad = verify(&spliced, Some(&head)).bad.expect("a splice goes unnoticed");
            assert_eq!(bad.number, i as u64 + 1);
            let mut replaced = ours.clone();
            if i < ours.len() {
                replaced[i] = theirs[j];
                assert_eq!(verify(&replaced.concat(), None).bad.expect("unnoticed").number, i as u64 + 1);
            }
        }
    }
    assert!(verify(&log_b, None).bad.is_some(), "a whole other file in its place");
    assert_eq!(verify_publicly(&log_b, None).bad.unwrap().fault, Fault::AnotherChain);
}

#[test]
fn an_older_state_of_the_same_name_is_not_the_remembered_one() {
    let (log, head) = log(NAME);
    let forged = ChainHead { mac: [0; 16], sequence: 6, ..head };
    let bad = verify(&log, Some(&forged)).bad.unwrap();
    assert_eq!(bad, BadLine { number: 6, fault: Fault::Replaced });
}

#[test]
fn a_tail_after_the_last_checkpoint_is_good_but_unsigned() {
    let (log, _) = log(NAME);
    let tail = lines(&log)[..7].concat();
    let report = verify(&[&tail[..], b"{\"seq\":8,"].concat(), None);
    assert!(report.is_good() && report.torn);
    assert_eq!((report.unsigned, report.checkpoints, report.head.sequence), (2, 1, 7));
}

#[test]
fn other_keys_verify_nothing() {
    let (log, _) = log(NAME);
    let other = |audit, seed| {
        ChainKeys::new(&Sensitive::copied(&[audit; 32]), &Sensitive::copied(&[seed; 32])).unwrap()
    };
    let fault = |keys: &ChainKeys| feed(ChainVerifier::new(keys, NAME), &log).report().bad.unwrap();
    assert_eq!(fault(&other(3, 2)), BadLine { number: 1, fault: Fault::Altered });
    assert_eq!(fault(&other(1, 3)), BadLine { number: 1, fault: Fault::AnotherChain });
}

#[test]
fn the_public_key_alone_finds_a_forged_checkpoint() {
    let (log, _) = log(NAME);
    let text = String::from_utf8(log).unwrap();
    for (from, to) in [
        ("\"closed\":true", "\"closed\":false"),
        ("T12:00:17.004Z", "T12:00:17.005Z"),
        ("\"count\":4", "\"count\":3"),
    ] {
        assert!(text.contains(from), "{from}");
        assert_eq!(
            verify_publicly(text.replace(from, to).as_bytes(), None).bad.unwrap().fault,
            Fault::BadCheckpoint
        );
    }
}
