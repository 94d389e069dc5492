//! Every SA that the data cores hold, as the control core knows it: for installing, for removing, for reports.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cluster::fabric::Processing;
use cluster::id::ChildId;
use cluster::member::NumberSource;
use datapath::mailbox::{Command, SaName};
use datapath::routes::RouteTable;
use datapath::sas::{InboundEntry, Notes, OutboundEntry, SaTotals};
use ipsec::Spi;
use ipsec::engine::Engine;
use ipsec::inbound::InboundShared;
use ipsec::iv::SenderNumber;
use ipsec::outbound::{OutboundSa, OutboundShared, OuterPolicy};
use ipsec::sa::{BadSa, Direction, PeerId, SaParameters};
use ipsec::time::Instant;
use tracing::info;

use super::cores::Cores;
use crate::report::SaLedger;

mod shared;

/// The MTU that is assumed where no route leads to a peer: what every IPv4 link must carry after an Ethernet.
const MTU_ASSUMED: u16 = 1500;

/// Why an SA cannot be installed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RegistryError {
    #[error("{0}")]
    BadSa(#[from] BadSa),
    #[error("an SA of this address and SPI is installed already")]
    Occupied,
}

/// One direction of an SA.
#[derive(Debug)]
pub struct Half<S> {
    /// Keys, parameters, lifesize.
    pub shared: Arc<S>,
    /// What each core counts of it; of an outbound SA only its home core.
    pub totals: Arc<[Arc<SaTotals>]>,
    /// Cores that still hold it.
    held_by: usize,
}

impl<S> Half<S> {
    fn new(shared: Arc<S>, counting_cores: usize) -> Half<S> {
        Half { shared, totals: SaTotals::of_cores(counting_cores), held_by: 0 }
    }

    /// Packets over all cores.
    #[must_use]
    pub fn packets(&self) -> u64 {
        self.totals.iter().map(|totals| totals.packets.get()).sum()
    }

    /// Inner bytes over all cores.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.totals.iter().map(|totals| totals.bytes.get()).sum()
    }

    /// Replayed packets over all cores.
    #[must_use]
    pub fn replay_drops(&self) -> u64 {
        self.totals.iter().map(|totals| totals.replay_drops.get()).sum()
    }
}

/// Both directions of a CHILD_SA.
#[derive(Debug)]
pub struct Registered {
    /// Its number, in order of birth.
    pub id: u64,
    /// From the peer to us.
    pub inbound: Option<Half<InboundShared>>,
    /// From us to the peer.
    pub outbound: Option<Half<OutboundShared>>,
    /// The longest inner packet that the outbound half carries.
    inner_mtu: u16,
    /// The inbound number that has told of a move last.
    moved_by: u64,
    sending: Sending,
    /// Where its numbers come from, if members share it.
    numbers: Option<NumberSource>,
    /// Where its IPsec work is done.
    processing: Processing,
    /// It lost a rekey collision: it only receives, until it is deleted.
    receives_only: bool,
    closing: Option<&'static str>,
}

/// How the outbound half is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// No core has it.
    No,
    /// Only for what no other SA of the peer admits: the peer may not be ready to receive on it yet.
    InReserve,
    /// Before all that came earlier.
    First,
}

/// All SAs.
#[derive(Debug)]
pub(super) struct Registry {
    engine: Engine,
    cores: usize,
    port_mtus: Vec<u16>,
    sas: BTreeMap<u64, Registered>,
    /// Also those that are being taken back, until the last core has.
    by_name: HashMap<SaName, u64>,
    /// The same by the name that members use.
    by_child: HashMap<ChildId, u64>,
    /// Which SA is sent on once this one is gone.
    successors: HashMap<SaName, u64>,
    /// SAs that are gone for IKE and still held by the cores, and until when.
    lingering: BTreeSet<(Instant, SaName)>,
    last_id: u64,
    /// What all SAs that ever lived have carried, by child.
    pub(super) totals: SaLedger,
}

impl Registry {
    pub(super) fn new(engine: Engine, cores: usize, port_mtus: Vec<u16>) -> Registry {
        Registry {
            engine,
            cores,
            port_mtus,
            sas: BTreeMap::new(),
            by_name: HashMap::new(),
            by_child: HashMap::new(),
            successors: HashMap::new(),
            lingering: BTreeSet::new(),
            last_id: 0,
            totals: SaLedger::default(),
        }
    }

