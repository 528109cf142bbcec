//! The suite for `Store`: what it runs on, the macro that makes a test of each behaviour, and the words that the
//! behaviours are written in.

use std::any::Any;
use std::ops::Deref;

use keymill_core::seam::store::{Change, Page, Path, Revision, Store, StoreError, Write, Wrote};

mod leases;
mod lists;
mod races;
mod records;
mod scans;
mod watches;

pub use leases::*;
pub use lists::*;
pub use races::*;
pub use records::*;
pub use scans::*;
pub use watches::*;

/// Makes a `#[test]` of each behaviour of the suite. It takes what makes a [`Fixture`] with an empty store.
#[macro_export]
macro_rules! store_suite {
    ($make:expr) => {
        $crate::store_suite! { @tests $make;
            an_empty_store_has_nothing_at_revision_zero
            a_record_reads_back_with_the_revision_of_its_commit
            values_of_no_bytes_and_of_a_mebibyte_read_back
            a_record_is_created_only_where_there_is_none
            a_record_is_replaced_only_at_the_revision_that_was_read
            a_record_is_removed_only_at_the_revision_that_was_read
            a_removed_record_can_be_created_again_at_a_greater_revision
            a_commit_with_one_conflict_writes_nothing
            a_commit_conflicts_with_itself_where_it_names_a_path_twice
            a_commit_can_demand_that_a_path_is_absent
            a_commit_of_very_many_records_is_all_or_none
            revisions_grow_with_each_commit_and_not_without
            a_list_is_ordered_by_the_bytes_of_the_paths
            a_list_holds_what_begins_with_its_prefix_and_nothing_beside
            a_list_comes_in_pages_without_gap_or_repeat
            a_list_shows_whole_commits
            a_page_begins_behind_a_path_that_is_not_there
            the_prefix_of_everything_lists_every_record_and_is_no_place_for_one
            a_scan_tells_of_every_record_once
            a_scan_ends_where_it_is_told_to
            a_scan_is_of_one_moment_and_may_use_the_store
            a_watch_tells_the_past_in_order_and_then_that_it_is_current
            a_watch_tells_nothing_of_other_prefixes_or_refused_commits
            a_watch_arrives_at_the_newest_value_of_each_record
            a_watch_tells_of_a_commit_while_it_waits
            a_watch_tells_a_commit_whole_in_one_call
            a_watch_tells_of_a_commit_at_once
            a_watch_of_everything_tells_of_every_record
            a_watch_is_current_at_least_once_a_second
            a_watch_that_is_current_has_told_all_that_was_committed
            a_watch_is_current_as_of_a_moment_before_it_asked
            a_watch_goes_on_where_another_ended
            a_watch_may_use_the_store_while_it_is_told
            a_watch_from_long_ago_is_told_all_or_to_list_again
            a_lease_has_one_holder
            a_lease_is_renewed_by_its_holder_under_the_same_fence
            a_lease_that_ran_out_goes_to_another_under_a_greater_fence
            leases_of_different_names_are_apart
            a_fence_stands_between_the_commits_before_and_behind_it
            of_eight_creations_of_a_record_one_wins
            no_increment_of_eight_threads_is_lost
            of_eight_wishes_for_a_lease_one_is_granted
        }
    };
    (@tests $make:expr; $($case:ident)+) => {
        $(
            #[test]
            fn $case() {
                let fixture: $crate::store::Fixture = ($make)();
                $crate::store::$case(&*fixture);
            }
        )+
    };
}

/// An empty store, and whatever must live as long as it.
pub struct Fixture {
    // In the order of their drop.
    store: Box<dyn Store>,
    _kept: Option<Box<dyn Any>>,
}

impl Fixture {
    /// Takes an empty store.
    pub fn new(store: impl Store + 'static) -> Self {
        Self { store: Box::new(store), _kept: None }
    }

    /// Keeps `guard` until the store is dropped.
    pub fn keeping(self, guard: impl Any) -> Self {
        Self { _kept: Some(Box::new(guard)), ..self }
    }
}

impl Deref for Fixture {
    type Target = dyn Store;

    fn deref(&self) -> &Self::Target {
        &*self.store
    }
}

/// A change as it was told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) path: String,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) revision: Revision,
}

pub(crate) fn path(text: &str) -> Path {
    Path::new(text).expect("the suite names paths")
}

pub(crate) fn put(at: &str, expected: Option<Revision>, value: &[u8]) -> Write {
    Write { path: path(at), expected, value: Some(value.to_vec()) }
}

pub(crate) fn removal(at: &str, expected: Option<Revision>) -> Write {
    Write { path: path(at), expected, value: None }
}

pub(crate) fn create(store: &dyn Store, at: &str, value: &[u8]) -> Revision {
    store.commit(&[put(at, None, value)]).expect("the path is free")
}

pub(crate) fn value_at(store: &dyn Store, at: &str) -> Option<Vec<u8>> {
    store.get(&path(at)).expect("the store reads").map(|entry| entry.value)
}

/// Returns the path that a commit is in conflict over.
pub(crate) fn conflict(result: Result<Revision, StoreError>) -> String {
    match result {
        Err(StoreError::Conflict(path)) => path.to_string(),
        other => panic!("a conflict was due, not {other:?}"),
    }
}

/// Returns the paths of one page.
pub(crate) fn paths(store: &dyn Store, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    let after = after.map(path);
    let page = Page { after: after.as_ref(), limit };
    let entries = store.list(&path(prefix), page).expect("the store reads");
    entries.into_iter().map(|entry| entry.path.to_string()).collect()
}

/// Returns what a watch tells until it is current.
pub(crate) fn told(store: &dyn Store, prefix: &str, from: Revision) -> Result<Vec<Told>, StoreError> {
    let mut told = Vec::new();
    store.watch(&path(prefix), from, &mut |change| keep(&mut told, &change))?;
    Ok(told)
}

/// Keeps what a commit wrote; false where there was none.
pub(crate) fn keep(told: &mut Vec<Told>, change: &Change<'_>) -> bool {
    match change {
        Change::Commit { revision, writes } => {
            assert!(!writes.is_empty(), "a commit that wrote nothing here is not told of");
            let kept = |write: &Wrote<'_>| {
                let value = write.value.map(<[u8]>::to_vec);
                Told { path: write.path.to_string(), value, revision: *revision }
            };
            told.extend(writes.iter().map(kept));
            true
        }
        Change::Current { .. } => false,
    }
}
