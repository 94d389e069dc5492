//! ARP (RFC 826, RFC 5227): answering for our addresses, asking for neighbours, announcing, and noticing claims.

use std::net::{IpAddr, Ipv4Addr};

use ipsec::time::Instant;
use wire::arp::{self, Operation};
use wire::ethernet::EtherType;

use super::drops::DropReason;
use super::neighbour::Question;
use super::queue::Class;
use super::receive::End;
use super::{Event, MacAddress, Stack};
use datapath::routes::{NextHop, PortId};

impl Stack {
    /// An ARP packet that came in a frame addressed to `frame_dst`, which is this port or everybody.
    pub(super) fn receive_arp(
        &mut self,
        now: Instant,
        port: PortId,
        frame_dst: MacAddress,
        payload: &[u8],
    ) -> Result<End, DropReason> {
        let packet = arp::Packet::new_checked(payload).map_err(|_| DropReason::ArpMalformed)?;
        let message = arp::Repr::parse(&packet).map_err(|_| DropReason::ArpMalformed)?;
        let own_mac = self.ports.get(&port).ok_or(DropReason::PortUnknown)?.settings.mac;
        if !message.sender_mac.is_unicast() {
            return Err(DropReason::ArpMalformed);
        }
        if message.sender_mac == own_mac {
            return Err(DropReason::ArpOwnEcho);
        }
        let sender = IpAddr::V4(message.sender_ip);
        if self.claims.port_of(sender) == Some(port) {
            if let Some(claims) = self.claims.conflict(now, sender) {
                self.raise(Event::AddressConflict { port, address: sender, claimant: message.sender_mac, claims });
            }
            return Err(DropReason::ArpConflict);
        }
        let for_us = self.claims.port_of(message.target_ip.into()) == Some(port);
        let answers_us = message.operation == Operation::Reply && frame_dst == own_mac && for_us;
        // Of a DVIPA this teaches nothing: none is ever asked for on its own port, see `may_resolve`.
        self.neighbours.hear(now, NextHop { port, address: sender }, message.sender_mac);
        match message.operation {
            Operation::Request if for_us => {
                self.answer(port, &message);
                Ok(End::Accepted)
            }
            Operation::Reply if answers_us => Ok(End::Accepted),
            Operation::Request | Operation::Reply => Err(DropReason::ArpNotForUs),
        }
    }

    /// The answer goes to the station that asked; that it asked creates no neighbour, or a flood of questions would.
    fn answer(&mut self, port: PortId, request: &arp::Repr) {
        self.send_arp(port, request.sender_mac, |own_mac| arp::Repr {
            operation: Operation::Reply,
            sender_mac: own_mac,
            sender_ip: request.target_ip,
            target_mac: request.sender_mac,
            target_ip: request.sender_ip,
        });
    }

    /// Asks for a neighbour, as ourselves: never with a DVIPA as sender. Without an address of our own on the port we
    /// ask as a prober does, with none.
    pub(super) fn ask(&mut self, question: Question) {
        let IpAddr::V4(target_ip) = question.hop.address else {
            return self.counters.drop(DropReason::NeighbourIpv6);
        };
        let Some(port) = self.ports.get(&question.hop.port) else { return };
        let sender_ip = match port.settings.address_towards(question.hop.address) {
            Some(IpAddr::V4(address)) => address,
            Some(IpAddr::V6(_)) | None => Ipv4Addr::UNSPECIFIED,
        };
        let station = question.station.unwrap_or(MacAddress::BROADCAST);
        self.send_arp(question.hop.port, station, |own_mac| arp::Repr {
            operation: Operation::Request,
            sender_mac: own_mac,
            sender_ip,
            target_mac: MacAddress::ZERO,
            target_ip,
        });
    }

    /// Tells everybody on the link that an address of ours is here (RFC 5227 §3: a request for the address itself).
    pub(super) fn send_announcement(&mut self, address: IpAddr, port: PortId) {
        let IpAddr::V4(address) = address else {
            // IPv6 would announce by an unsolicited neighbour advertisement; it has no neighbours here yet.
            return;
        };
        self.send_arp(port, MacAddress::BROADCAST, |own_mac| arp::Repr {
            operation: Operation::Request,
            sender_mac: own_mac,
            sender_ip: address,
            target_mac: MacAddress::ZERO,
            target_ip: address,
        });
    }

    fn send_arp(&mut self, port: PortId, dst: MacAddress, message: impl FnOnce(MacAddress) -> arp::Repr) {
        let Some(settings) = self.ports.get(&port).map(|port| &port.settings) else { return };
        let message = message(settings.mac);
        let mut packet = [0; arp::PACKET_LEN];
        message.emit(&mut arp::Packet::new_unchecked(&mut packet[..]));
        self.send_frame(port, dst, Class::Vital, EtherType::Arp, &packet);
    }
}
