#![doc = include_str!("../README.md")]

pub mod access;
pub mod acme;
pub mod audit;
pub mod blob;
pub mod certificate;
pub mod context;
pub mod error;
pub mod id;
pub mod instance;
pub mod key;
pub mod limit;
pub mod login;
pub mod operation;
pub mod quota;
pub mod seam;
pub mod secret;
pub mod sensitive;
pub mod share;
mod status;
pub mod time;

pub use context::EncryptionContext;
pub use error::{Error, ErrorKind, Result};
pub use sensitive::Sensitive;
pub use time::Timestamp;
