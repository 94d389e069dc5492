//! Reading: a chain of payloads sorted into what an exchange asks for.

use super::payload::{
    Auth, Delete, EncryptedBody, Identification, KeyExchange, Notify, NotifyKind, Payload, PayloadKind, RawPayloads,
    SaPayload, TrafficSelectors,
};
use crate::error::Malformed;

/// No honest message holds more payloads.
const PAYLOADS_MAX: usize = 128;

/// The payloads of one message, in whatever order they came (RFC 7296 §2.5).
///
/// What may stand only once is refused when it stands twice; unknown payloads are skipped unless marked critical; the
/// critical bit of known ones is ignored.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Body<'a> {
    /// SA.
    pub sa: Option<SaPayload<'a>>,
    /// KE.
    pub key_exchange: Option<KeyExchange<'a>>,
    /// Ni or Nr.
    pub nonce: Option<&'a [u8]>,
    /// IDi.
    pub id_initiator: Option<Identification<'a>>,
    /// IDr.
    pub id_responder: Option<Identification<'a>>,
    /// AUTH.
    pub auth: Option<Auth<'a>>,
    /// TSi.
    pub ts_initiator: Option<TrafficSelectors>,
    /// TSr.
    pub ts_responder: Option<TrafficSelectors>,
    /// All of N.
    pub notifies: Vec<Notify<'a>>,
    /// All of D.
    pub deletes: Vec<Delete<'a>>,
    /// EAP was there.
    pub eap: bool,
    /// SK or SKF.
    pub encrypted: Option<EncryptedBody<'a>>,
}

impl<'a> Body<'a> {
    /// Reads the chain that starts with a payload of type `first` and must fill `bytes` exactly.
    ///
    /// # Errors
    /// [`Malformed`], for the first fault found.
    pub fn parse(first: u8, bytes: &'a [u8]) -> Result<Body<'a>, Malformed> {
        let mut body = Body::default();
        for (count, link) in RawPayloads::new(first, bytes).enumerate() {
            if count == PAYLOADS_MAX {
                return Err(Malformed::TooManyPayloads { allowed: PAYLOADS_MAX });
            }
            let link = link?;
            match link.kind {
                PayloadKind::Unknown(number) if link.critical => return Err(Malformed::UnknownCritical(number)),
                PayloadKind::Encrypted | PayloadKind::EncryptedFragment => {
                    body.encrypted = Some(EncryptedBody::parse(link.kind, link.next, link.body)?);
                }
                kind => body.take(Payload::parse(kind, link.body)?)?,
            }
        }
        Ok(body)
    }

    fn take(&mut self, payload: Payload<'a>) -> Result<(), Malformed> {
        let kind = payload.kind();
        match payload {
            Payload::Sa(sa) => once(&mut self.sa, sa, kind),
            Payload::KeyExchange(ke) => once(&mut self.key_exchange, ke, kind),
            Payload::IdInitiator(id) => once(&mut self.id_initiator, id, kind),
            Payload::IdResponder(id) => once(&mut self.id_responder, id, kind),
            Payload::Auth(auth) => once(&mut self.auth, auth, kind),
            Payload::Nonce(nonce) => once(&mut self.nonce, nonce, kind),
            Payload::TsInitiator(ts) => once(&mut self.ts_initiator, ts, kind),
            Payload::TsResponder(ts) => once(&mut self.ts_responder, ts, kind),
            Payload::Notify(notify) => {
                self.notifies.push(notify);
                Ok(())
            }
            Payload::Delete(delete) => {
                self.deletes.push(delete);
                Ok(())
            }
            Payload::Opaque { kind, .. } => {
                self.eap |= kind == PayloadKind::Eap;
                Ok(())
            }
        }
    }

    /// The first notify payload of this kind.
    #[must_use]
    pub fn notify(&self, kind: NotifyKind) -> Option<&Notify<'a>> {
        self.notifies.iter().find(|notify| notify.kind == kind)
    }

    /// Whether a notify payload of this kind is there.
    #[must_use]
    pub fn has(&self, kind: NotifyKind) -> bool {
        self.notify(kind).is_some()
    }

