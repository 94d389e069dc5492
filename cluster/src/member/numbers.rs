//! The owner's side of outbound numbers: a durable mark for every SA, and where each member's numbers come from.
//!
//! What [`crate::sequence`] decides is told to each member as it stands: whatever changes for one of its peers, all that
//! holds there is said again, and so it is to who missed some of it.

use std::collections::{BTreeMap, BTreeSet};

use ipsec::Spi;
use ipsec::sa::PeerId;

use super::jobs::Job;
use super::owner::{Child, Owner, Target};
use super::seam::{Action, DvipaSettings, NumberSource, SequencePolicy};
use super::shared::Shared;
use crate::facility::births::{MarkRaise, RaiseMarks, Raised};
use crate::id::{ChildId, MemberId};
use crate::message::{Body, LIST_MAX, Marked, NumbersFrom, Wanted};
use crate::sequence::leases::{Block, Leases};
use crate::sequence::marks::{MarkSettings, Marks};
use crate::sequence::siblings::{Newcomer, Output, PeerSenders, SenderSettings};

/// The numbers of all SAs of an owner.
pub(super) struct Numbers {
    pub marks: Marks,
    settings: SenderSettings,
    /// The client's replay window that blocks are cut for.
    window_packets: u32,
    /// Who sends to whom on what.
    pub peers: BTreeMap<PeerId, PeerSenders>,
    /// Those of them that wait for something.
    waiting: BTreeSet<PeerId>,
    leases: BTreeMap<Spi, Leases>,
}

impl Numbers {
    pub fn new(settings: &DvipaSettings, owner: MemberId) -> Numbers {
        let is_alone = settings.targets.iter().all(|target| *target == owner);
        let (policy, siblings_max) = (settings.outbound_sequence, settings.siblings_max);
        Numbers {
            marks: Marks::new(MarkSettings::default()),
            settings: SenderSettings::new(policy, siblings_max, owner, is_alone),
            window_packets: settings.peer_window_packets,
            peers: BTreeMap::new(),
            waiting: BTreeSet::new(),
            leases: BTreeMap::new(),
        }
    }

    /// Who is to be told the marks of an SA: who numbers it alone, else the owner, who gives its numbers out.
    pub fn marked(&self, peer: PeerId, child: ChildId) -> MemberId {
        self.peers.get(&peer).and_then(|senders| senders.sender(child)).unwrap_or(self.settings.owner)
    }
}

impl Owner {
    /// The record of an SA stands, with its first mark: its numbers begin.
    pub fn begin_numbers(&mut self, cx: &mut Shared, spi: Spi, mark: u64) {
        let id = self.child_id(spi);
        let Some(child) = self.children.get(&spi) else { return };
        let Child { peer, esn, usage, replaces, sibling_of, .. } = *child;
        self.numbers.marks.born(cx.now, id, esn, 1, mark);
        let members = self.targets.iter().filter(|(_, target)| target.may_use()).map(|(&member, _)| member);
        let members: Vec<_> = members.collect();
        let settings = self.numbers.settings;
        let senders = self.numbers.peers.entry(peer).or_insert_with(|| PeerSenders::new(settings, &members));
        senders.handle_up(cx.now, Newcomer { child: id, usage, replaces, sibling_of, restored: None });
        self.follow(cx, peer);
    }

    pub fn end_numbers(&mut self, cx: &mut Shared, peer: PeerId, spi: Spi) {
        let id = self.child_id(spi);
        self.numbers.marks.forget(id);
        self.numbers.leases.remove(&spi);
        if !self.peers.contains_key(&peer) {
            self.numbers.peers.remove(&peer);
            self.numbers.waiting.remove(&peer);
        } else if let Some(senders) = self.numbers.peers.get_mut(&peer) {
            senders.handle_down(cx.now, id);
            self.follow(cx, peer);
        }
    }

    /// A member has traffic to send on these, and no numbers.
    pub fn numbers_wanted(&mut self, cx: &mut Shared, from: MemberId, list: &[Wanted]) {
        for &Wanted { spi, next } in list {
            let Some(peer) = self.children.get(&spi).map(|child| child.peer) else { continue };
            if self.numbers.settings.policy == SequencePolicy::LeasedBlocks {
                self.lease(cx, from, spi, next);
            }
            self.with_senders(cx, peer, |senders, now, dvipa| {
                senders.handle_wanted(now, from, ChildId { dvipa, spi });
            });
        }
    }

