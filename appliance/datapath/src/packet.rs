//! What a packet is at each point of its way: one type for each, so that no step can be left out.
//!
//! ```text
//! network:  frame → EspPacket ──(ICV verified)──► InnerPacket ──► delivered
//!                 └► SeenPacket ──(a peek, or ICV verified: Checked)──► relayed
//! trusted:  frame → FramePacket ──(accepted, ICV verified)──► InnerPacket ──► delivered
//! inside:   frame → PlainPacket ──(policy)──► SealPacket ──► forwarded
//! ```

use crate::buffer::PacketBuffer;
use crate::drops::DropReason;
use crate::outer::{self, EspPlace};
use crate::routes::PortId;
use cluster::frame::{Frame, Repr};
use cluster::id::{ChildId, Epoch, Incarnation, MemberId, Serial};
use core::ops::Range;
use ipsec::Spi;
use ipsec::ecn::Ecn;
use ipsec::esp::Authentic;
use ipsec::inbound::Taken;
use ipsec::sa::PeerId;
use wire::flow::{FlowKey, Inner};

/// What makes a packet to be believed: it was verified here, or the owner of its address says that it was. Either way its
/// number is taken; there is no other way to either.
#[derive(Debug)]
pub enum Proof {
    /// Its integrity was verified on this core.
    Authentic(Authentic),
    /// It came from the owner of its address, who verified it.
    Taken(Taken),
}

/// An ESP packet as it came; nothing about it is to be believed.
#[derive(Debug)]
pub struct EspPacket<B> {
    /// The whole frame.
    pub frame: B,
    /// Where the ESP packet lies in it.
    pub place: EspPlace,
}

/// An ESP packet of a clustered DVIPA, with what a peek saw of it.
#[derive(Debug)]
pub struct SeenPacket<B> {
    /// The packet.
    pub packet: EspPacket<B>,
    /// The inner headers that it claims to have; `None` for what claims to be a dummy.
    pub seen: Option<Inner>,
}

/// A frame from another member, as it came; nothing about it is to be believed but where it came from.
#[derive(Debug)]
pub struct FramePacket<B> {
    /// The whole Ethernet frame.
    pub frame: B,
    /// Which member sent it.
    pub sender: MemberId,
    /// The header.
    pub repr: Repr,
    /// Where in the frame the outer IP packet begins.
    pub start: usize,
    /// Where in the frame the payload lies.
    pub payload: Range<usize>,
    /// The congestion mark that the trusted wire may have made.
    pub ecn: Ecn,
}

impl<B: PacketBuffer> FramePacket<B> {
    /// What was found in the IP packet that begins at `start` of `frame`. Gives the frame back if it is not so long.
    pub(crate) fn new(frame: B, found: Frame, sender: MemberId, start: usize) -> Result<FramePacket<B>, B> {
        let payload = start + found.payload.start..start + found.payload.end;
        if frame.bytes().get(payload.clone()).is_none() {
            return Err(frame);
        }
        Ok(FramePacket { frame, sender, repr: found.repr, start, payload, ecn: found.ecn })
    }

    /// The same, on its way to another core.
    pub(crate) fn leaving(self) -> Handed<B> {
        // An Ethernet header is a few bytes long.
        Handed::Frame { frame: self.frame, sender: self.sender, start: self.start as u16 }
    }

    /// What follows the header.
    pub fn payload(&self) -> &[u8] {
        self.frame.bytes().get(self.payload.clone()).unwrap_or_default()
    }

    /// What must hold of it when it is delivered.
    pub fn stamp(&self) -> Stamp {
        let Repr { epoch, incarnation, serial, .. } = self.repr;
        Stamp { child: self.repr.child(), epoch, incarnation, serial }
    }

    /// Where the ESP packet lies that the payload must be: that of the SA which the header names.
    ///
    /// # Errors
    /// The reason to drop it for.
    pub fn esp_place(&self) -> Result<EspPlace, DropReason> {
        let place = outer::esp_in(self.payload(), self.payload.start)?;
        let is_named = place.dvipa == self.repr.dvipa && place.spi.to_be_bytes() == self.repr.spi.to_be_bytes();
        if is_named { Ok(place) } else { Err(DropReason::FrameMalformed) }
    }
}

