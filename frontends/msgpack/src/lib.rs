#![doc = include_str!("../README.md")]

mod connection;
mod flow;
mod login;
mod outbox;
mod server;

pub use keymill_wire::hello::ALPN;
pub use server::{Config, Msgpack, bind};
