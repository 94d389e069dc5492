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
    /// On the way out: the inbound SPI of the CHILD_SA that the peer may send on as soon as it has read this. Hold the
    /// datagram back until that SA stands wherever its packets may arrive; let all others go.
    ///
    /// - The IKE_AUTH response and the CREATE_CHILD_SA response that grant a CHILD_SA promise it: the peer knows all then.
    /// - The request that deletes the CHILD_SA which we have replaced promises its successor: with the old one gone, the
    ///   peer has nothing else to send on.
    /// - Nothing else promises anything. Our CREATE_CHILD_SA *request* names an SPI, but there is no SA yet that could
    ///   stand anywhere: its keys come with the response, and [`Event::ChildUp`] with that. A peer may send before we have
    ///   read its response (RFC 7296 §2.8); whatever arrives between is lost, as if the response were late.
    ///
    /// Each part of a fragmented message promises the same. So does the message when it is sent again, with the same
    /// octets: a datagram that equals one which is still held adds nothing and is dropped by the holder. Whether a
    /// promise is kept is asked of the SA, not of the datagram: once the SA stands, or is gone
    /// ([`Event::ChildDown`]), whatever promises it leaves at once, for the peer waits for it. Since the peer's next
    /// request comes only after this answer, and our next request after this one's, nothing that matters can overtake
    /// what is held.
    pub promises: Option<Spi>,
}

/// The port on which IKE and ESP share UDP (RFC 3948).
pub const NATT_PORT: u16 = 4500;

impl Datagram {
    /// One that promises nothing, such as every one that arrives.
    #[must_use]
    pub const fn new(local: SocketAddr, remote: SocketAddr, payload: Vec<u8>) -> Datagram {
        Datagram { local, remote, payload, promises: None }
    }

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
    /// The inbound SPI of the CHILD_SA that this one was asked to stand beside
    /// ([`add_sibling`](crate::Endpoint::add_sibling)). Whatever replaces a sibling, by either side's wish, is a sibling of
    /// the same; that may be gone by then. What a peer makes beside others of its own accord names none.
    pub sibling_of: Option<Spi>,
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
    /// Another appliance owns its address now; the peer was told nothing.
    Disowned,
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
            DownReason::Disowned => "another appliance owns the address",
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
    /// There is no sibling. The IKE SA stands, unless it has ended for another reason.
    SiblingRefused {
        /// Whose.
        peer: PeerId,
        /// Our address.
        dvipa: IpAddr,
        /// The inbound SPI of the CHILD_SA that it was asked for.
        inbound: Spi,
        /// This peer's lineage is not to be asked again, and cannot be; otherwise later, with back-off.
        for_good: bool,
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
