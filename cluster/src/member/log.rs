//! The last changes of a DVIPA's SAs, numbered without gap, as many as may be remembered for members that lag.

use std::collections::VecDeque;

use crate::message::Delta;

/// Changes 1, 2, 3 …; the oldest are forgotten first.
#[derive(Debug)]
pub(super) struct Log {
    deltas: VecDeque<Delta>,
    /// The number of the last change; 0 before the first.
    last: u64,
    deltas_max: usize,
}

impl Log {
    pub fn new(deltas_max: usize) -> Log {
        Log { deltas: VecDeque::new(), last: 0, deltas_max }
    }

    /// The number of the last change.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Adds a change; its number.
    pub fn push(&mut self, delta: Delta) -> u64 {
        if self.deltas.len() == self.deltas_max {
            self.deltas.pop_front();
        }
        self.deltas.push_back(delta);
        self.last += 1;
        self.last
    }

    /// Whether everything after this number is still here.
    pub fn reaches_back_to(&self, number: u64) -> bool {
        number <= self.last && self.last - number <= self.deltas.len() as u64
    }

    /// The changes after this number, oldest first; none if they are forgotten.
    pub fn after(&self, number: u64) -> impl Iterator<Item = &Delta> {
        let missed = if self.reaches_back_to(number) { (self.last - number) as usize } else { 0 };
        self.deltas.iter().skip(self.deltas.len() - missed)
    }
}

#[cfg(test)]
mod tests {
    use ipsec::Spi;

    use super::*;
    use crate::message::{Departed, ShortReason};

    fn delta(number: u32) -> Delta {
        let spi = Spi::new(1_000 + number).unwrap();
        Delta::Gone(Departed { spi, lingers: false, why: ShortReason::Deleted })
    }

    #[test]
    fn gives_what_is_held_and_says_what_is_not() {
        let mut log = Log::new(3);
        assert!(log.reaches_back_to(0));
        assert_eq!(log.after(0).count(), 0);
        for number in 1..=5 {
            assert_eq!(log.push(delta(number)), u64::from(number));
        }
        assert!(!log.reaches_back_to(1), "changes 1 and 2 are forgotten");
        assert!(log.reaches_back_to(2));
        assert!(!log.reaches_back_to(6), "a position that never was");
        let held: Vec<_> = log.after(2).cloned().collect();
        assert_eq!(held, [delta(3), delta(4), delta(5)]);
        assert_eq!(log.after(4).count(), 1);
        assert_eq!(log.after(1).count(), 0);
    }
}
