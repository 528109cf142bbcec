//! Work with keys: jobs, where their items lie, where their results go, and the desk that does them.

mod away;
mod compute;
mod cut;
mod desk;
mod export;
mod hsm;
mod items;
mod job;
mod open;
mod pair;
mod reply;
mod seal;
mod secrets;
mod served;
mod sheet;
mod task;
mod trips;

pub(crate) use compute::{Computation, Compute};
pub use desk::{Desk, DeskKind};
pub(crate) use export::Export;
pub(crate) use hsm::rights_of;
pub use items::Items;
pub(crate) use job::Fault;
pub use job::{Cancel, Finished, Job, NamedDataKey, NamedSecret, OpenedSecret, Product, ReplyTo, Tally};
pub(crate) use pair::{MadePair, PairJob, WantedPair};
pub use reply::Lent;
pub(crate) use secrets::AskedSecret;
pub use secrets::NamedSecrets;
pub(crate) use served::Served;
pub(crate) use sheet::{ANSWER_BYTES, ITEM_FRAMING_BYTES};
pub use sheet::{Framing, Sheet};
pub(crate) use task::{Contexts, Destination, KeySlot, NamedKeys, OpenTask, Sealing, Task};
