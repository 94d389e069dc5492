//! The protected channel of one IKE SA: SK and SKF payloads sealed and opened (RFC 7296 §3.14, RFC 5282, RFC 7383).
//!
//! [`Opened`] is the proof that a message was authenticated: only [`Channel::open`] makes one, and whatever acts on the
//! content of a protected message asks for it.

use ipsec::Spi;
use ipsec::time::Instant;

use crate::config::Limits;
use crate::crypto::aead::{AeadKey, Exhausted, ICV_LEN, IV_LEN, Sealer};
use crate::crypto::keys::IkeKeys;
use crate::error::Malformed;
use crate::fragment::{Assembly, Fragment, MessageName};
use crate::kept::{RequestDigest, digest_of};
use crate::message::payload::{EncryptedBody, PayloadKind, RawPayloads};
use crate::message::{Body, HEADER_LEN, Header, PayloadChain};
use crate::proposal::IkeSuite;

/// Which side of an IKE SA we are: who initiated *it*, by IKE_SA_INIT or by rekeying its predecessor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// We sent the first request.
    Initiator,
    /// The peer did.
    Responder,
}

/// One message as the datagrams that it travels in: one, or several if it had to be fragmented.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Wire {
    pub(crate) parts: Vec<Vec<u8>>,
    /// See [`Datagram::promises`](crate::Datagram::promises). It stays with the message however often that is sent.
    pub(crate) promises: Option<Spi>,
}

impl From<Vec<u8>> for Wire {
    /// A message in one datagram that promises nothing.
    fn from(datagram: Vec<u8>) -> Wire {
        Wire { parts: vec![datagram], promises: None }
    }
}

/// An authenticated message's content.
#[derive(Debug)]
pub(crate) struct Opened {
    first: u8,
    plain: Result<Vec<u8>, Malformed>,
    digest: RequestDigest,
}

impl Opened {
    /// The payloads inside.
    pub(crate) fn body(&self) -> Result<Body<'_>, Malformed> {
        match &self.plain {
            Ok(plain) => Body::parse(self.first, plain),
            Err(fault) => Err(fault.clone()),
        }
    }

    /// By which the same request is known when it comes again.
    pub(crate) fn digest(&self) -> RequestDigest {
        self.digest
    }
}

/// Why a message on a protected channel is not acted upon. None of these is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// The cleartext around the encrypted payload is malformed.
    Malformed(Malformed),
    /// There is no encrypted payload at the end.
    NotEncrypted,
    /// The integrity check failed.
    NotAuthentic,
    /// An authentic fragment that is there already, contradicts the others or is too much.
    UnwantedFragment,
    /// An authentic fragment has been kept; others are missing. Not a fault.
    Incomplete,
}

/// Keys and IVs of both directions.
pub(crate) struct Channel {
    sealer: Sealer,
    opener: AeadKey,
    requests: Assembly,
    responses: Assembly,
    /// Both sides can do with fragments.
    pub(crate) fragmentation: bool,
}

const SK_HEADER_LEN: usize = 4;
const SKF_HEADER_LEN: usize = 8;
/// AES-GCM asks for no padding, so only the octet that says so is added (RFC 5282 §3).
const PADDING_LEN: usize = 1;
const SEALED_OVERHEAD: usize = IV_LEN + PADDING_LEN + ICV_LEN;

impl Channel {
    /// The channel of an IKE SA as its `role` sees it.
    pub(crate) fn new(role: Role, suite: IkeSuite, keys: &IkeKeys, sender_id: u16, fragmentation: bool) -> Channel {
        let (ours, theirs) = match role {
            Role::Initiator => (&keys.ei, &keys.er),
            Role::Responder => (&keys.er, &keys.ei),
        };
        Channel {
            sealer: Sealer::new(AeadKey::new(suite.cipher, ours.clone()), sender_id),
            opener: AeadKey::new(suite.cipher, theirs.clone()),
            requests: Assembly::default(),
            responses: Assembly::default(),
            fragmentation,
        }
    }

    /// A whole message whose payloads are hidden in an SK payload, or in SKF payloads if it would be too long otherwise.
    pub(crate) fn seal(&mut self, header: Header, chain: &PayloadChain, limits: &Limits) -> Result<Wire, Exhausted> {
        let whole_len = HEADER_LEN + SK_HEADER_LEN + SEALED_OVERHEAD + chain.bytes().len();
        if !self.fragmentation || whole_len <= limits.message_bytes {
            let parts = vec![self.seal_part(header, chain.first(), None, chain.bytes())?];
            return Ok(Wire { parts, promises: chain.promises });
        }
        let room = limits.message_bytes.saturating_sub(HEADER_LEN + SKF_HEADER_LEN + SEALED_OVERHEAD).max(1);
        let contents = chain.bytes().chunks(room);
        let total = u16::try_from(contents.len()).map_err(|_| Exhausted)?;
        let mut parts = Vec::with_capacity(contents.len());
        for (number, part) in (1..=total).zip(contents) {
            let first = if number == 1 { chain.first() } else { 0 };
            parts.push(self.seal_part(header, first, Some((number, total)), part)?);
        }
        Ok(Wire { parts, promises: chain.promises })
    }

