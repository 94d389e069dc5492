//! What an owner tells of an SA, and a target keeps of it: everything that lets a second appliance do its IPsec work.

use core::net::SocketAddr;

use ipsec::Spi;
use ipsec::iv::SenderNumber;
use ipsec::sa::ChildSa;

use crate::fabric::Processing;
use crate::id::ChildId;

/// How an SA's outbound half may be used at first (RFC 7296 §2.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Use {
    /// Before all that came earlier.
    First,
    /// Only for what no other SA of the peer admits: the peer may not be ready to receive on it yet.
    InReserve,
    /// Never: it lost a rekey collision, or is a sibling that another member sends on.
    ReceiveOnly,
}

/// A CHILD_SA with what the cluster has decided at its birth. It holds keys: moved, never copied, never printed.
#[derive(Debug)]
pub struct ShadowSa {
    /// Both halves, as IKE agreed on them; `epoch` in them is the owner's at birth.
    pub child: ChildSa,
    /// Where its work is done, for good.
    pub processing: Processing,
    /// Where the cluster's sender counter stood at its birth.
    pub born_at: SenderNumber,
    /// How its outbound half is used at first.
    pub usage: Use,
    /// The inbound SPI of the SA that it replaces.
    pub replaces: Option<Spi>,
    /// The inbound SPI of the SA whose sibling it is.
    pub sibling_of: Option<Spi>,
    /// The most inner bytes that one member is granted of either half beyond what it has used.
    pub grant_bytes_max: u64,
}

impl ShadowSa {
    /// How members name it.
    #[must_use]
    pub fn id(&self) -> ChildId {
        ChildId { dvipa: self.child.inbound.dvipa, spi: self.child.inbound.spi }
    }

    /// Where the peer is, with the UDP port where ESP travels in UDP.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        let port = match self.child.outbound.encapsulation {
            ipsec::sa::Encapsulation::None => 0,
            ipsec::sa::Encapsulation::Udp { remote_port, .. } => remote_port,
        };
        SocketAddr::new(self.child.outbound.remote, port)
    }
}
