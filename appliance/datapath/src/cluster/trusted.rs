//! From the trusted port: what is a frame, and whose turn it is.
//!
//! ```text
//! receive → link → ARP, XCF, heartbeats, ICMP for us: punted
//!                → a protected frame of a member → core of its lane → verify, decrypt ─┐
//!                → a frame of a member, where none is protected ◄──────────────────────┘ → core that works on it → accept → by its kind
//! ```
//!
//! A frame is judged by [`cluster::frame::accept`] on the core that works on it, not before: what that core was told of
//! epochs, serials and freed connections must hold for whatever it opens, also for what waited in a ring meanwhile.

use super::{reason_of, steering_flow};
use crate::buffer::{PacketBuffer, PortQueue};
use crate::burst::Burst;
use crate::core::DataCore;
use crate::drops::DropReason;
use crate::forwarding::PortFacts;
use crate::inbound::{cut, find, peek_inner, uncover};
use crate::mailbox::PuntReason;
use crate::outer::{self, Link, Urgency};
use crate::packet::{FramePacket, Handed};
use cluster::fabric::{Fabric, Protection};
use cluster::frame::{self, Kind, NotAFrame};
use cluster::id::MemberId;
use cluster::protection::{self, NotOpened};
use core::net::IpAddr;
use ipsec::inbound::InboundError;
use ipsec::sa::Mode;
use ipsec::time::Instant;
use wire::flow;
use wire::{Fragment, esp, ipv4, protocol};

/// What a frame on the trusted port is.
enum Trusted {
    Punt(Urgency),
    Frame(frame::Frame, MemberId, usize),
    /// A protected frame: who sent it, where its IP packet begins, which core opens it.
    Protected(MemberId, u16, usize),
}

impl<Q: PortQueue> DataCore<Q> {
    /// One burst from one trusted port.
    pub(crate) fn take_trusted(&mut self, port: usize, now: Instant) -> bool {
        let frames = self.ports[port].receive(&self.ledger);
        if frames.is_empty() {
            return false;
        }
        let facts = self.ports[port].facts;
        let mut own = Burst::new();
        for frame in frames {
            match self.classify_trusted(frame.bytes(), &facts) {
                Ok(Trusted::Punt(urgency)) => self.punt(facts.id, PuntReason::ForUs, urgency, frame),
                Ok(Trusted::Frame(found, sender, start)) => match FramePacket::new(frame, found, sender, start) {
                    Ok(packet) => self.steer_frame(packet, &mut own),
                    Err(frame) => self.drops.end(frame, DropReason::FrameMalformed),
                },
                Ok(Trusted::Protected(sender, start, core)) if core == self.handover.own() => {
                    self.open_protected(frame, sender, start, &mut own);
                }
                Ok(Trusted::Protected(sender, start, core)) => {
                    self.outgoing[core].push(Handed::Protected { frame, sender, start });
                }
                Err(reason) => self.drops.end(frame, reason),
            }
        }
        self.hand_over();
        self.take_frames(own, now);
        true
    }

    fn classify_trusted(&self, bytes: &[u8], facts: &PortFacts) -> Result<Trusted, DropReason> {
        let start = match outer::link(bytes, facts)? {
            Link::Arp => return Ok(Trusted::Punt(Urgency::Vital)),
            Link::Ipv4 { start } => start,
        };
        let fabric = self.fabric();
        match frame::find(&bytes[start..]) {
            Ok(found) => {
                let fabric = fabric.ok_or(DropReason::TrustedStranger)?;
                let sender = frame::sender_of(fabric, (found.src, found.dst)).map_err(reason_of)?;
                match fabric.protection {
                    Protection::None => Ok(Trusted::Frame(found, sender, start)),
                    Protection::Esp => Err(DropReason::FrameUnprotected),
                }
            }
            Err(NotAFrame::Another) => self.no_clear_frame(&bytes[start..], start, fabric.map(|fabric| &**fabric)),
            Err(NotAFrame::Broken(_)) => Err(DropReason::FrameMalformed),
        }
    }

    /// What is no frame in the clear: a protected one, or for the control core.
    fn no_clear_frame(&self, packet: &[u8], start: usize, fabric: Option<&Fabric>) -> Result<Trusted, DropReason> {
        let ip = ipv4::Packet::new_checked(packet).map_err(|_| DropReason::OuterMalformed)?;
        if !ip.verify_checksum() {
            return Err(DropReason::OuterChecksum);
        }
        match fabric {
            Some(fabric) if ip.protocol() == protocol::ESP => self.protected(&ip, start, fabric),
            Some(_) | None => self.for_control(&ip, fabric),
        }
    }

    /// Whether the control core is to have it: from a member, to our own address there. Before the cluster is known any
    /// sender will do, for XCF has its own way to know a member.
    fn for_control(&self, ip: &ipv4::Packet<&[u8]>, fabric: Option<&Fabric>) -> Result<Trusted, DropReason> {
        let (src, dst) = (IpAddr::V4(ip.src()), IpAddr::V4(ip.dst()));
        let is_between_us = match fabric {
            Some(fabric) => fabric.member_at(src).is_some() && fabric.address_of(fabric.me) == Some(dst),
            None => self.policy.is_ours(dst),
        };
        if !is_between_us {
            return Err(DropReason::TrustedStranger);
        }
        match ip.protocol() {
            _ if ip.fragment() != Fragment::Whole => Err(DropReason::TrustedNotServed),
            protocol::ICMP => Ok(Trusted::Punt(Urgency::Courtesy)),
            // XCF and heartbeats: without them a member is lost.
            protocol::TCP | protocol::UDP => Ok(Trusted::Punt(Urgency::Established)),
            _other => Err(DropReason::TrustedNotServed),
        }
    }

