//! The peer's requests.

use core::net::SocketAddr;

use ipsec::time::Instant;

use super::{IkeSa, Path, Standing, Task};
use crate::channel::Opened;
use crate::config::Identity;
use crate::context::{Context, Effect};
use crate::counters::DropReason;
use crate::error::Refusal;
use crate::event::{Datagram, DownReason, Event, NATT_PORT};
use crate::exchange;
use crate::kept::RequestDigest;
use crate::message::payload::ProtocolId;
use crate::message::{ExchangeType, Header, PayloadChain};
use crate::window::Arrival;

/// Proof that a message is authentic and was never seen before: only such a one tells where the peer is now
/// (RFC 7296 §2.23), and that it is alive.
pub(super) struct Fresh<'a> {
    datagram: &'a Datagram,
}

impl IkeSa {
    /// A datagram with our SPI.
    pub(crate) fn handle_datagram(&mut self, cx: &mut Context, header: &Header, datagram: &Datagram) {
        if header.is_response {
            self.handle_response(cx, header, datagram);
        } else {
            self.handle_request(cx, header, datagram);
        }
    }

    fn handle_request(&mut self, cx: &mut Context, header: &Header, datagram: &Datagram) {
        match self.incoming.judge(header.message_id, &datagram.payload) {
            Arrival::Next if Self::knows(header.exchange) => {}
            Arrival::Next => return cx.drop(DropReason::UnexpectedExchange),
            Arrival::Again(response) => {
                cx.counters.requests_repeated += 1;
                let response = response.clone();
                return cx.transmit_all(datagram.local, datagram.remote, response);
            }
            Arrival::Old => return cx.drop(DropReason::OldMessageId),
            Arrival::Ahead => return cx.drop(DropReason::FutureMessageId),
        }
        let Some(opened) = self.open(cx, header, datagram) else { return };
        self.heard(cx, &self.fresh(&opened, datagram));
        let answer = match opened.body() {
            Ok(body) => exchange::respond(self, cx, header.exchange, &body),
            Err(fault) => Err(Refusal::Malformed(fault)),
        };
        let chain = answer.unwrap_or_else(|refusal| self.refuse(cx, datagram, &refusal));
        self.answer(cx, header, datagram, opened.digest(), &chain);
    }

    /// Whether this is a fresh request other than to delete the IKE SA.
    pub(crate) fn is_put_to_use_by(&self, header: &Header, datagram: &Datagram) -> bool {
        let is_next = !header.is_response && self.incoming.judge(header.message_id, &datagram.payload) == Arrival::Next;
        if !is_next || !Self::knows(header.exchange) {
            return false;
        }
        let opened = self.channel.peek(header, &datagram.payload);
        opened.is_some_and(|opened| {
            opened.body().is_ok_and(|body| body.deletes.iter().all(|delete| delete.protocol != ProtocolId::IKE))
        })
    }

    fn refuse(&mut self, cx: &mut Context, datagram: &Datagram, refusal: &Refusal) -> PayloadChain {
        cx.report_refusal(datagram.remote, Some(self.lineage.peer), refusal);
        if refusal.is_fatal() {
            self.finish(DownReason::ProtocolError);
        }
        refusal.to_chain()
    }

    /// Sends the response to the request that came next, and remembers it.
    pub(crate) fn answer(
        &mut self,
        cx: &mut Context,
        request: &Header,
        datagram: &Datagram,
        digest: RequestDigest,
        chain: &PayloadChain,
    ) {
        let header = self.header(request.exchange, true, request.message_id);
        if let Some(response) = self.seal(cx, header, chain) {
            self.incoming.answered(digest, response.clone());
            cx.transmit_all(datagram.local, datagram.remote, response);
        }
    }

    /// Authenticates a message, or counts why it is not believed.
    pub(super) fn open(&mut self, cx: &mut Context, header: &Header, datagram: &Datagram) -> Option<Opened> {
        match self.channel.open(cx.now, header, &datagram.payload, &cx.config.limits) {
            Ok(opened) => Some(opened),
            Err(why) => {
                cx.count_unopened(&why);
                None
            }
        }
    }

