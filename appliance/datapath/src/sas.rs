//! The SAs as one core holds them: its inbound instances by (DVIPA, SPI), and every peer's outbound SAs.

use crate::counters::Counter;
use crate::drops::DropReason;
use crate::mailbox::{Event, Mailbox, SaName};
use crate::mapping::Mapping;
use cluster::fabric::Processing;
use core::hash::BuildHasher;
use core::net::{IpAddr, SocketAddr};
use core::num::NonZeroU32;
use ipsec::Spi;
use ipsec::esp::Authentic;
use ipsec::inbound::{InboundError, InboundSa, InboundShared, Opened, Taken, Vouched};
use ipsec::outbound::{OutboundSa, OutboundShared};
use ipsec::sa::{Mode, PeerId};
use ipsec::sad::Sad;
use ipsec::selector::TrafficSelector;
use ipsec::time::Instant;
use std::collections::HashMap;
use std::hash::RandomState;
use std::sync::Arc;
use wire::Fragment;
use wire::flow::{FlowKey, Inner};

/// What one core has counted of one SA, for whoever reports. One core writes it.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct SaTotals {
    /// Packets delivered or sent.
    pub packets: Counter,
    /// Inner bytes delivered or sent.
    pub bytes: Counter,
    /// Packets refused as replayed or older than the window.
    pub replay_drops: Counter,
    /// The highest number accepted; of an outbound SA the next to be sent.
    pub top: Counter,
    /// When the last fresh and authentic packet came, in nanoseconds of the appliance's clock; 0 before the first.
    pub heard: Counter,
}

const _: () = assert!(size_of::<SaTotals>() == 64);

impl SaTotals {
    /// One for each core.
    pub fn of_cores(cores: usize) -> Arc<[Arc<SaTotals>]> {
        (0..cores).map(|_| Arc::default()).collect()
    }
}

/// What an SA's packets have shown that the control core has to know, and what of it has been told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notes {
    first_packet: Note,
    soft: Note,
    hard: Note,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Note {
    #[default]
    Nothing,
    ToTell,
    Told,
}

impl Note {
    fn happened(&mut self, whether: bool) {
        if whether && *self == Note::Nothing {
            *self = Note::ToTell;
        }
    }

    fn tell(&mut self, event: Event, tell: &mut impl FnMut(Event) -> bool) {
        if *self == Note::ToTell && tell(event) {
            *self = Note::Told;
        }
    }
}

impl Default for Notes {
    fn default() -> Self {
        Notes::new(false)
    }
}

impl Notes {
    /// Notes for an SA whose first packet is of interest only if `first_packet` says so.
    pub fn new(first_packet: bool) -> Notes {
        let first_packet = if first_packet { Note::Nothing } else { Note::Told };
        Notes { first_packet, soft: Note::Nothing, hard: Note::Nothing }
    }

    /// Notes what a packet has met: it was authentic, it reached the soft limit, it was refused at a hard limit.
    pub fn note(&mut self, authentic: bool, soft: bool, hard: bool) {
        self.first_packet.happened(authentic);
        self.soft.happened(soft);
        self.hard.happened(hard);
    }

    /// Whether anything waits to be told: hardly ever, so that a packet need not name its SA.
    #[inline]
    pub fn has_news(&self) -> bool {
        [self.first_packet, self.soft, self.hard].contains(&Note::ToTell)
    }

    /// Tells what has not been told; `tell` says whether it found room. What did not is told at the next packet.
    pub fn tell(&mut self, sa: SaName, mut tell: impl FnMut(Event) -> bool) {
        self.first_packet.tell(Event::FirstPacket { sa }, &mut tell);
        self.soft.tell(Event::SoftLimit { sa }, &mut tell);
        self.hard.tell(Event::HardLimit { sa }, &mut tell);
    }
}

/// One core's instance of an inbound SA.
#[derive(Debug)]
pub struct InboundEntry {
    /// Window, counters, and the shared cold half.
    pub sa: InboundSa,
    /// The longest inner packet that fits the way back to the peer; what TCP is told in SYNs.
    pub return_mtu: u16,
    /// What the control core has been told of it.
    pub notes: Notes,
    /// Where its work is done, in a cluster.
    pub processing: Processing,
    /// Where the peer is, if it is behind a NAT.
    pub mapping: Option<Mapping>,
    /// What this core has counted.
    pub totals: Arc<SaTotals>,
    /// What each core has counted.
    of_all_cores: Arc<[Arc<SaTotals>]>,
}

