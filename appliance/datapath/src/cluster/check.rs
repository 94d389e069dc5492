//! The full check: a packet is authenticated before anything may come of it.

use super::fragments::Datagram;
use super::steering_flow;
use crate::buffer::{PacketBuffer, PortQueue};
use crate::core::DataCore;
use crate::drops::DropReason;
use crate::inbound::{bytes_of, conclude, cut, find_mut, reason_of, tunnel_check, uncover, unknown};
use crate::outer::EspPlace;
use crate::packet::EspPacket;
use cluster::fabric::Processing;
use core::ops::Range;
use ipsec::ecn;
use ipsec::esp::Authentic;
use ipsec::sa::{Mode, PeerId};
use ipsec::time::Instant;
use wire::flow::{self, FlowKey, Inner};
use wire::{Fragment, icmp, protocol};

/// Where an authenticated packet lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    /// The frame is as it came. The packet that it protects lies in this core's copy, here.
    Copied(Range<usize>),
    /// The frame is as it came, and the copy is on another core.
    Sealed,
    /// The frame was cut down to the inner packet.
    Opened,
}

/// An authenticated packet on its way to the core of its connection, or there.
#[derive(Debug)]
pub(super) struct Checked<B> {
    /// The frame.
    pub frame: B,
    /// Where ESP lay in it.
    pub place: EspPlace,
    /// Where the inner packet lies.
    pub body: Body,
    /// Its headers.
    pub inner: Inner,
    /// Its connection.
    pub flow: FlowKey,
    /// The symmetric hash of that.
    pub hash: u64,
    /// Whose SA it came by.
    pub peer: PeerId,
    /// The proof.
    pub proof: Authentic,
}

/// What became of a packet that was to be authenticated.
type Judged<B> = Result<Checked<B>, (EspPacket<B>, DropReason)>;

impl<Q: PortQueue> DataCore<Q> {
    /// Authenticates a packet, takes its number, and asks whether its SA and the DVIPA's services admit it. Where a target
    /// processes, the packet stays as it came.
    pub(super) fn check(
        &mut self,
        packet: EspPacket<Q::Buffer>,
        processing: Processing,
        now: Instant,
    ) -> Judged<Q::Buffer> {
        match processing {
            Processing::Target => self.check_copy(packet, now),
            Processing::Distributor => self.check_in_place(packet, now),
        }
    }

    fn check_copy(&mut self, packet: EspPacket<Q::Buffer>, now: Instant) -> Judged<Q::Buffer> {
        let Some(part) = &mut self.part else { return Err((packet, DropReason::NotOwner)) };
        let (ip, end) = (usize::from(packet.place.ip), usize::from(packet.place.end));
        let outer = &packet.frame.bytes()[ip..end];
        let Some(copy) = part.scratch.get_mut(..outer.len()) else { return Err((packet, DropReason::RelayTooBig)) };
        copy.copy_from_slice(outer);
        let Some(entry) = find_mut(&mut self.sas, &packet.place) else {
            let reason = unknown(packet.place.spi);
            return Err((packet, reason));
        };
        let esp = usize::from(packet.place.start) - ip;
        let opened = entry.sa.authenticate(&mut copy[esp..]);
        conclude(entry, &mut self.mailbox, &opened, &packet, now);
        let mode = entry.sa.shared().parameters().mode;
        let judged = opened.map_err(reason_of).and_then(|opened| {
            let range = uncover(mode, copy, 0, esp, &opened)?;
            let inner = tunnel_check(entry, &copy[range.clone()])?;
            Ok((opened.proof, range, inner))
        });
        let peer = entry.sa.shared().parameters().peer;
        let judged = judged.and_then(|(proof, range, inner)| {
            let flow = self.serviced(peer, &inner, Source::Scratch(range.clone()), now)?;
            Ok((proof, range, inner, flow))
        });
        match judged {
            Ok((proof, range, inner, flow)) => {
                let EspPacket { frame, place } = packet;
                let hash = flow.symmetric_hash(&self.seed);
                Ok(Checked { frame, place, body: Body::Copied(range), inner, flow, hash, peer, proof })
            }
            Err(reason) => Err((packet, reason)),
        }
    }

