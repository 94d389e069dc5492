//! What a port says about itself.

use core::ffi::c_char;

/// What a device can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortInfo {
    /// The driver's name.
    pub driver: String,
    /// The NUMA node it hangs on, where it hangs on one.
    pub numa_node: Option<u32>,
    /// The kernel's number for the interface behind it, where there is one.
    pub interface_index: Option<u32>,
    /// How many receive queues it can have.
    pub max_rx_queues: u16,
    /// How many transmit queues it can have.
    pub max_tx_queues: u16,
    /// The smallest MTU, in bytes.
    pub min_mtu: u16,
    /// The largest MTU, in bytes.
    pub max_mtu: u16,
    /// Whether it can spread flows over its receive queues.
    pub rss_offered: bool,
    /// Which checksums it could do. None is switched on.
    pub checksums: ChecksumOffloads,
}

/// Checksums that a device could compute or check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChecksumOffloads {
    /// Checks IPv4 header checksums.
    pub rx_ipv4: bool,
    /// Checks TCP and UDP checksums.
    pub rx_l4: bool,
    /// Fills in IPv4 header checksums.
    pub tx_ipv4: bool,
    /// Fills in UDP checksums.
    pub tx_udp: bool,
    /// Fills in TCP checksums.
    pub tx_tcp: bool,
}

impl PortInfo {
    pub(super) fn from_raw(raw: &dpdk_sys::shim_port_info) -> Self {
        PortInfo {
            driver: text(&raw.driver),
            numa_node: u32::try_from(raw.numa_node).ok(),
            interface_index: (raw.if_index != 0).then_some(raw.if_index),
            max_rx_queues: raw.max_rx_queues,
            max_tx_queues: raw.max_tx_queues,
            min_mtu: raw.min_mtu,
            max_mtu: raw.max_mtu,
            rss_offered: raw.rss_offered != 0,
            checksums: ChecksumOffloads {
                rx_ipv4: raw.rx_ipv4_checksum != 0,
                rx_l4: raw.rx_l4_checksum != 0,
                tx_ipv4: raw.tx_ipv4_checksum != 0,
                tx_udp: raw.tx_udp_checksum != 0,
                tx_tcp: raw.tx_tcp_checksum != 0,
            },
        }
    }
}

fn text(raw: &[c_char]) -> String {
    let bytes: Vec<u8> = raw.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The state of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Whether it is up.
    pub up: bool,
    /// Megabits per second, where known.
    pub speed_mbps: Option<u32>,
    /// Whether both ends may send at once.
    pub full_duplex: bool,
}

impl Link {
    pub(super) fn from_raw(raw: &dpdk_sys::shim_link) -> Self {
        let known = raw.speed_mbps != 0 && raw.speed_mbps != u32::MAX;
        Link { up: raw.up != 0, speed_mbps: known.then_some(raw.speed_mbps), full_duplex: raw.full_duplex != 0 }
    }
}

/// What a device counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets lost because a receive queue was full.
    pub rx_missed: u64,
    /// Packets received damaged.
    pub rx_errors: u64,
    /// Packets that were accepted for sending and lost.
    pub tx_errors: u64,
    /// Receptions that found the mempool empty.
    pub rx_no_mbuf: u64,
}

impl PortStats {
    pub(super) fn from_raw(raw: &dpdk_sys::shim_stats) -> Self {
        PortStats {
            rx_packets: raw.rx_packets,
            tx_packets: raw.tx_packets,
            rx_bytes: raw.rx_bytes,
            tx_bytes: raw.tx_bytes,
            rx_missed: raw.rx_missed,
            rx_errors: raw.rx_errors,
            tx_errors: raw.tx_errors,
            rx_no_mbuf: raw.rx_no_mbuf,
        }
    }
}
