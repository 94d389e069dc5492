//! The owner's side of outbound numbers: a durable mark for every SA, and where each member's numbers come from.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use ipsec::Spi;
use ipsec::sa::PeerId;
use ipsec::time::Instant;

use super::jobs::Job;
use super::owner::{Child, Owner};
use super::seam::{Action, DvipaSettings, NumberSource, SequencePolicy};
use super::shared::Shared;
use crate::facility::births::{MarkRaise, RaiseMarks, Raised};
use crate::id::{ChildId, MemberId};
use crate::message::{Body, LIST_MAX, Marked, NumbersFrom};
use crate::sequence::leases::{Block, Leases};
use crate::sequence::marks::{MarkSettings, Marks};

/// Packets of one leased block.
const BLOCK_PACKETS: u64 = 4_096;
/// A peer that refused a sibling, or deleted one, is not asked again before this.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// A sibling that was asked for and did not come may be asked for again after this.
const SIBLING_WITHIN: Duration = Duration::from_secs(15);

/// Who numbers an SA.
#[derive(Debug)]
pub(super) enum Numbering {
    /// One member, from this number on: the owner, or who sends on a sibling.
    By { member: MemberId, from: u64 },
    /// Whoever holds a block.
    Leased(Box<Leases>),
}

/// What is known of the senders to one peer.
#[derive(Debug, Default)]
pub(super) struct Senders {
    /// Who has traffic for it.
    wanting: BTreeSet<MemberId>,
    /// For whom a sibling is being asked, and until when it may come.
    asked: Option<(MemberId, Instant)>,
    not_before: Option<Instant>,
    is_refused: bool,
}

/// The numbers of all SAs of an owner.
pub(super) struct Numbers {
    pub marks: Marks,
    policy: SequencePolicy,
    siblings_max: u8,
    pub senders: BTreeMap<PeerId, Senders>,
}

impl Numbers {
    pub fn new(settings: &DvipaSettings) -> Numbers {
        Numbers {
            marks: Marks::new(MarkSettings::default()),
            policy: settings.outbound_sequence,
            siblings_max: settings.siblings_max,
            senders: BTreeMap::new(),
        }
    }
}

impl Owner {
    /// The record of an SA stands, with its first mark: its numbers begin.
    pub fn begin_numbers(&mut self, cx: &Shared, spi: Spi, mark: u64) {
        let id = self.child_id(spi);
        let Some(child) = self.children.get(&spi) else { return };
        let (peer, esn, sibling_of) = (child.peer, child.esn, child.sibling_of);
        // What replaces a sibling is sent on by whoever sent on that.
        let inherited = child.replaces.and_then(|old| self.children.get(&old)).and_then(Child::sibling_sender);
        self.numbers.marks.born(cx.now, id, esn, 1, mark);
        let from = self.numbers.marks.give(id).unwrap_or(1);
        let asked = sibling_of.and_then(|_| self.numbers.senders.get_mut(&peer)).and_then(|it| it.asked.take());
        let member = match sibling_of {
            Some(_) => inherited.or(asked.map(|(member, _)| member)).unwrap_or(cx.me()),
            None => cx.me(),
        };
        let numbering = match (self.numbers.policy, sibling_of) {
            (SequencePolicy::LeasedBlocks, None) => Numbering::Leased(Box::new(Leases::new(BLOCK_PACKETS, from))),
            _ => Numbering::By { member, from },
        };
        if let Some(child) = self.children.get_mut(&spi) {
            child.numbering = Some(numbering);
        }
        for target in self.targets.values_mut() {
            target.unsaid.insert(spi);
        }
    }