impl InboundEntry {
    /// The instance of `shared` on the core with this number, which must be one of those in `of_all_cores`; `notes` say
    /// whether its first packet is to be told.
    pub fn new(
        shared: Arc<InboundShared>,
        return_mtu: u16,
        notes: Notes,
        of_all_cores: Arc<[Arc<SaTotals>]>,
        core: usize,
    ) -> Self {
        debug_assert!(core < of_all_cores.len(), "a core without a place for its counters");
        let totals = of_all_cores.get(core).map(Arc::clone).unwrap_or_default();
        let mapping = Mapping::of(shared.parameters());
        let (sa, processing) = (InboundSa::new(shared), Processing::Target);
        InboundEntry { sa, return_mtu, notes, processing, mapping, totals, of_all_cores }
    }

    /// The same, whose work is done there. Fixed at the SA's birth: the same on all members.
    #[must_use]
    pub fn processed_at(self, processing: Processing) -> Self {
        InboundEntry { processing, ..self }
    }

    /// How other cores name it.
    pub fn name(&self) -> SaName {
        SaName::of(self.sa.shared().parameters())
    }

    /// Draws its conclusions from a packet that was or was not opened, and shows readers what has been counted.
    pub fn learn(&mut self, opened: &Result<Opened, InboundError>, now: Instant) {
        let is_fresh = is_fresh(opened);
        let soft = opened.as_ref().is_ok_and(|opened| opened.soft_reached);
        self.notes.note(is_fresh, soft, matches!(opened, Err(InboundError::HardLimit)));
        self.publish();
        if is_fresh {
            self.heard(now);
        }
    }

    /// The same for a packet that was authenticated before, and is now charged to the lifesize.
    pub fn charged<B>(&mut self, charged: &Result<bool, InboundError>, mailbox: &mut Mailbox<B>) {
        self.notes.note(false, *charged == Ok(true), *charged == Err(InboundError::HardLimit));
        self.publish();
        self.tell_news(mailbox);
    }

    /// How many bytes of the SA's lifesize a packet takes: all of it in a tunnel, its payload in transport mode.
    pub fn lifesize_of(&self, inner: &Inner) -> usize {
        match self.sa.shared().parameters().mode {
            Mode::Tunnel => inner.total_len,
            Mode::Transport => inner.total_len - inner.header_len,
        }
    }

    /// Takes the number of a packet that the owner of its address has authenticated, and draws the conclusions.
    ///
    /// # Errors
    /// What [`InboundSa::take`] refuses it for.
    pub fn take(&mut self, vouched: Vouched, now: Instant) -> Result<Taken, InboundError> {
        let taken = self.sa.take(vouched);
        self.publish();
        if taken.is_ok() {
            self.heard(now);
        }
        taken
    }

    fn heard(&self, now: Instant) {
        self.totals.top.set(self.totals.top.get().max(self.sa.window().top()));
        self.totals.heard.set(now.as_nanos());
    }

    /// Tells the control core what it does not know yet, as far as there is room.
    #[inline]
    pub fn tell_news<B>(&mut self, mailbox: &mut Mailbox<B>) {
        if self.notes.has_news() {
            let name = self.name();
            self.notes.tell(name, |event| mailbox.events.push(event).is_ok());
        }
    }

    fn publish(&self) {
        let counters = self.sa.counters();
        self.totals.packets.set(counters.packets);
        self.totals.bytes.set(counters.bytes);
        self.totals.replay_drops.set(counters.replay_drops);
    }

    /// The news that the peer has moved, if this packet shows that: it is the newest of all cores and came from
    /// elsewhere. Other cores' counters are looked at only if it did.
    pub fn find_moved(&mut self, proof: &Authentic, source: Option<SocketAddr>, now: Instant) -> Option<Event> {
        let (sequence, remote) = (proof.sequence(), source?);
        let mapping = self.mapping.as_mut().filter(|mapping| mapping.is_to_be_told(remote, now))?;
        if self.of_all_cores.iter().any(|totals| totals.top.get() > sequence) {
            return None;
        }
        mapping.told(proof, now);
        Some(Event::PeerMoved { sa: self.name(), remote, sequence })
    }
}

/// Whether a packet was verified and its number is taken: only then does it say anything about its peer, for what takes
/// no number can be repeated by anybody.
fn is_fresh(opened: &Result<Opened, InboundError>) -> bool {
    match opened {
        Ok(_) | Err(InboundError::Dummy | InboundError::HardLimit | InboundError::Ungranted) => true,
        Err(
            InboundError::Truncated
            | InboundError::Replayed
            | InboundError::TooOld
            | InboundError::BelowFloor
            | InboundError::AuthenticationFailed
            | InboundError::BadPadding
            | InboundError::UnknownNextHeader
            | InboundError::MalformedInner,
        ) => false,
    }
}

