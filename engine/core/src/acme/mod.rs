//! Automatic certificate management (RFC 8555): its accounts, orders, authorizations and challenges as records, and their legal changes as
//! pure functions. How requests are signed and written is `keymill-acme`'s; who issues is the internal CA.

use crate::certificate::AltName;

mod account;
mod identifier;
mod order;
mod problem;
mod settle;

pub use account::{Account, AccountKey, AccountStatus, contacts};
pub use identifier::{ChallengeKind, identifier, offered};
pub use order::{
    Authorization, AuthorizationStatus, Challenge, ChallengeStatus, Issued, Order, OrderStatus, token,
};
pub use problem::{Outcome, Problem, ProblemKind};
pub use settle::{Begun, asked_for, holds_all};
