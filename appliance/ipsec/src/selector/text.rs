//! Traffic selectors as text, the way strongSwan users write them.
//!
//! `10.1.0.0/16`, `10.1.0.5`, `10.1.0.1-10.1.0.9`, each with an optional `[protocol/port]`, for example `[tcp/80]`,
//! `[udp/1000-2000]`, `[icmp]`, `[17/any]`, `[/443]`. In place of the addresses, `dynamic` means an address that is
//! known only later.

use core::fmt;
use core::net::IpAddr;
use core::str::FromStr;

use super::{ANY_PROTOCOL, AddressRange, PortRange, TrafficSelector};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// Names that may stand for a protocol number.
const PROTOCOLS: [(&str, u8); 9] = [
    ("any", ANY_PROTOCOL),
    ("icmp", ICMP),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("ipv6-icmp", ICMPV6),
    ("ospf", 89),
    ("sctp", 132),
];

/// Why a text is no traffic selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorTextError {
    /// The part before `[` is neither an address, a prefix nor a range.
    #[error(
        "{0:?} is no address, prefix or range; allowed are 10.1.0.5, 10.1.0.0/16, 10.1.0.1-10.1.0.9, the same for IPv6, and dynamic where the address is known later"
    )]
    Addresses(String),
    /// A prefix with bits set past its length: most likely a slip.
    #[error("{found:?} has host bits set; did you mean {meant}?")]
    HostBits {
        /// What was written.
        found: String,
        /// The prefix it would be without these bits.
        meant: AddressRange,
    },
    /// `dynamic` where an address must stand.
    #[error("dynamic cannot be used here: the address must be known")]
    Dynamic,
    /// `[` without `]`, or text after `]`.
    #[error("{0:?} is not closed by one ] at the end")]
    Brackets(String),
    /// Neither a protocol's name nor its number.
    #[error(
        "unknown protocol {0:?}; allowed are a number from 0 to 255, any, icmp, ipip, tcp, udp, gre, ipv6-icmp, ospf, sctp"
    )]
    Protocol(String),
    /// Neither a port nor a range of ports.
    #[error("{0:?} is no port; allowed are a number, a range like 1000-2000, any, opaque")]
    Port(String),
}

/// A traffic selector whose address may still be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SelectorTemplate {
    /// Complete as it stands.
    Fixed(TrafficSelector),
    /// The address of whoever it is about: the peer's own (or the one assigned to it), or our own.
    Dynamic {
        /// As in [`TrafficSelector`].
        protocol: u8,
        /// As in [`TrafficSelector`].
        ports: PortRange,
    },
}

impl SelectorTemplate {
    /// Completes it with the address that is now known.
    #[must_use]
    pub fn resolve(&self, address: IpAddr) -> TrafficSelector {
        match *self {
            Self::Fixed(selector) => selector,
            Self::Dynamic { protocol, ports } => {
                TrafficSelector { addresses: AddressRange::single(address), protocol, ports }
            }
        }
    }
}

impl FromStr for SelectorTemplate {
    type Err = SelectorTextError;

    fn from_str(text: &str) -> Result<Self, SelectorTextError> {
        let (addresses, protocol, ports) = match text.split_once('[') {
            None => (text, ANY_PROTOCOL, PortRange::ANY),
            Some((addresses, rest)) => {
                let inside = rest.strip_suffix(']').filter(|inside| !inside.contains(['[', ']']));
                let inside = inside.ok_or_else(|| SelectorTextError::Brackets(text.to_owned()))?;
                let (protocol, ports) = parse_protocol_and_ports(inside)?;
                (addresses, protocol, ports)
            }
        };
        if addresses == "dynamic" {
            return Ok(Self::Dynamic { protocol, ports });
        }
        Ok(Self::Fixed(TrafficSelector { addresses: addresses.parse()?, protocol, ports }))
    }
}

impl fmt::Display for SelectorTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(selector) => selector.fmt(f),
            Self::Dynamic { protocol, ports } => {
                f.write_str("dynamic")?;
                write_protocol_and_ports(f, *protocol, *ports)
            }
        }
    }
}

impl FromStr for TrafficSelector {
    type Err = SelectorTextError;

    fn from_str(text: &str) -> Result<Self, SelectorTextError> {
        match text.parse()? {
            SelectorTemplate::Fixed(selector) => Ok(selector),
            SelectorTemplate::Dynamic { .. } => Err(SelectorTextError::Dynamic),
        }
    }
}

