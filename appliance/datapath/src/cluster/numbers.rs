//! Where the sequence numbers of outbound SAs come from, when members share an SA (DESIGN §5).
//!
//! ```text
//! packet for its SA ─┬─ numbered here: sealed at once
//!                    ├─ the owner encrypts: to the owner, plain                        (where the connection is)
//!                    └─ granted: waits on the SA's home core until numbers come, then sealed, in order
//! request → owner's home core of the SA: dispenser → grant → home core of the SA
//! ```
//!
//! What waits is bounded in number and time, and counted as held. An owner asks its own dispenser the same way, without
//! frames.

use super::reports::Report;
use crate::buffer::{PacketBuffer, PortQueue};
use crate::core::DataCore;
use crate::drops::DropReason;
use crate::packet::{FramePacket, SealPacket};
use cluster::frame::{Accepted, Kind, Repr};
use cluster::id::{ChildId, Incarnation, MemberId, Serial};
use cluster::member::NumberSource;
use cluster::sequence::dispenser::{Dispenser, Sender};
use cluster::sequence::leases::USE_WITHIN;
use cluster::sequence::requester::{Numbers, Requester};
use cluster::sequence::{GRANT_LEN, Grant, REQUEST_LEN, Request, Times};
use core::net::IpAddr;
use core::time::Duration;
use ipsec::Spi;
use ipsec::sa::PeerId;
use ipsec::time::Instant;
use std::collections::{HashMap, VecDeque};

/// Packets of one SA that wait for numbers at most.
const WAITING_MAX: usize = 64;

/// How long a packet waits for a number.
const PATIENCE: Duration = Duration::from_millis(50);

/// How often it is said that an SA's numbers are wanted.
const WANTED_AGAIN: Duration = Duration::from_millis(10);

/// An outbound SA, by its peer and the peer's SPI.
pub(crate) type SaKey = (PeerId, Spi);

/// Where the numbers of one SA come from.
#[derive(Debug)]
struct Shared<B> {
    child: ChildId,
    source: NumberSource,
    window_packets: u32,
    /// On the home core: what waits, oldest first.
    waiting: VecDeque<(SealPacket<B>, Instant)>,
    requester: Option<Requester>,
    /// On the owner's home core, once anybody has asked.
    dispenser: Option<Box<Dispenser>>,
    wanted: Option<Instant>,
    /// When the last block came.
    leased_at: Option<Instant>,
    is_active: bool,
}

/// The SAs of one core whose numbers are shared.
#[derive(Debug)]
pub(crate) struct SharedNumbers<B> {
    sas: HashMap<SaKey, Shared<B>>,
    by_child: HashMap<(IpAddr, Spi), SaKey>,
    /// Those that something is to be done for, now or later.
    active: Vec<SaKey>,
}

impl<B> Default for SharedNumbers<B> {
    fn default() -> Self {
        SharedNumbers { sas: HashMap::new(), by_child: HashMap::new(), active: Vec::new() }
    }
}

impl<B> SharedNumbers<B> {
    /// How many packets wait.
    pub fn waiting(&self) -> usize {
        self.active.iter().filter_map(|key| self.sas.get(key)).map(|sa| sa.waiting.len()).sum()
    }

    /// The SA whose inbound half has this SPI.
    pub fn of_child(&self, dvipa: IpAddr, spi: Spi) -> Option<SaKey> {
        self.by_child.get(&(dvipa, spi)).copied()
    }

    fn activate(&mut self, key: SaKey) {
        if let Some(sa) = self.sas.get_mut(&key).filter(|sa| !sa.is_active) {
            sa.is_active = true;
            self.active.push(key);
        }
    }
}

impl<Q: PortQueue> DataCore<Q> {
    /// Takes the numbers of an SA from there, from now on.
    pub(crate) fn set_numbers(
        &mut self,
        key: SaKey,
        child: Spi,
        source: NumberSource,
        window_packets: u32,
        now: Instant,
    ) {
        let Some(entry) = self.sas.outbound.get_mut(key.0, key.1) else { return };
        let child = ChildId { dvipa: entry.shared.parameters().dvipa, spi: child };
        if let Some(sealing) = &mut entry.sealing {
            match source {
                NumberSource::Own { from } => sealing.start_at(from),
                NumberSource::Sequencer => sealing.wait_for_grants(),
                NumberSource::Leased => {
                    sealing.wait_for_grants();
                    // Whoever is told to be quiet sends nothing on what is left of a block.
                    sealing.abandon_grants();
                }
                NumberSource::ViaOwner => {}
            }
        }
        self.numbers.by_child.insert((child.dvipa, child.spi), key);
        let fresh = || Shared {
            child,
            source,
            window_packets,
            waiting: VecDeque::with_capacity(WAITING_MAX),
            requester: None,
            dispenser: None,
            wanted: None,
            leased_at: None,
            is_active: false,
        };
        let sa = self.numbers.sas.entry(key).or_insert_with(fresh);
        (sa.child, sa.source, sa.window_packets) = (child, source, window_packets);
        if matches!(source, NumberSource::Own { .. }) {
            // Nobody is granted anything any more.
            (sa.dispenser, sa.requester) = (None, None);
            self.seal_waiting(key, now);
        }
    }

