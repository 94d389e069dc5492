//! Notify payloads (RFC 7296 §3.10).

use core::fmt;

use super::{PayloadKind, ProtocolId};
use crate::error::Malformed;

/// What a notify payload says. Numbers below 16384 are errors.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotifyKind(pub u16);

macro_rules! kinds {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl NotifyKind {
            $(#[doc = $text] pub const $name: NotifyKind = NotifyKind($number);)*

            /// The registered name, if we know it.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    UNSUPPORTED_CRITICAL_PAYLOAD = 1, "A payload type that the sender does not know was marked critical.";
    INVALID_IKE_SPI = 4, "No such IKE SA.";
    INVALID_MAJOR_VERSION = 5, "The version is not spoken here.";
    INVALID_SYNTAX = 7, "Malformed.";
    INVALID_MESSAGE_ID = 9, "Outside the window.";
    INVALID_SPI = 11, "ESP to an SPI that names no SA.";
    NO_PROPOSAL_CHOSEN = 14, "None of the proposals is acceptable.";
    INVALID_KE_PAYLOAD = 17, "Another group is wanted.";
    AUTHENTICATION_FAILED = 24, "The peer is not who it says.";
    SINGLE_PAIR_REQUIRED = 34, "Only one pair of addresses for each SA.";
    NO_ADDITIONAL_SAS = 35, "No more CHILD_SAs on this IKE SA.";
    INTERNAL_ADDRESS_FAILURE = 36, "No address to assign.";
    FAILED_CP_REQUIRED = 37, "A configuration payload is required.";
    TS_UNACCEPTABLE = 38, "No traffic selectors in common.";
    INVALID_SELECTORS = 39, "An ESP packet did not fit its SA.";
    TEMPORARY_FAILURE = 43, "Not now.";
    CHILD_SA_NOT_FOUND = 44, "The CHILD_SA to be rekeyed does not exist.";
    TS_MAX_QUEUE = 48, "No more CHILD_SAs for these selectors (RFC 9611).";
    INITIAL_CONTACT = 16384, "The only IKE SA between these identities.";
    SET_WINDOW_SIZE = 16385, "The sender's request window.";
    ADDITIONAL_TS_POSSIBLE = 16386, "Other selectors would do too.";
    IPCOMP_SUPPORTED = 16387, "Compression is offered.";
    NAT_DETECTION_SOURCE_IP = 16388, "Hash of the sender's address.";
    NAT_DETECTION_DESTINATION_IP = 16389, "Hash of the receiver's address.";
    COOKIE = 16390, "To be returned unchanged.";
    USE_TRANSPORT_MODE = 16391, "Transport mode instead of tunnel mode.";
    HTTP_CERT_LOOKUP_SUPPORTED = 16392, "Certificates may be sent as hash and URL.";
    REKEY_SA = 16393, "The CHILD_SA that this one replaces.";
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394, "No traffic flow confidentiality padding.";
    NON_FIRST_FRAGMENTS_ALSO = 16395, "Later fragments on the same SA.";
    MOBIKE_SUPPORTED = 16396, "RFC 4555.";
    MULTIPLE_AUTH_SUPPORTED = 16404, "RFC 4739.";
    REDIRECT_SUPPORTED = 16406, "RFC 5685.";
    IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420, "RFC 6311.";
    FRAGMENTATION_SUPPORTED = 16430, "RFC 7383.";
    SIGNATURE_HASH_ALGORITHMS = 16431, "RFC 7427.";
    SA_RESOURCE_INFO = 16444, "One of several CHILD_SAs with equal selectors (RFC 9611).";
}

impl NotifyKind {
    /// Whether this reports a failure.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0 < 16384
    }
}

impl fmt::Display for NotifyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "notify {}", self.0),
        }
    }
}

impl fmt::Debug for NotifyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A notify payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notify<'a> {
    /// Whose SPI follows; 0 if there is none.
    pub protocol: ProtocolId,
    /// The SPI that it is about; empty if it is about the IKE SA or about none.
    pub spi: &'a [u8],
    /// What it says.
    pub kind: NotifyKind,
    /// Whatever belongs to that.
    pub data: &'a [u8],
}

impl<'a> Notify<'a> {
    /// A notification about the IKE SA or about no SA.
    #[must_use]
    pub fn new(kind: NotifyKind, data: &'a [u8]) -> Notify<'a> {
        Notify { protocol: ProtocolId::NONE, spi: &[], kind, data }
    }

    pub(super) fn parse(body: &'a [u8]) -> Result<Notify<'a>, Malformed> {
        let fault = |fault| Malformed::Payload { kind: PayloadKind::Notify, fault };
        let [protocol, spi_len, high, low, rest @ ..] = body else {
            return Err(fault("shorter than its head"));
        };
        let Some((spi, data)) = rest.split_at_checked(usize::from(*spi_len)) else {
            return Err(fault("SPI size past the end"));
        };
        Ok(Notify { protocol: ProtocolId(*protocol), spi, kind: NotifyKind(u16::from_be_bytes([*high, *low])), data })
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        let spi_len = u8::try_from(self.spi.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&[self.protocol.0, spi_len]);
        out.extend_from_slice(&self.kind.0.to_be_bytes());
        out.extend_from_slice(&self.spi[..usize::from(spi_len)]);
        out.extend_from_slice(self.data);
    }
}
