//! Payloads: one file for each kind that has a shape of its own (RFC 7296 §3.2 to §3.16).

mod delete;
mod notify;
mod sa;
mod simple;
mod ts;

pub use delete::Delete;
pub use notify::{Notify, NotifyKind};
pub use sa::{Proposal, ProtocolId, SaPayload, Transform, TransformKind};
pub use simple::{Auth, AuthMethod, EncryptedBody, IdKind, Identification, KeyExchange};
pub use ts::TrafficSelectors;

use core::fmt;

use crate::error::Malformed;

/// The type of a payload.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PayloadKind {
    /// Security association, 33.
    Sa,
    /// Key exchange, 34.
    KeyExchange,
    /// Identification of the initiator, 35.
    IdInitiator,
    /// Identification of the responder, 36.
    IdResponder,
    /// Certificate, 37.
    Certificate,
    /// Certificate request, 38.
    CertificateRequest,
    /// Authentication, 39.
    Auth,
    /// Nonce, 40.
    Nonce,
    /// Notify, 41.
    Notify,
    /// Delete, 42.
    Delete,
    /// Vendor ID, 43.
    VendorId,
    /// Traffic selectors of the initiator, 44.
    TsInitiator,
    /// Traffic selectors of the responder, 45.
    TsResponder,
    /// Encrypted and authenticated, 46.
    Encrypted,
    /// Configuration, 47.
    Configuration,
    /// Extensible authentication, 48.
    Eap,
    /// Encrypted fragment (RFC 7383), 53.
    EncryptedFragment,
    /// Any other number, those of IKEv1 among them.
    Unknown(u8),
}

impl PayloadKind {
    const KNOWN: [(PayloadKind, u8, &'static str); 17] = [
        (PayloadKind::Sa, 33, "SA"),
        (PayloadKind::KeyExchange, 34, "KE"),
        (PayloadKind::IdInitiator, 35, "IDi"),
        (PayloadKind::IdResponder, 36, "IDr"),
        (PayloadKind::Certificate, 37, "CERT"),
        (PayloadKind::CertificateRequest, 38, "CERTREQ"),
        (PayloadKind::Auth, 39, "AUTH"),
        (PayloadKind::Nonce, 40, "nonce"),
        (PayloadKind::Notify, 41, "N"),
        (PayloadKind::Delete, 42, "D"),
        (PayloadKind::VendorId, 43, "V"),
        (PayloadKind::TsInitiator, 44, "TSi"),
        (PayloadKind::TsResponder, 45, "TSr"),
        (PayloadKind::Encrypted, 46, "SK"),
        (PayloadKind::Configuration, 47, "CP"),
        (PayloadKind::Eap, 48, "EAP"),
        (PayloadKind::EncryptedFragment, 53, "SKF"),
    ];

    /// The number on the wire.
    #[must_use]
    pub fn number(self) -> u8 {
        if let PayloadKind::Unknown(number) = self {
            return number;
        }
        Self::KNOWN.iter().find(|(kind, _, _)| *kind == self).map_or(0, |(_, number, _)| *number)
    }

    /// The kind of this number.
    #[must_use]
    pub fn from_number(number: u8) -> PayloadKind {
        Self::KNOWN
            .iter()
            .find(|(_, known, _)| *known == number)
            .map_or(PayloadKind::Unknown(number), |(kind, _, _)| *kind)
    }

    /// Whether the payload hides others: it ends the chain, and its "next payload" names the first one inside.
    #[must_use]
    pub fn is_encrypted(self) -> bool {
        matches!(self, PayloadKind::Encrypted | PayloadKind::EncryptedFragment)
    }
}

impl fmt::Display for PayloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PayloadKind::Unknown(number) => write!(f, "type {number}"),
            known => {
                f.write_str(Self::KNOWN.iter().find(|(kind, _, _)| kind == known).map_or("?", |(_, _, name)| name))
            }
        }
    }
}

