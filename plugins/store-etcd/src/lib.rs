#![doc = include_str!("../README.md")]

mod cluster;
mod commits;
mod config;
mod error;
mod keys;
mod leases;
mod messages;
mod reads;
mod slots;
mod store;
mod threads;
mod trail;
mod watches;

pub use config::{Config, Identity, Tls, User};
pub use error::OpenError;
pub use store::{EtcdStore, open};