    /// The SA is gone: what waits for its numbers ends here.
    pub(crate) fn forget_numbers(&mut self, key: SaKey) {
        let Some(sa) = self.numbers.sas.remove(&key) else { return };
        self.numbers.active.retain(|active| *active != key);
        self.numbers.by_child.retain(|_, of| *of != key);
        sa.waiting.into_iter().for_each(|(packet, _)| self.drops.end(packet, DropReason::NoOutboundSa));
    }

    /// A block of numbers that the owner has leased.
    pub(crate) fn grant_numbers(&mut self, key: SaKey, first: u64, count: u64, now: Instant) {
        if let Some(sealing) = self.sas.outbound.get_mut(key.0, key.1).and_then(|entry| entry.sealing.as_mut()) {
            // A lease that comes twice is refused, and does no harm.
            if sealing.grant(first, count).is_ok()
                && let Some(sa) = self.numbers.sas.get_mut(&key)
            {
                (sa.leased_at, sa.wanted) = (Some(now), None);
            }
        }
        self.seal_waiting(key, now);
    }

    /// The owner that encrypts for an SA, if another member does.
    pub(crate) fn encrypts_elsewhere(&self, key: &SaKey) -> Option<(MemberId, ChildId)> {
        let sa = self.numbers.sas.get(key).filter(|sa| sa.source == NumberSource::ViaOwner)?;
        let (fabric, dvipa) = self.clustered(sa.child.dvipa)?;
        (!fabric.owns(dvipa)).then_some((dvipa.owner, sa.child))
    }

    /// Sends a packet for a client to the owner, who encrypts it.
    pub(crate) fn relay_to_seal(
        &mut self,
        packet: Q::Buffer,
        (owner, child): (MemberId, ChildId),
        hash: u64,
        now: Instant,
    ) {
        match self.to_owner(Kind::ToSeal, child, hash) {
            Some(repr) => self.relay(packet, owner, &repr, now),
            None => self.drops.end(packet, DropReason::NoRoute),
        }
    }

    /// Keeps a packet back whose SA has no number now; gives back what can be sealed at once.
    pub(crate) fn wait_for_number(
        &mut self,
        packet: SealPacket<Q::Buffer>,
        now: Instant,
    ) -> Option<SealPacket<Q::Buffer>> {
        let key = (packet.peer, packet.spi);
        let Some(sa) = self.numbers.sas.get_mut(&key) else { return Some(packet) };
        let is_granted = match sa.source {
            NumberSource::Sequencer => true,
            NumberSource::Leased => {
                let mut sealing = self.sas.outbound.get_mut(key.0, key.1).and_then(|entry| entry.sealing.as_mut());
                if sa.leased_at.is_some_and(|at| now >= at + USE_WITHIN) {
                    // The client may be further on by now.
                    sealing.iter_mut().for_each(|sealing| sealing.abandon_grants());
                }
                !sa.waiting.is_empty() || sealing.is_none_or(|sealing| sealing.numbers_left() == 0)
            }
            NumberSource::Own { .. } => sa.dispenser.is_some(),
            NumberSource::ViaOwner => false,
        };
        if !is_granted {
            return Some(packet);
        }
        if sa.waiting.len() >= WAITING_MAX
            && let Some((oldest, _)) = sa.waiting.pop_front()
        {
            self.drops.end(oldest, DropReason::NoNumber);
        }
        sa.waiting.push_back((packet, now));
        self.numbers.activate(key);
        self.numbers_wanted(key, now);
        None
    }

    /// Says that an SA's numbers are wanted, not too often.
    pub(crate) fn numbers_wanted(&mut self, key: SaKey, now: Instant) {
        let Some(sa) = self.numbers.sas.get_mut(&key) else { return };
        let sealing = self.sas.outbound.get_mut(key.0, key.1).and_then(|entry| entry.sealing.as_ref());
        let next = sealing.map_or(0, |sealing| sealing.next_sequence());
        if sa.wanted.is_none_or(|told| now >= told + WANTED_AGAIN)
            && self.mailbox.report(Report::NumbersWanted { child: sa.child, next })
        {
            sa.wanted = Some(now);
        }
    }

