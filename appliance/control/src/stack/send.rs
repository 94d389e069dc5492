//! The way of a packet that we send: from its maker, by route and neighbour, into a frame.

use std::net::{IpAddr, SocketAddr};

use ipsec::time::Instant;
use wire::ethernet::{self, EtherType};
use wire::{Fragment, ipv4, ipv6, natt, protocol};

use super::drops::DropReason;
use super::neighbour::Resolution;
use super::port::is_host_address;
use super::queue::Class;
use super::{MacAddress, Stack, icmp};
use datapath::routes::{NextHop, PortId};

/// Shortest frame that Ethernet carries, without its check sequence. Not every virtual device pads by itself.
const FRAME_MIN: usize = 60;

/// How to reach a remote address.
enum Way {
    /// By this port to this station.
    Station(PortId, MacAddress),
    /// To a neighbour that has to be asked for first.
    Neighbour(NextHop),
}

impl Stack {
    /// Sends an IKE message from one of our addresses and port 500 or 4500, on which the non-ESP marker is added. It
    /// goes by route and neighbour; while the neighbour is unknown, to the station that the peer's last datagram came
    /// from. What cannot be sent is counted; IKE retransmits.
    pub fn send_datagram(&mut self, now: Instant, local: SocketAddr, remote: SocketAddr, payload: &[u8]) {
        if let Err(reason) = self.try_send_datagram(now, local, remote, payload) {
            self.counters.drop(reason);
        }
        self.settle(now);
    }

