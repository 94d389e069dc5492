//! The entries of one address family, as small as they can be.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipsec::bucket_index::{BucketIndex, CAPACITY_MAX, NOWHERE};
use ipsec::sa::PeerId;
use ipsec::time::Instant;
use wire::flow::FlowKey;

use super::{NotCreated, Route};
use crate::id::{Incarnation, MemberId};
use crate::member::EntryKey;

/// How far an entry may lie from its home in the index: no lookup takes longer, whatever connections clients open.
const REACH_BUCKETS: usize = 8;

/// A byte that is always the same: what it never is tells a free slot, which so takes no room of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Taken {
    Yes = 1,
}

/// A 5-tuple of one family.
pub(super) trait Flow: Copy + Eq {
    /// With its addresses spelled out.
    fn spelled(&self) -> FlowKey;
}

/// A 5-tuple between IPv4 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowV4 {
    src: Ipv4Addr,
    dst: Ipv4Addr,
    src_port: u16,
    dst_port: u16,
    protocol: u8,
    taken: Taken,
}

/// A 5-tuple between IPv6 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FlowV6 {
    src: Ipv6Addr,
    dst: Ipv6Addr,
    src_port: u16,
    dst_port: u16,
    protocol: u8,
    taken: Taken,
}

impl FlowV4 {
    #[inline]
    pub fn new(src: Ipv4Addr, dst: Ipv4Addr, flow: &FlowKey) -> FlowV4 {
        let FlowKey { protocol, src_port, dst_port, .. } = *flow;
        FlowV4 { src, dst, src_port, dst_port, protocol, taken: Taken::Yes }
    }
}

impl FlowV6 {
    #[inline]
    pub fn new(src: Ipv6Addr, dst: Ipv6Addr, flow: &FlowKey) -> FlowV6 {
        let FlowKey { protocol, src_port, dst_port, .. } = *flow;
        FlowV6 { src, dst, src_port, dst_port, protocol, taken: Taken::Yes }
    }
}

impl Flow for FlowV4 {
    fn spelled(&self) -> FlowKey {
        let FlowV4 { src, dst, src_port, dst_port, protocol, taken: Taken::Yes } = *self;
        FlowKey { src: IpAddr::V4(src), dst: IpAddr::V4(dst), protocol, src_port, dst_port }
    }
}

