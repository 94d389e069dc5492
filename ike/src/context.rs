//! What every IKE SA of an endpoint shares while it works: time, chance, policy, numbers, and what goes out.

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ipsec::Spi;
use ipsec::sa::PeerId;
use ipsec::time::Instant;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

use crate::channel::{OpenError, Wire};
use crate::child::Child;
use crate::config::{Connection, EndpointConfig, Secrets};
use crate::counters::{Counters, DropReason};
use crate::error::Refusal;
use crate::event::{Datagram, Event};
use crate::exchange::sibling::Siblings;
use crate::kept::KeptResponses;
use crate::message::IkeSpi;
use crate::overlap::OverlapIndex;
use crate::rate::{FairLimit, TokenBucket};
use crate::sa::{IkeSa, Lineage, Path, Task};

/// Octets of our nonces: twice the strength of the strongest key (RFC 7296 §2.10 asks for half the PRF's key).
const NONCE_LEN: usize = 32;

pub(crate) struct Context {
    pub(crate) now: Instant,
    pub(crate) rng: ChaCha20Rng,
    pub(crate) config: EndpointConfig,
    /// The epochs of our addresses.
    pub(crate) epochs: BTreeMap<IpAddr, u64>,
    /// Addresses of ours for which IKE is silent.
    pub(crate) unserved: BTreeSet<IpAddr>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) secrets: Secrets,
    pub(crate) spis: SpiPool,
    pub(crate) overlaps: OverlapIndex,
    pub(crate) kept: KeptResponses,
    /// How many IKE SAs there are, the one at work included.
    pub(crate) ike_sas: usize,
    pub(crate) counters: Counters,
    pub(crate) events: VecDeque<Event>,
    /// What a handled IKE SA wants done to others; empty between calls.
    pub(crate) effects: Vec<Effect>,
    error_replies: FairLimit,
    reports: TokenBucket,
    transmits: VecDeque<Datagram>,
    last_peer: u64,
}

/// What the handling of one IKE SA does to others.
pub(crate) enum Effect {
    /// A new IKE SA takes its place beside the others.
    Install(Box<IkeSa>),
    /// The IKE SA with this SPI of ours inherits, and is from now on the current one of its lineage.
    Inherit { to: IkeSpi, estate: Estate },
    /// The IKE SA with this SPI of ours lost a collision; the peer will delete it.
    Demote(IkeSpi),
    /// The peer of this lineage was heard from here, but not on its IKE SA in use.
    SeenAt { lineage: Arc<Lineage>, local: SocketAddr, remote: SocketAddr },
}

/// What passes from an IKE SA to the one that replaces it.
pub(crate) struct Estate {
    pub(crate) children: Vec<Child>,
    /// What was to be done with them.
    pub(crate) tasks: Vec<Task>,
    /// What is known of siblings.
    pub(crate) siblings: Siblings,
    /// Where the peer is.
    pub(crate) path: Path,
}

impl Context {
    pub(crate) fn new(config: EndpointConfig, mut rng: ChaCha20Rng) -> Context {
        Context {
            now: Instant::ZERO,
            kept: KeptResponses::new(config.limits.kept_responses, config.timing.kept_response),
            error_replies: FairLimit::new(config.limits.error_replies_per_second, &mut rng),
            reports: TokenBucket::new(config.limits.reports_per_second),
            rng,
            last_peer: config.peer_base,
            config,
            epochs: BTreeMap::new(),
            unserved: BTreeSet::new(),
            connections: Vec::new(),
            secrets: Secrets::default(),
            spis: SpiPool::default(),
            overlaps: OverlapIndex::default(),
            ike_sas: 0,
            counters: Counters::default(),
            events: VecDeque::new(),
            effects: Vec::new(),
            transmits: VecDeque::new(),
        }
    }

    pub(crate) fn drop(&mut self, reason: DropReason) {
        self.counters.drop(reason);
    }

    /// Counts why a protected message was not acted upon.
    pub(crate) fn count_unopened(&mut self, why: &OpenError) {
        match why {
            OpenError::Malformed(_) => self.drop(DropReason::Malformed),
            OpenError::NotEncrypted => self.drop(DropReason::NotEncrypted),
            OpenError::NotAuthentic => self.drop(DropReason::NotAuthentic),
            OpenError::UnwantedFragment => self.drop(DropReason::UnwantedFragment),
            OpenError::Incomplete => self.counters.fragments_kept += 1,
        }
    }

