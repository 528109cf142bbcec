//! The rows of a stopped engine's store, changed behind its back as one with the disk in hand could.

use keymill_harness::Site;
use rusqlite::{Connection, OptionalExtension, params};

/// The store's rows.
pub struct Rows(Connection);

impl Rows {
    /// Opens the database of a stopped engine.
    pub fn of(site: &Site) -> Self {
        Self(Connection::open(site.database()).expect("the database opens"))
    }

    /// Returns the bytes at a path.
    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        self.0
            .query_row("SELECT value FROM records WHERE path = ?1", [path], |row| row.get(0))
            .optional()
            .expect("the row can be read")
    }

    /// Returns all paths that begin so.
    pub fn paths(&self, prefix: &str) -> Vec<String> {
        let mut select =
            self.0.prepare("SELECT path FROM records WHERE path GLOB ?1 || '*' ORDER BY path").expect("SQL");
        let rows = select.query_map([prefix], |row| row.get(0)).expect("the rows can be read");
        rows.collect::<Result<_, _>>().expect("the rows can be read")
    }

    /// Replaces the bytes at a path.
    pub fn put(&self, path: &str, value: &[u8]) {
        let changed = self.0.execute("UPDATE records SET value = ?2 WHERE path = ?1", params![path, value]);
        assert_eq!(changed.expect("the row can be changed"), 1, "{path}");
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
        let changed = self.0.execute("DELETE FROM records WHERE path = ?1", [path]);
        assert_eq!(changed.expect("the row can be removed"), 1, "{path}");
    }

    /// Puts so many rows of no meaning where none are, in one go.
    pub fn fill(&mut self, paths: impl Iterator<Item = String>) {
        let transaction = self.0.transaction().expect("the database is ours");
        {
            let mut insert =
                transaction.prepare("INSERT INTO records VALUES (?1, x'00', 1, 0)").expect("SQL");
            for path in paths {
                insert.execute([path]).expect("the row can be added");
            }
        }
        transaction.commit().expect("the rows can be added");
    }

    /// Puts a row where none is.
    pub fn insert(&self, path: &str, value: &[u8]) {
        self.0
            .execute("INSERT INTO records VALUES (?1, ?2, 1, 0)", params![path, value])
            .expect("the row can be added");
    }
}
