//! What an endpoint tells its owner.

use core::fmt;
use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipsec::Spi;
use ipsec::sa::{ChildSa, PeerId};

use crate::channel::Role;

/// One UDP datagram. To and from port 4500 the payload stands without the non-ESP marker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Datagram {
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// An IKE message, or one octet: a NAT keepalive.
    pub payload: Vec<u8>,
}

/// The port on which IKE and ESP share UDP (RFC 3948).
pub const NATT_PORT: u16 = 4500;

impl Datagram {
    /// Whether four zero octets must go before the payload (RFC 3948 §2.2): on port 4500, except for keepalives.
    #[must_use]
    pub fn needs_marker(&self) -> bool {
        self.local.port() == NATT_PORT && self.payload != [0xff]
    }
}

/// When our side may start to send on a new CHILD_SA (RFC 7296 §2.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendFrom {
    /// At once: the peer is known to be ready.
    Now,
    /// From the first authentic packet on the new inbound SA, or from the end of the SA that it replaces, whichever
    /// comes first. Until then on the replaced one. If another SA that replaces the same one comes with
    /// [`SendFrom::Now`], this one lost a rekey collision and is not to be used for sending any more.
    PeerUse,
    /// Not at all: it lost a rekey collision and will soon be deleted; it only receives.
    Never,
}

/// A CHILD_SA to install.
#[derive(Debug)]
pub struct ChildUp {
    /// Both directions.
    pub children: ChildSa,
    /// The inbound SPI of the CHILD_SA that this one replaces; that one stays until its own [`Event::ChildDown`].
    pub replaces: Option<Spi>,
    /// When to send on it.
    pub send: SendFrom,
    /// Another peer whose selectors overlap these.
    pub overlaps: Option<PeerId>,
}

/// Why an IKE SA or CHILD_SA is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DownReason {
    /// The peer deleted it.
    PeerDeleted,
    /// The peer does not answer any more.
    PeerDead,
    /// Another SA took its place.
    Replaced,
    /// It lost a rekey collision.
    Redundant,
    /// Its hard lifetime ended.
    Expired,
    /// We deleted it, as we were told to.
    Deleted,
    /// Its identity has begun more IKE SAs than one identity may have.
    Crowded,
    /// The peer started anew and said that it has no other (INITIAL_CONTACT).
    InitialContact,
    /// The peer says that it does not have it.
    PeerForgot,
    /// One side broke the protocol.
    ProtocolError,
    /// The endpoint shut down.
    Shutdown,
}

impl DownReason {
    /// In words, for logs.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            DownReason::PeerDeleted => "deleted by the peer",
            DownReason::PeerDead => "the peer does not answer",
            DownReason::Replaced => "replaced",
            DownReason::Redundant => "redundant after a rekey collision",
            DownReason::Expired => "expired",
            DownReason::Deleted => "deleted by us",
            DownReason::Crowded => "its identity has begun too many",
            DownReason::InitialContact => "the peer started anew",
            DownReason::PeerForgot => "the peer does not have it",
            DownReason::ProtocolError => "protocol error",
            DownReason::Shutdown => "shut down",
        }
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// A peer that has been authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeUp {
    /// Its number.
    pub peer: PeerId,
    /// The connection that it matched.
    pub connection: Arc<str>,
    /// Its authenticated identity.
    pub peer_name: Arc<str>,
    /// Our address and port.
    pub local: SocketAddr,
    /// Its address and port.
    pub remote: SocketAddr,
    /// Who began.
    pub role: Role,
    /// A NAT is between.
    pub nat: bool,
}

/// What happened. Drain these after every call, and before [`poll_transmit`](crate::Endpoint::poll_transmit): an SA
/// must stand before the message that lets the peer use it leaves.
#[derive(Debug)]
pub enum Event {
    /// A peer has been authenticated.
    IkeUp(IkeUp),
    /// A peer's IKE SA was replaced; the peer is the same.
    IkeRekeyed {
        /// Whose.
        peer: PeerId,
    },
    /// A peer is gone, with all its CHILD_SAs, whose own events came before.
    IkeDown {
        /// Which.
        peer: PeerId,
        /// Why.
        reason: DownReason,
    },
    /// A CHILD_SA to install.
    ChildUp(Box<ChildUp>),
    /// A CHILD_SA to remove.
    ChildDown {
        /// Whose.
        peer: PeerId,
        /// Our address.
        dvipa: IpAddr,
        /// What we received on.
        inbound: Spi,
        /// What the peer received on.
        outbound: Spi,
        /// Why.
        reason: DownReason,
    },
    /// A peer's NAT mapping changed: packets to it go there from now on.
    AddressMoved {
        /// Which peer.
        peer: PeerId,
        /// Its new address and port.
        remote: SocketAddr,
        /// Our address.
        dvipa: IpAddr,
        /// The inbound SPIs of its CHILD_SAs.
        children: Vec<Spi>,
    },
    /// Rekeying failed; it will be tried again until the hard lifetime.
    RekeyFailed {
        /// Whose SA.
        peer: PeerId,
        /// The inbound SPI of the CHILD_SA; none for the IKE SA.
        child: Option<Spi>,
        /// Why.
        why: String,
    },
    /// A request was refused. Reported at a limited rate, counted always.
    Refused {
        /// Where it came from; proven only if the peer is known.
        remote: SocketAddr,
        /// The peer, if it was authenticated.
        peer: Option<PeerId>,
        /// What was found and what was expected.
        why: String,
    },
    /// An IKE SA that we began did not come about.
    InitiationFailed {
        /// The connection.
        connection: Arc<str>,
        /// With whom.
        remote: SocketAddr,
        /// Why.
        why: String,
    },
}
