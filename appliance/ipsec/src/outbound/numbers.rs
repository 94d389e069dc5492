//! Which numbers an outbound SA uses, and in which order.
//!
//! **Purpose.** An SA's home core numbers it by itself, below a mark that control raises when it stands in a durable
//! place; or somebody else numbers it and grants ranges. [`Run`] is all that a packet looks at; [`Supply`] makes the next
//! run when one is used up.
//!
//! **Promises.** A number is given once: whatever happens to source, mark and grants, the next one is higher than all
//! before. By itself an SA uses no number at or above the mark. Granted ranges are used in order, oldest first.
//!
//! **What it never does.** It compares no grant with the mark: who grants holds the numbers below one already.

use super::{GRANTS_MAX, OutboundError};

/// Without ESN, replace the SA once half of its 2^32 numbers are used.
pub(super) const SOFT_SEQUENCE: u64 = 1 << 31;
/// Without ESN, the first number that is none. It would be 0 on the wire.
pub(super) const END_SHORT: u64 = 1 << 32;
/// With ESN, the first number that is not used, so that an end can always be said.
pub(super) const END_EXTENDED: u64 = u64::MAX;

/// Numbers that can be used without another look.
#[derive(Debug)]
pub(super) struct Run {
    /// The next one.
    pub next: u64,
    /// The first that is not in it.
    end: u64,
}

/// A number that a packet may have.
pub(super) struct Number {
    pub sequence: u64,
    /// With it the SA should be replaced. To be told to [`Supply::said_soft`].
    pub is_soft: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Own,
    Granted,
}

/// Consecutive numbers: the first, and the first behind them.
#[derive(Clone, Copy, Debug, Default)]
struct Block {
    first: u64,
    end: u64,
}

/// Where runs come from.
#[derive(Debug)]
pub(super) struct Supply {
    /// Granted: the end of the block that is being used, or of the last one that was.
    until: u64,
    /// Granted: what comes after that block, in ascending order.
    waiting: [Block; GRANTS_MAX - 1],
    waiting_len: u8,
    source: Source,
    soft_said: bool,
}

/// Why a grant is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantRefused {
    /// The SA is numbered here.
    #[error("the SA numbers itself here and takes no grants")]
    NumberedHere,
    /// It holds no number, or some that no packet can carry.
    #[error("the grant holds no numbers, or some that no packet of the SA can carry")]
    NoNumbers,
    /// It begins below what was granted or used before: a message that came twice or was overtaken.
    #[error("the grant begins at {first}, but numbers up to {taken} were granted or used before")]
    Behind {
        /// Where it begins.
        first: u64,
        /// The highest number that was granted or used.
        taken: u64,
    },
    /// [`GRANTS_MAX`] grants are held.
    #[error("no more than {GRANTS_MAX} grants are held at once")]
    Full,
}

impl Run {
    /// Begins with this number, or with 1. Empty until the supply fills it.
    pub fn starting_with(first: u64) -> Self {
        Self { next: first.max(1), end: 0 }
    }

    /// The next number, if nothing stands against it.
    #[inline]
    pub fn peek(&self) -> Option<u64> {
        (self.next < self.end).then_some(self.next)
    }

    /// The number is used. It is below the end, so there is one more.
    #[inline]
    pub fn take(&mut self, sequence: u64) {
        self.next = sequence + 1;
    }
}

impl Supply {
    pub fn own() -> Self {
        Self::from(Source::Own, 0)
    }

    pub fn granted(run: &Run) -> Self {
        Self::from(Source::Granted, run.next)
    }

    fn from(source: Source, until: u64) -> Self {
        Self { until, waiting: [Block::default(); GRANTS_MAX - 1], waiting_len: 0, source, soft_said: false }
    }

    pub fn is_own(&self) -> bool {
        self.source == Source::Own
    }

