#![doc = include_str!("../README.md")]

pub mod audit;
pub mod derived;
pub mod digest;
pub mod epoch;
pub mod import;
pub mod login_token;
pub mod opening;
pub mod payload;
pub mod random;
pub mod record;
pub mod root;
pub mod xaes;
