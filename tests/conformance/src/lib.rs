#![doc = include_str!("../README.md")]

pub mod memory_store;
pub mod provider;
pub mod store;

pub use memory_store::MemoryStore;