    /// The peer does not want another SA like this one.
    pub fn sibling_refused(&mut self, cx: &mut Shared, spi: Spi, for_good: bool) {
        let Some(peer) = self.children.get(&spi).map(|child| child.peer) else { return };
        self.with_senders(cx, peer, |senders, now, dvipa| {
            senders.handle_refused(now, ChildId { dvipa, spi }, for_good);
        });
    }

    /// An SA has carried a packet of its peer: who sends on it may begin.
    pub fn proven(&mut self, cx: &mut Shared, peer: PeerId, spi: Spi) {
        self.with_senders(cx, peer, |senders, now, dvipa| senders.handle_proven(now, ChildId { dvipa, spi }));
    }

    /// A member may send from now on, or does no more.
    pub fn sender_comes_or_goes(&mut self, cx: &mut Shared, member: MemberId, is_there: bool) {
        let peers: Vec<_> = self.numbers.peers.keys().copied().collect();
        for peer in peers {
            self.with_senders(cx, peer, |senders, now, _| match is_there {
                true => senders.handle_joined(now, member),
                false => senders.handle_gone(now, member),
            });
        }
        if !is_there {
            self.numbers.leases.values_mut().for_each(|leases| leases.forget(member));
        }
    }

    fn with_senders(
        &mut self,
        cx: &mut Shared,
        peer: PeerId,
        act: impl FnOnce(&mut PeerSenders, ipsec::time::Instant, core::net::IpAddr),
    ) {
        if let Some(senders) = self.numbers.peers.get_mut(&peer) {
            act(senders, cx.now, self.fence.address);
            self.follow(cx, peer);
        }
    }

    /// Does what was decided of a peer.
    fn follow(&mut self, cx: &mut Shared, peer: PeerId) {
        let Numbers { marks, settings, window_packets, peers, waiting, leases } = &mut self.numbers;
        let Some(senders) = peers.get_mut(&peer) else { return };
        while let Some(output) = senders.poll_output(|child| marks.give(child)) {
            match output {
                Output::Ask(child) => cx.actions.push(Action::AskSibling(child)),
                Output::Dispense { child, from } if settings.policy == SequencePolicy::LeasedBlocks => {
                    leases.insert(child.spi, Leases::new(*window_packets, from));
                }
                // The dispenser on the owner's cores goes on where the owner itself would.
                Output::Dispense { child, from } => {
                    cx.actions.push(Action::Numbers { child, source: NumberSource::Own { from } });
                }
                Output::Numbers { member, .. } | Output::Silence { member, .. } | Output::Prefer { member, .. } => {
                    if let Some(target) = self.targets.get_mut(&member) {
                        target.unsaid.insert(peer);
                    }
                }
            }
        }
        if senders.next_timeout(cx.now).is_some() {
            waiting.insert(peer);
        }
    }

    fn lease(&mut self, cx: &mut Shared, from: MemberId, spi: Spi, next: u64) {
        let id = self.child_id(spi);
        let Some(target) = self.targets.get(&from) else { return };
        let mark = self.numbers.marks.below(id).unwrap_or(0);
        let Some(leases) = self.numbers.leases.get_mut(&spi) else { return };
        let Some(Block { first, count }) = leases.lease(cx.now, from, target.incarnation, next, mark) else { return };
        self.numbers.marks.observe(cx.now, id, leases.next_number());
        cx.say(from, self.fence.address, self.epoch(), Body::Lease { spi, first, count });
    }

    /// A member says how far it has come with an SA.
    pub fn observe_numbers(&mut self, cx: &Shared, from: MemberId, spi: Spi, next: u64) {
        let Some(peer) = self.children.get(&spi).map(|child| child.peer) else { return };
        let id = self.child_id(spi);
        if self.numbers.marked(peer, id) == from && !self.numbers.leases.contains_key(&spi) {
            self.numbers.marks.observe(cx.now, id, next);
        }
    }

