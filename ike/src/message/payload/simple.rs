//! Payloads of a fixed head and a rest: KE, IDi, IDr, AUTH, nonces, SK and SKF.

use core::fmt;

use super::PayloadKind;
use crate::error::Malformed;

/// Nonces are from 16 to 256 octets long (RFC 7296 §3.9).
pub(super) fn parse_nonce(body: &[u8]) -> Result<&[u8], Malformed> {
    if (16..=256).contains(&body.len()) { Ok(body) } else { Err(Malformed::NonceLength { found: body.len() }) }
}

/// Key exchange (RFC 7296 §3.4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KeyExchange<'a> {
    /// The key exchange method.
    pub group: u16,
    /// The public value.
    pub data: &'a [u8],
}

impl<'a> KeyExchange<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<KeyExchange<'a>, Malformed> {
        match body {
            [high, low, _, _, data @ ..] => Ok(KeyExchange { group: u16::from_be_bytes([*high, *low]), data }),
            _ => Err(Malformed::Payload { kind: PayloadKind::KeyExchange, fault: "shorter than its group number" }),
        }
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.group.to_be_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(self.data);
    }
}

/// What an identity is written in (RFC 7296 §3.5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IdKind(pub u8);

impl IdKind {
    /// Four octets.
    pub const IPV4: IdKind = IdKind(1);
    /// A host name.
    pub const FQDN: IdKind = IdKind(2);
    /// A mail address.
    pub const RFC822: IdKind = IdKind(3);
    /// Sixteen octets.
    pub const IPV6: IdKind = IdKind(5);
    /// An X.500 name in DER.
    pub const DER_DN: IdKind = IdKind(9);
    /// Any octets.
    pub const KEY_ID: IdKind = IdKind(11);
}

/// Identification (RFC 7296 §3.5). The body is kept whole, since authentication covers its reserved octets too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identification<'a> {
    body: &'a [u8],
}

impl<'a> Identification<'a> {
    pub(super) fn parse(kind: PayloadKind, body: &'a [u8]) -> Result<Identification<'a>, Malformed> {
        if body.len() < 4 {
            return Err(Malformed::Payload { kind, fault: "shorter than its type" });
        }
        Ok(Identification { body })
    }

    /// An identification payload whose body was laid out by [`Identification::body_of`].
    #[must_use]
    pub fn from_body(body: &'a [u8]) -> Option<Identification<'a>> {
        (body.len() >= 4).then_some(Identification { body })
    }

    /// The body of an identification payload.
    #[must_use]
    pub fn body_of(kind: IdKind, data: &[u8]) -> Vec<u8> {
        let mut body = vec![kind.0, 0, 0, 0];
        body.extend_from_slice(data);
        body
    }

    /// What the identity is written in.
    #[must_use]
    pub fn kind(&self) -> IdKind {
        IdKind(self.body[0])
    }

    /// The identity itself.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        &self.body[4..]
    }

    /// RestOfInitIDPayload or RestOfRespIDPayload of RFC 7296 §2.15.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.body);
    }
}

/// How a peer proves its identity (RFC 7296 §3.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AuthMethod(pub u8);

impl AuthMethod {
    /// Shared key message integrity code.
    pub const SHARED_KEY: AuthMethod = AuthMethod(2);
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            AuthMethod::SHARED_KEY => f.write_str("shared key"),
            AuthMethod(number) => write!(f, "method {number}"),
        }
    }
}

/// Authentication (RFC 7296 §3.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Auth<'a> {
    /// How.
    pub method: AuthMethod,
    /// The proof.
    pub data: &'a [u8],
}

impl<'a> Auth<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<Auth<'a>, Malformed> {
        match body {
            [method, _, _, _, data @ ..] => Ok(Auth { method: AuthMethod(*method), data }),
            _ => Err(Malformed::Payload { kind: PayloadKind::Auth, fault: "shorter than its method" }),
        }
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.method.0, 0, 0, 0]);
        out.extend_from_slice(self.data);
    }
}

/// SK or SKF as it arrived: what is inside, and the octets that hide it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EncryptedBody<'a> {
    /// Type of the first payload inside.
    pub first: u8,
    /// Number and total, if this is a fragment (RFC 7383 §2.5).
    pub fragment: Option<(u16, u16)>,
    /// IV, ciphertext and integrity check value.
    pub sealed: &'a [u8],
}

impl<'a> EncryptedBody<'a> {
    pub(crate) fn parse(kind: PayloadKind, first: u8, body: &'a [u8]) -> Result<EncryptedBody<'a>, Malformed> {
        if kind != PayloadKind::EncryptedFragment {
            return Ok(EncryptedBody { first, fragment: None, sealed: body });
        }
        let [a, b, c, d, sealed @ ..] = body else {
            return Err(Malformed::Payload { kind, fault: "shorter than its fragment numbers" });
        };
        let (number, total) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
        if number == 0 || number > total {
            return Err(Malformed::Payload { kind, fault: "fragment number is zero or past the total" });
        }
        Ok(EncryptedBody { first, fragment: Some((number, total)), sealed })
    }
}