    /// What encrypts here.
    pub(super) fn engine(&self) -> Engine {
        self.engine
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Registered> {
        self.sas.values()
    }

    pub(super) fn find(&self, name: SaName) -> Option<u64> {
        self.by_name.get(&name).copied()
    }

    /// The authenticated identities of the peers that have an SA, and the address that each has it with.
    pub(super) fn peers(&self) -> HashMap<PeerId, (Arc<str>, IpAddr)> {
        let inbound = self.sas.values().filter_map(|sa| sa.inbound.as_ref()).map(|half| half.shared.parameters());
        inbound.map(|sa| (sa.peer, (Arc::clone(&sa.peer_name), sa.dvipa))).collect()
    }

    /// IKE names a CHILD_SA by its inbound SPI, whichever half met its limit.
    pub(super) fn inbound_spi_of(&self, name: SaName) -> Option<Spi> {
        let registered = self.sas.get(&self.find(name)?)?;
        registered.inbound.as_ref().map(|half| half.shared.parameters().spi)
    }

    /// Takes an SA in; no core knows of it yet.
    pub(super) fn admit(
        &mut self,
        inbound: Option<SaParameters>,
        outbound: Option<SaParameters>,
        born_at: SenderNumber,
        routes: &RouteTable,
    ) -> Result<u64, RegistryError> {
        let names: Vec<SaName> = [&inbound, &outbound].into_iter().flatten().map(SaName::of).collect();
        self.refuse_occupied(&names)?;
        let cores = u16::try_from(self.cores).unwrap_or(u16::MAX);
        let inbound = inbound.map(|parameters| InboundShared::new(parameters, self.engine, cores)).transpose()?;
        let outbound = outbound.map(|parameters| OutboundShared::new(parameters, self.engine, born_at)).transpose()?;
        Ok(self.keep(names, inbound, outbound, routes))
    }

    fn refuse_occupied(&self, names: &[SaName]) -> Result<(), RegistryError> {
        let is_taken = names.iter().any(|name| self.by_name.contains_key(name));
        if is_taken { Err(RegistryError::Occupied) } else { Ok(()) }
    }

    fn keep(
        &mut self,
        names: impl IntoIterator<Item = SaName>,
        inbound: Option<Arc<InboundShared>>,
        outbound: Option<Arc<OutboundShared>>,
        routes: &RouteTable,
    ) -> u64 {
        let inner_mtu = outbound.as_ref().map_or(MTU_ASSUMED, |shared| {
            let mtu = self.mtu_towards(shared.parameters().remote, routes);
            shared.inner_mtu(mtu.into()).min(u16::MAX.into()) as u16
        });
        self.last_id += 1;
        let id = self.last_id;
        self.by_name.extend(names.into_iter().map(|name| (name, id)));
        let registered = Registered {
            id,
            inbound: inbound.map(|shared| Half::new(shared, self.cores)),
            outbound: outbound.map(|shared| Half::new(shared, 1)),
            inner_mtu,
            moved_by: 0,
            sending: Sending::No,
            numbers: None,
            processing: Processing::Target,
            receives_only: false,
            closing: None,
        };
        self.by_child.extend(registered.child().map(|child| (child, id)));
        self.sas.insert(id, registered);
        id
    }

    /// The core that takes the sequence numbers of an SA.
    const fn home_of(id: u64, cores: usize) -> usize {
        (id % cores as u64) as usize
    }

    fn mtu_towards(&self, remote: IpAddr, routes: &RouteTable) -> u16 {
        let port = routes.lookup(remote).map(|hop| usize::from(hop.port.0));
        port.and_then(|port| self.port_mtus.get(port)).copied().unwrap_or(MTU_ASSUMED)
    }

    /// Gives every core its instance of the inbound half.
    pub(super) fn install_inbound<B>(&mut self, id: u64, tell_first_packet: bool, cores: &mut Cores<B>) {
        let Some(registered) = self.sas.get_mut(&id) else { return };
        let (inner_mtu, processing) = (registered.inner_mtu, registered.processing);
        let Some(half) = &mut registered.inbound else { return };
        for core in 0..self.cores {
            let notes = Notes::new(tell_first_packet);
            let (shared, totals) = (Arc::clone(&half.shared), Arc::clone(&half.totals));
            let mut entry = InboundEntry::new(shared, inner_mtu, notes, totals, core);
            entry.processing = processing;
            cores.tell(core, Command::InstallInbound(Box::new(entry)));
        }
        half.held_by = self.cores;
    }

    /// Lets the outbound half be used: every core learns of it, its home core gets its sequence numbers. The second
    /// call does nothing.
    pub(super) fn install_outbound<B>(&mut self, id: u64, sending: Sending, cores: &mut Cores<B>) {
        let Some(registered) = self.sas.get_mut(&id) else { return };
        if registered.sending != Sending::No {
            return;
        }
        let Some(half) = &mut registered.outbound else { return };
        registered.sending = sending;
        half.held_by = self.cores;
        let home = Self::home_of(id, self.cores);
        // The home core learns of it first, for the others hand their packets to it at once.
        let others = (0..self.cores).filter(|&core| core != home);
        for core in std::iter::once(home).chain(others) {
            let numbers = || OutboundSa::new(Arc::clone(&half.shared), 1, OuterPolicy::default());
            let entry = Box::new(OutboundEntry {
                shared: Arc::clone(&half.shared),
                remote: half.shared.parameters().remote,
                inner_mtu: registered.inner_mtu,
                home,
                sealing: (core == home).then(numbers),
                notes: Notes::default(),
                totals: half.totals.first().map(Arc::clone).unwrap_or_default(),
            });
            cores.tell(
                core,
                match sending {
                    Sending::First => Command::InstallOutbound(entry),
                    Sending::InReserve | Sending::No => Command::InstallReserve(entry),
                },
            );
        }
    }

    /// The peer is ready: what stood in reserve is used before all that came earlier.
    pub(super) fn prefer<B>(&mut self, id: u64, cores: &mut Cores<B>) {
        let waits =
            |sa: &&mut Registered| sa.sending == Sending::InReserve && !sa.receives_only && sa.closing.is_none();
        let Some(registered) = self.sas.get_mut(&id).filter(waits) else { return };
        let Some(half) = &registered.outbound else { return };
        registered.sending = Sending::First;
        let SaParameters { peer, spi, .. } = *half.shared.parameters();
        cores.tell_all(|| Command::PreferOutbound { peer, spi });
    }

    /// When a fresh and authentic packet last came by an SA, over all cores.
    pub(super) fn last_heard(&self, name: SaName) -> Option<Instant> {
        let half = self.sas.get(&self.find(name)?)?.inbound.as_ref()?;
        let heard = half.totals.iter().map(|totals| totals.heard.get()).max()?;
        (heard > 0).then_some(Instant::from_nanos(heard))
    }

    /// A core tells of a packet with this number that showed the peer elsewhere: its inbound SPI, if that is the latest
    /// news. What comes by an SA that is on its way out is not.
    pub(super) fn latest_move(&mut self, name: SaName, sequence: u64) -> Option<Spi> {
        let id = self.find(name)?;
        let registered = self.sas.get_mut(&id).filter(|sa| sa.closing.is_none() && sequence > sa.moved_by)?;
        registered.moved_by = sequence;
        Some(name.spi)
    }

    /// A peer has moved: every core is told where what comes by this SA comes from now.
    pub(super) fn moved<B>(&mut self, inbound: SaName, remote: SocketAddr, cores: &mut Cores<B>) {
        if self.find(inbound).is_none() {
            return;
        }
        let SaName { dvipa, spi, .. } = inbound;
        cores.tell_all(|| Command::MoveInbound { dvipa, spi, remote });
    }

    /// The outbound half stays in reserve until the peer's first packet, or the end of the SA that it replaces.
    pub(super) fn send_after(&mut self, id: u64, replaced: SaName) {
        self.successors.insert(replaced, id);
    }

    /// Another SA has replaced `replaced` for good: the one that waited for the same has lost the collision, and is not to
    /// be sent on.
    pub(super) fn settle_collision<B>(&mut self, replaced: SaName, cores: &mut Cores<B>) {
        let loser = self.successors.remove(&replaced).and_then(|id| self.sas.get_mut(&id));
        let Some(loser) = loser else { return };
        loser.receives_only = true;
        if let Some(half) = loser.outbound.as_ref().filter(|_| loser.sending != Sending::No) {
            loser.sending = Sending::No;
            let SaParameters { peer, spi, .. } = *half.shared.parameters();
            cores.tell_all(|| Command::RemoveOutbound { peer, spi });
        }
    }

    /// Takes an SA back from all cores at `until`: what the peer sent before it let go of the SA may still be on its way,
    /// and so may packets of ours between the core that chose it and its home. What waited for this SA's end is sent on
    /// from now on, and is chosen before it.
    pub(super) fn remove<B>(&mut self, inbound: SaName, why: &'static str, until: Instant, cores: &mut Cores<B>) {
        let Some(registered) = self.find(inbound).and_then(|id| self.sas.get_mut(&id)) else { return };
        if registered.closing.replace(why).is_some() {
            return;
        }
        self.lingering.insert((until, inbound));
        if let Some(successor) = self.successors.remove(&inbound) {
            self.prefer(successor, cores);
        }
    }

    /// When [`Registry::end_lingering`] has something to do.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.lingering.first().map(|(until, _)| *until)
    }

