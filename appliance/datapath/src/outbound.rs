//! From the inside to the network, in the order of RFC 4301 §5.1 and RFC 4303 §3.3.
//!
//! ```text
//! receive → steer to the connection's core → connection or policy names the SA → steer to the SA's home core
//!         → sequence number, IV, encrypt, outer header → forward
//! ```

use crate::buffer::{PacketBuffer, PortQueue};
use crate::burst::Burst;
use crate::core::DataCore;
use crate::drops::DropReason;
use crate::inbound::{clamp_mss, cut, take_a_hop};
use crate::mailbox::{Event, PuntReason};
use crate::outer::{self, Outer, Urgency};
use crate::packet::{Handed, PlainPacket, SealPacket};
use crate::sas::OutboundEntry;
use ipsec::Spi;
use ipsec::iv::IvGenerator;
use ipsec::outbound::{OutboundError, Overhead, Sealed};
use ipsec::sa::{Direction, Mode, PeerId};
use ipsec::spd::Action;
use ipsec::time::Instant;
use wire::flow::{self, Inner};

impl<Q: PortQueue> DataCore<Q> {
    /// One burst from one inside port.
    pub(crate) fn take_inside(&mut self, port: usize, now: Instant) -> bool {
        let frames = self.ports[port].receive(&self.ledger);
        if frames.is_empty() {
            return false;
        }
        let plain = self.parse_inside(port, frames);
        let own = self.steer_plain(plain);
        self.protect(own, now);
        true
    }

    /// Keeps the IP packets that pass through; what is for us is punted, the rest dropped.
    fn parse_inside(&mut self, port: usize, frames: Burst<Q::Buffer>) -> Burst<PlainPacket<Q::Buffer>> {
        let facts = self.ports[port].facts;
        let mut plain = Burst::new();
        for mut frame in frames {
            let range = match outer::classify(frame.bytes(), &facts, &self.policy) {
                Ok(Outer::Cleartext(range)) => range,
                Ok(Outer::Punt(urgency)) => {
                    self.punt(facts.id, PuntReason::ForUs, urgency, frame);
                    continue;
                }
                // An application host speaks to us as a neighbour.
                Ok(Outer::Esp(_)) => {
                    self.punt(facts.id, PuntReason::ForUs, Urgency::Courtesy, frame);
                    continue;
                }
                Err(reason) => {
                    self.drops.end(frame, reason);
                    continue;
                }
            };
            cut(&mut frame, range);
            match flow::parse_inner(frame.bytes()) {
                Ok(inner) => {
                    let hash = inner.flow.symmetric_hash(&self.seed);
                    plain.push(PlainPacket { packet: frame, port: facts.id, inner, hash });
                }
                Err(_) => self.drops.end(frame, DropReason::InnerMalformed),
            }
        }
        plain
    }

    /// Keeps what belongs to this core's connections and hands over the rest.
    fn steer_plain(&mut self, plain: Burst<PlainPacket<Q::Buffer>>) -> Burst<PlainPacket<Q::Buffer>> {
        if self.handover.cores() == 1 {
            return plain;
        }
        let mut own = Burst::new();
        for packet in plain {
            match self.owner_of(packet.hash) {
                owner if owner == self.handover.own() => own.push(packet),
                owner => self.outgoing[owner].push(Handed::Plain(packet)),
            }
        }
        self.hand_over();
        own
    }

    /// Finds each packet's SA, and hands it to the SA's home core.
    pub(crate) fn protect(&mut self, plain: Burst<PlainPacket<Q::Buffer>>, now: Instant) {
        if plain.is_empty() {
            return;
        }
        let mut own = Burst::new();
        for packet in plain {
            match self.choose_sa(&packet, now) {
                Choice::Sa { peer, spi, home, inner_mtu } => {
                    let hash = packet.hash;
                    let Some(seal) = self.prepare(packet, peer, spi, inner_mtu) else { continue };
                    if let Some(owner) = self.encrypts_elsewhere(&(peer, spi)) {
                        self.relay_to_seal(seal.packet, owner, hash, now);
                        continue;
                    }
                    if home == self.handover.own() {
                        own.push(seal);
                    } else {
                        self.outgoing[home].push(Handed::Seal(seal));
                    }
                }
                Choice::Bypass => self.forward(packet.packet, &packet.inner, now),
                Choice::Drop(reason) => self.drops.end(packet.packet, reason),
            }
        }
        self.hand_over();
        self.seal(own, now);
    }

    /// The connection names the peer, and so the SA; for the rest the SPD speaks (RFC 4301 §5.1). What belongs to a peer
    /// that has gone is for the same identity when it has come anew, and for nobody else.
    fn choose_sa(&mut self, packet: &PlainPacket<Q::Buffer>, now: Instant) -> Choice {
        let Inner { flow, fragment, tcp_flags, .. } = packet.inner;
        let outbound = &self.sas.outbound;
        let is_ended = self.connections.answers_a_tomb(packet.hash, &flow);
        let entry = match self.connections.answered(packet.hash, &flow) {
            Some(connection) if outbound.knows(connection.peer) => {
                let entry = outbound.of_peer(connection.peer, &flow, fragment);
                if entry.is_some() {
                    connection.service_spoke(now, tcp_flags);
                }
                entry.ok_or(DropReason::NoOutboundSa)
            }
            Some(connection) => match outbound.of_any(&flow, fragment) {
                Ok(entry) if connection.identity == Some(outbound.identity_of(entry)) => Ok(entry),
                Ok(_) | Err(_) => Err(DropReason::NoOutboundSa),
            },
            None if is_ended => Err(DropReason::ConnectionEnded),
            None => match self.policy.action(Direction::Outbound, &flow, fragment) {
                Some(Action::Protect { .. }) => outbound.of_any(&flow, fragment),
                Some(Action::Bypass) => return Choice::Bypass,
                Some(Action::Discard) | None => Err(DropReason::PolicyDiscard),
            },
        };
        match entry {
            Ok(entry) => {
                let parameters = entry.shared.parameters();
                let (peer, spi) = (parameters.peer, parameters.spi);
                Choice::Sa { peer, spi, home: entry.home, inner_mtu: entry.inner_mtu }
            }
            Err(reason) => Choice::Drop(reason),
        }
    }

