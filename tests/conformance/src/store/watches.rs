//! What a watch tells. A store may leave out a value that was replaced or removed meanwhile (the newest is told later), and may
//! have forgotten the distant past (then it says so); it may not leave out anything else, nor tell it out of order or a commit by halves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use keymill_core::seam::store::{Change, Page, Path, Revision, Store, StoreError, Write};

use super::{Told, conflict, create, keep, path, put, removal, told};

fn wrote(at: &str, value: &[u8], revision: Revision) -> Told {
    Told { path: at.into(), value: Some(value.to_vec()), revision }
}

/// Tells all that follows `from`, `from` itself not, writes of one commit in their order.
pub fn a_watch_tells_the_past_in_order_and_then_that_it_is_current(store: &dyn Store) {
    let first = create(store, "key/z", b"1");
    let second = store
        .commit(&[put("key/y", None, b"2"), put("key/a", None, b"3"), put("key/n", None, b"")])
        .expect("the paths are free");
    let third = store.commit(&[removal("key/z", Some(first))]).expect("nobody wrote it meanwhile");
    let gone = Told { path: "key/z".into(), value: None, revision: third };
    let after_first = told(store, "key/", first).expect("the past is short");
    assert_eq!(
        after_first,
        [wrote("key/y", b"2", second), wrote("key/a", b"3", second), wrote("key/n", b"", second), gone]
    );
    assert_eq!(told(store, "key/", second).expect("the past is short"), after_first[3..]);
    assert!(told(store, "key/", third).expect("the past is short").is_empty());
}

/// Tells what is under the prefix and was done.
pub fn a_watch_tells_nothing_of_other_prefixes_or_refused_commits(store: &dyn Store) {
    create(store, "key/a", b"1");
    create(store, "kez", b"2");
    create(store, "alias/a", b"3");
    let last = create(store, "key/b", b"4");
    conflict(store.commit(&[put("key/c", None, b"5"), put("key/a", None, b"6")]));
    let seen = told(store, "key/", Revision(0)).expect("the past is short");
    assert_eq!(seen.iter().map(|told| told.path.as_str()).collect::<Vec<_>>(), ["key/a", "key/b"]);
    assert!(told(store, "key/", last).expect("the past is short").is_empty());
}

/// Ends, for each record, with what a list would show, in the order of the revisions.
pub fn a_watch_arrives_at_the_newest_value_of_each_record(store: &dyn Store) {
    let (mut revisions, mut commits) = (BTreeMap::new(), vec![Revision(0)]);
    for i in 0..60_u8 {
        let at = format!("key/{}", i % 7);
        let write = match revisions.remove(&at) {
            Some(revision) if i % 5 == 0 => removal(&at, Some(revision)),
            revision => put(&at, revision, &[i]),
        };
        let is_put = write.value.is_some();
        let revision = store.commit(&[write]).expect("nobody else writes");
        commits.push(revision);
        if is_put {
            revisions.insert(at, revision);
        }
    }
    for from in [0, 1, 30, 59].map(|commit| commits[commit]) {
        let seen = told(store, "key/", from).expect("the past is short");
        assert!(seen.iter().all(|told| told.revision > from));
        assert!(seen.is_sorted_by_key(|told| told.revision));
        assert_follows(store, from, seen);
    }
}

/// Checks that who had the records up to `from` and follows what was told has them all.
fn assert_follows(store: &dyn Store, from: Revision, told: Vec<Told>) {
    let listed = store.list(&path("key/"), Page { after: None, limit: usize::MAX }).expect("the store reads");
    let newest: BTreeMap<_, _> = listed
        .into_iter()
        .filter(|entry| entry.revision > from)
        .map(|entry| (entry.path.to_string(), (entry.value, entry.revision)))
        .collect();
    let mut followed = BTreeMap::new();
    for Told { path, value, revision } in told {
        followed.insert(path, value.map(|value| (value, revision)));
    }
    followed.retain(|_, record| record.is_some());
    let followed: BTreeMap<_, _> =
        followed.into_iter().filter_map(|(at, record)| Some((at, record?))).collect();
    assert!(followed == newest, "{} records were followed, {} are there", followed.len(), newest.len());
}

/// Wakes for each commit, and misses none between two looks.
pub fn a_watch_tells_of_a_commit_while_it_waits(store: &dyn Store) {
    const COMMITS: usize = 100;
    let (ready, is_ready) = mpsc::channel();
    let seen = thread::scope(|scope| {
        let watching = scope.spawn(move || {
            let mut seen = Vec::new();
            let result = store.watch(&path("key/"), Revision(0), &mut |change| {
                if !keep(&mut seen, &change) {
                    // The writer may be done and gone.
                    let _ = ready.send(());
                }
                seen.len() < COMMITS
            });
            result.map(|()| seen)
        });
        is_ready.recv().expect("the watch is current first");
        for i in 0..COMMITS {
            create(store, &format!("key/{i:03}"), b"");
        }
        watching.join().expect("the watch ends").expect("the past is short")
    });
    assert!(seen.iter().map(|told| &told.path).is_sorted(), "{seen:?}");
    assert!(seen.is_sorted_by(|a, b| a.revision < b.revision), "{seen:?}");
}

