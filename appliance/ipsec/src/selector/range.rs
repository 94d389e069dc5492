//! Ranges of addresses and ports: what a single traffic selector is made of.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A range of ports, both ends included (RFC 7296 §3.13.1).
///
/// For ICMP the "port" is type × 256 + code. [`PortRange::OPAQUE`] is the one range whose start is past its end: it
/// stands for packets whose ports cannot be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortRange {
    start: u16,
    end: u16,
}

impl PortRange {
    /// Every port, and packets without ports.
    pub const ANY: Self = Self { start: 0, end: u16::MAX };
    /// Only packets whose ports cannot be seen: fragments after the first (RFC 4301 §4.4.1.1).
    pub const OPAQUE: Self = Self { start: u16::MAX, end: 0 };

    /// From `start` to `end`, unless that is nothing.
    #[must_use]
    pub const fn new(start: u16, end: u16) -> Option<Self> {
        if start <= end { Some(Self { start, end }) } else { None }
    }

    /// Just this port.
    #[must_use]
    pub const fn single(port: u16) -> Self {
        Self { start: port, end: port }
    }

    /// From the two numbers of a traffic selector payload, which may also say "opaque".
    #[must_use]
    pub fn from_wire(start: u16, end: u16) -> Option<Self> {
        let range = Self { start, end };
        (start <= end || range == Self::OPAQUE).then_some(range)
    }

    /// The first port; 65535 if opaque.
    #[must_use]
    pub const fn start(self) -> u16 {
        self.start
    }

    /// The last port; 0 if opaque.
    #[must_use]
    pub const fn end(self) -> u16 {
        self.end
    }

    /// Every port and packets without ports.
    #[must_use]
    pub fn is_any(self) -> bool {
        self == Self::ANY
    }

    /// Only packets whose ports cannot be seen.
    #[must_use]
    pub fn is_opaque(self) -> bool {
        self == Self::OPAQUE
    }

    /// Whether a packet with this port is meant. Opaque means no packet with a port.
    #[must_use]
    pub const fn contains(self, port: u16) -> bool {
        self.start <= port && port <= self.end
    }

    /// Whether packets whose ports cannot be seen are meant.
    #[must_use]
    pub fn contains_unseen(self) -> bool {
        self.is_any() || self.is_opaque()
    }

    /// Whether whatever `other` means is meant here too.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.intersect(other) == Some(other)
    }

    /// What both mean. Any port includes opaque; no other range does.
    #[must_use]
    pub fn intersect(self, other: Self) -> Option<Self> {
        match (self.is_opaque(), other.is_opaque()) {
            (true, _) => other.contains_unseen().then_some(self),
            (false, true) => self.is_any().then_some(other),
            (false, false) => Self::new(self.start.max(other.start), self.end.min(other.end)),
        }
    }
}

impl fmt::Display for PortRange {
    /// As strongSwan writes it: `80`, `1000-2000`, `any`, `opaque`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_any() {
            f.write_str("any")
        } else if self.is_opaque() {
            f.write_str("opaque")
        } else if self.start == self.end {
            write!(f, "{}", self.start)
        } else {
            write!(f, "{}-{}", self.start, self.end)
        }
    }
}

/// A range of addresses of one family, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRange(Ends);

/// Numbers rather than addresses: a packet's check is two comparisons.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Ends {
    V4 { start: u32, end: u32 },
    V6 { start: u128, end: u128 },
}

impl AddressRange {
    /// Every IPv4 address.
    pub const ANY_V4: Self = Self(Ends::V4 { start: 0, end: u32::MAX });
    /// Every IPv6 address.
    pub const ANY_V6: Self = Self(Ends::V6 { start: 0, end: u128::MAX });

    /// From `start` to `end`, unless that is nothing or the families differ.
    #[must_use]
    pub const fn new(start: IpAddr, end: IpAddr) -> Option<Self> {
        match (start, end) {
            (IpAddr::V4(start), IpAddr::V4(end)) => Self::v4(start.to_bits(), end.to_bits()),
            (IpAddr::V6(start), IpAddr::V6(end)) => Self::v6(start.to_bits(), end.to_bits()),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }

    const fn v4(start: u32, end: u32) -> Option<Self> {
        if start <= end { Some(Self(Ends::V4 { start, end })) } else { None }
    }

    const fn v6(start: u128, end: u128) -> Option<Self> {
        if start <= end { Some(Self(Ends::V6 { start, end })) } else { None }
    }

    /// Just this address.
    #[must_use]
    pub const fn single(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self(Ends::V4 { start: address.to_bits(), end: address.to_bits() }),
            IpAddr::V6(address) => Self(Ends::V6 { start: address.to_bits(), end: address.to_bits() }),
        }
    }

