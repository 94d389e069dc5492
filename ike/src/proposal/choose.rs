//! The choice among offered proposals, and the check that a peer chose from ours.

use ipsec::Spi;
use ipsec::cipher::Cipher;

use super::{EspProposal, EspSuite, IkeProposal, IkeSuite, encryption, esn, key_exchange, prf};
use crate::crypto::kex::Kex;
use crate::message::IkeSpi;
use crate::message::payload::{Proposal, ProtocolId, SaPayload, Transform, TransformKind};

/// What was chosen for an IKE SA, and what says so to the peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ChosenIke {
    pub(crate) suite: IkeSuite,
    /// The peer's new SPI; none in IKE_SA_INIT.
    pub(crate) spi: IkeSpi,
    answer: Answer,
}

/// What was chosen for a CHILD_SA, and what says so to the peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ChosenEsp {
    pub(crate) suite: EspSuite,
    /// What the peer will receive on.
    pub(crate) spi: Spi,
    answer: Answer,
}

/// The chosen proposal, to be echoed under its number with one transform of each type that was offered.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Answer {
    number: u8,
    protocol: ProtocolId,
    transforms: Vec<Transform>,
}

impl Answer {
    fn payload<'a>(&self, spi: &'a [u8]) -> SaPayload<'a> {
        let transforms = self.transforms.clone();
        SaPayload { proposals: vec![Proposal { number: self.number, protocol: self.protocol, spi, transforms }] }
    }
}

impl ChosenIke {
    /// The SA payload that tells the choice, with our own SPI (empty in IKE_SA_INIT).
    pub(crate) fn payload<'a>(&self, spi: &'a [u8]) -> SaPayload<'a> {
        self.answer.payload(spi)
    }
}

impl ChosenEsp {
    /// The SA payload that tells the choice, with the SPI that we will receive on.
    pub(crate) fn payload<'a>(&self, spi: &'a [u8]) -> SaPayload<'a> {
        self.answer.payload(spi)
    }
}

/// One offered proposal while a choice is made: each type asked for is ticked off.
struct Offer<'a> {
    transforms: &'a [Transform],
    chosen: Vec<Transform>,
}

impl Offer<'_> {
    fn offers(&self, kind: TransformKind) -> bool {
        self.transforms.iter().any(|transform| transform.kind == kind)
    }

    fn has(&self, wanted: Transform) -> bool {
        self.transforms.contains(&wanted)
    }

    /// The first of ours that is offered.
    fn pick<T: Copy>(&mut self, ours: &[T], transform: impl Fn(T) -> Transform) -> Option<T> {
        let picked = ours.iter().copied().find(|&one| self.has(transform(one)))?;
        self.chosen.push(transform(picked));
        Some(picked)
    }

    /// Authenticated ciphers go with no integrity algorithm, or with the one called NONE (RFC 5282 §8).
    fn no_integrity(&mut self) -> Option<()> {
        let none = Transform::new(TransformKind::INTEGRITY, 0);
        if !self.offers(TransformKind::INTEGRITY) {
            return Some(());
        }
        self.has(none).then(|| self.chosen.push(none))
    }

    fn only(&self, known: &[TransformKind]) -> bool {
        self.transforms.iter().all(|transform| known.contains(&transform.kind))
    }
}

const IKE_KINDS: [TransformKind; 4] =
    [TransformKind::ENCRYPTION, TransformKind::PRF, TransformKind::INTEGRITY, TransformKind::KEY_EXCHANGE];
const ESP_KINDS: [TransformKind; 4] =
    [TransformKind::ENCRYPTION, TransformKind::INTEGRITY, TransformKind::KEY_EXCHANGE, TransformKind::ESN];

fn match_ike(ours: &IkeProposal, theirs: &Proposal<'_>) -> Option<(IkeSuite, Answer)> {
    let mut offer = Offer { transforms: &theirs.transforms, chosen: Vec::new() };
    if theirs.protocol != ProtocolId::IKE || !offer.only(&IKE_KINDS) {
        return None;
    }
    let cipher = offer.pick(&ours.ciphers, encryption)?;
    let prf = offer.pick(&ours.prfs, prf)?;
    offer.no_integrity()?;
    let kex = offer.pick(&ours.kexes, |kex| key_exchange(Some(kex)))?;
    let answer = Answer { number: theirs.number, protocol: ProtocolId::IKE, transforms: offer.chosen };
    Some((IkeSuite { cipher, prf, kex }, answer))
}