    pub fn end_numbers(&mut self, gone: &Child, spi: Spi) {
        self.numbers.marks.forget(self.child_id(spi));
        if !self.peers.contains_key(&gone.peer) {
            self.numbers.senders.remove(&gone.peer);
        } else if gone.sibling_of.is_some()
            && let Some(senders) = self.numbers.senders.get_mut(&gone.peer)
        {
            // Whoever sent on it shares the numbers of another again, for now.
            senders.not_before = senders.not_before.max(Some(gone.born_at + ASK_AGAIN_AFTER));
        }
        for target in self.targets.values_mut() {
            target.unsaid.remove(&spi);
        }
    }

    /// A member has traffic to send on these, and no numbers.
    pub fn numbers_wanted(&mut self, cx: &mut Shared, from: MemberId, spis: &[Spi]) {
        for &spi in spis {
            match self.numbers.policy {
                SequencePolicy::Auto => self.sender_wants(cx, from, spi),
                SequencePolicy::LeasedBlocks => self.lease(cx, from, spi),
                // They come by frames, or the packets go elsewhere.
                SequencePolicy::Sequencer | SequencePolicy::ViaDistributor => {}
            }
        }
    }

    /// When a second sender has traffic for a peer, it gets an SA of its own, if the peer agrees.
    fn sender_wants(&mut self, cx: &mut Shared, from: MemberId, spi: Spi) {
        let id = self.child_id(spi);
        let Some(child) = self.children.get(&spi).filter(|child| child.sibling_of.is_none()) else { return };
        let peer = child.peer;
        let of_peer = || self.children.values().filter(|child| child.peer == peer);
        let has_own = of_peer().any(|child| child.sibling_sender() == Some(from));
        let siblings = of_peer().filter(|child| child.sibling_of.is_some()).count();
        let senders = self.numbers.senders.entry(peer).or_default();
        senders.wanting.insert(from);
        let is_waiting = senders.asked.is_some_and(|(_, until)| cx.now < until);
        let may_ask = !senders.is_refused && !is_waiting && senders.not_before.is_none_or(|at| at <= cx.now);
        if senders.wanting.len() > 1 && !has_own && may_ask && siblings < usize::from(self.numbers.siblings_max) {
            senders.asked = Some((from, cx.now + SIBLING_WITHIN));
            cx.actions.push(Action::AskSibling(id));
        }
    }

    /// The peer does not want another SA like this one: its senders go on sharing the numbers of the ones that stand.
    pub fn sibling_refused(&mut self, cx: &Shared, spi: Spi, for_good: bool) {
        let Some(peer) = self.children.get(&spi).map(|child| child.peer) else { return };
        let senders = self.numbers.senders.entry(peer).or_default();
        senders.asked = None;
        senders.is_refused |= for_good;
        senders.not_before = Some(cx.now + ASK_AGAIN_AFTER);
    }

    fn lease(&mut self, cx: &mut Shared, from: MemberId, spi: Spi) {
        let id = self.child_id(spi);
        let Some(target) = self.targets.get(&from) else { return };
        let next = target.used.get(&spi).map_or(0, |used| used.next_outbound);
        let mark = self.numbers.marks.below(id).unwrap_or(0);
        let Some(Numbering::Leased(leases)) = self.children.get_mut(&spi).and_then(|child| child.numbering.as_mut())
        else {
            return;
        };
        let Some(Block { first, count }) = leases.lease(cx.now, from, target.incarnation, next, mark) else { return };
        self.numbers.marks.observe(cx.now, id, leases.next_number());
        let body = Body::Lease { spi, first, count };
        cx.say(from, self.fence.address, self.epoch(), body);
    }

    /// A member says how far it has come with an SA that it numbers.
    pub fn observe_numbers(&mut self, cx: &Shared, from: MemberId, spi: Spi, next: u64) {
        let is_its = self.children.get(&spi).is_some_and(|child| match child.numbering {
            Some(Numbering::By { member, .. }) => member == from,
            Some(Numbering::Leased(_)) | None => false,
        });
        if is_its {
            self.numbers.marks.observe(cx.now, self.child_id(spi), next);
        }
    }

