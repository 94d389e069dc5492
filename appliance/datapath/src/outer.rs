//! The outer parse: what is this frame, judged by its clear headers alone?

use crate::drops::DropReason;
use crate::forwarding::{PortFacts, PortRole};
use crate::policy::Policy;
use core::net::{IpAddr, SocketAddr};
use core::ops::Range;
use ipsec::ecn::Ecn;
use wire::ethernet::{self, EtherType};
use wire::{Fragment, esp, ipv4, natt, protocol, udp};

const IKE_PORT: u16 = 500;

/// What the clear headers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outer {
    /// An ESP packet for one of our addresses.
    Esp(EspPlace),
    /// For the control core.
    Punt(Urgency),
    /// An IP packet without protection that is not for us; `0` is where it begins.
    Cleartext(Range<usize>),
}

/// How badly the control core needs a frame: what it needs more still finds room where there is none for the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// It can do without for a while: ICMP, fragments that it may put together.
    Courtesy,
    /// Without it nobody new is served: ARP, and IKE that begins.
    Vital,
    /// What is served already depends on it: IKE that names a responder's SPI. Its sender may lie; the control core sees.
    Established,
}

/// Where an ESP packet lies in its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EspPlace {
    /// Outer destination: half of the SAD's key.
    pub dvipa: IpAddr,
    /// The SPI as it stands there.
    pub spi: u32,
    /// Where the outer IP header begins, in bytes from the frame's start.
    pub ip: u16,
    /// Where the ESP header begins, in bytes from the frame's start.
    pub start: u16,
    /// Where the ICV ends.
    pub end: u16,
    /// The outer header's congestion mark (RFC 3168).
    pub ecn: Ecn,
}

/// Judges one frame that came in by the port of `facts`.
///
/// # Errors
/// The reason to drop it for.
pub fn classify(frame: &[u8], facts: &PortFacts, policy: &Policy) -> Result<Outer, DropReason> {
    match link(frame, facts)? {
        Link::Arp => Ok(Outer::Punt(Urgency::Vital)),
        Link::Ipv4 { start } => classify_ipv4(&frame[start..], start, facts.role, policy),
    }
}

/// What an Ethernet frame for this port carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// ARP.
    Arp,
    /// An IPv4 packet that begins here.
    Ipv4 {
        /// In bytes from the frame's start.
        start: usize,
    },
}

/// Judges the Ethernet header alone.
///
/// # Errors
/// The reason to drop the frame for.
pub fn link(frame: &[u8], facts: &PortFacts) -> Result<Link, DropReason> {
    let ethernet = ethernet::Packet::new_checked(frame).map_err(|_| DropReason::OuterMalformed)?;
    if ethernet.dst() != facts.mac && !ethernet.dst().is_multicast() {
        return Err(DropReason::NotForUs);
    }
    let tag = ethernet.vlan().map_or(0, |tag| tag.id);
    if tag != facts.vlan.unwrap_or(0) {
        return Err(DropReason::NotForUs);
    }
    match ethernet.ether_type() {
        EtherType::Arp => Ok(Link::Arp),
        EtherType::Ipv4 if ethernet.dst().is_multicast() => Err(DropReason::LinkBroadcast),
        EtherType::Ipv4 => Ok(Link::Ipv4 { start: ethernet.header_len() }),
        EtherType::Ipv6 | EtherType::Other(_) => Err(DropReason::EthertypeNotServed),
    }
}

fn classify_ipv4(bytes: &[u8], start: usize, role: PortRole, policy: &Policy) -> Result<Outer, DropReason> {
    let ip = ipv4::Packet::new_checked(bytes).map_err(|_| DropReason::OuterMalformed)?;
    if !ip.verify_checksum() {
        return Err(DropReason::OuterChecksum);
    }
    let dst = IpAddr::V4(ip.dst());
    let whole = start..start + ip.total_len();
    if !policy.is_ours(dst) {
        return Ok(Outer::Cleartext(whole));
    }
    match role {
        PortRole::Network => {}
        // Application hosts speak to us as neighbours; they have no SA with us. Nor have members.
        PortRole::Inside | PortRole::Trusted => return Ok(Outer::Punt(Urgency::Courtesy)),
    }
    let fragmented = ip.fragment() != Fragment::Whole;
    match ip.protocol() {
        protocol::ESP if fragmented => Err(DropReason::OuterFragment),
        protocol::ESP => {
            let esp = ip.payload();
            Ok(Outer::Esp(place_esp(&ip, start, start + ip.header_len(), esp)?))
        }
        protocol::ICMP => Ok(Outer::Punt(Urgency::Courtesy)),
        protocol::UDP if fragmented => Ok(Outer::Punt(Urgency::Courtesy)),
        protocol::UDP => classify_udp(&ip, start),
        _clear => Ok(Outer::Cleartext(whole)),
    }
}

