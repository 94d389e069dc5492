//! What goes to IKE and what comes of it: datagrams, CHILD_SAs that come and go, messages that wait for what they promise.

use core::time::Duration;

use cluster::id::ChildId;
use cluster::member::Told;
use datapath::buffer::PacketBuffer;
use datapath::mailbox::SaName;
use ike::event::{ChildUp, DownReason, SendFrom};
use ipsec::sa::Direction;
use ipsec::time::Instant;
use tracing::{info, warn};

use super::registry::Sending;
use super::{ControlCore, INSTALL_PATIENCE, LINGER};

impl<B: PacketBuffer> ControlCore<B> {
    pub(super) fn pass_datagrams_to_ike(&mut self, now: Instant) -> bool {
        let mut busy = false;
        while let Some(datagram) = self.stack.poll_datagram() {
            busy = true;
            let crate::stack::IkeDatagram { local, remote, payload } = datagram;
            self.ike.handle_datagram(now, &ike::Datagram::new(local, remote, payload));
        }
        busy
    }

    pub(super) fn follow_ike(&mut self, now: Instant) -> bool {
        let mut busy = false;
        while let Some(event) = self.ike.poll_event() {
            busy = true;
            self.handle_ike_event(now, event);
        }
        busy
    }

    fn handle_ike_event(&mut self, now: Instant, event: ike::Event) {
        match event {
            ike::Event::IkeUp(up) => {
                info!(peer = %up.peer_name, connection = %up.connection, remote = %up.remote, nat = up.nat, "IKE SA up");
            }
            ike::Event::IkeRekeyed { peer } => info!(%peer, "IKE SA rekeyed"),
            ike::Event::IkeDown { peer, reason } => info!(%peer, %reason, "IKE SA down"),
            ike::Event::ChildUp(up) if self.cluster.is_some() => self.shared_child_up(now, *up),
            ike::Event::ChildUp(up) => self.child_up(now, *up),
            ike::Event::ChildDown { dvipa, inbound, reason, .. } if self.cluster.is_some() => {
                let child = ChildId { dvipa, spi: inbound };
                let lingers = lingering(reason) > Duration::ZERO;
                self.tell_member(now, Told::ChildDown { child, lingers, why: reason.words() });
            }
            ike::Event::ChildDown { peer, dvipa, inbound, outbound: _, reason } => {
                let name = SaName { peer, dvipa, direction: Direction::Inbound, spi: inbound };
                let until = now + lingering(reason);
                self.registry.remove(name, reason.words(), until, &mut self.cores);
            }
            ike::Event::AddressMoved { peer, remote, dvipa, children } if self.cluster.is_some() => {
                self.tell_member(now, Told::PeerMoved { peer, dvipa, remote, children });
            }
            ike::Event::AddressMoved { peer, remote, dvipa, children } => {
                self.follow_peer(peer, remote, dvipa, children)
            }
            ike::Event::RekeyFailed { peer, child, why } => warn!(%peer, ?child, why, "rekeying failed"),
            ike::Event::SiblingRefused { peer, dvipa, inbound, for_good, why } => {
                info!(%peer, %dvipa, spi = %inbound, for_good, why, "sibling refused");
                let child = ChildId { dvipa, spi: inbound };
                self.tell_member(now, Told::SiblingRefused { child, for_good });
            }
            ike::Event::Refused { remote, peer, why } => warn!(%remote, ?peer, why, "IKE request refused"),
            ike::Event::InitiationFailed { connection, remote, why } => {
                warn!(%connection, %remote, why, "no IKE SA came about");
            }
        }
    }

    fn child_up(&mut self, now: Instant, up: ChildUp) {
        let ChildUp { children, replaces, sibling_of: _, send, overlaps } = up;
        let (name, dvipa, peer) = (children.inbound.name.clone(), children.inbound.dvipa, children.inbound.peer);
        let (inbound, outbound) = (children.inbound.spi, children.outbound.spi);
        let peer_name = children.inbound.peer_name.clone();
        let born_at = self.senders.birth();
        let id =
            match self.registry.admit(Some(children.inbound), Some(children.outbound), born_at, self.stack.routes()) {
                Ok(id) => id,
                Err(why) => {
                    warn!(%dvipa, spi = %inbound, peer = %peer_name, %why, "CHILD_SA cannot be installed, deleting it");
                    if let Err(error) = self.ike.delete_child(now, inbound) {
                        warn!(%error, "it is gone already");
                    }
                    return;
                }
            };
        info!(
            child = %name, peer = %peer_name, %dvipa, spi_in = %inbound, spi_out = %outbound,
            replaces = replaces.map(tracing::field::display), overlaps = overlaps.map(tracing::field::display),
            "CHILD_SA up"
        );
        self.registry.install_inbound(id, send == SendFrom::PeerUse, &mut self.cores);
        let replaced = replaces.map(|spi| SaName { peer, dvipa, direction: Direction::Inbound, spi });
        match (send, replaced) {
            (SendFrom::Now, replaced) => {
                self.registry.install_outbound(id, Sending::First, &mut self.cores);
                replaced.into_iter().for_each(|replaced| self.registry.settle_collision(replaced, &mut self.cores));
            }
            // The answer to the peer's first packet may be here before the news of that packet: the SA stands ready.
            (SendFrom::PeerUse, replaced) => {
                self.registry.install_outbound(id, Sending::InReserve, &mut self.cores);
                replaced.into_iter().for_each(|replaced| self.registry.send_after(id, replaced));
            }
            (SendFrom::Never, _) => {}
        }
        self.barrier = Some(now + INSTALL_PATIENCE);
    }

    /// Lets IKE's messages go: those that promise an SA once it is in force, all others at once.
    pub(super) fn send_ike(&mut self, now: Instant) {
        while let Some(datagram) = self.ike.poll_transmit() {
            if !self.must_wait(&datagram) {
                self.stack.send_datagram(now, datagram.local, datagram.remote, &datagram.payload);
            } else if !self.held.contains(&datagram) {
                self.held.push_back(datagram);
            }
        }
        if let Some(patience_ends) = self.barrier {
            let is_slow = !self.cores.all_applied();
            if is_slow && now < patience_ends {
                return;
            }
            if is_slow {
                warn!("a data core is slow: IKE goes on before an SA stands on all of them");
            }
            self.barrier = None;
        }
        for datagram in core::mem::take(&mut self.held) {
            if self.must_wait(&datagram) {
                self.held.push_back(datagram);
            } else {
                self.stack.send_datagram(now, datagram.local, datagram.remote, &datagram.payload);
            }
        }
    }

    /// Whether a message promises an SA that does not stand yet.
    fn must_wait(&self, datagram: &ike::Datagram) -> bool {
        let Some(promised) = datagram.promises else { return false };
        match &self.cluster {
            Some(cluster) => cluster.holds_back(ChildId { dvipa: datagram.local.ip(), spi: promised }),
            None => self.barrier.is_some(),
        }
    }
}

/// How much longer the inbound half of an SA lives that is gone for `reason`.
fn lingering(reason: DownReason) -> Duration {
    match reason {
        DownReason::Replaced | DownReason::Redundant | DownReason::PeerDeleted => LINGER,
        DownReason::PeerDead
        | DownReason::Expired
        | DownReason::Deleted
        | DownReason::Crowded
        | DownReason::InitialContact
        | DownReason::PeerForgot
        | DownReason::ProtocolError
        | DownReason::Disowned
        | DownReason::Shutdown => Duration::ZERO,
    }
}