/// What one core knows of an outbound SA.
#[derive(Debug)]
pub struct OutboundEntry {
    /// Parameters and selectors.
    pub shared: Arc<OutboundShared>,
    /// The peer's address now; a NAT may move it.
    pub remote: IpAddr,
    /// The longest inner packet that it carries in one piece.
    pub inner_mtu: u16,
    /// The core that takes its sequence numbers.
    pub home: usize,
    /// The sequence numbers themselves: on the home core only.
    pub sealing: Option<OutboundSa>,
    /// What the control core has been told of it.
    pub notes: Notes,
    /// What the home core has counted.
    pub totals: Arc<SaTotals>,
}

impl OutboundEntry {
    /// How other cores name it.
    pub fn name(&self) -> SaName {
        SaName::of(self.shared.parameters())
    }

    /// Shows readers what has been counted.
    pub fn publish(&self) {
        if let Some(sealing) = &self.sealing {
            self.totals.packets.set(sealing.counters().packets);
            self.totals.bytes.set(sealing.counters().bytes);
            self.totals.top.set(sealing.next_sequence());
        }
    }

    /// The peer has moved. An address of the other family is refused: the outer headers are of one family for the life of
    /// the SA.
    pub fn move_remote(&mut self, remote: SocketAddr) {
        if remote.is_ipv4() != self.remote.is_ipv4() {
            return;
        }
        self.remote = remote.ip();
        if let Some(sealing) = &mut self.sealing {
            // Refused for nothing but the family.
            let _ = sealing.move_remote(remote);
        }
    }
}

/// Who has authenticated itself, in short: what outlives an IKE SA and tells the same peer from another that has the same
/// inner addresses. Keyed, so that nobody can look for a name that is like another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity(NonZeroU32);

impl Identity {
    pub(crate) fn new(hash: u64) -> Identity {
        Identity(NonZeroU32::new(hash as u32).unwrap_or(NonZeroU32::MAX))
    }
}

/// Outbound SAs by peer and by address. Changed by commands only.
#[derive(Debug, Default)]
pub struct OutboundSas {
    /// Keys the short names of identities.
    identities: RandomState,
    /// A peer's SAs, the first choice last.
    #[expect(clippy::vec_box, reason = "an entry comes and goes as the box that its command carries")]
    by_peer: HashMap<PeerId, Vec<Box<OutboundEntry>>>,
    /// Who has an SA whose remote selectors name exactly this address; the last to come is asked first.
    by_host: HashMap<IpAddr, Vec<PeerId>>,
    /// Who has an SA with wider remote selectors.
    wide: Vec<PeerId>,
}

impl OutboundSas {
    /// Adds an SA: from now on it is its peer's newest.
    pub fn insert(&mut self, entry: Box<OutboundEntry>) {
        let (peer, spi) = (entry.shared.parameters().peer, entry.shared.parameters().spi);
        self.insert_reserve(entry);
        self.prefer(peer, spi);
    }

    /// Adds an SA as its peer's last choice.
    pub fn insert_reserve(&mut self, entry: Box<OutboundEntry>) {
        let peer = entry.shared.parameters().peer;
        for selector in remote_of(&entry) {
            let among = self.among(selector);
            if !among.contains(&peer) {
                among.insert(0, peer);
            }
        }
        self.by_peer.entry(peer).or_default().insert(0, entry);
    }

    /// Makes an SA its peer's first choice, and that peer the first of those that claim its addresses.
    pub fn prefer(&mut self, peer: PeerId, spi: Spi) {
        let Some(entries) = self.by_peer.get_mut(&peer) else { return };
        let Some(at) = entries.iter().position(|entry| entry.shared.parameters().spi == spi) else { return };
        entries[at..].rotate_left(1);
        let Some(shared) = entries.last().map(|entry| Arc::clone(&entry.shared)) else { return };
        for selector in &shared.parameters().selectors.remote {
            let among = self.among(selector);
            if let Some(at) = among.iter().position(|known| *known == peer) {
                among[at..].rotate_left(1);
            }
        }
    }

    /// The peers that claim what a remote selector names.
    fn among(&mut self, selector: &TrafficSelector) -> &mut Vec<PeerId> {
        match selector.addresses.as_single() {
            Some(host) => self.by_host.entry(host).or_default(),
            None => &mut self.wide,
        }
    }

