//! Traffic selectors: which packets belong into an SA (RFC 4301 §4.4.1.2, RFC 7296 §3.13).

mod range;
mod text;

pub use range::{AddressRange, PortRange};
pub use text::{SelectorTemplate, SelectorTextError};

use core::fmt;
use core::net::IpAddr;

use wire::flow::{FlowKey, Fragment};
use wire::protocol::has_ports;

/// The protocol number of a selector that means every protocol.
pub const ANY_PROTOCOL: u8 = 0;

/// No SA keeps more selectors than this on one side: every packet is compared with all of them.
pub const SELECTORS_MAX: usize = 32;

/// Addresses, protocol and ports of one side of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrafficSelector {
    /// Whose packets.
    pub addresses: AddressRange,
    /// The upper-layer protocol, [`ANY_PROTOCOL`] for every one.
    pub protocol: u8,
    /// Ports of that side.
    pub ports: PortRange,
}

impl TrafficSelector {
    /// Every IPv4 packet.
    #[must_use]
    pub const fn any_v4() -> Self {
        Self { addresses: AddressRange::ANY_V4, protocol: ANY_PROTOCOL, ports: PortRange::ANY }
    }

    /// Every IPv6 packet.
    #[must_use]
    pub const fn any_v6() -> Self {
        Self { addresses: AddressRange::ANY_V6, protocol: ANY_PROTOCOL, ports: PortRange::ANY }
    }

    /// Whether this side of a packet is meant. `port` is `None` where it cannot be seen or does not exist.
    #[must_use]
    #[inline]
    pub fn contains(&self, address: IpAddr, protocol: u8, port: Option<u16>) -> bool {
        let port_fits = match port {
            Some(port) => self.ports.contains(port),
            None => self.ports.contains_unseen(),
        };
        self.addresses.contains(address) && (self.protocol == ANY_PROTOCOL || self.protocol == protocol) && port_fits
    }

    /// Whether every packet that `other` means is meant here too.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.intersect(other).as_ref() == Some(other)
    }

    /// What both mean, or `None` if that is nothing.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let protocol = match (self.protocol, other.protocol) {
            (mine, ANY_PROTOCOL) => mine,
            (ANY_PROTOCOL, theirs) => theirs,
            (mine, theirs) if mine == theirs => mine,
            (_, _) => return None,
        };
        Some(Self {
            addresses: self.addresses.intersect(&other.addresses)?,
            protocol,
            ports: self.ports.intersect(other.ports)?,
        })
    }
}

/// Narrows what a peer proposed to what we allow (RFC 7296 §2.9).
///
/// The result keeps the peer's order, names nothing twice, and ends after [`SELECTORS_MAX`] selectors: a peer that
/// sends 255 gets a subset, which narrowing allows. An empty result means that there is nothing in common.
#[must_use]
pub fn narrow(allowed: &[TrafficSelector], proposed: &[TrafficSelector]) -> Vec<TrafficSelector> {
    let mut narrowed: Vec<TrafficSelector> = Vec::new();
    for theirs in proposed {
        for ours in allowed {
            let Some(common) = ours.intersect(theirs) else { continue };
            if narrowed.iter().any(|kept| kept.covers(&common)) {
                continue;
            }
            narrowed.retain(|kept| !common.covers(kept));
            if narrowed.len() == SELECTORS_MAX {
                return narrowed;
            }
            narrowed.push(common);
        }
    }
    narrowed
}

/// The traffic selectors of both sides of an SA: a packet belongs in it if each of its sides is meant by one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selectors {
    /// Our side: what the peer may reach.
    pub local: Vec<TrafficSelector>,
    /// The peer's side.
    pub remote: Vec<TrafficSelector>,
}

impl Selectors {
    /// Narrows what a peer proposed (already turned to our point of view) to what we allow, on both sides.
    #[must_use]
    pub fn narrow(&self, proposed: &Self) -> Option<Self> {
        let local = narrow(&self.local, &proposed.local);
        let remote = narrow(&self.remote, &proposed.remote);
        (!local.is_empty() && !remote.is_empty()).then_some(Self { local, remote })
    }

    /// Whether every selector of `other` lies within a single one of ours.
    ///
    /// Errs on the side of no: a selector that only several of ours together would cover counts as outside.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        let covered = |ours: &[TrafficSelector], theirs: &[TrafficSelector]| {
            theirs.iter().all(|selector| ours.iter().any(|mine| mine.covers(selector)))
        };
        covered(&self.local, &other.local) && covered(&self.remote, &other.remote)
    }

    /// Whether a packet from the peer belongs in here: its source on the peer's side, its destination on ours.
    ///
    /// Where ports cannot be seen, in later fragments and in protocols without ports, only selectors that do not
    /// restrict ports admit it (RFC 4301 §7). ICMP counts as without ports.
    #[must_use]
    #[inline]
    pub fn admits_inbound(&self, flow: &FlowKey, fragment: Fragment) -> bool {
        let ports = visible_ports(flow, fragment);
        let protocol = flow.protocol;
        self.remote.iter().any(|side| side.contains(flow.src, protocol, ports.map(|(src, _)| src)))
            && self.local.iter().any(|side| side.contains(flow.dst, protocol, ports.map(|(_, dst)| dst)))
    }

    /// Whether a packet from the peer could belong in here if it had the right ports.
    pub(crate) fn admits_some_port_inbound(&self, flow: &FlowKey) -> bool {
        let admits = |side: &TrafficSelector, address| {
            side.addresses.contains(address) && (side.protocol == ANY_PROTOCOL || side.protocol == flow.protocol)
        };
        has_ports(flow.protocol)
            && self.remote.iter().any(|side| admits(side, flow.src))
            && self.local.iter().any(|side| admits(side, flow.dst))
    }

    /// Whether a packet to the peer belongs in here: its source on our side, its destination on the peer's.
    #[must_use]
    #[inline]
    pub fn admits_outbound(&self, flow: &FlowKey, fragment: Fragment) -> bool {
        self.admits_inbound(&flow.reversed(), fragment)
    }
}

/// Source and destination port, where the packet shows them.
#[inline]
fn visible_ports(flow: &FlowKey, fragment: Fragment) -> Option<(u16, u16)> {
    match fragment {
        Fragment::Whole | Fragment::First if has_ports(flow.protocol) => Some((flow.src_port, flow.dst_port)),
        Fragment::Whole | Fragment::First | Fragment::Later => None,
    }
}

impl fmt::Display for Selectors {
    /// As strongSwan logs it: `10.1.0.0/16 === 10.2.0.0/16[tcp/80]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = |f: &mut fmt::Formatter<'_>, selectors: &[TrafficSelector]| {
            for (at, selector) in selectors.iter().enumerate() {
                write!(f, "{}{selector}", if at == 0 { "" } else { " " })?;
            }
            Ok(())
        };
        side(f, &self.local)?;
        f.write_str(" === ")?;
        side(f, &self.remote)
    }
}

#[cfg(test)]
mod tests;
