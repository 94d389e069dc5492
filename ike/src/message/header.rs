//! The IKE header (RFC 7296 §3.1).

use core::fmt;

use crate::error::Malformed;

/// Octets of an IKE header.
pub const HEADER_LEN: usize = 28;

/// The security parameter index of one end of an IKE SA. Zero means "not chosen yet".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeSpi(u64);

impl IkeSpi {
    /// The responder's SPI in the first message of an IKE SA.
    pub const NONE: IkeSpi = IkeSpi(0);

    /// The SPI with this value.
    #[must_use]
    pub const fn new(value: u64) -> IkeSpi {
        IkeSpi(value)
    }

    /// Whether no SPI has been chosen.
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The eight octets as they stand on the wire.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 8] {
        self.0.to_be_bytes()
    }

    /// Reads eight octets as they stand on the wire.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 8]) -> IkeSpi {
        IkeSpi(u64::from_be_bytes(bytes))
    }
}

impl fmt::Display for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for IkeSpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The two SPIs that name an IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spis {
    /// Chosen by the original initiator.
    pub initiator: IkeSpi,
    /// Chosen by the original responder.
    pub responder: IkeSpi,
}

/// What kind of exchange a message belongs to (RFC 7296 §3.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExchangeType {
    /// IKE_SA_INIT, 34.
    IkeSaInit,
    /// IKE_AUTH, 35.
    IkeAuth,
    /// CREATE_CHILD_SA, 36.
    CreateChildSa,
    /// INFORMATIONAL, 37.
    Informational,
    /// Any other number.
    Unknown(u8),
}

impl ExchangeType {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            ExchangeType::IkeSaInit => 34,
            ExchangeType::IkeAuth => 35,
            ExchangeType::CreateChildSa => 36,
            ExchangeType::Informational => 37,
            ExchangeType::Unknown(number) => number,
        }
    }

    /// The exchange with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> ExchangeType {
        match number {
            34 => ExchangeType::IkeSaInit,
            35 => ExchangeType::IkeAuth,
            36 => ExchangeType::CreateChildSa,
            37 => ExchangeType::Informational,
            other => ExchangeType::Unknown(other),
        }
    }
}

impl fmt::Display for ExchangeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ExchangeType::IkeSaInit => f.write_str("IKE_SA_INIT"),
            ExchangeType::IkeAuth => f.write_str("IKE_AUTH"),
            ExchangeType::CreateChildSa => f.write_str("CREATE_CHILD_SA"),
            ExchangeType::Informational => f.write_str("INFORMATIONAL"),
            ExchangeType::Unknown(number) => write!(f, "exchange {number}"),
        }
    }
}

const FLAG_INITIATOR: u8 = 0x08;
const FLAG_RESPONSE: u8 = 0x20;

/// A parsed IKE header of version 2. Reserved flags and the minor version are ignored, as RFC 7296 §2.5 asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The SPIs of the IKE SA.
    pub spis: Spis,
    /// Type number of the first payload.
    pub next_payload: u8,
    /// The exchange.
    pub exchange: ExchangeType,
    /// The sender is the original initiator of this IKE SA.
    pub from_initiator: bool,
    /// This message answers a request.
    pub is_response: bool,
    /// Joins a request and its response; counts each direction from zero.
    pub message_id: u32,
}

impl Header {
    /// Reads the header of a datagram that must hold exactly one message.
    ///
    /// # Errors
    /// [`Malformed::Truncated`], [`Malformed::Version`] or [`Malformed::Length`], judged in this order, since a later
    /// version may put its length elsewhere.
    pub fn parse(datagram: &[u8]) -> Result<Header, Malformed> {
        let Some(head) = datagram.first_chunk::<HEADER_LEN>() else {
            return Err(Malformed::Truncated { found: datagram.len() });
        };
        let major = head[17] >> 4;
        if major != 2 {
            return Err(Malformed::Version { major });
        }
        let length = u32::from_be_bytes([head[24], head[25], head[26], head[27]]);
        if usize::try_from(length) != Ok(datagram.len()) {
            return Err(Malformed::Length { header: length, datagram: datagram.len() });
        }
        Ok(Header {
            spis: Self::spis_of(head),
            next_payload: head[16],
            exchange: ExchangeType::from_number(head[18]),
            from_initiator: head[19] & FLAG_INITIATOR != 0,
            is_response: head[19] & FLAG_RESPONSE != 0,
            message_id: u32::from_be_bytes([head[20], head[21], head[22], head[23]]),
        })
    }

    /// The SPIs of a header of any version, and its message ID: all that a version error may echo.
    pub(crate) fn spis_of(head: &[u8; HEADER_LEN]) -> Spis {
        let mut initiator = [0; 8];
        let mut responder = [0; 8];
        initiator.copy_from_slice(&head[0..8]);
        responder.copy_from_slice(&head[8..16]);
        Spis { initiator: IkeSpi::from_bytes(initiator), responder: IkeSpi::from_bytes(responder) }
    }

    /// Appends the header of a message that will be `length` octets long in all.
    pub fn emit(&self, length: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.spis.initiator.to_bytes());
        out.extend_from_slice(&self.spis.responder.to_bytes());
        let initiator = if self.from_initiator { FLAG_INITIATOR } else { 0 };
        let response = if self.is_response { FLAG_RESPONSE } else { 0 };
        out.extend_from_slice(&[self.next_payload, 0x20, self.exchange.number(), initiator | response]);
        out.extend_from_slice(&self.message_id.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
    }

    /// The header that answers this one.
    #[must_use]
    pub fn reply(&self, responder: IkeSpi) -> Header {
        Header {
            spis: Spis { initiator: self.spis.initiator, responder },
            next_payload: 0,
            exchange: self.exchange,
            from_initiator: !self.from_initiator,
            is_response: true,
            message_id: self.message_id,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            spis: Spis { initiator: IkeSpi::new(7), responder: IkeSpi::new(9) },
            next_payload: 33,
            exchange: ExchangeType::CreateChildSa,
            from_initiator: true,
            is_response: false,
            message_id: 5,
        }
    }

    fn emitted() -> Vec<u8> {
        let mut bytes = Vec::new();
        header().emit(28, &mut bytes);
        bytes
    }

    #[test]
    fn what_is_emitted_parses_to_the_same() {
        assert_eq!(Header::parse(&emitted()), Ok(header()));
    }

    #[test]
    fn hostile_01_a_length_that_is_not_the_datagrams_is_refused() {
        let mut bytes = emitted();
        bytes.push(0);
        assert_eq!(Header::parse(&bytes), Err(Malformed::Length { header: 28, datagram: 29 }));
        assert_eq!(Header::parse(&bytes[..27]), Err(Malformed::Truncated { found: 27 }));
    }

    #[test]
    fn hostile_04_other_major_versions_are_named() {
        for major in [0, 1, 3, 15] {
            let mut bytes = emitted();
            bytes[17] = major << 4;
            assert_eq!(Header::parse(&bytes), Err(Malformed::Version { major }));
        }
    }

    #[test]
    fn hostile_05_reserved_flags_and_minor_version_are_ignored() {
        let mut bytes = emitted();
        bytes[17] = 0x2f;
        bytes[19] |= 0xd7;
        assert_eq!(Header::parse(&bytes), Ok(header()));
    }

    #[test]
    fn a_reply_turns_the_flags_and_keeps_the_message_id() {
        let reply = header().reply(IkeSpi::new(11));
        assert!(reply.is_response && !reply.from_initiator);
        assert_eq!((reply.message_id, reply.spis.responder), (5, IkeSpi::new(11)));
    }
}
