//! What can be said about a DVIPA. The order of the kinds is their number on the wire: new ones go to the end.

use core::fmt;
use core::net::SocketAddr;

use ipsec::Spi;
use ipsec::sa::PeerId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{BadMessage, ENTRIES_MAX, LIST_MAX, SERVICES_MAX, SHADOW_BYTES_MAX, as_wire};
use crate::id::{Incarnation, MemberId, Serial};
use crate::lifesize::{Amount, Percentage, Report};
use crate::member::{ActivePort, EntryKey, NumberSource, ServicePort};

/// What one member says to another about one DVIPA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Owner → all: the sender owns the DVIPA in this epoch. Said at each claim and each time that a session comes up.
    Claimed,
    /// Member → owner: heard. What it held of earlier epochs is gone, or told in [`Body::Held`] before this.
    ClaimAcknowledged {
        /// The start of it that may hold connections.
        incarnation: Incarnation,
        /// Up to where it has the deltas of this epoch; 0 for none.
        position: u64,
    },
    /// Member → owner, before its acknowledgement: how far it had come with SAs that it still holds.
    Held(Vec<Top>),
    /// Owner → target: what that start of it held is void; come back empty, as another.
    Expelled {
        /// Which start.
        incarnation: Incarnation,
    },
    /// Owner → target: changes of the SAs, numbered without gap from `first`.
    Deltas {
        /// The number of the first.
        first: u64,
        /// In order.
        deltas: Vec<Delta>,
    },
    /// Owner → target: all SAs follow, as they stand at this number.
    SnapshotBegin {
        /// The number.
        number: u64,
    },
    /// Owner → target: some of them.
    SnapshotSas(Vec<ShadowImage>),
    /// Owner → target: that was all; what else it has is gone.
    SnapshotEnd {
        /// The number of the beginning.
        number: u64,
    },
    /// Target → owner: all changes up to this one stand on its cores.
    ShadowsAcknowledged {
        /// The last of them.
        number: u64,
        /// How many SAs found no room; a target that lacks one gets no new connections.
        lacking: u32,
    },
    /// Target → owner, on change and now and then: what it can serve, and does.
    Report {
        /// The ports whose application hosts answer.
        ready: Vec<ServicePort>,
        /// The ports that it has connections of.
        active: Vec<ActivePort>,
    },
    /// Target → owner: an SA has carried its first authentic packet.
    FirstPacket(#[serde(with = "as_wire::spi")] Spi),
    /// Target → owner: a peer behind a NAT is elsewhere, says an authentic packet.
    PeerSeen {
        /// By which SA.
        #[serde(with = "as_wire::spi")]
        spi: Spi,
        /// Where it came from.
        remote: SocketAddr,
        /// The packet's number.
        sequence: u64,
    },
    /// Target → owner: these entries are tombs, and so far had their peers' SAs come when they stopped. Repeated until
    /// acknowledged.
    Freed {
        /// Numbered from 1 for each start of the target in each epoch.
        batch: u64,
        /// Which entries.
        entries: Vec<EntryKey>,
        /// The highest numbers accepted on every SA of their peers; those that carried nothing may be absent.
        tops: Vec<Top>,
    },
    /// Owner → target: floors are raised and entries forgotten up to this batch; frames carry this serial from now on.
    FreedAcknowledged {
        /// Up to which batch.
        batch: u64,
        /// The serial.
        serial: Serial,
    },
    /// Owner → target: has it these?
    Verify {
        /// Which start of it is asked.
        incarnation: Incarnation,
        /// Which entries.
        entries: Vec<EntryKey>,
    },
    /// Any → owner: the operator wants a target drained, or no more.
    DrainWanted {
        /// Which.
        target: MemberId,
        /// Whether it drains.
        on: bool,
    },
    /// Target → owner: what SAs have carried there, in all.
    Use(Vec<Used>),
    /// Owner → target: what SAs may carry there, in all.
    Grants(Vec<Granted>),
    /// Target → owner: it has traffic to send on these.
    NumbersWanted(Vec<Wanted>),
    /// Owner → target: where the numbers of outbound halves come from there.
    Numbers(Vec<NumbersFrom>),
    /// Owner → target: numbers below these may be used by who numbers an SA.
    Marks(Vec<Marked>),
    /// Owner → target: a block of numbers.
    Lease {
        /// Of which SA.
        #[serde(with = "as_wire::spi")]
        spi: Spi,
        /// The first.
        first: u64,
        /// How many.
        count: u64,
    },
    /// Owner → target: send on these before all others of their peers.
    Prefer(#[serde(with = "as_wire::spis")] Vec<Spi>),
    /// Owner → target: send nothing on these.
    Quiet(#[serde(with = "as_wire::spis")] Vec<Spi>),
}

/// One change of a DVIPA's SAs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Delta {
    /// There is a new one.
    Born(ShadowImage),
    /// It is gone.
    Gone(Departed),
    /// Its peer is elsewhere.
    Moved(Moved),
}

/// An SA that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departed {
    /// Which.
    #[serde(with = "as_wire::spi")]
    pub spi: Spi,
    /// Whether its last packets may be under way.
    pub lingers: bool,
    /// Why, for the log.
    pub why: ShortReason,
}