/// Lets its caller stop, and know that it misses nothing, within about a second, on a store where nothing happens.
pub fn a_watch_is_current_at_least_once_a_second(store: &dyn Store) {
    // A second, and time for a busy machine.
    let bound = Duration::from_secs(3);
    let (mut last, mut current) = (Instant::now(), 0);
    let watched = store.watch(&path("key/"), Revision(0), &mut |change| {
        assert!(matches!(change, Change::Current { .. }), "nothing was written");
        assert!(last.elapsed() < bound, "the watch was silent for {:?}", last.elapsed());
        last = Instant::now();
        current += 1;
        current < 3
    });
    watched.expect("the watch ends");
    assert_eq!(current, 3);
}

/// Says that it is current only where it is: whatever was committed before it began to say so was told.
pub fn a_watch_that_is_current_has_told_all_that_was_committed(store: &dyn Store) {
    let (mut committed, mut told, mut looks) = (0, 0, 0);
    let watched = store.watch(&path("key/"), Revision(0), &mut |change| match change {
        Change::Commit { writes, .. } => {
            told += writes.len();
            true
        }
        Change::Current { .. } => {
            // What was committed during the last look is told before the next.
            assert_eq!(told, committed, "after {looks} looks");
            looks += 1;
            for _ in 0..looks {
                create(store, &format!("key/{committed:02}"), b"");
                committed += 1;
            }
            // One of another prefix, last: that nothing of this one is behind it does not hide what is before.
            create(store, &format!("beside/{committed:02}"), b"");
            looks < 6
        }
    });
    watched.expect("the watch ends");
    assert_eq!(looks, 6);
}

/// Counts its view as fresh by the moment before it asked the store: whatever was acknowledged before `as_of` was told, however fast
/// others commit, and `as_of` is neither of the future nor old.
pub fn a_watch_is_current_as_of_a_moment_before_it_asked(store: &dyn Store) {
    const COMMITS: usize = 200;
    // A second, and time for a busy machine.
    let bound = Duration::from_secs(3);
    let acknowledged = Mutex::new(Vec::new());
    let writer_is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for i in 0..COMMITS {
                create(store, &format!("key/{i:03}"), b"");
                acknowledged.lock().expect("nobody panicked").push(Instant::now());
            }
            writer_is_done.store(true, Ordering::Release);
        });
        let (mut told, mut last) = (0, None);
        let watched = store.watch(&path("key/"), Revision(0), &mut |change| match change {
            Change::Commit { writes, .. } => {
                told += writes.len();
                true
            }
            Change::Current { as_of } => {
                let is_done = writer_is_done.load(Ordering::Acquire);
                assert!(as_of.elapsed() < bound, "it is {:?} old", as_of.elapsed());
                assert!(last <= Some(as_of), "the view grows no older");
                let before = acknowledged.lock().expect("nobody panicked");
                let due = before.iter().filter(|moment| **moment < as_of).count();
                assert!(told >= due, "{told} were told, {due} were acknowledged before");
                last = Some(as_of);
                !is_done || told < COMMITS
            }
        });
        watched.expect("the watch ends");
        assert_eq!(told, COMMITS);
    });
}

/// Never tells a commit by halves, be it large, or one of many that were made before the watch began.
pub fn a_watch_tells_a_commit_whole_in_one_call(store: &dyn Store) {
    let commit = |name: &str, count: usize, bytes: usize| -> (Revision, Vec<String>) {
        let at: Vec<_> = (0..count).map(|i| format!("key/{name}-{i:04}")).collect();
        let writes: Vec<_> = at.iter().map(|at| put(at, None, &vec![7; bytes])).collect();
        (store.commit(&writes).expect("the paths are free"), at)
    };
    // Of many records; of a few that make 5 MB together, so that they do not come in one message; and one of most of what is allowed.
    let mut all: Vec<_> = [1, 63, 64, 65, 700].map(|count| commit(&format!("many{count}"), count, 10)).into();
    all.extend((0..25).map(|i| commit(&format!("large{i:02}"), 7, 30_000)));
    all.push(commit("most", 40, 30_000));
    let (gone_of, gone): (_, Vec<Write>) =
        (all[4].0, all[4].1.iter().map(|at| removal(at, Some(all[4].0))).collect());
    let last = store.commit(&gone).expect("nobody wrote them meanwhile");
    let mut calls: Vec<(Revision, Vec<String>)> = Vec::new();
    let watched = store.watch(&path("key/"), Revision(0), &mut |change| match change {
        Change::Commit { revision, writes } => {
            calls.push((revision, writes.iter().map(|write| write.path.to_string()).collect()));
            true
        }
        Change::Current { .. } => false,
    });
    watched.expect("the past is short");
    // What was removed meanwhile may be left out where it was made.
    calls.retain(|(revision, _)| *revision != gone_of);
    let removed = (last, all.remove(4).1);
    all.push(removed);
    let counts = |calls: &[(Revision, Vec<String>)]| -> Vec<_> {
        calls.iter().map(|(revision, at)| (revision.0, at.len())).collect()
    };
    assert!(calls == all, "{:?} are not {:?}", counts(&calls), counts(&all));
}

