//! Message IDs: a window of one in each direction (RFC 7296 §2.1 to §2.3).

use ipsec::time::Instant;

use crate::channel::Wire;
use crate::config::Retransmission;
use crate::kept::{RequestDigest, digest_of};
use crate::message::ExchangeType;

/// From here on the IKE SA must be replaced: message IDs never wrap (RFC 7296 §2.2).
pub(crate) const NEARLY_USED_UP: u32 = u32::MAX - 0x1_0000;

/// The peer's requests: which comes next, and what the last one was answered with.
pub(crate) struct Incoming {
    /// None once the last number of all has been answered: after that nothing is new any more.
    next: Option<u32>,
    last: Option<Answered>,
}

struct Answered {
    request: RequestDigest,
    response: Wire,
}

/// What a request's message ID makes of it, before its content is looked at.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival<'a> {
    /// The next one. To be believed once it has been authenticated.
    Next,
    /// The last one again, bit for bit: this is its response.
    Again(&'a Wire),
    /// Before the window, or under the last one's number but not the same.
    Old,
    /// Beyond the window.
    Ahead,
}

impl Incoming {
    pub(crate) fn starting_at(next: u32) -> Incoming {
        Incoming { next: Some(next), last: None }
    }

    pub(crate) fn judge(&self, message_id: u32, request: &[u8]) -> Arrival<'_> {
        if self.next == Some(message_id) {
            return Arrival::Next;
        }
        if self.next.is_some_and(|next| message_id > next) {
            return Arrival::Ahead;
        }
        match &self.last {
            Some(last) if message_id.checked_add(1) == self.next && digest_of(request) == last.request => {
                Arrival::Again(&last.response)
            }
            Some(_) | None => Arrival::Old,
        }
    }

    /// Remembers the response to the next request, which is thereby the last one.
    pub(crate) fn answered(&mut self, request: RequestDigest, response: Wire) {
        self.next = self.next.and_then(|next| next.checked_add(1));
        self.last = Some(Answered { request, response });
    }

    /// Takes the last request and its response, to be kept when the IKE SA is gone.
    pub(crate) fn into_last(self) -> Option<(RequestDigest, Wire)> {
        self.last.map(|last| (last.request, last.response))
    }

    pub(crate) fn is_nearly_used_up(&self) -> bool {
        self.next.is_none_or(|next| next >= NEARLY_USED_UP)
    }
}

/// Our requests: which number comes next, and the one without a response.
#[derive(Default)]
pub(crate) struct Outgoing {
    next: u32,
    waiting: Option<Waiting>,
}

struct Waiting {
    message_id: u32,
    exchange: ExchangeType,
    wire: Wire,
    sent: u8,
    again_at: Instant,
}

/// What to do when time has passed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Nothing yet.
    Wait,
    /// Send this again.
    SendAgain(Wire),
    /// The peer is dead.
    GiveUp,
}

impl Outgoing {
    pub(crate) fn starting_at(next: u32) -> Outgoing {
        Outgoing { next, waiting: None }
    }

    /// The number for the next request, unless one is still waiting or the numbers are used up.
    pub(crate) fn next_id(&self) -> Option<u32> {
        (self.waiting.is_none() && self.next < u32::MAX).then_some(self.next)
    }

    /// A request under [`next_id`](Self::next_id) leaves now.
    pub(crate) fn sent(&mut self, now: Instant, exchange: ExchangeType, wire: Wire, pace: &Retransmission) {
        let message_id = self.next;
        self.next = self.next.saturating_add(1);
        self.waiting = Some(Waiting { message_id, exchange, wire, sent: 1, again_at: now + pace.wait(1) });
    }

