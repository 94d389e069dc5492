//! What an SA is: the parameters that IKE (or a lab's configuration) agrees on and the data path obeys.

use core::fmt;
use core::net::IpAddr;
use std::sync::Arc;

use crate::Spi;
use crate::cipher::Cipher;
use crate::engine::KeyRefused;
use crate::key::SaKey;
use crate::lifetime::Lifetime;
use crate::replay::{WINDOW_PACKETS_MAX, WindowTooWide};
use crate::selector::Selectors;

/// One IPsec client or gateway: an authenticated IKE identity and its IKE SA lineage.
///
/// It outlives single SAs; two live lineages of one identity are two peers. The number is drawn by whoever creates the
/// lineage and means nothing by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u64);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What ESP wraps (RFC 4303 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// A whole IP packet.
    Tunnel,
    /// The payload of the IP packet that carries it.
    Transport,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tunnel => "tunnel",
            Self::Transport => "transport",
        })
    }
}

/// What carries ESP between the two IPsec addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encapsulation {
    /// IP protocol 50.
    None,
    /// UDP (RFC 3948), ours normally 4500, the peer's whatever its NAT made of it.
    Udp {
        /// Our port.
        local_port: u16,
        /// The peer's port as we see it.
        remote_port: u16,
    },
}

impl fmt::Display for Encapsulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Udp { .. } => "udp",
        })
    }
}

/// Which way an SA carries packets, seen from us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// From the peer to us: we verify and decrypt.
    Inbound,
    /// From us to the peer: we encrypt.
    Outbound,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Inbound => "in",
            Self::Outbound => "out",
        })
    }
}

/// One direction of a CHILD_SA, complete.
///
/// It holds the key, so it is moved and never copied.
#[derive(Debug)]
pub struct SaParameters {
    /// The child's name in the configuration.
    pub name: Arc<str>,
    /// Whose SA it is.
    pub peer: PeerId,
    /// The peer's authenticated IKE identity, as text.
    pub peer_name: Arc<str>,
    /// Our IPsec address; with the SPI it is the SAD's key.
    pub dvipa: IpAddr,
    /// The peer's IPsec address as we see it (a NAT's, if there is one).
    pub remote: IpAddr,
    /// The receiver's number for this SA: ours inbound, the peer's outbound.
    pub spi: Spi,
    /// Which half of the CHILD_SA this is.
    pub direction: Direction,
    /// What ESP wraps.
    pub mode: Mode,
    /// What carries ESP.
    pub encapsulation: Encapsulation,
    /// The cipher; `key` is one of its keys.
    pub cipher: Cipher,
    /// Key and salt.
    pub key: SaKey,
    /// Extended (64-bit) sequence numbers were agreed on.
    pub esn: bool,
    /// Width of the replay window. Zero means off, which is for lab SAs without IKE only.
    pub replay_window_packets: u32,
    /// Which inner packets belong in here.
    pub selectors: Selectors,
    /// When it must be replaced and when it must end.
    pub lifetime: Lifetime,
    /// The owner's epoch at the SA's birth.
    pub epoch: u64,
}

/// Both directions of what one CREATE_CHILD_SA or IKE_AUTH exchange made.
#[derive(Debug)]
pub struct ChildSa {
    /// From the peer to us.
    pub inbound: SaParameters,
    /// From us to the peer.
    pub outbound: SaParameters,
}

/// The parameters that shape a packet: what the packet path asks an SA for each time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub spi: Spi,
    pub esn: bool,
    pub mode: Mode,
}

impl Frame {
    pub fn of(parameters: &SaParameters) -> Self {
        Self { spi: parameters.spi, esn: parameters.esn, mode: parameters.mode }
    }
}

/// Why parameters make no SA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadSa {
    /// An inbound SA where an outbound one belongs, or the other way round.
    #[error("the SA is for the direction \"{found}\"")]
    Direction {
        /// What the parameters say.
        found: Direction,
    },
    /// The key is for another cipher, or cannot be expanded.
    #[error("the key does not belong to the cipher")]
    Key,
    /// The two IPsec addresses are of different families.
    #[error("the IPsec addresses are of different families")]
    Addresses,
    /// The engine refused the key.
    #[error(transparent)]
    KeyRefused(#[from] KeyRefused),
    /// No window can be so wide.
    #[error(transparent)]
    Window(#[from] WindowTooWide),
}

impl SaParameters {
    /// Whether the parameters fit together and are for this direction.
    pub(crate) fn validate(&self, direction: Direction) -> Result<(), BadSa> {
        if self.direction != direction {
            return Err(BadSa::Direction { found: self.direction });
        }
        if self.key.cipher() != self.cipher {
            return Err(BadSa::Key);
        }
        if self.dvipa.is_ipv4() != self.remote.is_ipv4() {
            return Err(BadSa::Addresses);
        }
        if self.replay_window_packets > WINDOW_PACKETS_MAX {
            return Err(WindowTooWide { found: self.replay_window_packets }.into());
        }
        Ok(())
    }
}
