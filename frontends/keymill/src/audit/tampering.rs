//! Attacks on a whole directory (security case F4): the chains of two processes, a file that was followed by another, one whose time was over.
//! Whatever is done to them is found, and what retention did is not taken for an attack.

use std::collections::BTreeMap;
use std::sync::Mutex;

use keymill_core::audit::{AuditRecord, Outcome};
use keymill_core::id::RequestId;
use keymill_core::seam::audit::{AuditError, AuditReader, AuditSink, Line};
use keymill_core::{Sensitive, Timestamp};
use keymill_crypto::audit::{ChainHead, ChainKeys, ChainWriter, Note, Opening};

use super::examine::{Findings, Trust, examine};
use super::*;

/// Chains in memory, by name.
#[derive(Clone, Default)]
struct Log(BTreeMap<String, Vec<u8>>);

impl AuditLog for Log {
    fn open_chain(&self, _: &str) -> Result<Box<dyn AuditSink>, AuditError> {
        Err(AuditError::Taken("this log is only read".into()))
    }

    fn chains(&self) -> Result<Vec<String>, AuditError> {
        Ok(self.0.keys().cloned().collect())
    }

    fn reader(&self, name: &str) -> Result<Box<dyn AuditReader>, AuditError> {
        Ok(Box::new(Reader { log: self.0[name].clone(), at: 0 }))
    }

    fn bytes(&self, name: &str) -> Result<u64, AuditError> {
        Ok(self.0[name].len() as u64)
    }

    fn remove(&self, _: &str) -> Result<(), AuditError> {
        Err(AuditError::Taken("this log is only read".into()))
    }
}

struct Reader {
    log: Vec<u8>,
    at: usize,
}

impl AuditReader for Reader {
    fn next_line(&mut self) -> Result<Option<Line<'_>>, AuditError> {
        let Some(line) = self.log[self.at..].split_inclusive(|c| *c == b'\n').next() else { return Ok(None) };
        self.at += line.len();
        Ok(Some(match line.strip_suffix(b"\n") {
            Some(bytes) => Line { bytes, torn: false },
            None => Line { bytes: line, torn: true },
        }))
    }
}

fn keys() -> ChainKeys {
    ChainKeys::new(&Sensitive::copied(&[1; 32]), &Sensitive::copied(&[2; 32])).unwrap()
}

const RETIRED: &str = "1-a-001-data";
const FIRST: &str = "1-a-002-data";
const SECOND: &str = "1-a-003-data";
const MANAGEMENT: &str = "1-a-000-management";
const LAST: &str = "2-b-000-management";

fn record(ms: u64) -> AuditRecord<'static> {
    AuditRecord {
        time: Timestamp::from_ms(ms),
        request: RequestId::from_bytes([ms as u8; 16]),
        principal: None,
        source: None,
        frontend: "http",
        operation: "Encrypt",
        outcome: Outcome::Done,
        rule: "default".into(),
        keys: &[],
        secrets: &[],
        certificates: &[],
        providers: &["software"],
        items: 1,
        failed: 0,
        context: None,
        fallback: None,
        recipient: None,
        approved_by: None,
        micros: ms,
        alike: &[],
        writes: &[],
    }
}

