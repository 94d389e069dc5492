//! The edge where DPDK meets the data path: mbufs as frames, device queues as port queues, lcores as data cores.
//!
//! The binary `phalanx` and the benchmarks share it. It decides nothing about a packet.

#![forbid(unsafe_code)]

pub mod appliance;
pub mod asks;
pub mod clock;
pub mod clustering;
pub mod device;
pub mod facility;
pub mod frame;
pub mod launch;
pub mod panics;
