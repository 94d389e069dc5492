//! Why datagrams are not acted upon, and how often what happened.

/// Declares the reasons once: name for metrics, and one sentence for the operator.
macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $sentence:literal;)*) => {
        /// Why a datagram, to us or from us, was dropped without an answer.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum DropReason {
            $(#[doc = $sentence] $variant,)*
        }

        impl DropReason {
            /// All of them.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant),*];

            /// Its name in metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(DropReason::$variant => $name,)*
                }
            }

            /// What it means, for the operator.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(DropReason::$variant => $sentence,)*
                }
            }
        }

        const DROP_REASONS: usize = DropReason::ALL.len();
    };
}

drop_reasons! {
    TooLong = "ike_too_long", "Longer than any datagram that is looked at.";
    Header = "ike_header", "Too short, or the IKE header's length is not the datagram's.";
    Version = "ike_version", "Another major version of IKE.";
    UnknownSa = "ike_unknown_sa", "The SPIs name no IKE SA.";
    UnexpectedExchange = "ike_unexpected_exchange", "The exchange has no place in the IKE SA's state.";
    Malformed = "ike_malformed", "Malformed, from a sender who proved nothing.";
    NotEncrypted = "ike_not_encrypted", "In the clear where only protected messages count.";
    NotAuthentic = "ike_not_authentic", "The integrity check failed.";
    UnwantedFragment = "ike_unwanted_fragment", "An authentic fragment that came twice, contradicts the others or is too much.";
    AttemptsExhausted = "ike_attempts_exhausted", "A half-open IKE SA was given up after too many failed IKE_AUTH messages.";
    OldMessageId = "ike_old_message_id", "A request that was answered long ago, or not the one that was answered.";
    FutureMessageId = "ike_future_message_id", "A request beyond the window.";
    UnexpectedResponse = "ike_unexpected_response", "A response to no request of ours.";
    HalfOpenFull = "ike_half_open_full", "No room for another half-open IKE SA.";
    SaTableFull = "ike_sa_table_full", "No room for another IKE SA.";
    ErrorReplyHeldBack = "ike_error_reply_held_back", "An error message was not sent: too many of them already.";
    TransmitQueueFull = "ike_transmit_queue_full", "A datagram of ours was dropped: the queue is full.";
    NotServed = "ike_not_served", "To or from an address that this appliance does not own now.";
    ShuttingDown = "ike_shutting_down", "A new IKE SA while shutting down.";
}

/// What happened, counted since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    drops: [u64; DROP_REASONS],
    /// Datagrams handed in.
    pub datagrams_received: u64,
    /// Datagrams handed out.
    pub datagrams_sent: u64,
    /// Requests of the peer that came again and got the same response again.
    pub requests_repeated: u64,
    /// Requests of ours that were sent again.
    pub requests_resent: u64,
    /// Fragments kept until the rest of their message comes.
    pub fragments_kept: u64,
    /// Cookies asked for.
    pub cookies_sent: u64,
    /// Cookies that came back good.
    pub cookies_accepted: u64,
    /// Key exchanges computed.
    pub key_exchanges: u64,
    /// Half-open IKE SAs begun.
    pub half_open_begun: u64,
    /// Half-open IKE SAs that were given up.
    pub half_open_expired: u64,
    /// Requests refused with an error.
    pub refused: u64,
    /// Of these, failed authentications.
    pub authentication_failed: u64,
    /// IKE SAs authenticated, not counting those made by rekeying.
    pub ike_up: u64,
    /// IKE SAs made by rekeying.
    pub ike_rekeyed: u64,
    /// Peers gone, for whatever reason.
    pub ike_down: u64,
    /// CHILD_SAs installed.
    pub child_up: u64,
    /// Of these, siblings that we have asked for.
    pub siblings_up: u64,
    /// CHILD_SAs gone.
    pub child_down: u64,
    /// Simultaneous rekeyings that were settled.
    pub collisions: u64,
    /// Peers that stopped answering.
    pub peers_dead: u64,
}

impl Counters {
    pub(crate) fn drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// How many datagrams were dropped for this reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Every drop reason with its count.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&reason| (reason, self.dropped(reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_name_and_place() {
        let mut counters = Counters::default();
        for (place, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, place);
            counters.drop(reason);
            assert_eq!(counters.dropped(reason), 1);
            assert!(!reason.sentence().is_empty());
            assert!(DropReason::ALL[..place].iter().all(|other| other.name() != reason.name()));
        }
    }
}
