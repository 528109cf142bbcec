#![doc = include_str!("../README.md")]

mod algorithm;
mod alt_name;
mod build;
mod certificate;
mod chain;
pub mod client_key;
pub mod cms;
mod constraints;
pub mod crl;
mod extension;
mod name;
pub mod ocsp;
mod parts;
mod pem;
pub mod pkcs12;
mod public_key;
mod request;

pub use algorithm::signing_algorithm;
pub use build::{ToBeSigned, certificate, request};
pub use certificate::Certificate;
pub use chain::{check_chain, read_pem_chain};
pub use name::name_der;
pub use pem::pem;
pub use public_key::key_id;
pub use request::SigningRequest;

/// The most bytes of a certificate, or of a request for one, in DER.
pub const MAX_DER_BYTES: usize = 64 * 1024;
/// The most certificates of a chain.
pub const MAX_CHAIN: usize = 10;
/// The most alternative names of a certificate.
pub const MAX_ALT_NAMES: usize = 512;

/// Returns the error that all that is wrong here becomes.
pub(crate) fn invalid(why: impl Into<std::borrow::Cow<'static, str>>) -> keymill_core::Error {
    keymill_core::Error::new(keymill_core::ErrorKind::InvalidParameter, why)
}

/// Returns a text of others' as an error shows it: a part of it, escaped.
pub(crate) fn shown(text: &str) -> String {
    let short: String = text.chars().take(80).collect();
    let more = if short.len() < text.len() { "..." } else { "" };
    format!("{short:?}{more}")
}
