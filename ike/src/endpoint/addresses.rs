//! Our addresses: which of them are ours to speak for, and since which epoch.
//!
//! An address moves between appliances, with its IKE SAs or without. Whoever does not own it says nothing for it.

use core::net::IpAddr;

use ipsec::time::Instant;

use super::Endpoint;
use crate::event::DownReason;
use crate::message::IkeSpi;

impl Endpoint {
    /// SAs of this address are born in this epoch from now on; those that stand keep theirs.
    pub fn set_epoch(&mut self, dvipa: IpAddr, epoch: u64) {
        self.cx.epochs.insert(dvipa, epoch);
    }

    /// Whether IKE speaks for this address, as it does for each until it is told otherwise. While it does not, what
    /// arrives there is dropped, and what was to leave from there too; both are counted. Its IKE SAs stay, mute, until
    /// [`forget_address`](Self::forget_address) ends them. Being served again is to start afresh: it ends them as well.
    pub fn serve(&mut self, now: Instant, dvipa: IpAddr, is_ours: bool) {
        if !is_ours {
            self.cx.unserved.insert(dvipa);
        } else if self.cx.unserved.contains(&dvipa) {
            self.forget_address(now, dvipa);
            self.cx.unserved.remove(&dvipa);
        }
    }

    pub(super) fn serves(&self, dvipa: IpAddr) -> bool {
        !self.cx.unserved.contains(&dvipa)
    }

    /// Ends all IKE SAs of this address, of every kind, without a word to their peers: another appliance owns it now.
    /// Events say what is gone. What is left in [`poll_transmit`](Self::poll_transmit) was said before.
    pub fn forget_address(&mut self, now: Instant, dvipa: IpAddr) {
        self.cx.now = now;
        for spi in self.half_open.at_address(dvipa) {
            if self.half_open.remove(spi).is_some() {
                self.cx.spis.free_ike(spi);
            }
        }
        let is_there = |spi: &&IkeSpi| self.initiating.get(spi).is_some_and(|begun| begun.local_address() == dvipa);
        let begun: Vec<IkeSpi> = self.initiating.keys().filter(is_there).copied().collect();
        for spi in begun {
            if let Some(initiating) = self.take_initiating(spi) {
                initiating.dissolve(&mut self.cx);
            }
        }
        for spi in self.established.at_address(dvipa) {
            self.with_sa(spi, |sa, _| sa.finish(DownReason::Disowned));
        }
        // The last, for whatever has just ended has left its last response there.
        self.cx.kept.forget_address(dvipa);
    }
}
