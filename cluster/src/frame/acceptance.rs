//! Which frames may do anything at all.
//!
//! Each rule alone keeps a kind of replay or a confusion out (DESIGN §4); the exhaustive model under `tests/replay_model`
//! shows what happens without them. Floor and window are judged later, beside the SA, by whoever authenticates.

use core::net::IpAddr;

use ipsec::Spi;
use ipsec::inbound::Vouched;
use wire::{ipv4, ipv6};

use super::{Kind, Repr};
use crate::fabric::{Fabric, FabricDvipa};
use crate::id::{ChildId, Incarnation, MemberId};

/// Proof that a frame passed every rule of [`accept`], with what it says. Such a packet goes to the inside port or the
/// network, never out of the trusted port again.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a frame that was accepted is to be worked on"]
pub struct Accepted {
    kind: Kind,
    dvipa: IpAddr,
    spi: Spi,
    floor: u64,
    number: u64,
    sender: MemberId,
}

impl Accepted {
    /// What it carries.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whose address it is about: one that this member owns or serves.
    #[must_use]
    pub fn dvipa(&self) -> IpAddr {
        self.dvipa
    }

    /// The inbound SPI that names the CHILD_SA.
    #[must_use]
    pub fn spi(&self) -> Spi {
        self.spi
    }

    /// How members name its CHILD_SA.
    #[must_use]
    pub fn child(&self) -> ChildId {
        ChildId { dvipa: self.dvipa, spi: self.spi }
    }

    /// Nothing at or below this number may be taken.
    #[must_use]
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// See [`Kind`].
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The owner's word that it has authenticated the packet in a [`Kind::Plain`] frame, with its number; no other kind says
    /// so. Whoever delivers such a packet takes the number in its window first.
    #[must_use]
    pub fn vouched(&self) -> Option<Vouched> {
        (self.kind == Kind::Plain).then(|| Vouched::new(self.number, self.floor))
    }

    /// Who sent it.
    #[must_use]
    pub fn sender(&self) -> MemberId {
        self.sender
    }
}

/// Why a frame may do nothing. Each is dropped and counted under its own name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Refused {
    /// Its sender is no member: somebody else is on the trusted wire.
    #[error("the sender is no member of the cluster")]
    NotAMember,
    /// It is not for this member's trusted address: the wire misdelivers, or somebody wants it forwarded.
    #[error("addressed to somebody else")]
    NotForUs,
    /// It came from the wire with our own address as its sender: a loop, or a forgery.
    #[error("it carries our own address as its sender")]
    FromOurselves,
    /// This member has no part in the DVIPA: the sender's configuration differs, or it has not heard of a change.
    #[error("this member neither owns nor serves the DVIPA")]
    UnknownDvipa,
    /// Its epoch has passed: an owner that does not know that it is none any more, or a frame that was kept.
    #[error("the epoch has passed")]
    StaleEpoch,
    /// Its epoch has not begun here: news of an owner change is under way.
    #[error("the epoch has not begun here")]
    FutureEpoch,
    /// Only the owner sends frames of this kind: the sender believes in an owner that is not.
    #[error("the sender does not own the DVIPA")]
    NotFromOwner,
    /// Frames of this kind go to targets only, and this member is none for the DVIPA.
    #[error("this member is no target of the DVIPA")]
    NotATarget,
    /// Frames of this kind go to the owner only, and this member is not: the sender has not heard of an owner change.
    #[error("this member does not own the DVIPA")]
    NotTheOwner,
    /// Frames of this kind come from targets only, and the sender is none, or is believed lost.
    #[error("the sender is no target of the DVIPA, or is believed lost")]
    NotFromTarget,
    /// It is meant for, or comes from, another start of the target: what that start had seen is forgotten.
    #[error("it belongs to another start of the target")]
    WrongIncarnation,
    /// It was sent before the owner knew of connections that this target has given up.
    #[error("the table serial has passed")]
    StaleSerial,
    /// The packet inside goes to a member's trusted address: frames in frames, or a client that reaches for the members.
    #[error("the packet inside is for a member's trusted address")]
    ForAMember,
}