impl Flow for FlowV6 {
    fn spelled(&self) -> FlowKey {
        let FlowV6 { src, dst, src_port, dst_port, protocol, taken: Taken::Yes } = *self;
        FlowKey { src: IpAddr::V6(src), dst: IpAddr::V6(dst), protocol, src_port, dst_port }
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry<F> {
    peer: PeerId,
    incarnation: Incarnation,
    created: Instant,
    verified: Instant,
    flow: F,
    target: MemberId,
}

/// A free slot knows the next free one, so that no list of them stands beside.
#[derive(Clone, Copy, Debug)]
enum Slot<F> {
    Taken(Entry<F>),
    Free(u32),
}

const _: () = assert!(size_of::<Slot<FlowV4>>() == 48 && size_of::<Slot<FlowV4>>() <= 64);
const _: () = assert!(size_of::<Slot<FlowV6>>() == 72 && size_of::<Slot<FlowV6>>() <= 96);

/// The table of one family.
#[derive(Debug)]
pub(super) struct Half<F> {
    index: BucketIndex,
    slots: Box<[Slot<F>]>,
    free: u32,
    len: usize,
}

impl<F: Flow> Half<F> {
    pub fn new(capacity: usize) -> Half<F> {
        let capacity = capacity.min(CAPACITY_MAX);
        let next_free = |at: usize| if at + 1 < capacity { at as u32 + 1 } else { NOWHERE };
        Half {
            index: BucketIndex::with_reach(capacity, REACH_BUCKETS),
            slots: (0..capacity).map(|at| Slot::Free(next_free(at))).collect(),
            free: if capacity == 0 { NOWHERE } else { 0 },
            len: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// The slot that most often is the right one, if there is any.
    #[inline]
    pub fn guess(&self, hash: u64) -> Option<u32> {
        self.index.first(hash)
    }

    #[inline]
    pub fn find(&self, hash: u64, peer: PeerId, flow: &F) -> Option<u32> {
        self.index.find(hash, |slot| self.is_at(slot, peer, flow))
    }

    #[inline]
    pub fn find_guessed(&self, guess: Option<u32>, hash: u64, peer: PeerId, flow: &F) -> Option<u32> {
        // A stranger with the same tag, an entry that lies further on, or nothing at all: then the long way.
        guess.filter(|slot| self.is_at(*slot, peer, flow)).or_else(|| self.find(hash, peer, flow))
    }

    #[inline]
    pub fn route(&self, slot: u32) -> Option<Route> {
        self.taken(slot).map(Entry::route)
    }

    pub fn others_of(&self, hash: u64, peer: PeerId, flow: &F, mut each: impl FnMut(PeerId, &Route)) {
        let _none = self.index.find(hash, |slot| {
            if let Some(entry) = self.taken(slot).filter(|entry| entry.flow == *flow && entry.peer != peer) {
                each(entry.peer, &entry.route());
            }
            false
        });
    }

    pub fn create(&mut self, hash: u64, peer: PeerId, flow: F, route: Route) -> Result<(), NotCreated> {
        if self.find(hash, peer, &flow).is_some() {
            return Err(NotCreated::Exists);
        }
        let slot = self.free;
        let Some(Slot::Free(next)) = self.slots.get(slot as usize).copied() else { return Err(NotCreated::Full) };
        self.index.insert(hash, slot).map_err(|_| NotCreated::Crowded)?;
        let Route { target, incarnation, created, verified } = route;
        self.slots[slot as usize] = Slot::Taken(Entry { peer, incarnation, created, verified, flow, target });
        self.free = next;
        self.len += 1;
        Ok(())
    }

    pub fn replace(&mut self, hash: u64, peer: PeerId, flow: &F, route: Route) -> Option<Route> {
        let slot = self.find(hash, peer, flow)?;
        let entry = self.taken_mut(slot as usize)?;
        let before = entry.route();
        let Route { target, incarnation, created, verified } = route;
        *entry = Entry { target, incarnation, created, verified, ..*entry };
        Some(before)
    }

    pub fn remove(&mut self, hash: u64, slot: u32) -> Option<Route> {
        let route = self.route(slot)?;
        if !self.index.remove(hash, slot) {
            return None;
        }
        self.slots[slot as usize] = Slot::Free(self.free);
        self.free = slot;
        self.len -= 1;
        Some(route)
    }

    pub fn entry(&self, at: usize) -> Option<(EntryKey, Route)> {
        let entry = self.taken(at as u32)?;
        Some((EntryKey { peer: entry.peer, flow: entry.flow.spelled() }, entry.route()))
    }

    /// The target of this entry has been asked. Never the instant of creation: that would mean that it was not.
    pub fn verified(&mut self, at: usize, now: Instant) {
        if let Some(entry) = self.taken_mut(at) {
            entry.verified = now.max(entry.created + core::time::Duration::from_nanos(1));
        }
    }

    #[inline]
    fn is_at(&self, slot: u32, peer: PeerId, flow: &F) -> bool {
        self.taken(slot).is_some_and(|entry| entry.peer == peer && entry.flow == *flow)
    }

    #[inline]
    fn taken(&self, slot: u32) -> Option<&Entry<F>> {
        match self.slots.get(slot as usize) {
            Some(Slot::Taken(entry)) => Some(entry),
            Some(Slot::Free(_)) | None => None,
        }
    }

    fn taken_mut(&mut self, at: usize) -> Option<&mut Entry<F>> {
        match self.slots.get_mut(at) {
            Some(Slot::Taken(entry)) => Some(entry),
            Some(Slot::Free(_)) | None => None,
        }
    }
}

impl<F> Entry<F> {
    #[inline]
    fn route(&self) -> Route {
        Route { target: self.target, incarnation: self.incarnation, created: self.created, verified: self.verified }
    }
}