    /// Takes back the SAs whose time has come.
    pub(super) fn end_lingering<B>(&mut self, now: Instant, cores: &mut Cores<B>) {
        while self.poll_timeout().is_some_and(|until| until <= now) {
            let Some((_, inbound)) = self.lingering.pop_first() else { return };
            let Some(registered) = self.find(inbound).and_then(|id| self.sas.get(&id)) else { continue };
            if let Some(half) = registered.outbound.as_ref().filter(|_| registered.sending != Sending::No) {
                let SaParameters { peer, spi, .. } = *half.shared.parameters();
                cores.tell_all(|| Command::RemoveOutbound { peer, spi });
            }
            let SaName { dvipa, spi, .. } = inbound;
            cores.tell_all(|| Command::RemoveInbound { dvipa, spi });
        }
    }

    /// A core has given an inbound instance back. `true` if nobody asked for it: the core had no room.
    pub(super) fn retired_inbound(&mut self, entry: &InboundEntry) -> bool {
        self.released(entry.name(), |registered| registered.inbound.as_mut().map(|half| &mut half.held_by))
    }

    /// A core has given an outbound entry back. `true` if nobody asked for it.
    pub(super) fn retired_outbound(&mut self, entry: &OutboundEntry) -> bool {
        self.released(entry.name(), |registered| registered.outbound.as_mut().map(|half| &mut half.held_by))
    }