    /// Asks for what packets wait for, gives to whom waits, and ends what has waited too long.
    pub(crate) fn tend_numbers(&mut self, now: Instant) {
        let mut at = 0;
        while let Some(&key) = self.numbers.active.get(at) {
            self.end_the_impatient(key, now);
            self.ask_for_numbers(key, now);
            self.give_numbers(key, now);
            let is_quiet = self.numbers.sas.get(&key).is_none_or(Shared::is_quiet);
            if is_quiet {
                self.numbers.active.swap_remove(at);
                self.numbers.sas.entry(key).and_modify(|sa| sa.is_active = false);
            } else {
                at += 1;
            }
        }
    }

    fn end_the_impatient(&mut self, key: SaKey, now: Instant) {
        let Some(sa) = self.numbers.sas.get_mut(&key) else { return };
        let is_over = |(_, since): &(SealPacket<Q::Buffer>, Instant)| now.saturating_since(*since) > PATIENCE;
        while sa.waiting.front().is_some_and(is_over)
            && let Some((packet, _)) = sa.waiting.pop_front()
        {
            self.drops.end(packet, DropReason::NoNumber);
        }
    }

    fn ask_for_numbers(&mut self, key: SaKey, now: Instant) {
        let Some(sa) = self.numbers.sas.get(&key) else { return };
        if sa.source == NumberSource::Leased && !sa.waiting.is_empty() {
            // More than the last block held, or the wish came when there was none to give.
            return self.numbers_wanted(key, now);
        }
        let Some(sa) = self.numbers.sas.get_mut(&key) else { return };
        if sa.source != NumberSource::Sequencer && sa.dispenser.is_none() {
            return;
        }
        let (child, waiting) = (sa.child, sa.waiting.len() as u16);
        let requester = sa.requester.get_or_insert_with(|| Requester::new(now, Times::default()));
        let Some(request) = requester.poll(now, waiting) else { return };
        let Some((fabric, dvipa)) = self.clustered(child.dvipa) else { return };
        if fabric.owns(dvipa) {
            let own = Sender { member: fabric.me, incarnation: fabric.incarnation };
            self.answer_request(key, own, request, now);
        } else {
            let owner = dvipa.owner;
            let Some(repr) = self.to_owner(Kind::NumberRequest, child, 0) else { return };
            let bytes: [u8; REQUEST_LEN] = request.to_bytes();
            self.send_of_own(owner, &repr, &bytes, now);
        }
    }

    /// As the owner: a sender asks for numbers of an SA that has its home here.
    fn answer_request(&mut self, key: SaKey, sender: Sender, request: Request, now: Instant) {
        let Some(entry) = self.sas.outbound.get_mut(key.0, key.1) else { return };
        let (mark, sealing) = (entry.shared.mark(), entry.sealing.as_mut());
        let (Some(sa), Some(sealing)) = (self.numbers.sas.get_mut(&key), sealing) else { return };
        let window_packets = sa.window_packets;
        let dispenser = sa.dispenser.get_or_insert_with(|| {
            // From now on everyone is granted numbers, this appliance too, above all that it used.
            let first = sealing.next_sequence();
            sealing.wait_for_grants();
            Box::new(Dispenser::new(window_packets, first, Times::default()))
        });
        let grant = dispenser.handle_request(now, sender, request, mark);
        self.numbers.activate(key);
        if let Some(grant) = grant {
            self.send_grant(key, sender, grant, now);
        }
        self.give_numbers(key, now);
    }

    /// As the owner: gives numbers to those who wait for them.
    fn give_numbers(&mut self, key: SaKey, now: Instant) {
        let Some(mark) = self.sas.outbound.get_mut(key.0, key.1).map(|entry| entry.shared.mark()) else { return };
        loop {
            let dispenser = self.numbers.sas.get_mut(&key).and_then(|sa| sa.dispenser.as_mut());
            let Some((sender, grant)) = dispenser.and_then(|dispenser| dispenser.poll_grant(now, mark)) else { return };
            self.send_grant(key, sender, grant, now);
        }
    }

