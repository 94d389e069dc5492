//! The control core: configuration, the IP stack of our own addresses, IKE, and what operators see.

#![forbid(unsafe_code)]

pub mod config;
pub mod control_core;
pub mod report;
pub mod stack;