    /// What a router does before it encrypts: MTU, time to live, MSS. What is too big goes to the control core, which
    /// tells its sender.
    fn prepare(
        &mut self,
        plain: PlainPacket<Q::Buffer>,
        peer: PeerId,
        spi: Spi,
        inner_mtu: u16,
    ) -> Option<SealPacket<Q::Buffer>> {
        let PlainPacket { mut packet, port, inner, .. } = plain;
        if packet.bytes().len() > usize::from(inner_mtu) {
            self.punt(port, PuntReason::TooBig { mtu: inner_mtu }, Urgency::Courtesy, packet);
            return None;
        }
        if !take_a_hop(packet.bytes_mut()) {
            self.drops.end(packet, DropReason::TtlExceeded);
            return None;
        }
        clamp_mss(packet.bytes_mut(), &inner, inner_mtu);
        Some(SealPacket { packet, peer, spi, is_made: false })
    }

    /// Seals a burst whose SAs have their home here, in order, and sends it. What has no number yet waits.
    pub(crate) fn seal(&mut self, burst: Burst<SealPacket<Q::Buffer>>, now: Instant) {
        for packet in burst {
            if let Some(packet) = self.wait_for_number(packet, now) {
                self.seal_one(packet, now);
            }
        }
    }

    pub(crate) fn seal_one(&mut self, packet: SealPacket<Q::Buffer>, now: Instant) {
        let SealPacket { mut packet, peer, spi, is_made } = packet;
        let Some(entry) = self.sas.outbound.get_mut(peer, spi) else {
            return self.drops.end(packet, DropReason::NoOutboundSa);
        };
        let remote = entry.remote;
        let sealed = encapsulate(entry, &mut self.ivs, &mut packet);
        let soft = sealed.is_ok_and(|sealed| sealed.soft_reached);
        let hard = matches!(sealed, Err(OutboundError::HardLimit | OutboundError::SequenceExhausted));
        entry.notes.note(sealed.is_ok(), soft, hard);
        if entry.notes.has_news() {
            let (name, events) = (entry.name(), &mut self.mailbox.events);
            entry.notes.tell(name, |event| events.push(event).is_ok());
        }
        entry.publish();
        match sealed {
            Ok(_) if is_made => self.send_made_towards(remote, packet, now),
            Ok(_) => self.send_towards(remote, packet, now),
            Err(error) => {
                self.drops.end(packet, reason_of(error));
                self.ask_for_ivs(error);
                if matches!(error, OutboundError::MarkReached | OutboundError::NoNumber) {
                    self.numbers_wanted((peer, spi), now);
                }
            }
        }
    }

    pub(crate) fn ask_for_ivs(&mut self, error: OutboundError) {
        if matches!(error, OutboundError::IvExhausted | OutboundError::SenderTooFar) && !self.ivs_wanted {
            self.ivs_wanted = self.mailbox.events.push(Event::IvsWanted).is_ok();
        }
    }
}

/// Makes room around the packet and lets the SA fill it.
fn encapsulate<B: PacketBuffer>(
    entry: &mut OutboundEntry,
    ivs: &mut IvGenerator,
    packet: &mut B,
) -> Result<Sealed, OutboundError> {
    let sealing = entry.sealing.as_mut().ok_or(OutboundError::WrongMode)?;
    let inner_len = packet.bytes().len();
    let Overhead { before, after } = entry.shared.overhead(inner_len);
    if !packet.prepend(before) || !packet.append(after) {
        return Err(OutboundError::WrongRoom);
    }
    match entry.shared.parameters().mode {
        Mode::Tunnel => sealing.encapsulate(ivs, packet.bytes_mut(), inner_len),
        Mode::Transport => sealing.encapsulate_transport(ivs, packet.bytes_mut(), inner_len),
    }
}

/// What an SA refuses a packet for, in the words of this appliance's drops.
pub(crate) fn reason_of(error: OutboundError) -> DropReason {
    match error {
        OutboundError::HardLimit | OutboundError::SequenceExhausted => DropReason::LifesizeHard,
        OutboundError::Ungranted => DropReason::LifesizeUngranted,
        OutboundError::MarkReached => DropReason::MarkReached,
        OutboundError::NoNumber => DropReason::NoNumber,
        OutboundError::IvExhausted | OutboundError::SenderTooFar => DropReason::IvExhausted,
        OutboundError::WrongRoom => DropReason::NoRoom,
        OutboundError::TooLong => DropReason::TooBig,
        OutboundError::WrongMode => DropReason::NoOutboundSa,
    }
}

/// What becomes of a packet from the inside.
enum Choice {
    Sa { peer: PeerId, spi: Spi, home: usize, inner_mtu: u16 },
    Bypass,
    Drop(DropReason),
}
