//! The way of a frame that a data core has punted, step by step; what a step refuses says why.

use std::net::{IpAddr, SocketAddr};

use ipsec::time::Instant;
use wire::ethernet::{self, EtherType};
use wire::{Error, Fragment, ipv4, ipv6, natt, protocol, tcp, udp};

use super::drops::DropReason;
use super::link::{Datagram, IKE_PORT};
use super::port::is_host_address;
use super::queue::Class;
use super::reassembly::{self, Outcome};
use super::{Event, IkeDatagram, MacAddress, Stack, icmp};
use datapath::routes::PortId;

/// How a frame ended that was not dropped.
pub(super) enum End {
    /// It did what it came for.
    Accepted,
    /// It is a fragment, held until the rest comes.
    Held,
}

/// Where a packet came in: the port, and the station that sent it.
#[derive(Debug, Clone, Copy)]
struct Origin {
    port: PortId,
    station: MacAddress,
}

/// A whole IP packet for one of our addresses.
struct Packet<'a> {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    /// Header included.
    bytes: &'a [u8],
    payload: &'a [u8],
}

impl Stack {
    /// Takes in a frame as it was received on `port`, Ethernet header first.
    pub fn handle_frame(&mut self, now: Instant, port: PortId, frame: &[u8]) {
        self.counters.received += 1;
        match self.receive(now, port, frame) {
            Ok(End::Accepted) => self.counters.accepted += 1,
            Ok(End::Held) => {}
            Err(reason) => self.counters.drop(reason),
        }
        self.settle(now);
    }

    fn receive(&mut self, now: Instant, port: PortId, frame: &[u8]) -> Result<End, DropReason> {
        let view = ethernet::Packet::new_checked(frame).map_err(|_| DropReason::FrameMalformed)?;
        let header = ethernet::Repr::parse(&view).map_err(|_| DropReason::FrameMalformed)?;
        let settings = &self.ports.get(&port).ok_or(DropReason::PortUnknown)?.settings;
        if !header.src.is_unicast() {
            return Err(DropReason::FrameMalformed);
        }
        let for_port = header.dst == settings.mac;
        // A tag with VLAN 0 carries a priority only.
        if header.vlan.map(|tag| tag.id).filter(|&id| id != 0) != settings.vlan {
            return Err(DropReason::WrongVlan);
        }
        let origin = Origin { port, station: header.src };
        match header.ether_type {
            EtherType::Arp if for_port || header.dst.is_broadcast() => {
                self.receive_arp(now, port, header.dst, view.payload())
            }
            // A unicast packet in a broadcast frame is somebody's mistake or trick (RFC 1122 §3.3.6).
            EtherType::Ipv4 if for_port => self.receive_ipv4(now, origin, view.payload()),
            EtherType::Ipv6 if for_port => self.receive_ipv6(now, origin, view.payload()),
            EtherType::Arp | EtherType::Ipv4 | EtherType::Ipv6 => Err(DropReason::NotForUs),
            EtherType::Other(_) => Err(DropReason::EthertypeNotServed),
        }
    }

    fn receive_ipv4(&mut self, now: Instant, origin: Origin, bytes: &[u8]) -> Result<End, DropReason> {
        let view = ipv4::Packet::new_checked(bytes).map_err(|_| DropReason::IpMalformed)?;
        if !view.verify_checksum() {
            return Err(DropReason::IpChecksum);
        }
        view.check_options().map_err(options_refused)?;
        let (src, dst) = (IpAddr::V4(view.src()), IpAddr::V4(view.dst()));
        self.check_addresses(origin, src, dst, view.protocol())?;
        let whole = match view.fragment() {
            Fragment::Whole => {
                let bytes = &bytes[..view.total_len()];
                let payload = &bytes[view.header_len()..];
                let packet = Packet { src, dst, protocol: view.protocol(), bytes, payload };
                return self.receive_packet(now, origin, &packet);
            }
            Fragment::First | Fragment::Later => self.reassemble(now, &view)?,
        };
        let Some(whole) = whole else { return Ok(End::Held) };
        let payload = &whole[ipv4::HEADER_LEN..];
        let packet = Packet { src, dst, protocol: view.protocol(), bytes: &whole, payload };
        self.receive_packet(now, origin, &packet)
    }

