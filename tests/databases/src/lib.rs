#![doc = include_str!("../README.md")]

mod etcd;
mod keeper;
mod mariadb;
mod network;
mod place;
mod postgres;
mod turns;

pub use etcd::{Etcd, EtcdOptions};
pub use mariadb::MariaDb;
pub use network::{Network, Seat};
pub use postgres::Postgres;
pub use turns::{Pair, Rotation};

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A database that a test has started.
pub trait Database: Send + Sync {
    /// Returns its port of 127.0.0.1.
    fn port(&self) -> u16;
    /// Has a statement carried out by its own superuser; what it answers.
    fn sql(&self, sql: &str) -> String;
    /// Makes an account. Neither name nor password may hold quotes.
    fn create_account(&self, name: &str, password: &str);
    /// Logs in over TLS by the database's own client, through a port of 127.0.0.1, and tells whether that went well, and what was said if not.
    ///
    /// # Errors
    /// What the client said.
    fn log_in(&self, account: &str, password: &str) -> Result<(), String>;
    /// Returns the file with the certificate that has signed its own.
    fn ca_file(&self) -> PathBuf;
    /// Returns a file with a certificate that has signed nothing.
    fn other_ca_file(&self) -> PathBuf;
    /// Returns its socket.
    fn socket(&self) -> PathBuf;
    /// Returns all that it has logged: every statement among it.
    fn log(&self) -> String;
    /// Ends it at once.
    fn stop(&mut self);
    /// Starts it again at the same places.
    fn start_again(&mut self);

    /// Waits until the log has a text, and returns all of it.
    fn log_with(&self, text: &str) -> String {
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let log = self.log();
            if log.contains(text) {
                return log;
            }
            assert!(Instant::now() < patience, "the log has no {text}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Lends the tests of one program one database: it is started by the first, and ends with the last that has it.
pub fn shared<D>(slot: &Mutex<Weak<D>>, start: impl FnOnce() -> D) -> Arc<D> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    slot.upgrade().unwrap_or_else(|| {
        let started = Arc::new(start());
        *slot = Arc::downgrade(&started);
        started
    })
}
