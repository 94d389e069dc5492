//! IKE_SA_INIT as responder (RFC 7296 §1.2, §2.6, §2.7): from a stranger's request to a half-open IKE SA.
//!
//! Until the stranger has returned a cookie (when cookies are asked for), nothing is computed but hashes and nothing is
//! kept.

use crate::channel::{Channel, Role};
use crate::context::Context;
use crate::cookie::{Claim, CookieJar};
use crate::counters::DropReason;
use crate::crypto::keys::{IkeKeys, Nonces, skeyseed};
use crate::error::{Malformed, Refusal};
use crate::event::Datagram;
use crate::half_open::{HalfOpen, HalfOpenTable};
use crate::kept::digest_of;
use crate::message::payload::{KeyExchange, Notify, NotifyKind, Payload};
use crate::message::{Body, HEADER_LEN, Header, IkeSpi, PayloadChain, Spis};
use crate::nat;
use crate::proposal::{ChosenIke, choose_ike};

/// What becomes of a request.
enum Outcome {
    /// A half-open IKE SA, whose response leaves.
    Begun(Box<HalfOpen>),
    /// "Come again with this cookie."
    CookieWanted(Vec<u8>),
}

/// Handles an IKE_SA_INIT request.
pub(crate) fn handle(
    cx: &mut Context,
    jar: &mut CookieJar,
    table: &mut HalfOpenTable,
    header: &Header,
    datagram: &Datagram,
) {
    if !header.spis.responder.is_none() || !header.from_initiator || header.message_id != 0 {
        return cx.drop(DropReason::UnexpectedExchange);
    }
    if header.spis.initiator.is_none() || datagram.payload.len() > cx.config.limits.init_bytes {
        return cx.drop(DropReason::Malformed);
    }
    let digest = digest_of(&datagram.payload);
    if let Some(response) = cx.kept.find(datagram.local.ip(), &digest).cloned() {
        cx.counters.requests_repeated += 1;
        return cx.transmit_all(datagram.local, datagram.remote, response);
    }
    let body = match Body::parse(header.next_payload, &datagram.payload[HEADER_LEN..]) {
        Ok(body) => body,
        Err(fault) if is_worth_an_answer(&fault) => return refuse(cx, header, datagram, &Refusal::Malformed(fault)),
        Err(_) => return cx.drop(DropReason::Malformed),
    };
    match respond(cx, jar, table, header, &body, datagram) {
        Ok(Some(Outcome::Begun(half_open))) => {
            let expires_at = cx.now + cx.config.timing.half_open;
            cx.counters.half_open_begun += 1;
            cx.kept.keep(cx.now, datagram.local.ip(), digest, half_open.response.clone().into());
            cx.transmit(datagram.local, datagram.remote, half_open.response.clone());
            table.insert(expires_at, *half_open);
        }
        Ok(Some(Outcome::CookieWanted(response))) => {
            cx.counters.cookies_sent += 1;
            cx.transmit(datagram.local, datagram.remote, response);
        }
        Ok(None) => cx.drop(DropReason::HalfOpenFull),
        Err(refusal) => refuse(cx, header, datagram, &refusal),
    }
}

/// Framing that lies is dropped in silence; a well-framed message with the wrong content gets an error.
fn is_worth_an_answer(fault: &Malformed) -> bool {
    match fault {
        Malformed::UnknownCritical(_)
        | Malformed::Duplicate(_)
        | Malformed::Missing(_)
        | Malformed::NonceLength { .. }
        | Malformed::NonceReflected
        | Malformed::KeyExchange { .. } => true,
        Malformed::Truncated { .. }
        | Malformed::Version { .. }
        | Malformed::Length { .. }
        | Malformed::PayloadLength { .. }
        | Malformed::Payload { .. }
        | Malformed::TooManyPayloads { .. }
        | Malformed::Encrypted(_) => false,
    }
}

fn refuse(cx: &mut Context, header: &Header, datagram: &Datagram, refusal: &Refusal) {
    cx.report_refusal(datagram.remote, None, refusal);
    let response = refusal.to_chain().into_message(header.reply(IkeSpi::NONE));
    cx.transmit_error(datagram.local, datagram.remote, response);
}