    /// All addresses that share the first `prefix_bits` with `address`; `None` if the family has fewer bits.
    #[must_use]
    pub fn from_prefix(address: IpAddr, prefix_bits: u8) -> Option<Self> {
        match address {
            IpAddr::V4(address) => {
                let host_bits = 32_u32.checked_sub(u32::from(prefix_bits))?;
                let host_mask = u32::MAX.checked_shr(32 - host_bits).unwrap_or(0);
                let start = address.to_bits() & !host_mask;
                Some(Self(Ends::V4 { start, end: start | host_mask }))
            }
            IpAddr::V6(address) => {
                let host_bits = 128_u32.checked_sub(u32::from(prefix_bits))?;
                let host_mask = u128::MAX.checked_shr(128 - host_bits).unwrap_or(0);
                let start = address.to_bits() & !host_mask;
                Some(Self(Ends::V6 { start, end: start | host_mask }))
            }
        }
    }

    /// The prefix that is exactly this range, if there is one.
    #[must_use]
    pub fn as_prefix(&self) -> Option<(IpAddr, u8)> {
        match self.0 {
            Ends::V4 { start, end } => {
                let host_bits = (start ^ end).trailing_ones();
                let same = (start ^ end).count_ones() == host_bits && start.trailing_zeros() >= host_bits;
                same.then(|| (Ipv4Addr::from_bits(start).into(), (32 - host_bits) as u8))
            }
            Ends::V6 { start, end } => {
                let host_bits = (start ^ end).trailing_ones();
                let same = (start ^ end).count_ones() == host_bits && start.trailing_zeros() >= host_bits;
                same.then(|| (Ipv6Addr::from_bits(start).into(), (128 - host_bits) as u8))
            }
        }
    }

    /// The first address.
    #[must_use]
    pub const fn start(&self) -> IpAddr {
        match self.0 {
            Ends::V4 { start, .. } => IpAddr::V4(Ipv4Addr::from_bits(start)),
            Ends::V6 { start, .. } => IpAddr::V6(Ipv6Addr::from_bits(start)),
        }
    }

    /// The last address.
    #[must_use]
    pub const fn end(&self) -> IpAddr {
        match self.0 {
            Ends::V4 { end, .. } => IpAddr::V4(Ipv4Addr::from_bits(end)),
            Ends::V6 { end, .. } => IpAddr::V6(Ipv6Addr::from_bits(end)),
        }
    }

    /// Whether the range is of IPv4 addresses.
    #[must_use]
    pub const fn is_ipv4(&self) -> bool {
        matches!(self.0, Ends::V4 { .. })
    }

    /// The address, if the range is just one.
    #[must_use]
    pub fn as_single(&self) -> Option<IpAddr> {
        (self.start() == self.end()).then(|| self.start())
    }

    /// Whether the address lies inside. An IPv4-mapped IPv6 address is an IPv6 address.
    #[must_use]
    #[inline]
    pub const fn contains(&self, address: IpAddr) -> bool {
        match (self.0, address) {
            (Ends::V4 { start, end }, IpAddr::V4(address)) => start <= address.to_bits() && address.to_bits() <= end,
            (Ends::V6 { start, end }, IpAddr::V6(address)) => start <= address.to_bits() && address.to_bits() <= end,
            (Ends::V4 { .. }, IpAddr::V6(_)) | (Ends::V6 { .. }, IpAddr::V4(_)) => false,
        }
    }

    /// Whether all of `other` lies inside.
    #[must_use]
    pub const fn covers(&self, other: &Self) -> bool {
        self.contains(other.start()) && self.contains(other.end())
    }

    /// The addresses in both.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        match (self.0, other.0) {
            (Ends::V4 { start, end }, Ends::V4 { start: other_start, end: other_end }) => {
                Self::v4(start.max(other_start), end.min(other_end))
            }
            (Ends::V6 { start, end }, Ends::V6 { start: other_start, end: other_end }) => {
                Self::v6(start.max(other_start), end.min(other_end))
            }
            (Ends::V4 { .. }, Ends::V6 { .. }) | (Ends::V6 { .. }, Ends::V4 { .. }) => None,
        }
    }
}

impl fmt::Display for AddressRange {
    /// As strongSwan writes it: a prefix where one fits, else `first..last`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_prefix() {
            Some((address, prefix_bits)) => write!(f, "{address}/{prefix_bits}"),
            None => write!(f, "{}..{}", self.start(), self.end()),
        }
    }
}

