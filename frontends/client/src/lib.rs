#![doc = include_str!("../README.md")]

pub mod addresses;
mod backoff;
mod board;
pub mod cache;
pub mod client;
pub mod connection;
pub mod credentials;
pub mod envelope;
pub mod error;
mod flight;
pub mod http;
pub mod keys;
mod moves;
pub mod nodes;
mod pool;
mod receiver;
pub mod secret_cache;
pub mod secrets;
mod sender;
mod stream;
mod wait;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod fake_keys;
#[cfg(test)]
mod fake_node;
#[cfg(test)]
mod fake_secrets;

pub use addresses::{Addresses, NotAddresses};
pub use client::{Client, Config, OwnedReply};
pub use connection::{Connection, Options, Tls};
pub use credentials::Credentials;
pub use envelope::{Envelope, EnvelopeError};
pub use error::{ClientError, Result, ServerError};
pub use http::{HttpClient, HttpReply};
pub use keymill_tls::{ClientOptions, ClientTls};
pub use keymill_wire::hello::ALPN;
pub use keys::{DataKey, DataKeys, KeysError};
pub use nodes::{Member, Nodes};
pub use receiver::{Answer, Receiver};
pub use secret_cache::SecretCache;
pub use secrets::{Asked, SecretValue, Secrets, SecretsError};
pub use sender::Sender;
pub use wait::wait;
