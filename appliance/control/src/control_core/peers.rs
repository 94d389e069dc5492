//! What the packets of its SAs show of a peer: that it lives, and where it is.

use core::net::{IpAddr, SocketAddr};

use cluster::id::ChildId;
use datapath::buffer::PacketBuffer;
use datapath::mailbox::{Command, SaName};
use ike::ChildName;
use ipsec::Spi;
use ipsec::sa::{Direction, PeerId};
use ipsec::time::Instant;
use tracing::{debug, info};

use super::ControlCore;

impl<B: PacketBuffer> ControlCore<B> {
    /// Before IKE asks a peer whether it lives, the counters of its SAs are asked (RFC 7296 §2.4). The data cores note
    /// the time of each packet beside its count, so that nobody need be told of it.
    pub(super) fn tell_who_lives(&mut self, now: Instant) {
        for ChildName { peer, dvipa, inbound } in self.ike.unheard(now) {
            let here = self.registry.last_heard(inbound_name(peer, dvipa, inbound));
            let child = ChildId { dvipa, spi: inbound };
            let anywhere = self.cluster.as_ref().and_then(|cluster| cluster.member.heard_at(child));
            let Some(heard) = here.max(anywhere) else { continue };
            if let Err(error) = self.ike.peer_heard(now, inbound, heard) {
                debug!(%error, "the peer that was heard is gone");
            }
        }
    }

    /// A data core has seen a peer elsewhere. IKE knows whether it is behind a NAT and may be followed.
    pub(super) fn peer_moved(&mut self, now: Instant, sa: SaName, remote: SocketAddr, sequence: u64) {
        let Some(inbound) = self.registry.latest_move(sa, sequence) else { return };
        if let Err(error) = self.ike.peer_moved(now, inbound, remote) {
            debug!(%error, "no IKE stands behind it");
        }
    }

    /// IKE follows a peer: so do all cores, with what they send it and with where they expect it.
    pub(super) fn follow_peer(&mut self, peer: PeerId, remote: SocketAddr, dvipa: IpAddr, children: Vec<Spi>) {
        info!(%peer, %remote, "the peer's address has changed");
        self.cores.tell_all(|| Command::MovePeer { peer, remote });
        for inbound in children {
            self.registry.moved(inbound_name(peer, dvipa, inbound), remote, &mut self.cores);
        }
    }
}

fn inbound_name(peer: PeerId, dvipa: IpAddr, spi: Spi) -> SaName {
    SaName { peer, dvipa, direction: Direction::Inbound, spi }
}
