//! Bounds and times. Each bound is a promise about memory: what is full refuses, drops or evicts, and counts it.

use core::time::Duration;

/// Bounds on what strangers and peers can make us keep and do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// IKE SAs that have been authenticated. Those that are being replaced keep a reserve: with them there may be an
    /// eighth more.
    pub ike_sas: usize,
    /// IKE SAs that one identity may begin in one connection and have at once, at least one. One more ends the oldest,
    /// which is most likely one that the peer has forgotten: without this a single peer could take every place, and
    /// with INITIAL_CONTACT it says itself that the others are gone. A connection may say otherwise for itself.
    pub ike_sas_per_identity: usize,
    /// IKE SAs of one peer that others have replaced and nobody has deleted yet, at least one. One more ends the oldest.
    pub replaced_ike_sas: usize,
    /// IKE SAs between IKE_SA_INIT and IKE_AUTH, as responder.
    pub half_open: usize,
    /// From this many half-open IKE SAs on, everyone must return a cookie first.
    pub cookie_threshold: usize,
    /// From this many half-open IKE SAs of one address on, that address must return a cookie first.
    pub cookie_threshold_per_address: usize,
    /// IKE_AUTH messages that may fail their integrity check before the half-open IKE SA is given up.
    pub auth_attempts: u8,
    /// CHILD_SAs of one IKE SA that are in use; one more while both sides replace the same one at once.
    pub children: usize,
    /// CHILD_SAs of one IKE SA that others have replaced and nobody has deleted yet, at least one. One more ends the
    /// oldest of them, so that replacing without end is possible and costs no memory.
    pub replaced_children: usize,
    /// Octets of a datagram that is looked at.
    pub datagram_bytes: usize,
    /// Octets of a message of ours before it is fragmented, if the peer can do with fragments (RFC 7383). The default
    /// fits, with IPv6, UDP and the non-ESP marker, into the 1,280 octets that every IPv6 link carries.
    pub message_bytes: usize,
    /// Octets of fragments that are kept until their message is complete, of one request and of one response for each
    /// IKE SA. No message comes in more than 64.
    pub assembly_bytes: usize,
    /// Octets of an IKE_SA_INIT request, which must be kept until IKE_AUTH.
    pub init_bytes: usize,
    /// Final responses (to IKE_SA_INIT, to a failed IKE_AUTH, of a deleted IKE SA) kept for retransmitted requests.
    pub kept_responses: usize,
    /// Datagrams waiting in `poll_transmit`.
    pub transmit_queue: usize,
    /// Unprotected error messages sent per second to all addresses together.
    pub error_replies_per_second: u32,
    /// Refusals reported as events per second; all are counted.
    pub reports_per_second: u32,
}

impl Limits {
    /// IKE SAs, those included that others are about to replace. However small the table, one can be replaced.
    #[must_use]
    pub fn ike_sas_with_replaced(&self) -> usize {
        self.ike_sas + (self.ike_sas / 8).max(self.replaced_ike_sas.max(1))
    }

    /// Requests of ours that may wait for one peer. An honest peer never lets so many gather.
    pub(crate) fn waiting_requests(&self) -> usize {
        self.children + self.replaced_children
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            ike_sas: 16_384,
            ike_sas_per_identity: 16,
            replaced_ike_sas: 2,
            half_open: 4_096,
            cookie_threshold: 64,
            cookie_threshold_per_address: 8,
            auth_attempts: 8,
            children: 32,
            replaced_children: 8,
            datagram_bytes: 16_384,
            message_bytes: 1_228,
            assembly_bytes: 16_384,
            init_bytes: 4_096,
            kept_responses: 8_192,
            transmit_queue: 4_096,
            error_replies_per_second: 50,
            reports_per_second: 20,
        }
    }
}

/// How long things take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Requests of ours without a response.
    pub retransmission: Retransmission,
    /// A half-open IKE SA without IKE_AUTH.
    pub half_open: Duration,
    /// A final response is kept for retransmitted requests.
    pub kept_response: Duration,
    /// A cookie is good for at least this and at most twice this.
    pub cookie: Duration,
    /// After a failed attempt to rekey.
    pub retry: Duration,
    /// CHILD_SAs that have siblings are replaced after this part of their soft lifetime, in percent, 100 at most: well
    /// before a peer would, for some peers let all but one of them end when they replace one.
    pub sibling_rekey_percent: u32,
    /// A CHILD_SA that the peer replaced and did not delete.
    pub replaced_child: Duration,
    /// The longest that shutting down may take.
    pub shutdown: Duration,
    /// Between keepalives when we are behind a NAT (RFC 3948 §2.3).
    pub nat_keepalive: Duration,
    /// Between two moves of a peer behind a NAT that only its ESP has shown.
    pub follow_again: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            retransmission: Retransmission::default(),
            half_open: Duration::from_secs(30),
            kept_response: Duration::from_secs(60),
            cookie: Duration::from_secs(30),
            retry: Duration::from_secs(5),
            sibling_rekey_percent: 60,
            replaced_child: Duration::from_secs(60),
            shutdown: Duration::from_secs(3),
            nat_keepalive: Duration::from_secs(20),
            follow_again: Duration::from_millis(100),
        }
    }
}

/// When an unanswered request is sent again (RFC 7296 §2.1, §2.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retransmission {
    /// After the first sending.
    pub first: Duration,
    /// Each interval is this much longer than the one before, in percent: 200 doubles.
    pub growth_percent: u32,
    /// No interval is longer.
    pub longest: Duration,
    /// After this many sendings without a response the peer counts as dead.
    pub tries: u8,
}

impl Retransmission {
    /// How long to wait after the `sent`-th sending, counted from one.
    pub(crate) fn wait(&self, sent: u8) -> Duration {
        let mut interval = self.first;
        for _ in 1..sent {
            interval = (interval * self.growth_percent / 100).min(self.longest);
        }
        interval.min(self.longest)
    }
}

impl Default for Retransmission {
    fn default() -> Retransmission {
        Retransmission {
            first: Duration::from_secs(1),
            growth_percent: 200,
            longest: Duration::from_secs(16),
            tries: 6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_double_up_to_the_longest() {
        let retransmission = Retransmission::default();
        let seconds: Vec<u64> = (1..=7).map(|sent| retransmission.wait(sent).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 16, 16]);
    }
}