/// Why an SA is gone, as far as targets need to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShortReason {
    /// IKE deleted it.
    Deleted,
    /// Its record could not be made.
    Refused,
}

/// A peer that is elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Who.
    #[serde(with = "as_wire::peer")]
    pub peer: PeerId,
    /// Where to.
    pub remote: SocketAddr,
    /// Its SAs.
    #[serde(with = "as_wire::spis")]
    pub spis: Vec<Spi>,
}

/// An SA as it travels, with what has changed since its birth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowImage {
    /// Its number among the births of this epoch: two SAs of one SPI are told apart by it.
    pub birth: u64,
    /// The SA, encoded.
    pub sa: SecretBytes,
    /// Whether it is to be preferred by now.
    pub is_preferred: bool,
    /// Where its peer is by now, if it has moved.
    pub remote: Option<SocketAddr>,
    /// How much of its lifesize may go unreported.
    pub percentage: Percentage,
    /// What its inbound and its outbound half may carry at the member that is told, in all: so it carries something as
    /// soon as it stands.
    pub ceilings: [Amount; 2],
}

/// The highest number that was accepted on an SA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Top {
    /// Which SA.
    #[serde(with = "as_wire::spi")]
    pub spi: Spi,
    /// The number.
    pub number: u64,
}

/// What an SA has carried at a member, in all, and what that may carry: each half's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Which SA.
    #[serde(with = "as_wire::spi")]
    pub spi: Spi,
    /// What was delivered.
    pub inbound: Report,
    /// What was sent.
    pub outbound: Report,
    /// The highest number accepted.
    pub top: u64,
    /// The next outbound number, if it is numbered there.
    pub next_outbound: u64,
    /// How long ago its last authentic packet came, in milliseconds.
    pub heard_ago_ms: Option<u64>,
}

/// What one half of an SA may carry at a member, in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Which SA.
    #[serde(with = "as_wire::spi")]
    pub spi: Spi,
    /// Whether it is the inbound half.
    pub is_inbound: bool,
    /// The ceiling.
    pub ceiling: Amount,
}

/// Where an SA's outbound numbers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumbersFrom {
    /// Which SA.
    #[serde(with = "as_wire::spi")]
    pub spi: Spi,
    /// Where from.
    pub source: NumberSource,
}

/// An SA that a member has traffic for, and no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Which SA.
    #[serde(with = "as_wire::spi")]
    pub spi: Spi,
    /// All numbers below this that it was given are used, or will never be.
    pub next: u64,
}

/// How far an SA's outbound numbers may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marked {
    /// Which SA.
    #[serde(with = "as_wire::spi")]
    pub spi: Spi,
    /// The first number that may not be used.
    pub below: u64,
}

