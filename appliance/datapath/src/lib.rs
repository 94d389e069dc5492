//! The poll loops: from burst to burst, through RFC 4301 and RFC 4303, without a lock.
//!
//! **Purpose.** One [`core::DataCore`] for each processor core: its queues, its tables, its turn of the loop. Start
//! reading there; [`inbound`] and [`outbound`] are a packet's two ways.
//!
//! **Promises.**
//! - Every packet received ends exactly once, and is counted where it ends ([`counters::Ledger`]).
//! - Nothing acts on a packet that is not authenticated: the steps that create or change state ask for a proof.
//! - No lock, no wait and no allocation on a packet's way. Tables are of fixed size; full ones refuse, counted.
//! - Cores share nothing but rings with one producer and one consumer ([`handover`], [`mailbox`]).
//!
//! **What it never does.** It reads no clock, starts no thread, knows neither DPDK nor IKE.

#![forbid(unsafe_code)]

pub mod buffer;
pub mod burst;
pub mod cluster;
mod commands;
pub mod connections;
pub mod core;
pub mod counters;
pub mod drops;
pub mod forwarding;
pub mod handover;
pub mod idle;
mod inbound;
pub mod mailbox;
pub mod mapping;
pub mod memory;
mod outbound;
pub mod outer;
pub mod packet;
pub mod policy;
pub mod routes;
pub mod sas;
#[cfg(test)]
mod testing;
