//! A safe layer over DPDK, from 22.11 on.
//!
//! | type | what it is |
//! |---|---|
//! | [`Eal`] | proof that DPDK's environment runs; it starts once per process, ever |
//! | [`Mempool`], [`Mbuf`] | preallocated packet buffers, and one owned, contiguous buffer |
//! | [`Device`], [`Port`], [`RxQueue`], [`TxQueue`] | a network device before and after its start, and its queues, each with one owner |
//! | [`Burst`] | up to `N` owned buffers in one array; receive and transmit move them without a copy |
//! | [`ring`] | bounded queues with one producer and one consumer |
//! | [`Lcore`], [`RegisteredThread`] | the threads that DPDK pins to CPUs, and others that want its caches |
//!
//! # Promises
//!
//! - Safe code cannot reach freed memory. Queue handles keep their port open. A mempool lives as long as the process,
//!   so a buffer is valid wherever it goes and costs no reference count. Nothing here ends the environment.
//! - A buffer is freed once: [`Mbuf`] is not `Clone`, dropping it returns it to its mempool, sending it moves it out of
//!   the burst, and what was not sent stays there, in order.
//! - Every [`Mbuf`] is one contiguous segment. What a device scatters is gathered at reception, or dropped and counted.
//! - Nothing on the packet path allocates, locks, or waits (a device's own driver may: see [`Device::open`]).
//!
//! # Never here
//!
//! Protocols, IPsec, policy, idling, or a thread that was not asked for.

#![deny(clippy::undocumented_unsafe_blocks)]
#![deny(unsafe_op_in_unsafe_fn)]

mod arguments;
mod clock;
mod eal;
mod error;
mod lcore;
mod mbuf;
mod mempool;
mod port;
pub mod ring;

pub use arguments::{EalArguments, IovaMode, Memory};
pub use clock::tsc;
pub use eal::Eal;
pub use error::{Errno, Error};
pub use lcore::{Lcore, LcoreJob, RegisteredThread};
pub use mbuf::{Burst, HEADROOM_BYTES, Mbuf, free_burst};
pub use mempool::{Mempool, MempoolConfig};
pub use port::config::{LinkSpeed, PortConfig};
pub use port::info::{ChecksumOffloads, Link, PortInfo, PortStats};
pub use port::queue::{RxQueue, TxQueue};
pub use port::{Device, MAX_PORTS, Port};
