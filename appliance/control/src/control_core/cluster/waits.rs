//! What is told once every data core has executed what it was told before.

use core::net::IpAddr;
use std::collections::VecDeque;

use cluster::id::ChildId;

use crate::control_core::cores::{Cores, Mark};

/// What is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// An SA stands on every core.
    Installed(ChildId),
    /// All that was told before is done on every core.
    Heard {
        /// Of whoever waits for it.
        ticket: u64,
        /// What the SAs of this address have carried by then is told first.
        tops_of: Option<IpAddr>,
    },
}

/// What waits for the cores, in order.
#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Not yet bound to a mark: more commands that belong to them may follow in this turn.
    fresh: Vec<Then>,
    waiting: VecDeque<(Mark, Then)>,
}

impl Waits {
    /// Tells this once the cores have executed all that they are told up to the next [`Waits::bind`].
    pub(super) fn add(&mut self, then: Then) {
        self.fresh.push(then);
    }

    /// All that belongs to what was added has been told to the cores.
    pub(super) fn bind<B>(&mut self, cores: &Cores<B>) {
        if !self.fresh.is_empty() {
            let mark = cores.mark();
            self.waiting.extend(self.fresh.drain(..).map(|then| (mark.clone(), then)));
        }
    }

    /// The next that may be told.
    pub(super) fn next<B>(&mut self, cores: &Cores<B>) -> Option<Then> {
        let (mark, _) = self.waiting.front()?;
        if !cores.have_passed(mark) {
            return None;
        }
        self.waiting.pop_front().map(|(_, then)| then)
    }
}