fn classify_udp(ip: &ipv4::Packet<&[u8]>, start: usize) -> Result<Outer, DropReason> {
    let udp = udp::Packet::new_checked(ip.payload()).map_err(|_| DropReason::OuterMalformed)?;
    match udp.dst_port() {
        IKE_PORT => Ok(Outer::Punt(urgency_of_ike(udp.payload()))),
        natt::PORT => match natt::classify(udp.payload()).map_err(|_| DropReason::NatMalformed)? {
            natt::Repr::Keepalive => Err(DropReason::NatKeepalive),
            natt::Repr::Ike => {
                Ok(Outer::Punt(urgency_of_ike(udp.payload().get(natt::NON_ESP_MARKER.len()..).unwrap_or_default())))
            }
            natt::Repr::Esp => {
                let begin = start + ip.header_len() + udp::HEADER_LEN;
                Ok(Outer::Esp(place_esp(ip, start, begin, udp.payload())?))
            }
        },
        _clear => Ok(Outer::Cleartext(start..start + ip.total_len())),
    }
}

/// The responder's SPI is zero in the first message alone (RFC 7296 §3.1).
fn urgency_of_ike(message: &[u8]) -> Urgency {
    match message.get(8..16) {
        None | Some(&[0, 0, 0, 0, 0, 0, 0, 0]) => Urgency::Vital,
        Some(_) => Urgency::Established,
    }
}

/// Where an outer IP packet that holds ESP in UDP came from; `None` if it holds anything else, ESP without UDP included. To
/// be asked of packets that have been classified.
pub fn udp_source(packet: &[u8]) -> Option<SocketAddr> {
    let ip = ipv4::Packet::new_checked(packet).ok()?;
    let udp = udp::Packet::new_checked(ip.payload()).ok().filter(|_| ip.protocol() == protocol::UDP)?;
    Some(SocketAddr::new(ip.src().into(), udp.src_port()))
}

/// The ESP packet in a whole outer IP packet that begins at `start` of its frame: what a member relays.
///
/// # Errors
/// The reason to drop it for: it holds no ESP, is malformed, or is a fragment.
pub fn esp_in(packet: &[u8], start: usize) -> Result<EspPlace, DropReason> {
    let ip = ipv4::Packet::new_checked(packet).map_err(|_| DropReason::OuterMalformed)?;
    if !ip.verify_checksum() {
        return Err(DropReason::OuterChecksum);
    }
    if ip.fragment() != Fragment::Whole {
        return Err(DropReason::OuterFragment);
    }
    match ip.protocol() {
        protocol::ESP => place_esp(&ip, start, start + ip.header_len(), ip.payload()),
        protocol::UDP => {
            let udp = udp::Packet::new_checked(ip.payload()).map_err(|_| DropReason::OuterMalformed)?;
            let is_esp = udp.dst_port() == natt::PORT && natt::classify(udp.payload()) == Ok(natt::Repr::Esp);
            let begin = start + ip.header_len() + udp::HEADER_LEN;
            if is_esp { place_esp(&ip, start, begin, udp.payload()) } else { Err(DropReason::FrameMalformed) }
        }
        _other => Err(DropReason::FrameMalformed),
    }
}

fn place_esp(ip: &ipv4::Packet<&[u8]>, start: usize, begin: usize, bytes: &[u8]) -> Result<EspPlace, DropReason> {
    let esp = esp::Packet::new_checked(bytes).map_err(|_| DropReason::EspTruncated)?;
    let place = |at: usize| u16::try_from(at).map_err(|_| DropReason::OuterMalformed);
    Ok(EspPlace {
        dvipa: IpAddr::V4(ip.dst()),
        spi: esp.spi(),
        ip: place(start)?,
        start: place(begin)?,
        end: place(begin + bytes.len())?,
        ecn: Ecn::from_traffic_class(ip.ecn()),
    })
}
