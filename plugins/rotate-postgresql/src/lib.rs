#![doc = include_str!("../README.md")]

mod fault;
pub mod message;
mod scram;
mod session;

use std::time::Instant;

use keymill_core::seam::rotator::{RotationFault, Rotator};
use keymill_rotate_database::{Database, DatabaseRotator, Login, Way};

pub use keymill_rotate_database::{Config, OpenError, Place, Tls};

use session::PostgresSession;

/// Makes the rotator. The server need not be there yet.
///
/// # Errors
/// [`OpenError`] where the options do not make sense, or a certificate cannot be read.
pub fn open(config: &Config) -> Result<impl Rotator + use<>, OpenError> {
    let postgres = Postgres { way: Way::prepare(config)?, database: config.database.clone() };
    DatabaseRotator::new(postgres, config)
}

/// A server.
struct Postgres {
    way: Way,
    database: Option<String>,
}

impl Database for Postgres {
    type Session = PostgresSession;
    const KIND: &'static str = "postgresql";
    const MAX_NAME_BYTES: usize = 63;
    const RESERVED: &'static [&'static str] = &["postgres", "pg_*"];

    fn log_in(&self, login: &Login, until: Instant) -> Result<PostgresSession, RotationFault> {
        PostgresSession::open(&self.way, self.database.as_deref(), login, until)
    }
}
