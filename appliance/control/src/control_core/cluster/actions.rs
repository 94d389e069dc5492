//! What the member decides, carried out here.

use core::net::IpAddr;
use core::time::Duration;

use cluster::id::{ChildId, Epoch};
use cluster::member::{Action, Told};
use cluster::shadow::{ShadowSa, Use};
use datapath::buffer::PacketBuffer;
use datapath::mailbox::Command;
use ike::error::CommandError;
use ipsec::inbound::InboundShared;
use ipsec::outbound::OutboundShared;
use ipsec::time::Instant;
use tracing::{debug, info, warn};

use super::ClusterCore;
use super::waits::Then;
use crate::control_core::registry::Sending;
use crate::control_core::{ControlCore, LINGER};

impl<B: PacketBuffer> ControlCore<B> {
    pub(super) fn act(&mut self, now: Instant, action: Action, cluster: &mut ClusterCore) {
        if let Action::RaiseFloor { .. } | Action::Forget { .. } | Action::Bury(_) | Action::Verify(_) = &action {
            debug!(%now, me = %cluster.settings.me, ?action, "connections move");
        }
        match action {
            Action::Fabric(fabric) => {
                cluster.fabric = Some(fabric.clone());
                self.cores.tell_all(|| Command::Fabric { fabric: fabric.clone(), at: now });
            }
            Action::TargetsChanged => self.give_tables(cluster),
            Action::Install(shadow) => self.install_shadow(now, *shadow, cluster),
            Action::Prefer(child) => {
                self.registry.send_first(child, window_of(cluster, child.dvipa), &mut self.cores);
            }
            Action::Remove { child, lingers, why } => self.remove_shadow(now, child, lingers, why, cluster),
            Action::MovePeer { peer, dvipa, remote, children } => self.follow_peer(peer, remote, dvipa, children),
            Action::RaiseFloor { child, floor } => self.with_shared(child, |inbound, _| inbound.raise_floor(floor)),
            Action::Seal(child) => self.with_shared(child, |inbound, _| seal(now, child, inbound)),
            Action::Ceiling { child, inbound: of_inbound, outbound: of_outbound } => {
                self.with_shared(child, |inbound, outbound| {
                    inbound.lifesize().raise(of_inbound.0, of_inbound.1);
                    outbound.lifesize().raise(of_outbound.0, of_outbound.1);
                });
            }
            Action::Withdraw { child, inbound, outbound } => {
                let mut taken = ((0, 0), (0, 0));
                self.with_shared(child, |of_inbound, of_outbound| {
                    taken.0 = of_inbound.lifesize().withdraw(inbound.0, inbound.1);
                    taken.1 = of_outbound.lifesize().withdraw(outbound.0, outbound.1);
                });
                let (inbound, outbound) = taken;
                cluster.member.handle_told(now, Told::Withdrawn { child, inbound, outbound });
            }
            Action::Mark { child, below } => self.with_shared(child, |_, outbound| outbound.raise_mark(below)),
            Action::Forget { entries, target } => {
                self.cores.tell_all(|| Command::ForgetEntries { entries: entries.clone(), target });
            }
            Action::Await { ticket, tops_of } => cluster.waits.add(Then::Heard { ticket, tops_of }),
            Action::Verify(entries) => self.cores.tell_all(|| Command::Verify(entries.clone())),
            Action::Bury(entries) => self.cores.tell_all(|| Command::Bury(entries.clone())),
            Action::Numbers { child, source } => {
                self.registry.set_numbers(child, source, window_of(cluster, child.dvipa), &mut self.cores);
            }
            Action::Quiet(child) => self.registry.silence(child, &mut self.cores),
            Action::Lease { child, first, count } => self.registry.lease(child, first, count, &mut self.cores),
            Action::Rekey(child) => self.refresh(now, child),
            Action::Delete(child) => asked(self.ike.delete_child(now, child.spi)),
            Action::AskSibling(child) => asked(self.ike.add_sibling(now, child.spi)),
            Action::Refuse(child) => {
                warn!(%child, "the cluster cannot keep this SA, deleting it");
                cluster.unreleased.remove(&child);
                asked(self.ike.delete_child(now, child.spi));
            }
            Action::Release(child) => {
                cluster.unreleased.remove(&child);
            }
            Action::PeerSeen { child, remote, sequence } => {
                if let Some(name) = self.registry.name_of(child) {
                    self.peer_moved(now, name, remote, sequence);
                }
            }
            Action::Mute { dvipa, is_mute } => {
                if is_mute {
                    warn!(%dvipa, "the owner is silent: nothing is sent on its SAs");
                } else {
                    info!(%dvipa, "the owner is heard again: its SAs are sent on");
                }
                self.registry.mute(dvipa, is_mute, window_of(cluster, dvipa), &mut self.cores);
            }
            Action::Disconnect { member, why } => cluster.exchange.disconnect(now, member, why),
            Action::Own { dvipa, epoch } => self.own(now, dvipa, epoch),
            Action::Disown { dvipa } => self.disown(now, dvipa),
        }
    }

