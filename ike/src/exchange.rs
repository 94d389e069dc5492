//! The exchanges of IKEv2, one file each: what we ask, what we answer, what we make of the answer.
//!
//! Functions called `respond` read a request and give the payloads of the response, or the [`Refusal`] that goes in
//! their place. Functions called `start` give a request, those called `finish` read its response.

pub(crate) mod ask_child;
pub(crate) mod auth;
pub(crate) mod create_child;
pub(crate) mod delete;
pub(crate) mod informational;
pub(crate) mod rekey_child;
pub(crate) mod rekey_ike;
pub(crate) mod sa_init;
pub(crate) mod sibling;

use crate::context::Context;
use crate::error::{Malformed, Refusal};
use crate::message::payload::{Notify, NotifyKind, Payload, ProtocolId};
use crate::message::{Body, ExchangeType, PayloadChain};
use crate::sa::{Active, IkeSa};

/// Answers a request on an authenticated IKE SA.
pub(crate) fn respond(
    sa: &mut IkeSa,
    cx: &mut Context,
    exchange: ExchangeType,
    body: &Body<'_>,
) -> Result<PayloadChain, Refusal> {
    match exchange {
        ExchangeType::CreateChildSa => respond_create_child(sa, cx, body),
        ExchangeType::Informational => Ok(informational::respond(sa, cx, body)),
        // Such a message is dropped before it is opened; this arm keeps the set closed.
        ExchangeType::IkeSaInit | ExchangeType::IkeAuth | ExchangeType::Unknown(_) => {
            Err(Refusal::UnexpectedExchange(exchange))
        }
    }
}

/// Which of its three uses a CREATE_CHILD_SA request is (RFC 7296 §1.3).
fn respond_create_child(sa: &mut IkeSa, cx: &mut Context, body: &Body<'_>) -> Result<PayloadChain, Refusal> {
    let is_ike = |protocol| protocol == ProtocolId::IKE;
    if body.require_sa()?.proposals.first().is_some_and(|proposal| is_ike(proposal.protocol)) {
        return rekey_ike::respond(sa, cx, body);
    }
    match body.notify(NotifyKind::REKEY_SA) {
        Some(rekey) => rekey_child::respond(sa, cx, body, rekey),
        None => create_child::respond(sa, cx, body),
    }
}

/// Takes the response to a request of ours.
///
/// # Errors
/// The fault that makes the IKE SA unusable.
pub(crate) fn finish(sa: &mut IkeSa, cx: &mut Context, active: Active, body: &Body<'_>) -> Result<(), Malformed> {
    match active {
        Active::RekeyChild(pending) => rekey_child::finish(sa, cx, *pending, body),
        Active::Sibling(pending) => {
            sibling::finish(sa, cx, *pending, body);
            Ok(())
        }
        Active::RekeyIke(pending) => rekey_ike::finish(sa, cx, *pending, body),
        Active::DeleteChild(inbound, reason) => {
            delete::finish_child(sa, cx, inbound, reason);
            Ok(())
        }
        Active::DeleteIke(reason) => {
            sa.finish(reason);
            Ok(())
        }
        Active::ReportGone | Active::Probe => Ok(()),
    }
}

impl Refusal {
    /// Whether the IKE SA cannot go on after it (RFC 7296 §2.21.3).
    pub(crate) fn is_fatal(&self) -> bool {
        match self {
            Refusal::Malformed(Malformed::UnknownCritical(_)) => false,
            Refusal::Malformed(_) | Refusal::AuthenticationFailed(_) | Refusal::UnexpectedExchange(_) => true,
            Refusal::NoProposalChosen(_)
            | Refusal::InvalidKe { .. }
            | Refusal::TsUnacceptable(_)
            | Refusal::NoAdditionalSas { .. }
            | Refusal::TsMaxQueue { .. }
            | Refusal::TemporaryFailure(_)
            | Refusal::ChildSaNotFound { .. } => false,
        }
    }

    /// Whether it belongs to the ordinary course of things, so that no operator needs to hear of it.
    pub(crate) fn is_routine(&self) -> bool {
        match self {
            Refusal::InvalidKe { .. } | Refusal::TemporaryFailure(_) | Refusal::ChildSaNotFound { .. } => true,
            Refusal::Malformed(_)
            | Refusal::NoProposalChosen(_)
            | Refusal::AuthenticationFailed(_)
            | Refusal::TsUnacceptable(_)
            | Refusal::NoAdditionalSas { .. }
            | Refusal::TsMaxQueue { .. }
            | Refusal::UnexpectedExchange(_) => false,
        }
    }

    /// What the peer is told.
    pub(crate) fn kind(&self) -> NotifyKind {
        match self {
            Refusal::Malformed(Malformed::UnknownCritical(_)) => NotifyKind::UNSUPPORTED_CRITICAL_PAYLOAD,
            Refusal::Malformed(_) | Refusal::UnexpectedExchange(_) => NotifyKind::INVALID_SYNTAX,
            Refusal::NoProposalChosen(_) => NotifyKind::NO_PROPOSAL_CHOSEN,
            Refusal::InvalidKe { .. } => NotifyKind::INVALID_KE_PAYLOAD,
            Refusal::AuthenticationFailed(_) => NotifyKind::AUTHENTICATION_FAILED,
            Refusal::TsUnacceptable(_) => NotifyKind::TS_UNACCEPTABLE,
            Refusal::NoAdditionalSas { .. } => NotifyKind::NO_ADDITIONAL_SAS,
            Refusal::TsMaxQueue { .. } => NotifyKind::TS_MAX_QUEUE,
            Refusal::TemporaryFailure(_) => NotifyKind::TEMPORARY_FAILURE,
            Refusal::ChildSaNotFound { .. } => NotifyKind::CHILD_SA_NOT_FOUND,
        }
    }

    /// Appends the notification to a response.
    pub(crate) fn notify(&self, chain: &mut PayloadChain) {
        let kind = self.kind();
        match self {
            Refusal::Malformed(Malformed::UnknownCritical(number)) => {
                chain.push(&Payload::Notify(Notify::new(kind, &[*number])));
            }
            Refusal::InvalidKe { wanted, .. } => {
                chain.push(&Payload::Notify(Notify::new(kind, &wanted.to_be_bytes())));
            }
            Refusal::ChildSaNotFound { protocol, spi } => {
                let notify = Notify { protocol: *protocol, spi: &spi.to_be_bytes(), kind, data: &[] };
                chain.push(&Payload::Notify(notify));
            }
            Refusal::Malformed(_)
            | Refusal::UnexpectedExchange(_)
            | Refusal::NoProposalChosen(_)
            | Refusal::AuthenticationFailed(_)
            | Refusal::TsUnacceptable(_)
            | Refusal::NoAdditionalSas { .. }
            | Refusal::TsMaxQueue { .. }
            | Refusal::TemporaryFailure(_) => chain.push(&Payload::Notify(Notify::new(kind, &[]))),
        }
    }

    /// A response of nothing but the notification.
    pub(crate) fn to_chain(&self) -> PayloadChain {
        let mut chain = PayloadChain::new();
        self.notify(&mut chain);
        chain
    }
}
