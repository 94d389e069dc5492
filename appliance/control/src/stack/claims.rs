//! Our hold on our own addresses: announcing them, and defending them against strangers (RFC 5227 §2.4).
//!
//! A stranger who claims an address of ours makes an alarm and a new announcement, each at a bounded rate for one
//! address and for all together: answering every forged claim would turn us into the flood.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipsec::time::Instant;

use super::limit::RateLimit;
use datapath::routes::PortId;

/// How often an address is announced in a row: one frame may be lost, and a switch may still be learning.
pub const ANNOUNCEMENTS: u8 = 3;
/// Time between two announcements of one address.
pub const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two alarms about one address.
pub const ALARM_INTERVAL: Duration = Duration::from_secs(10);
/// Defences of all addresses together, per second.
const DEFENCES_PER_SECOND: u32 = 20;

#[derive(Debug)]
struct Claim {
    port: PortId,
    announcements_left: u8,
    due: Option<Instant>,
    announced: Option<Instant>,
    alarmed: Option<Instant>,
    conflicts: u64,
}

/// All addresses that we answer for, each on one port.
#[derive(Debug)]
pub struct Claims {
    held: BTreeMap<IpAddr, Claim>,
    due: BTreeSet<(Instant, IpAddr)>,
    defences: RateLimit,
}

impl Claims {
    /// Holds nothing yet.
    pub fn new() -> Self {
        let defences = RateLimit::new(DEFENCES_PER_SECOND, DEFENCES_PER_SECOND);
        Self { held: BTreeMap::new(), due: BTreeSet::new(), defences }
    }

    /// The port on which we answer for this address; `None` if it is not ours.
    pub fn port_of(&self, address: IpAddr) -> Option<PortId> {
        self.held.get(&address).map(|claim| claim.port)
    }

    /// All that we hold.
    pub fn iter(&self) -> impl Iterator<Item = (IpAddr, PortId)> + '_ {
        self.held.iter().map(|(&address, claim)| (address, claim.port))
    }

    /// Takes hold of an address on a port and announces it; announces it anew if it is held already.
    pub fn announce(&mut self, now: Instant, address: IpAddr, port: PortId) {
        let claim = Claim { port, announcements_left: 0, due: None, announced: None, alarmed: None, conflicts: 0 };
        self.held.entry(address).or_insert(claim).announcements_left = ANNOUNCEMENTS;
        self.schedule(address, Some(now));
    }

    /// Lets go of an address. Whether it was held.
    pub fn release(&mut self, address: IpAddr) -> bool {
        self.schedule(address, None);
        self.held.remove(&address).is_some()
    }

    /// A stranger claims an address of ours: it is announced anew if that is due. The number of claims since the last
    /// alarm, if another alarm is due.
    pub fn conflict(&mut self, now: Instant, address: IpAddr) -> Option<u64> {
        let claim = self.held.get_mut(&address)?;
        claim.conflicts += 1;
        let elapsed = |since: Option<Instant>, span| since.is_none_or(|since| now.saturating_since(since) >= span);
        let alarm = elapsed(claim.alarmed, ALARM_INTERVAL).then(|| {
            claim.alarmed = Some(now);
            core::mem::take(&mut claim.conflicts)
        });
        if elapsed(claim.announced, ANNOUNCE_INTERVAL) && self.defences.admit(now) {
            claim.announcements_left = claim.announcements_left.max(1);
            self.schedule(address, Some(now));
        }
        alarm
    }

    /// The next address whose announcement is due.
    pub fn poll_announcement(&mut self, now: Instant) -> Option<(IpAddr, PortId)> {
        let &(due, address) = self.due.first()?;
        if due > now {
            return None;
        }
        let claim = self.held.get_mut(&address)?;
        let port = claim.port;
        claim.announced = Some(now);
        claim.announcements_left = claim.announcements_left.saturating_sub(1);
        let next = (claim.announcements_left > 0).then(|| now + ANNOUNCE_INTERVAL);
        self.schedule(address, next);
        Some((address, port))
    }

    /// When the next announcement is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|&(due, _)| due)
    }

    fn schedule(&mut self, address: IpAddr, due: Option<Instant>) {
        let Some(claim) = self.held.get_mut(&address) else { return };
        if let Some(due) = claim.due {
            self.due.remove(&(due, address));
        }
        if let Some(due) = due {
            self.due.insert((due, address));
        }
        claim.due = due;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_secs(100);

    fn held(last: u8) -> IpAddr {
        IpAddr::from([203, 0, 113, last])
    }

    fn announcements(claims: &mut Claims, now: Instant) -> usize {
        core::iter::from_fn(|| claims.poll_announcement(now)).count()
    }

    #[test]
    fn an_address_is_announced_three_times_and_then_rests() {
        let mut claims = Claims::new();
        claims.announce(NOW, held(1), PortId(0));
        let mut times = Vec::new();
        while let Some(due) = claims.poll_timeout() {
            assert_eq!(announcements(&mut claims, due), 1);
            times.push(due.saturating_since(NOW).as_secs());
        }
        assert_eq!(times, [0, 1, 2]);
    }

    #[test]
    fn a_released_address_is_neither_announced_nor_defended() {
        let mut claims = Claims::new();
        claims.announce(NOW, held(1), PortId(0));
        assert!(claims.release(held(1)));
        assert!(!claims.release(held(1)));
        assert_eq!((claims.poll_timeout(), claims.conflict(NOW, held(1))), (None, None));
    }

    #[test]
    fn alarms_and_defences_are_bounded_for_one_address() {
        let mut claims = Claims::new();
        claims.announce(NOW, held(1), PortId(0));
        let start = NOW + Duration::from_secs(60);
        assert_eq!(announcements(&mut claims, start), 1);
        while let Some(due) = claims.poll_timeout() {
            announcements(&mut claims, due);
        }
        let start = start + Duration::from_secs(60);
        let (mut alarms, mut defences, mut reported) = (0, 0, 0);
        for ms in 0..10_000_u64 {
            let now = start + Duration::from_millis(ms);
            if let Some(conflicts) = claims.conflict(now, held(1)) {
                alarms += 1;
                reported += conflicts;
            }
            defences += announcements(&mut claims, now);
        }
        assert_eq!((alarms, defences, reported), (1, 10, 1));
        let after = start + ALARM_INTERVAL;
        assert_eq!(claims.conflict(after, held(1)), Some(10_000), "the next alarm tells how many there were");
    }

    #[test]
    fn defences_are_bounded_for_all_addresses_together() {
        let mut claims = Claims::new();
        for last in 0..=255 {
            claims.announce(NOW, held(last), PortId(0));
        }
        while let Some(due) = claims.poll_timeout() {
            announcements(&mut claims, due);
        }
        let start = NOW + Duration::from_secs(60);
        for last in 0..=255 {
            claims.conflict(start, held(last));
        }
        assert_eq!(announcements(&mut claims, start), DEFENCES_PER_SECOND as usize);
    }
}