    pub(super) fn fresh<'a>(&self, _authentic: &Opened, datagram: &'a Datagram) -> Fresh<'a> {
        Fresh { datagram }
    }

    /// The peer lives, and behind a NAT it lives where this came from.
    pub(super) fn heard(&mut self, cx: &mut Context, fresh: &Fresh<'_>) {
        let Datagram { local, remote, .. } = *fresh.datagram;
        self.is_alive(cx);
        self.also_at = None;
        if self.standing == Standing::Current {
            self.move_to(cx, local, remote);
        } else if self.may_move_to(local, remote) {
            // The message may be older than what the IKE SA in use has heard, or held back by somebody who waited for
            // that: it moves no ESP, but it is worth a question.
            self.path = Path { local, remote, ..self.path };
            cx.effects.push(Effect::SeenAt { lineage: self.lineage.clone(), local, remote });
        }
    }

    /// Something authentic came from the peer just now. Only the IKE SA in use asks when nothing does for long.
    pub(crate) fn is_alive(&mut self, cx: &Context) {
        let delay = self.lineage.connection.dpd_delay.filter(|_| self.standing == Standing::Current);
        self.probe_at = delay.map(|span| cx.now + span);
    }

    /// Something authentic came from the peer at that time, which may be a while ago.
    pub(crate) fn was_alive(&mut self, heard: Instant) {
        let delay = self.lineage.connection.dpd_delay.filter(|_| self.standing == Standing::Current);
        self.probe_at = self.probe_at.max(delay.map(|span| heard + span));
    }

    /// Follows a peer behind a NAT by its ESP. Only on port 4500 do ESP and IKE come by one mapping.
    pub(crate) fn follow_esp(&mut self, cx: &mut Context, remote: SocketAddr) {
        self.is_alive(cx);
        let too_soon = self.followed_esp.is_some_and(|last| cx.now < last + cx.config.timing.follow_again);
        let fits = self.path.local.port() == NATT_PORT && self.path.remote.is_ipv4() == remote.is_ipv4();
        if fits && !too_soon && remote != self.path.remote {
            self.followed_esp = Some(cx.now);
            self.move_to(cx, self.path.local, remote);
        }
    }

    /// Whether this is another mapping of a peer behind a NAT. Ends that are not behind one do not move without MOBIKE,
    /// and we do not follow when we are behind one ourselves, since then the peer could be led to follow us in circles.
    fn may_move_to(&self, local: SocketAddr, remote: SocketAddr) -> bool {
        let has_moved = (self.path.local, self.path.remote) != (local, remote);
        has_moved && self.path.nat.theirs && !self.path.nat.ours && self.path.local.ip() == local.ip()
    }

    /// Follows a peer behind a NAT to its new mapping.
    fn move_to(&mut self, cx: &mut Context, local: SocketAddr, remote: SocketAddr) {
        if !self.may_move_to(local, remote) {
            return;
        }
        self.path = Path { local, remote, ..self.path };
        let children = self.children.iter().map(|child| child.inbound).collect();
        let (peer, dvipa) = (self.lineage.peer, local.ip());
        cx.events.push_back(Event::AddressMoved { peer, remote, dvipa, children });
    }

    /// The peer may have moved there. It is asked, there and where it was: its answer tells where it is.
    pub(crate) fn look_for_peer_at(&mut self, local: SocketAddr, remote: SocketAddr) {
        if self.may_move_to(local, remote) {
            self.also_at = Some((local, remote));
            if !self.outgoing.is_waiting() {
                self.queue(Task::Probe);
            }
        }
    }

    /// Whether the other IKE SA is between the same authenticated identities.
    pub(crate) fn is_between(&self, local: &Identity, remote: &Identity) -> bool {
        self.lineage.local_id == *local && self.lineage.remote_id == *remote
    }

    /// Whether an exchange type has a place here at all.
    fn knows(exchange: ExchangeType) -> bool {
        matches!(exchange, ExchangeType::CreateChildSa | ExchangeType::Informational)
    }
}
