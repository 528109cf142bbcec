#![doc = include_str!("../README.md")]

mod connection;
mod flow;
mod login;
mod outbox;
mod server;

pub use server::{Config, Msgpack, bind};