    fn seal_part(
        &mut self,
        header: Header,
        first: u8,
        fragment: Option<(u16, u16)>,
        content: &[u8],
    ) -> Result<Vec<u8>, Exhausted> {
        let (kind, head_len) = match fragment {
            None => (PayloadKind::Encrypted, SK_HEADER_LEN),
            Some(_) => (PayloadKind::EncryptedFragment, SKF_HEADER_LEN),
        };
        let payload_len = head_len + SEALED_OVERHEAD + content.len();
        let mut message = Vec::with_capacity(HEADER_LEN + payload_len);
        let header = Header { next_payload: kind.number(), ..header };
        header.emit(u32::try_from(HEADER_LEN + payload_len).unwrap_or(u32::MAX), &mut message);
        message.extend_from_slice(&[first, 0]);
        message.extend_from_slice(&u16::try_from(payload_len).map_err(|_| Exhausted)?.to_be_bytes());
        if let Some((number, total)) = fragment {
            message.extend_from_slice(&number.to_be_bytes());
            message.extend_from_slice(&total.to_be_bytes());
        }
        let mut plain = Vec::with_capacity(content.len() + PADDING_LEN + ICV_LEN);
        plain.extend_from_slice(content);
        plain.push(0);
        let sealed = self.sealer.seal(&message, plain)?;
        message.extend_from_slice(&sealed);
        Ok(message)
    }

    /// Verifies a message, all of whose octets count: those before the ciphertext as associated data. A fragment is
    /// verified before it is kept.
    pub(crate) fn open(
        &mut self,
        now: Instant,
        header: &Header,
        datagram: &[u8],
        limits: &Limits,
    ) -> Result<Opened, OpenError> {
        let encrypted = find_encrypted(header, datagram).map_err(OpenError::Malformed)?;
        let EncryptedBody { first, fragment, sealed } = encrypted.ok_or(OpenError::NotEncrypted)?;
        if fragment.is_some() && !self.fragmentation {
            return Err(OpenError::NotEncrypted);
        }
        let aad = &datagram[..datagram.len() - sealed.len()];
        let padded = self.opener.open(aad, sealed).map_err(|_| OpenError::NotAuthentic)?;
        let digest = digest_of(datagram);
        let plain = without_padding(padded);
        let Some((number, total)) = fragment else { return Ok(Opened { first, plain, digest }) };
        let Ok(plain) = plain else { return Ok(Opened { first, plain, digest }) };
        let of = MessageName { message_id: header.message_id, exchange: header.exchange };
        let fragment = Fragment { of, number, total, first, plain, digest };
        let assembly = if header.is_response { &mut self.responses } else { &mut self.requests };
        match assembly.add(now, fragment, limits.assembly_bytes) {
            Ok(Some(whole)) => Ok(Opened { first: whole.first, plain: Ok(whole.plain), digest: whole.digest }),
            Ok(None) => Err(OpenError::Incomplete),
            Err(_) => Err(OpenError::UnwantedFragment),
        }
    }

    /// Verifies a message without keeping anything of it.
    pub(crate) fn peek(&self, header: &Header, datagram: &[u8]) -> Option<Opened> {
        let EncryptedBody { first, fragment: None, sealed } = find_encrypted(header, datagram).ok()?? else {
            return None;
        };
        let padded = self.opener.open(&datagram[..datagram.len() - sealed.len()], sealed).ok()?;
        Some(Opened { first, plain: without_padding(padded), digest: digest_of(datagram) })
    }

    /// When kept fragments must be forgotten.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.requests.next_timeout().into_iter().chain(self.responses.next_timeout()).min()
    }

    pub(crate) fn on_time(&mut self, now: Instant) {
        self.requests.on_time(now);
        self.responses.on_time(now);
    }

    /// Octets of fragments that wait for the rest of their message.
    pub(crate) fn waiting_octets(&self) -> usize {
        self.requests.octets() + self.responses.octets()
    }
}

fn without_padding(mut padded: Vec<u8>) -> Result<Vec<u8>, Malformed> {
    let pad_len = padded.pop().ok_or(Malformed::Encrypted("no pad length"))?;
    let content_len = padded.len().checked_sub(usize::from(pad_len));
    padded.truncate(content_len.ok_or(Malformed::Encrypted("padding longer than the content"))?);
    Ok(padded)
}

/// The encrypted payload at the end of a message; whatever stands before it in the clear is walked, not read.
fn find_encrypted<'a>(header: &Header, datagram: &'a [u8]) -> Result<Option<EncryptedBody<'a>>, Malformed> {
    let payloads = datagram.get(HEADER_LEN..).unwrap_or_default();
    let mut found = None;
    for link in RawPayloads::new(header.next_payload, payloads) {
        let link = link?;
        if link.kind.is_encrypted() {
            found = Some(EncryptedBody::parse(link.kind, link.next, link.body)?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
