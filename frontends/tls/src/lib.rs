#![doc = include_str!("../README.md")]

mod channel;
mod client;
mod error;
mod files;
mod peer;
mod pem;
mod provider;
mod reload;
mod server;

pub use channel::{ReadHalf, WriteHalf};
pub use client::{ClientOptions, ClientTls};
pub use error::{TlsError, is_of_tls};
pub use peer::read_peer;
pub use reload::{Outcome, ServerTls};
pub use rustls_pki_types::CertificateDer;
pub use server::{ClientCertificates, Identity, Loaded, Material, MinVersion, Options, ReadKey, build};
