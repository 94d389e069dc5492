//! What every core knows of policy: which addresses are ours, and what the SPD says. Replaced as a whole, never changed.

use core::net::IpAddr;
use ipsec::sa::Direction;
use ipsec::spd::{Action, Spd};
use wire::Fragment;
use wire::flow::FlowKey;

/// Addresses and policies, shared by all cores.
#[derive(Debug, Default)]
pub struct Policy {
    /// Sorted. Every packet asks, of a handful of addresses: that is quicker than one keyed hash.
    ours: Box<[IpAddr]>,
    spd: Spd,
}

impl Policy {
    /// Policy of an appliance that answers for `ours`: its ports' addresses and the DVIPAs it owns.
    pub fn new(ours: impl IntoIterator<Item = IpAddr>, spd: Spd) -> Policy {
        let mut ours: Box<[IpAddr]> = ours.into_iter().collect();
        ours.sort_unstable();
        Policy { ours, spd }
    }

    /// Whether the control core answers for this address.
    #[inline]
    pub fn is_ours(&self, address: IpAddr) -> bool {
        self.ours.binary_search(&address).is_ok()
    }

    /// What the SPD says of a packet that no SA and no connection speaks for; `None` where it has no entry, which means
    /// discard (RFC 4301 §5).
    pub fn action(&self, direction: Direction, flow: &FlowKey, fragment: Fragment) -> Option<&Action> {
        self.spd.lookup(direction, flow, fragment)
    }
}
