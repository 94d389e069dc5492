//! What a core does when there is nothing to do.
//!
//! A dedicated core spins. On a shared core spinning is poison: it takes the processor from whoever would bring the next
//! packet. There the core polls on for a while, then yields, then sleeps for growing times.

use core::time::Duration;

/// How a data core waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdlePolicy {
    /// Never give the processor away: for cores that belong to the appliance alone.
    Spin,
    /// Poll, then yield, then sleep: for shared cores.
    Adaptive,
}

/// What to do before the next poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// Poll again at once.
    None,
    /// Let others run.
    Yield,
    /// Sleep this long.
    Sleep(Duration),
}

const POLLS_BEFORE_YIELD: u32 = 64;
const YIELDS_BEFORE_SLEEP: u32 = 16;
const SHORTEST_SLEEP: Duration = Duration::from_micros(50);
const LONGEST_SLEEP: Duration = Duration::from_micros(1000);

/// Counts empty polls and says what to do after each.
#[derive(Debug)]
pub struct Idle {
    policy: IdlePolicy,
    empty_polls: u32,
    sleep: Duration,
}

impl Idle {
    /// A core that has just done something.
    pub fn new(policy: IdlePolicy) -> Idle {
        Idle { policy, empty_polls: 0, sleep: SHORTEST_SLEEP }
    }

    /// Call after each poll with whether it found any work.
    pub fn after_poll(&mut self, busy: bool) -> Pause {
        if busy || self.policy == IdlePolicy::Spin {
            self.empty_polls = 0;
            self.sleep = SHORTEST_SLEEP;
            return Pause::None;
        }
        self.empty_polls = self.empty_polls.saturating_add(1);
        if self.empty_polls <= POLLS_BEFORE_YIELD {
            return Pause::None;
        }
        if self.empty_polls <= POLLS_BEFORE_YIELD + YIELDS_BEFORE_SLEEP {
            return Pause::Yield;
        }
        let sleep = self.sleep;
        self.sleep = (sleep + sleep / 2).min(LONGEST_SLEEP);
        Pause::Sleep(sleep)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idleness_grows_to_a_bounded_sleep_and_work_ends_it() {
        let mut idle = Idle::new(IdlePolicy::Adaptive);
        let mut longest = Duration::ZERO;
        for _ in 0..200 {
            if let Pause::Sleep(sleep) = idle.after_poll(false) {
                assert!(sleep >= longest);
                longest = sleep;
            }
        }
        assert_eq!(longest, LONGEST_SLEEP);
        assert_eq!(idle.after_poll(true), Pause::None);
        assert_eq!(idle.after_poll(false), Pause::None);
    }

    #[test]
    fn a_dedicated_core_never_pauses() {
        let mut idle = Idle::new(IdlePolicy::Spin);
        assert!((0..1000).all(|_| idle.after_poll(false) == Pause::None));
    }
}
