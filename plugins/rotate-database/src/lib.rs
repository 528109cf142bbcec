#![doc = include_str!("../README.md")]

mod accounts;
mod config;
mod rotator;
mod value;
mod way;
mod wire;

pub use accounts::Accounts;
pub use config::{Config, OpenError, Place, Tls};
pub use rotator::{Database, DatabaseRotator, Session};
pub use value::{Login, MAX_PASSWORD_BYTES};
pub use way::Way;
pub use wire::Wire;
