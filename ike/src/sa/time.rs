//! What time brings to an IKE SA.

use ipsec::Spi;
use ipsec::time::Instant;

use super::{Active, IkeSa, Task};
use crate::context::Context;
use crate::event::DownReason;
use crate::window::Patience;

/// Whether a deadline has come; it is then cleared.
fn due(deadline: &mut Option<Instant>, now: Instant) -> bool {
    let is_due = deadline.is_some_and(|at| at <= now);
    if is_due {
        *deadline = None;
    }
    is_due
}

impl IkeSa {
    /// The next time at which something is to be done.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let deadlines = [self.rekey_at, self.expires_at, self.probe_at, self.keepalive_at];
        let of_parts = [self.outgoing.next_timeout(), self.channel.next_timeout()];
        deadlines
            .into_iter()
            .chain(of_parts)
            .flatten()
            .chain(self.children.iter().filter_map(|child| child.next_timeout()))
            .min()
    }

    pub(crate) fn handle_timeout(&mut self, cx: &mut Context) {
        self.channel.on_time(cx.now);
        self.on_silence(cx);
        self.on_age(cx);
        self.on_child_age(cx);
        if due(&mut self.keepalive_at, cx.now) {
            cx.transmit(self.path.local, self.path.remote, vec![0xff]);
            self.keepalive_at = Some(cx.now + cx.config.timing.nat_keepalive);
        }
    }

    /// The peer has not answered, or has not been heard of.
    fn on_silence(&mut self, cx: &mut Context) {
        match self.outgoing.on_time(cx.now, &cx.config.timing.retransmission) {
            Patience::Wait => {}
            Patience::SendAgain(request) => {
                cx.counters.requests_resent += 1;
                self.transmit_request(cx, request);
            }
            Patience::GiveUp => match self.active {
                Some(Active::DeleteIke(reason)) => self.finish(reason),
                Some(_) | None => self.finish(DownReason::PeerDead),
            },
        }
        // A request that waits for its response is a probe already.
        if due(&mut self.probe_at, cx.now) && !self.outgoing.is_waiting() {
            self.queue(Task::Probe);
        }
    }

    /// Whether it is time to ask the peer whether it lives. A request that waits for its response asks already.
    pub(crate) fn is_to_be_probed(&self, now: Instant) -> bool {
        self.probe_at.is_some_and(|at| at <= now) && !self.outgoing.is_waiting()
    }

    fn on_age(&mut self, cx: &mut Context) {
        if due(&mut self.rekey_at, cx.now) && self.is_current() {
            self.queue(Task::RekeyIke);
        }
        if due(&mut self.expires_at, cx.now) && !self.is_closing() {
            self.queue(Task::DeleteIke(DownReason::Expired));
        }
    }

    fn on_child_age(&mut self, cx: &mut Context) {
        let mut rekey: Vec<Spi> = Vec::new();
        let mut expired: Vec<Spi> = Vec::new();
        for child in &mut self.children {
            if due(&mut child.rekey_at, cx.now) {
                rekey.push(child.inbound);
            }
            if due(&mut child.expires_at, cx.now) {
                expired.push(child.inbound);
            }
        }
        rekey.into_iter().for_each(|inbound| self.queue(Task::RekeyChild(inbound)));
        for inbound in expired {
            self.expire_child(cx, inbound, DownReason::Expired);
        }
    }

    /// Ends a child at once and tells the peer.
    pub(crate) fn expire_child(&mut self, cx: &mut Context, inbound: Spi, reason: DownReason) {
        let already_asked = matches!(self.active, Some(Active::DeleteChild(asked, _)) if asked == inbound);
        if self.remove_child(cx, inbound, reason).is_some() && !already_asked {
            self.queue(Task::ReportGone(inbound));
        }
    }

    /// As if so many requests had gone each way.
    #[cfg(test)]
    pub(crate) fn renumber(&mut self, theirs: u32, ours: u32) {
        self.incoming = crate::window::Incoming::starting_at(theirs);
        self.outgoing = crate::window::Outgoing::starting_at(ours);
    }

    /// Asks for a new IKE SA before message IDs are used up.
    pub(crate) fn watch_message_ids(&mut self) {
        let used_up = self.incoming.is_nearly_used_up() || self.outgoing.is_nearly_used_up();
        if used_up && self.is_current() && !matches!(self.active, Some(Active::RekeyIke(_))) {
            self.queue(Task::RekeyIke);
        }
    }
}
