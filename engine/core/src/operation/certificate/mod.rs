//! Operations on certificates: the cloud's, and beyond those the taking over, listing and giving out.

mod crypto;
mod life;
mod list;

pub use crypto::*;
pub use life::*;
pub use list::*;
