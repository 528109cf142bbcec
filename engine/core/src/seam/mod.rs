//! The traits that plugins implement: blocking, small, batch-shaped. Threads and async belong to the engine.

pub mod audit;
pub mod auth;
pub mod provider;
pub mod rotator;
pub mod store;
pub mod validator;
