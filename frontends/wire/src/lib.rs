#![doc = include_str!("../README.md")]

pub mod acs3;
pub mod aliyun;
pub mod answer;
pub mod batch;
pub mod error;
pub mod form;
pub mod frame;
pub mod gateway;
pub mod hello;
mod problem;
pub mod request;
pub mod response;
mod scan;
mod strict;