    fn released(&mut self, name: SaName, held_by: impl Fn(&mut Registered) -> Option<&mut usize>) -> bool {
        let Some(id) = self.find(name) else { return false };
        let Some(registered) = self.sas.get_mut(&id) else { return false };
        let is_unasked =
            registered.closing.is_none() && !(registered.receives_only && name.direction == Direction::Outbound);
        if let Some(cores) = held_by(registered) {
            *cores = cores.saturating_sub(1);
        }
        self.forget_if_free(id);
        is_unasked
    }

    /// Once no core holds a removed SA its counters are final: they are logged, and it is forgotten.
    fn forget_if_free(&mut self, id: u64) {
        let is_free = |sa: &Registered| {
            let inbound = sa.inbound.as_ref().is_none_or(|half| half.held_by == 0);
            let outbound = sa.outbound.as_ref().is_none_or(|half| half.held_by == 0);
            inbound && outbound
        };
        let Some(why) = self.sas.get(&id).filter(|sa| is_free(sa)).and_then(|sa| sa.closing) else { return };
        let Some(sa) = self.sas.remove(&id) else { return };
        sa.rows(|_| "").into_iter().for_each(|row| self.totals.ended(row));
        let parameters = sa.inbound.iter().map(|half| half.shared.parameters());
        sa.child().into_iter().for_each(|child| _ = self.by_child.remove(&child));
        for name in parameters.chain(sa.outbound.iter().map(|half| half.shared.parameters())).map(SaName::of) {
            self.by_name.remove(&name);
            self.successors.remove(&name);
        }
        let of = |parameters: &SaParameters, packets: u64, bytes: u64, replay_drops: u64| {
            info!(
                child = %parameters.name, peer = %parameters.peer_name, dvipa = %parameters.dvipa,
                epoch = parameters.epoch, direction = %parameters.direction, spi = %parameters.spi,
                packets, bytes, replay_drops, why, "SA closed"
            );
        };
        if let Some(half) = &sa.inbound {
            of(half.shared.parameters(), half.packets(), half.bytes(), half.replay_drops());
        }
        if let Some(half) = &sa.outbound {
            of(half.shared.parameters(), half.packets(), half.bytes(), 0);
        }
    }
}

#[cfg(test)]
mod tests;
