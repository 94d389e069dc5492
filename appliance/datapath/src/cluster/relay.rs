//! From one member to another: a packet behind a frame's headers, on the trusted port.

use super::check::{Body, Checked};
use crate::buffer::{PacketBuffer, PortQueue};
use crate::core::DataCore;
use crate::drops::DropReason;
use crate::forwarding::{PortRole, Send, send, send_made};
use crate::inbound::{cut, find};
use crate::packet::EspPacket;
use cluster::fabric::{FabricTarget, Protection};
use cluster::frame::{Kind, Path, Repr};
use cluster::id::MemberId;
use cluster::protection::{self, NotSealed};
use core::net::IpAddr;
use ipsec::Spi;
use ipsec::outbound::Overhead;
use ipsec::time::Instant;
use wire::ipv4;

impl<Q: PortQueue> DataCore<Q> {
    /// Relays an ESP packet as it came: the outer IP packet, without the Ethernet header and the padding behind it.
    pub(super) fn relay_esp(&mut self, packet: EspPacket<Q::Buffer>, target: &FabricTarget, hash: u64, now: Instant) {
        let EspPacket { mut frame, place } = packet;
        let Some(sa) = find(&self.sas, &place) else { return self.drops.end(frame, DropReason::SpiUnknown) };
        let shared = sa.sa.shared();
        let (floor, number, spi) =
            (shared.floor(), sa.sa.window().top().max(shared.progress()), shared.parameters().spi);
        let start = usize::from(place.ip);
        let len = ipv4::Packet::new_checked(&frame.bytes()[start..]).map_or(0, |ip| ip.total_len());
        cut(&mut frame, start..start + len);
        self.relay_to_target(frame, (Kind::Esp, place.dvipa, spi), target, (floor, number), hash, now);
    }

    /// Relays an authenticated packet: as it came, or, where the distributor processes, plain.
    pub(super) fn relay_checked(&mut self, checked: Checked<Q::Buffer>, target: &FabricTarget, now: Instant) {
        let Checked { frame, place, body, hash, proof, .. } = checked;
        match (body, find(&self.sas, &place)) {
            (Body::Copied(_) | Body::Sealed, _) => self.relay_esp(EspPacket { frame, place }, target, hash, now),
            (Body::Opened, Some(sa)) => {
                let (floor, spi) = (sa.sa.shared().floor(), sa.sa.shared().parameters().spi);
                let numbers = (floor, proof.sequence());
                self.relay_to_target(frame, (Kind::Plain, place.dvipa, spi), target, numbers, hash, now);
            }
            (Body::Opened, None) => self.drops.end(frame, DropReason::SpiUnknown),
        }
    }

    fn relay_to_target(
        &mut self,
        packet: Q::Buffer,
        (kind, dvipa, spi): (Kind, IpAddr, Spi),
        target: &FabricTarget,
        (floor, number): (u64, u64),
        hash: u64,
        now: Instant,
    ) {
        let Some((_, facts)) = self.clustered(dvipa) else { return self.drops.end(packet, DropReason::NotOwner) };
        let (epoch, incarnation, serial) = (facts.epoch, target.incarnation, target.serial);
        let repr = Repr { kind, flow_hash: hash as u32, epoch, incarnation, serial, dvipa, spi, floor, number };
        self.relay(packet, target.member, &repr, now);
    }

    /// Puts a packet behind a frame's headers and sends it to a member.
    pub(super) fn relay(&mut self, packet: Q::Buffer, to: MemberId, repr: &Repr, now: Instant) {
        self.relay_by(packet, to, repr, now, send);
    }

    /// The same for a packet that this core made.
    pub(super) fn relay_made(&mut self, packet: Q::Buffer, to: MemberId, repr: &Repr, now: Instant) {
        self.relay_by(packet, to, repr, now, send_made);
    }

    fn relay_by(&mut self, mut packet: Q::Buffer, to: MemberId, repr: &Repr, now: Instant, send: Send<Q>) {
        let Some(path) = self.path_to(to) else { return self.drops.end(packet, DropReason::NoRoute) };
        let (port, mac) = match self.forwarding.way(path.dst) {
            Ok((port, mac)) => (usize::from(port.0), mac),
            Err((reason, wanted)) => {
                self.drops.end(packet, reason);
                wanted.into_iter().for_each(|hop| self.ask_for(hop, now));
                return;
            }
        };
        let trusted = self.ports.get(port).filter(|port| port.facts.role == PortRole::Trusted);
        let Some(mtu) = trusted.map(|port| port.facts.mtu) else {
            return self.drops.end(packet, DropReason::NoRoute);
        };
        let frame_len = packet.bytes().len() + path.overhead();
        let is_protected = self.fabric().is_some_and(|fabric| fabric.protection == Protection::Esp);
        let Overhead { before, after } = protection::overhead(frame_len);
        let around = if is_protected { before + after } else { 0 };
        if frame_len + around > mtu {
            return self.drops.end(packet, DropReason::RelayTooBig);
        }
        if !packet.prepend(path.overhead()) || path.write(repr, packet.bytes_mut()).is_err() {
            return self.drops.end(packet, DropReason::NoRoom);
        }
        if is_protected && let Err(reason) = self.protect_frame(&mut packet, to, repr.flow_hash, now) {
            return self.drops.end(packet, reason);
        }
        send(&mut self.ports[port], packet, mac, &self.ledger, &mut self.drops);
    }

    /// Puts ESP around a frame that is ready to be sent to a member; the reason to drop it for where that fails.
    fn protect_frame(
        &mut self,
        packet: &mut Q::Buffer,
        to: MemberId,
        flow_hash: u32,
        now: Instant,
    ) -> Result<(), DropReason> {
        let part = self.part.as_mut().ok_or(DropReason::FrameKeyless)?;
        let frame_len = packet.bytes().len();
        let Overhead { before, after } = protection::overhead(frame_len);
        if !packet.prepend(before) || !packet.append(after) {
            return Err(DropReason::NoRoom);
        }
        let sealed = part.guard.seal(now, to, flow_hash, &mut self.ivs, packet.bytes_mut(), frame_len);
        sealed.map_err(|error| match error {
            NotSealed::NoKeys => DropReason::FrameKeyless,
            NotSealed::Esp(error) => {
                self.ask_for_ivs(error);
                crate::outbound::reason_of(error)
            }
        })
    }

    pub(super) fn path_to(&self, to: MemberId) -> Option<Path> {
        let fabric = self.fabric()?;
        let (src, dst) = (fabric.address_of(fabric.me)?, fabric.address_of(to)?);
        (to != fabric.me).then_some(Path { encapsulation: fabric.encapsulation, src, dst })
    }
}
