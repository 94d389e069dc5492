//! Plain packets between members: from a distributor that processes, and to one that encrypts.

use crate::buffer::{PacketBuffer, PortQueue};
use crate::core::DataCore;
use crate::drops::DropReason;
use crate::inbound::{cut, reason_of};
use crate::packet::{FramePacket, Handed, InnerPacket, Proof, SealPacket};
use cluster::fabric::Processing;
use cluster::frame::Accepted;
use ipsec::ecn::{self, Ecn};
use ipsec::sa::{Direction, PeerId};
use ipsec::spd::Action;
use ipsec::time::Instant;
use wire::flow::{self, Inner};

impl<Q: PortQueue> DataCore<Q> {
    /// A packet that the owner has authenticated, checked and filtered. Its number is taken here, in this core's window: the
    /// inner addresses and ports, which a copy of the frame shows too, have named this core.
    pub(super) fn deliver_plain(&mut self, packet: FramePacket<Q::Buffer>, accepted: &Accepted, now: Instant) {
        let (payload, mark, stamp) = (packet.payload.clone(), packet.ecn, packet.stamp());
        let mut bytes = packet.frame;
        cut(&mut bytes, payload);
        let inner = match self.take_plain(&mut bytes, accepted, mark, now) {
            Ok((proof, inner, peer, return_mtu)) => {
                let connection = inner.flow;
                let (is_routed, is_filtered) = (true, true);
                InnerPacket { packet: bytes, inner, connection, proof, peer, return_mtu, is_routed, is_filtered }
            }
            Err(reason) => return self.drops.end(bytes, reason),
        };
        self.meet_connection(inner, stamp, now);
    }

    /// Number, tunnel check, congestion mark, lifesize: all that stands between an accepted plain packet and its delivery.
    fn take_plain(
        &mut self,
        bytes: &mut Q::Buffer,
        accepted: &Accepted,
        mark: Ecn,
        now: Instant,
    ) -> Result<(Proof, Inner, PeerId, u16), DropReason> {
        let inner = flow::parse_inner(bytes.bytes()).map_err(|_| DropReason::FrameMalformed)?;
        bytes.truncate(inner.total_len);
        let entry = self.sas.inbound.get_mut(accepted.dvipa(), accepted.spi()).ok_or(DropReason::FrameSa)?;
        // Of an SA that is processed elsewhere nobody may say so.
        let vouched = accepted.vouched().filter(|_| entry.processing == Processing::Distributor);
        let taken = entry.take(vouched.ok_or(DropReason::FrameWrongRole)?, now).map_err(reason_of)?;
        if !entry.sa.admits(&inner) {
            return Err(DropReason::TunnelCheck);
        }
        ecn::combine(mark, bytes.bytes_mut()).map_err(|_| DropReason::Congested)?;
        let charged = entry.sa.charge(entry.lifesize_of(&inner));
        entry.charged(&charged, &mut self.mailbox);
        charged.map_err(reason_of)?;
        Ok((Proof::Taken(taken), inner, entry.sa.shared().parameters().peer, entry.return_mtu))
    }

    /// A packet that a target wants encrypted: from the service, for the peer that the frame names, within what its SAs
    /// and the policy allow. The target has taken the hop and clamped the MSS.
    ///
    /// Such a frame carries no number. One that is repeated on the trusted wire makes a second packet, under a number and an
    /// IV of its own: to the client that is a network that duplicates, as networks may. No rule of the cluster is about it.
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
