//! A NAT in front of the client: one mapping for each of its ports, which a test may replace.

use core::net::{Ipv4Addr, SocketAddr};

use wire::ethernet::{self, EtherType};
use wire::{ipv4, natt, protocol, udp};

use super::world::CLIENT;

/// Where the NAT may show the client: addresses of the client's own link, so that somebody answers ARP for them.
pub const OUTSIDE: [&str; 2] = ["192.0.2.21", "192.0.2.22"];

#[derive(Clone, Copy)]
pub struct Nat {
    pub outside: Ipv4Addr,
    /// Added to each port of the client.
    pub shift: u16,
}

impl Nat {
    pub fn new(outside: &str, shift: u16) -> Nat {
        Nat { outside: outside.parse().unwrap(), shift }
    }

    /// Where the client's ESP and its IKE on port 4500 come from.
    pub fn shown(&self) -> SocketAddr {
        (self.outside, natt::PORT + self.shift).into()
    }

    /// A frame of the client as the appliance sees it.
    pub fn out(&self, frame: &[u8]) -> Vec<u8> {
        let translated = translate(frame, |packet| {
            packet.set_src(self.outside);
            let port = port_at(packet, 0).wrapping_add(self.shift);
            set_port(packet, 0, port);
            true
        });
        translated.unwrap_or_else(|| frame.to_vec())
    }

    /// A frame of the appliance as the client sees it; `None` if it came by a mapping that is no more.
    pub fn back(&self, frame: &[u8]) -> Option<Vec<u8>> {
        translate(frame, |packet| {
            let is_mapped = packet.dst() == self.outside && port_at(packet, 2) > self.shift;
            packet.set_dst(CLIENT.parse().unwrap());
            let port = port_at(packet, 2).wrapping_sub(self.shift);
            set_port(packet, 2, port);
            is_mapped
        })
    }
}

fn port_at(packet: &ipv4::Packet<&mut [u8]>, at: usize) -> u16 {
    let udp = packet.payload();
    u16::from_be_bytes([udp[at], udp[at + 1]])
}

fn set_port(packet: &mut ipv4::Packet<&mut [u8]>, at: usize, port: u16) {
    packet.payload_mut()[at..at + 2].copy_from_slice(&port.to_be_bytes());
    // No checksum: UDP over IPv4 may do without.
    packet.payload_mut()[6..8].fill(0);
}

/// Changes the UDP datagrams among frames; the rest passes as it is.
fn translate(frame: &[u8], change: impl FnOnce(&mut ipv4::Packet<&mut [u8]>) -> bool) -> Option<Vec<u8>> {
    let mut frame = frame.to_vec();
    let ethernet = ethernet::Packet::new_checked(&frame[..]).unwrap();
    let (start, is_ip) = (ethernet.header_len(), ethernet.ether_type() == EtherType::Ipv4);
    if is_ip {
        let mut packet = ipv4::Packet::new_checked(&mut frame[start..]).unwrap();
        if packet.protocol() == protocol::UDP {
            assert!(packet.payload().len() >= udp::HEADER_LEN);
            let is_mapped = change(&mut packet);
            packet.fill_checksum();
            return is_mapped.then_some(frame);
        }
    }
    Some(frame)
}
