//! ARP for IPv4 over Ethernet (RFC 826).

use core::net::Ipv4Addr;

use crate::bytes::{array_at, put, put_u16, u16_at};
use crate::ethernet::MacAddress;
use crate::{Error, Result};

/// Length of an ARP packet for IPv4 over Ethernet.
pub const PACKET_LEN: usize = 28;

const HARDWARE_ETHERNET: u16 = 1;
const PROTOCOL_IPV4: u16 = 0x0800;
const HARDWARE_LEN: u8 = 6;
const PROTOCOL_LEN: u8 = 4;

/// What an ARP packet asks or says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Who has the target address?
    Request,
    /// The sender has the sender address.
    Reply,
}

impl Operation {
    const fn from_bits(bits: u16) -> Option<Self> {
        match bits {
            1 => Some(Self::Request),
            2 => Some(Self::Reply),
            0 | 3.. => None,
        }
    }

    const fn to_bits(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
        }
    }
}

/// A view of an ARP packet for IPv4 over Ethernet. Bytes beyond [`PACKET_LEN`] are padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Wraps bytes without a look at them. Accessors panic if they are fewer than [`PACKET_LEN`]; meant for
    /// [`Repr::emit`].
    #[inline]
    pub const fn new_unchecked(buffer: T) -> Self {
        Self { buffer }
    }

    /// Wraps a packet for IPv4 over Ethernet.
    ///
    /// # Errors
    /// `Truncated`; `Unsupported` if it is for another link or network layer; `Malformed` if its address lengths are
    /// not those of the layers it names.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self { buffer };
        let bytes = packet.buffer.as_ref();
        if bytes.len() < PACKET_LEN {
            return Err(Error::Truncated);
        }
        if u16_at(bytes, 0) != HARDWARE_ETHERNET || u16_at(bytes, 2) != PROTOCOL_IPV4 {
            return Err(Error::Unsupported);
        }
        if bytes[4] != HARDWARE_LEN || bytes[5] != PROTOCOL_LEN {
            return Err(Error::Malformed);
        }
        Ok(packet)
    }

    /// Unwraps the bytes.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// The operation, or `None` for one beyond request and reply.
    #[inline]
    pub fn operation(&self) -> Option<Operation> {
        Operation::from_bits(u16_at(self.buffer.as_ref(), 6))
    }

    /// The sender's MAC address.
    #[inline]
    pub fn sender_mac(&self) -> MacAddress {
        MacAddress(array_at(self.buffer.as_ref(), 8))
    }

    /// The sender's IPv4 address; 0.0.0.0 in a probe (RFC 5227).
    #[inline]
    pub fn sender_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from(array_at::<4>(self.buffer.as_ref(), 14))
    }

    /// The target's MAC address; without meaning in a request.
    #[inline]
    pub fn target_mac(&self) -> MacAddress {
        MacAddress(array_at(self.buffer.as_ref(), 18))
    }

    /// The target's IPv4 address.
    #[inline]
    pub fn target_ip(&self) -> Ipv4Addr {
        Ipv4Addr::from(array_at::<4>(self.buffer.as_ref(), 24))
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the operation.
    #[inline]
    pub fn set_operation(&mut self, operation: Operation) {
        put_u16(self.buffer.as_mut(), 6, operation.to_bits());
    }

    /// Sets the sender.
    #[inline]
    pub fn set_sender(&mut self, mac: MacAddress, ip: Ipv4Addr) {
        put(self.buffer.as_mut(), 8, &mac.0);
        put(self.buffer.as_mut(), 14, &ip.octets());
    }

    /// Sets the target.
    #[inline]
    pub fn set_target(&mut self, mac: MacAddress, ip: Ipv4Addr) {
        put(self.buffer.as_mut(), 18, &mac.0);
        put(self.buffer.as_mut(), 24, &ip.octets());
    }
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Request or reply.
    pub operation: Operation,
    /// The sender's MAC address.
    pub sender_mac: MacAddress,
    /// The sender's IPv4 address.
    pub sender_ip: Ipv4Addr,
    /// The target's MAC address.
    pub target_mac: MacAddress,
    /// The target's IPv4 address.
    pub target_ip: Ipv4Addr,
}

impl Repr {
    /// Reads a packet.
    ///
    /// # Errors
    /// `Unsupported` if it is neither request nor reply.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self> {
        Ok(Self {
            operation: packet.operation().ok_or(Error::Unsupported)?,
            sender_mac: packet.sender_mac(),
            sender_ip: packet.sender_ip(),
            target_mac: packet.target_mac(),
            target_ip: packet.target_ip(),
        })
    }

    /// How many bytes [`Repr::emit`] writes.
    #[inline]
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        PACKET_LEN
    }

    /// Writes the packet. Panics if the view holds fewer than [`PACKET_LEN`] bytes.
    #[inline]
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        let bytes = packet.buffer.as_mut();
        put_u16(bytes, 0, HARDWARE_ETHERNET);
        put_u16(bytes, 2, PROTOCOL_IPV4);
        bytes[4] = HARDWARE_LEN;
        bytes[5] = PROTOCOL_LEN;
        packet.set_operation(self.operation);
        packet.set_sender(self.sender_mac, self.sender_ip);
        packet.set_target(self.target_mac, self.target_ip);
    }
}

#[cfg(test)]
mod tests;