    /// A sibling has carried a packet: its sender moves to it.
    pub fn sibling_proven(&mut self, spi: Spi) {
        for target in self.targets.values_mut() {
            target.unsaid.insert(spi);
        }
    }

    /// Marks are raised, or stood elsewhere.
    pub fn marks_raised(&mut self, ticket: u64, raise: &RaiseMarks, raised: Raised) {
        let told = match raised {
            Raised::Done => self.numbers.marks.handle_raised(ticket),
            Raised::Elsewhere(found) => {
                let found = found.iter().filter_map(|&(spi, below)| Some((self.child_id(spi), below?)));
                let found: Vec<(ChildId, u64)> = found.collect();
                self.numbers.marks.handle_found(ticket, &found)
            }
        };
        debug_assert!(told.iter().all(|(id, _)| raise.marks().iter().any(|mark| mark.spi == id.spi)));
        for (id, _) in told {
            for target in self.targets.values_mut() {
                target.unsaid.insert(id.spi);
            }
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
        self.say_numbers(cx);
    }

    fn say_numbers(&mut self, cx: &mut Shared) {
        let (dvipa, epoch) = (self.fence.address, self.epoch());
        let me = cx.me();
        let mut said = Vec::new();
        for (&member, target) in &mut self.targets {
            let is_known = target.is_told() && target.snapshot.is_none() && target.sent == self.log.last();
            if target.unsaid.is_empty() || !is_known || !cx.reaches(member) {
                continue;
            }
            for spi in core::mem::take(&mut target.unsaid) {
                let Some(child) = self.children.get(&spi).filter(|child| child.is_born()) else { continue };
                if let Some(source) = source_at(child, self.numbers.policy, member, me) {
                    let is_marked = match source {
                        NumberSource::Own { .. } | NumberSource::Leased => true,
                        NumberSource::Sequencer | NumberSource::ViaOwner => false,
                    };
                    let below = self.numbers.marks.below(ChildId { dvipa, spi }).filter(|_| is_marked);
                    said.push((member, NumbersFrom { spi, source }, below));
                }
            }
        }
        for of_one in said.chunk_by(|one, other| one.0 == other.0) {
            for some in of_one.chunks(LIST_MAX) {
                let numbers = some.iter().map(|(_, numbers, _)| *numbers).collect();
                let marks: Vec<_> = some
                    .iter()
                    .filter_map(|(_, numbers, below)| Some(Marked { spi: numbers.spi, below: (*below)? }))
                    .collect();
                cx.say(some[0].0, dvipa, epoch, Body::Numbers(numbers));
                if !marks.is_empty() {
                    cx.say(some[0].0, dvipa, epoch, Body::Marks(marks));
                }
            }
        }
    }
}

impl Child {
    /// Who sends on it, if it is a sibling.
    pub fn sibling_sender(&self) -> Option<MemberId> {
        match self.numbering {
            Some(Numbering::By { member, .. }) if self.sibling_of.is_some() => Some(member),
            Some(Numbering::By { .. } | Numbering::Leased(_)) | None => None,
        }
    }
}

/// Where the numbers of an SA come from at a member; `None` if it does not send on it.
fn source_at(child: &Child, policy: SequencePolicy, member: MemberId, owner: MemberId) -> Option<NumberSource> {
    match child.numbering.as_ref()? {
        // A sibling is proven by a packet before anything is sent on it.
        Numbering::By { member: home, from } if child.sibling_of.is_some() => {
            (*home == member && child.is_preferred).then_some(NumberSource::Own { from: *from })
        }
        Numbering::By { from, .. } if member == owner => Some(NumberSource::Own { from: *from }),
        Numbering::By { .. } => Some(match policy {
            SequencePolicy::ViaDistributor => NumberSource::ViaOwner,
            SequencePolicy::Auto | SequencePolicy::Sequencer | SequencePolicy::LeasedBlocks => NumberSource::Sequencer,
        }),
        Numbering::Leased(_) => Some(NumberSource::Leased),
    }
}
