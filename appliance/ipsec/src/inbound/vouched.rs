//! Packets that another appliance has authenticated, and passed on plain.
//!
//! Nothing in such a packet can be verified any more, so its number counts for as much as the word of whoever says it. That
//! word is a [`Vouched`]; what it is good for is to take the number, once, in the window of the core that works on the
//! packet. So a plain packet that is repeated between two appliances ends where a repeated ESP packet does.

use super::{Carried, InboundError, InboundSa};

/// The number of a packet that another appliance has authenticated, and the floor that it obeyed.
///
/// To be made only of the word of somebody who may say so: of a frame that its receiver has accepted. It is used up when
/// its number is taken.
#[derive(Debug)]
#[must_use = "a vouched number that is not taken lets its packet come again"]
pub struct Vouched {
    sequence: u64,
    floor: u64,
}

impl Vouched {
    /// The full sequence number, and the SA's floor as the appliance knew it that authenticated the packet.
    pub fn new(sequence: u64, floor: u64) -> Self {
        Self { sequence, floor }
    }

    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// Proof that a vouched packet's number was free and is taken: only [`InboundSa::take`] makes one. It cannot be copied.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a packet whose number was taken is to be delivered or counted"]
pub struct Taken {
    sequence: u64,
}

impl Taken {
    /// The packet's full sequence number.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl InboundSa {
    /// Takes the number of a packet that another appliance has authenticated, in this core's window. All else is up to the
    /// caller: [`InboundSa::admits`], [`InboundSa::charge`].
    ///
    /// # Errors
    /// `Replayed`, `TooOld`, `BelowFloor`: the packet is not to be delivered, and the window has not moved.
    #[inline]
    pub fn take(&mut self, vouched: Vouched) -> Result<Taken, InboundError> {
        let Vouched { sequence, floor } = vouched;
        let carried = Carried { floor, ..Carried::NOTHING };
        let committed = self
            .check_floor(sequence, carried)
            .and_then(|()| self.window.commit_vouched(&vouched).map_err(InboundError::from));
        match committed {
            Ok(()) => Ok(Taken { sequence }),
            Err(error) => {
                self.counters.count(error);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests;
