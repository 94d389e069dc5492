//! What ESP has shown of peers: that they live, and where they are. IKE itself sees no ESP; its owner tells it.

use core::net::{IpAddr, SocketAddr};

use ipsec::Spi;
use ipsec::sa::PeerId;
use ipsec::time::Instant;

use super::Endpoint;
use crate::error::CommandError;

/// What the owner of an endpoint knows a CHILD_SA by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChildName {
    /// Whose.
    pub peer: PeerId,
    /// Our address.
    pub dvipa: IpAddr,
    /// What we receive on.
    pub inbound: Spi,
}

impl Endpoint {
    /// The CHILD_SAs of the peers that [`handle_timeout`](Self::handle_timeout) would now ask whether they live. Whoever
    /// knows when ESP last came by them says so first, by [`peer_heard`](Self::peer_heard): then nobody need be asked
    /// (RFC 7296 §2.4).
    pub fn unheard(&self, now: Instant) -> Vec<ChildName> {
        let unheard = self.established.due(now).filter(|sa| sa.is_to_be_probed(now));
        let children = unheard.flat_map(|sa| sa.children.iter().map(move |child| (sa, child)));
        let name = |(sa, child): (&crate::sa::IkeSa, &crate::child::Child)| ChildName {
            peer: sa.lineage.peer,
            dvipa: sa.path.local.ip(),
            inbound: child.inbound,
        };
        children.map(name).collect()
    }

    /// The last fresh and authentic ESP packet of this CHILD_SA came at `heard`, so its peer lived then.
    ///
    /// # Errors
    /// [`CommandError::UnknownChild`].
    pub fn peer_heard(&mut self, now: Instant, inbound: Spi, heard: Instant) -> Result<(), CommandError> {
        self.cx.now = now;
        let owner = self.owner(inbound)?;
        self.with_sa(owner, |sa, _| sa.was_alive(heard.min(now)));
        Ok(())
    }

    /// The newest authentic ESP packet of this CHILD_SA came in UDP from `remote`: behind a NAT, that is where the peer
    /// is now (RFC 7296 §2.23). If it has moved, [`Event::AddressMoved`](crate::Event::AddressMoved) says so; a peer
    /// that moves all the time is followed at a limited rate, so tell again what still holds.
    ///
    /// # Errors
    /// [`CommandError::UnknownChild`].
    pub fn peer_moved(&mut self, now: Instant, inbound: Spi, remote: SocketAddr) -> Result<(), CommandError> {
        self.cx.now = now;
        let owner = self.owner(inbound)?;
        self.with_sa(owner, |sa, cx| sa.follow_esp(cx, remote));
        Ok(())
    }
}
