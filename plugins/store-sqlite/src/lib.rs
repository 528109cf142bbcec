#![doc = include_str!("../README.md")]

mod config;
mod directory;
mod error;
mod leases;
mod readers;
mod schema;
mod store;
mod writer;

pub use config::Config;
pub use error::OpenError;
pub use store::{SqliteStore, open};
