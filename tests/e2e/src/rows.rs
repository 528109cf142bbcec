//! The rows of a stopped engine's store, changed behind its back: as one with the disk in hand could, or who may write to the etcd.

use std::sync::Arc;

use keymill_core::seam::store::{Path, Store, Write};
use keymill_harness::Site;
use rusqlite::{Connection, OptionalExtension, params};

/// Rows that are put into an etcd at once.
const CHUNK: usize = 5_000;

/// The store's rows.
pub struct Rows {
    place: Place,
    /// What stands before the paths of the scene, where that is a part of the store (`KEYMILL_TEST_INSTANCES`).
    prefix: String,
}

enum Place {
    Database(Connection),
    Etcd(Arc<dyn Store>),
}

impl Rows {
    /// Opens the store of a stopped engine.
    pub fn of(site: &Site) -> Self {
        match site.is_in_etcd() {
            false => {
                let database = Connection::open(site.database()).expect("the database opens");
                Self { place: Place::Database(database), prefix: site.prefix() }
            }
            // Which is that of the scene alone.
            true => {
                let store = site.store().expect("the store opens");
                Self { place: Place::Etcd(store), prefix: String::new() }
            }
        }
    }

    /// Opens the database of a server that is stopped, by its data directory.
    pub fn at(data: &std::path::Path) -> Self {
        let database = Connection::open(data.join("keymill.db")).expect("the database opens");
        Self { place: Place::Database(database), prefix: String::new() }
    }

    /// Returns where a path of the scene stands.
    fn at_path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Returns the bytes at a path.
    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        match &self.place {
            Place::Database(database) => database
                .query_row("SELECT value FROM records WHERE path = ?1", [self.at_path(path)], |row| {
                    row.get(0)
                })
                .optional()
                .expect("the row can be read"),
            Place::Etcd(store) => {
                store.get(&named(path)).expect("the row can be read").map(|entry| entry.value)
            }
        }
    }

    /// Returns all paths that begin so.
    pub fn paths(&self, prefix: &str) -> Vec<String> {
        match &self.place {
            Place::Database(database) => {
                let mut select = database
                    .prepare("SELECT path FROM records WHERE path GLOB ?1 || '*' ORDER BY path")
                    .expect("SQL");
                let rows = select
                    .query_map([self.at_path(prefix)], |row| row.get::<_, String>(0))
                    .expect("the rows can be read");
                let own = |path: String| path[self.prefix.len()..].to_owned();
                rows.map(|path| path.map(own)).collect::<Result<_, _>>().expect("the rows can be read")
            }
            Place::Etcd(store) => {
                let mut paths = Vec::new();
                let scan = store.scan(&mut |row| {
                    paths.extend(row.path.starts_with(prefix).then(|| row.path.to_owned()));
                    true
                });
                scan.expect("the rows can be read");
                paths.sort_unstable();
                paths
            }
        }
    }

    /// Replaces the bytes at a path.
    pub fn put(&self, path: &str, value: &[u8]) {
        match &self.place {
            Place::Database(database) => {
                let changed = database.execute(
                    "UPDATE records SET value = ?2 WHERE path = ?1",
                    params![self.at_path(path), value],
                );
                assert_eq!(changed.expect("the row can be changed"), 1, "{path}");
            }
            Place::Etcd(store) => replace(&**store, path, Some(value)),
        }
    }

    /// Changes one bit at a path.
    pub fn flip(&self, path: &str) {
        let mut value = self.get(path).expect("the row is there");
        let middle = value.len() / 2;
        value[middle] ^= 1;
        self.put(path, &value);
    }

    /// Puts each of two rows in the other's place.
    pub fn swap(&self, one: &str, other: &str) {
        let (a, b) = (self.get(one).expect("the row is there"), self.get(other).expect("the row is there"));
        self.put(one, &b);
        self.put(other, &a);
    }

    /// Removes a row.
    pub fn delete(&self, path: &str) {
        match &self.place {
            Place::Database(database) => {
                let changed = database.execute("DELETE FROM records WHERE path = ?1", [self.at_path(path)]);
                assert_eq!(changed.expect("the row can be removed"), 1, "{path}");
            }
            Place::Etcd(store) => replace(&**store, path, None),
        }
    }

    /// Puts so many rows of no meaning where none are, in one go.
    pub fn fill(&mut self, paths: impl Iterator<Item = String>) {
        let prefix = &self.prefix;
        match &mut self.place {
            Place::Database(database) => {
                let transaction = database.transaction().expect("the database is ours");
                {
                    let mut insert =
                        transaction.prepare("INSERT INTO records VALUES (?1, x'00', 1, 0)").expect("SQL");
                    for path in paths {
                        insert.execute([format!("{prefix}{path}")]).expect("the row can be added");
                    }
                }
                transaction.commit().expect("the rows can be added");
            }
            Place::Etcd(store) => {
                let all: Vec<_> = paths.map(|path| row(&path, vec![0])).collect();
                for some in all.chunks(CHUNK) {
                    store.commit(some).expect("the rows can be added");
                }
            }
        }
    }

    /// Puts a row where none is.
    pub fn insert(&self, path: &str, value: &[u8]) {
        match &self.place {
            Place::Database(database) => {
                database
                    .execute("INSERT INTO records VALUES (?1, ?2, 1, 0)", params![self.at_path(path), value])
                    .expect("the row can be added");
            }
            Place::Etcd(store) => {
                store.commit(&[row(path, value.to_vec())]).expect("the row can be added");
            }
        }
    }
}

fn named(path: &str) -> Path {
    Path::new(path).expect("the tests name paths")
}

fn row(path: &str, value: Vec<u8>) -> Write {
    Write { path: named(path), expected: None, value: Some(value) }
}

fn replace(store: &dyn Store, path: &str, value: Option<&[u8]>) {
    let there = store.get(&named(path)).expect("the row can be read").expect("the row is there");
    let write = Write { path: there.path, expected: Some(there.revision), value: value.map(<[u8]>::to_vec) };
    store.commit(&[write]).expect("the row can be changed");
}
