#![doc = include_str!("../README.md")]

mod bind;
mod handshake;
mod line;

pub use bind::bind;
pub use handshake::{Secured, secure};
pub use line::Line;