/// `None` if there is no room.
fn respond(
    cx: &mut Context,
    jar: &mut CookieJar,
    table: &mut HalfOpenTable,
    header: &Header,
    body: &Body<'_>,
    datagram: &Datagram,
) -> Result<Option<Outcome>, Refusal> {
    let nonce = body.require_nonce()?;
    let claim = Claim { nonce, address: datagram.remote.ip(), spi: header.spis.initiator };
    if let Some(cookie) = cookie_to_ask_for(cx, jar, table, body, claim) {
        let chain = PayloadChain::new().with(&Payload::Notify(Notify::new(NotifyKind::COOKIE, &cookie)));
        return Ok(Some(Outcome::CookieWanted(chain.into_message(header.reply(IkeSpi::NONE)))));
    }
    let chosen = choose(cx, body, datagram)?;
    let ke = body.require_key_exchange()?;
    if ke.group != chosen.suite.kex.group() {
        return Err(Refusal::InvalidKe { found: ke.group, wanted: chosen.suite.kex.group() });
    }
    if !make_room(cx, table, datagram) {
        return Ok(None);
    }
    begin(cx, header, body, datagram, &chosen, (nonce, ke)).map(|begun| Some(Outcome::Begun(Box::new(begun))))
}

/// The cookie that the sender must return first, unless none is needed or a good one is there.
fn cookie_to_ask_for(
    cx: &mut Context,
    jar: &mut CookieJar,
    table: &HalfOpenTable,
    body: &Body<'_>,
    claim: Claim<'_>,
) -> Option<Vec<u8>> {
    let limits = &cx.config.limits;
    let is_busy = table.len() >= limits.cookie_threshold;
    if !is_busy && table.of_address(claim.address) < limits.cookie_threshold_per_address {
        return None;
    }
    jar.age(cx.now, &mut cx.rng);
    if body.notify(NotifyKind::COOKIE).is_some_and(|returned| jar.accepts(returned.data, claim)) {
        cx.counters.cookies_accepted += 1;
        return None;
    }
    Some(jar.cookie(claim).to_vec())
}

/// The first connection between these addresses that has a proposal in common with the request decides the algorithms.
/// Which connection it will be is decided by IKE_AUTH.
fn choose(cx: &Context, body: &Body<'_>, datagram: &Datagram) -> Result<ChosenIke, Refusal> {
    let offered = body.require_sa()?;
    let (local, remote) = (datagram.local.ip(), datagram.remote.ip());
    let mut candidates = cx.connections.iter().filter(|connection| connection.is_between(local, remote)).peekable();
    if candidates.peek().is_none() {
        return Err(Refusal::NoProposalChosen("no connection is configured between these addresses"));
    }
    candidates
        .find_map(|connection| choose_ike(&connection.proposals, offered, false))
        .ok_or(Refusal::NoProposalChosen("none of the offered IKE proposals is configured"))
}

fn make_room(cx: &mut Context, table: &mut HalfOpenTable, datagram: &Datagram) -> bool {
    if table.len() < cx.config.limits.half_open {
        return true;
    }
    match table.evict_for(datagram.remote.ip()) {
        Some(evicted) => {
            cx.spis.free_ike(evicted.spis.responder);
            cx.counters.half_open_expired += 1;
            true
        }
        None => false,
    }
}

fn begin(
    cx: &mut Context,
    header: &Header,
    body: &Body<'_>,
    datagram: &Datagram,
    chosen: &ChosenIke,
    (nonce, ke): (&[u8], KeyExchange<'_>),
) -> Result<HalfOpen, Refusal> {
    cx.counters.key_exchanges += 1;
    let (public, shared) = chosen.suite.kex.answer(ke.data, &mut cx.rng)?;
    let ours = cx.nonce();
    if nonce == ours {
        return Err(Malformed::NonceReflected.into());
    }
    let nonces = Nonces { initiator: nonce.to_vec(), responder: ours };
    let responder = cx.spis.draw_ike(&mut cx.rng);
    let spis = Spis { initiator: header.spis.initiator, responder };
    let mut chain = PayloadChain::new();
    chain.push(&Payload::Sa(chosen.payload(&[])));
    chain.push(&Payload::KeyExchange(KeyExchange { group: ke.group, data: &public }));
    chain.push(&Payload::Nonce(&nonces.responder));
    nat::announce(&mut chain, spis, datagram.local, datagram.remote);
    let fragmentation = body.has(NotifyKind::FRAGMENTATION_SUPPORTED);
    if fragmentation {
        chain.push(&Payload::Notify(Notify::new(NotifyKind::FRAGMENTATION_SUPPORTED, &[])));
    }
    let keys = IkeKeys::derive(chosen.suite, &skeyseed(chosen.suite.prf, &nonces, &shared), &nonces, spis);
    Ok(HalfOpen {
        local: datagram.local.ip(),
        spis,
        suite: chosen.suite,
        channel: Channel::new(Role::Responder, chosen.suite, &keys, cx.config.sender_id, fragmentation),
        keys,
        nonces,
        request: datagram.payload.clone(),
        response: chain.into_message(header.reply(responder)),
        remote: datagram.remote,
        nat: nat::detect(body, header.spis, datagram.local, datagram.remote),
        failures: 0,
    })
}
