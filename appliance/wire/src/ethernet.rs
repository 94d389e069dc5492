//! Ethernet II frames, with at most one IEEE 802.1Q tag.
//!
//! The frame check sequence never reaches software. Stacked tags (802.1ad) are not followed: their outer EtherType shows
//! as [`EtherType::Other`].

use core::fmt;

use crate::bytes::{array_at, put, put_u16, u16_at};
use crate::{Error, Result};

/// Length of an untagged header.
pub const HEADER_LEN: usize = 14;
/// Length of a header with an 802.1Q tag.
pub const TAGGED_HEADER_LEN: usize = HEADER_LEN + TAG_LEN;
/// Length of an 802.1Q tag.
pub const TAG_LEN: usize = 4;

const ETHER_TYPE_VLAN: u16 = 0x8100;

/// A MAC address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// All stations.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// No station: what an ARP request carries as its target.
    pub const ZERO: Self = Self([0; 6]);

    /// The bytes in wire order.
    #[inline]
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether this addresses all stations.
    #[inline]
    #[must_use]
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// Whether this addresses a group, broadcast included.
    #[inline]
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether this can be a station's own address: no group, not zero.
    #[inline]
    #[must_use]
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && self != Self::ZERO
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EtherType {
    /// IPv4.
    Ipv4,
    /// ARP.
    Arp,
    /// IPv6.
    Ipv6,
    /// Anything else, an 802.3 length included. Never one of the values above, and in a [`Repr`] never 0x8100.
    Other(u16),
}

impl From<u16> for EtherType {
    #[inline]
    fn from(value: u16) -> Self {
        match value {
            0x0800 => Self::Ipv4,
            0x0806 => Self::Arp,
            0x86dd => Self::Ipv6,
            other => Self::Other(other),
        }
    }
}

impl From<EtherType> for u16 {
    #[inline]
    fn from(value: EtherType) -> Self {
        match value {
            EtherType::Ipv4 => 0x0800,
            EtherType::Arp => 0x0806,
            EtherType::Ipv6 => 0x86dd,
            EtherType::Other(other) => other,
        }
    }
}

/// The content of an 802.1Q tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VlanTag {
    /// VLAN identifier, 12 bits; 0 means that only the priority counts.
    pub id: u16,
    /// Priority code point, 3 bits.
    pub priority: u8,
    /// Drop eligible indicator.
    pub drop_eligible: bool,
}

impl VlanTag {
    /// A tag of default priority.
    #[inline]
    #[must_use]
    pub const fn new(id: u16) -> Self {
        Self { id, priority: 0, drop_eligible: false }
    }

    #[inline]
    const fn from_bits(bits: u16) -> Self {
        Self { id: bits & 0x0fff, priority: (bits >> 13) as u8, drop_eligible: bits & 0x1000 != 0 }
    }

    #[inline]
    const fn to_bits(self) -> u16 {
        (self.priority as u16) << 13 | (self.drop_eligible as u16) << 12 | self.id & 0x0fff
    }
}

/// A view of an Ethernet frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Wraps bytes without a look at them. Accessors panic if they are fewer than [`HEADER_LEN`]; meant for
    /// [`Repr::emit`].
    #[inline]
    pub const fn new_unchecked(buffer: T) -> Self {
        Self { buffer }
    }

    /// Wraps a frame whose header is complete, its tag included.
    ///
    /// # Errors
    /// `Truncated`.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self> {
        let frame = Self { buffer };
        let len = frame.buffer.as_ref().len();
        if len < HEADER_LEN || len < frame.header_len() {
            return Err(Error::Truncated);
        }
        Ok(frame)
    }

    /// Unwraps the bytes.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Destination.
    #[inline]
    pub fn dst(&self) -> MacAddress {
        MacAddress(array_at(self.buffer.as_ref(), 0))
    }

    /// Source.
    #[inline]
    pub fn src(&self) -> MacAddress {
        MacAddress(array_at(self.buffer.as_ref(), 6))
    }

    /// The 802.1Q tag, if there is one.
    #[inline]
    pub fn vlan(&self) -> Option<VlanTag> {
        let bytes = self.buffer.as_ref();
        if self.is_tagged() && bytes.len() >= TAGGED_HEADER_LEN {
            Some(VlanTag::from_bits(u16_at(bytes, HEADER_LEN)))
        } else {
            None
        }
    }

    /// What the frame carries, behind its tag if there is one.
    #[inline]
    pub fn ether_type(&self) -> EtherType {
        let bytes = self.buffer.as_ref();
        let at = self.header_len().min(bytes.len()) - 2;
        EtherType::from(u16_at(bytes, at))
    }

    /// Length of the header in bytes: 14, or 18 with a tag.
    #[inline]
    pub fn header_len(&self) -> usize {
        if self.is_tagged() { TAGGED_HEADER_LEN } else { HEADER_LEN }
    }

    /// What follows the header, padding included.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        let bytes = self.buffer.as_ref();
        &bytes[self.header_len().min(bytes.len())..]
    }

    #[inline]
    fn is_tagged(&self) -> bool {
        u16_at(self.buffer.as_ref(), 12) == ETHER_TYPE_VLAN
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the destination.
    #[inline]
    pub fn set_dst(&mut self, dst: MacAddress) {
        put(self.buffer.as_mut(), 0, &dst.0);
    }

    /// Sets the source.
    #[inline]
    pub fn set_src(&mut self, src: MacAddress) {
        put(self.buffer.as_mut(), 6, &src.0);
    }

    /// What follows the header, mutable.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let header_len = self.header_len();
        let bytes = self.buffer.as_mut();
        let at = header_len.min(bytes.len());
        &mut bytes[at..]
    }
}

/// An Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Destination.
    pub dst: MacAddress,
    /// Source.
    pub src: MacAddress,
    /// The 802.1Q tag, if any.
    pub vlan: Option<VlanTag>,
    /// What the frame carries.
    pub ether_type: EtherType,
}

impl Repr {
    /// Reads a header.
    ///
    /// # Errors
    /// `Unsupported` if a second 802.1Q tag follows the first; `Truncated` if a setter tagged a view too short for it.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self> {
        if packet.buffer.as_ref().len() < packet.header_len() {
            return Err(Error::Truncated);
        }
        let ether_type = packet.ether_type();
        if ether_type == EtherType::Other(ETHER_TYPE_VLAN) {
            return Err(Error::Unsupported);
        }
        Ok(Self { dst: packet.dst(), src: packet.src(), vlan: packet.vlan(), ether_type })
    }

    /// How many bytes [`Repr::emit`] writes: 14, or 18 with a tag.
    #[inline]
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        match self.vlan {
            None => HEADER_LEN,
            Some(_) => TAGGED_HEADER_LEN,
        }
    }

    /// Writes the header. Panics if the view holds fewer than [`Repr::buffer_len`] bytes.
    #[inline]
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        packet.set_dst(self.dst);
        packet.set_src(self.src);
        let bytes = packet.buffer.as_mut();
        if let Some(tag) = self.vlan {
            put_u16(bytes, 12, ETHER_TYPE_VLAN);
            put_u16(bytes, HEADER_LEN, tag.to_bits());
        }
        put_u16(bytes, self.buffer_len() - 2, self.ether_type.into());
    }
}

#[cfg(test)]
mod tests;
