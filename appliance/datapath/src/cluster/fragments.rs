//! Which connection the fragments of a datagram belong to: learnt from the first one, for a few seconds.

use core::time::Duration;
use ipsec::sa::PeerId;
use ipsec::time::Instant;
use wire::flow::FlowKey;
use wire::ipv4;

/// How long a first fragment speaks for those after it.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many places a datagram may lie in.
const WAYS: usize = 4;

/// A datagram in fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Datagram {
    peer: PeerId,
    /// Without ports.
    flow: FlowKey,
    identification: u16,
}

impl Datagram {
    /// The datagram that an inner packet of `peer` is a fragment of. `None` where its header names none: IPv6.
    pub fn of(peer: PeerId, flow: &FlowKey, packet: &[u8]) -> Option<Datagram> {
        let ip = ipv4::Packet::new_checked(packet).ok()?;
        let flow = FlowKey { src_port: 0, dst_port: 0, ..*flow };
        Some(Datagram { peer, flow, identification: ip.identification() })
    }
}

#[derive(Debug, Clone, Copy)]
struct Known {
    datagram: Datagram,
    flow: FlowKey,
    at: Instant,
}

/// The datagrams that one core follows. Of fixed size: where too many come at once, the oldest is forgotten.
#[derive(Debug)]
pub(crate) struct Fragments {
    known: Box<[Option<Known>]>,
}

impl Fragments {
    /// Room for about so many datagrams.
    pub fn new(capacity: usize) -> Fragments {
        Fragments { known: vec![None; capacity.next_multiple_of(WAYS)].into_boxed_slice() }
    }

    /// The first fragment of a datagram has shown its flow. `hash` is that of the flow without ports.
    pub fn learn(&mut self, now: Instant, hash: u64, datagram: Datagram, flow: FlowKey) {
        let places = self.places(hash, &datagram);
        let places = &mut self.known[places];
        let same = places.iter().position(|known| known.is_some_and(|known| known.datagram == datagram));
        let oldest =
            || places.iter().enumerate().min_by_key(|(_, known)| known.map(|known| known.at)).map(|(at, _)| at);
        if let Some(at) = same.or_else(oldest) {
            places[at] = Some(Known { datagram, flow, at: now });
        }
    }

    /// The flow of the datagram that a later fragment belongs to.
    pub fn flow_of(&self, now: Instant, hash: u64, datagram: &Datagram) -> Option<FlowKey> {
        let known = self.known[self.places(hash, datagram)].iter().flatten();
        let mut fresh = known.filter(|known| now.saturating_since(known.at) <= PATIENCE);
        fresh.find(|known| known.datagram == *datagram).map(|known| known.flow)
    }

    /// The places in which a datagram may lie; none in a table without room.
    fn places(&self, hash: u64, datagram: &Datagram) -> core::ops::Range<usize> {
        let sets = (self.known.len() / WAYS) as u64;
        if sets == 0 {
            return 0..0;
        }
        let spread = (hash ^ u64::from(datagram.identification)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let first = (spread % sets) as usize * WAYS;
        first..first + WAYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(port: u16) -> FlowKey {
        FlowKey { src: [10, 7, 0, 9].into(), dst: [203, 0, 113, 80].into(), protocol: 17, src_port: port, dst_port: 80 }
    }

    fn datagram(peer: u64, identification: u16) -> Datagram {
        Datagram { peer: PeerId(peer), flow: FlowKey { src_port: 0, dst_port: 0, ..flow(0) }, identification }
    }

    #[test]
    fn later_fragments_find_the_flow_of_their_first_for_five_seconds() {
        let mut fragments = Fragments::new(16);
        let at = Instant::from_secs(10);
        fragments.learn(at, 7, datagram(1, 5), flow(1_000));
        fragments.learn(at, 7, datagram(2, 5), flow(2_000));
        let found = |peer, id, seconds| fragments.flow_of(Instant::from_secs(seconds), 7, &datagram(peer, id));
        assert_eq!(found(1, 5, 15), Some(flow(1_000)));
        assert_eq!(found(2, 5, 15), Some(flow(2_000)), "another peer's");
        assert_eq!((found(1, 6, 10), found(1, 5, 16)), (None, None));
    }

    #[test]
    fn hostile_36_first_fragments_without_end_push_out_the_oldest_and_nothing_else() {
        let mut fragments = Fragments::new(8);
        for id in 0..10_000_u16 {
            fragments.learn(Instant::from_millis(u64::from(id)), 7, datagram(1, id), flow(id));
        }
        let now = Instant::from_millis(9_999);
        assert_eq!(fragments.flow_of(now, 7, &datagram(1, 9_999)), Some(flow(9_999)));
        let known = (0..10_000).filter(|&id| fragments.flow_of(now, 7, &datagram(1, id)).is_some());
        assert_eq!(known.count(), 8);
        assert_eq!(Fragments::new(0).flow_of(now, 7, &datagram(1, 1)), None);
    }
}