    /// The first notify payload that reports a failure.
    #[must_use]
    pub fn error(&self) -> Option<&Notify<'a>> {
        self.notifies.iter().find(|notify| notify.kind.is_error())
    }

    /// The SA payload, which must be there.
    ///
    /// # Errors
    /// [`Malformed::Missing`], as for all of these.
    pub fn require_sa(&self) -> Result<&SaPayload<'a>, Malformed> {
        self.sa.as_ref().ok_or(Malformed::Missing(PayloadKind::Sa))
    }

    /// The KE payload, which must be there.
    ///
    /// # Errors
    /// [`Malformed::Missing`].
    pub fn require_key_exchange(&self) -> Result<KeyExchange<'a>, Malformed> {
        self.key_exchange.ok_or(Malformed::Missing(PayloadKind::KeyExchange))
    }

    /// The nonce, which must be there.
    ///
    /// # Errors
    /// [`Malformed::Missing`].
    pub fn require_nonce(&self) -> Result<&'a [u8], Malformed> {
        self.nonce.ok_or(Malformed::Missing(PayloadKind::Nonce))
    }

    /// The AUTH payload, which must be there.
    ///
    /// # Errors
    /// [`Malformed::Missing`].
    pub fn require_auth(&self) -> Result<Auth<'a>, Malformed> {
        self.auth.ok_or(Malformed::Missing(PayloadKind::Auth))
    }

    /// Both traffic selector payloads, which must be there: the initiator's, then the responder's.
    ///
    /// # Errors
    /// [`Malformed::Missing`].
    pub fn require_selectors(&self) -> Result<(&TrafficSelectors, &TrafficSelectors), Malformed> {
        let initiator = self.ts_initiator.as_ref().ok_or(Malformed::Missing(PayloadKind::TsInitiator))?;
        let responder = self.ts_responder.as_ref().ok_or(Malformed::Missing(PayloadKind::TsResponder))?;
        Ok((initiator, responder))
    }
}

fn once<T>(slot: &mut Option<T>, value: T, kind: PayloadKind) -> Result<(), Malformed> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed::Duplicate(kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::PayloadChain;

    fn parse(chain: &PayloadChain) -> Result<Body<'_>, Malformed> {
        Body::parse(chain.first(), chain.bytes())
    }

    #[test]
    fn hostile_03_unknown_payloads_are_skipped_unless_critical() {
        for number in (1..=32).chain([49, 50, 51, 52, 54, 127, 200, 255]) {
            let unknown = Payload::Opaque { kind: PayloadKind::Unknown(number), body: &[1, 2, 3] };
            let chain = PayloadChain::new().with(&unknown).with(&Payload::Nonce(&[7; 16]));
            assert_eq!(parse(&chain).unwrap().nonce, Some(&[7; 16][..]));
            let mut critical = chain.bytes().to_vec();
            critical[1] = 0x80;
            assert_eq!(Body::parse(number, &critical), Err(Malformed::UnknownCritical(number)));
        }
    }

    #[test]
    fn hostile_05_reserved_bits_and_the_critical_bit_of_known_payloads_are_ignored() {
        let mut bytes = PayloadChain::new().with(&Payload::Nonce(&[7; 16])).bytes().to_vec();
        bytes[1] = 0xff;
        assert_eq!(Body::parse(40, &bytes).unwrap().nonce, Some(&[7; 16][..]));
    }

    #[test]
    fn hostile_06_what_may_stand_once_may_not_stand_twice() {
        let id = Identification::from_body(&[2, 0, 0, 0, b'a']).unwrap();
        let auth = Auth { method: crate::message::payload::AuthMethod::SHARED_KEY, data: &[1] };
        let once = [
            Payload::Nonce(&[7; 16]),
            Payload::KeyExchange(KeyExchange { group: 31, data: &[1; 32] }),
            Payload::IdInitiator(id),
            Payload::IdResponder(id),
            Payload::Auth(auth),
            Payload::TsInitiator(TrafficSelectors::default()),
            Payload::TsResponder(TrafficSelectors::default()),
        ];
        for payload in once {
            let chain = PayloadChain::new().with(&payload).with(&payload);
            assert_eq!(parse(&chain), Err(Malformed::Duplicate(payload.kind())));
        }
    }

    #[test]
    fn hostile_13_nonces_have_16_to_256_octets() {
        for length in [0, 15, 257, 300] {
            let nonce = vec![1; length];
            let chain = PayloadChain::new().with(&Payload::Nonce(&nonce));
            assert_eq!(parse(&chain), Err(Malformed::NonceLength { found: length }));
        }
        for length in [16, 256] {
            let nonce = vec![1; length];
            assert!(parse(&PayloadChain::new().with(&Payload::Nonce(&nonce))).is_ok());
        }
    }

    #[test]
    fn a_message_of_endless_payloads_is_cut_off() {
        let mut chain = PayloadChain::new();
        for _ in 0..=PAYLOADS_MAX {
            chain.push(&Payload::Opaque { kind: PayloadKind::VendorId, body: &[] });
        }
        assert_eq!(parse(&chain), Err(Malformed::TooManyPayloads { allowed: PAYLOADS_MAX }));
    }
}
