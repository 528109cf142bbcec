#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

mod codes;
mod control;
mod device;
mod faults;
mod ffi;
mod pace;
mod simulator;
mod stats;
mod watch;