    pub(crate) fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = vec![0; NONCE_LEN];
        self.rng.fill_bytes(&mut nonce);
        nonce
    }

    pub(crate) fn next_peer(&mut self) -> PeerId {
        self.last_peer = self.last_peer.saturating_add(1);
        PeerId(self.last_peer)
    }

    /// In which epoch an SA of this address of ours is born now.
    pub(crate) fn epoch_at(&self, dvipa: IpAddr) -> u64 {
        self.epochs.get(&dvipa).copied().unwrap_or(self.config.epoch)
    }

    /// Whether an IKE SA may be replaced, which takes one more for a while.
    pub(crate) fn has_room_for_successor(&self) -> bool {
        self.ike_sas < self.config.limits.ike_sas_with_replaced()
    }

    /// A span shortened by chance by up to a tenth, so that SAs born together are not replaced together.
    pub(crate) fn jittered(&mut self, span: core::time::Duration) -> core::time::Duration {
        span - (span / 10 / 1024) * (self.rng.next_u32() % 1024)
    }

    pub(crate) fn transmit(&mut self, local: SocketAddr, remote: SocketAddr, payload: Vec<u8>) {
        self.enqueue(Datagram::new(local, remote, payload));
    }

    fn enqueue(&mut self, datagram: Datagram) {
        if self.unserved.contains(&datagram.local.ip()) {
            return self.drop(DropReason::NotServed);
        }
        if self.transmits.len() >= self.config.limits.transmit_queue {
            self.drop(DropReason::TransmitQueueFull);
            return;
        }
        self.transmits.push_back(datagram);
    }

    /// The same for a message that may travel in several datagrams.
    pub(crate) fn transmit_all(&mut self, local: SocketAddr, remote: SocketAddr, wire: Wire) {
        let Wire { parts, promises } = wire;
        parts.into_iter().for_each(|payload| self.enqueue(Datagram { local, remote, payload, promises }));
    }

    pub(crate) fn poll_transmit(&mut self) -> Option<Datagram> {
        let datagram = self.transmits.pop_front()?;
        self.counters.datagrams_sent += 1;
        Some(datagram)
    }

    /// Sends an unprotected error, if not too many have been sent already.
    pub(crate) fn transmit_error(&mut self, local: SocketAddr, remote: SocketAddr, payload: Vec<u8>) {
        if self.error_replies.take(self.now, remote.ip()) {
            self.transmit(local, remote, payload);
        } else {
            self.drop(DropReason::ErrorReplyHeldBack);
        }
    }

    /// Counts a refusal, and reports it unless it is routine.
    pub(crate) fn report_refusal(&mut self, remote: SocketAddr, peer: Option<PeerId>, why: &Refusal) {
        self.counters.refused += 1;
        if !why.is_routine() {
            self.report(remote, peer, why);
        }
    }

    /// Tells the operator what was wrong, if not too much was told lately.
    pub(crate) fn report(&mut self, remote: SocketAddr, peer: Option<PeerId>, why: &impl ToString) {
        if self.reports.take(self.now) {
            self.events.push_back(Event::Refused { remote, peer, why: why.to_string() });
        }
    }
}

/// The SPIs that we receive on. Each is in use once in the whole endpoint.
#[derive(Default)]
pub(crate) struct SpiPool {
    esp: BTreeMap<Spi, IkeSpi>,
    ike: BTreeSet<IkeSpi>,
}

impl SpiPool {
    /// An SPI for ESP, drawn by chance, that belongs to the IKE SA `owner`.
    pub(crate) fn draw_esp(&mut self, rng: &mut impl Rng, owner: IkeSpi) -> Spi {
        loop {
            if let Some(spi) = Spi::new(rng.next_u32())
                && let std::collections::btree_map::Entry::Vacant(free) = self.esp.entry(spi)
            {
                free.insert(owner);
                return spi;
            }
        }
    }

    pub(crate) fn free_esp(&mut self, spi: Spi) {
        self.esp.remove(&spi);
    }

    pub(crate) fn owner(&self, spi: Spi) -> Option<IkeSpi> {
        self.esp.get(&spi).copied()
    }

    pub(crate) fn give(&mut self, spi: Spi, owner: IkeSpi) {
        self.esp.insert(spi, owner);
    }

    /// An SPI for an IKE SA, drawn by chance.
    pub(crate) fn draw_ike(&mut self, rng: &mut impl Rng) -> IkeSpi {
        loop {
            let spi = IkeSpi::new(rng.next_u64());
            if !spi.is_none() && self.ike.insert(spi) {
                return spi;
            }
        }
    }

    pub(crate) fn free_ike(&mut self, spi: IkeSpi) {
        self.ike.remove(&spi);
    }

    /// How many are in use: for ESP, for IKE.
    pub(crate) fn in_use(&self) -> (usize, usize) {
        (self.esp.len(), self.ike.len())
    }
}