impl fmt::Display for TrafficSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addresses.fmt(f)?;
        write_protocol_and_ports(f, self.protocol, self.ports)
    }
}

impl FromStr for AddressRange {
    type Err = SelectorTextError;

    fn from_str(text: &str) -> Result<Self, SelectorTextError> {
        let wrong = || SelectorTextError::Addresses(text.to_owned());
        let address = |part: &str| part.trim().parse::<IpAddr>().map_err(|_| wrong());
        if let Some((first, last)) = text.split_once("..").or_else(|| text.split_once('-')) {
            return Self::new(address(first)?, address(last)?).ok_or_else(wrong);
        }
        let Some((start, bits)) = text.split_once('/') else {
            return Ok(Self::single(address(text)?));
        };
        let start = address(start)?;
        let range = Self::from_prefix(start, bits.parse().map_err(|_| wrong())?).ok_or_else(wrong)?;
        if range.start() != start {
            return Err(SelectorTextError::HostBits { found: text.to_owned(), meant: range });
        }
        Ok(range)
    }
}

fn parse_protocol_and_ports(inside: &str) -> Result<(u8, PortRange), SelectorTextError> {
    let (name, ports) = match inside.split_once('/') {
        None => (inside, None),
        Some((name, ports)) => (name, Some(ports)),
    };
    let protocol = match PROTOCOLS.iter().find(|(known, _)| *known == name) {
        Some((_, number)) => *number,
        None if name.is_empty() && ports.is_some() => ANY_PROTOCOL,
        None => name.parse().map_err(|_| SelectorTextError::Protocol(name.to_owned()))?,
    };
    let ports = match ports {
        None => PortRange::ANY,
        Some(text) => parse_ports(protocol, text)?,
    };
    Ok((protocol, ports))
}

fn parse_ports(protocol: u8, text: &str) -> Result<PortRange, SelectorTextError> {
    let wrong = || SelectorTextError::Port(text.to_owned());
    let number = |part: &str| part.parse::<u16>().map_err(|_| wrong());
    match text {
        "any" => Ok(PortRange::ANY),
        "opaque" => Ok(PortRange::OPAQUE),
        range => {
            let (start, end) = match range.split_once('-') {
                Some((start, end)) => (number(start)?, number(end)?),
                None => (number(range)?, number(range)?),
            };
            // An ICMP number below 256 is a type with any code, otherwise type and code; so strongSwan reads it.
            let is_icmp = matches!(protocol, ICMP | ICMPV6);
            let (start, end) = if is_icmp && end < 256 { (start << 8, end << 8 | 0xff) } else { (start, end) };
            PortRange::new(start, end).ok_or_else(wrong)
        }
    }
}

