//! Opening the configured ports.

use control::config::{self, Config};
use datapath::burst::BURST;
use dpdk::{Device, Eal, Mempool, MempoolConfig, PortConfig};

use crate::frame::QueuePair;

/// Descriptors of each queue.
const DESCRIPTORS: u16 = 1024;
/// Frames that can wait between one data core and the control core, in each direction (`datapath::mailbox`).
const CONTROL_RING: u32 = 512;
/// Buffers that a thread keeps at hand, at most; DPDK lets half as many more pile up before it gives some back.
const CACHE: u32 = 256;
/// Bursts that a core has in its hands within a poll, beside one for each other core.
const BURSTS_IN_HAND: u32 = 4;
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
    #[error(
        "no memory for {packets} packet buffers: {error}; give DPDK more with `eal: args: [-m, MEGABYTES]`, or take fewer with `eal: mbufs:`"
    )]
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

/// All packet buffers.
#[derive(Debug, Clone, Copy)]
pub struct PacketMemory {
    /// Of all ports: a packet may come in by any and leave by any.
    pub received: Mempool,
    /// Of the control core alone: what it has to say to peers and neighbours leaves even when traffic holds every
    /// other buffer.
    pub originated: Mempool,
}

impl PacketMemory {
    /// Takes the memory: as many buffers as are configured, or as all queues and rings can hold.
    ///
    /// # Errors
    /// [`DeviceError::Memory`].
    pub fn take(eal: Eal, config: &Config, handover: usize) -> Result<PacketMemory, DeviceError> {
        let cores = config.cores.data.len() as u32;
        let packets = config.eal.mbufs.unwrap_or_else(|| received_at_once(&config.ports, cores, handover as u32));
        let mtu = config.ports.iter().map(|port| port.mtu_bytes).max().unwrap_or(0);
        let buffer_bytes = dpdk::HEADROOM_BYTES as u16 + FRAME_ROOM_MIN.max(mtu.saturating_add(BESIDE_MTU));
        let pool = |name: &str, packets, cache_packets| {
            let pool = MempoolConfig { cache_packets, buffer_bytes, ..MempoolConfig::new(name, packets) };
            Mempool::create(eal, &pool).map_err(|error| DeviceError::Memory { packets, error })
        };
        // Of few buffers, most must be in reach of every core and not in another's cache.
        let received = pool("packets", packets, CACHE.min(packets / (8 * (cores + 1))))?;
        let originated = pool("originated", originated_at_once(config.ports.len() as u32, cores), 0)?;
        Ok(PacketMemory { received, originated })
    }

    /// How many buffers are out, [`Mempool::in_use_packets`] of both.
    pub fn in_use_packets(&self) -> u32 {
        self.received.in_use_packets() + self.originated.in_use_packets()
    }
}

/// What the queues of all ports, the rings between cores, those to the control core, and the cores' hands and caches can
/// hold of received packets. With so many, no buffer is ever missing: what is full is a queue or a ring, by name.
fn received_at_once(ports: &[config::Port], cores: u32, handover: u32) -> u32 {
    let descriptors = u32::from(DESCRIPTORS);
    let queues: u32 = ports.iter().map(|port| receive_queues(port, cores) + cores).sum();
    let in_hand = (cores + BURSTS_IN_HAND) * BURST as u32;
    let each_core = (cores - cores.min(1)) * handover + CONTROL_RING + in_hand;
    whole_pool(queues * descriptors + cores * each_core + (cores + 1) * CACHE * 3 / 2)
}

/// What the rings from the control core and the transmit queues can hold of frames that it made.
fn originated_at_once(ports: u32, cores: u32) -> u32 {
    whole_pool(cores * (ports * u32::from(DESCRIPTORS) + CONTROL_RING + BURST as u32))
}

/// At least so many buffers; DPDK keeps them in a ring that holds one less than a power of two.
fn whole_pool(packets: u32) -> u32 {
    (packets + 1).next_power_of_two() - 1
}

fn receive_queues(port: &config::Port, cores: u32) -> u32 {
    u32::from(port.queues).clamp(1, cores)
}

/// Opens and starts one configured port.
///
/// # Errors
/// [`DeviceError`], naming the port.
pub fn open_port(eal: Eal, port: &config::Port, cores: usize, memory: Mempool) -> Result<OpenPort, DeviceError> {
    let failed = |error| DeviceError::Dpdk { name: port.name.to_string(), error };
    let device = Device::open(eal, &port.device).map_err(failed)?;
    let receive_queues = receive_queues(port, cores as u32) as usize;
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
    let queues = transmit.into_iter().map(|tx| QueuePair::new(receive.next(), tx).with_spares(memory)).collect();
    Ok(OpenPort { mac: started.mac().map_err(failed)?, port: started, queues })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_covers_every_ring_between_the_cores() {
        for cores in 1..=64 {
            let packets = received_at_once(&[], cores, 1024);
            assert!(packets >= cores * ((cores - 1) * 1024 + 512 + cores * 32), "{cores} cores: {packets}");
            assert!((packets + 1).is_power_of_two());
        }
    }

    #[test]
    fn the_control_core_can_fill_every_ring_and_queue_that_takes_its_frames() {
        assert_eq!(originated_at_once(2, 2), 8_191);
        assert!(originated_at_once(16, 64) >= 64 * (16 * 1_024 + 512));
    }
}
