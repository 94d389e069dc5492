//! The target's way: what a member sent, judged and worked on by the core that it is for.
//!
//! ```text
//! accept → Esp:   outer parse again → SA → floor, window, verify, decrypt → tunnel check → filter ┐
//!        → Plain: SA → floor, window → tunnel check → lifesize                                    ├► connection → deliver
//!        → ToSeal, numbers: see [`super::plain`], [`super::numbers`]
//! ```

use super::reason_of;
use crate::buffer::{PacketBuffer, PortQueue};
use crate::burst::Burst;
use crate::core::DataCore;
use crate::drops::DropReason;
use crate::inbound::{find, open_one};
use crate::packet::{EspPacket, FramePacket, InnerPacket};
use cluster::fabric::Processing;
use cluster::frame::{self, Accepted, Kind};
use ipsec::ecn;
use ipsec::inbound::Carried;
use ipsec::time::Instant;

impl<Q: PortQueue> DataCore<Q> {
    /// Judges frames, and sees what is accepted to its end.
    pub(crate) fn take_frames(&mut self, frames: Burst<FramePacket<Q::Buffer>>, now: Instant) {
        if frames.is_empty() {
            return;
        }
        for packet in frames {
            let Some(fabric) = self.fabric() else {
                self.drops.end(packet, DropReason::TrustedStranger);
                continue;
            };
            match frame::accept(fabric, packet.sender, &packet.repr, packet.payload()) {
                Ok(accepted) => self.take_accepted(packet, accepted, now),
                Err(refused) => self.drops.end(packet, reason_of(refused)),
            }
        }
        self.hand_over();
    }

    fn take_accepted(&mut self, packet: FramePacket<Q::Buffer>, accepted: Accepted, now: Instant) {
        match accepted.kind() {
            Kind::Esp => self.open_accepted(packet, &accepted, now),
            Kind::Plain => self.deliver_plain(packet, &accepted, now),
            Kind::ToSeal => self.seal_accepted(packet, &accepted, now),
            Kind::NumberRequest | Kind::NumberGrant => self.take_numbers(packet, &accepted, now),
        }
    }

    /// An ESP packet that the owner relayed: it must be what the frame says, and is opened like one from the network, but
    /// for the floor that came with it.
    fn open_accepted(&mut self, packet: FramePacket<Q::Buffer>, accepted: &Accepted, now: Instant) {
        let place = match packet.esp_place() {
            Ok(place) => place,
            Err(reason) => return self.drops.end(packet, reason),
        };
        match find(&self.sas, &place).map(|entry| entry.processing) {
            Some(Processing::Target) => {}
            Some(Processing::Distributor) => return self.drops.end(packet, DropReason::FrameWrongRole),
            None => return self.drops.end(packet, DropReason::FrameSa),
        }
        let carried = Carried { floor: accepted.floor(), top: accepted.number() };
        let stamp = packet.stamp();
        let (ecn, packet) = (packet.ecn, EspPacket { frame: packet.frame, place });
        let mut inner = match open_one(&mut self.sas, &mut self.mailbox, packet, carried, now) {
            Ok(inner) => inner,
            Err((packet, reason)) => return self.drops.end(packet, reason),
        };
        if ecn::combine(ecn, inner.packet.bytes_mut()).is_err() {
            return self.drops.end(inner, DropReason::Congested);
        }
        self.meet_connection(InnerPacket { is_routed: true, ..inner }, stamp, now);
    }
}
