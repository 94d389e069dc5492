//! Counters with one writer and any number of readers.
//!
//! A counter is written by the core that owns it with a plain load and store; readers see a value that was true a
//! moment ago. No read-modify-write, no contention: each core's counters fill cache lines of their own.

use crate::burst::Drops;
use crate::drops::{DROP_REASONS, DropReason};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A monotonic count. One thread writes it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`. Only the owning thread calls this; concurrent writers would lose counts.
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Replaces the value: for gauges, and for totals summed elsewhere.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// The value as of a moment ago.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Where every packet that a core saw has ended: DESIGN §8 rule 4. Each term is counted where it happens.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Ledger {
    /// Frames taken from receive queues.
    pub received: Counter,
    /// Inner packets sent on an inside port.
    pub delivered: Counter,
    /// Packets sent on a network port: encrypted, or bypassed by policy.
    pub forwarded: Counter,
    /// Frames sent to other members on a trusted port.
    pub relayed: Counter,
    /// Frames given to the control core.
    pub punted: Counter,
    /// Fragments absorbed into another packet.
    pub merged: Counter,
    /// Packets that this core made: resets, and what members ask of each other. They were never received.
    pub made: Counter,
    /// Of these, those that went to a port; from there they count as originated.
    pub made_sent: Counter,
    /// Packets that wait on this core for a sequence number: a gauge.
    pub waiting: Counter,
    /// Frames that this appliance made and a port sent. They were never received.
    pub originated: Counter,
    /// Frames that this appliance made and no port had room for.
    pub originated_lost: Counter,
    /// Packets put into the rings to other cores. No end: the core that takes them out sees them to theirs.
    pub handed_over: Counter,
    /// Packets taken out of the rings from other cores.
    pub taken_over: Counter,
    drops: DropCounters,
}

#[derive(Debug)]
struct DropCounters([Counter; DROP_REASONS]);

impl Default for DropCounters {
    fn default() -> Self {
        DropCounters(std::array::from_fn(|_| Counter::default()))
    }
}

impl Ledger {
    /// Adds a burst's drops and empties them.
    pub fn add_drops(&self, drops: &mut Drops) {
        for (reason, count) in drops.iter() {
            if count != 0 {
                self.drops.0[reason as usize].add(count);
            }
        }
        *drops = Drops::default();
    }

    /// Packets dropped for one reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.0[reason as usize].get()
    }
}

/// The sums over several ledgers, as `phalanx show balance` shows them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    /// Frames taken from receive queues.
    pub received: u64,
    /// Inner packets sent on an inside port.
    pub delivered: u64,
    /// Packets sent on a network port.
    pub forwarded: u64,
    /// Frames sent to other members.
    pub relayed: u64,
    /// Frames given to the control core.
    pub punted: u64,
    /// Fragments absorbed.
    pub merged: u64,
    /// Packets dropped, over all reasons.
    pub dropped: u64,
    /// Frames of our own making that were sent.
    pub originated: u64,
    /// Packets that the data cores made, and that are not with a port yet: on their way like those received.
    pub making: u64,
    /// Packets waiting in the rings between cores (handed over and not yet taken over), or for a sequence number.
    pub held: u64,
}

impl Balance {
    /// Adds up `ledgers`: all of an appliance's, since one core's packets may wait for another.
    pub fn of<'a>(ledgers: impl IntoIterator<Item = &'a Ledger, IntoIter: Clone>) -> Balance {
        let ledgers = ledgers.into_iter();
        let sum = |of: fn(&Ledger) -> u64| ledgers.clone().map(of).sum::<u64>();
        // Against the direction of travel: a packet that moves on meanwhile then shows as received or as waiting, never
        // as an end without a start.
        let delivered = sum(|ledger| ledger.delivered.get());
        let forwarded = sum(|ledger| ledger.forwarded.get());
        let relayed = sum(|ledger| ledger.relayed.get());
        let punted = sum(|ledger| ledger.punted.get());
        let merged = sum(|ledger| ledger.merged.get());
        let dropped = sum(|ledger| DropReason::ALL.iter().map(|&reason| ledger.dropped(reason)).sum());
        let originated = sum(|ledger| ledger.originated.get());
        let waiting = sum(|ledger| ledger.waiting.get());
        let taken_over = sum(|ledger| ledger.taken_over.get());
        let held = waiting + sum(|ledger| ledger.handed_over.get()).saturating_sub(taken_over);
        let made_sent = sum(|ledger| ledger.made_sent.get());
        let making = sum(|ledger| ledger.made.get()).saturating_sub(made_sent);
        let received = sum(|ledger| ledger.received.get());
        Balance { received, delivered, forwarded, relayed, punted, merged, dropped, originated, making, held }
    }

    /// `received − every end − held`: zero whenever no core is in the middle of a burst. What the data cores are making
    /// counts as received, until it goes to a port as originated.
    pub fn difference(&self) -> i64 {
        let Balance { received, delivered, forwarded, relayed, punted, merged, dropped, making, held, .. } = *self;
        let ends = delivered + forwarded + relayed + punted + merged + dropped + held;
        (received + making).wrapping_sub(ends) as i64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_balance_shows_a_packet_that_ended_nowhere() {
        let ledger = Ledger::default();
        ledger.received.add(3);
        ledger.delivered.add(1);
        let mut drops = Drops::default();
        drops.end((), DropReason::SpiUnknown);
        ledger.add_drops(&mut drops);
        assert_eq!(drops.get(DropReason::SpiUnknown), 0, "drops are added once");
        assert_eq!(Balance::of([&ledger]).difference(), 1);
        ledger.handed_over.add(1);
        assert_eq!(Balance::of([&ledger]).difference(), 0);
    }

    #[test]
    fn a_packet_between_two_cores_is_held_until_the_other_takes_it() {
        let (giver, taker) = (Ledger::default(), Ledger::default());
        giver.received.add(1);
        giver.handed_over.add(1);
        let between = Balance::of([&giver, &taker]);
        assert_eq!((between.held, between.difference()), (1, 0));
        taker.taken_over.add(1);
        taker.delivered.add(1);
        let after = Balance::of([&giver, &taker]);
        assert_eq!((after.held, after.difference()), (0, 0));
    }
}
