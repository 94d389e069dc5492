//! Algorithms: what is configured, what is offered, what is chosen (RFC 7296 §2.7, §3.3).
//!
//! The responder's order decides. Of each offered proposal every transform type must be one that we know and one of its
//! transforms one that we have; otherwise that proposal is passed over (RFC 7296 §3.3.6), never the whole payload.

mod choose;
mod text;

pub(crate) use choose::{ChosenEsp, ChosenIke, EspContext, accept_esp, accept_ike, choose_esp, choose_ike};
pub use text::ProposalTextError;

use ipsec::cipher::Cipher;

use crate::crypto::kex::Kex;
use crate::crypto::prf::Prf;
use crate::message::payload::{Proposal, ProtocolId, SaPayload, Transform, TransformKind};

/// AES-GCM with a 16-octet ICV, for IKE (RFC 5282) and ESP (RFC 4106).
const ENCR_AES_GCM_16: u16 = 20;

/// The algorithms of an IKE SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IkeSuite {
    /// Encrypts and authenticates IKE messages.
    pub cipher: Cipher,
    /// Derives keys and proves identities.
    pub prf: Prf,
    /// Agrees on secrets.
    pub kex: Kex,
}

/// The algorithms of a CHILD_SA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EspSuite {
    /// Encrypts and authenticates ESP packets.
    pub cipher: Cipher,
    /// A key exchange of its own, if the exchange that made it had one.
    pub kex: Option<Kex>,
    /// Extended sequence numbers.
    pub esn: bool,
}

/// A configured proposal for IKE SAs. Each list is in order of preference and not empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IkeProposal {
    pub(crate) ciphers: Vec<Cipher>,
    pub(crate) prfs: Vec<Prf>,
    pub(crate) kexes: Vec<Kex>,
}

/// A configured proposal for CHILD_SAs. Ciphers are not empty; neither is the list of sequence number forms.
///
/// With key exchanges named, CREATE_CHILD_SA must have one of them. With none named, as responder we take what the peer
/// prefers (a key exchange more is never weaker), and as initiator we offer none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EspProposal {
    pub(crate) ciphers: Vec<Cipher>,
    pub(crate) kexes: Vec<Kex>,
    pub(crate) esn: Vec<bool>,
}

fn encryption(cipher: Cipher) -> Transform {
    let key_bits = match cipher {
        Cipher::AesGcm128 => 128,
        Cipher::AesGcm256 => 256,
    };
    Transform::with_key_bits(TransformKind::ENCRYPTION, ENCR_AES_GCM_16, key_bits)
}

fn prf(prf: Prf) -> Transform {
    Transform::new(TransformKind::PRF, prf.id())
}

/// Group 0 says that there may be no key exchange.
fn key_exchange(kex: Option<Kex>) -> Transform {
    Transform::new(TransformKind::KEY_EXCHANGE, kex.map_or(0, Kex::group))
}

fn esn(esn: bool) -> Transform {
    Transform::new(TransformKind::ESN, u16::from(esn))
}

impl IkeProposal {
    fn to_wire<'a>(&self, number: u8, spi: &'a [u8]) -> Proposal<'a> {
        let mut transforms: Vec<Transform> = self.ciphers.iter().map(|&cipher| encryption(cipher)).collect();
        transforms.extend(self.prfs.iter().map(|&one| prf(one)));
        transforms.extend(self.kexes.iter().map(|&kex| key_exchange(Some(kex))));
        Proposal { number, protocol: ProtocolId::IKE, spi, transforms }
    }

    /// Whether this proposal could have led to `suite`.
    pub(crate) fn allows(&self, suite: IkeSuite) -> bool {
        self.ciphers.contains(&suite.cipher) && self.prfs.contains(&suite.prf) && self.kexes.contains(&suite.kex)
    }
}

impl EspProposal {
    /// Just these algorithms, but for the key exchange.
    pub(crate) fn exactly(suite: EspSuite) -> EspProposal {
        EspProposal { ciphers: vec![suite.cipher], kexes: Vec::new(), esn: vec![suite.esn] }
    }

    fn to_wire<'a>(&self, number: u8, spi: &'a [u8], kex: Option<Kex>) -> Proposal<'a> {
        let mut transforms: Vec<Transform> = self.ciphers.iter().map(|&cipher| encryption(cipher)).collect();
        transforms.extend(kex.map(|kex| key_exchange(Some(kex))));
        transforms.extend(self.esn.iter().map(|&form| esn(form)));
        Proposal { number, protocol: ProtocolId::ESP, spi, transforms }
    }
}

/// Proposals are numbered from one.
fn numbered<T>(items: &[T]) -> impl Iterator<Item = (u8, &T)> {
    (1..=u8::MAX).zip(items)
}

/// An offer for an IKE SA. `spi` is empty in IKE_SA_INIT.
pub(crate) fn offer_ike<'a>(proposals: &[IkeProposal], spi: &'a [u8]) -> SaPayload<'a> {
    SaPayload { proposals: numbered(proposals).map(|(number, one)| one.to_wire(number, spi)).collect() }
}

/// An offer for a CHILD_SA with just this key exchange, or with none.
pub(crate) fn offer_esp<'a>(proposals: &[EspProposal], spi: &'a [u8], kex: Option<Kex>) -> SaPayload<'a> {
    SaPayload { proposals: numbered(proposals).map(|(number, one)| one.to_wire(number, spi, kex)).collect() }
}

#[cfg(test)]
mod tests;
