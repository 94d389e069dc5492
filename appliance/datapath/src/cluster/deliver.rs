//! The last steps at a target, whichever way a packet came to it: its connection, and the inside port.

use super::check::{Body, Checked, Source};
use crate::buffer::{PacketBuffer, PortQueue};
use crate::core::DataCore;
use crate::drops::DropReason;
use crate::inbound::{cut, find_mut, open_one, reason_of};
use crate::packet::{ConnectionPacket, EspPacket, Handed, InnerPacket, Proof, Stamp, Upper};
use ipsec::ecn;
use ipsec::inbound::Carried;
use ipsec::sa::Mode;
use ipsec::time::Instant;
use wire::flow::{self, FlowKey};

impl<Q: PortQueue> DataCore<Q> {
    /// Opens a packet that the owner's half of this appliance routes here, and delivers it. `connection` is known where the
    /// packet does not show it.
    pub(super) fn open_routed(&mut self, packet: EspPacket<Q::Buffer>, connection: Option<FlowKey>, now: Instant) {
        match open_one(&mut self.sas, &mut self.mailbox, packet, Carried::NOTHING, now) {
            Ok(inner) => {
                let connection = connection.unwrap_or(inner.inner.flow);
                self.deliver(InnerPacket { connection, is_routed: true, ..inner }, now);
            }
            Err((packet, reason)) => self.drops.end(packet, reason),
        }
    }

    /// Delivers an authenticated packet of the owner's half. Its number is taken; its place in the lifesize is taken here.
    pub(super) fn deliver_checked(&mut self, checked: Checked<Q::Buffer>, now: Instant) {
        let Checked { mut frame, place, body, inner, flow, peer, proof, .. } = checked;
        let Some(entry) = find_mut(&mut self.sas, &place) else {
            return self.drops.end(frame, DropReason::SpiUnknown);
        };
        // Where this owner only passes packets on, the target's half filters.
        let is_filtered = matches!(body, Body::Opened);
        match body {
            // Authenticated by another core, for which its number is taken; this one takes it for itself.
            Body::Sealed => return self.open_routed(EspPacket { frame, place }, Some(flow), now),
            Body::Opened => {}
            Body::Copied(range) => {
                let at = usize::from(place.ip) + range.start..usize::from(place.ip) + range.end;
                if let Some(part) = &self.part {
                    frame.bytes_mut()[at.clone()].copy_from_slice(&part.scratch[range]);
                }
                cut(&mut frame, at);
                let is_tunnel = entry.sa.shared().parameters().mode == Mode::Tunnel;
                if is_tunnel && ecn::combine(place.ecn, frame.bytes_mut()).is_err() {
                    return self.drops.end(frame, DropReason::Congested);
                }
            }
        }
        let charged = entry.sa.charge(entry.lifesize_of(&inner));
        entry.charged(&charged, &mut self.mailbox);
        if let Err(error) = charged {
            return self.drops.end(frame, reason_of(error));
        }
        let (return_mtu, proof) = (entry.return_mtu, Proof::Authentic(proof));
        let packet = InnerPacket {
            packet: frame,
            inner,
            connection: flow,
            proof,
            peer,
            return_mtu,
            is_routed: true,
            is_filtered,
        };
        self.deliver(packet, now);
    }

    /// Delivers what came by a frame, on the core of its connection.
    pub(super) fn meet_connection(&mut self, mut packet: InnerPacket<Q::Buffer>, stamp: Stamp, now: Instant) {
        let bytes = Source::Bytes(packet.packet.bytes());
        match self.connection_of(packet.peer, &packet.inner, bytes, now) {
            Ok(connection) => packet.connection = connection,
            Err(reason) => return self.drops.end(packet, reason),
        }
        match self.owner_of(packet.connection.symmetric_hash(&self.seed)) {
            core if core == self.handover.own() => self.deliver(packet, now),
            core => {
                let InnerPacket { packet, connection, proof, is_filtered, .. } = packet;
                let upper = Upper::of(&connection);
                self.outgoing[core].push(Handed::Inner(ConnectionPacket { packet, proof, stamp, upper, is_filtered }));
            }
        }
    }

    /// Delivers what another core took from a frame, if this core would take it still: it may know of a freeing that the
    /// other one had not heard of.
    pub(crate) fn deliver_handed_over(&mut self, handed: ConnectionPacket<Q::Buffer>, now: Instant) {
        let ConnectionPacket { packet, proof, stamp, upper, is_filtered } = handed;
        let Some((fabric, dvipa)) = self.clustered(stamp.child.dvipa) else {
            return self.drops.end(packet, DropReason::FrameUnknownDvipa);
        };
        if stamp.epoch != dvipa.epoch {
            return self.drops.end(packet, DropReason::FrameStaleEpoch);
        }
        if stamp.incarnation != fabric.incarnation {
            return self.drops.end(packet, DropReason::FrameOtherIncarnation);
        }
        if stamp.serial < dvipa.oldest_serial {
            return self.drops.end(packet, DropReason::FrameStaleSerial);
        }
        let Some(entry) = self.sas.inbound.get(stamp.child.dvipa, stamp.child.spi) else {
            return self.drops.end(packet, DropReason::FrameSa);
        };
        let (peer, return_mtu) = (entry.sa.shared().parameters().peer, entry.return_mtu);
        let Ok(inner) = flow::parse_inner(packet.bytes()) else {
            return self.drops.end(packet, DropReason::InnerMalformed);
        };
        let connection = upper.between(&inner.flow);
        let packet = InnerPacket { packet, inner, connection, proof, peer, return_mtu, is_routed: true, is_filtered };
        self.deliver(packet, now);
    }
}
