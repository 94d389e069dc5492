//! The rows of `phalanx show`: plain values whose field names are the contract of `--json`.

use std::net::IpAddr;

use ipsec::sa::{Direction, SaParameters};
use serde::{Deserialize, Serialize};

/// One direction of one SA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaRow {
    /// Tells this SA from every other that this process has had.
    pub id: u64,
    /// The child that it came of.
    pub name: String,
    /// The peer's authenticated identity.
    pub peer: String,
    /// Our IPsec address.
    pub dvipa: IpAddr,
    /// `in` or `out`.
    pub direction: String,
    /// The SPI in hexadecimal, such as `0x0000c0de`.
    pub spi: String,
    /// `tunnel` or `transport`.
    pub mode: String,
    /// `none` or `udp`.
    pub encap: String,
    /// The cipher as proposals name it.
    pub cipher: String,
    /// What computes it.
    pub engine: String,
    /// Packets delivered or sent.
    pub packets: u64,
    /// Inner bytes delivered or sent: what the lifesize counts.
    pub bytes: u64,
    /// Packets refused as replayed or older than the window.
    pub replay_drops: u64,
    /// Width of the replay window, 0 for none.
    pub replay_window_packets: u32,
    /// Extended sequence numbers.
    pub esn: bool,
    /// It is replaced from here on; `null` for no limit.
    pub soft_limit_bytes: Option<u64>,
    /// It carries nothing beyond this; `null` for no limit.
    pub hard_limit_bytes: Option<u64>,
    /// It is a copy of another appliance's SA.
    pub shadow: bool,
    /// The owner's epoch at its birth.
    pub epoch: u64,
    /// How its outbound numbers are given out: the DVIPA's `outbound_sequence`.
    pub outbound_sequence: String,
    /// The peer's IPsec address.
    pub remote: IpAddr,
    /// Its traffic selectors, ours first.
    pub selectors: String,
}

/// What an SA has carried, summed over cores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaTraffic {
    /// Packets delivered or sent.
    pub packets: u64,
    /// Inner bytes delivered or sent.
    pub bytes: u64,
    /// Packets refused as replayed or older than the window.
    pub replay_drops: u64,
}

impl SaRow {
    /// The row of an SA of our own (no shadow). `engine` computes its cipher, `outbound_sequence` is its DVIPA's word.
    #[must_use]
    pub fn of(id: u64, sa: &SaParameters, engine: &str, outbound_sequence: &str, traffic: SaTraffic) -> Self {
        Self {
            id,
            name: sa.name.to_string(),
            peer: sa.peer_name.to_string(),
            dvipa: sa.dvipa,
            direction: sa.direction.to_string(),
            spi: sa.spi.to_string(),
            mode: sa.mode.to_string(),
            encap: sa.encapsulation.to_string(),
            cipher: sa.cipher.to_string(),
            engine: engine.to_owned(),
            packets: traffic.packets,
            bytes: traffic.bytes,
            replay_drops: traffic.replay_drops,
            // Whoever sends has no window.
            replay_window_packets: match sa.direction {
                Direction::Inbound => sa.replay_window_packets,
                Direction::Outbound => 0,
            },
            esn: sa.esn,
            soft_limit_bytes: sa.lifetime.bytes.soft,
            hard_limit_bytes: sa.lifetime.bytes.hard,
            shadow: false,
            epoch: sa.epoch,
            outbound_sequence: outbound_sequence.to_owned(),
            remote: sa.remote,
            selectors: sa.selectors.to_string(),
        }
    }
}

/// Packets that were dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropRow {
    /// The reason's name, which never changes its meaning.
    pub reason: String,
    /// How many.
    pub packets: u64,
    /// How much it matters: `expected`, `suspicious` or `shortage`.
    pub severity: String,
    /// What it means, in a sentence.
    pub meaning: String,
    /// What dropped them: `data` for the packet path, which the balance counts; `stack` for the IP stack of our own
    /// addresses and `ike`, which were handed what the balance calls punted.
    pub stage: String,
}

