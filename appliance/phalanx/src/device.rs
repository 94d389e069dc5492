//! Opening the configured ports.

use control::config;
use dpdk::{Device, Eal, Mempool, MempoolConfig, PortConfig};

use crate::frame::QueuePair;

/// Descriptors of each queue.
const DESCRIPTORS: u16 = 1024;
/// Buffers that each core may have in its hands beside the queues: caches, rings between cores, rings to control.
const BUFFERS_PER_CORE: u32 = 4096;
/// Ethernet header with two tags, and what ESP adds behind a packet.
const BESIDE_MTU: u16 = 22 + 32;
const FRAME_ROOM_MIN: u16 = 2048;
const STANDARD_MTU: u16 = 1500;

/// A port that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// DPDK refused.
    #[error("port {name}: {error}")]
    Dpdk {
        /// The port's name in the configuration.
        name: String,
        /// What DPDK said.
        error: dpdk::Error,
    },
    /// No memory for packet buffers.
    #[error("no memory for {packets} packet buffers: {error}; give DPDK more with `eal: args: [-m, MEGABYTES]`")]
    Memory {
        /// How many buffers were wanted.
        packets: u32,
        /// What DPDK said.
        error: dpdk::Error,
    },
    /// A queue that the device promised is missing.
    #[error("port {name}: {found} transmit queues for {expected} data cores; give the device more, or use fewer cores")]
    Queues {
        /// The port's name in the configuration.
        name: String,
        /// Queues that the device gave.
        found: usize,
        /// Data cores.
        expected: usize,
    },
}

/// A started port and every core's queues of it.
#[derive(Debug)]
pub struct OpenPort {
    /// For counters and link state.
    pub port: dpdk::Port,
    /// Its link address.
    pub mac: [u8; 6],
    /// One for each data core, in order.
    pub queues: Vec<QueuePair>,
}

/// One mempool for all ports: a packet may come in by any and leave by any.
///
/// # Errors
/// [`DeviceError::Memory`].
pub fn packet_memory(eal: Eal, ports: &[config::Port], cores: usize) -> Result<Mempool, DeviceError> {
    let per_port = 2 * u32::from(DESCRIPTORS) * cores as u32;
    let packets = (per_port * ports.len() as u32 + BUFFERS_PER_CORE * cores as u32).next_power_of_two() - 1;
    let mtu = ports.iter().map(|port| port.mtu_bytes).max().unwrap_or(0);
    let mut pool = MempoolConfig::new("packets", packets);
    pool.buffer_bytes = dpdk::HEADROOM_BYTES as u16 + FRAME_ROOM_MIN.max(mtu.saturating_add(BESIDE_MTU));
    Mempool::create(eal, &pool).map_err(|error| DeviceError::Memory { packets, error })
}

/// Opens and starts one configured port.
///
/// # Errors
/// [`DeviceError`], naming the port.
pub fn open_port(eal: Eal, port: &config::Port, cores: usize, memory: Mempool) -> Result<OpenPort, DeviceError> {
    let failed = |error| DeviceError::Dpdk { name: port.name.to_string(), error };
    let device = Device::open(eal, &port.device).map_err(failed)?;
    let receive_queues = usize::from(port.queues).clamp(1, cores);
    let settings = PortConfig {
        tx_queues: cores as u16,
        rx_descriptors: DESCRIPTORS,
        tx_descriptors: DESCRIPTORS,
        // Smaller MTUs are ours to keep; larger ones the device must know of.
        mtu: (port.mtu_bytes > STANDARD_MTU).then_some(port.mtu_bytes),
        rss: receive_queues > 1,
        ..PortConfig::default()
    };
    let (started, receive, transmit) = device.start(&settings, &vec![memory; receive_queues]).map_err(failed)?;
    if transmit.len() < cores {
        return Err(DeviceError::Queues { name: port.name.to_string(), found: transmit.len(), expected: cores });
    }
    let mut receive = receive.into_iter();
    let queues = transmit.into_iter().map(|tx| QueuePair::new(receive.next(), tx)).collect();
    Ok(OpenPort { mac: started.mac().map_err(failed)?, port: started, queues })
}
