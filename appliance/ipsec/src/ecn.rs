//! Congestion marks on tunnels (RFC 6040).
//!
//! On the way in, the outer header takes the inner one's mark ("normal mode"). On the way out, a mark that the path
//! made on the outer header must reach the inner packet, or the sender never learns of the congestion.

use wire::checksum;

/// The two bits of congestion notification in an IP header (RFC 3168 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// The transport does not understand marks.
    NotCapable,
    /// It does; the code point of L4S (RFC 9331).
    Capable1,
    /// It does.
    Capable0,
    /// The path was congested.
    Congested,
}

/// The path marked congestion on a packet whose transport cannot understand it: all that is left is to drop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("congestion was marked on a packet that is not ECN-capable")]
pub struct CongestedNotCapable;

impl Ecn {
    /// From the low two bits of IPv4's type of service or IPv6's traffic class.
    #[must_use]
    #[inline]
    pub const fn from_traffic_class(traffic_class: u8) -> Self {
        match (traffic_class & 2 != 0, traffic_class & 1 != 0) {
            (false, false) => Self::NotCapable,
            (false, true) => Self::Capable1,
            (true, false) => Self::Capable0,
            (true, true) => Self::Congested,
        }
    }

    /// The two bits.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u8 {
        match self {
            Self::NotCapable => 0,
            Self::Capable1 => 1,
            Self::Capable0 => 2,
            Self::Congested => 3,
        }
    }

    /// What an inner packet that carries `self` must carry after a tunnel whose outer header arrived with `outer`
    /// (RFC 6040 §4.2, figure 4).
    ///
    /// # Errors
    /// [`CongestedNotCapable`].
    #[inline]
    pub const fn after_tunnel(self, outer: Self) -> Result<Self, CongestedNotCapable> {
        match (self, outer) {
            (Self::NotCapable, Self::Congested) => Err(CongestedNotCapable),
            (Self::NotCapable, Self::NotCapable | Self::Capable0 | Self::Capable1) => Ok(Self::NotCapable),
            (Self::Capable0 | Self::Capable1 | Self::Congested, Self::Congested) => Ok(Self::Congested),
            (Self::Capable0, Self::Capable1) => Ok(Self::Capable1),
            (inner, Self::NotCapable | Self::Capable0 | Self::Capable1) => Ok(inner),
        }
    }
}

/// Brings the outer header's mark into the inner IPv4 or IPv6 packet, its checksum included. What is too short to be
/// either stays as it is.
///
/// # Errors
/// [`CongestedNotCapable`]: drop the packet.
#[inline]
pub fn combine(outer: Ecn, inner_packet: &mut [u8]) -> Result<(), CongestedNotCapable> {
    match inner_packet {
        [version, traffic_class, ..] if *version >> 4 == 4 => {
            let old = u16::from_be_bytes([*version, *traffic_class]);
            let inner = Ecn::from_traffic_class(*traffic_class);
            let combined = inner.after_tunnel(outer)?;
            *traffic_class = *traffic_class & !3 | combined.bits();
            let new = u16::from_be_bytes([*version, *traffic_class]);
            if let Some(stored) = inner_packet.get_mut(10..12).and_then(|bytes| bytes.first_chunk_mut())
                && old != new
            {
                *stored = checksum::update(u16::from_be_bytes(*stored), old, new).to_be_bytes();
            }
        }
        [version, low, ..] if *version >> 4 == 6 => {
            // The traffic class lies across the first two bytes; its low two bits are the high bits of the second's
            // high half.
            let inner = Ecn::from_traffic_class(*low >> 4);
            let combined = inner.after_tunnel(outer)?;
            *low = *low & !0x30 | combined.bits() << 4;
        }
        _neither => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{ipv4, ipv6};

    const ALL: [Ecn; 4] = [Ecn::NotCapable, Ecn::Capable0, Ecn::Capable1, Ecn::Congested];

    #[test]
    fn combines_as_the_table_of_rfc_6040_says() {
        let (not, zero, one, ce) = (Ok(Ecn::NotCapable), Ok(Ecn::Capable0), Ok(Ecn::Capable1), Ok(Ecn::Congested));
        // Rows: inner; columns: outer Not-ECT, ECT(0), ECT(1), CE.
        let table = [
            (Ecn::NotCapable, [not, not, not, Err(CongestedNotCapable)]),
            (Ecn::Capable0, [zero, zero, one, ce]),
            (Ecn::Capable1, [one, one, one, ce]),
            (Ecn::Congested, [ce, ce, ce, ce]),
        ];
        for (inner, row) in table {
            assert_eq!(ALL.map(|outer| inner.after_tunnel(outer)), row, "{inner:?}");
        }
    }

    #[test]
    fn bits_read_back() {
        for ecn in ALL {
            assert_eq!(Ecn::from_traffic_class(0xb8 | ecn.bits()), ecn);
        }
    }

    #[test]
    fn inner_packets_keep_everything_but_the_mark() {
        for inner in ALL {
            for outer in ALL {
                let mut v4 = [0x45, 0xb8 | inner.bits(), 0, 20, 7, 7, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
                ipv4::Packet::new_unchecked(&mut v4[..]).fill_checksum();
                let mut v6 = [0; 40];
                ipv6::Packet::new_unchecked(&mut v6[..]).set_version_class_and_label(0x2e, inner.bits(), 0xabcde);
                let expected = inner.after_tunnel(outer);
                assert_eq!(combine(outer, &mut v4), expected.map(|_| ()));
                assert_eq!(combine(outer, &mut v6), expected.map(|_| ()));
                let left = expected.unwrap_or(inner);
                let v4 = ipv4::Packet::new_checked(&v4[..]).unwrap();
                assert!(v4.verify_checksum());
                assert_eq!((v4.dscp(), v4.ecn()), (0x2e, left.bits()));
                let v6 = ipv6::Packet::new_checked(&v6[..]).unwrap();
                assert_eq!((v6.dscp(), v6.ecn(), v6.flow_label()), (0x2e, left.bits(), 0xabcde));
            }
        }
    }

    #[test]
    fn stumps_are_left_alone() {
        for len in 0..12 {
            let mut stump = [0x45, 2, 0, 20, 0, 0, 0, 0, 64, 6, 1, 2];
            let _ = combine(Ecn::Congested, &mut stump[..len]);
            assert_eq!(stump[10..], [1, 2]);
        }
        let mut other = [0x55, 0, 0, 0];
        assert_eq!(combine(Ecn::Congested, &mut other), Ok(()));
        assert_eq!(other, [0x55, 0, 0, 0]);
    }
}
