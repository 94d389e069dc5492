//! From the network to the inside, in the order of RFC 4303 §3.4.
//!
//! ```text
//! receive → outer parse → steer to the owning core → replay check, verify, decrypt, commit → tunnel check
//!         → connection → deliver
//! ```

use crate::buffer::{PacketBuffer, PortQueue};
use crate::burst::{Burst, narrow};
use crate::connections::{Refusal, Spoken};
use crate::core::DataCore;
use crate::drops::DropReason;
use crate::forwarding::PortRole;
use crate::mailbox::{Mailbox, PuntReason};
use crate::outer::{self, EspPlace, Outer};
use crate::packet::{EspPacket, Handed, InnerPacket, Proof};
use crate::sas::{CoreSas, InboundEntry};
use core::ops::Range;
use ipsec::Spi;
use ipsec::ecn;
use ipsec::esp::NEXT_HEADER_DUMMY;
use ipsec::inbound::{Carried, InboundError, Opened};
use ipsec::sa::{Direction, Mode};
use ipsec::spd::Action;
use ipsec::time::Instant;
use ipsec::transport;
use wire::flow::{self, Inner};
use wire::{ipv4, tcp};

impl<Q: PortQueue> DataCore<Q> {
    /// One burst from one network port.
    pub(crate) fn take_network(&mut self, port: usize, now: Instant) -> bool {
        let frames = self.ports[port].receive(&self.ledger);
        if frames.is_empty() {
            return false;
        }
        let esp = self.parse_outer(port, frames, now);
        let esp = self.take_routed(esp, now);
        let own = self.steer(esp);
        self.open(own, now);
        true
    }

    /// Keeps the ESP packets; all else is punted, bypassed or dropped here.
    fn parse_outer(&mut self, port: usize, frames: Burst<Q::Buffer>, now: Instant) -> Burst<EspPacket<Q::Buffer>> {
        let facts = self.ports[port].facts;
        let mut esp = Burst::new();
        for frame in frames {
            match outer::classify(frame.bytes(), &facts, &self.policy) {
                Ok(Outer::Esp(place)) => esp.push(EspPacket { frame, place }),
                Ok(Outer::Punt(urgency)) => self.punt(facts.id, PuntReason::ForUs, urgency, frame),
                Ok(Outer::Cleartext(range)) => self.clear_from_network(frame, range, now),
                Err(reason) => self.drops.end(frame, reason),
            }
        }
        esp
    }

    /// A packet without protection: policy may let it pass, and discards it otherwise (RFC 4301 §5.2 step 3b).
    fn clear_from_network(&mut self, mut frame: Q::Buffer, range: Range<usize>, now: Instant) {
        cut(&mut frame, range);
        let Ok(inner) = flow::parse_inner(frame.bytes()) else {
            return self.drops.end(frame, DropReason::OuterMalformed);
        };
        match self.policy.action(Direction::Inbound, &inner.flow, inner.fragment) {
            Some(Action::Bypass) => self.forward(frame, &inner, now),
            Some(Action::Protect { .. } | Action::Discard) => self.drops.end(frame, DropReason::CleartextToProtected),
            None if self.policy.is_ours(inner.flow.dst) => self.drops.end(frame, DropReason::CleartextToProtected),
            None => self.drops.end(frame, DropReason::AddressNotServed),
        }
    }

    /// Keeps what this core owns and hands the rest to its owners. A peek decides, and it decides nothing else.
    fn steer(&mut self, mut esp: Burst<EspPacket<Q::Buffer>>) -> Burst<EspPacket<Q::Buffer>> {
        if self.handover.cores() == 1 {
            return esp;
        }
        let (sas, seed) = (&self.sas, &self.seed);
        let peeked =
            narrow(&mut esp, &mut self.drops, |packet| match peek_inner(sas, packet.frame.bytes(), &packet.place) {
                Ok(inner) => Ok((inner.map(|inner| inner.flow.symmetric_hash(seed)), packet)),
                Err(reason) => Err((packet, reason)),
            });
        let here = self.handover.own();
        let mut own = Burst::new();
        for (hash, packet) in peeked {
            match hash.map_or(here, |hash| self.owner_of(hash)) {
                owner if owner == here => own.push(packet),
                owner => self.outgoing[owner].push(Handed::Esp(packet)),
            }
        }
        self.hand_over();
        own
    }

