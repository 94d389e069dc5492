//! Deleting SAs (RFC 7296 §1.4.1), and what happens when both sides do at once (§2.25).

use ipsec::Spi;

use super::rekey_ike;
use crate::child::{Child, ChildState};
use crate::context::Context;
use crate::event::DownReason;
use crate::message::payload::{Delete, Payload, ProtocolId};
use crate::message::{ExchangeType, PayloadChain};
use crate::sa::{Active, IkeSa, Request};

/// Asks the peer to delete a child, or tells it that it is gone here. It may have one in its place that we have made.
pub(crate) fn start_child(inbound: Spi, successor: Option<Spi>, active: Active) -> Request {
    let mut chain = PayloadChain::new().with(&Payload::Delete(Delete::esp(&inbound.to_be_bytes())));
    chain.promises = successor;
    Request { exchange: ExchangeType::Informational, chain, active }
}

/// Asks the peer to delete the IKE SA.
pub(crate) fn start_ike(reason: DownReason) -> Request {
    let chain = PayloadChain::new().with(&Payload::Delete(Delete::IKE_SA));
    Request { exchange: ExchangeType::Informational, chain, active: Active::DeleteIke(reason) }
}

/// The peer has answered: the child is gone on both sides. It may have gone before, if the peer asked for it too.
pub(crate) fn finish_child(sa: &mut IkeSa, cx: &mut Context, inbound: Spi, reason: DownReason) {
    sa.remove_child(cx, inbound, reason);
}

/// Does what the delete payloads of a request say, and names our halves of the children that go.
pub(crate) fn respond(sa: &mut IkeSa, cx: &mut Context, deletes: &[Delete<'_>]) -> PayloadChain {
    if deletes.iter().any(|delete| delete.protocol == ProtocolId::IKE) {
        // The children go with it; there is nothing to name (RFC 7296 §1.4.1).
        rekey_ike::on_peer_delete(sa, cx);
        return PayloadChain::new();
    }
    let mut ours: Vec<u8> = Vec::new();
    // We have no AH, so of the rest only ESP can name anything.
    for spi in deletes.iter().filter(|delete| delete.protocol == ProtocolId::ESP).flat_map(Delete::spis) {
        let Some(child) = sa.child_by_outbound(spi) else {
            // It may be what the peer has just granted us, if this has overtaken the response that says so.
            sa.active.as_mut().and_then(Active::asked_child).into_iter().for_each(|asked| asked.forsake(spi));
            continue;
        };
        let (inbound, was_closing) = (child.inbound, child.state == ChildState::Closing);
        sa.remove_child(cx, inbound, reason_of(child));
        // What we have asked to delete ourselves is not named a second time (RFC 7296 §2.25.1).
        if !was_closing {
            ours.extend_from_slice(&inbound.to_be_bytes());
        }
    }
    let mut chain = PayloadChain::new();
    if !ours.is_empty() {
        chain.push(&Payload::Delete(Delete::esp(&ours)));
    }
    chain
}

fn reason_of(child: &Child) -> DownReason {
    match child.state {
        ChildState::InUse | ChildState::Closing => DownReason::PeerDeleted,
        ChildState::Replaced => DownReason::Replaced,
        ChildState::Redundant => DownReason::Redundant,
    }
}