    /// Marks are raised, or stood elsewhere.
    pub fn marks_raised(&mut self, ticket: u64, raised: Raised) {
        let told = match raised {
            Raised::Done => self.numbers.marks.handle_raised(ticket),
            Raised::Elsewhere(found) => {
                let found = found.iter().filter_map(|&(spi, below)| Some((self.child_id(spi), below?)));
                let found: Vec<(ChildId, u64)> = found.collect();
                self.numbers.marks.handle_found(ticket, &found)
            }
        };
        for (id, _) in told {
            let Some(peer) = self.children.get(&id.spi).map(|child| child.peer) else { continue };
            let member = self.numbers.marked(peer, id);
            if let Some(target) = self.targets.get_mut(&member) {
                target.unsaid.insert(peer);
            }
        }
    }

    /// Time has passed for those who wait to be asked, or asked again.
    pub fn wait_for_siblings(&mut self, cx: &mut Shared) {
        for peer in core::mem::take(&mut self.numbers.waiting) {
            self.with_senders(cx, peer, |senders, now, _| senders.handle_timeout(now));
        }
    }

    /// Raises marks before they are reached, and tells members what changed of their numbers.
    pub fn tend_numbers(&mut self, cx: &mut Shared) {
        if let Some(raise) = self.numbers.marks.poll_raise(cx.now) {
            // One that nothing was heard of is asked for anew, not beside it.
            cx.jobs.forget_marks(&self.fence);
            let marks =
                raise.marks.iter().map(|mark| MarkRaise { spi: mark.child.spi, from: mark.from, to: mark.below });
            let marks: Vec<_> = marks.collect();
            for batch in RaiseMarks::batches(self.fence, &marks) {
                cx.jobs.push(Job::Marks(self.fence, raise.ticket, batch));
            }
        }
        while let Some(id) = self.numbers.marks.poll_rekey() {
            if let Some(child) = self.children.get_mut(&id.spi)
                && !core::mem::replace(&mut child.is_rekey_asked, true)
            {
                cx.actions.push(Action::Rekey(id));
            }
        }
        let last = self.log.last();
        let is_ready = |target: &Target| target.is_told() && target.snapshot.is_none() && target.sent == last;
        let ready: Vec<_> = self
            .targets
            .iter_mut()
            .filter(|(_, target)| !target.unsaid.is_empty() && is_ready(target))
            .filter(|(member, _)| cx.reaches(**member))
            .map(|(&member, target)| (member, core::mem::take(&mut target.unsaid)))
            .collect();
        for (member, peers) in ready {
            self.say_numbers(cx, member, &peers);
        }
    }

    /// Says all that holds at a member of these peers.
    fn say_numbers(&self, cx: &mut Shared, member: MemberId, peers: &BTreeSet<PeerId>) {
        let (mut numbers, mut marks, mut quiet, mut preferred) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for peer in peers {
            let Some(senders) = self.numbers.peers.get(peer) else { continue };
            for output in senders.snapshot(member) {
                match output {
                    Output::Numbers { child, source, .. } => {
                        numbers.push(NumbersFrom { spi: child.spi, source });
                        let is_marked = self.numbers.marked(*peer, child) == member;
                        let below = self.numbers.marks.below(child).filter(|_| is_marked);
                        marks.extend(below.map(|below| Marked { spi: child.spi, below }));
                    }
                    Output::Silence { child, .. } => quiet.push(child.spi),
                    Output::Prefer { child, .. } => preferred.push(child.spi),
                    Output::Ask(_) | Output::Dispense { .. } => {}
                }
            }
        }
        let (dvipa, epoch) = (self.fence.address, self.epoch());
        numbers.chunks(LIST_MAX).for_each(|some| cx.say(member, dvipa, epoch, Body::Numbers(some.to_vec())));
        marks.chunks(LIST_MAX).for_each(|some| cx.say(member, dvipa, epoch, Body::Marks(some.to_vec())));
        preferred.chunks(LIST_MAX).for_each(|some| cx.say(member, dvipa, epoch, Body::Prefer(some.to_vec())));
        quiet.chunks(LIST_MAX).for_each(|some| cx.say(member, dvipa, epoch, Body::Quiet(some.to_vec())));
    }
}