    /// A frame that a member has protected: who opens it.
    fn protected(&self, ip: &ipv4::Packet<&[u8]>, start: usize, fabric: &Fabric) -> Result<Trusted, DropReason> {
        let sender = frame::sender_of(fabric, (ip.src().into(), ip.dst().into())).map_err(reason_of)?;
        match fabric.protection {
            Protection::None => Err(DropReason::FrameProtected),
            Protection::Esp if ip.fragment() != Fragment::Whole => Err(DropReason::FrameMalformed),
            Protection::Esp => {
                let esp = esp::Packet::new_checked(ip.payload()).map_err(|_| DropReason::FrameMalformed)?;
                let core = protection::core_of(esp.spi(), self.handover.cores()).ok_or(DropReason::FrameKeyless)?;
                // An Ethernet header is a few bytes long.
                Ok(Trusted::Protected(sender, start as u16, core))
            }
        }
    }

    /// Opens a protected frame on the core of its lane: what comes out goes on like one that came in the clear.
    pub(crate) fn open_protected(
        &mut self,
        mut frame: Q::Buffer,
        sender: MemberId,
        start: u16,
        own: &mut Burst<FramePacket<Q::Buffer>>,
    ) {
        match self.uncover_protected(&mut frame, sender, usize::from(start)) {
            Ok(found) => match FramePacket::new(frame, found, sender, 0) {
                Ok(packet) => self.steer_frame(packet, own),
                Err(frame) => self.drops.end(frame, DropReason::FrameMalformed),
            },
            Err(reason) => self.drops.end(frame, reason),
        }
    }

    /// Cuts a frame down to the IP packet that it was before it was protected, and finds what it carries.
    fn uncover_protected(
        &mut self,
        frame: &mut Q::Buffer,
        sender: MemberId,
        start: usize,
    ) -> Result<frame::Frame, DropReason> {
        let part = self.part.as_mut().ok_or(DropReason::FrameKeyless)?;
        let bytes = frame.bytes_mut();
        let ip = ipv4::Packet::new_checked(bytes.get(start..).unwrap_or_default());
        let (at, end) =
            ip.map(|ip| (start + ip.header_len(), start + ip.total_len())).map_err(|_| DropReason::FrameMalformed)?;
        let opened = part.guard.open(sender, &mut bytes[at..end]).map_err(|refused| match refused {
            NotOpened::NoKeys => DropReason::FrameKeyless,
            NotOpened::Esp(InboundError::Replayed | InboundError::TooOld) => DropReason::FrameReplayed,
            NotOpened::Esp(InboundError::AuthenticationFailed) => DropReason::FrameForged,
            NotOpened::Esp(_) => DropReason::FrameMalformed,
        })?;
        let range = uncover(Mode::Transport, bytes, start, at, &opened).map_err(|_| DropReason::FrameMalformed)?;
        cut(frame, range);
        frame::find(frame.bytes()).map_err(|_| DropReason::FrameMalformed)
    }

    /// Takes a frame that another core has handed over.
    pub(crate) fn take_handed_frame(
        &mut self,
        frame: Q::Buffer,
        sender: MemberId,
        start: u16,
    ) -> Option<FramePacket<Q::Buffer>> {
        let start = usize::from(start);
        let found = frame.bytes().get(start..).and_then(|packet| frame::find(packet).ok());
        let packet = match found {
            Some(found) => FramePacket::new(frame, found, sender, start),
            None => Err(frame),
        };
        packet.map_err(|frame| self.drops.end(frame, DropReason::FrameMalformed)).ok()
    }

    /// Keeps what this core works on, and hands over the rest. Nothing is believed yet.
    fn steer_frame(&mut self, packet: FramePacket<Q::Buffer>, own: &mut Burst<FramePacket<Q::Buffer>>) {
        match self.core_of_frame(&packet) {
            Ok(core) if core == self.handover.own() => own.push(packet),
            Ok(core) => self.outgoing[core].push(packet.leaving()),
            Err(reason) => self.drops.end(packet, reason),
        }
    }

    fn core_of_frame(&self, packet: &FramePacket<Q::Buffer>) -> Result<usize, DropReason> {
        let here = self.handover.own();
        if self.handover.cores() == 1 {
            return Ok(here);
        }
        let inner = match packet.repr.kind {
            Kind::Esp => {
                let place = packet.esp_place()?;
                find(&self.sas, &place).ok_or(DropReason::FrameSa)?;
                peek_inner(&self.sas, packet.frame.bytes(), &place)?
            }
            Kind::Plain => Some(flow::parse_inner(packet.payload()).map_err(|_| DropReason::FrameMalformed)?),
            Kind::NumberRequest | Kind::NumberGrant => {
                let sa = self.numbers.of_child(packet.repr.dvipa, packet.repr.spi);
                let home = sa.and_then(|(peer, spi)| self.sas.outbound.home(peer, spi));
                return home.ok_or(DropReason::FrameSa);
            }
            Kind::ToSeal => None,
        };
        Ok(inner.map_or(here, |inner| self.owner_of(steering_flow(&inner).symmetric_hash(&self.seed))))
    }
}