/// Chooses for an IKE SA. `rekeying` says whether the proposals must carry the peer's new SPI or none.
pub(crate) fn choose_ike(ours: &[IkeProposal], offered: &SaPayload<'_>, rekeying: bool) -> Option<ChosenIke> {
    ours.iter().find_map(|own| {
        offered.proposals.iter().find_map(|theirs| {
            let spi = match (rekeying, theirs.spi.first_chunk::<8>()) {
                (false, None) if theirs.spi.is_empty() => IkeSpi::NONE,
                (true, Some(&spi)) if theirs.spi.len() == 8 => IkeSpi::from_bytes(spi),
                (false | true, _) => return None,
            };
            if rekeying && spi.is_none() {
                return None;
            }
            match_ike(own, theirs).map(|(suite, answer)| ChosenIke { suite, spi, answer })
        })
    })
}

/// Which exchange makes a CHILD_SA, and thus whether it may have a key exchange of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum EspContext {
    /// IKE_AUTH: its secret comes from IKE_SA_INIT (RFC 7296 §1.2).
    IkeAuth,
    /// CREATE_CHILD_SA, with the group of the peer's KE payload if there is one.
    CreateChild {
        /// That group.
        group: Option<u16>,
    },
}

/// Outer `None`: no match. Inner `None`: no key exchange.
fn pick_esp_kex(ours: &[Kex], offer: &mut Offer<'_>, context: EspContext) -> Option<Option<Kex>> {
    let none_is_offered = !offer.offers(TransformKind::KEY_EXCHANGE) || offer.has(key_exchange(None));
    let without = |offer: &mut Offer<'_>| {
        if offer.offers(TransformKind::KEY_EXCHANGE) {
            offer.chosen.push(key_exchange(None));
        }
        none_is_offered.then_some(None)
    };
    let group = match context {
        EspContext::IkeAuth => return without(offer),
        EspContext::CreateChild { group } => group,
    };
    if !ours.is_empty() {
        return offer.pick(ours, |kex| key_exchange(Some(kex))).map(Some);
    }
    // We ask for none, so the peer's KE payload, or its absence, tells what it prefers.
    match group {
        None if none_is_offered => without(offer),
        None | Some(_) => match offer.pick(&Kex::ALL, |kex| key_exchange(Some(kex))) {
            Some(kex) => Some(Some(kex)),
            None => without(offer),
        },
    }
}

fn match_esp(ours: &EspProposal, theirs: &Proposal<'_>, context: EspContext) -> Option<(EspSuite, Answer)> {
    let mut offer = Offer { transforms: &theirs.transforms, chosen: Vec::new() };
    if theirs.protocol != ProtocolId::ESP || !offer.only(&ESP_KINDS) {
        return None;
    }
    let cipher: Cipher = offer.pick(&ours.ciphers, encryption)?;
    offer.no_integrity()?;
    let kex = pick_esp_kex(&ours.kexes, &mut offer, context)?;
    // An offer that does not mention ESN is of the time before it: 32 bits.
    let esn = if offer.offers(TransformKind::ESN) {
        offer.pick(&ours.esn, esn)?
    } else {
        ours.esn.iter().copied().find(|form| !form)?
    };
    let answer = Answer { number: theirs.number, protocol: ProtocolId::ESP, transforms: offer.chosen };
    Some((EspSuite { cipher, kex, esn }, answer))
}

/// Chooses for a CHILD_SA.
pub(crate) fn choose_esp(ours: &[EspProposal], offered: &SaPayload<'_>, context: EspContext) -> Option<ChosenEsp> {
    ours.iter().find_map(|own| {
        offered.proposals.iter().find_map(|theirs| {
            let spi = <[u8; 4]>::try_from(theirs.spi).ok().and_then(Spi::from_be_bytes)?;
            match_esp(own, theirs, context).map(|(suite, answer)| ChosenEsp { suite, spi, answer })
        })
    })
}

/// Whether a response names one proposal with one transform of each type, as RFC 7296 §3.3 asks.
fn is_single(chosen: &SaPayload<'_>) -> bool {
    let [proposal] = chosen.proposals.as_slice() else { return false };
    let mut kinds: Vec<u8> = proposal.transforms.iter().map(|transform| transform.kind.0).collect();
    kinds.sort_unstable();
    kinds.windows(2).all(|pair| pair[0] != pair[1])
}

/// Checks that the peer chose an IKE suite that we offered.
pub(crate) fn accept_ike(offered: &[IkeProposal], chosen: &SaPayload<'_>, rekeying: bool) -> Option<ChosenIke> {
    is_single(chosen).then(|| choose_ike(offered, chosen, rekeying)).flatten()
}

/// Checks that the peer chose an ESP suite that we offered, with just the key exchange that we offered.
pub(crate) fn accept_esp(offered: &[EspProposal], chosen: &SaPayload<'_>, kex: Option<Kex>) -> Option<ChosenEsp> {
    let context = match kex {
        None => EspContext::IkeAuth,
        Some(kex) => EspContext::CreateChild { group: Some(kex.group()) },
    };
    is_single(chosen).then(|| choose_esp(offered, chosen, context)).flatten().filter(|chosen| chosen.suite.kex == kex)
}
