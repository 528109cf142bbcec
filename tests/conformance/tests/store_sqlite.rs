//! The suite for `Store` on the SQLite store, a directory of its own for each test.

use keymill_conformance::store::Fixture;
use keymill_store_sqlite::{Config, open};

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = open(Config::new(directory.path())).expect("the store opens");
    Fixture::new(store).keeping(directory)
}

keymill_conformance::store_suite!(fixture);
