#![doc = include_str!("../README.md")]

mod alone;
mod disk;
mod farm;
mod fuse;
mod live;
mod plain;
pub mod program;
mod setup;
mod site;
mod tenancy;
mod wire;

pub use disk::Disk;
pub use farm::{Farm, Simulated, built};
pub use fuse::{Fuse, Point};
pub use live::{Live, Started, overhead};
pub use plain::{Plain, next, resident};
pub use setup::Setup;
pub use site::Site;
pub use wire::Wire;