    /// Opens a burst that this core owns, and sees each packet to its end.
    pub(crate) fn open(&mut self, mut esp: Burst<EspPacket<Q::Buffer>>, now: Instant) {
        if esp.is_empty() {
            return;
        }
        let (sas, mailbox) = (&mut self.sas, &mut self.mailbox);
        let open = |packet| open_one(sas, mailbox, packet, Carried::NOTHING, now);
        for packet in narrow(&mut esp, &mut self.drops, open) {
            self.deliver(packet, now);
        }
    }

    /// Notes the connection and sends the packet to its application host.
    pub(crate) fn deliver(&mut self, verified: InnerPacket<Q::Buffer>, now: Instant) {
        let InnerPacket { mut packet, inner, connection, proof, peer, return_mtu, is_routed, is_filtered } = verified;
        if !is_filtered && !self.policy.offers(&inner.flow, inner.fragment) {
            return self.drops.end(packet, DropReason::ServiceNotOffered);
        }
        if !is_filtered && !self.policy.permits(&inner.flow, inner.fragment) {
            return self.drops.end(packet, DropReason::Filter);
        }
        if !self.may_go_on(&inner) {
            return self.drops.end(packet, DropReason::PolicyDiscard);
        }
        let (flow, hash) = (&connection, connection.symmetric_hash(&self.seed));
        let identity = || self.sas.outbound.identity(peer);
        let spoken = Spoken { peer, flow, hash, tcp: inner.tcp_flags, is_routed };
        match self.connections.client_spoke(now, spoken, identity, &proof) {
            Ok(_) => {}
            Err(Refusal::TableFull) => return self.drops.end(packet, DropReason::ConnectionTableFull),
            Err(Refusal::OthersFlow) => return self.drops.end(packet, DropReason::OthersFlow),
            Err(Refusal::Ended) => return self.drops.end(packet, DropReason::ConnectionEnded),
        }
        clamp_mss(packet.bytes_mut(), &inner, return_mtu);
        self.forward(packet, &inner, now);
    }

    /// Whether a packet that came out of a tunnel may take its way: towards an application host always, back across the
    /// boundary in the clear only where the outbound policy says bypass (RFC 4301 §5.1).
    fn may_go_on(&mut self, inner: &Inner) -> bool {
        // What has no way is dropped for that where it is sent.
        let Ok((port, _)) = self.forwarding.way(inner.flow.dst) else { return true };
        match self.ports.get(usize::from(port.0)).map(|port| port.facts.role) {
            Some(PortRole::Network) => {
                let action = self.policy.action(Direction::Outbound, &inner.flow, inner.fragment);
                matches!(action, Some(Action::Bypass))
            }
            // Clients have no business on the members' own wire.
            Some(PortRole::Trusted) => false,
            Some(PortRole::Inside) | None => true,
        }
    }

    /// One hop of plain forwarding: time to live, route, neighbour.
    pub(crate) fn forward(&mut self, mut packet: Q::Buffer, inner: &Inner, now: Instant) {
        if !take_a_hop(packet.bytes_mut()) {
            return self.drops.end(packet, DropReason::TtlExceeded);
        }
        self.send_towards(inner.flow.dst, packet, now);
    }
}

/// Reads the inner header without verification. Only good to steer by. A dummy packet has none: it belongs to no
/// connection and is never delivered, so any core may open it.
pub(crate) fn peek_inner(sas: &CoreSas, frame: &[u8], place: &EspPlace) -> Result<Option<Inner>, DropReason> {
    let entry = find(sas, place).ok_or_else(|| unknown(place.spi))?;
    let peeked = entry.sa.shared().peek(&frame[bytes_of(place)]).map_err(|_| DropReason::EspTruncated)?;
    if peeked.unauthenticated_next_header() == NEXT_HEADER_DUMMY {
        return Ok(None);
    }
    let inner = match entry.sa.shared().parameters().mode {
        Mode::Tunnel => flow::parse_prefix(peeked.unauthenticated_head()),
        Mode::Transport => {
            let ip = &frame[usize::from(place.ip)..];
            let header_len = ipv4::Packet::new_prefix(ip).map_or(0, |ip| ip.header_len());
            transport::parse_peeked(&ip[..header_len], &peeked, bytes_of(place).len())
        }
    };
    inner.map(Some).map_err(|_| DropReason::PeekUnparsable)
}

