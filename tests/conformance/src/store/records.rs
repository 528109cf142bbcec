//! What one record and one commit do: compare, all or none, and revisions that grow.

use keymill_core::seam::store::{Entry, Revision, Store};

use super::{conflict, create, path, paths, put, removal, value_at};

/// Reads, lists and counts nothing before the first commit.
pub fn an_empty_store_has_nothing_at_revision_zero(store: &dyn Store) {
    assert_eq!(store.revision().expect("the store reads"), Revision(0));
    assert_eq!(value_at(store, "key/a"), None);
    assert!(paths(store, "key/", None, 10).is_empty());
}

/// Reads what was written, exactly.
pub fn a_record_reads_back_with_the_revision_of_its_commit(store: &dyn Store) {
    let revision = create(store, "key/a", b"one\0\xff");
    let read = store.get(&path("key/a")).expect("the store reads");
    assert_eq!(read, Some(Entry { path: path("key/a"), value: b"one\0\xff".to_vec(), revision }));
    assert_eq!(value_at(store, "key"), None);
    assert_eq!(value_at(store, "key/"), None);
    assert_eq!(value_at(store, "KEY/A"), None);
}

/// Takes the smallest value and a large one, and tells an empty value from an absent record.
pub fn values_of_no_bytes_and_of_a_mebibyte_read_back(store: &dyn Store) {
    let large: Vec<u8> = (0..1 << 20).map(|i: u32| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
    let revision = store.commit(&[put("key/none", None, b""), put("key/large", None, &large)]);
    assert_eq!(value_at(store, "key/none"), Some(Vec::new()));
    assert!(value_at(store, "key/large") == Some(large));
    let revision = revision.expect("the paths are free");
    assert_eq!(conflict(store.commit(&[put("key/none", None, b"")])), "key/none");
    store.commit(&[removal("key/none", Some(revision))]).expect("the revision is that of the record");
    assert_eq!(value_at(store, "key/none"), None);
}

/// Refuses a second creation, and one that names a revision.
pub fn a_record_is_created_only_where_there_is_none(store: &dyn Store) {
    let revision = create(store, "key/a", b"first");
    assert_eq!(conflict(store.commit(&[put("key/a", None, b"second")])), "key/a");
    assert_eq!(conflict(store.commit(&[put("key/b", Some(revision), b"second")])), "key/b");
    assert_eq!(conflict(store.commit(&[put("key/b", Some(Revision(0)), b"second")])), "key/b");
    assert_eq!(value_at(store, "key/a"), Some(b"first".to_vec()));
    assert_eq!(value_at(store, "key/b"), None);
}

/// Compares the revision of the record, not that of the store.
pub fn a_record_is_replaced_only_at_the_revision_that_was_read(store: &dyn Store) {
    let first = create(store, "key/a", b"first");
    let elsewhere = create(store, "key/b", b"beside");
    let second = store.commit(&[put("key/a", Some(first), b"second")]).expect("nobody wrote it meanwhile");
    for stale in [first, elsewhere, Revision(0), Revision(second.0 + 1), Revision(u64::MAX)] {
        assert_eq!(conflict(store.commit(&[put("key/a", Some(stale), b"third")])), "key/a");
    }
    assert_eq!(value_at(store, "key/a"), Some(b"second".to_vec()));
    store.commit(&[put("key/a", Some(second), b"third")]).expect("it is the revision of the record");
}

/// Compares before it removes.
pub fn a_record_is_removed_only_at_the_revision_that_was_read(store: &dyn Store) {
    let first = create(store, "key/a", b"first");
    let second = store.commit(&[put("key/a", Some(first), b"second")]).expect("nobody wrote it meanwhile");
    assert_eq!(conflict(store.commit(&[removal("key/a", Some(first))])), "key/a");
    assert_eq!(conflict(store.commit(&[removal("key/a", None)])), "key/a");
    store.commit(&[removal("key/a", Some(second))]).expect("it is the revision of the record");
    assert_eq!(value_at(store, "key/a"), None);
    assert!(paths(store, "key/", None, 10).is_empty());
    assert_eq!(conflict(store.commit(&[removal("key/a", Some(second))])), "key/a");
}

/// Never gives a revision twice, so that an old reader of a path cannot meet a new record by chance.
pub fn a_removed_record_can_be_created_again_at_a_greater_revision(store: &dyn Store) {
    let first = create(store, "key/a", b"first");
    let removed = store.commit(&[removal("key/a", Some(first))]).expect("nobody wrote it meanwhile");
    let again = create(store, "key/a", b"again");
    assert!(first < removed && removed < again);
    assert_eq!(conflict(store.commit(&[put("key/a", Some(first), b"late")])), "key/a");
    assert_eq!(value_at(store, "key/a"), Some(b"again".to_vec()));
}

/// Writes all or none, wherever in the commit the conflict is.
pub fn a_commit_with_one_conflict_writes_nothing(store: &dyn Store) {
    let a = create(store, "key/a", b"a");
    let b = create(store, "key/b", b"b");
    let before = store.revision().expect("the store reads");
    let fine = || [put("key/a", Some(a), b"new"), removal("key/b", Some(b)), put("key/c", None, b"new")];
    for place in 0..=3 {
        let mut writes = fine().to_vec();
        writes.insert(place, put("key/d", Some(a), b"new"));
        assert_eq!(conflict(store.commit(&writes)), "key/d");
        assert_eq!(value_at(store, "key/a"), Some(b"a".to_vec()));
        assert_eq!(value_at(store, "key/b"), Some(b"b".to_vec()));
        assert_eq!(paths(store, "key/", None, 10), ["key/a", "key/b"]);
        assert_eq!(store.revision().expect("the store reads"), before);
    }
    let revision = store.commit(&fine()).expect("nothing is in the way");
    assert_eq!(paths(store, "key/", None, 10), ["key/a", "key/c"]);
    for at in ["key/a", "key/c"] {
        let entry = store.get(&path(at)).expect("the store reads").expect("it was written");
        assert_eq!(entry.revision, revision);
    }
}

/// Refuses a commit whose outcome would hang on the order of its writes.
pub fn a_commit_conflicts_with_itself_where_it_names_a_path_twice(store: &dyn Store) {
    let revision = create(store, "key/a", b"first");
    let twice = [put("key/a", Some(revision), b"second"), put("key/a", Some(revision), b"third")];
    assert_eq!(conflict(store.commit(&twice)), "key/a");
    let moved = [removal("key/a", Some(revision)), put("key/a", None, b"second")];
    assert_eq!(conflict(store.commit(&moved)), "key/a");
    assert_eq!(value_at(store, "key/a"), Some(b"first".to_vec()));
}

/// Takes the removal of an absent record as a condition for the rest.
pub fn a_commit_can_demand_that_a_path_is_absent(store: &dyn Store) {
    store.commit(&[removal("alias/x", None), put("key/a", None, b"a")]).expect("there is no alias");
    create(store, "alias/x", b"key/a");
    assert_eq!(conflict(store.commit(&[removal("alias/x", None), put("key/b", None, b"b")])), "alias/x");
    assert_eq!(paths(store, "key/", None, 10), ["key/a"]);
}

/// Has no number of writes at which a commit comes apart: creations, a conflict at any place, and removals.
pub fn a_commit_of_very_many_records_is_all_or_none(store: &dyn Store) {
    const MANY: usize = 1500;
    let all: Vec<String> = (0..MANY).map(|i| format!("key/{i:04}")).collect();
    let writes: Vec<_> = all.iter().map(|at| put(at, None, at.as_bytes())).collect();
    let created = store.commit(&writes).expect("the paths are free");
    for stale in [0, MANY / 2, MANY - 1] {
        let mut removals: Vec<_> = all.iter().map(|at| removal(at, Some(created))).collect();
        removals[stale].expected = Some(Revision(created.0 + 1));
        assert_eq!(conflict(store.commit(&removals)), all[stale]);
        assert_eq!(conflict(store.commit(&[&writes[stale..], &writes[..stale]].concat())), all[stale]);
    }
    assert_eq!(store.revision().expect("the store reads"), created);
    assert_eq!(paths(store, "key/", None, usize::MAX), all);
    let removals: Vec<_> = all.iter().map(|at| removal(at, Some(created))).collect();
    store.commit(&removals).expect("nobody wrote them meanwhile");
    assert!(paths(store, "key/", None, 10).is_empty());
}

/// Numbers commits, and commits only.
pub fn revisions_grow_with_each_commit_and_not_without(store: &dyn Store) {
    let mut last = Revision(0);
    for i in 0..5 {
        let revision = create(store, &format!("key/{i}"), b"");
        assert!(revision > last);
        assert_eq!(store.revision().expect("the store reads"), revision);
        last = revision;
    }
    assert_eq!(store.commit(&[]).expect("there is nothing to refuse"), last);
    conflict(store.commit(&[put("key/0", None, b"")]));
    assert_eq!(store.revision().expect("the store reads"), last);
}
