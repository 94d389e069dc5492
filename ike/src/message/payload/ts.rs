//! Traffic selector payloads (RFC 7296 §3.13).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipsec::selector::{AddressRange, PortRange, TrafficSelector};

use super::PayloadKind;
use crate::error::Malformed;

const TS_IPV4_ADDR_RANGE: u8 = 7;
const TS_IPV6_ADDR_RANGE: u8 = 8;
const HEAD_LEN: usize = 8;

/// The selectors of one side that we understand.
///
/// Selectors of other types, and those that select nothing (a start past its end), are passed over: narrowing would
/// drop them anyway.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TrafficSelectors(pub Vec<TrafficSelector>);

impl TrafficSelectors {
    pub(super) fn parse(kind: PayloadKind, body: &[u8]) -> Result<TrafficSelectors, Malformed> {
        let fault = |fault| Malformed::Payload { kind, fault };
        let [count, _, _, _, rest @ ..] = body else {
            return Err(fault("shorter than its head"));
        };
        let mut rest = rest;
        let mut selectors = Vec::new();
        for _ in 0..*count {
            let Some(&[_, _, high, low, ..]) = rest.first_chunk::<HEAD_LEN>() else {
                return Err(fault("fewer selectors than it says"));
            };
            let length = usize::from(u16::from_be_bytes([high, low]));
            if length < HEAD_LEN {
                return Err(fault("selector shorter than its head"));
            }
            let Some((selector, after)) = rest.split_at_checked(length) else {
                return Err(fault("selector past the end"));
            };
            selectors.extend(parse_selector(selector).map_err(fault)?);
            rest = after;
        }
        if !rest.is_empty() {
            return Err(fault("more selectors than it says"));
        }
        Ok(TrafficSelectors(selectors))
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        let count = u8::try_from(self.0.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&[count, 0, 0, 0]);
        for selector in self.0.iter().take(usize::from(count)) {
            emit_selector(selector, out);
        }
    }
}

fn parse_selector(bytes: &[u8]) -> Result<Option<TrafficSelector>, &'static str> {
    let Some((&[kind, protocol, _, _, s1, s0, e1, e0], addresses)) = bytes.split_first_chunk::<HEAD_LEN>() else {
        return Err("selector shorter than its head");
    };
    let (start, end) = match kind {
        TS_IPV4_ADDR_RANGE => {
            let octets = <[u8; 8]>::try_from(addresses).map_err(|_| "IPv4 range is not 16 octets long")?;
            let [a, b, c, d, e, f, g, h] = octets;
            (IpAddr::V4(Ipv4Addr::new(a, b, c, d)), IpAddr::V4(Ipv4Addr::new(e, f, g, h)))
        }
        TS_IPV6_ADDR_RANGE => {
            let (start, end) = addresses.split_at_checked(16).ok_or("IPv6 range is not 40 octets long")?;
            let address = |octets: &[u8]| <[u8; 16]>::try_from(octets).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
            match (address(start), address(end)) {
                (Ok(start), Ok(end)) => (start, end),
                (Err(_), _) | (_, Err(_)) => return Err("IPv6 range is not 40 octets long"),
            }
        }
        _ => return Ok(None),
    };
    let ports = PortRange::from_wire(u16::from_be_bytes([s1, s0]), u16::from_be_bytes([e1, e0]));
    let addresses = AddressRange::new(start, end);
    Ok(addresses.zip(ports).map(|(addresses, ports)| TrafficSelector { addresses, protocol, ports }))
}

fn emit_selector(selector: &TrafficSelector, out: &mut Vec<u8>) {
    let (kind, length): (u8, u16) =
        if selector.addresses.is_ipv4() { (TS_IPV4_ADDR_RANGE, 16) } else { (TS_IPV6_ADDR_RANGE, 40) };
    out.extend_from_slice(&[kind, selector.protocol]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&selector.ports.start().to_be_bytes());
    out.extend_from_slice(&selector.ports.end().to_be_bytes());
    for address in [selector.addresses.start(), selector.addresses.end()] {
        match address {
            IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
            IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &[u8]) -> Result<TrafficSelectors, Malformed> {
        TrafficSelectors::parse(PayloadKind::TsInitiator, body)
    }

    #[test]
    fn selectors_read_back() {
        let texts = ["10.1.0.0/16[tcp/80]", "2001:db8::/32", "10.0.0.1[17/opaque]", "10.0.0.1..10.0.0.9"];
        let selectors = TrafficSelectors(texts.iter().map(|text| text.parse().unwrap()).collect());
        let mut body = Vec::new();
        selectors.emit(&mut body);
        assert_eq!(parse(&body), Ok(selectors));
    }

    #[test]
    fn what_selects_nothing_or_is_unknown_is_passed_over() {
        let backwards = [1, 0, 0, 0, 7, 0, 0, 16, 0, 9, 0, 3, 10, 0, 0, 1, 10, 0, 0, 2];
        let unknown = [1, 0, 0, 0, 9, 0, 0, 8, 0, 0, 0, 0];
        assert_eq!(parse(&backwards), Ok(TrafficSelectors::default()));
        assert_eq!(parse(&unknown), Ok(TrafficSelectors::default()));
    }

    #[test]
    fn hostile_02_lengths_that_lie_are_faults() {
        let honest = [1, 0, 0, 0, 7, 0, 0, 16, 0, 0, 255, 255, 10, 0, 0, 1, 10, 0, 0, 2];
        assert_eq!(parse(&honest).unwrap().0.len(), 1);
        for (at, value) in [(0, 0), (0, 2), (0, 255), (7, 7), (7, 15), (7, 17), (6, 255)] {
            let mut lying = honest;
            lying[at] = value;
            assert!(parse(&lying).is_err(), "octet {at} = {value}");
        }
        for cut in 0..honest.len() {
            assert!(parse(&honest[..cut]).is_err());
        }
    }
}
