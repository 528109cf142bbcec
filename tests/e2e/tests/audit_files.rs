//! Audit files that are followed by others, by size and by age, and those that go when their time is over: the chain holds over all of
//! them, the server goes on, and a file that somebody else took is still missed.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use keymill_e2e::{Caller, audit_lines, eventually, metric, requests_of, verified};
use keymill_harness::{Live, Setup, Site, Started};
use keymill_runtime::{AuditFiles, EngineConfig};

fn config(files: AuditFiles) -> EngineConfig {
    EngineConfig { audit_files: files, ..EngineConfig::default() }
}

fn small() -> AuditFiles {
    AuditFiles { rotate_bytes: 4 << 10, check: Duration::from_millis(20), ..AuditFiles::default() }
}

fn start(files: AuditFiles) -> Started {
    Live::start_with(Setup::new(config(files)).with_workers(1))
}

fn chains(site: &Site) -> HashSet<String> {
    site.verify().into_iter().map(|report| report.head.chain).collect()
}

/// Every chain that another names is there or was retired, and ended where that says.
fn continued(site: &Site) {
    let reports = verified(site);
    let retired: Vec<_> = reports.iter().flat_map(|report| report.retired.clone()).collect();
    for head in reports.iter().flat_map(|report| &report.previous) {
        let here = reports.iter().find(|report| report.head.chain == head.chain);
        let is_there = here.is_some_and(|report| report.head.sequence >= head.sequence);
        assert!(is_there || retired.contains(head), "{head:?} is neither there nor retired");
    }
}

#[test]
fn a_file_that_is_large_is_followed_by_another_and_no_request_is_lost_between_them() {
    let Started { live, credentials } = start(small());
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    for _ in 0..200 {
        caller.encrypt(key, b"x", &[]).unwrap();
    }
    for _ in 0..20 {
        caller.create_key();
    }
    let rotated = metric(&live, "keymill_audit_files_rotated_total");
    assert!(rotated >= 10.0, "{rotated}");
    drop(caller);
    let site = live.halt();
    continued(&site);
    let kinds = |kind: &str| chains(&site).iter().filter(|chain| chain.ends_with(kind)).count();
    assert!(kinds("data") >= 8 && kinds("management") >= 2, "{:?}", chains(&site));
    let lines = audit_lines(&site);
    let count = |operation: &str| -> usize {
        lines.iter().filter(|line| line["operation"] == operation).map(|line| requests_of(line).len()).sum()
    };
    assert_eq!((count("Encrypt"), count("CreateKey")), (200, 21));
    // A start compares all of it with the store, and the keys are there.
    let live = site.start(Setup::new(config(small())));
    assert_eq!(Caller::new(&live, &credentials).keys().unwrap().len(), 21);
    continued(&live.halt());
}

#[test]
fn a_file_that_is_old_is_followed_by_another_and_one_without_requests_is_not() {
    let files = AuditFiles { rotate_age: Duration::from_secs(3600), ..small() };
    let files = AuditFiles { rotate_bytes: u64::MAX, ..files };
    let Started { live, credentials } = start(files);
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    caller.encrypt(key, b"before", &[]).unwrap();
    live.clock.jump_to_offset_ms(3_700_000);
    caller.encrypt(key, b"after", &[]).unwrap();
    caller.encrypt(key, b"later", &[]).unwrap();
    drop(caller);
    let site = live.halt();
    continued(&site);
    let data = chains(&site).iter().filter(|chain| chain.ends_with("data")).count();
    assert_eq!(data, 2, "{:?}", chains(&site));
}

#[test]
fn files_whose_time_is_over_go_with_a_note_and_verify_and_one_that_was_taken_is_missed() {
    let files = AuditFiles { keep_age: Some(Duration::from_secs(60)), ..small() };
    let Started { live, credentials } = start(files);
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    for _ in 0..100 {
        caller.encrypt(key, b"x", &[]).unwrap();
    }
    assert_eq!(metric(&live, "keymill_audit_files_retired_total"), 0.0, "they are young");
    live.clock.jump_to_offset_ms(120_000);
    let retired = eventually("files go", || {
        Some(metric(&live, "keymill_audit_files_retired_total")).filter(|count| *count >= 4.0)
    });
    for _ in 0..40 {
        caller.encrypt(key, b"x", &[]).unwrap();
    }
    drop(caller);
    let site = live.halt();
    continued(&site);
    let notes = audit_lines(&site).into_iter().filter(|line| line["note"] == "retired");
    let notes: Vec<_> = notes.collect();
    assert!(notes.len() as f64 >= retired && notes.iter().all(|note| note["rule"] == "age"), "{notes:?}");
    // A start misses none of them, and still misses one that was taken.
    let logs = keymill_e2e::Logs::keep();
    let live = site.start(Setup::new(config(small())));
    for note in &notes {
        let chain = note["retired"][0]["chain"].as_str().unwrap();
        assert_eq!(logs.lines_with(&format!("audit chain {chain} is gone")).len(), 0);
    }
    let site = live.halt();
    let taken = chains(&site).into_iter().find(|chain| chain.ends_with("data")).unwrap();
    fs::remove_file(site.audit().join(format!("{taken}.jsonl"))).unwrap();
    site.start(Setup::new(config(small()))).halt();
    assert_eq!(logs.lines_with(&format!("audit chain {taken} is gone")).len(), 1);
}

#[test]
fn the_oldest_files_go_until_the_rest_fits_and_a_damaged_one_stays() {
    let Started { live, credentials } = start(small());
    let mut caller = Caller::new(&live, &credentials);
    let key = caller.create_key();
    for _ in 0..200 {
        caller.encrypt(key, b"x", &[]).unwrap();
    }
    drop(caller);
    let site = live.halt();
    let mut data: Vec<_> = chains(&site).into_iter().filter(|chain| chain.ends_with("data")).collect();
    data.sort();
    let damaged = site.audit().join(format!("{}.jsonl", data[1]));
    let text = fs::read_to_string(&damaged).unwrap();
    fs::write(&damaged, text.replacen("Encrypt", "Decrypt", 1)).unwrap();
    let logs = keymill_e2e::Logs::keep();
    let live = site.start(Setup::new(config(AuditFiles { keep_bytes: Some(0), ..small() })));
    eventually("all go but the damaged one", || {
        (metric(&live, "keymill_audit_files_retired_total") >= data.len() as f64 - 1.0).then_some(())
    });
    let site = live.halt();
    let left = chains(&site);
    assert!(left.contains(&data[1]) && !left.contains(&data[0]) && !left.contains(&data[2]), "{left:?}");
    let told = logs.lines_with(&data[1]);
    assert!(told.iter().any(|line| line.contains("is kept")), "{told:?}");
}
