#![doc = include_str!("../README.md")]

mod bridge;
mod config;
mod connect;
mod error;
mod leases;
mod pool;
mod records;
mod schema;
mod signal;
mod store;
mod tls;
mod trail;
mod writer;

pub use config::{Config, Place, Tls};
pub use error::OpenError;
pub use store::{PostgresStore, open};
