//! IVs that never repeat under one key, whoever sends (RFC 6054).
//!
//! An IV is a sender's 16-bit id, then the sender's own 48-bit counter. Two senders differ in the first part, two
//! packets of one sender in the second. Ids are the low bits of a number that is drawn once for each core of each start
//! of each appliance, from one counter that survives restarts; so an id comes around again only after 65,536 draws, and
//! an SA refuses senders that are 2^15 or more draws away from its birth.

use core::fmt;

/// A sender's number from the cluster-wide counter, never drawn twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SenderNumber(pub u64);

/// The 16 bits that make one sender's IVs differ from every other's under one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SenderId(u16);

/// Senders this many draws apart may share an id; an SA admits only those nearer to its birth than half the ids.
pub const SENDER_DISTANCE_MAX: u64 = 1 << 15;

/// One more than the highest counter of one sender.
const COUNTER_END: u64 = 1 << 48;

impl SenderNumber {
    /// The id that goes into IVs.
    #[must_use]
    pub const fn id(self) -> SenderId {
        SenderId(self.0 as u16)
    }

    /// Whether this sender may use the key of an SA that was born when the counter stood at `birth`.
    ///
    /// All senders for which this holds lie within fewer than 2^16 draws, so no two of them share an id.
    #[must_use]
    #[inline]
    pub const fn may_use_key_born_at(self, birth: Self) -> bool {
        self.0.abs_diff(birth.0) < SENDER_DISTANCE_MAX
    }
}

impl SenderId {
    /// The id as a number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for SenderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#06x}", self.0)
    }
}

/// An IV that was never used. It is spent by use and cannot be copied.
#[derive(Debug, PartialEq, Eq)]
pub struct Iv([u8; 8]);

impl Iv {
    /// Spends it.
    #[inline]
    pub(crate) fn spend(self) -> [u8; 8] {
        self.0
    }
}

/// The sender has used all its 2^48 IVs and must draw a new number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sender has used all its IVs")]
pub struct IvsExhausted;

/// Makes the IVs of one sender: one core of one start of one appliance. It serves all SAs of that core.
///
/// Neither `Clone` nor restorable: a counter that went back would repeat IVs.
#[derive(Debug)]
pub struct IvGenerator {
    sender: SenderNumber,
    next: u64,
}

impl IvGenerator {
    /// A generator for a number that was just drawn and that nobody else will ever hold.
    #[must_use]
    pub const fn new(sender: SenderNumber) -> Self {
        Self { sender, next: 0 }
    }

    /// A generator that stands somewhere, to test with published vectors.
    #[cfg(test)]
    pub(crate) fn standing_at(sender: SenderNumber, next: u64) -> Self {
        Self { sender, next }
    }

    /// Whose IVs these are.
    #[must_use]
    #[inline]
    pub const fn sender(&self) -> SenderNumber {
        self.sender
    }

    /// How many IVs are left, so that a new number can be drawn in time.
    #[must_use]
    pub const fn remaining(&self) -> u64 {
        COUNTER_END - self.next
    }

    /// The next IV.
    ///
    /// # Errors
    /// [`IvsExhausted`] after 2^48, from then on.
    #[inline]
    pub fn next_iv(&mut self) -> Result<Iv, IvsExhausted> {
        if self.next == COUNTER_END {
            return Err(IvsExhausted);
        }
        let bits = u64::from(self.sender.id().get()) << 48 | self.next;
        self.next += 1;
        Ok(Iv(bits.to_be_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_iv_is_the_senders_id_then_its_counter() {
        let mut ivs = IvGenerator::new(SenderNumber(0x5_abcd));
        assert_eq!(ivs.next_iv(), Ok(Iv([0xab, 0xcd, 0, 0, 0, 0, 0, 0])));
        assert_eq!(ivs.next_iv(), Ok(Iv([0xab, 0xcd, 0, 0, 0, 0, 0, 1])));
        assert_eq!(ivs.sender().id().to_string(), "0xabcd");
    }

    #[test]
    fn a_sender_stops_before_its_counter_would_reach_the_id() {
        let mut ivs = IvGenerator { sender: SenderNumber(1), next: COUNTER_END - 1 };
        assert_eq!(ivs.remaining(), 1);
        assert_eq!(ivs.next_iv(), Ok(Iv([0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])));
        assert_eq!(ivs.next_iv(), Err(IvsExhausted));
        assert_eq!(ivs.next_iv(), Err(IvsExhausted));
        assert_eq!(ivs.remaining(), 0);
    }

    #[test]
    fn senders_that_one_sa_admits_never_share_an_id() {
        let birth = SenderNumber(1_000_000);
        let admitted: Vec<_> =
            (900_000..1_100_000).map(SenderNumber).filter(|n| n.may_use_key_born_at(birth)).collect();
        assert_eq!(admitted.first(), Some(&SenderNumber(1_000_000 - 32_767)));
        assert_eq!(admitted.last(), Some(&SenderNumber(1_000_000 + 32_767)));
        let ids: BTreeSet<u16> = admitted.iter().map(|n| n.id().get()).collect();
        assert_eq!(ids.len(), admitted.len());
    }
}