/// All steps of RFC 4303 §3.4 for one packet, and the tunnel check.
pub(crate) fn open_one<P, B: PacketBuffer>(
    sas: &mut CoreSas,
    mailbox: &mut Mailbox<P>,
    mut packet: EspPacket<B>,
    carried: Carried,
    now: Instant,
) -> Result<InnerPacket<B>, (EspPacket<B>, DropReason)> {
    let Some(entry) = find_mut(sas, &packet.place) else {
        let reason = unknown(packet.place.spi);
        return Err((packet, reason));
    };
    let opened = entry.sa.open_carried(&mut packet.frame.bytes_mut()[bytes_of(&packet.place)], carried);
    conclude(entry, mailbox, &opened, &packet, now);
    match opened.map_err(reason_of) {
        Ok(opened) => into_inner(packet, entry, opened),
        Err(reason) => Err((packet, reason)),
    }
}

/// Draws the conclusions from a packet that was or was not opened: counts, and tells the control core what it has to know.
pub(crate) fn conclude<P, B: PacketBuffer>(
    entry: &mut InboundEntry,
    mailbox: &mut Mailbox<P>,
    opened: &Result<Opened, InboundError>,
    packet: &EspPacket<B>,
    now: Instant,
) {
    entry.learn(opened, now);
    entry.tell_news(mailbox);
    if let Ok(opened) = opened
        && entry.mapping.is_some()
    {
        let source = outer::udp_source(&packet.frame.bytes()[usize::from(packet.place.ip)..]);
        let moved = entry.find_moved(&opened.proof, source, now);
        moved.into_iter().for_each(|event| mailbox.tell_if_roomy(event));
    }
}

pub(crate) fn find<'a>(sas: &'a CoreSas, place: &EspPlace) -> Option<&'a InboundEntry> {
    sas.inbound.get(place.dvipa, Spi::new(place.spi)?).map(|entry| &**entry)
}

pub(crate) fn find_mut<'a>(sas: &'a mut CoreSas, place: &EspPlace) -> Option<&'a mut InboundEntry> {
    sas.inbound.get_mut(place.dvipa, Spi::new(place.spi)?).map(|entry| &mut **entry)
}

pub(crate) fn unknown(spi: u32) -> DropReason {
    if Spi::new(spi).is_some() { DropReason::SpiUnknown } else { DropReason::SpiReserved }
}

pub(crate) fn bytes_of(place: &EspPlace) -> Range<usize> {
    usize::from(place.start)..usize::from(place.end)
}

/// Takes the frame's outer parts off, and asks whether the packet is what the SA is for (RFC 4301 §5.2 step 4). In a tunnel,
/// congestion marks of the outer header live on in the inner one (RFC 6040); in transport mode it is the same header.
fn into_inner<B: PacketBuffer>(
    packet: EspPacket<B>,
    entry: &mut InboundEntry,
    opened: Opened,
) -> Result<InnerPacket<B>, (EspPacket<B>, DropReason)> {
    let EspPacket { mut frame, place } = packet;
    let mode = entry.sa.shared().parameters().mode;
    let (ip, esp) = (usize::from(place.ip), usize::from(place.start));
    let judged = uncover(mode, frame.bytes_mut(), ip, esp, &opened)
        .and_then(|range| tunnel_check(entry, &frame.bytes()[range.clone()]).map(|inner| (range, inner)));
    let (range, inner) = match judged {
        Ok(judged) => judged,
        Err(reason) => return Err((EspPacket { frame, place }, reason)),
    };
    cut(&mut frame, range);
    if mode == Mode::Tunnel && ecn::combine(place.ecn, frame.bytes_mut()).is_err() {
        return Err((EspPacket { frame, place }, DropReason::Congested));
    }
    let peer = entry.sa.shared().parameters().peer;
    let (connection, proof, return_mtu) = (inner.flow, Proof::Authentic(opened.proof), entry.return_mtu);
    Ok(InnerPacket { packet: frame, inner, connection, proof, peer, return_mtu, is_routed: false, is_filtered: false })
}

