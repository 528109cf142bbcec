#![doc = include_str!("../README.md")]

mod bind;
mod came;
mod handshake;
mod line;

pub use bind::bind;
pub use came::Came;
pub use handshake::{Secured, secure};
pub use line::Line;
