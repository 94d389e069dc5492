//! How many connections each service has on one core, for the targets' reports to the owner.

use crate::policy::Service;
use std::collections::HashMap;
use wire::flow::FlowKey;

/// Services that are counted at most.
const SERVICES_MAX: usize = 1_024;

/// Counts while the table of connections is swept, and knows what it told. All memory is taken at the start.
#[derive(Debug)]
pub(crate) struct Tally {
    counts: HashMap<Service, Count>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    /// In this round so far.
    counted: u32,
    told: u32,
}

impl Tally {
    pub fn new() -> Tally {
        Tally { counts: HashMap::with_capacity(SERVICES_MAX) }
    }

    /// A connection from a client to a service is there.
    pub fn count(&mut self, flow: &FlowKey) {
        let service = Service { address: flow.dst, protocol: flow.protocol, port: flow.dst_port };
        if self.counts.len() < SERVICES_MAX || self.counts.contains_key(&service) {
            self.counts.entry(service).or_default().counted += 1;
        }
    }

    /// Every connection has been counted: tells of what has changed, and begins anew. `tell` says whether it found room;
    /// what did not is told after the next round.
    pub fn finish_round(&mut self, mut tell: impl FnMut(Service, u32) -> bool) {
        self.counts.retain(|service, count| {
            if count.counted != count.told && tell(*service, count.counted) {
                count.told = count.counted;
            }
            let is_over = count.counted == 0 && count.told == 0;
            count.counted = 0;
            !is_over
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_told_after_each_round_also_that_nothing_is_left() {
        let flow = |port| FlowKey {
            src: [10, 7, 0, 9].into(),
            dst: [203, 0, 113, 80].into(),
            protocol: 6,
            src_port: 5_000,
            dst_port: port,
        };
        let mut tally = Tally::new();
        let mut round = |ports: &[u16], has_room: bool| {
            ports.iter().for_each(|&port| tally.count(&flow(port)));
            let mut told = Vec::new();
            tally.finish_round(|service, count| {
                told.push((service.port, count));
                has_room
            });
            told.sort_unstable();
            told
        };
        assert_eq!(round(&[80, 443, 80], true), [(80, 2), (443, 1)]);
        assert_eq!(round(&[80, 443, 80], true), []);
        assert_eq!(round(&[80, 80], false), [(443, 0)]);
        assert_eq!(round(&[80, 80], true), [(443, 0)]);
        assert_eq!(round(&[], true), [(80, 0)]);
        assert_eq!(round(&[], true), []);
    }
}
