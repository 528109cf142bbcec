//! Symmetric work: jobs, where their items lie, where their results go, and the desk that does them.

mod away;
mod cut;
mod desk;
mod hsm;
mod items;
mod job;
mod open;
mod reply;
mod seal;
mod sheet;
mod trips;

pub use desk::{Desk, DeskKind};
pub use items::Items;
pub use job::{Cancel, Finished, Job, Product, ReplyTo, Tally};
pub(crate) use job::{Contexts, Destination, Fault, KeySlot, OpenTask, Sealing, Task};
pub use reply::Lent;
pub use sheet::{Framing, Sheet};
