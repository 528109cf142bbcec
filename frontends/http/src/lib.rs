#![doc = include_str!("../README.md")]

mod acme;
mod aliyun;
mod body;
mod error;
mod exchange;
mod gateway;
mod nonces;
mod pki;
mod probes;
mod server;
mod signature;
mod stream;
mod v1;

pub use probes::Readiness;
pub use server::{ALPN, Config, Http, bind};