    /// Takes an SA out.
    pub fn remove(&mut self, peer: PeerId, spi: Spi) -> Option<Box<OutboundEntry>> {
        let entries = self.by_peer.get_mut(&peer)?;
        let at = entries.iter().position(|entry| entry.shared.parameters().spi == spi)?;
        let removed = entries.remove(at);
        if entries.is_empty() {
            self.by_peer.remove(&peer);
        }
        for selector in remote_of(&removed) {
            self.forget_unless_named(peer, selector.addresses.as_single());
        }
        Some(removed)
    }

    /// Takes a peer off the list of a host (or of the wide ones) that none of its SAs names any more.
    fn forget_unless_named(&mut self, peer: PeerId, host: Option<IpAddr>) {
        let mut selectors = self.by_peer.get(&peer).into_iter().flatten().flat_map(|entry| remote_of(entry));
        if selectors.any(|selector| selector.addresses.as_single() == host) {
            return;
        }
        let Some(host) = host else { return self.wide.retain(|&other| other != peer) };
        if let Some(among) = self.by_host.get_mut(&host) {
            among.retain(|&other| other != peer);
            if among.is_empty() {
                self.by_host.remove(&host);
            }
        }
    }

    /// The peer's newest SA that admits the packet.
    pub fn of_peer(&self, peer: PeerId, flow: &FlowKey, fragment: Fragment) -> Option<&OutboundEntry> {
        let entries = self.by_peer.get(&peer)?;
        let admits = |entry: &OutboundEntry| entry.shared.parameters().selectors.admits_outbound(flow, fragment);
        entries.iter().rev().map(|entry| &**entry).find(|entry| admits(entry))
    }

    /// The newest SA that admits the packet, of the one peer that has such an SA: for packets that no connection speaks
    /// for. Several peers may claim one inner address; which of them is meant nobody knows, and what is one's must not be
    /// told another.
    pub fn of_any(&self, flow: &FlowKey, fragment: Fragment) -> Result<&OutboundEntry, DropReason> {
        let hosts = self.by_host.get(&flow.dst).into_iter().flatten();
        let peers = hosts.rev().chain(self.wide.iter().rev());
        let mut admitting = peers.filter_map(|&peer| self.of_peer(peer, flow, fragment));
        let newest = admitting.next().ok_or(DropReason::NoOutboundSa)?;
        if admitting.all(|other| is_one_peer(newest, other)) { Ok(newest) } else { Err(DropReason::PeerAmbiguous) }
    }

    /// Whether this peer has any SA.
    pub fn knows(&self, peer: PeerId) -> bool {
        self.by_peer.contains_key(&peer)
    }

    /// The identity that a peer has shown, if it has any SA.
    pub fn identity(&self, peer: PeerId) -> Option<Identity> {
        Some(self.identity_of(self.by_peer.get(&peer)?.first()?))
    }

    /// The identity that the peer of an SA has shown.
    pub fn identity_of(&self, entry: &OutboundEntry) -> Identity {
        Identity::new(self.identities.hash_one(&*entry.shared.parameters().peer_name))
    }

    /// The home core of a certain SA.
    pub fn home(&self, peer: PeerId, spi: Spi) -> Option<usize> {
        let mut entries = self.by_peer.get(&peer)?.iter();
        entries.find(|entry| entry.shared.parameters().spi == spi).map(|entry| entry.home)
    }

    /// One certain SA, to seal with.
    pub fn get_mut(&mut self, peer: PeerId, spi: Spi) -> Option<&mut OutboundEntry> {
        let entries = self.by_peer.get_mut(&peer)?;
        entries.iter_mut().find(|entry| entry.shared.parameters().spi == spi).map(|entry| &mut **entry)
    }

    /// The peer has moved: all its SAs go to its new address.
    pub fn move_peer(&mut self, peer: PeerId, remote: SocketAddr) {
        for entry in self.by_peer.get_mut(&peer).into_iter().flatten() {
            entry.move_remote(remote);
        }
    }
}

/// Whether two SAs were negotiated with the same authenticated identity.
fn is_one_peer(one: &OutboundEntry, other: &OutboundEntry) -> bool {
    let (one, other) = (one.shared.parameters(), other.shared.parameters());
    one.peer == other.peer || one.peer_name == other.peer_name
}

fn remote_of(entry: &OutboundEntry) -> &[TrafficSelector] {
    &entry.shared.parameters().selectors.remote
}

/// All SAs of one core.
#[derive(Debug)]
pub struct CoreSas {
    /// Inbound instances.
    pub inbound: Sad<Box<InboundEntry>>,
    /// Outbound knowledge.
    pub outbound: OutboundSas,
}

#[cfg(test)]
mod tests;
