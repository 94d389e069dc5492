//! Transport mode (RFC 4303 §3.1.1): the IP header stays where it is, ESP goes between it and its payload.
//!
//! **Purpose.** Where that place is, what the IP header must say with ESP in it, and how a receiver takes it out again.
//!
//! **Promises.** What [`restore`] makes of a header that was sent in transport mode is that header, byte for byte, but for
//! what routers changed on the way. The IPv4 checksum is carried over, not made anew: one that was wrong stays wrong.
//! Nothing here panics or allocates.
//!
//! **What it never does.** It touches no checksum of the payload, which covers addresses: through a NAT, transport mode
//! needs more than this.

use wire::flow::{self, Inner};
use wire::{Fragment, checksum, ipv4, ipv6, protocol};

use crate::engine::{PEEK_LEN_MAX, Peeked};

/// The longest outer IP header before a payload that [`parse_peeked`] looks at.
pub const HEADER_LEN_MAX: usize = 128;

const IPV4_NEXT_HEADER_AT: usize = 9;
const IPV6_NEXT_HEADER_AT: usize = 6;
const FRAGMENT_HEADER_LEN: usize = 8;

/// Where ESP goes into an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Bytes of IP header before ESP.
    pub header_len: usize,
    /// Which byte of them says what follows.
    next_header_at: usize,
    /// What follows now.
    pub next_header: u8,
}

/// Why transport mode cannot carry a packet, or why a header cannot be put in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTransportable {
    /// The header is none, or contradicts itself.
    #[error("the IP header is unusable: {0}")]
    Header(wire::Error),
    /// The packet is a fragment; transport mode is for whole packets (RFC 4303 §3.3.4).
    #[error("the packet is a fragment, and transport mode carries whole packets only")]
    Fragment,
    /// There are more or fewer bytes than the header states.
    #[error("the IP header states {stated} bytes, and {found} are there")]
    Length {
        /// What the header says.
        stated: usize,
        /// What there is.
        found: usize,
    },
    /// The packet is longer than its header could say.
    #[error("{found} bytes of payload are more than the IP header can say")]
    TooLong {
        /// Bytes of payload.
        found: usize,
    },
}

impl From<wire::Error> for NotTransportable {
    fn from(error: wire::Error) -> Self {
        Self::Header(error)
    }
}

/// Turns the outer IP header of an opened packet into that of the packet inside: its length and what follows it.
///
/// `outer_ip_header` is the header with its options or extension headers, up to ESP (or to the UDP header before it).
/// With the opened payload behind it, it is the packet that the peer protected. Congestion marks need no care: they are
/// in this very header.
///
/// # Errors
/// [`NotTransportable`]: no ESP packet came behind this header. It is unchanged then.
#[inline]
pub fn restore(outer_ip_header: &mut [u8], next_header: u8, payload_len: usize) -> Result<(), NotTransportable> {
    let next_header_at = end_of_headers(outer_ip_header)?;
    rewrite(outer_ip_header, next_header_at, next_header, payload_len)
}

/// Reads the flow of a packet in transport mode off its outer IP header and a peek. What it says is no more authentic than
/// the peek: only good to steer by.
///
/// `esp_len` is the length of the ESP packet, which bounds that of its payload.
///
/// # Errors
/// As [`flow::parse_prefix`]; `Unsupported` for a header beyond [`HEADER_LEN_MAX`].
pub fn parse_peeked(outer_ip_header: &[u8], peeked: &Peeked, esp_len: usize) -> wire::Result<Inner> {
    let head = peeked.unauthenticated_head();
    let header_len = outer_ip_header.len();
    if header_len > HEADER_LEN_MAX {
        return Err(wire::Error::Unsupported);
    }
    let mut bytes = [0; HEADER_LEN_MAX + PEEK_LEN_MAX];
    bytes[..header_len].copy_from_slice(outer_ip_header);
    bytes[header_len..][..head.len()].copy_from_slice(head);
    restore(&mut bytes[..header_len], peeked.unauthenticated_next_header(), esp_len).map_err(
        |refused| match refused {
            NotTransportable::Header(error) => error,
            NotTransportable::Fragment | NotTransportable::Length { .. } | NotTransportable::TooLong { .. } => {
                wire::Error::Malformed
            }
        },
    )?;
    flow::parse_prefix(&bytes[..header_len + head.len()])
}

/// Where ESP goes into this IP packet: behind an IPv4 header with its options; behind the hop-by-hop, routing and fragment
/// headers of IPv6 with whatever stands between them. Destination options behind those are for the receiver, and so inside.
#[inline]
pub(crate) fn place(packet: &[u8]) -> Result<Place, NotTransportable> {
    match packet.first().map(|first| first >> 4) {
        Some(4) => place_v4(packet),
        Some(6) => place_v6(packet),
        Some(_other) => Err(wire::Error::Version.into()),
        None => Err(wire::Error::Truncated.into()),
    }
}

#[inline]
fn place_v4(bytes: &[u8]) -> Result<Place, NotTransportable> {
    let packet = ipv4::Packet::new_checked(bytes)?;
    whole(packet.fragment(), packet.total_len(), bytes.len())?;
    let header_len = packet.header_len();
    Ok(Place { header_len, next_header_at: IPV4_NEXT_HEADER_AT, next_header: packet.protocol() })
}