/// Writes a chain: its opening, two requests with a checkpoint between, notes, its end.
fn write(log: &mut Log, name: &str, ms: u64, previous: &[ChainHead], notes: &[Note<'_>]) -> ChainHead {
    let mut out = Vec::new();
    let at = Timestamp::from_ms;
    let opening = Opening { time: at(ms), node: "n", software: "0", previous };
    let mut writer = ChainWriter::new(&keys(), name, &opening, &mut out).unwrap();
    writer.append(&record(ms + 1), &mut out);
    writer.checkpoint(at(ms + 2), &mut out);
    for note in notes {
        writer.note(at(ms + 3), note, &mut out);
    }
    writer.append(&record(ms + 4), &mut out);
    writer.close(at(ms + 5), &mut out);
    log.0.insert(name.into(), out);
    writer.head()
}

/// A process whose data file was followed by two more, the first of which is gone, its time being over; then another process.
fn whole() -> Log {
    let mut log = Log::default();
    let retired = write(&mut log, RETIRED, 0, &[], &[]);
    log.0.remove(RETIRED);
    let first = write(&mut log, FIRST, 10, std::slice::from_ref(&retired), &[]);
    let second = write(&mut log, SECOND, 20, std::slice::from_ref(&first), &[]);
    let note = Note::Retired { head: &retired, requests: 2, from: "t", to: "t", bytes: 1, rule: "age" };
    let shed = Note::Shed { sink: "syslog", lines: 3, first: 2, last: 5 };
    let management = write(&mut log, MANAGEMENT, 5, &[], &[note, shed]);
    write(&mut log, LAST, 30, &[second, management], &[]);
    log
}

fn look(log: &Log) -> Findings {
    examine(log, &Trust::Keys(Box::new(keys())), None).unwrap()
}

/// The names of the chains that are bad or missing.
fn wrong(log: &Log) -> Vec<String> {
    let found = look(log);
    let bad = found.chains.iter().filter(|row| !row.good).map(|row| row.chain.clone());
    let wrong: Vec<_> = bad.chain(found.missing.iter().cloned()).collect();
    assert_eq!(found.good, wrong.is_empty());
    wrong
}

#[test]
fn what_retention_removed_is_told_and_is_not_wrong() {
    let found = look(&whole());
    assert!(found.good, "{:?}", found.missing);
    assert_eq!((found.chains.len(), found.retired), (4, 1));
    assert_eq!((&*found.shed[0].sink, found.shed[0].lines, found.shed[0].last), ("syslog", 3, 5));
    // Brought back, as a crash between note and removal leaves it, it does no harm either.
    let mut log = whole();
    write(&mut log, RETIRED, 0, &[], &[]);
    assert_eq!(wrong(&log), [""; 0]);
}

#[test]
fn a_file_that_is_gone_is_named_unless_it_was_the_last_of_all() {
    for name in [FIRST, SECOND, MANAGEMENT] {
        let mut log = whole();
        log.0.remove(name);
        let wrong = wrong(&log);
        assert!(wrong.contains(&name.to_owned()), "{name}: {wrong:?}");
    }
    // Without the note of it, what retention removed is missed like any other: here the note is cut away with what follows it.
    let mut log = whole();
    let lines: Vec<_> = log.0[MANAGEMENT].split_inclusive(|c| *c == b'\n').map(<[u8]>::to_vec).collect();
    log.0.insert(MANAGEMENT.into(), lines[..3].concat());
    assert_eq!(wrong(&log), [MANAGEMENT, RETIRED]);
    // And so is one that ended elsewhere than the note says.
    let mut log = whole();
    let other = write(&mut log, RETIRED, 1, &[], &[]);
    log.0.remove(RETIRED);
    write(&mut log, FIRST, 10, &[other], &[]);
    assert!(wrong(&log).contains(&RETIRED.to_owned()));
}

#[test]
fn every_edit_of_a_byte_in_every_file_is_found_there() {
    let whole = whole();
    for name in whole.0.keys() {
        let mut log = whole.clone();
        // Without the end of its last line, the newest chain of all looks as a crash leaves it; the store knows better.
        let length = whole.0[name].len() - usize::from(name == LAST);
        for at in 0..length {
            let byte = whole.0[name][at];
            log.0.get_mut(name).unwrap()[at] = byte ^ 1;
            let wrong = wrong(&log);
            assert!(wrong.contains(name), "byte {at} of {name}: {wrong:?}");
            log.0.get_mut(name).unwrap()[at] = byte;
        }
    }
}

#[test]
fn every_cut_of_every_file_but_the_last_is_found() {
    let whole = whole();
    for name in [FIRST, SECOND, MANAGEMENT] {
        for length in 0..whole.0[name].len() {
            let mut log = whole.clone();
            log.0.get_mut(name).unwrap().truncate(length);
            assert!(wrong(&log).contains(&name.to_owned()), "{name} cut to {length} bytes");
        }
    }
}

#[test]
fn files_that_change_places_or_lend_each_other_lines_are_found() {
    let whole = whole();
    let names: Vec<&String> = whole.0.keys().collect();
    for a in &names {
        for b in names.iter().filter(|b| *b != a) {
            let mut swapped = whole.clone();
            swapped.0.insert((*a).clone(), whole.0[*b].clone());
            swapped.0.insert((*b).clone(), whole.0[*a].clone());
            let found = wrong(&swapped);
            assert!(found.contains(a) && found.contains(b), "{a} and {b}: {found:?}");
            let lines = |name: &str| -> Vec<Vec<u8>> {
                whole.0[name].split_inclusive(|c| *c == b'\n').map(<[u8]>::to_vec).collect()
            };
            let (mine, theirs) = (lines(a), lines(b));
            for at in 0..=mine.len() {
                for from in 0..theirs.len() {
                    let mut spliced = whole.clone();
                    let text = [&mine[..at], &theirs[from..]].concat().concat();
                    spliced.0.insert((*a).clone(), text);
                    assert!(wrong(&spliced).contains(a), "{from} of {b} at {at} of {a}");
                }
            }
        }
    }
}

#[test]
fn all_chains_are_one_stream_in_the_order_of_time_each_row_saying_whether_it_holds() {
    let rows = |log: &Log, keys: Option<&ChainKeys>| {
        let mut rows = Vec::new();
        let mut show = |row: &super::entry::Row<'_>| {
            rows.push((row.time[20..23].parse::<u32>().unwrap(), row.chain.to_owned(), row.verified));
            Ok(())
        };
        let (count, verdict) =
            super::search::each_request(log, keys, &super::filter::Filter::default(), &mut show).unwrap();
        assert_eq!(count as usize, rows.len());
        (rows, verdict)
    };
    let (good, verdict) = rows(&whole(), Some(&keys()));
    assert!(verdict.is_good());
    let times: Vec<u32> = good.iter().map(|row| row.0).collect();
    assert_eq!(times, [6, 9, 11, 14, 21, 24, 31, 34]);
    assert!(good.iter().all(|row| row.2));
    let (unchecked, verdict) = rows(&whole(), None);
    assert!(unchecked.iter().all(|row| !row.2) && !verdict.is_good());
    let mut log = whole();
    let text = String::from_utf8(log.0[SECOND].clone()).unwrap();
    log.0.insert(SECOND.into(), text.replacen("Encrypt", "Decrypt", 1).into());
    log.0.remove(FIRST);
    let (rest, verdict) = rows(&log, Some(&keys()));
    let trusted: Vec<(u32, bool)> = rest.iter().map(|row| (row.0, row.2)).collect();
    assert_eq!(trusted, [(6, true), (9, true), (21, false), (24, false), (31, true), (34, true)]);
    assert_eq!((verdict.bad[0].0.as_str(), verdict.missing), (SECOND, vec![FIRST.to_owned()]));
}

