//! What a list holds, in which order, and how its pages fit together.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use keymill_core::seam::store::{Page, Path, Store, Write};

use super::{conflict, create, path, paths, put, removal};

/// Orders by bytes: no case folding, no numbers, `/` where it stands in ASCII.
pub fn a_list_is_ordered_by_the_bytes_of_the_paths(store: &dyn Store) {
    let ordered =
        ["k/-", "k/.a", "k/10", "k/9", "k/A", "k/B", "k/_", "k/a", "k/a-b", "k/a.b", "k/a/b", "k/a0", "k/b"];
    for at in ordered.iter().rev() {
        create(store, at, at.as_bytes());
    }
    assert_eq!(paths(store, "k/", None, 100), ordered);
}

/// Takes a prefix as bytes: `a/b` begins `a/bc`, `a/b/` does not.
pub fn a_list_holds_what_begins_with_its_prefix_and_nothing_beside(store: &dyn Store) {
    let all = ["a/a", "a/b", "a/b/c", "a/bc", "a/bz/z", "a/c", "aa", "b/b", "A/b"];
    let writes: Vec<_> = all.iter().map(|at| put(at, None, b"")).collect();
    let revision = store.commit(&writes).expect("the paths are free");
    assert_eq!(paths(store, "a/b", None, 100), ["a/b", "a/b/c", "a/bc", "a/bz/z"]);
    assert_eq!(paths(store, "a/b/", None, 100), ["a/b/c"]);
    assert_eq!(paths(store, "a/", None, 100), ["a/a", "a/b", "a/b/c", "a/bc", "a/bz/z", "a/c"]);
    assert_eq!(paths(store, "a", None, 100).len(), 7);
    assert_eq!(paths(store, "a/bz/zz", None, 100), [""; 0]);
    store.commit(&[removal("a/b", Some(revision))]).expect("nobody wrote it meanwhile");
    assert_eq!(paths(store, "a/b", None, 100), ["a/b/c", "a/bc", "a/bz/z"]);
}

/// Gives every record once, whatever the size of a page.
pub fn a_list_comes_in_pages_without_gap_or_repeat(store: &dyn Store) {
    let all: Vec<String> = (0..100).map(|i| format!("key/{i:03}")).collect();
    let mut writes: Vec<_> = all.iter().map(|at| put(at, None, at.as_bytes())).collect();
    writes.extend([
        put("kex", None, b""),
        put("key", None, b""),
        put("key.", None, b""),
        put("key0", None, b""),
    ]);
    store.commit(&writes).expect("the paths are free");
    for size in [1, 7, 99, 100, 101, usize::MAX] {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let page = paths(store, "key/", seen.last().map(String::as_str), size);
            assert!(page.len() <= size);
            if page.is_empty() {
                break;
            }
            seen.extend(page);
        }
        assert_eq!(seen, all, "pages of {size}");
    }
    assert!(paths(store, "key/", None, 0).is_empty());
}

/// Goes on behind a record that was removed meanwhile, and behind a path outside the prefix.
pub fn a_page_begins_behind_a_path_that_is_not_there(store: &dyn Store) {
    let writes = ["key/a", "key/c", "key/c/d", "key/e"].map(|at| put(at, None, b""));
    store.commit(&writes).expect("the paths are free");
    assert_eq!(paths(store, "key/", Some("key/b"), 100), ["key/c", "key/c/d", "key/e"]);
    assert_eq!(paths(store, "key/", Some("key/c"), 100), ["key/c/d", "key/e"]);
    assert_eq!(paths(store, "key/", Some("kex"), 100), ["key/a", "key/c", "key/c/d", "key/e"]);
    assert!(paths(store, "key/", Some("key/e"), 100).is_empty());
    assert!(paths(store, "key/", Some("kez"), 100).is_empty());
}

/// Is of one moment: no commit is seen by halves, however many rows there are.
pub fn a_list_shows_whole_commits(store: &dyn Store) {
    const ROWS: usize = 300;
    let writes = |expected, count: u8| -> Vec<_> {
        (0..ROWS).map(|i| put(&format!("key/{i:03}"), expected, &[count])).collect()
    };
    let mut last = store.commit(&writes(None, 0)).expect("the paths are free");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reading = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let listed = store.list(&path("key/"), Page { after: None, limit: usize::MAX });
                let listed = listed.expect("the store reads");
                assert_eq!(listed.len(), ROWS);
                assert!(listed.iter().all(|entry| {
                    (entry.revision, &entry.value) == (listed[0].revision, &listed[0].value)
                }));
            }
        });
        for count in 1..20 {
            last = store.commit(&writes(Some(last), count)).expect("nobody else writes");
        }
        is_over.store(true, Ordering::Relaxed);
        reading.join().expect("each list is whole");
    });
}

/// Takes the prefix of everything, page by page; nothing can be written or read there.
pub fn the_prefix_of_everything_lists_every_record_and_is_no_place_for_one(store: &dyn Store) {
    let all = ["-", "A/b", "a", "key/a", "key/b", "zzz/9"];
    for at in all {
        create(store, at, b"");
    }
    for limit in 1..=all.len() + 1 {
        let mut seen: Vec<String> = Vec::new();
        loop {
            let last = seen.last().map(|at| path(at));
            let page = Page { after: last.as_ref(), limit };
            let some = store.list(&Path::all(), page).expect("the store reads");
            if some.is_empty() {
                break;
            }
            seen.extend(some.into_iter().map(|entry| entry.path.to_string()));
        }
        assert_eq!(seen, all, "in pages of {limit}");
    }
    assert!(store.get(&Path::all()).expect("the store reads").is_none());
    let nowhere = Write { path: Path::all(), expected: None, value: Some(b"1".to_vec()) };
    assert_eq!(conflict(store.commit(&[nowhere])), "");
}