/// Bytes that hold keys: wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes them.
    #[must_use]
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> SecretBytes {
        SecretBytes(bytes)
    }

    /// The bytes.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

impl Serialize for SecretBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SecretBytes, D::Error> {
        // Borrowed from the message and copied once, into memory that is wiped.
        let bytes = <&[u8]>::deserialize(deserializer)?;
        Ok(SecretBytes(Zeroizing::new(bytes.to_vec())))
    }
}

impl Body {
    /// The version of XCF since which there are messages of this kind.
    #[must_use]
    pub fn since(&self) -> u16 {
        match self {
            Body::Claimed
            | Body::ClaimAcknowledged { .. }
            | Body::Held(_)
            | Body::Expelled { .. }
            | Body::Deltas { .. }
            | Body::SnapshotBegin { .. }
            | Body::SnapshotSas(_)
            | Body::SnapshotEnd { .. }
            | Body::ShadowsAcknowledged { .. }
            | Body::Report { .. }
            | Body::FirstPacket(_)
            | Body::PeerSeen { .. }
            | Body::Freed { .. }
            | Body::FreedAcknowledged { .. }
            | Body::Verify { .. }
            | Body::DrainWanted { .. }
            | Body::Use(_)
            | Body::Grants(_)
            | Body::NumbersWanted(_)
            | Body::Numbers(_)
            | Body::Marks(_)
            | Body::Lease { .. }
            | Body::Prefer(_)
            | Body::Quiet(_) => 1,
        }
    }

    /// Whether all lists lie within their bounds.
    pub(super) fn check_lists(&self) -> Result<(), BadMessage> {
        match self {
            Body::Held(tops) => within(tops.len(), LIST_MAX),
            Body::Deltas { deltas, .. } => {
                within(deltas.len(), LIST_MAX)?;
                deltas.iter().try_for_each(Delta::check_lists)
            }
            Body::SnapshotSas(sas) => {
                within(sas.len(), LIST_MAX)?;
                sas.iter().try_for_each(ShadowImage::check_size)
            }
            Body::Report { ready, active } => {
                within(ready.len(), SERVICES_MAX)?;
                within(active.len(), SERVICES_MAX)
            }
            Body::Freed { entries, tops, .. } => {
                within(entries.len(), ENTRIES_MAX)?;
                within(tops.len(), LIST_MAX)
            }
            Body::Verify { entries, .. } => within(entries.len(), ENTRIES_MAX),
            Body::Use(list) => within(list.len(), LIST_MAX),
            Body::Grants(list) => within(list.len(), LIST_MAX),
            Body::NumbersWanted(list) => within(list.len(), LIST_MAX),
            Body::Numbers(list) => within(list.len(), LIST_MAX),
            Body::Marks(list) => within(list.len(), LIST_MAX),
            Body::Prefer(list) | Body::Quiet(list) => within(list.len(), LIST_MAX),
            Body::Claimed
            | Body::ClaimAcknowledged { .. }
            | Body::Expelled { .. }
            | Body::SnapshotBegin { .. }
            | Body::SnapshotEnd { .. }
            | Body::ShadowsAcknowledged { .. }
            | Body::FirstPacket(_)
            | Body::PeerSeen { .. }
            | Body::FreedAcknowledged { .. }
            | Body::DrainWanted { .. }
            | Body::Lease { .. } => Ok(()),
        }
    }
}

impl Delta {
    fn check_lists(&self) -> Result<(), BadMessage> {
        match self {
            Delta::Born(image) => image.check_size(),
            Delta::Moved(moved) => within(moved.spis.len(), LIST_MAX),
            Delta::Gone(_) => Ok(()),
        }
    }
}

impl ShadowImage {
    fn check_size(&self) -> Result<(), BadMessage> {
        within(self.sa.expose().len(), SHADOW_BYTES_MAX)
    }
}

fn within(found: usize, max: usize) -> Result<(), BadMessage> {
    if found > max { Err(BadMessage::ListTooLong { found, max }) } else { Ok(()) }
}
