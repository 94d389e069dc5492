//! What every core knows of policy: which addresses are ours, what they offer, and what the SPD says. Replaced as a whole,
//! never changed.

mod filter;

use core::net::IpAddr;
pub use filter::{Filter, Rule, Verdict};
use ipsec::sa::Direction;
use ipsec::spd::{Action, Spd};
use wire::flow::FlowKey;
use wire::{Fragment, protocol};

/// A port of a DVIPA that clients may speak to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service {
    /// The DVIPA.
    pub address: IpAddr,
    /// The IP protocol number.
    pub protocol: u8,
    /// The destination port.
    pub port: u16,
}

/// Addresses and policies, shared by all cores.
#[derive(Debug, Default)]
pub struct Policy {
    /// Sorted. Every packet asks, of a handful of addresses: that is quicker than one keyed hash.
    ours: Box<[IpAddr]>,
    /// Sorted; the destination port tables of all DVIPAs, one after the other.
    services: Box<[Service]>,
    /// Few: one for each DVIPA at most.
    filters: Box<[Filter]>,
    spd: Spd,
}

impl Policy {
    /// Policy of an appliance that answers for `ours`: its ports' addresses and the DVIPAs it owns.
    pub fn new(ours: impl IntoIterator<Item = IpAddr>, spd: Spd) -> Policy {
        let mut ours: Box<[IpAddr]> = ours.into_iter().collect();
        ours.sort_unstable();
        Policy { ours, spd, ..Policy::default() }
    }

    /// The same policy, under which the addresses that `services` name offer nothing but what it lists for them.
    #[must_use]
    pub fn with_services(self, services: impl IntoIterator<Item = Service>) -> Policy {
        let mut services: Box<[Service]> = services.into_iter().collect();
        services.sort_unstable();
        Policy { services, ..self }
    }

    /// The same policy with these filters, one for each DVIPA at most.
    #[must_use]
    pub fn with_filters(self, filters: impl IntoIterator<Item = Filter>) -> Policy {
        Policy { filters: filters.into_iter().collect(), ..self }
    }

    /// Whether the filter of its DVIPA lets an authenticated packet go on. A DVIPA without a filter permits everything.
    #[inline]
    pub fn permits(&self, flow: &FlowKey, fragment: Fragment) -> bool {
        let of_address = self.filters.iter().find(|filter| filter.address == flow.dst);
        of_address.is_none_or(|filter| filter.permits(flow, fragment))
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

    /// Whether an authenticated client may send this to an application host. An address that lists no services offers
    /// everything. Where some are listed, ICMP passes, since it speaks of what they do, and so do later fragments, which
    /// are nothing without their first one.
    #[inline]
    pub fn offers(&self, flow: &FlowKey, fragment: Fragment) -> bool {
        let Some(of_address) = self.services_of(flow.dst) else { return true };
        let exempt = matches!(flow.protocol, protocol::ICMP | protocol::ICMPV6) || fragment == Fragment::Later;
        let is_it = |service: &Service| (service.protocol, service.port) == (flow.protocol, flow.dst_port);
        exempt || of_address.iter().any(is_it)
    }

    /// The services of an address that lists any.
    #[inline]
    fn services_of(&self, address: IpAddr) -> Option<&[Service]> {
        let rest = &self.services[self.services.partition_point(|service| service.address < address)..];
        let count = rest.partition_point(|service| service.address == address);
        (count > 0).then(|| &rest[..count])
    }
}
