//! What can be wrong with a message, and what is said about it to the peer.
//!
//! [`Malformed`] names faults of the bytes; [`Refusal`] names why a well-formed request is not granted. Each says what
//! was found and what would have been right. Whether a fault is answered or dropped depends on what was proven about
//! the sender, so that is decided where the message arrives, not here.

use ipsec::Spi;

use crate::message::payload::{PayloadKind, ProtocolId};

/// What is wrong with the bytes of a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Too short for an IKE header.
    #[error("datagram of {found} bytes; an IKE header needs 28")]
    Truncated {
        /// Bytes in the datagram.
        found: usize,
    },
    /// Another major version.
    #[error("IKE version {major}; expected 2")]
    Version {
        /// The major version found.
        major: u8,
    },
    /// The header's length is not the datagram's.
    #[error("the header says {header} bytes, the datagram has {datagram}")]
    Length {
        /// What the header says.
        header: u32,
        /// What arrived.
        datagram: usize,
    },
    /// A payload's length is below four or past the end.
    #[error("{kind} payload says {found} bytes; expected 4 to {left}")]
    PayloadLength {
        /// The payload.
        kind: PayloadKind,
        /// What its header says.
        found: u16,
        /// What is left of the message.
        left: usize,
    },
    /// A payload's content breaks off or contradicts itself.
    #[error("{kind} payload: {fault}")]
    Payload {
        /// The payload.
        kind: PayloadKind,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// More payloads than any honest message has.
    #[error("more than {allowed} payloads in one message")]
    TooManyPayloads {
        /// How many are read.
        allowed: usize,
    },
    /// A payload that may stand once stands twice.
    #[error("two {0} payloads; expected one")]
    Duplicate(PayloadKind),
    /// A payload that must stand is not there.
    #[error("no {0} payload; expected one")]
    Missing(PayloadKind),
    /// A payload type we do not know, marked critical.
    #[error("unknown payload type {0} marked critical")]
    UnknownCritical(u8),
    /// A nonce outside RFC 7296 §2.10's bounds.
    #[error("nonce of {found} bytes; expected 16 to 256")]
    NonceLength {
        /// Its length.
        found: usize,
    },
    /// The peer sent our own nonce back.
    #[error("the peer's nonce equals ours")]
    NonceReflected,
    /// Bytes of an encrypted payload's padding or layout contradict its length.
    #[error("encrypted payload: {0}")]
    Encrypted(&'static str),
    /// Public key exchange data of the wrong length, or a value that would give away the secret.
    #[error("key exchange data for group {group}: {fault}")]
    KeyExchange {
        /// The group.
        group: u16,
        /// What is wrong with it.
        fault: &'static str,
    },
}

/// Why a request that could be read is not granted. Each has its notify message (RFC 7296 §3.10.1).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// INVALID_SYNTAX, or UNSUPPORTED_CRITICAL_PAYLOAD where that is the fault.
    #[error("malformed: {0}")]
    Malformed(#[from] Malformed),
    /// NO_PROPOSAL_CHOSEN.
    #[error("no proposal matches: {0}")]
    NoProposalChosen(&'static str),
    /// INVALID_KE_PAYLOAD with the group we would take.
    #[error("key exchange for group {found}; expected group {wanted}")]
    InvalidKe {
        /// The group of the peer's KE payload.
        found: u16,
        /// The group that we chose.
        wanted: u16,
    },
    /// AUTHENTICATION_FAILED. The peer is never told which of these it was.
    #[error("authentication failed: {0}")]
    AuthenticationFailed(&'static str),
    /// TS_UNACCEPTABLE.
    #[error("no child of the connection allows the traffic selectors {0}")]
    TsUnacceptable(String),
    /// NO_ADDITIONAL_SAS.
    #[error("no more than {allowed} CHILD_SAs")]
    NoAdditionalSas {
        /// How many one IKE SA may have.
        allowed: usize,
    },
    /// TS_MAX_QUEUE, for peers that speak RFC 9611.
    #[error("no more than {allowed} CHILD_SAs, also not for one more resource")]
    TsMaxQueue {
        /// How many one IKE SA may have.
        allowed: usize,
    },
    /// TEMPORARY_FAILURE.
    #[error("cannot be done now: {0}")]
    TemporaryFailure(&'static str),
    /// CHILD_SA_NOT_FOUND with the SPI that the peer named.
    #[error("no CHILD_SA that sends to SPI {spi}")]
    ChildSaNotFound {
        /// AH or ESP, as the peer said.
        protocol: ProtocolId,
        /// The SPI, as the peer said.
        spi: u32,
    },
    /// An exchange that has no place in an established IKE SA: INVALID_SYNTAX.
    #[error("{0} has no place here")]
    UnexpectedExchange(crate::message::ExchangeType),
}

/// Why a command or a piece of configuration cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No CHILD_SA receives on this SPI.
    #[error("no CHILD_SA receives on SPI {0}")]
    UnknownChild(Spi),
    /// No connection of this name.
    #[error("no connection is named {0:?}")]
    UnknownConnection(String),
    /// The connection cannot be initiated as it is configured.
    #[error("connection {connection:?} cannot be initiated: {reason}")]
    CannotInitiate {
        /// Its name.
        connection: String,
        /// What is missing.
        reason: &'static str,
    },
    /// A sibling of one of the peer's CHILD_SAs has been asked for and has not come yet, nor been refused.
    #[error("the peer is still to answer for a sibling")]
    SiblingUnderWay,
    /// The peer has refused siblings for good.
    #[error("the peer has refused siblings for good")]
    SiblingsRefused,
    /// The IKE SA has no room for another CHILD_SA.
    #[error("no room for another CHILD_SA on this IKE SA; at most {allowed} are in use at once")]
    TooManyChildren {
        /// The limit.
        allowed: usize,
    },
    /// The tables are full.
    #[error("no room for another IKE SA; at most {allowed} are kept")]
    NoRoom {
        /// The limit.
        allowed: usize,
    },
    /// IKE is silent for this address of ours.
    #[error("{0} is not served: another appliance owns it")]
    NotServed(core::net::IpAddr),
    /// The endpoint is shutting down.
    #[error("the endpoint is shutting down")]
    ShuttingDown,
}