    fn try_send_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        payload: &[u8],
    ) -> Result<(), DropReason> {
        if self.claims.port_of(local.ip()).is_none() {
            return Err(DropReason::SourceNotOurs);
        }
        if !is_host_address(remote.ip()) || remote.is_ipv4() != local.is_ipv4() {
            return Err(DropReason::DestinationInvalid);
        }
        let way = self.way_to(remote.ip())?;
        let port = match way {
            Way::Station(port, _) | Way::Neighbour(NextHop { port, .. }) => port,
        };
        // A NAT keepalive is a single octet and nothing else (RFC 3948 §2.3).
        let is_marked = local.port() == natt::PORT && payload != natt::KEEPALIVE;
        let marker: &[u8] = if is_marked { &natt::NON_ESP_MARKER } else { &[] };
        let link = &mut self.ports.get_mut(&port).ok_or(DropReason::PortUnknown)?.link;
        link.send_datagram(now, local, remote, marker, payload)?;
        while let Some(mut packet) = self.poll_link(port) {
            self.allow_fragmentation(&mut packet);
            match way {
                Way::Station(port, station) => self.send_packet(port, station, Class::Vital, &packet),
                Way::Neighbour(hop) => self.send_to_neighbour(now, hop, Class::Vital, packet),
            }
        }
        Ok(())
    }

    /// By route and neighbour. Only while the neighbour is unknown, to the station that the peer's last datagram came
    /// from: whoever is on the link may write any source address into a datagram, and must not lead ours astray by it.
    fn way_to(&self, remote: IpAddr) -> Result<Way, DropReason> {
        let hop = self.routes.lookup(remote);
        if let Some((hop, mac)) = hop.and_then(|hop| Some((hop, self.neighbours.lookup(hop)?))) {
            return Ok(Way::Station(hop.port, mac));
        }
        match (self.return_paths.get(remote), hop) {
            (Some(path), _) => Ok(Way::Station(path.port, path.mac)),
            (None, Some(hop)) => Ok(Way::Neighbour(hop)),
            (None, None) => Err(DropReason::NoRoute),
        }
    }

    /// Tells the sender of `offending`, a packet from the inside that is too big for its tunnel, which size would do.
    /// At most so many per second; those beyond, and those that no error may answer (see [`super::too_big`]), are
    /// counted and not sent.
    pub fn send_too_big(&mut self, now: Instant, offending: &[u8], mtu_bytes: u16) {
        if let Err(reason) = self.try_send_too_big(now, offending, mtu_bytes) {
            self.counters.drop(reason);
        }
        self.settle(now);
    }

    fn try_send_too_big(&mut self, now: Instant, offending: &[u8], mtu_bytes: u16) -> Result<(), DropReason> {
        let sender: IpAddr = match offending.first().map(|first| first >> 4) {
            Some(4) => ipv4::Packet::new_prefix(offending).map_err(|_| DropReason::ErrorNotDue)?.src().into(),
            Some(6) => ipv6::Packet::new_prefix(offending).map_err(|_| DropReason::ErrorNotDue)?.src().into(),
            Some(_) | None => return Err(DropReason::ErrorNotDue),
        };
        let hop = self.routes.lookup(sender).ok_or(DropReason::NoRoute)?;
        let port = self.ports.get(&hop.port).ok_or(DropReason::PortUnknown)?;
        let source = port.settings.address_towards(sender).ok_or(DropReason::SourceNotOurs)?;
        let packet = icmp::too_big(source, offending, mtu_bytes).ok_or(DropReason::ErrorNotDue)?;
        if !self.errors.admit(now) {
            return Err(DropReason::ErrorLimited);
        }
        self.send_to_neighbour(now, hop, Class::Courtesy, packet);
        Ok(())
    }

    /// Sends what a port's sockets had to say by themselves.
    pub(super) fn send_link_packets(&mut self, now: Instant, port: PortId) {
        while let Some(packet) = self.poll_link(port) {
            let destination = match packet.first().map(|first| first >> 4) {
                Some(4) => ipv4::Packet::new_checked(&packet[..]).ok().map(|view| view.dst().into()),
                Some(6) => ipv6::Packet::new_checked(&packet[..]).ok().map(|view| view.dst().into()),
                Some(_) | None => None,
            };
            // A port's sockets speak on that port's link only.
            match destination.and_then(|destination| self.routes.lookup(destination)) {
                Some(hop) if hop.port == port => self.send_to_neighbour(now, hop, Class::Vital, packet),
                Some(_) | None => self.counters.drop(DropReason::NoRoute),
            }
        }
    }

    pub(super) fn poll_link(&mut self, port: PortId) -> Option<Vec<u8>> {
        self.ports.get_mut(&port)?.link.poll_packet()
    }

    /// smoltcp sends whole packets with Don't Fragment and identification 0. IKE must get through where the path is
    /// narrower than the link and tells nobody, so routers may cut its packets, which then need an identification.
    fn allow_fragmentation(&mut self, packet: &mut [u8]) {
        let Ok(mut view) = ipv4::Packet::new_checked(packet) else { return };
        if view.protocol() == protocol::UDP && view.fragment() == Fragment::Whole {
            self.identification = self.identification.wrapping_add(1);
            view.set_fragmentation(false, false, 0);
            view.set_identification(self.identification);
            view.fill_checksum();
        }
    }

    /// Hands a packet to a neighbour, now or when it has answered.
    fn send_to_neighbour(&mut self, now: Instant, hop: NextHop, class: Class, packet: Vec<u8>) {
        if !hop.address.is_ipv4() {
            return self.counters.drop(DropReason::NeighbourIpv6);
        }
        if !self.may_resolve(hop) {
            return self.counters.drop(DropReason::DestinationInvalid);
        }
        let refused = match self.neighbours.resolve(now, hop) {
            Resolution::Known(mac) => return self.send_packet(hop.port, mac, class, &packet),
            Resolution::Pending => match self.waiting.push(hop, class, packet) {
                Ok(()) => return,
                Err(reason) => reason,
            },
            Resolution::Unreachable => DropReason::NeighbourUnreachable,
            Resolution::TableFull | Resolution::Refused => DropReason::NeighbourTableFull,
        };
        self.counters.drop(refused);
    }

    /// A neighbour has answered, or does not: what waited for it goes out, or is dropped.
    pub(super) fn release_waiting(&mut self, hop: NextHop, mac: Option<MacAddress>) {
        for (class, packet) in self.waiting.take(hop) {
            match mac {
                Some(mac) => self.send_packet(hop.port, mac, class, &packet),
                None => self.counters.drop(DropReason::NeighbourUnreachable),
            }
        }
    }

    pub(super) fn send_packet(&mut self, port: PortId, station: MacAddress, class: Class, packet: &[u8]) {
        let ether_type = match packet.first().map(|first| first >> 4) {
            Some(6) => EtherType::Ipv6,
            Some(_) | None => EtherType::Ipv4,
        };
        self.send_frame(port, station, class, ether_type, packet);
    }

    pub(super) fn send_frame(
        &mut self,
        port: PortId,
        station: MacAddress,
        class: Class,
        ether_type: EtherType,
        payload: &[u8],
    ) {
        let Some(settings) = self.ports.get(&port).map(|port| &port.settings) else { return };
        let vlan = settings.vlan.map(ethernet::VlanTag::new);
        let header = ethernet::Repr { dst: station, src: settings.mac, vlan, ether_type };
        let mut frame = vec![0; header.buffer_len()];
        header.emit(&mut ethernet::Packet::new_unchecked(&mut frame[..]));
        frame.extend_from_slice(payload);
        frame.resize(frame.len().max(FRAME_MIN), 0);
        if let Err(reason) = self.transmit.push(class, port, frame) {
            self.counters.drop(reason);
        }
    }
}
