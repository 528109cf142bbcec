//! The only unsafe code: PKCS#11 towards the application, the real module behind, and three calls of the system.
#![allow(unsafe_code, reason = "C on both sides")]

mod forward;
mod module;
mod os;
mod own;
mod table;

pub(crate) use module::Module;
pub(crate) use os::{crash, own_file, set_env, sleep_precisely};
pub(crate) use table::{Function, NAMES};