impl Refused {
    /// All reasons, in the order in which they are looked at.
    pub const ALL: [Refused; 13] = [
        Refused::NotAMember,
        Refused::NotForUs,
        Refused::FromOurselves,
        Refused::UnknownDvipa,
        Refused::StaleEpoch,
        Refused::FutureEpoch,
        Refused::NotFromOwner,
        Refused::NotATarget,
        Refused::NotTheOwner,
        Refused::NotFromTarget,
        Refused::WrongIncarnation,
        Refused::StaleSerial,
        Refused::ForAMember,
    ];
}

/// Which member a frame from the wire comes from, by its outer addresses, source and destination.
///
/// # Errors
/// [`Refused::NotAMember`], [`Refused::NotForUs`], [`Refused::FromOurselves`].
pub fn sender_of(fabric: &Fabric, (src, dst): (IpAddr, IpAddr)) -> Result<MemberId, Refused> {
    let sender = fabric.member_at(src).ok_or(Refused::NotAMember)?;
    if fabric.member_at(dst) != Some(fabric.me) {
        return Err(Refused::NotForUs);
    }
    if sender == fabric.me {
        return Err(Refused::FromOurselves);
    }
    Ok(sender)
}

/// Judges a frame from `sender`: another member, as [`sender_of`] names it, or this one itself, whose owner's half
/// hands to its target's half what never was on the wire.
///
/// # Errors
/// [`Refused`], the first rule that it breaks.
pub fn accept(fabric: &Fabric, sender: MemberId, repr: &Repr, payload: &[u8]) -> Result<Accepted, Refused> {
    if fabric.address_of(sender).is_none() {
        return Err(Refused::NotAMember);
    }
    let dvipa = fabric.dvipa(repr.dvipa).ok_or(Refused::UnknownDvipa)?;
    // Before the roles: what a deposed owner sends is to be counted as what it is.
    if repr.epoch < dvipa.epoch {
        return Err(Refused::StaleEpoch);
    }
    if repr.epoch > dvipa.epoch {
        return Err(Refused::FutureEpoch);
    }
    let incarnation = if repr.kind.is_from_owner() {
        from_owner(fabric, dvipa, sender)?
    } else {
        from_target(fabric, dvipa, sender)?
    };
    if repr.incarnation != incarnation {
        return Err(Refused::WrongIncarnation);
    }
    if repr.kind.needs_serial() && repr.serial < dvipa.oldest_serial {
        return Err(Refused::StaleSerial);
    }
    if repr.kind.carries_packet() && destination(payload).is_some_and(|to| fabric.member_at(to).is_some()) {
        return Err(Refused::ForAMember);
    }
    let Repr { kind, dvipa, spi, floor, number, .. } = *repr;
    Ok(Accepted { kind, dvipa, spi, floor, number, sender })
}

/// The rules for what an owner sends to a target; the incarnation that it must name.
fn from_owner(fabric: &Fabric, dvipa: &FabricDvipa, sender: MemberId) -> Result<Incarnation, Refused> {
    if sender != dvipa.owner {
        return Err(Refused::NotFromOwner);
    }
    // Whoever has a part in a DVIPA and does not own it is a target of it. An owner may be one, and then lists itself.
    if fabric.owns(dvipa) && !dvipa.targets.iter().any(|target| target.member == fabric.me) {
        return Err(Refused::NotATarget);
    }
    Ok(fabric.incarnation)
}

/// The rules for what a target sends to the owner; the incarnation that it must name.
fn from_target(fabric: &Fabric, dvipa: &FabricDvipa, sender: MemberId) -> Result<Incarnation, Refused> {
    if !fabric.owns(dvipa) {
        return Err(Refused::NotTheOwner);
    }
    let target = dvipa.targets.iter().find(|target| target.member == sender && target.is_member);
    target.map(|target| target.incarnation).ok_or(Refused::NotFromTarget)
}

/// Where an IP packet goes. What is none goes nowhere: it will be refused where it is opened.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => ipv4::Packet::new_prefix(packet).ok().map(|packet| IpAddr::V4(packet.dst())),
        6 => ipv6::Packet::new_prefix(packet).ok().map(|packet| IpAddr::V6(packet.dst())),
        _other => None,
    }
}