    fn check_in_place(&mut self, mut packet: EspPacket<Q::Buffer>, now: Instant) -> Judged<Q::Buffer> {
        let Some(entry) = find_mut(&mut self.sas, &packet.place) else {
            let reason = unknown(packet.place.spi);
            return Err((packet, reason));
        };
        let opened = entry.sa.authenticate(&mut packet.frame.bytes_mut()[bytes_of(&packet.place)]);
        conclude(entry, &mut self.mailbox, &opened, &packet, now);
        let opened = match opened.map_err(reason_of) {
            Ok(opened) => opened,
            Err(reason) => return Err((packet, reason)),
        };
        let mode = entry.sa.shared().parameters().mode;
        let (ip, esp) = (usize::from(packet.place.ip), usize::from(packet.place.start));
        let judged = uncover(mode, packet.frame.bytes_mut(), ip, esp, &opened)
            .and_then(|range| tunnel_check(entry, &packet.frame.bytes()[range.clone()]).map(|inner| (range, inner)));
        let (range, inner) = match judged {
            Ok(judged) => judged,
            Err(reason) => return Err((packet, reason)),
        };
        cut(&mut packet.frame, range);
        if mode == Mode::Tunnel && ecn::combine(packet.place.ecn, packet.frame.bytes_mut()).is_err() {
            return Err((packet, DropReason::Congested));
        }
        let peer = entry.sa.shared().parameters().peer;
        if !self.policy.permits(&inner.flow, inner.fragment) {
            return Err((packet, DropReason::Filter));
        }
        match self.serviced(peer, &inner, Source::Bytes(packet.frame.bytes()), now) {
            Ok(flow) => {
                let (hash, EspPacket { frame, place }) = (flow.symmetric_hash(&self.seed), packet);
                Ok(Checked { frame, place, body: Body::Opened, inner, flow, hash, peer, proof: opened.proof })
            }
            Err(reason) => Err((packet, reason)),
        }
    }

    /// The connection of an authenticated packet, if the address offers such a service.
    fn serviced(
        &mut self,
        peer: PeerId,
        inner: &Inner,
        source: Source<'_>,
        now: Instant,
    ) -> Result<FlowKey, DropReason> {
        if !self.policy.offers(&inner.flow, inner.fragment) {
            return Err(DropReason::ServiceNotOffered);
        }
        self.connection_of(peer, inner, source, now)
    }

    /// The connection that an authenticated packet belongs to: of a later fragment that of its first one, of an ICMP error
    /// the one that it speaks of.
    pub(super) fn connection_of(
        &mut self,
        peer: PeerId,
        inner: &Inner,
        source: Source<'_>,
        now: Instant,
    ) -> Result<FlowKey, DropReason> {
        let Some(part) = &mut self.part else { return Ok(inner.flow) };
        let packet = match source {
            Source::Scratch(range) => &part.scratch[range],
            Source::Bytes(bytes) => bytes,
        };
        if inner.fragment == Fragment::Whole {
            return Ok(quoted(inner, packet).unwrap_or(inner.flow));
        }
        let hash = steering_flow(inner).symmetric_hash(&self.seed);
        let datagram = Datagram::of(peer, &inner.flow, packet).ok_or(DropReason::FragmentUnknown)?;
        if inner.fragment == Fragment::First {
            part.fragments.learn(now, hash, datagram, inner.flow);
            return Ok(inner.flow);
        }
        part.fragments.flow_of(now, hash, &datagram).ok_or(DropReason::FragmentUnknown)
    }
}

/// Where the bytes of an inner packet are.
#[derive(Debug)]
pub(super) enum Source<'a> {
    /// In this core's copy.
    Scratch(Range<usize>),
    /// Here.
    Bytes(&'a [u8]),
}

/// The connection that an ICMP error speaks of, seen from the client. It quotes what the service sent.
fn quoted(inner: &Inner, packet: &[u8]) -> Option<FlowKey> {
    if !matches!(inner.flow.protocol, protocol::ICMP) {
        return None;
    }
    let message = packet.get(inner.header_len..inner.total_len)?;
    let is_error = matches!(message.first()?, 3 | 4 | 5 | 11 | 12);
    let quote = flow::parse_prefix(message.get(icmp::HEADER_LEN..)?).ok().filter(|_| is_error)?;
    let is_between_them = (quote.flow.dst, quote.flow.src) == (inner.flow.src, inner.flow.dst);
    let is_answer = is_between_them && quote.fragment != Fragment::Later;
    is_answer.then(|| quote.flow.reversed())
}

/// Whether a packet only speaks of a connection, so that it makes none.
pub(super) fn only_speaks_of(inner: &Inner, flow: &FlowKey) -> bool {
    inner.flow.protocol != flow.protocol
}