/// Where packets ended: `received − all ends − held = 0` whenever no core is in the middle of a burst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalanceRow {
    /// Frames taken from receive queues.
    pub received: u64,
    /// Inner packets sent to application hosts.
    pub delivered: u64,
    /// Packets sent to the network: encrypted, or bypassed by policy.
    pub forwarded: u64,
    /// Packets sent to other members of the cluster.
    #[serde(default)]
    pub relayed: u64,
    /// Frames given to the control core.
    pub punted: u64,
    /// Fragments absorbed into another packet.
    pub merged: u64,
    /// Packets dropped, over all reasons.
    pub dropped: u64,
    /// Frames of our own making that were sent; they were never received.
    pub originated: u64,
    /// Packets of our own making that are still on their way to an end.
    #[serde(default)]
    pub making: u64,
    /// Packets that wait inside now.
    pub held: u64,
    /// What the other numbers leave over.
    pub difference: i64,
}

/// One connection of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionRow {
    /// The identity of the peer that it comes from.
    pub peer: String,
    /// The address that the client connected to.
    pub dvipa: IpAddr,
    /// The client's address, with its port where there is one.
    pub src: String,
    /// The service's address, with its port where there is one.
    pub dst: String,
    /// `tcp`, `udp`, `icmp`, or the protocol's number.
    pub protocol: String,
    /// `new`, `established`, `closing` or `closed`; `routed` for one that another member terminates; `ended` for one that
    /// the owner of its address has not forgotten yet.
    pub state: String,
    /// The appliance that terminates it.
    pub target: String,
    /// The data core that terminates it, or routes it.
    pub core: u16,
}

impl ConnectionRow {
    /// An end of a connection as rows show it: `10.1.0.5:40000`, `[2001:db8::1]:80`, or the address alone.
    #[must_use]
    pub fn endpoint(address: IpAddr, port: u16, protocol: u8) -> String {
        match protocol {
            6 | 17 | 132 => std::net::SocketAddr::new(address, port).to_string(),
            _ => address.to_string(),
        }
    }

    /// The protocol as rows show it.
    #[must_use]
    pub fn protocol_name(protocol: u8) -> String {
        match protocol {
            1 => "icmp".into(),
            6 => "tcp".into(),
            17 => "udp".into(),
            58 => "ipv6-icmp".into(),
            132 => "sctp".into(),
            number => number.to_string(),
        }
    }
}

/// One DPDK device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRow {
    /// Its name in the configuration.
    pub name: String,
    /// `network`, `inside` or `trusted`.
    pub role: String,
    /// What DPDK calls it.
    pub device: String,
    /// `up` or `down`.
    pub link: String,
    /// Its Ethernet address.
    pub mac: String,
    /// The NUMA node that it is attached to; `null` if there is none.
    pub numa: Option<u32>,
    /// The largest IP packet that it carries.
    pub mtu: u16,
    /// Frames received.
    pub rx_packets: u64,
    /// Frames sent.
    pub tx_packets: u64,
    /// Frames that the device had no room for.
    pub rx_missed: u64,
    /// Frames that no buffer was free for.
    pub rx_no_mbuf: u64,
    /// Buffers of its pool that are in use.
    pub mempool_in_use: u64,
}

/// One processor core that works for us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreRow {
    /// Its number among ours, from 0.
    pub core: u16,
    /// The processor's number for it.
    pub cpu: u16,
    /// `data` or `control`.
    pub role: String,
    /// Its thread, such as `data-0`.
    pub thread: String,
    /// Polls that found something to do.
    pub busy_polls: u64,
    /// Polls that found nothing.
    pub idle_polls: u64,
    /// Packets given to other cores.
    pub handed_over: u64,
    /// Connections that it owns now.
    pub connections: u64,
}
