//! The security policy database: what to do with traffic that no SA speaks for (RFC 4301 §4.4.1).
//!
//! Policies are ordered; the first that names a packet decides, and a packet that none names is discarded. The data path
//! keeps the answers that it needs often, so this stays the plain scan that anyone can check.

use std::sync::Arc;

use wire::flow::{FlowKey, Fragment};

use crate::sa::Direction;
use crate::selector::Selectors;

/// What to do with a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It travels in an SA of this child, and in no other way: inbound cleartext is discarded.
    Protect {
        /// The child's name in the configuration.
        child: Arc<str>,
    },
    /// It travels in the clear.
    Bypass,
    /// It does not travel.
    Discard,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Which packets, as seen from us: `local` is our side in both directions.
    pub selectors: Selectors,
    /// What to do with them.
    pub action: Action,
}

/// All rules, first match first. Replaced as a whole, never changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spd {
    policies: Vec<Policy>,
}

impl Spd {
    /// These rules in this order.
    #[must_use]
    pub fn new(policies: Vec<Policy>) -> Self {
        Self { policies }
    }

    /// The rules, first match first.
    #[must_use]
    pub fn policies(&self) -> &[Policy] {
        &self.policies
    }

    /// The first rule that names a packet going in this direction, or `None`, which means discard (RFC 4301 §5).
    ///
    /// A later fragment does not show its ports. If the first rule that could name it restricts ports, it is discarded:
    /// were it judged by the rules behind, a fragment of protected traffic could leave in the clear (RFC 4301 §7).
    #[must_use]
    pub fn lookup(&self, direction: Direction, flow: &FlowKey, fragment: Fragment) -> Option<&Action> {
        static DISCARD: Action = Action::Discard;
        let inbound = match direction {
            Direction::Inbound => *flow,
            Direction::Outbound => flow.reversed(),
        };
        self.policies.iter().find_map(|policy| {
            if policy.selectors.admits_inbound(&inbound, fragment) {
                return Some(&policy.action);
            }
            let could_name = fragment == Fragment::Later && policy.selectors.admits_some_port_inbound(&inbound);
            could_name.then_some(&DISCARD)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selector::TrafficSelector;
    use proptest::prelude::*;

    fn flow(src: [u8; 4], src_port: u16, dst: [u8; 4], dst_port: u16, protocol: u8) -> FlowKey {
        FlowKey { src: src.into(), dst: dst.into(), protocol, src_port, dst_port }
    }

    fn policy(local: &str, remote: &str, action: Action) -> Policy {
        let read = |text: &str| vec![text.parse::<TrafficSelector>().unwrap()];
        Policy { selectors: Selectors { local: read(local), remote: read(remote) }, action }
    }

    fn protect(child: &str) -> Action {
        Action::Protect { child: child.into() }
    }

    const SERVICE: [u8; 4] = [203, 0, 113, 80];
    const CLIENT: [u8; 4] = [10, 7, 0, 9];

    fn spd() -> Spd {
        Spd::new(vec![
            policy("203.0.113.80/32[icmp]", "0.0.0.0/0", Action::Bypass),
            policy("203.0.113.80/32[tcp/80]", "0.0.0.0/0", protect("web")),
            policy("203.0.113.80/32[tcp]", "10.7.0.0/24", Action::Discard),
            policy("203.0.113.80/32", "0.0.0.0/0", Action::Bypass),
        ])
    }

    #[test]
    fn hostile_38_the_first_rule_decides_in_both_directions() {
        let spd = spd();
        for (port, protocol, expected) in [
            (80, 6, Some(&protect("web"))),
            (81, 6, Some(&Action::Discard)),
            (81, 17, Some(&Action::Bypass)),
            (0, 1, Some(&Action::Bypass)),
        ] {
            let inbound = flow(CLIENT, 4_000, SERVICE, port, protocol);
            assert_eq!(spd.lookup(Direction::Inbound, &inbound, Fragment::Whole), expected);
            assert_eq!(spd.lookup(Direction::Outbound, &inbound.reversed(), Fragment::Whole), expected);
            assert_eq!(spd.lookup(Direction::Outbound, &inbound, Fragment::Whole), None, "nobody's traffic");
        }
    }

    #[test]
    fn hostile_35_a_later_fragment_never_slips_past_a_rule_with_ports() {
        let spd = spd();
        let later = flow(CLIENT, 0, SERVICE, 0, 6);
        assert_eq!(spd.lookup(Direction::Inbound, &later, Fragment::Later), Some(&Action::Discard));
        let elsewhere = flow([192, 0, 2, 1], 0, SERVICE, 0, 6);
        assert_eq!(spd.lookup(Direction::Inbound, &elsewhere, Fragment::Later), Some(&Action::Discard));
        let udp = flow(CLIENT, 0, SERVICE, 0, 17);
        assert_eq!(spd.lookup(Direction::Inbound, &udp, Fragment::Later), Some(&Action::Bypass));
    }

    #[test]
    fn an_empty_spd_says_nothing() {
        assert_eq!(Spd::default().lookup(Direction::Inbound, &flow(CLIENT, 1, SERVICE, 2, 6), Fragment::Whole), None);
    }

    /// A rule of a world so small that the oracle can spell out what it means.
    fn small_rule() -> impl Strategy<Value = (u8, u8, u8, Option<u16>, u8)> {
        let protocol = prop::sample::select(vec![0_u8, 6, 17]);
        (0_u8..3, 0_u8..3, protocol, prop::option::of(0_u16..3), 0_u8..3)
    }

    proptest! {
        #[test]
        fn lookup_agrees_with_a_naive_reading(
            rules in prop::collection::vec(small_rule(), 0..6),
            local in 0_u8..3, remote in 0_u8..3, protocol in prop::sample::select(vec![1_u8, 6, 17]), port in 0_u16..3, outbound: bool,
        ) {
            let actions = [Action::Bypass, Action::Discard, protect("child")];
            let spd = Spd::new(rules.iter().map(|(local, remote, protocol, port, action)| {
                let port = port.map_or("any".to_owned(), |port| port.to_string());
                policy(&format!("10.0.0.{local}[{protocol}/{port}]"), &format!("10.0.1.{remote}"), actions[usize::from(*action)].clone())
            }).collect());
            let naive = rules.iter().find(|(l, r, proto, p, _)| {
                (*l, *r) == (local, remote)
                    && (*proto == 0 || *proto == protocol)
                    && p.is_none_or(|p| protocol != 1 && p == port)
            });
            let port = if protocol == 1 { 0 } else { port };
            let inbound = flow([10, 0, 1, remote], 9, [10, 0, 0, local], port, protocol);
            let (direction, flow) = if outbound { (Direction::Outbound, inbound.reversed()) } else { (Direction::Inbound, inbound) };
            prop_assert_eq!(spd.lookup(direction, &flow, Fragment::Whole), naive.map(|rule| &actions[usize::from(rule.4)]));
        }
    }
}
