#![doc = include_str!("../README.md")]

mod base64url;
mod binding;
mod json;
mod jwk;
mod jws;
mod nonce;
pub mod problem;
pub mod reply;
pub mod request;
mod route;

pub use binding::BindingClaim;
pub use jwk::Jwk;
pub use jws::{ALGORITHMS, Jws, Signer, Verified};
pub use nonce::Nonces;
pub use route::{Route, Urls};

#[cfg(test)]
mod signed;