/// A payload as a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Payload<'a> {
    /// SA.
    Sa(SaPayload<'a>),
    /// KE.
    KeyExchange(KeyExchange<'a>),
    /// IDi.
    IdInitiator(Identification<'a>),
    /// IDr.
    IdResponder(Identification<'a>),
    /// AUTH.
    Auth(Auth<'a>),
    /// Ni or Nr.
    Nonce(&'a [u8]),
    /// N.
    Notify(Notify<'a>),
    /// D.
    Delete(Delete<'a>),
    /// TSi.
    TsInitiator(TrafficSelectors),
    /// TSr.
    TsResponder(TrafficSelectors),
    /// CERT, CERTREQ, V, CP, EAP, SK, SKF and unknown ones: kept as bytes.
    Opaque {
        /// Which of them.
        kind: PayloadKind,
        /// Its content.
        body: &'a [u8],
    },
}

impl<'a> Payload<'a> {
    /// Reads the content of a payload of this kind.
    ///
    /// # Errors
    /// [`Malformed::Payload`] or [`Malformed::NonceLength`].
    pub fn parse(kind: PayloadKind, body: &'a [u8]) -> Result<Payload<'a>, Malformed> {
        Ok(match kind {
            PayloadKind::Sa => Payload::Sa(SaPayload::parse(body)?),
            PayloadKind::KeyExchange => Payload::KeyExchange(KeyExchange::parse(body)?),
            PayloadKind::IdInitiator => Payload::IdInitiator(Identification::parse(kind, body)?),
            PayloadKind::IdResponder => Payload::IdResponder(Identification::parse(kind, body)?),
            PayloadKind::Auth => Payload::Auth(Auth::parse(body)?),
            PayloadKind::Nonce => Payload::Nonce(simple::parse_nonce(body)?),
            PayloadKind::Notify => Payload::Notify(Notify::parse(body)?),
            PayloadKind::Delete => Payload::Delete(Delete::parse(body)?),
            PayloadKind::TsInitiator => Payload::TsInitiator(TrafficSelectors::parse(kind, body)?),
            PayloadKind::TsResponder => Payload::TsResponder(TrafficSelectors::parse(kind, body)?),
            PayloadKind::Certificate
            | PayloadKind::CertificateRequest
            | PayloadKind::VendorId
            | PayloadKind::Encrypted
            | PayloadKind::Configuration
            | PayloadKind::Eap
            | PayloadKind::EncryptedFragment
            | PayloadKind::Unknown(_) => Payload::Opaque { kind, body },
        })
    }

    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> PayloadKind {
        match self {
            Payload::Sa(_) => PayloadKind::Sa,
            Payload::KeyExchange(_) => PayloadKind::KeyExchange,
            Payload::IdInitiator(_) => PayloadKind::IdInitiator,
            Payload::IdResponder(_) => PayloadKind::IdResponder,
            Payload::Auth(_) => PayloadKind::Auth,
            Payload::Nonce(_) => PayloadKind::Nonce,
            Payload::Notify(_) => PayloadKind::Notify,
            Payload::Delete(_) => PayloadKind::Delete,
            Payload::TsInitiator(_) => PayloadKind::TsInitiator,
            Payload::TsResponder(_) => PayloadKind::TsResponder,
            Payload::Opaque { kind, .. } => *kind,
        }
    }

    /// Appends its content, without the generic header.
    pub fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Payload::Sa(sa) => sa.emit(out),
            Payload::KeyExchange(ke) => ke.emit(out),
            Payload::IdInitiator(id) | Payload::IdResponder(id) => id.emit(out),
            Payload::Auth(auth) => auth.emit(out),
            Payload::Nonce(nonce) => out.extend_from_slice(nonce),
            Payload::Notify(notify) => notify.emit(out),
            Payload::Delete(delete) => delete.emit(out),
            Payload::TsInitiator(ts) | Payload::TsResponder(ts) => ts.emit(out),
            Payload::Opaque { body, .. } => out.extend_from_slice(body),
        }
    }
}

/// One link of a payload chain, its content not yet read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawPayload<'a> {
    /// Its type.
    pub kind: PayloadKind,
    /// The critical bit, which counts only for types we do not know (RFC 7296 §2.5).
    pub critical: bool,
    /// The type of the next payload; of the first one inside, if this one is encrypted.
    pub next: u8,
    /// Its content.
    pub body: &'a [u8],
}

/// Walks a chain of payloads, link by link, in linear time.
#[derive(Clone, Debug)]
pub struct RawPayloads<'a> {
    next: u8,
    rest: &'a [u8],
}

impl<'a> RawPayloads<'a> {
    /// The chain that starts with a payload of type `first`.
    #[must_use]
    pub fn new(first: u8, bytes: &'a [u8]) -> RawPayloads<'a> {
        RawPayloads { next: first, rest: bytes }
    }

    fn step(&mut self) -> Result<RawPayload<'a>, Malformed> {
        let kind = PayloadKind::from_number(self.next);
        let left = self.rest.len();
        let Some(&[next, flags, high, low]) = self.rest.first_chunk::<4>() else {
            return Err(Malformed::PayloadLength { kind, found: 0, left });
        };
        let found = u16::from_be_bytes([high, low]);
        let length = usize::from(found);
        if length < 4 || length > left {
            return Err(Malformed::PayloadLength { kind, found, left });
        }
        let (link, rest) = self.rest.split_at(length);
        self.rest = rest;
        self.next = if kind.is_encrypted() { 0 } else { next };
        Ok(RawPayload { kind, critical: flags & 0x80 != 0, next, body: &link[4..] })
    }
}

impl<'a> Iterator for RawPayloads<'a> {
    type Item = Result<RawPayload<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == 0 {
            let left = self.rest.len();
            self.rest = &[];
            let trailing = Malformed::PayloadLength { kind: PayloadKind::Unknown(0), found: 0, left };
            return (left != 0).then_some(Err(trailing));
        }
        let step = self.step();
        if step.is_err() {
            *self = RawPayloads { next: 0, rest: &[] };
        }
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_kinds_agree() {
        for number in 0..=255 {
            assert_eq!(PayloadKind::from_number(number).number(), number);
        }
    }

    #[test]
    fn hostile_02_a_length_below_four_or_past_the_end_ends_the_walk() {
        for (bytes, found) in
            [(&[0, 0, 0, 3][..], 3), (&[0, 0, 0, 5], 5), (&[0, 0, 0], 0), (&[0, 0, 0xff, 0xff], 0xffff)]
        {
            let mut walk = RawPayloads::new(40, bytes);
            let fault = Malformed::PayloadLength { kind: PayloadKind::Nonce, found, left: bytes.len() };
            assert_eq!(walk.next(), Some(Err(fault)));
            assert_eq!(walk.next(), None);
        }
    }

    #[test]
    fn bytes_after_the_last_payload_are_a_fault() {
        let mut walk = RawPayloads::new(43, &[0, 0, 0, 4, 9]);
        assert!(walk.next().is_some_and(|link| link.is_ok()));
        assert!(walk.next().is_some_and(|link| link.is_err()));
        assert_eq!(walk.next(), None);
    }

    #[test]
    fn an_encrypted_payload_ends_the_chain_and_names_what_is_inside() {
        let mut walk = RawPayloads::new(46, &[35, 0, 0, 6, 1, 2]);
        let link = walk.next().unwrap().unwrap();
        assert_eq!((link.kind, link.next, link.body), (PayloadKind::Encrypted, 35, &[1, 2][..]));
        assert_eq!(walk.next(), None);
    }
}