    fn receive_ipv6(&mut self, now: Instant, origin: Origin, bytes: &[u8]) -> Result<End, DropReason> {
        let view = ipv6::Packet::new_checked(bytes).map_err(|_| DropReason::IpMalformed)?;
        let upper = view.upper_layer().map_err(options_refused)?;
        let (src, dst) = (IpAddr::V6(view.src()), IpAddr::V6(view.dst()));
        self.check_addresses(origin, src, dst, upper.protocol)?;
        // What we serve comes without extension headers; RFC 7383 saves IKE the fragments.
        if upper.offset != ipv6::HEADER_LEN {
            return Err(DropReason::ProtocolNotServed);
        }
        let bytes = &bytes[..view.total_len()];
        let payload = &bytes[upper.offset..];
        self.receive_packet(now, origin, &Packet { src, dst, protocol: upper.protocol, bytes, payload })
    }

    fn check_addresses(&self, origin: Origin, src: IpAddr, dst: IpAddr, protocol: u8) -> Result<(), DropReason> {
        let settings = &self.ports.get(&origin.port).ok_or(DropReason::PortUnknown)?.settings;
        if self.claims.port_of(dst) != Some(origin.port) {
            return Err(DropReason::AddressNotServed);
        }
        // Application hosts answer our probes from the DVIPA, which may be ours towards everybody else.
        let is_answer = protocol == protocol::TCP && self.probes.awaits(origin.port, src);
        let is_ours = self.claims.port_of(src).is_some() && !is_answer;
        if is_ours || !is_host_address(src) || settings.is_broadcast(src) {
            return Err(DropReason::SourceInvalid);
        }
        Ok(())
    }

    /// Adds a fragment to its datagram. The whole packet, with a header of its own, if this was the missing one.
    fn reassemble(&mut self, now: Instant, view: &ipv4::Packet<&[u8]>) -> Result<Option<Vec<u8>>, DropReason> {
        let key = reassembly::Key {
            source: view.src().into(),
            destination: view.dst().into(),
            protocol: view.protocol(),
            identification: view.identification().into(),
        };
        let fragment = reassembly::Fragment {
            key,
            offset: view.fragment_offset().into(),
            more: view.more_fragments(),
            payload: view.payload(),
        };
        match self.reassembler.handle_fragment(now, &fragment) {
            Outcome::Held => Ok(None),
            Outcome::Duplicate => Err(DropReason::FragmentDuplicate),
            Outcome::Malformed => Err(DropReason::FragmentMalformed),
            Outcome::Whole { payload, merged } => {
                self.counters.merged += merged;
                let header = ipv4::Repr {
                    src: view.src(),
                    dst: view.dst(),
                    protocol: view.protocol(),
                    dscp: 0,
                    ecn: 0,
                    identification: 0,
                    dont_fragment: false,
                    more_fragments: false,
                    fragment_offset: 0,
                    ttl: view.ttl(),
                    payload_len: payload.len(),
                };
                let mut packet = vec![0; ipv4::HEADER_LEN + payload.len()];
                header.emit(&mut ipv4::Packet::new_unchecked(&mut packet[..]));
                packet[ipv4::HEADER_LEN..].copy_from_slice(&payload);
                Ok(Some(packet))
            }
        }
    }

    fn receive_packet(&mut self, now: Instant, origin: Origin, packet: &Packet<'_>) -> Result<End, DropReason> {
        match (packet.protocol, packet.src) {
            (protocol::UDP, _) => self.receive_udp(now, origin, packet),
            (protocol::TCP, _) => self.receive_tcp(now, origin, packet),
            (protocol::ICMP, IpAddr::V4(_)) | (protocol::ICMPV6, IpAddr::V6(_)) => {
                self.receive_icmp(now, origin, packet)
            }
            (_other, _) => Err(DropReason::ProtocolNotServed),
        }
    }