    /// Makes the next run, and says its first number. `end` is where the SA's numbers end for good.
    ///
    /// # Errors
    /// `SequenceExhausted`, `MarkReached`, `NoNumber`. The next number stays what it was.
    #[cold]
    pub fn refill(&mut self, run: &mut Run, mark: u64, end: u64) -> Result<Number, OutboundError> {
        let until = match self.source {
            Source::Own => mark,
            Source::Granted => self.granted_until(run)?,
        };
        if run.next >= end {
            return Err(OutboundError::SequenceExhausted);
        }
        if run.next >= until {
            return Err(OutboundError::MarkReached);
        }
        let until = until.min(end);
        let is_soft = end == END_SHORT && !self.soft_said && run.next >= SOFT_SEQUENCE;
        run.end = match (end, self.soft_said) {
            // A packet that is refused for something else leaves the number, and what there is to say of it, to the next.
            (END_SHORT, false) => until.min(SOFT_SEQUENCE),
            (_, _) => until,
        };
        Ok(Number { sequence: run.next, is_soft })
    }

    /// The end of the block that is being used; of the next, if that is used up.
    fn granted_until(&mut self, run: &mut Run) -> Result<u64, OutboundError> {
        if run.next >= self.until {
            let block = self.waiting().first().copied().ok_or(OutboundError::NoNumber)?;
            self.waiting.rotate_left(1);
            self.waiting_len -= 1;
            (run.next, self.until) = (block.first, block.end);
        }
        Ok(self.until)
    }

    /// The packet whose number was soft has left.
    #[cold]
    pub fn said_soft(&mut self) {
        self.soft_said = true;
    }

    /// The number that the next packet will carry; without one, the lowest that it could.
    pub fn next(&self, run: &Run) -> u64 {
        match (self.source, self.waiting().first()) {
            (Source::Granted, Some(block)) if run.next >= self.until => block.first,
            (Source::Own | Source::Granted, _) => run.next,
        }
    }

    /// How many numbers can be used as things stand.
    pub fn left(&self, run: &Run, mark: u64, end: u64) -> u64 {
        match self.source {
            Source::Own => mark.min(end).saturating_sub(run.next),
            Source::Granted => {
                let waiting: u64 = self.waiting().iter().map(|block| block.end - block.first).sum();
                self.until.saturating_sub(run.next) + waiting
            }
        }
    }

    /// Takes a grant in.
    pub fn grant(&mut self, run: &mut Run, first: u64, count: u64, end: u64) -> Result<(), GrantRefused> {
        if self.source == Source::Own {
            return Err(GrantRefused::NumberedHere);
        }
        let beyond = first.checked_add(count).filter(|beyond| first > 0 && count > 0 && *beyond <= end);
        let block = Block { first, end: beyond.ok_or(GrantRefused::NoNumbers)? };
        let free_from = self.free_from(run);
        if first < free_from {
            return Err(GrantRefused::Behind { first, taken: free_from - 1 });
        }
        if self.granted_until(run).is_err() {
            (run.next, self.until) = (block.first, block.end);
            return Ok(());
        }
        let place = self.waiting.get_mut(usize::from(self.waiting_len)).ok_or(GrantRefused::Full)?;
        *place = block;
        self.waiting_len += 1;
        Ok(())
    }

    /// Numbers the SA here from now on, beginning with `from` unless a higher number is next.
    pub fn start_at(&mut self, run: &mut Run, from: u64) {
        *run = Run::starting_with(self.free_from(run).max(from));
        (self.source, self.waiting_len) = (Source::Own, 0);
    }

    /// Waits for grants from now on.
    pub fn wait_for_grants(&mut self, run: &mut Run) {
        if self.source == Source::Own {
            *run = Run::starting_with(run.next);
            (self.source, self.until) = (Source::Granted, run.next);
        }
    }

    /// Gives up what was granted and not used, for good.
    pub fn abandon_grants(&mut self, run: &mut Run) {
        if self.source == Source::Granted {
            *run = Run::starting_with(self.free_from(run));
            (self.until, self.waiting_len) = (run.next, 0);
        }
    }

    fn waiting(&self) -> &[Block] {
        self.waiting.get(..usize::from(self.waiting_len)).unwrap_or(&[])
    }

    /// The lowest number above all that were used or granted.
    fn free_from(&self, run: &Run) -> u64 {
        let granted = match self.source {
            Source::Own => 0,
            Source::Granted => self.waiting().last().map_or(self.until, |block| block.end),
        };
        granted.max(run.next)
    }
}

#[cfg(test)]
mod tests;