/// An inner packet that came out of an SA and was verified.
#[derive(Debug)]
pub struct InnerPacket<B> {
    /// The inner IP packet alone.
    pub packet: B,
    /// Its headers.
    pub inner: Inner,
    /// Its connection: what its headers say, but for fragments and errors in a cluster.
    pub connection: FlowKey,
    /// The proof.
    pub proof: Proof,
    /// Whose SA it came by.
    pub peer: PeerId,
    /// The longest inner packet that fits the way back to the peer.
    pub return_mtu: u16,
    /// Whether the owner of its address routed it here.
    pub is_routed: bool,
    /// Whether it was asked before whether the address offers such a service, and its filter permits it.
    pub is_filtered: bool,
}

/// An IP packet from an inside port, on its way to a client.
#[derive(Debug)]
pub struct PlainPacket<B> {
    /// The IP packet alone.
    pub packet: B,
    /// The port it came in by.
    pub port: PortId,
    /// Its headers.
    pub inner: Inner,
    /// Symmetric hash of its flow.
    pub hash: u64,
}

/// An IP packet and the outbound SA that it shall leave by.
#[derive(Debug)]
pub struct SealPacket<B> {
    /// The IP packet alone.
    pub packet: B,
    /// Whose SA.
    pub peer: PeerId,
    /// Which of the peer's SAs.
    pub spi: Spi,
    /// Whether this appliance made it: it was never received.
    pub is_made: bool,
}

/// What a packet's own headers do not show of its connection: those of fragments, and of what speaks of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper {
    protocol: u8,
    src_port: u16,
    dst_port: u16,
}

impl Upper {
    /// That of a connection.
    pub fn of(connection: &FlowKey) -> Upper {
        let FlowKey { protocol, src_port, dst_port, .. } = *connection;
        Upper { protocol, src_port, dst_port }
    }

    /// The connection between the addresses of `flow`.
    pub fn between(self, flow: &FlowKey) -> FlowKey {
        let Upper { protocol, src_port, dst_port } = self;
        FlowKey { protocol, src_port, dst_port, ..*flow }
    }
}

/// An authenticated packet of a clustered DVIPA, between two cores.
#[derive(Debug)]
pub struct CheckedPacket<B> {
    /// The frame as it came, or cut down to the inner packet.
    pub frame: B,
    /// Where ESP lay in it.
    pub place: EspPlace,
    /// Whether it was cut down.
    pub is_opened: bool,
    /// Its connection.
    pub upper: Upper,
    /// The proof.
    pub proof: Authentic,
}

/// By which frame a packet came: what must still hold when it is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Which SA.
    pub child: ChildId,
    /// Of which epoch the frame was.
    pub epoch: Epoch,
    /// For which start of this appliance.
    pub incarnation: Incarnation,
    /// Of which serial.
    pub serial: Serial,
}

/// An inner packet that came by a frame, on its way to the core of its connection.
#[derive(Debug)]
pub struct ConnectionPacket<B> {
    /// The inner IP packet alone.
    pub packet: B,
    /// The proof.
    pub proof: Proof,
    /// By which frame it came.
    pub stamp: Stamp,
    /// Its connection.
    pub upper: Upper,
    /// Whether it was asked before whether the address offers such a service, and its filter permits it.
    pub is_filtered: bool,
}

// It is moved a few times for each packet, so none of them may be much larger than the others.
const _: () = assert!(size_of::<Handed<[u64; 1]>>() <= 128);

/// What one core gives to another.
#[derive(Debug)]
pub enum Handed<B> {
    /// To be opened, or as the owner routed, by the core that owns its connection.
    Esp(EspPacket<B>),
    /// Authenticated; to be routed by the core of its connection.
    Checked(CheckedPacket<B>),
    /// From another member; to be judged by the core that works on it.
    Frame {
        /// The whole Ethernet frame.
        frame: B,
        /// Which member sent it.
        sender: MemberId,
        /// Where its IP packet begins.
        start: u16,
    },
    /// From another member and protected; to be opened by the core of its lane.
    Protected {
        /// The whole Ethernet frame.
        frame: B,
        /// Which member sent it, by its address.
        sender: MemberId,
        /// Where its IP packet begins.
        start: u16,
    },
    /// Out of its SA; to be delivered by the core of its connection.
    Inner(ConnectionPacket<B>),
    /// To be given an SA by the core that owns its connection.
    Plain(PlainPacket<B>),
    /// To be sealed by the home core of its SA.
    Seal(SealPacket<B>),
}