    fn install_shadow(&mut self, now: Instant, shadow: ShadowSa, cluster: &mut ClusterCore) {
        let child = shadow.id();
        let (peer, epoch) = (shadow.child.inbound.peer_name.clone(), shadow.child.inbound.epoch);
        let (name, usage, replaces) = (shadow.child.inbound.name.clone(), shadow.usage, shadow.replaces);
        let is_sibling = shadow.sibling_of.is_some();
        let id = match self.registry.admit_shadow(shadow, self.stack.routes()) {
            Ok(id) => id,
            Err(why) => {
                warn!(%child, %peer, %why, "an SA of the cluster cannot be installed here");
                return cluster.member.handle_told(now, Told::InstallFailed(child));
            }
        };
        info!(dvipa = %child.dvipa, spi = %child.spi, child = %name, %peer, epoch, "SA of the cluster installed");
        // Its first packet proves a sibling, too: nobody sends on it before.
        self.registry.install_inbound(id, usage == Use::InReserve || is_sibling, &mut self.cores);
        let sending = match usage {
            Use::First => Some(Sending::First),
            Use::InReserve => Some(Sending::InReserve),
            Use::ReceiveOnly => None,
        };
        if let Some(sending) = sending {
            self.registry.install_outbound(id, sending, &mut self.cores);
        }
        let replaced =
            replaces.map(|spi| ChildId { spi, ..child }).and_then(|replaced| self.registry.name_of(replaced));
        if let (Some(replaced), Use::InReserve) = (replaced, usage) {
            self.registry.send_after(id, replaced);
        }
        cluster.waits.add(Then::Installed(child));
    }

    fn remove_shadow(
        &mut self,
        now: Instant,
        child: ChildId,
        lingers: bool,
        why: &'static str,
        cluster: &mut ClusterCore,
    ) {
        // Freeings and losses tell of it no more. So its late packets follow connections that stand, and begin none.
        if lingers {
            self.with_shared(child, |inbound, _| _ = inbound.seal(now));
        }
        let until = now + if lingers { LINGER } else { Duration::ZERO };
        if let Some(name) = self.registry.name_of(child) {
            self.registry.remove(name, why, until, &mut self.cores);
        }
        cluster.usage.forget(child);
        cluster.unreleased.remove(&child);
    }

    /// Changes what the cores read beside the SA itself: in force for the next packet.
    fn with_shared(&self, child: ChildId, change: impl FnOnce(&InboundShared, &OutboundShared)) {
        let sa = self.registry.shared(child);
        match sa.and_then(|sa| sa.inbound.as_ref().zip(sa.outbound.as_ref())) {
            Some((inbound, outbound)) => change(&inbound.shared, &outbound.shared),
            None => debug!(%child, "the SA is gone already"),
        }
    }

    /// IKE replaces an SA that has carried enough, or whose seal says so.
    fn refresh(&mut self, now: Instant, child: ChildId) {
        let half = self.registry.shared(child).and_then(|sa| sa.inbound.as_ref());
        let is_sealed = half.is_some_and(|half| half.shared.is_sealed());
        let why = if is_sealed { "it is sealed" } else { "lifesize reached" };
        info!(dvipa = %child.dvipa, spi = %child.spi, why, "refreshing the SA");
        asked(self.ike.rekey_child(now, child.spi));
    }

    fn own(&mut self, now: Instant, dvipa: IpAddr, epoch: Epoch) {
        info!(%dvipa, %epoch, "this appliance owns the address");
        self.ike.set_epoch(dvipa, epoch.0);
        self.ike.serve(now, dvipa, true);
        self.stack.own_dvipa(now, dvipa);
    }

    fn disown(&mut self, now: Instant, dvipa: IpAddr) {
        info!(%dvipa, "this appliance does not own the address any more");
        self.ike.serve(now, dvipa, false);
        self.ike.forget_address(now, dvipa);
        self.stack.disown_dvipa(dvipa);
    }
}

fn seal(now: Instant, child: ChildId, inbound: &InboundShared) {
    if inbound.seal(now) {
        let sa = inbound.parameters();
        info!(dvipa = %child.dvipa, spi = %child.spi, peer = %sa.peer_name, epoch = sa.epoch, "SA sealed");
    }
}

/// What IKE does not have any more needs nothing.
fn asked(answer: Result<(), CommandError>) {
    if let Err(error) = answer {
        debug!(%error, "IKE does not do it");
    }
}

/// The replay window that a DVIPA's clients are taken to have, in packets.
fn window_of(cluster: &ClusterCore, dvipa: IpAddr) -> u32 {
    let of_dvipa = cluster.settings.dvipas.iter().find(|known| known.address == dvipa);
    of_dvipa.map_or(0, |known| known.peer_window_packets)
}