/// Does not wait for its next look.
pub fn a_watch_tells_of_a_commit_at_once(store: &dyn Store) {
    const COMMITS: usize = 10;
    let (current, is_current) = mpsc::channel();
    let (seen, is_seen) = mpsc::channel();
    let fastest = thread::scope(|scope| {
        scope.spawn(move || {
            let mut left = COMMITS;
            let watched = store.watch(&path("key/"), Revision(0), &mut |change| {
                match change {
                    // The writer may be done and gone.
                    Change::Current { .. } => drop(current.send(())),
                    Change::Commit { .. } => {
                        left -= 1;
                        seen.send(Instant::now()).expect("the writer waits for it");
                    }
                }
                left > 0
            });
            watched.expect("the watch ends");
        });
        let delays = (0..COMMITS).map(|i| {
            // Right behind a look: the next one is far.
            while is_current.try_recv().is_ok() {}
            is_current.recv().expect("the watch goes on");
            create(store, &format!("key/{i}"), b"");
            let acknowledged = Instant::now();
            is_seen.recv().expect("it is told").saturating_duration_since(acknowledged)
        });
        delays.min()
    });
    // The fastest of some, since the machine may be busy.
    assert!(fastest < Some(Duration::from_millis(100)), "{fastest:?}");
}

/// Takes the prefix of everything.
pub fn a_watch_of_everything_tells_of_every_record(store: &dyn Store) {
    let places = ["a", "key/a", "zzz/9", "-", "A/b"];
    let revision = store.commit(&places.map(|at| put(at, None, at.as_bytes()))).expect("the paths are free");
    let mut seen = Vec::new();
    let watched = store.watch(&Path::all(), Revision(0), &mut |change| keep(&mut seen, &change));
    watched.expect("the past is short");
    assert_eq!(seen, places.map(|at| wrote(at, at.as_bytes(), revision)));
}

/// Takes up at any revision that another watch came to.
pub fn a_watch_goes_on_where_another_ended(store: &dyn Store) {
    for i in 0..10 {
        let writes = ["b", "a", "c"].map(|name| put(&format!("key/{i}{name}"), None, b""));
        store.commit(&writes).expect("the paths are free");
    }
    let all = told(store, "key/", Revision(0)).expect("the past is short");
    assert_eq!(all.len(), 30);
    let mut seen: Vec<Told> = Vec::new();
    while seen.len() < all.len() {
        let from = seen.last().map_or(Revision(0), |told| told.revision);
        let mut some = Vec::new();
        let watched =
            store.watch(&path("key/"), from, &mut |change| keep(&mut some, &change) && some.len() < 6);
        watched.expect("the past is short");
        assert_eq!(some.len(), 6, "two whole commits");
        seen.extend(some);
    }
    assert_eq!(seen, all);
}

/// Holds no lock while it tells.
pub fn a_watch_may_use_the_store_while_it_is_told(store: &dyn Store) {
    create(store, "key/0", b"");
    let mut told = 0;
    let watched = store.watch(&path("key/"), Revision(0), &mut |change| match change {
        Change::Commit { writes, revision } => {
            let entry = store.get(writes[0].path).expect("the store reads").expect("it was written");
            assert_eq!(entry.revision, revision);
            told += 1;
            create(store, &format!("key/{told}"), b"");
            told < 5
        }
        Change::Current { .. } => true,
    });
    watched.expect("the watch ends");
    assert_eq!(told, 5);
}

/// Does not pass over removals that it has forgotten.
pub fn a_watch_from_long_ago_is_told_all_or_to_list_again(store: &dyn Store) {
    const MANY: usize = 6000;
    let all: Vec<_> = (0..MANY).map(|i| format!("key/{i:04}")).collect();
    let puts: Vec<_> = all.iter().map(|at| put(at, None, b"1")).collect();
    let created = store.commit(&puts).expect("the paths are free");
    // A store may pass over revisions, so that they are not counted through.
    let mut commits = vec![created];
    for some in all[1..].chunks(1000) {
        let removals: Vec<_> = some.iter().map(|at| removal(at, Some(created))).collect();
        commits.push(store.commit(&removals).expect("nobody wrote them meanwhile"));
    }
    let mut was_compacted = true;
    for (chunks, &from) in commits.iter().enumerate() {
        match told(store, "key/", from) {
            Err(StoreError::Compacted) => {
                assert!(was_compacted, "what is known at one revision is known later")
            }
            Err(other) => panic!("the watch failed: {other}"),
            Ok(seen) => {
                was_compacted = false;
                let removed = seen.iter().filter(|told| told.value.is_none()).count();
                assert_eq!(removed, (MANY - 1).saturating_sub(chunks * 1000));
                assert_follows(store, from, seen);
            }
        }
    }
    assert!(!was_compacted, "the newest revision is always known");
}
