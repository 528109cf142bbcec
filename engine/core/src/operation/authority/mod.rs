//! Operations on certificate authorities: beyond the cloud's, whose own are another product's.

mod issue;
mod life;
mod revoke;

pub use issue::*;
pub use life::*;
pub use revoke::*;
