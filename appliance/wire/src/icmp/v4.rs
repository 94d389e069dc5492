//! ICMP for IPv4 (RFC 792, RFC 1122 §3.2.2, RFC 1191, RFC 1812 §5.2.7).

use super::{HEADER_LEN, Packet, echo_word};
use crate::{Error, Result};

/// Echo reply.
pub const TYPE_ECHO_REPLY: u8 = 0;
/// Destination unreachable.
pub const TYPE_DESTINATION_UNREACHABLE: u8 = 3;
/// Echo request.
pub const TYPE_ECHO_REQUEST: u8 = 8;
/// Time exceeded.
pub const TYPE_TIME_EXCEEDED: u8 = 11;

/// Why a destination is unreachable: the code, and with it the MTU where one is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unreachable {
    /// Network unreachable.
    Network,
    /// Host unreachable.
    Host,
    /// Protocol unreachable.
    Protocol,
    /// Port unreachable.
    Port,
    /// Fragmentation needed and Don't Fragment set.
    FragmentationNeeded {
        /// MTU of the next hop in bytes (RFC 1191 §4); 0 from a router that does not tell.
        next_hop_mtu_bytes: u16,
    },
    /// Source route failed.
    SourceRouteFailed,
    /// Destination network unknown.
    NetworkUnknown,
    /// Destination host unknown.
    HostUnknown,
    /// Source host isolated.
    SourceIsolated,
    /// Network administratively prohibited.
    NetworkProhibited,
    /// Host administratively prohibited.
    HostProhibited,
    /// Network unreachable for the type of service.
    NetworkTypeOfService,
    /// Host unreachable for the type of service.
    HostTypeOfService,
    /// Communication administratively prohibited.
    CommunicationProhibited,
    /// Host precedence violation.
    PrecedenceViolation,
    /// Precedence cutoff in effect.
    PrecedenceCutoff,
}

impl Unreachable {
    fn parse(code: u8, mtu: u16) -> Result<Self> {
        Ok(match code {
            0 => Self::Network,
            1 => Self::Host,
            2 => Self::Protocol,
            3 => Self::Port,
            4 => Self::FragmentationNeeded { next_hop_mtu_bytes: mtu },
            5 => Self::SourceRouteFailed,
            6 => Self::NetworkUnknown,
            7 => Self::HostUnknown,
            8 => Self::SourceIsolated,
            9 => Self::NetworkProhibited,
            10 => Self::HostProhibited,
            11 => Self::NetworkTypeOfService,
            12 => Self::HostTypeOfService,
            13 => Self::CommunicationProhibited,
            14 => Self::PrecedenceViolation,
            15 => Self::PrecedenceCutoff,
            16.. => return Err(Error::Unsupported),
        })
    }

    /// The code that says so on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Network => 0,
            Self::Host => 1,
            Self::Protocol => 2,
            Self::Port => 3,
            Self::FragmentationNeeded { .. } => 4,
            Self::SourceRouteFailed => 5,
            Self::NetworkUnknown => 6,
            Self::HostUnknown => 7,
            Self::SourceIsolated => 8,
            Self::NetworkProhibited => 9,
            Self::HostProhibited => 10,
            Self::NetworkTypeOfService => 11,
            Self::HostTypeOfService => 12,
            Self::CommunicationProhibited => 13,
            Self::PrecedenceViolation => 14,
            Self::PrecedenceCutoff => 15,
        }
    }

    const fn word(self) -> u32 {
        match self {
            Self::FragmentationNeeded { next_hop_mtu_bytes } => next_hop_mtu_bytes as u32,
            Self::Network
            | Self::Host
            | Self::Protocol
            | Self::Port
            | Self::SourceRouteFailed
            | Self::NetworkUnknown
            | Self::HostUnknown
            | Self::SourceIsolated
            | Self::NetworkProhibited
            | Self::HostProhibited
            | Self::NetworkTypeOfService
            | Self::HostTypeOfService
            | Self::CommunicationProhibited
            | Self::PrecedenceViolation
            | Self::PrecedenceCutoff => 0,
        }
    }
}

/// Whose patience ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeExceeded {
    /// The time to live ran out on the way.
    InTransit,
    /// Fragments did not all arrive in time.
    Reassembly,
}

/// An ICMP message for IPv4, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repr<'a> {
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
    /// Destination unreachable.
    DestinationUnreachable {
        /// Why.
        reason: Unreachable,
        /// The packet that did not arrive: its IP header and at least 8 bytes, usually not all of it.
        quoted: &'a [u8],
    },
    /// Time exceeded.
    TimeExceeded {
        /// Where.
        reason: TimeExceeded,
        /// The packet that did not arrive, as above.
        quoted: &'a [u8],
    },
}

impl<'a> Repr<'a> {
    /// Reads a message. The checksum is not looked at (see [`Packet::verify_checksum_v4`]).
    ///
    /// # Errors
    /// `Unsupported` for any other type, or a code that its type does not know.
    pub fn parse<T: AsRef<[u8]> + ?Sized>(packet: &Packet<&'a T>) -> Result<Self> {
        let payload = &packet.buffer.as_ref()[HEADER_LEN..];
        let (identifier, sequence) = packet.echo();
        match (packet.message_type(), packet.code()) {
            (TYPE_ECHO_REQUEST, 0) => Ok(Self::EchoRequest { identifier, sequence, data: payload }),
            (TYPE_ECHO_REPLY, 0) => Ok(Self::EchoReply { identifier, sequence, data: payload }),
            (TYPE_DESTINATION_UNREACHABLE, code) => {
                let reason = Unreachable::parse(code, packet.word() as u16)?;
                Ok(Self::DestinationUnreachable { reason, quoted: payload })
            }
            (TYPE_TIME_EXCEEDED, 0) => Ok(Self::TimeExceeded { reason: TimeExceeded::InTransit, quoted: payload }),
            (TYPE_TIME_EXCEEDED, 1) => Ok(Self::TimeExceeded { reason: TimeExceeded::Reassembly, quoted: payload }),
            (_other_type, _other_code) => Err(Error::Unsupported),
        }
    }

    /// How many bytes [`Repr::emit`] writes: the whole message.
    #[inline]
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        match self {
            Self::EchoRequest { data, .. } | Self::EchoReply { data, .. } => HEADER_LEN + data.len(),
            Self::DestinationUnreachable { quoted, .. } | Self::TimeExceeded { quoted, .. } => {
                HEADER_LEN + quoted.len()
            }
        }
    }

    /// Writes the whole message, checksum included. Panics unless the view holds exactly [`Repr::buffer_len`] bytes.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        match *self {
            Self::EchoRequest { identifier, sequence, data } => {
                packet.write(TYPE_ECHO_REQUEST, 0, echo_word(identifier, sequence), data);
            }
            Self::EchoReply { identifier, sequence, data } => {
                packet.write(TYPE_ECHO_REPLY, 0, echo_word(identifier, sequence), data);
            }
            Self::DestinationUnreachable { reason, quoted } => {
                packet.write(TYPE_DESTINATION_UNREACHABLE, reason.code(), reason.word(), quoted);
            }
            Self::TimeExceeded { reason, quoted } => {
                let code = match reason {
                    TimeExceeded::InTransit => 0,
                    TimeExceeded::Reassembly => 1,
                };
                packet.write(TYPE_TIME_EXCEEDED, code, 0, quoted);
            }
        }
        packet.fill_checksum_v4();
    }
}
