//! Tokens to measure on: the modules of this machine, tokens made in a scratch directory, simulated HSMs, and the module's own calls in a
//! plain loop, which is the ceiling of what goes through it.

mod farm;
mod modules;
pub mod pace;
pub mod raw;
pub mod scratch;
mod soft;

pub(crate) use farm::Farm;
pub(crate) use modules::Modules;
pub use modules::{Kind, Named};
pub(crate) use soft::{Plain, SoftToken};