impl fmt::Debug for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AddressRange({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn any_port_includes_packets_without_ports_and_no_other_range_does() {
        let some = PortRange::new(1, u16::MAX).unwrap();
        assert!(PortRange::ANY.contains_unseen() && PortRange::OPAQUE.contains_unseen());
        assert!(!some.contains_unseen());
        assert_eq!(PortRange::ANY.intersect(PortRange::OPAQUE), Some(PortRange::OPAQUE));
        assert_eq!(PortRange::OPAQUE.intersect(PortRange::ANY), Some(PortRange::OPAQUE));
        assert_eq!(PortRange::OPAQUE.intersect(PortRange::OPAQUE), Some(PortRange::OPAQUE));
        assert_eq!(PortRange::OPAQUE.intersect(some), None);
        assert_eq!(some.intersect(PortRange::OPAQUE), None);
        assert!(PortRange::ANY.covers(PortRange::OPAQUE) && !PortRange::OPAQUE.covers(PortRange::ANY));
        for port in [0, 80, u16::MAX] {
            assert!(!PortRange::OPAQUE.contains(port));
        }
    }

    #[test]
    fn wire_ports_are_a_range_or_opaque_and_nothing_else() {
        assert_eq!(PortRange::from_wire(0, u16::MAX), Some(PortRange::ANY));
        assert_eq!(PortRange::from_wire(u16::MAX, 0), Some(PortRange::OPAQUE));
        assert_eq!(PortRange::from_wire(80, 80), Some(PortRange::single(80)));
        assert_eq!(PortRange::from_wire(81, 80), None);
        assert_eq!(PortRange::from_wire(u16::MAX, 1), None);
        assert_eq!(PortRange::from_wire(u16::MAX - 1, 0), None);
    }

    #[test]
    fn prefixes_become_ranges_and_back() {
        for (text, bits, first, last) in [
            ("10.1.2.3", 16, "10.1.0.0", "10.1.255.255"),
            ("10.1.2.3", 32, "10.1.2.3", "10.1.2.3"),
            ("10.1.2.3", 0, "0.0.0.0", "255.255.255.255"),
            ("2001:db8::1", 32, "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"),
            ("2001:db8::1", 128, "2001:db8::1", "2001:db8::1"),
            ("::", 0, "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
        ] {
            let range = AddressRange::from_prefix(ip(text), bits).unwrap();
            assert_eq!((range.start(), range.end()), (ip(first), ip(last)));
            assert_eq!(range.as_prefix(), Some((ip(first), bits)));
        }
        assert_eq!(AddressRange::from_prefix(ip("10.0.0.0"), 33), None);
        assert_eq!(AddressRange::from_prefix(ip("10.0.0.7"), 32).unwrap().as_single(), Some(ip("10.0.0.7")));
        assert_eq!(AddressRange::from_prefix(ip("10.0.0.6"), 31).unwrap().as_single(), None);
        assert_eq!(AddressRange::from_prefix(ip("::"), 129), None);
    }

    #[test]
    fn ranges_that_are_no_prefix_say_so() {
        for (first, last) in
            [("10.0.0.1", "10.0.0.2"), ("10.0.0.0", "10.0.0.2"), ("10.0.0.2", "10.0.0.5"), ("::1", "::2")]
        {
            let range = AddressRange::new(ip(first), ip(last)).unwrap();
            assert_eq!(range.as_prefix(), None);
            assert_eq!(range.to_string(), format!("{first}..{last}"));
        }
        assert_eq!(AddressRange::new(ip("10.0.0.2"), ip("10.0.0.1")), None);
        assert_eq!(AddressRange::new(ip("10.0.0.2"), ip("::1")), None);
    }

    #[test]
    fn families_never_mix() {
        assert!(!AddressRange::ANY_V4.contains(ip("::ffff:10.0.0.1")));
        assert!(!AddressRange::ANY_V6.contains(ip("10.0.0.1")));
        assert_eq!(AddressRange::ANY_V4.intersect(&AddressRange::ANY_V6), None);
        assert!(!AddressRange::ANY_V6.covers(&AddressRange::ANY_V4));
    }

    proptest! {
        /// The oracle is membership, tried on the few addresses and ports where anything can change.
        #[test]
        fn intersections_hold_exactly_what_both_hold(ends in prop::array::uniform4(0_u8..6), at in 0_u8..6) {
            let address = |n: u8| IpAddr::from([10, 0, 0, n]);
            let (a, b) = (AddressRange::new(address(ends[0]), address(ends[1])), AddressRange::new(address(ends[2]), address(ends[3])));
            if let (Some(a), Some(b)) = (a, b) {
                let both = a.intersect(&b);
                prop_assert_eq!(both.is_some_and(|r| r.contains(address(at))), a.contains(address(at)) && b.contains(address(at)));
                prop_assert_eq!(a.covers(&b), (0..6).all(|n| !b.contains(address(n)) || a.contains(address(n))));
            }
            let port = u16::from;
            if let (Some(a), Some(b)) = (PortRange::new(port(ends[0]), port(ends[1])), PortRange::new(port(ends[2]), port(ends[3]))) {
                let both = a.intersect(b);
                prop_assert_eq!(both.is_some_and(|r| r.contains(port(at))), a.contains(port(at)) && b.contains(port(at)));
                prop_assert_eq!(a.covers(b), (0..6).all(|n| !b.contains(port(n)) || a.contains(port(n))));
            }
        }
    }
}