    fn send_grant(&mut self, key: SaKey, sender: Sender, grant: Grant, now: Instant) {
        let Some(child) = self.numbers.sas.get(&key).map(|sa| sa.child) else { return };
        let Some((fabric, dvipa)) = self.clustered(child.dvipa) else { return };
        if sender.member == fabric.me {
            return self.take_grant(key, grant, now);
        }
        let of_sender = dvipa.targets.iter().find(|target| target.member == sender.member);
        let Some((serial, epoch)) = of_sender.map(|target| (target.serial, dvipa.epoch)) else { return };
        let repr = repr(Kind::NumberGrant, child, (epoch, sender.incarnation, serial), 0);
        let bytes: [u8; GRANT_LEN] = grant.to_bytes();
        self.send_of_own(sender.member, &repr, &bytes, now);
    }

    /// Numbers have come: they are used at once, for what waits.
    fn take_grant(&mut self, key: SaKey, grant: Grant, now: Instant) {
        let Some(sa) = self.numbers.sas.get_mut(&key) else { return };
        let waiting = sa.waiting.len() as u16;
        let granted = sa.requester.as_mut().map(|requester| requester.handle_grant(now, grant, waiting));
        let Some(Ok(Numbers { first, count })) = granted else { return };
        let sealing = self.sas.outbound.get_mut(key.0, key.1).and_then(|entry| entry.sealing.as_mut());
        let Some(sealing) = sealing.filter(|_| count > 0) else { return };
        if sealing.grant(first, u64::from(count)).is_ok() {
            self.seal_waiting(key, now);
        }
        let sealing = self.sas.outbound.get_mut(key.0, key.1).and_then(|entry| entry.sealing.as_mut());
        sealing.into_iter().for_each(|sealing| sealing.abandon_grants());
    }

    /// Seals what waits, as far as there are numbers.
    fn seal_waiting(&mut self, key: SaKey, now: Instant) {
        loop {
            let sealing = self.sas.outbound.get_mut(key.0, key.1).and_then(|entry| entry.sealing.as_ref());
            let left = sealing.map_or(0, |sealing| sealing.numbers_left());
            let waiting = self.numbers.sas.get_mut(&key).filter(|_| left > 0);
            let Some((packet, _)) = waiting.and_then(|sa| sa.waiting.pop_front()) else { return };
            self.seal_one(packet, now);
        }
    }

    /// A request or a grant by frame, on the home core of its SA. The frame is absorbed.
    pub(super) fn take_numbers(&mut self, packet: FramePacket<Q::Buffer>, accepted: &Accepted, now: Instant) {
        let Some(key) = self.numbers.of_child(accepted.dvipa(), accepted.spi()) else {
            return self.drops.end(packet, DropReason::FrameSa);
        };
        let (request, grant) = (Request::parse(packet.payload()), Grant::parse(packet.payload()));
        match (accepted.kind(), request, grant) {
            (Kind::NumberRequest, Ok(request), _) => {
                let sender = Sender { member: accepted.sender(), incarnation: packet.repr.incarnation };
                self.ledger.merged.add(1);
                drop(packet);
                self.answer_request(key, sender, request, now);
            }
            (Kind::NumberGrant, _, Ok(grant)) => {
                self.ledger.merged.add(1);
                drop(packet);
                self.take_grant(key, grant, now);
            }
            (_, _, _) => self.drops.end(packet, DropReason::FrameMalformed),
        }
    }

    fn to_owner(&self, kind: Kind, child: ChildId, hash: u64) -> Option<Repr> {
        let (fabric, dvipa) = self.clustered(child.dvipa)?;
        Some(repr(kind, child, (dvipa.epoch, fabric.incarnation, Serial(0)), hash))
    }

    /// Sends a frame that this core makes. Without memory for it, it is not sent, and will be asked for again.
    fn send_of_own(&mut self, to: MemberId, repr: &Repr, payload: &[u8], now: Instant) {
        let Some(mut frame) = self.ports.iter_mut().find_map(|port| port.spare(payload.len())) else { return };
        frame.bytes_mut().copy_from_slice(payload);
        self.ledger.made.add(1);
        self.relay_made(frame, to, repr, now);
    }
}

impl<B> Shared<B> {
    /// Whether nothing is to be done until something comes.
    fn is_quiet(&self) -> bool {
        let asks = self.requester.as_ref().is_some_and(|requester| requester.next_timeout().is_some());
        let gives = self.dispenser.as_ref().is_some_and(|dispenser| dispenser.next_timeout().is_some());
        self.waiting.is_empty() && !asks && !gives
    }
}

fn repr(
    kind: Kind,
    child: ChildId,
    (epoch, incarnation, serial): (cluster::id::Epoch, Incarnation, Serial),
    hash: u64,
) -> Repr {
    let ChildId { dvipa, spi } = child;
    Repr { kind, flow_hash: hash as u32, epoch, incarnation, serial, dvipa, spi, floor: 0, number: 0 }
}
