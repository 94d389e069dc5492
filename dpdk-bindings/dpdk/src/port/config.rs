//! How a port shall be.

use super::info::PortInfo;
use crate::error::Error;
use crate::mbuf::HEADROOM_BYTES;
use crate::mempool::Mempool;

/// Ethernet header and two VLAN tags: what a frame has beside its MTU.
const FRAME_OVERHEAD_BYTES: u32 = 14 + 2 * 4;

/// This driver's `qpairs=` all receive from the start: the kernel spreads packets over them, and those that nobody reads
/// would be lost.
const SPREADING_DRIVER: &str = "net_af_packet";

/// This driver says that its frames are Ethernet's standard ones at most, refuses to be told anything else, and carries
/// whatever its kernel interface does, up to its `framesz=` of 2,048 bytes. So the MTU is set where the interface is.
const INTERFACE_MTU_DRIVER: &str = "net_af_packet";

/// How fast the link shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LinkSpeed {
    /// As both ends agree.
    #[default]
    Negotiated,
    /// This many megabits per second, full duplex.
    Fixed {
        /// Megabits per second.
        mbps: u32,
    },
}

/// What a port shall be. There are as many receive queues as mempools given beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortConfig {
    /// Transmit queues.
    pub tx_queues: u16,
    /// Packets that a receive queue holds; the device rounds it to what it can.
    pub rx_descriptors: u16,
    /// Packets that a transmit queue holds; the device rounds it to what it can.
    pub tx_descriptors: u16,
    /// The largest packet without the Ethernet header, in bytes; `None` leaves the device as it is.
    pub mtu: Option<u16>,
    /// Receive what is addressed to others too.
    pub promiscuous: bool,
    /// Receive every multicast.
    pub all_multicast: bool,
    /// With several receive queues: spread flows over them by a hash, as far as the device offers one.
    pub rss: bool,
    /// The link's speed.
    pub link_speed: LinkSpeed,
}

impl Default for PortConfig {
    fn default() -> Self {
        PortConfig {
            tx_queues: 1,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: None,
            promiscuous: false,
            all_multicast: false,
            rss: true,
            link_speed: LinkSpeed::Negotiated,
        }
    }
}

impl PortConfig {
    pub(super) fn check(&self, name: &str, info: &PortInfo, mempools: &[Mempool]) -> Result<(), Error> {
        let within = |what, wanted: u32, least: u32, most: u32| {
            if (least..=most).contains(&wanted) {
                return Ok(());
            }
            Err(Error::OutOfRange { name: name.into(), what, wanted, least, most })
        };
        let least = if info.driver == SPREADING_DRIVER { info.max_rx_queues.into() } else { 0 };
        within("receive queues:", mempools.len() as u32, least, info.max_rx_queues.into())?;
        within("transmit queues:", self.tx_queues.into(), 0, info.max_tx_queues.into())?;
        let Some(mtu) = self.mtu else { return Ok(()) };
        within("an MTU of", mtu.into(), info.min_mtu.into(), info.max_mtu.into())?;
        // A frame that needs more than one buffer would have to be gathered again, one copy each.
        let frame = u32::from(mtu) + FRAME_OVERHEAD_BYTES;
        for mempool in mempools {
            let room = u32::from(mempool.buffer_bytes()) - HEADROOM_BYTES as u32;
            within("frames of up to", frame, 0, room)?;
        }
        Ok(())
    }

    pub(super) fn to_raw(&self, rx_queues: u16, info: &PortInfo) -> dpdk_sys::shim_port_config {
        dpdk_sys::shim_port_config {
            rx_queues,
            tx_queues: self.tx_queues,
            rx_descriptors: self.rx_descriptors,
            tx_descriptors: self.tx_descriptors,
            mtu: self.mtu.filter(|_| info.driver != INTERFACE_MTU_DRIVER).unwrap_or(0),
            rss: u8::from(self.rss),
            speed_mbps: match self.link_speed {
                LinkSpeed::Negotiated => 0,
                LinkSpeed::Fixed { mbps } => mbps,
            },
            ..Default::default()
        }
    }
}
