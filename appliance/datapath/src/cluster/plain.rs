//! Plain packets between members: from a distributor that processes, and to one that encrypts.

use crate::buffer::{PacketBuffer, PortQueue};
use crate::core::DataCore;
use crate::drops::DropReason;
use crate::inbound::{cut, reason_of};
use crate::packet::{FramePacket, Handed, InnerPacket, Proof, SealPacket};
use cluster::frame::Accepted;
use ipsec::ecn;
use ipsec::sa::Direction;
use ipsec::spd::Action;
use ipsec::time::Instant;
use wire::flow;

impl<Q: PortQueue> DataCore<Q> {
    /// A packet that the owner has authenticated, checked and filtered.
    pub(super) fn deliver_plain(&mut self, packet: FramePacket<Q::Buffer>, accepted: Accepted, now: Instant) {
        let (payload, mark, stamp) = (packet.payload.clone(), packet.ecn, packet.stamp());
        let mut bytes = packet.frame;
        cut(&mut bytes, payload);
        let Ok(inner) = flow::parse_inner(bytes.bytes()) else {
            return self.drops.end(bytes, DropReason::FrameMalformed);
        };
        bytes.truncate(inner.total_len);
        if ecn::combine(mark, bytes.bytes_mut()).is_err() {
            return self.drops.end(bytes, DropReason::Congested);
        }
        let Some(entry) = self.sas.inbound.get_mut(accepted.dvipa(), accepted.spi()) else {
            return self.drops.end(bytes, DropReason::FrameSa);
        };
        if !entry.sa.admits(&inner) {
            return self.drops.end(bytes, DropReason::TunnelCheck);
        }
        let charged = entry.sa.charge(entry.lifesize_of(&inner));
        entry.charged(&charged, &mut self.mailbox);
        entry.heard_of(accepted.number(), now);
        if let Err(error) = charged {
            return self.drops.end(bytes, reason_of(error));
        }
        let (peer, return_mtu) = (entry.sa.shared().parameters().peer, entry.return_mtu);
        let proof = Proof::Accepted(accepted);
        let connection = inner.flow;
        let packet = InnerPacket {
            packet: bytes,
            inner,
            connection,
            proof,
            peer,
            return_mtu,
            is_routed: true,
            is_filtered: true,
        };
        self.meet_connection(packet, stamp, now);
    }

    /// A packet that a target wants encrypted: from the service, for the peer that the frame names, within what its SAs
    /// and the policy allow. The target has taken the hop and clamped the MSS.
    pub(super) fn seal_accepted(&mut self, packet: FramePacket<Q::Buffer>, accepted: &Accepted, now: Instant) {
        let payload = packet.payload.clone();
        let mut bytes = packet.frame;
        cut(&mut bytes, payload);
        let Ok(inner) = flow::parse_inner(bytes.bytes()) else {
            return self.drops.end(bytes, DropReason::FrameMalformed);
        };
        bytes.truncate(inner.total_len);
        let Some(peer) = self.sas.inbound.get(accepted.dvipa(), accepted.spi()) else {
            return self.drops.end(bytes, DropReason::FrameSa);
        };
        let peer = peer.sa.shared().parameters().peer;
        let action = self.policy.action(Direction::Outbound, &inner.flow, inner.fragment);
        if !matches!(action, Some(Action::Protect { .. })) {
            return self.drops.end(bytes, DropReason::PolicyDiscard);
        }
        let Some(outbound) = self.sas.outbound.of_peer(peer, &inner.flow, inner.fragment) else {
            return self.drops.end(bytes, DropReason::NoOutboundSa);
        };
        let (spi, home) = (outbound.shared.parameters().spi, outbound.home);
        let packet = SealPacket { packet: bytes, peer, spi, is_made: false };
        if home == self.handover.own() {
            self.seal([packet].into_iter().collect(), now);
        } else {
            self.outgoing[home].push(Handed::Seal(packet));
        }
    }
}
