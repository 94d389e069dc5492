//! The cluster as the packet path sees it: a value that the control core makes and every data core reads.
//!
//! A change is a new [`Fabric`] in a mailbox, so the packet path holds no lock. What must change at once, before a
//! command can have been executed, is not here: floors stand with their SAs.

use core::net::IpAddr;

use crate::id::{Epoch, Incarnation, MemberId, Serial};

/// How frames travel between members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encapsulation {
    /// GRE in IP (RFC 2784).
    #[default]
    Gre,
    /// GRE in UDP (RFC 8086), so that a NIC spreads flows over its queues.
    GreInUdp,
}

/// What protects the frames between members beyond the wire itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protection {
    /// Nothing: the wire joins the appliances and nobody else.
    #[default]
    None,
    /// ESP, with keys from the members' XCF sessions, see [`crate::protection`].
    Esp,
}

impl Protection {
    /// The configuration's word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Protection::None => "none",
            Protection::Esp => "esp",
        }
    }
}

/// Where the IPsec work of a DVIPA is done (DESIGN §3). Fixed at an SA's birth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Processing {
    /// At the target: the distributor only peeks.
    #[default]
    Target,
    /// At the distributor, which forwards plain packets.
    Distributor,
}

impl Processing {
    /// The configuration's word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Processing::Target => "target",
            Processing::Distributor => "distributor",
        }
    }
}

/// The whole cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Fabric {
    /// Which member this appliance is.
    pub me: MemberId,
    /// This start of it.
    pub incarnation: Incarnation,
    /// How frames travel.
    pub encapsulation: Encapsulation,
    /// What protects them. A frame that is protected otherwise is refused.
    pub protection: Protection,
    /// Every member, this one included, by number.
    pub members: Vec<FabricMember>,
    /// Every DVIPA that this appliance owns or is a target of, by address.
    pub dvipas: Vec<FabricDvipa>,
}

/// A member's place on the trusted port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FabricMember {
    /// Its number.
    pub id: MemberId,
    /// Its address on the trusted port: frames come from it and go to it, and from nowhere else.
    pub address: IpAddr,
}

/// A DVIPA as one member sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct FabricDvipa {
    /// The address.
    pub address: IpAddr,
    /// Who owns it now.
    pub owner: MemberId,
    /// Since which epoch; frames of any other are refused.
    pub epoch: Epoch,
    /// Where new SAs are processed.
    pub processing: Processing,
    /// As a target: frames of an older serial are refused.
    pub oldest_serial: Serial,
    /// As the owner: who may be chosen, and who still has connections. Empty at all others.
    pub targets: Vec<FabricTarget>,
    /// As the owner: misses are dropped silently until every member that may hold connections has acknowledged.
    pub is_settling: bool,
}

/// A target as the owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FabricTarget {
    /// Which member.
    pub member: MemberId,
    /// Which start of it holds the connections that are routed to it; a connection of another start is lost.
    pub incarnation: Incarnation,
    /// The serial that frames to it carry.
    pub serial: Serial,
    /// Whether it gets frames at all: `false` from the moment it is believed lost.
    pub is_member: bool,
    /// Whether it gets new connections (never while it drains, lacks a shadow, or is not ready).
    pub is_eligible: bool,
}

impl Fabric {
    /// What there is to know of a DVIPA, if this appliance has a part in it.
    #[must_use]
    pub fn dvipa(&self, address: IpAddr) -> Option<&FabricDvipa> {
        self.dvipas.iter().find(|dvipa| dvipa.address == address)
    }

    /// A member's address on the trusted port.
    #[must_use]
    pub fn address_of(&self, member: MemberId) -> Option<IpAddr> {
        self.members.iter().find(|known| known.id == member).map(|known| known.address)
    }

    /// The member that has this address on the trusted port.
    #[must_use]
    pub fn member_at(&self, address: IpAddr) -> Option<MemberId> {
        self.members.iter().find(|known| known.address == address).map(|known| known.id)
    }

    /// Whether this appliance owns a DVIPA.
    #[must_use]
    pub fn owns(&self, dvipa: &FabricDvipa) -> bool {
        dvipa.owner == self.me
    }
}
