//! Packets as clients and application hosts write them, and what the model reads out of them.

use core::net::Ipv4Addr;

use control::stack::MacAddress;
use wire::ethernet::{self, EtherType};
use wire::{ipv4, protocol, tcp};

use crate::place::DVIPA;

/// The port of the service.
pub const SERVICE: u16 = 80;
/// What a payload begins with.
const MAGIC: [u8; 8] = *b"phalanx:";
/// Headers of IP and TCP, and the tag.
pub const SEGMENT_LEN_MIN: usize = 40 + 16;

/// A segment as the model knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What makes it unlike every other.
    pub tag: u64,
    /// The client's address and port.
    pub client: (Ipv4Addr, u16),
    /// Whether it goes from the client to the service.
    pub to_service: bool,
    /// Its flags.
    pub flags: tcp::Flags,
    /// Length of the IP packet in bytes.
    pub len: usize,
}

impl Segment {
    /// The IP packet.
    #[must_use]
    pub fn emit(&self) -> Vec<u8> {
        let (client, client_port) = self.client;
        let (src, dst) = if self.to_service { (client, DVIPA) } else { (DVIPA, client) };
        let len = self.len.max(SEGMENT_LEN_MIN);
        let mut packet = vec![0xa5; len];
        packet[..20].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol::TCP, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[12..16].copy_from_slice(&src.octets());
        packet[16..20].copy_from_slice(&dst.octets());
        ipv4::Packet::new_unchecked(&mut packet[..]).fill_checksum();
        let (from, to) = if self.to_service { (client_port, SERVICE) } else { (SERVICE, client_port) };
        packet[20..40].fill(0);
        packet[20..22].copy_from_slice(&from.to_be_bytes());
        packet[22..24].copy_from_slice(&to.to_be_bytes());
        packet[32..34].copy_from_slice(&[0x50, self.flags.bits()]);
        packet[40..48].copy_from_slice(&MAGIC);
        packet[48..56].copy_from_slice(&self.tag.to_be_bytes());
        packet
    }

    /// Reads one, if it is one of ours.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Segment> {
        let ip = ipv4::Packet::new_checked(packet).ok()?;
        if ip.protocol() != protocol::TCP || packet.len() < SEGMENT_LEN_MIN || packet[40..48] != MAGIC {
            return None;
        }
        let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
        let to_service = ip.dst() == DVIPA;
        let client = if to_service { (ip.src(), port(20)) } else { (ip.dst(), port(22)) };
        let flags = tcp::Packet::new_checked(&packet[20..]).ok()?.flags();
        let tag = u64::from_be_bytes(packet[48..56].try_into().ok()?);
        Some(Segment { tag, client, to_service, flags, len: ip.total_len() })
    }
}

/// An Ethernet frame around an IP packet.
#[must_use]
pub fn framed(from: MacAddress, to: MacAddress, packet: &[u8]) -> Vec<u8> {
    let header = ethernet::Repr { dst: to, src: from, vlan: None, ether_type: EtherType::Ipv4 };
    let mut frame = vec![0; header.buffer_len() + packet.len()];
    header.emit(&mut ethernet::Packet::new_unchecked(&mut frame[..]));
    frame[header.buffer_len()..].copy_from_slice(packet);
    frame
}

/// The IP packet in a frame, if it holds one.
#[must_use]
pub fn ip_of(frame: &[u8]) -> Option<&[u8]> {
    let ethernet = ethernet::Packet::new_checked(frame).ok()?;
    let is_ip = ethernet.ether_type() == EtherType::Ipv4;
    is_ip.then(|| &frame[ethernet::HEADER_LEN..])
}
