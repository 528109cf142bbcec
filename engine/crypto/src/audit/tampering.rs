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
        secrets: &[],
        certificates: &[],
        providers: &[],
        items: 1,
        failed: 0,
        context: None,
        fallback: None,
        recipient: None,
        approved_by: None,
        micros: ms,
        alike: &[],
        writes,
    }
}

fn stamp(path: &str, sequence: u64) -> RecordStamp {
    RecordStamp { path: path.into(), sequence, tag: format!("{sequence:02x}") }
}

const EARLIER: &str = "20261123T000000Z-00000000-00";
const NEXT: &str = "20261124T053017Z-a3f91c02-02";

/// The file that follows [`NAME`]'s: its chain names the end of the one before.
fn next_log() -> (Vec<u8>, ChainHead) {
    let mut out = Vec::new();
    let previous = [log(NAME).1];
    let opening = Opening { time: at(9), node: "n", software: "0", previous: &previous };
    let mut writer = ChainWriter::new(&keys(), NEXT, &opening, &mut out).unwrap();
    for ms in 10..13 {
        writer.append(&record(ms, Outcome::Done, &[]), &mut out);
    }
    writer.checkpoint(at(13), &mut out);
    writer.append(&record(14, Outcome::Done, &[]), &mut out);
    writer.close(at(15), &mut out);
    (out, writer.head())
}

/// The check of `log` as it stands before each of its lines.
fn standing(log: &[u8], name: &str, head: &ChainHead) -> Vec<ChainVerifier> {
    let mut verifier = ChainVerifier::new(&keys(), name).verify_against(Some(head.clone()));
    let mut all = vec![verifier.clone()];
    for line in lines(log) {
        verifier.line(line.strip_suffix(b"\n").unwrap(), false);
        all.push(verifier.clone());
    }
    assert!(verifier.report().is_good());
    all
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
    let stamps = verifier.into_stamps();
    let stamps = stamps.iter().map(|stamp| (stamp.path, stamp.sequence));
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
fn every_byte_that_becomes_any_other_or_comes_in_between_names_its_line_in_a_file_and_the_one_that_follows_it()
 {
    for ((log, head), name) in [(log(NAME), NAME), (next_log(), NEXT)] {
        let before = standing(&log, name, &head);
        let lines = lines(&log);
        for (number, line) in lines.iter().enumerate() {
            // What an edit of the line's end leaves of it goes on in the line after.
            let rest = lines.get(number + 1).copied().unwrap_or_default();
            let names_it = |edited: &[u8], what: &str| {
                let report = feed(before[number].clone(), &[edited, rest].concat()).report();
                let found = report.bad.map(|bad| bad.number);
                assert_eq!(found, Some(number as u64 + 1), "{what} of line {}", number + 1);
            };
            let mut edited = line.to_vec();
            for at in 0..line.len() {
                for value in (0..=u8::MAX).filter(|value| *value != line[at]) {
                    edited[at] = value;
                    names_it(&edited, "an edit");
                }
                edited[at] = line[at];
            }
            for at in 0..line.len() {
                for value in [b' ', b'0', b'"', b',', b'\n', 0, line[at]] {
                    let mut longer = line.to_vec();
                    longer.insert(at, value);
                    // The line's own end twice is an empty line behind a good one.
                    if at + 1 < line.len() || value != b'\n' {
                        names_it(&longer, "a byte more");
                    }
                }
            }
        }
    }
}

#[test]
fn an_empty_line_is_no_line() {
    let (log, head) = log(NAME);
    for at in 0..=lines(&log).len() {
        let mut more = lines(&log);
        more.insert(at, b"\n");
        let bad = verify(&more.concat(), Some(&head)).bad.unwrap();
        assert_eq!(bad, BadLine { number: at as u64 + 1, fault: Fault::Malformed });
    }
}

#[test]
fn every_stretch_of_another_chain_is_found_be_it_of_a_neighbour_an_older_run_or_the_next_file() {
    let (ours, head) = log(NAME);
    let before = standing(&ours, NAME, &head);
    let mine = lines(&ours);
    for donor in [log(OTHER).0, log(EARLIER).0, next_log().0] {
        let theirs = lines(&donor);
        for at in 0..=mine.len() {
            for (from, to) in (0..theirs.len()).flat_map(|i| (i + 1..=theirs.len()).map(move |j| (i, j))) {
                // Put between our lines, and in the place of as many of them as there are.
                for rest in [&mine[at..], &mine[mine.len().min(at + to - from)..]] {
                    let spliced = [&theirs[from..to], rest].concat().concat();
                    let report = feed(before[at].clone(), &spliced).report();
                    assert_eq!(report.bad.expect("a splice goes unnoticed").number, at as u64 + 1);
                }
            }
        }
    }
}

#[test]
fn the_next_file_names_the_end_of_the_one_before() {
    let (_, head) = log(NAME);
    let (next, end) = next_log();
    let report = feed(ChainVerifier::new(&keys(), NEXT).verify_against(Some(end)), &next).report();
    assert!(report.is_good() && report.closed);
    assert_eq!(report.previous, [head]);
    assert_eq!((&*report.from, &*report.to), ("2026-11-24T12:00:17.009Z", "2026-11-24T12:00:17.015Z"));
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