fn write_protocol_and_ports(f: &mut fmt::Formatter<'_>, protocol: u8, ports: PortRange) -> fmt::Result {
    if protocol == ANY_PROTOCOL && ports.is_any() {
        return Ok(());
    }
    f.write_str("[")?;
    match PROTOCOLS.iter().find(|(_, number)| *number == protocol) {
        Some(_) if protocol == ANY_PROTOCOL => {}
        Some((name, _)) => f.write_str(name)?,
        None => write!(f, "{protocol}")?,
    }
    let one_icmp_type =
        matches!(protocol, ICMP | ICMPV6) && ports.start() & 0xff == 0 && ports.end() & 0xff == 0xff && !ports.is_any();
    if one_icmp_type {
        match (ports.start() >> 8, ports.end() >> 8) {
            (start, end) if start == end => write!(f, "/{start}")?,
            (start, end) => write!(f, "/{start}-{end}")?,
        }
    } else if !ports.is_any() {
        write!(f, "/{ports}")?;
    }
    f.write_str("]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Result<TrafficSelector, SelectorTextError> {
        text.parse()
    }

    #[test]
    fn reads_what_strongswan_users_write() {
        let web = read("10.1.0.0/16[tcp/80]").unwrap();
        assert_eq!((web.protocol, web.ports), (6, PortRange::single(80)));
        assert_eq!(web.addresses, AddressRange::from_prefix(IpAddr::from([10, 1, 0, 0]), 16).unwrap());

        let everything = read("0.0.0.0/0").unwrap();
        assert_eq!(everything, TrafficSelector::any_v4());
        assert_eq!(read("10.1.0.5[17/1000-2000]").unwrap().ports, PortRange::new(1000, 2000).unwrap());
        assert_eq!(read("10.1.0.1-10.1.0.9[udp]").unwrap().addresses.end(), IpAddr::from([10, 1, 0, 9]));
        assert_eq!(read("2001:db8::/32[tcp/any]").unwrap().ports, PortRange::ANY);
        assert_eq!(read("10.0.0.0/8[tcp/opaque]").unwrap().ports, PortRange::OPAQUE);
        assert_eq!(read("10.0.0.0/8[/443]").unwrap().protocol, ANY_PROTOCOL);
        assert_eq!(read("10.0.0.0/8[0/any]").unwrap(), read("10.0.0.0/8").unwrap());
    }

    #[test]
    fn icmp_numbers_below_256_are_types_with_any_code() {
        assert_eq!(read("10.0.0.1[icmp/8]").unwrap().ports, PortRange::new(0x0800, 0x08ff).unwrap());
        assert_eq!(read("10.0.0.1[icmp/2048]").unwrap().ports, PortRange::single(0x0800));
        assert_eq!(read("10.0.0.1[tcp/8]").unwrap().ports, PortRange::single(8));
    }

    #[test]
    fn dynamic_waits_for_its_address() {
        let template: SelectorTemplate = "dynamic[tcp/80]".parse().unwrap();
        assert_eq!(template.to_string(), "dynamic[tcp/80]");
        assert_eq!(template.resolve(IpAddr::from([192, 0, 2, 9])), read("192.0.2.9/32[tcp/80]").unwrap());
        assert_eq!(read("dynamic"), Err(SelectorTextError::Dynamic));
    }

    #[test]
    fn refuses_with_what_was_found() {
        for (text, error) in [
            ("", SelectorTextError::Addresses("".into())),
            ("10.1.0.0/33", SelectorTextError::Addresses("10.1.0.0/33".into())),
            ("10.1.0.9-10.1.0.1", SelectorTextError::Addresses("10.1.0.9-10.1.0.1".into())),
            ("10.1.0.1-::1", SelectorTextError::Addresses("10.1.0.1-::1".into())),
            ("10.1.0.0/16[tcp/80", SelectorTextError::Brackets("10.1.0.0/16[tcp/80".into())),
            ("10.1.0.0/16[tcp]x", SelectorTextError::Brackets("10.1.0.0/16[tcp]x".into())),
            ("10.1.0.0/16[tcp[80]]", SelectorTextError::Brackets("10.1.0.0/16[tcp[80]]".into())),
            ("10.1.0.0/16[]", SelectorTextError::Protocol("".into())),
            ("10.1.0.0/16[256]", SelectorTextError::Protocol("256".into())),
            ("10.1.0.0/16[tcp/]", SelectorTextError::Port("".into())),
            ("10.1.0.0/16[tcp/65536]", SelectorTextError::Port("65536".into())),
            ("10.1.0.0/16[tcp/2-1]", SelectorTextError::Port("2-1".into())),
        ] {
            assert_eq!(read(text), Err(error), "{text}");
        }
        let slip = read("10.1.2.3/16").unwrap_err().to_string();
        assert_eq!(slip, "\"10.1.2.3/16\" has host bits set; did you mean 10.1.0.0/16?");
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(
            a: u32, b: u32, v6: bool, protocol in prop::sample::select(vec![0_u8, 1, 6, 17, 58, 200]),
            ports in prop::sample::select(vec![PortRange::ANY, PortRange::OPAQUE, PortRange::single(256), PortRange::new(0x800, 0x8ff).unwrap(), PortRange::new(0x800, 0xaff).unwrap(), PortRange::new(300, 400).unwrap()]),
        ) {
            let address = |n: u32| if v6 { IpAddr::from((u128::from(n) << 64).to_be_bytes()) } else { IpAddr::from(n.to_be_bytes()) };
            let addresses = AddressRange::new(address(a.min(b)), address(a.max(b))).unwrap();
            let selector = TrafficSelector { addresses, protocol, ports };
            prop_assert_eq!(read(&selector.to_string()), Ok(selector));
        }

        #[test]
        fn no_text_panics(text in "[0-9a-f:./\\-\\[\\]tcpudynmi]{0,40}") {
            let _ = text.parse::<SelectorTemplate>();
        }
    }
}
