//! The data path from wire to wire: cores, mesh, ports of memory, real SAs. One file for each thing it must do.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed expectation is the point of a test"
)]

mod allocations;
mod chaos;
mod cluster_chaos;
mod cluster_hostile;
mod cluster_numbers;
mod cluster_protection;
mod cluster_replay;
mod cluster_routing;
mod commands;
mod connections;
mod filters;
mod forwarding;
mod hostile_inner;
mod hostile_outer;
mod hostile_peek;
mod inbound;
mod lifesize;
mod moved_peers;
mod noise;
mod outbound;
mod peers;
mod replay;
mod services;
mod shortages;
mod support;
