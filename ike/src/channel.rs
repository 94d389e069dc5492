//! The protected channel of one IKE SA: SK payloads sealed and opened (RFC 7296 §3.14, RFC 5282).
//!
//! [`Opened`] is the proof that a message was authenticated: only [`Channel::open`] makes one, and whatever acts on the
//! content of a protected message asks for it.

use crate::crypto::aead::{AeadKey, Exhausted, ICV_LEN, IV_LEN, Sealer};
use crate::crypto::keys::IkeKeys;
use crate::error::Malformed;
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

/// An authenticated message's content.
#[derive(Debug)]
pub(crate) struct Opened {
    first: u8,
    plain: Vec<u8>,
}

impl Opened {
    /// The payloads inside.
    pub(crate) fn body(&self) -> Result<Body<'_>, Malformed> {
        let Some((&pad_len, rest)) = self.plain.split_last() else {
            return Err(Malformed::Encrypted("no pad length"));
        };
        match rest.len().checked_sub(usize::from(pad_len)) {
            Some(content_len) => Body::parse(self.first, &rest[..content_len]),
            None => Err(Malformed::Encrypted("padding longer than the content")),
        }
    }
}

/// Why a message on a protected channel is not believed. None of these is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// The cleartext around the encrypted payload is malformed.
    Malformed(Malformed),
    /// There is no encrypted payload at the end.
    NotEncrypted,
    /// The integrity check failed.
    NotAuthentic,
}

/// Keys and IVs of both directions.
pub(crate) struct Channel {
    sealer: Sealer,
    opener: AeadKey,
}

impl Channel {
    /// The channel of an IKE SA as its `role` sees it.
    pub(crate) fn new(role: Role, suite: IkeSuite, keys: &IkeKeys, sender_id: u16) -> Channel {
        let (ours, theirs) = match role {
            Role::Initiator => (&keys.ei, &keys.er),
            Role::Responder => (&keys.er, &keys.ei),
        };
        Channel {
            sealer: Sealer::new(AeadKey::new(suite.cipher, ours.clone()), sender_id),
            opener: AeadKey::new(suite.cipher, theirs.clone()),
        }
    }

    /// A whole message whose payloads are hidden in one SK payload.
    pub(crate) fn seal(&mut self, header: Header, chain: &PayloadChain) -> Result<Vec<u8>, Exhausted> {
        const SK_HEADER_LEN: usize = 4;
        // AES-GCM asks for no padding, so only the octet that says so is added (RFC 5282 §3).
        let mut plain = Vec::with_capacity(chain.bytes().len() + 1 + ICV_LEN);
        plain.extend_from_slice(chain.bytes());
        plain.push(0);
        let payload_len = SK_HEADER_LEN + IV_LEN + plain.len() + ICV_LEN;
        let mut message = Vec::with_capacity(HEADER_LEN + payload_len);
        let header = Header { next_payload: PayloadKind::Encrypted.number(), ..header };
        header.emit(u32::try_from(HEADER_LEN + payload_len).unwrap_or(u32::MAX), &mut message);
        message.extend_from_slice(&[chain.first(), 0]);
        message.extend_from_slice(&u16::try_from(payload_len).unwrap_or(u16::MAX).to_be_bytes());
        let sealed = self.sealer.seal(&message, plain)?;
        message.extend_from_slice(&sealed);
        Ok(message)
    }

    /// Verifies a message, all of whose octets count: those before the ciphertext as associated data.
    pub(crate) fn open(&self, header: &Header, datagram: &[u8]) -> Result<Opened, OpenError> {
        let encrypted = find_encrypted(header, datagram).map_err(OpenError::Malformed)?;
        let Some(EncryptedBody { first, fragment: None, sealed }) = encrypted else {
            return Err(OpenError::NotEncrypted);
        };
        let aad = &datagram[..datagram.len() - sealed.len()];
        match self.opener.open(aad, sealed) {
            Ok(plain) => Ok(Opened { first, plain }),
            Err(_) => Err(OpenError::NotAuthentic),
        }
    }
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
