#![doc = include_str!("../README.md")]

pub mod actor;
mod assembly;
pub mod audit;
pub mod clock;
pub mod config;
pub mod engine;
pub mod frontend;
pub mod gate;
pub mod heads;
pub mod keyring;
pub mod lane;
mod load;
pub mod metrics;
mod nonces;
mod order;
pub mod pool;
pub mod ready;
pub mod records;
mod remember;
mod retention;
mod scan;
pub mod secrets;
mod shared;
pub mod snapshot;
pub mod verify;
pub mod work;

pub use config::{AuditFiles, EngineConfig};
pub use engine::{Engine, EngineError, Parts};
pub use frontend::{Frontend, FrontendError, StopSignal};
pub use gate::{Call, Gate, Managed, Opened};
pub use nonces::SignedNonce;
pub use pool::{ConnectError, InFlight, PoolConfig, TokenConfig, TokenPart, TokenReport, TokenState};
pub use work::{Finished, Framing, Job, Product, ReplyTo, Sheet};
