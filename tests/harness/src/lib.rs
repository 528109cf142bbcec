#![doc = include_str!("../README.md")]

mod disk;
mod fuse;
mod live;
pub mod program;
mod setup;
mod site;

pub use disk::Disk;
pub use fuse::{Fuse, Point};
pub use live::{Live, Started};
pub use setup::Setup;
pub use site::Site;
