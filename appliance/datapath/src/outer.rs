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
    let ethernet = ethernet::Packet::new_checked(frame).map_err(|_| DropReason::OuterMalformed)?;
    if ethernet.dst() != facts.mac && !ethernet.dst().is_multicast() {
        return Err(DropReason::NotForUs);
    }
    let tag = ethernet.vlan().map_or(0, |tag| tag.id);
    if tag != facts.vlan.unwrap_or(0) {
        return Err(DropReason::NotForUs);
    }
    match ethernet.ether_type() {
        EtherType::Arp => Ok(Outer::Punt(Urgency::Vital)),
        EtherType::Ipv4 if ethernet.dst().is_multicast() => Err(DropReason::LinkBroadcast),
        EtherType::Ipv4 => classify_ipv4(ethernet.payload(), ethernet.header_len(), facts.role, policy),
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
    if role == PortRole::Inside {
        // Application hosts speak to us as neighbours; they have no SA with us.
        return Ok(Outer::Punt(Urgency::Courtesy));
    }
    let fragmented = ip.fragment() != Fragment::Whole;
    match ip.protocol() {
        protocol::ESP if fragmented => Err(DropReason::OuterFragment),
        protocol::ESP => {
            let place = start + ip.header_len()..whole.end;
            Ok(Outer::Esp(place_esp(ip.payload(), dst, place, Ecn::from_traffic_class(ip.ecn()))?))
        }
        protocol::ICMP => Ok(Outer::Punt(Urgency::Courtesy)),
        protocol::UDP if fragmented => Ok(Outer::Punt(Urgency::Courtesy)),
        protocol::UDP => classify_udp(&ip, dst, start),
        _clear => Ok(Outer::Cleartext(whole)),
    }
}

fn classify_udp(ip: &ipv4::Packet<&[u8]>, dst: IpAddr, start: usize) -> Result<Outer, DropReason> {
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
                Ok(Outer::Esp(place_esp(
                    udp.payload(),
                    dst,
                    begin..begin + udp.payload().len(),
                    Ecn::from_traffic_class(ip.ecn()),
                )?))
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

/// Where a frame that holds ESP in UDP came from; `None` if it holds anything else, ESP without UDP included. To be asked
/// of frames that have been classified.
pub fn udp_source(frame: &[u8]) -> Option<SocketAddr> {
    let ethernet = ethernet::Packet::new_checked(frame).ok()?;
    let ip = ipv4::Packet::new_checked(ethernet.payload()).ok()?;
    let udp = udp::Packet::new_checked(ip.payload()).ok().filter(|_| ip.protocol() == protocol::UDP)?;
    Some(SocketAddr::new(ip.src().into(), udp.src_port()))
}

fn place_esp(bytes: &[u8], dvipa: IpAddr, place: Range<usize>, ecn: Ecn) -> Result<EspPlace, DropReason> {
    let esp = esp::Packet::new_checked(bytes).map_err(|_| DropReason::EspTruncated)?;
    let (Ok(start), Ok(end)) = (u16::try_from(place.start), u16::try_from(place.end)) else {
        return Err(DropReason::OuterMalformed);
    };
    Ok(EspPlace { dvipa, spi: esp.spi(), start, end, ecn })
}