fn place_v6(bytes: &[u8]) -> Result<Place, NotTransportable> {
    let packet = ipv6::Packet::new_checked(bytes)?;
    let upper = packet.upper_layer()?;
    whole(upper.fragment, packet.total_len(), bytes.len())?;
    let (mut header_len, mut next_header_at) = (ipv6::HEADER_LEN, IPV6_NEXT_HEADER_AT);
    // An atomic fragment has its fragment header outside; `upper_layer` has walked this way before.
    for header in Extensions::of(bytes, upper.offset) {
        let Extension { kind, at, end } = header?;
        if kind != protocol::DESTINATION_OPTIONS {
            (header_len, next_header_at) = (end, at);
        }
    }
    Ok(Place { header_len, next_header_at, next_header: bytes[next_header_at] })
}

#[inline]
fn whole(fragment: Fragment, stated: usize, found: usize) -> Result<(), NotTransportable> {
    match fragment {
        Fragment::First | Fragment::Later => Err(NotTransportable::Fragment),
        Fragment::Whole if stated != found => Err(NotTransportable::Length { stated, found }),
        Fragment::Whole => Ok(()),
    }
}

/// Makes an IP header, and nothing behind it, say that ESP follows, `payload_len` bytes up to the packet's end.
#[inline]
pub(crate) fn announce_esp(header: &mut [u8], place: Place, payload_len: usize) -> Result<(), NotTransportable> {
    rewrite(header, place.next_header_at, protocol::ESP, payload_len)
}

/// The longest payload, ESP included, that may stand behind such a header.
#[inline]
pub(crate) fn payload_len_max(packet: &[u8], place: Place) -> usize {
    let header_len = match packet.first().map(|first| first >> 4) {
        Some(6) => place.header_len - ipv6::HEADER_LEN,
        _ipv4 => place.header_len,
    };
    usize::from(u16::MAX) - header_len
}

/// Which byte of an IP header, alone in its slice, says what follows it.
#[inline]
fn end_of_headers(header: &[u8]) -> Result<usize, NotTransportable> {
    let found = header.len();
    match header.first().map(|first| first >> 4) {
        Some(4) => {
            let packet = ipv4::Packet::new_prefix(header)?;
            whole(packet.fragment(), packet.header_len(), found)?;
            Ok(IPV4_NEXT_HEADER_AT)
        }
        Some(6) => {
            ipv6::Packet::new_prefix(header)?;
            let (mut last, mut stated) = (IPV6_NEXT_HEADER_AT, ipv6::HEADER_LEN);
            for extension in Extensions::of(header, found) {
                Extension { at: last, end: stated, .. } = extension?;
            }
            whole(Fragment::Whole, stated, found)?;
            Ok(last)
        }
        Some(_other) => Err(wire::Error::Version.into()),
        None => Err(wire::Error::Truncated.into()),
    }
}

/// Sets an IP header's length for this payload and what follows it. The byte that says so must be one of the header's.
#[inline]
fn rewrite(header: &mut [u8], at: usize, next_header: u8, payload_len: usize) -> Result<(), NotTransportable> {
    let too_long = NotTransportable::TooLong { found: payload_len };
    let length = |fixed: usize| {
        let stated = (header.len() - fixed).checked_add(payload_len).and_then(|sum| u16::try_from(sum).ok());
        stated.ok_or(too_long)
    };
    if header[0] >> 4 == 6 {
        let payload_len = length(ipv6::HEADER_LEN)?;
        header[at] = next_header;
        ipv6::Packet::new_unchecked(header).set_payload_len(payload_len);
    } else {
        let total_len = length(0)?;
        let mut packet = ipv4::Packet::new_unchecked(header);
        let ttl = u16::from(packet.ttl()) << 8;
        let sum = checksum::update(packet.checksum(), packet.total_len() as u16, total_len);
        let sum = checksum::update(sum, ttl | u16::from(packet.protocol()), ttl | u16::from(next_header));
        packet.set_total_len(total_len);
        packet.set_protocol(next_header);
        packet.set_checksum(sum);
    }
    Ok(())
}

/// One extension header of IPv6.
struct Extension {
    kind: u8,
    /// Where it begins: the byte that says what follows it.
    at: usize,
    end: usize,
}

/// The extension headers of an IPv6 packet up to a place where they are known to end.
struct Extensions<'a> {
    bytes: &'a [u8],
    next: u8,
    at: usize,
    end: usize,
    left: usize,
}

impl<'a> Extensions<'a> {
    /// `bytes` are at least the fixed header.
    fn of(bytes: &'a [u8], end: usize) -> Self {
        let next = bytes[IPV6_NEXT_HEADER_AT];
        Self { bytes, next, at: ipv6::HEADER_LEN, end, left: ipv6::MAX_EXTENSION_HEADERS }
    }

    fn read(&self) -> wire::Result<Extension> {
        use protocol::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING};
        let (kind, at) = (self.next, self.at);
        let len = match kind {
            FRAGMENT => FRAGMENT_HEADER_LEN,
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                8 + 8 * usize::from(*self.bytes.get(at + 1).ok_or(wire::Error::Truncated)?)
            }
            _no_extension => return Err(wire::Error::Malformed),
        };
        let end = at + len;
        if self.left == 0 || end > self.bytes.len() {
            return Err(wire::Error::Malformed);
        }
        Ok(Extension { kind, at, end })
    }
}

impl Iterator for Extensions<'_> {
    type Item = wire::Result<Extension>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        let read = self.read();
        match &read {
            Ok(extension) => {
                (self.next, self.at) = (self.bytes[extension.at], extension.end);
                self.left -= 1;
            }
            Err(_) => self.at = self.end,
        }
        Some(read)
    }
}

#[cfg(test)]
mod tests;
