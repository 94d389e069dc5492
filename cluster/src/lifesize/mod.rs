//! The lifesize of an SA that many appliances use (DESIGN §6): what each may carry, what each has carried, and when IKE
//! must replace the SA.
//!
//! **Purpose.** One [`OwnerLedger`] for each half of an SA stands at its owner, which grants each target an absolute
//! *ceiling* of bytes and packets; a [`MemberLedger`] for the same half stands at each target, which says what it has
//! used and asks for more. The owner is a target of its own by the same code.
//!
//! **Promises.** All ceilings together never exceed the hard limit, so neither does what is carried: the overrun is zero
//! as long as one owner keeps the ledger, whatever reports and grants are lost, repeated or reordered and whoever dies;
//! [`OwnerLedger::overrun_bound`] says what a change of the owner adds. The soft limit is told by the report with which it
//! may be reached, early by what members may leave unreported; late by no more than what was carried while that report
//! was under way, and at the very latest when nothing is left to grant. What is reported as used never exceeds what was
//! carried; with what is granted and charged it is never less.
//! Everything that travels is a total that only grows, so each message may come twice, late, or never.
//!
//! **What it never does.** It counts no packet: the data cores do. It lowers no ceiling: a member gives back by saying
//! how much it has taken out of its own pool for good.

mod member;
mod owner;
mod percentage;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use member::{MemberLedger, MemberTimes, OwnerWatch};
pub use owner::{CeilingGrant, LedgerRefused, LedgerView, OwnerLedger};
pub use percentage::{Percentage, Refresh};

use ipsec::lifetime::{Lifetime, Limits};
use serde::{Deserialize, Serialize};

/// The longest packet that one SA can carry, in inner bytes. A grant that is smaller could stop a connection for good.
pub const PACKET_BYTES_MAX: u64 = 65_535;

/// Without one of the two limits, all members together are granted at most this part of the other at once.
const PART_WITHOUT_ROOM: u64 = 8;

/// Inner bytes and packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Inner bytes.
    pub bytes: u64,
    /// Packets.
    pub packets: u64,
}

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self { bytes: 0, packets: 0 };
    /// As much as one likes.
    pub const UNLIMITED: Self = Self { bytes: u64::MAX, packets: u64::MAX };

    /// From what [`crate::member::SaUse`] and [`crate::member::Action::Ceiling`] say.
    #[must_use]
    pub const fn of((bytes, packets): (u64, u64)) -> Self {
        Self { bytes, packets }
    }

    /// As [`crate::member::Action::Ceiling`] says it.
    #[must_use]
    pub const fn pair(self) -> (u64, u64) {
        (self.bytes, self.packets)
    }

    /// The larger of each.
    #[must_use]
    pub fn max(self, other: Self) -> Self {
        Self::both(self, other, u64::max)
    }

    /// The smaller of each.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self::both(self, other, u64::min)
    }

    /// The sum of each, at most [`u64::MAX`].
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self::both(self, other, u64::saturating_add)
    }

    /// The difference of each, at least 0.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self::both(self, other, u64::saturating_sub)
    }

    /// Whether neither of it is less than the other's.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.bytes >= other.bytes && self.packets >= other.packets
    }

    fn both(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self { bytes: f(self.bytes, other.bytes), packets: f(self.packets, other.packets) }
    }
}

/// What one SA's lifesize lets its owner grant. The same for both halves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantLimits {
    /// The limits of bytes.
    pub bytes: Limits,
    /// The limits of packets.
    pub packets: Limits,
    /// The most that one member is granted beyond what it has used (`g_max`). [`u64::MAX`] where there is no limit.
    pub grant_max: Amount,
    /// How many members may hold grants at once.
    pub members_max: u16,
}

/// The room between soft and hard limit is too small for so many targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{members_max} members leave {found} bytes for each between the soft and the hard limit; \
     at least {PACKET_BYTES_MAX} are needed: set the limits wider apart"
)]
pub struct GrantTooSmall {
    /// How many members there may be.
    pub members_max: u16,
    /// What each would be granted.
    pub found: u64,
}

impl GrantLimits {
    /// For an SA of this lifetime that at most so many members use: all grants together fit between the soft and the
    /// hard limit, so that an SA that has reached its soft limit still serves every one of them.
    ///
    /// # Errors
    /// [`GrantTooSmall`] if a grant could not carry the longest packet.
    pub fn new(lifetime: &Lifetime, members_max: u16) -> Result<Self, GrantTooSmall> {
        let members_max = members_max.max(1);
        let grant_max = Amount {
            bytes: grant_max(lifetime.bytes, members_max),
            packets: grant_max(lifetime.packets, members_max).max(1),
        };
        if grant_max.bytes < PACKET_BYTES_MAX {
            return Err(GrantTooSmall { members_max, found: grant_max.bytes });
        }
        Ok(Self { bytes: lifetime.bytes, packets: lifetime.packets, grant_max, members_max })
    }
}

/// What a percentage of the lifesize is a percentage of. `None` without a limit.
fn whole(limits: Limits) -> Option<u64> {
    limits.hard.or(limits.soft)
}

fn grant_max(limits: Limits, members_max: u16) -> u64 {
    let room = match (limits.soft, limits.hard) {
        (None, None) => return u64::MAX,
        (Some(soft), Some(hard)) => hard.saturating_sub(soft),
        (Some(whole), None) | (None, Some(whole)) => whole / PART_WITHOUT_ROOM,
    };
    room / u64::from(members_max)
}

/// What a member says of one half of an SA. Totals of this start of it, since the SA's birth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What it has carried.
    pub used: Amount,
    /// What it has taken out of its pool for good, unused.
    pub returned: Amount,
    /// The ceiling that it knows, which acknowledges the grant of it.
    pub ceiling: Amount,
    /// Whether half of its last grant is used.
    pub wants: bool,
}
