#![doc = include_str!("../README.md")]

pub mod client;
pub mod connection;
pub mod credentials;
pub mod error;
pub mod http;
mod receiver;
mod sender;

#[cfg(test)]
mod fake;

pub use client::{Client, Config, OwnedReply};
pub use connection::{Connection, Options};
pub use credentials::Credentials;
pub use error::{ClientError, Result, ServerError};
pub use http::{HttpClient, HttpReply};
pub use receiver::{Answer, Receiver};
pub use sender::Sender;
