//! Audit chains over many starts: the store keeps the heads of the last process alone, no `open` line grows with the number of starts,
//! and a chain of any age that is gone or cut is named all the same.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keymill_core::seam::store::{Store, Write};
use keymill_crypto::audit::ChainHead;
use keymill_e2e::{Caller, Logs, Rows, audit_lines, eventually, verified};
use keymill_harness::{Live, Setup, Site, Started};
use keymill_runtime::EngineConfig;
use keymill_runtime::records::{self, Kind};

/// Chains of one process here: management, and one for each of two arbiters.
const CHAINS: usize = 3;
const DAY_MS: i64 = 86_400_000;

fn start(site: Site) -> Live {
    site.start(Setup::new(EngineConfig::default()))
}

fn file_of(site: &Site, chain: &str) -> PathBuf {
    site.audit().join(format!("{chain}.jsonl"))
}

fn chains(site: &Site) -> BTreeSet<String> {
    let files = fs::read_dir(site.audit()).unwrap().map(|entry| entry.unwrap().path());
    let chains = files.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    chains.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

fn heads(site: &Site) -> Vec<String> {
    let rows = Rows::of(site).paths("audit-head/");
    rows.iter().map(|path| path.strip_prefix("audit-head/").unwrap().to_owned()).collect()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
    fs::set_permissions(to, fs::metadata(from).unwrap().permissions()).unwrap();
}

/// Leaves what a kill at this moment leaves: the files as they are, with nothing closed.
fn kill(live: Live) -> Site {
    let places = [live.site().data(), live.site().audit()];
    let kept = places.clone().map(|place| place.with_extension("kept"));
    for (place, kept) in places.iter().zip(&kept) {
        copy(place, kept);
    }
    let site = live.halt();
    for (place, kept) in places.iter().zip(&kept) {
        fs::remove_dir_all(place).unwrap();
        fs::rename(kept, place).unwrap();
    }
    site
}

/// Waits until the store has a head of every chain of this process, and no other.
fn settled(live: &Live, before: &BTreeSet<String>) {
    eventually("the heads of this process alone", || {
        let heads = heads(live.site());
        (heads.len() == CHAINS && heads.iter().all(|chain| !before.contains(chain))).then_some(())
    });
}

/// Starts so many times, after which the chains returned are those of which a head was kept: of a process that is killed at once
/// the management chain is, and the others would have been at its first tick.
fn restarted(times: usize) -> (Site, Vec<String>) {
    Logs::keep();
    let Started { mut live, credentials } = Live::start(EngineConfig::default());
    let (mut before, mut bound) = (BTreeSet::new(), Vec::new());
    for n in 0..times {
        Caller::new(&live, &credentials).create_key();
        let management = |heads: &[String]| {
            heads.iter().any(|chain| chain.ends_with("management") && !before.contains(chain))
        };
        eventually("the first heads", || management(&heads(live.site())).then_some(()));
        let site = match n % 5 {
            1 => kill(live),
            3 if n < 10 => {
                settled(&live, &before);
                kill(live)
            }
            _ => live.halt(),
        };
        let heads = heads(&site);
        assert!(heads.len() <= 2 * CHAINS, "start {n}: {heads:?}");
        bound.extend(heads.into_iter().filter(|chain| !before.contains(chain)));
        before = chains(&site);
        // Some processes have a clock that was set back, so that their names come before those of older ones.
        let offset = if n % 7 == 2 { -DAY_MS * n as i64 } else { 0 };
        live = site.start(Setup::new(EngineConfig::default()).at_offset_ms(offset));
    }
    settled(&live, &before);
    (live.halt(), bound)
}

#[test]
fn many_starts_leave_a_bounded_store_and_bounded_lines_and_every_chain_of_any_age_is_missed() {
    let (mut site, bound) = restarted(40);
    assert_eq!(heads(&site).len(), CHAINS);
    verified(&site);
    let opened: Vec<_> = audit_lines(&site).into_iter().filter(|line| !line["previous"].is_null()).collect();
    assert_eq!(opened.len(), 41 * CHAINS);
    let named = |line: &serde_json::Value| line["previous"].as_array().unwrap().len();
    let longest = opened.iter().map(named).max().unwrap();
    assert!((CHAINS..=2 * CHAINS + 1).contains(&longest), "{longest} heads in a line");
    assert!(bound.len() >= 100);

    let logs = Logs::keep();
    for chain in bound.iter().step_by(17) {
        let told =
            |why| logs.lines_with(chain).iter().any(|line| line.contains("ERROR") && line.contains(why));
        assert!(!told(""), "{chain}: {:?}", logs.lines_with(chain));
        let bytes = fs::read(file_of(&site, chain)).unwrap();
        fs::remove_file(file_of(&site, chain)).unwrap();
        site = start(site).halt();
        assert!(told("is gone"), "{chain}");
        fs::write(file_of(&site, chain), bytes).unwrap();
        assert!(heads(&site).len() <= 2 * CHAINS);
    }
    let management = bound.iter().filter(|chain| chain.ends_with("management"));
    for chain in management.step_by(9) {
        let text = fs::read_to_string(file_of(&site, chain)).unwrap();
        let cut = text.trim_end().rfind('\n').unwrap();
        fs::write(file_of(&site, chain), &text[..=cut]).unwrap();
        site = start(site).halt();
        let told = logs.lines_with(chain);
        assert!(
            told.iter().any(|line| line.contains("ERROR") && line.contains("cut off")),
            "{chain}: {told:?}"
        );
        fs::write(file_of(&site, chain), text).unwrap();
    }
    verified(&site);
}

#[test]
fn a_head_that_was_forgotten_and_is_put_back_changes_nothing() {
    Logs::keep();
    let Started { live, credentials } = Live::start(EngineConfig::default());
    settled(&live, &BTreeSet::new());
    let older: Vec<(String, Vec<u8>)> = {
        let rows = Rows::of(live.site());
        let paths = rows.paths("audit-head/");
        paths.into_iter().map(|path| (path.clone(), rows.get(&path).unwrap())).collect()
    };
    let before = chains(live.site());
    Caller::new(&live, &credentials).create_key();
    let live = start(live.halt());
    settled(&live, &before);
    let site = live.halt();
    let rows = Rows::of(&site);
    for (path, value) in &older {
        rows.insert(path, value);
    }
    drop(rows);
    let live = start(site);
    let known = live.site();
    eventually("they are forgotten again", || {
        heads(known).iter().all(|chain| !before.contains(chain)).then_some(())
    });
    let site = live.halt();
    for chain in &before {
        let told = Logs::keep().lines_with(chain);
        assert!(told.iter().all(|line| !line.contains("ERROR")), "{told:?}");
    }
    let named: Vec<_> = audit_lines(&site)
        .iter()
        .flat_map(|line| line["previous"].as_array().cloned().unwrap_or_default())
        .map(|head| head["chain"].as_str().unwrap().to_owned())
        .collect();
    let once: BTreeSet<_> = named.iter().collect();
    assert_eq!(once.len(), named.len(), "each is named once: {named:?}");
    verified(&site);
}

#[test]
fn more_heads_than_a_line_takes_are_named_over_several_starts() {
    const HEADS: u64 = 4_200;
    Logs::keep();
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let site = live.halt();
    let sealer = site.sealer();
    let many = move |store: Arc<dyn Store>| {
        let write = |n| {
            let head = ChainHead { chain: format!("lost-{n:04}-data"), sequence: n + 1, mac: [0; 16] };
            let path = records::audit_head_path(None, &head.chain);
            let sealed = records::seal(&sealer, &path, Kind::AuditHead, head.sequence, &head).unwrap();
            Write { path, expected: None, value: Some(sealed.bytes) }
        };
        store.commit(&(0..HEADS).map(write).collect::<Vec<_>>()).unwrap();
        store
    };
    let live = site.start(Setup::new(EngineConfig::default()).with_store(many));
    let left = HEADS as usize + CHAINS - 4_096;
    eventually("the heads that are named are forgotten", || {
        (heads(live.site()).len() == left + CHAINS).then_some(())
    });
    assert!(Caller::new(&live, &credentials).keys().is_ok());
    let live = start(live.halt());
    eventually("the rest is forgotten", || (heads(live.site()).len() == CHAINS).then_some(()));
    let site = live.halt();
    let mut lines: Vec<_> = audit_lines(&site)
        .into_iter()
        .filter(|line| line["chain"].as_str().is_some_and(|chain| chain.ends_with("management")))
        .map(|line| (line["previous"].as_array().unwrap().len(), line.to_string().len()))
        .collect();
    lines.sort_unstable();
    assert_eq!(lines.iter().map(|line| line.0).collect::<Vec<_>>(), [0, left + CHAINS, 4_096]);
    assert!(lines[2].1 < 1 << 20, "a line of {} bytes", lines[2].1);
    let text = Logs::keep().text();
    for n in [0, 4_095, HEADS - 1] {
        let gone = format!("audit chain lost-{n:04}-data is gone");
        assert_eq!(text.matches(&gone).count(), 2, "at each start: {gone}");
    }
}

#[test]
fn a_store_that_the_audit_knows_nothing_of_is_noted_in_lines_that_can_be_read_again() {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    let mut caller = Caller::new(&live, &credentials);
    for _ in 0..700 {
        caller.create_key();
    }
    drop(caller);
    let site = live.halt();
    fs::remove_dir_all(site.audit()).unwrap();
    let site = start(site).halt();
    let notes: Vec<_> = audit_lines(&site).into_iter().filter(|line| line["note"] == "recovered").collect();
    let named: Vec<usize> = notes.iter().map(|note| note["writes"].as_array().unwrap().len()).collect();
    assert!(named.len() >= 2 && named.iter().all(|count| *count <= 1_024), "{named:?}");
    assert!(named.iter().sum::<usize>() >= 1_400, "{named:?}");
    let site = start(site).halt();
    let again = audit_lines(&site).into_iter().filter(|line| line["note"] == "recovered").count();
    assert_eq!(again, notes.len(), "what was noted once is known from then on");
    verified(&site);
}

#[test]
fn chains_without_the_management_chain_of_their_process_say_that_it_is_gone() {
    let Started { live, credentials } = Live::start(EngineConfig::default());
    Caller::new(&live, &credentials).create_key();
    let site = live.halt();
    let management = chains(&site).into_iter().find(|chain| chain.ends_with("management")).unwrap();
    fs::remove_file(file_of(&site, &management)).unwrap();
    // Whoever takes the file takes the row of its head as well.
    Rows::of(&site).delete(&format!("audit-head/{management}"));
    let logs = Logs::keep();
    start(site).halt();
    assert_eq!(logs.lines_with(&format!("audit chain {management} is gone")).len(), 1);
}