/// Makes of an opened packet the IP packet that it holds, and says where that lies: in a tunnel it is there, in transport
/// mode the outer IP header moves up to its payload. `ip` is where the outer IP header begins, `esp` where ESP does.
pub(crate) fn uncover(
    mode: Mode,
    bytes: &mut [u8],
    ip: usize,
    esp: usize,
    opened: &Opened,
) -> Result<Range<usize>, DropReason> {
    let payload = esp + opened.inner.start..esp + opened.inner.end;
    if mode == Mode::Tunnel {
        return Ok(payload);
    }
    let header = ipv4::Packet::new_prefix(&bytes[ip..]).map_err(|_| DropReason::InnerMalformed)?;
    let header_len = header.header_len();
    let start = payload.start.checked_sub(header_len).ok_or(DropReason::InnerMalformed)?;
    bytes.copy_within(ip..ip + header_len, start);
    transport::restore(&mut bytes[start..payload.start], opened.next_header, payload.len())
        .map_err(|_| DropReason::InnerMalformed)?;
    Ok(start..payload.end)
}

/// The headers of an opened packet, if its SA is for such packets.
pub(crate) fn tunnel_check(entry: &mut InboundEntry, packet: &[u8]) -> Result<Inner, DropReason> {
    let inner = flow::parse_inner(packet).map_err(|_| DropReason::InnerMalformed)?;
    if entry.sa.admits(&inner) { Ok(inner) } else { Err(DropReason::TunnelCheck) }
}

/// What an SA refuses a packet for, in the words of this appliance's drops.
pub(crate) fn reason_of(error: InboundError) -> DropReason {
    match error {
        InboundError::Truncated => DropReason::EspTruncated,
        InboundError::Replayed => DropReason::ReplayDuplicate,
        InboundError::TooOld => DropReason::ReplayTooOld,
        InboundError::BelowFloor => DropReason::BelowFloor,
        InboundError::AuthenticationFailed => DropReason::AuthenticationFailed,
        InboundError::BadPadding => DropReason::PaddingMalformed,
        InboundError::UnknownNextHeader => DropReason::NextHeaderNotServed,
        InboundError::MalformedInner => DropReason::InnerMalformed,
        InboundError::Dummy => DropReason::DummyPacket,
        InboundError::HardLimit => DropReason::LifesizeHard,
        InboundError::Ungranted => DropReason::LifesizeUngranted,
    }
}

/// Cuts a frame down to `range`.
pub(crate) fn cut<B: PacketBuffer>(frame: &mut B, range: Range<usize>) {
    frame.truncate(range.end);
    frame.trim_front(range.start);
}

/// Takes one hop off the packet's life; `false` where none is left.
pub(crate) fn take_a_hop(packet: &mut [u8]) -> bool {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => match ipv4::Packet::new_checked(packet) {
            Ok(mut ip) => ip.decrement_ttl() > 0,
            Err(_) => false,
        },
        Some(6) => match wire::ipv6::Packet::new_checked(packet) {
            Ok(mut ip) => {
                let hop_limit = ip.hop_limit().saturating_sub(1);
                ip.set_hop_limit(hop_limit);
                hop_limit > 0
            }
            Err(_) => false,
        },
        Some(_) | None => false,
    }
}

/// Lowers the MSS that a SYN announces to what fits the tunnel, so that TCP never sends what would not.
pub(crate) fn clamp_mss(packet: &mut [u8], inner: &Inner, mtu: u16) {
    let is_syn = inner.tcp_flags.is_some_and(|flags| flags.contains(tcp::Flags::SYN));
    let Some(segment) = packet.get_mut(inner.header_len..).filter(|_| is_syn) else { return };
    let mss = usize::from(mtu).saturating_sub(inner.header_len + tcp::HEADER_LEN);
    // A SYN with malformed options goes on as it is: judging it is its receiver's work.
    let _ = tcp::clamp_mss(segment, mss as u16);
}