    /// Whether a response with this number answers what we wait for.
    pub(crate) fn awaits(&self, message_id: u32, exchange: ExchangeType) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.message_id == message_id && waiting.exchange == exchange)
    }

    /// The response has come and was authentic.
    pub(crate) fn received(&mut self) {
        self.waiting = None;
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|waiting| waiting.again_at)
    }

    pub(crate) fn on_time(&mut self, now: Instant, pace: &Retransmission) -> Patience {
        let Some(waiting) = self.waiting.as_mut().filter(|waiting| waiting.again_at <= now) else {
            return Patience::Wait;
        };
        if waiting.sent >= pace.tries {
            return Patience::GiveUp;
        }
        waiting.sent += 1;
        waiting.again_at = now + pace.wait(waiting.sent);
        Patience::SendAgain(waiting.wire.clone())
    }

    pub(crate) fn is_nearly_used_up(&self) -> bool {
        self.next >= NEARLY_USED_UP
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    #[test]
    fn hostile_24_an_old_request_gets_the_same_octets_and_everything_else_nothing() {
        let mut window = Incoming::starting_at(2);
        assert_eq!(window.judge(2, b"two"), Arrival::Next);
        assert_eq!(window.judge(1, b"one"), Arrival::Old);
        assert_eq!(window.judge(3, b"three"), Arrival::Ahead);
        assert_eq!(window.judge(u32::MAX, b"last"), Arrival::Ahead);
        let answer = Wire::from(b"answer".to_vec());
        window.answered(digest_of(b"two"), answer.clone());
        assert_eq!(window.judge(2, b"two"), Arrival::Again(&answer));
        assert_eq!(window.judge(2, b"Two"), Arrival::Old);
        assert_eq!(window.judge(3, b"three"), Arrival::Next);
        assert_eq!(window.judge(1, b"one"), Arrival::Old);
    }

    #[test]
    fn hostile_24_numbers_near_their_end_ask_for_a_new_ike_sa_and_never_wrap() {
        assert!(!Incoming::starting_at(NEARLY_USED_UP - 1).is_nearly_used_up());
        let mut window = Incoming::starting_at(u32::MAX);
        assert!(window.is_nearly_used_up());
        assert_eq!(window.judge(u32::MAX, b"last"), Arrival::Next);
        let answer = Wire::from(b"answer".to_vec());
        window.answered(digest_of(b"last"), answer.clone());
        assert!(window.is_nearly_used_up());
        // The last one is answered again like any other, and nothing comes after it.
        assert_eq!(window.judge(u32::MAX, b"last"), Arrival::Again(&answer));
        for (message_id, request) in [(u32::MAX, &b"other"[..]), (u32::MAX - 1, b"last"), (0, b"last"), (1, b"")] {
            assert_eq!(window.judge(message_id, request), Arrival::Old, "{message_id}");
        }
        let mut ours = Outgoing::starting_at(u32::MAX - 1);
        assert!(ours.is_nearly_used_up());
        ours.sent(Instant::ZERO, ExchangeType::Informational, Wire::default(), &Retransmission::default());
        ours.received();
        assert_eq!(ours.next_id(), None);
    }

    #[test]
    fn a_request_is_sent_again_with_growing_intervals_until_the_peer_counts_as_dead() {
        let pace = Retransmission { tries: 3, ..Retransmission::default() };
        let mut ours = Outgoing::default();
        assert_eq!(ours.next_id(), Some(0));
        ours.sent(Instant::ZERO, ExchangeType::Informational, b"ask".to_vec().into(), &pace);
        assert_eq!(ours.next_id(), None);
        assert!(ours.awaits(0, ExchangeType::Informational));
        assert!(!ours.awaits(0, ExchangeType::CreateChildSa) && !ours.awaits(1, ExchangeType::Informational));
        let mut now = Instant::ZERO;
        for seconds in [1, 2] {
            assert_eq!(ours.on_time(now, &pace), Patience::Wait);
            now += Duration::from_secs(seconds);
            assert_eq!(ours.next_timeout(), Some(now));
            assert_eq!(ours.on_time(now, &pace), Patience::SendAgain(b"ask".to_vec().into()));
        }
        now += Duration::from_secs(4);
        assert_eq!(ours.on_time(now, &pace), Patience::GiveUp);
        ours.received();
        assert_eq!((ours.next_id(), ours.next_timeout()), (Some(1), None));
    }
}
