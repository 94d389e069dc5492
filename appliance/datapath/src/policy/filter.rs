//! The packet filters of DVIPAs: which authenticated packets may go on to an application host.

use core::net::IpAddr;
use ipsec::selector::{AddressRange, PortRange};
use wire::flow::FlowKey;
use wire::{Fragment, protocol};

/// What becomes of a packet that a rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on.
    Permit,
    /// It is dropped.
    Deny,
}

/// One rule of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The IP protocol number; `None` is every protocol.
    pub protocol: Option<u8>,
    /// The packet's own source, inside its SA.
    pub source: AddressRange,
    /// The destination port; any, where the protocol has none.
    pub ports: PortRange,
    /// What becomes of what it names.
    pub verdict: Verdict,
}

/// The filter of one DVIPA. The first rule that names a packet decides; what none names is denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The DVIPA.
    pub address: IpAddr,
    /// In order.
    pub rules: Box<[Rule]>,
}

impl Filter {
    /// Whether a packet to this DVIPA goes on. Of a later fragment, which shows no ports, a rule with ports permits what
    /// it may name and denies nothing: without its first one it never stands.
    pub(super) fn permits(&self, flow: &FlowKey, fragment: Fragment) -> bool {
        let named = self.rules.iter().find(|rule| rule.names(flow, fragment));
        named.is_some_and(|rule| rule.verdict == Verdict::Permit)
    }
}

impl Rule {
    fn names(&self, flow: &FlowKey, fragment: Fragment) -> bool {
        if self.protocol.is_some_and(|protocol| protocol != flow.protocol) || !self.source.contains(flow.src) {
            return false;
        }
        let has_ports = matches!(flow.protocol, protocol::TCP | protocol::UDP);
        match fragment {
            _ if self.ports.is_any() => true,
            Fragment::Whole | Fragment::First => has_ports && self.ports.contains(flow.dst_port),
            Fragment::Later => has_ports && self.verdict == Verdict::Permit,
        }
    }
}
