//! The HTTP frontend before a real engine: what it serves, whom it refuses, what it withstands.
#![allow(clippy::unwrap_used, reason = "tests")]

mod aliyun;
mod client;
mod gateway;
mod limits;
mod operations;
mod probes;
mod recorded;
mod signatures;
mod site;
