//! ICMPv6 (RFC 4443).

use core::net::Ipv6Addr;

use super::{HEADER_LEN, Packet, echo_word};
use crate::{Error, Result};

/// Destination unreachable.
pub const TYPE_DESTINATION_UNREACHABLE: u8 = 1;
/// Packet too big.
pub const TYPE_PACKET_TOO_BIG: u8 = 2;
/// Time exceeded.
pub const TYPE_TIME_EXCEEDED: u8 = 3;
/// Parameter problem.
pub const TYPE_PARAMETER_PROBLEM: u8 = 4;
/// Echo request.
pub const TYPE_ECHO_REQUEST: u8 = 128;
/// Echo reply.
pub const TYPE_ECHO_REPLY: u8 = 129;

/// An ICMPv6 echo or error, whole. Codes are as RFC 4443 §3 numbers them; receivers must bear unknown ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repr<'a> {
    /// Destination unreachable.
    DestinationUnreachable {
        /// Why.
        code: u8,
        /// The packet that did not arrive, usually not all of it.
        quoted: &'a [u8],
    },
    /// Packet too big.
    PacketTooBig {
        /// MTU of the next hop in bytes.
        next_hop_mtu_bytes: u32,
        /// The packet that did not arrive, usually not all of it.
        quoted: &'a [u8],
    },
    /// Time exceeded.
    TimeExceeded {
        /// 0 in transit, 1 in reassembly.
        code: u8,
        /// The packet that did not arrive, usually not all of it.
        quoted: &'a [u8],
    },
    /// Parameter problem.
    ParameterProblem {
        /// Why.
        code: u8,
        /// Where in the packet, in bytes from its start.
        pointer: u32,
        /// The packet, usually not all of it.
        quoted: &'a [u8],
    },
    /// Echo request.
    EchoRequest {
        /// Identifier.
        identifier: u16,
        /// Sequence number.
        sequence: u16,
        /// What the reply must repeat.
        data: &'a [u8],
    },
    /// Echo reply.
    EchoReply {
        /// Identifier of the request.
        identifier: u16,
        /// Sequence number of the request.
        sequence: u16,
        /// Data of the request.
        data: &'a [u8],
    },
}

impl<'a> Repr<'a> {
    /// Reads a message. The checksum is not looked at (see [`Packet::verify_checksum_v6`]).
    ///
    /// # Errors
    /// `Unsupported` for any other type, neighbour discovery among them.
    pub fn parse<T: AsRef<[u8]> + ?Sized>(packet: &Packet<&'a T>) -> Result<Self> {
        let payload = &packet.buffer.as_ref()[HEADER_LEN..];
        let (code, word) = (packet.code(), packet.word());
        let (identifier, sequence) = packet.echo();
        match packet.message_type() {
            TYPE_DESTINATION_UNREACHABLE => Ok(Self::DestinationUnreachable { code, quoted: payload }),
            TYPE_PACKET_TOO_BIG => Ok(Self::PacketTooBig { next_hop_mtu_bytes: word, quoted: payload }),
            TYPE_TIME_EXCEEDED => Ok(Self::TimeExceeded { code, quoted: payload }),
            TYPE_PARAMETER_PROBLEM => Ok(Self::ParameterProblem { code, pointer: word, quoted: payload }),
            TYPE_ECHO_REQUEST => Ok(Self::EchoRequest { identifier, sequence, data: payload }),
            TYPE_ECHO_REPLY => Ok(Self::EchoReply { identifier, sequence, data: payload }),
            _other_type => Err(Error::Unsupported),
        }
    }

    /// How many bytes [`Repr::emit`] writes: the whole message.
    #[inline]
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        match self {
            Self::DestinationUnreachable { quoted, .. }
            | Self::PacketTooBig { quoted, .. }
            | Self::TimeExceeded { quoted, .. }
            | Self::ParameterProblem { quoted, .. } => HEADER_LEN + quoted.len(),
            Self::EchoRequest { data, .. } | Self::EchoReply { data, .. } => HEADER_LEN + data.len(),
        }
    }

    /// Writes the whole message, with the checksum for these addresses. Panics unless the view holds exactly
    /// [`Repr::buffer_len`] bytes.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, src: Ipv6Addr, dst: Ipv6Addr, packet: &mut Packet<T>) {
        match *self {
            Self::DestinationUnreachable { code, quoted } => {
                packet.write(TYPE_DESTINATION_UNREACHABLE, code, 0, quoted);
            }
            Self::PacketTooBig { next_hop_mtu_bytes, quoted } => {
                packet.write(TYPE_PACKET_TOO_BIG, 0, next_hop_mtu_bytes, quoted);
            }
            Self::TimeExceeded { code, quoted } => packet.write(TYPE_TIME_EXCEEDED, code, 0, quoted),
            Self::ParameterProblem { code, pointer, quoted } => {
                packet.write(TYPE_PARAMETER_PROBLEM, code, pointer, quoted);
            }
            Self::EchoRequest { identifier, sequence, data } => {
                packet.write(TYPE_ECHO_REQUEST, 0, echo_word(identifier, sequence), data);
            }
            Self::EchoReply { identifier, sequence, data } => {
                packet.write(TYPE_ECHO_REPLY, 0, echo_word(identifier, sequence), data);
            }
        }
        packet.fill_checksum_v6(src, dst);
    }
}
