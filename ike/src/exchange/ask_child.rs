//! CREATE_CHILD_SA as the side that asks (RFC 7296 §1.3): what a CHILD_SA that replaces another one and one that stands
//! beside it have in common.

use ipsec::Spi;
use ipsec::sa::Mode;
use ipsec::selector::Selectors;

use crate::context::Context;
use crate::crypto::Secret;
use crate::crypto::kex::{Kex, OfferedKex};
use crate::crypto::keys::Nonces;
use crate::error::Malformed;
use crate::message::payload::{KeyExchange, Notify, NotifyKind, Payload, TrafficSelectors};
use crate::message::{Body, IkeSpi, PayloadChain};
use crate::proposal::{ChosenEsp, EspProposal, accept_esp, offer_esp};

/// A peer that has more to delete while it answers us has its own troubles.
const FORSAKEN_MAX: usize = 32;

/// What the CHILD_SA is to be like.
pub(crate) struct Wish {
    pub(crate) proposals: Vec<EspProposal>,
    pub(crate) kex: Option<Kex>,
    pub(crate) selectors: Selectors,
    pub(crate) mode: Mode,
    /// Say that it is one of several with equal selectors (RFC 9611 §4).
    pub(crate) per_resource: bool,
}

/// What was asked for and not answered yet.
pub(crate) struct Asked {
    /// What we would receive on.
    pub(crate) inbound: Spi,
    pub(crate) wish: Wish,
    nonce: Vec<u8>,
    kex: Option<OfferedKex>,
    /// What the peer has deleted since, of which we know nothing: its delete may have overtaken its response.
    forsaken: Vec<u32>,
}

/// What the response grants.
pub(crate) struct Granted {
    pub(crate) chosen: ChosenEsp,
    pub(crate) nonces: Nonces,
    pub(crate) shared: Option<Secret>,
    pub(crate) selectors: Selectors,
    pub(crate) mode: Mode,
}

impl Asked {
    /// Appends the request for what is wished to `chain`. The SPI belongs to the IKE SA `owner`.
    pub(crate) fn ask(cx: &mut Context, owner: IkeSpi, wish: Wish, chain: &mut PayloadChain) -> Asked {
        let (kex, public) = wish.kex.map(|kex| kex.offer(&mut cx.rng)).unzip();
        let (nonce, inbound) = (cx.nonce(), cx.spis.draw_esp(&mut cx.rng, owner));
        if wish.mode == Mode::Transport {
            chain.push(&Payload::Notify(Notify::new(NotifyKind::USE_TRANSPORT_MODE, &[])));
        }
        if wish.per_resource {
            chain.push(&Payload::Notify(Notify::new(NotifyKind::SA_RESOURCE_INFO, &[])));
        }
        chain.push(&Payload::Sa(offer_esp(&wish.proposals, &inbound.to_be_bytes(), wish.kex)));
        chain.push(&Payload::Nonce(&nonce));
        if let Some((kex, public)) = wish.kex.zip(public) {
            chain.push(&Payload::KeyExchange(KeyExchange { group: kex.group(), data: &public }));
        }
        chain.push(&Payload::TsInitiator(TrafficSelectors(wish.selectors.local.clone())));
        chain.push(&Payload::TsResponder(TrafficSelectors(wish.selectors.remote.clone())));
        Asked { inbound, wish, nonce, kex, forsaken: Vec::new() }
    }

    /// Reads what the response grants; `None` if the peer chose outside of our offer.
    ///
    /// # Errors
    /// A response without what it must have.
    pub(crate) fn read(&mut self, body: &Body<'_>) -> Result<Option<Granted>, Malformed> {
        let theirs = body.require_nonce()?;
        if theirs == self.nonce {
            return Err(Malformed::NonceReflected);
        }
        let (ts_initiator, ts_responder) = body.require_selectors()?;
        let selectors = Selectors { local: ts_initiator.0.clone(), remote: ts_responder.0.clone() };
        let chosen = accept_esp(&self.wish.proposals, body.require_sa()?, self.wish.kex);
        let is_subset = self.wish.selectors.narrow(&selectors).is_some_and(|narrowed| narrowed == selectors);
        let mode = if body.has(NotifyKind::USE_TRANSPORT_MODE) { Mode::Transport } else { Mode::Tunnel };
        // Transport mode may be declined, but not introduced (RFC 7296 §1.3.1).
        let is_mode_offered = mode == Mode::Tunnel || self.wish.mode == Mode::Transport;
        let Some(chosen) = chosen.filter(|_| is_subset && is_mode_offered) else { return Ok(None) };
        let shared = match self.kex.take() {
            None => None,
            Some(kex) => {
                let answer = body.require_key_exchange()?;
                if answer.group != kex.method().group() {
                    return Err(Malformed::KeyExchange { group: answer.group, fault: "not the group that was chosen" });
                }
                Some(kex.finish(answer.data)?)
            }
        };
        let nonces = Nonces { initiator: core::mem::take(&mut self.nonce), responder: theirs.to_vec() };
        Ok(Some(Granted { chosen, nonces, shared, selectors, mode }))
    }

    /// The peer deletes something that we do not know.
    pub(crate) fn forsake(&mut self, spi: u32) {
        if self.forsaken.len() < FORSAKEN_MAX {
            self.forsaken.push(spi);
        }
    }

    /// Whether the peer has deleted already what it would receive on.
    pub(crate) fn is_forsaken(&self, granted: &Granted) -> bool {
        self.forsaken.contains(&granted.chosen.spi.get())
    }
}