/// Files are held as long as they overlap in time, not longer.
#[test]
fn chains_one_after_the_other_are_open_one_at_a_time() {
    struct Counting(Log, std::sync::Arc<Mutex<(usize, usize)>>);
    struct Counted(Box<dyn AuditReader>, std::sync::Arc<Mutex<(usize, usize)>>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.1.lock().unwrap().0 -= 1;
        }
    }
    impl AuditReader for Counted {
        fn next_line(&mut self) -> Result<Option<Line<'_>>, AuditError> {
            self.0.next_line()
        }
    }
    impl AuditLog for Counting {
        fn open_chain(&self, name: &str) -> Result<Box<dyn AuditSink>, AuditError> {
            self.0.open_chain(name)
        }
        fn chains(&self) -> Result<Vec<String>, AuditError> {
            self.0.chains()
        }
        fn reader(&self, name: &str) -> Result<Box<dyn AuditReader>, AuditError> {
            let mut open = self.1.lock().unwrap();
            open.0 += 1;
            open.1 = open.1.max(open.0);
            Ok(Box::new(Counted(self.0.reader(name)?, self.1.clone())))
        }
        fn bytes(&self, name: &str) -> Result<u64, AuditError> {
            self.0.bytes(name)
        }
        fn remove(&self, name: &str) -> Result<(), AuditError> {
            self.0.remove(name)
        }
    }
    let mut log = Log::default();
    for n in 0..50 {
        write(&mut log, &format!("{n:02}-a-000-management"), 10 * n, &[], &[]);
    }
    let open = std::sync::Arc::new(Mutex::new((0, 0)));
    let log = Counting(log, open.clone());
    let mut lines = 0;
    super::merge::merged(&log, Some(&keys()), &mut |_, _| {
        lines += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(lines, 50 * 5);
    assert_eq!(*open.lock().unwrap(), (0, 1));
}
