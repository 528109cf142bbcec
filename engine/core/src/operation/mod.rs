//! The operation catalogue: one request and one reply type for each operation, carried as they are by every frontend.

mod access;
mod alias;
mod asymmetric;
mod bin;
mod catalogue;
mod crypto;
mod data_key;
mod import;
mod key;
mod key_policy;
mod limits;
mod mac;
mod page;
mod rights;
mod rotation;
mod service;
mod tag;
mod token;

pub use access::*;
pub use alias::*;
pub use asymmetric::*;
pub use bin::Bin;
pub use catalogue::{Class, Operation, Reply, Request};
pub use crypto::*;
pub use data_key::*;
pub use import::*;
pub use key::*;
pub use key_policy::*;
pub use limits::*;
pub use mac::*;
pub use page::PageRequest;
pub use rotation::*;
pub use service::*;
pub use tag::*;
pub use token::*;
