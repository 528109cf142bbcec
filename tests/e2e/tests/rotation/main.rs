//! Secrets that are rotated: to a new version that was set and tested where it is used, whatever fails, whoever crashes between two steps, and
//! whoever asks at the same time.
#![allow(clippy::unwrap_used, reason = "tests")]

mod asked;
mod meanwhile;
mod scene;
mod steps;