    fn receive_icmp(&mut self, now: Instant, origin: Origin, packet: &Packet<'_>) -> Result<End, DropReason> {
        let view = wire::icmp::Packet::new_checked(packet.payload).map_err(|_| DropReason::IcmpMalformed)?;
        let (sound, echo) = match (packet.src, packet.dst) {
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                (view.verify_checksum_v6(src, dst), view.message_type() == wire::icmp::v6::TYPE_ECHO_REQUEST)
            }
            (IpAddr::V4(_) | IpAddr::V6(_), _) => {
                (view.verify_checksum_v4(), view.message_type() == wire::icmp::v4::TYPE_ECHO_REQUEST)
            }
        };
        if !sound {
            return Err(DropReason::IcmpMalformed);
        }
        if echo {
            return self.receive_echo(now, origin, packet);
        }
        let path_mtu = icmp::read_path_mtu(packet.src, packet.payload).ok_or(DropReason::IcmpNotServed)?;
        if self.claims.port_of(path_mtu.local).is_none() {
            return Err(DropReason::IcmpNotServed);
        }
        self.raise(Event::PathMtu(path_mtu));
        Ok(End::Accepted)
    }

    /// smoltcp writes the reply; it goes to the station that the request came from.
    fn receive_echo(&mut self, now: Instant, origin: Origin, packet: &Packet<'_>) -> Result<End, DropReason> {
        if !self.echoes.admit(now) {
            return Err(DropReason::EchoLimited);
        }
        let link = &mut self.ports.get_mut(&origin.port).ok_or(DropReason::PortUnknown)?.link;
        link.handle_packet(now, packet.bytes.to_vec());
        let mut end = Err(DropReason::IcmpMalformed);
        while let Some(reply) = self.poll_link(origin.port) {
            self.send_packet(origin.port, origin.station, Class::Courtesy, &reply);
            end = Ok(End::Accepted);
        }
        end
    }

    fn receive_udp(&mut self, now: Instant, origin: Origin, packet: &Packet<'_>) -> Result<End, DropReason> {
        let view = udp::Packet::new_checked(packet.payload).map_err(|_| DropReason::UdpMalformed)?;
        let is_heartbeat = self.is_heartbeat(origin.port, packet.src, packet.dst, view.dst_port())?;
        match view.dst_port() {
            IKE_PORT => {}
            _heartbeat if is_heartbeat => {}
            natt::PORT => match natt::classify(view.payload()) {
                Ok(natt::Repr::Ike) => {}
                Ok(natt::Repr::Keepalive) => return Err(DropReason::NatKeepalive),
                Ok(natt::Repr::Esp) => return Err(DropReason::EspAtControl),
                Err(_) => return Err(DropReason::NatMalformed),
            },
            _other => return Err(DropReason::UdpPortNotServed),
        }
        let link = &mut self.ports.get_mut(&origin.port).ok_or(DropReason::PortUnknown)?.link;
        link.handle_packet(now, packet.bytes.to_vec());
        // smoltcp has judged checksum and length; a datagram that it refused gave rise to nothing.
        let datagram = link.poll_datagram().ok_or(DropReason::UdpMalformed)?;
        if is_heartbeat {
            return self.keep_heartbeat(datagram).map(|()| End::Accepted);
        }
        let Datagram { local, remote, mut payload } = datagram;
        if local.port() == natt::PORT {
            payload.drain(..natt::NON_ESP_MARKER.len());
        }
        self.return_paths.remember(now, remote.ip(), origin.port, origin.station);
        self.datagrams.push(IkeDatagram { local, remote, payload })?;
        Ok(End::Accepted)
    }
}

impl Stack {
    fn receive_tcp(&mut self, now: Instant, origin: Origin, packet: &Packet<'_>) -> Result<End, DropReason> {
        let segment = tcp::Packet::new_checked(packet.payload).map_err(|_| DropReason::TcpMalformed)?;
        if !segment.verify_checksum(packet.src, packet.dst) {
            return Err(DropReason::TcpMalformed);
        }
        let from = SocketAddr::new(packet.src, segment.src_port());
        let to = SocketAddr::new(packet.dst, segment.dst_port());
        if let Some(probe) = self.probes.find(origin.port, to, from) {
            self.receive_probed(now, probe, packet.bytes);
            return Ok(End::Accepted);
        }
        let trusted = self.trusted.as_ref().ok_or(DropReason::TcpPortNotServed)?;
        trusted.admits(origin.port, packet.src, packet.dst)?;
        self.receive_member_tcp(now, from, packet.bytes, &segment).map(|()| End::Accepted)
    }
}

fn options_refused(error: Error) -> DropReason {
    match error {
        Error::SourceRouted => DropReason::IpSourceRouted,
        Error::Truncated | Error::Malformed | Error::Version | Error::Checksum | Error::Unsupported => {
            DropReason::IpMalformed
        }
    }
}
