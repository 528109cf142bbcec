#![doc = include_str!("../README.md")]

mod answer;
pub mod bare_loop;
pub mod http_echo;
mod pack;
pub mod raw;
pub mod raw_client;
pub mod raw_sign;

pub use bare_loop::{BareLoop, Mode};
pub use http_echo::HttpEcho;
pub use raw::{Load, RawOpener, RawSealer, Run};
pub use raw_client::{RawClient, Request};
pub use raw_sign::RawSigner;
