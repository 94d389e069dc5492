//! What goes in and comes out of the decision who sends on which of a peer's SAs.

use core::time::Duration;

use ipsec::Spi;

use crate::id::{ChildId, MemberId};
use crate::member::{NumberSource, SequencePolicy};
use crate::shadow::Use;

/// How a DVIPA's peers are sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderSettings {
    /// What the operator wants.
    pub policy: SequencePolicy,
    /// Most siblings of one peer.
    pub siblings_max: u8,
    /// The owner: this member.
    pub owner: MemberId,
    /// No other member is configured to send: nothing is to be shared.
    pub is_alone: bool,
    /// A member that has wanted numbers within so long has traffic.
    pub traffic_memory: Duration,
    /// The only sender that wants numbers without a pause for so long gets a sibling too.
    pub busy_after: Duration,
    /// Two wishes so far apart have a pause between them.
    pub pause: Duration,
    /// Pause after the first sibling that failed; doubled for each that fails soon after.
    pub back_off_min: Duration,
    /// The longest such pause.
    pub back_off_max: Duration,
    /// A request that was not answered for so long counts as failed.
    pub answer_within: Duration,
}

impl SenderSettings {
    /// The usual times.
    #[must_use]
    pub const fn new(policy: SequencePolicy, siblings_max: u8, owner: MemberId, is_alone: bool) -> Self {
        Self {
            policy,
            siblings_max,
            owner,
            is_alone,
            traffic_memory: Duration::from_secs(10),
            busy_after: Duration::from_secs(1),
            pause: Duration::from_millis(250),
            back_off_min: Duration::from_secs(10),
            back_off_max: Duration::from_secs(600),
            answer_within: Duration::from_secs(180),
        }
    }
}

/// Why members share an SA though they should not have to. Shown to operators and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fallback {
    /// A sibling has been asked for.
    SiblingAsked,
    /// The peer has not yet sent anything on the newest sibling.
    SiblingUnproven,
    /// The peer has as many siblings as it may.
    SiblingsFull,
    /// A sibling failed or was deleted not long ago.
    BackingOff,
    /// The peer refuses siblings.
    SiblingsRefused,
}

impl Fallback {
    /// Every one, for metrics.
    pub const ALL: [Self; 5] =
        [Self::SiblingAsked, Self::SiblingUnproven, Self::SiblingsFull, Self::BackingOff, Self::SiblingsRefused];

    /// In views and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SiblingAsked => "sibling_asked",
            Self::SiblingUnproven => "sibling_unproven",
            Self::SiblingsFull => "siblings_full",
            Self::BackingOff => "backing_off",
            Self::SiblingsRefused => "siblings_refused",
        }
    }
}

/// A CHILD_SA that has come up, or stood already when this member became the owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// Which.
    pub child: ChildId,
    /// How IKE says it may be used at first.
    pub usage: Use,
    /// The inbound SPI of the SA that it replaces.
    pub replaces: Option<Spi>,
    /// The inbound SPI of the SA whose sibling it is.
    pub sibling_of: Option<Spi>,
    /// What the owner before had made of it. `None` at its birth.
    pub restored: Option<Restored>,
}

/// What a new owner finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Who numbers it alone, if anyone.
    pub sender: Option<MemberId>,
    /// Whether the peer has sent on it.
    pub is_proven: bool,
}

/// What changes, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// IKE asks the peer for a sibling of this SA.
    Ask(ChildId),
    /// The owner gives this SA's numbers out from here on: its dispenser, or its leases, begin anew.
    Dispense {
        /// Which SA.
        child: ChildId,
        /// The first number that nobody can have used.
        from: u64,
    },
    /// A member sends on this SA with numbers from there.
    Numbers {
        /// Who.
        member: MemberId,
        /// On which SA.
        child: ChildId,
        /// Whose numbers.
        source: NumberSource,
    },
    /// A member sends nothing on this SA.
    Silence {
        /// Who.
        member: MemberId,
        /// On which SA.
        child: ChildId,
    },
    /// A member sends on this SA before all others of the peer.
    Prefer {
        /// Who.
        member: MemberId,
        /// On which SA.
        child: ChildId,
    },
}
