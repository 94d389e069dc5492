//! The endpoint: where datagrams, time and commands come in, and datagrams and events go out.

mod addresses;
mod commands;
mod datagrams;
mod heard;
mod show;
mod time;

pub use heard::ChildName;
pub use show::{ChildInfo, IkeSaInfo, Occupancy};

use std::collections::{BTreeMap, BTreeSet};

use ipsec::time::Instant;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::config::{Connection, EndpointConfig, Identity};
use crate::context::{Context, Effect};
use crate::cookie::CookieJar;
use crate::counters::Counters;
use crate::event::{Datagram, DownReason, Event};
use crate::half_open::HalfOpenTable;
use crate::initiator::Initiating;
use crate::message::IkeSpi;
use crate::sa::{IkeSa, Lineage, Standing, Task};
use crate::table::SaTable;

/// All IKE SAs of one appliance.
///
/// After every call that takes the time, drain [`poll_event`](Self::poll_event), then
/// [`poll_transmit`](Self::poll_transmit), and call [`handle_timeout`](Self::handle_timeout) no later than
/// [`poll_timeout`](Self::poll_timeout) says. Time must not run backwards.
pub struct Endpoint {
    cx: Context,
    jar: CookieJar,
    half_open: HalfOpenTable,
    initiating: BTreeMap<IkeSpi, Box<Initiating>>,
    initiating_deadlines: BTreeSet<(Instant, IkeSpi)>,
    established: SaTable,
    shutdown_ends_at: Option<Instant>,
}

impl Endpoint {
    /// An endpoint without connections. `seed` must come from a good source of randomness and never be used again: all
    /// nonces, SPIs and key exchanges follow from it.
    #[must_use]
    pub fn new(config: EndpointConfig, seed: [u8; 32]) -> Endpoint {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let jar = CookieJar::new(config.timing.cookie, &mut rng);
        Endpoint {
            cx: Context::new(config, rng),
            jar,
            half_open: HalfOpenTable::default(),
            initiating: BTreeMap::new(),
            initiating_deadlines: BTreeSet::new(),
            established: SaTable::default(),
            shutdown_ends_at: None,
        }
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Datagram> {
        self.cx.poll_transmit()
    }

    /// The next event. All of them are to be taken before any datagram is.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.cx.events.pop_front()
    }

    /// What has happened since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.cx.counters
    }

    /// Puts an IKE SA back after work, or buries it if it ended; then does what it wanted done to others.
    fn put_back(&mut self, mut sa: Box<IkeSa>) {
        sa.run_tasks(&mut self.cx);
        match sa.ended() {
            None => self.established.put(sa),
            Some(reason) => self.bury(sa, reason),
        }
        self.apply_effects();
    }

    /// The end of an IKE SA. If the peer has made another one for the same lineage, that one inherits.
    fn bury(&mut self, mut sa: Box<IkeSa>, reason: DownReason) {
        let peer = sa.lineage.peer;
        let mut ends_lineage = sa.standing == Standing::Current;
        if let Standing::Contender { old } = sa.standing {
            let spi = sa.local_spi();
            self.with_sa(old, |old, _| old.rival.take_if(|rival| rival.spi == spi));
        }
        if let Some(rival) = sa.rival.take() {
            let estate = sa.surrender(&self.cx);
            self.cx.effects.push(Effect::Inherit { to: rival.spi, estate });
            ends_lineage = false;
        }
        sa.dissolve(&mut self.cx, reason);
        if ends_lineage {
            self.cx.counters.ike_down += 1;
            self.cx.counters.peers_dead += u64::from(reason == DownReason::PeerDead);
            self.cx.events.push_back(Event::IkeDown { peer, reason });
        }
    }

    fn apply_effects(&mut self) {
        while let Some(effect) = self.cx.effects.pop() {
            match effect {
                Effect::Install(sa) => {
                    let lineage = sa.lineage.clone();
                    self.put_back(sa);
                    self.thin_out(&lineage);
                }
                Effect::Inherit { to, estate } => {
                    // It is there: a contender that ends is struck out in the IKE SA that it contends with.
                    self.with_sa(to, |sa, cx| sa.inherit(cx, estate));
                }
                Effect::Demote(spi) => {
                    self.with_sa(spi, |sa, cx| sa.retire(cx, Standing::Redundant));
                }
                Effect::SeenAt { lineage, local, remote } => {
                    if let Some(current) = self.established.current_of(&lineage) {
                        self.with_sa(current, |sa, _| sa.look_for_peer_at(local, remote));
                    }
                }
            }
        }
    }

    /// Takes out an IKE SA to be worked on.
    fn take(&mut self, spi: IkeSpi) -> Option<Box<IkeSa>> {
        self.cx.ike_sas = self.established.len();
        self.established.take(spi)
    }

    /// Works on one IKE SA.
    fn with_sa<R>(&mut self, spi: IkeSpi, work: impl FnOnce(&mut IkeSa, &mut Context) -> R) -> Option<R> {
        let mut sa = self.take(spi)?;
        let result = work(&mut sa, &mut self.cx);
        self.put_back(sa);
        Some(result)
    }

    /// Ends every IKE SA between these identities, without a word to the peer, who has just proven who it is and said
    /// that it has none (RFC 7296 §2.4). Those of any other identity are not touched.
    fn forget_all(&mut self, ours: &Identity, theirs: &Identity) {
        for spi in self.established.between(ours, theirs) {
            self.with_sa(spi, |sa, _| sa.finish(DownReason::InitialContact));
        }
    }

    /// Ends the oldest IKE SAs between these identities in this connection, so that one more is not too many.
    fn make_room(&mut self, ours: &Identity, theirs: &Identity, connection: &Connection) {
        let most = connection.ike_sas_per_identity.unwrap_or(self.cx.config.limits.ike_sas_per_identity).max(1);
        let lineages = self.established.lineages(ours, theirs, &connection.name);
        let too_many = (lineages.len() + 1).saturating_sub(most);
        for spi in lineages.into_iter().take(too_many).flatten() {
            self.with_sa(spi, |sa, cx| sa.part(cx, DownReason::Crowded));
        }
    }

    /// Ends the oldest IKE SAs that a lineage has left behind, if they have become too many.
    fn thin_out(&mut self, lineage: &Lineage) {
        let retired = self.established.retired_of(lineage);
        let too_many = retired.len().saturating_sub(self.cx.config.limits.replaced_ike_sas.max(1));
        for spi in retired.into_iter().take(too_many) {
            self.with_sa(spi, |sa, cx| sa.part(cx, DownReason::Replaced));
        }
    }

    /// Works on every IKE SA.
    #[cfg(test)]
    pub(crate) fn each_sa(&mut self, work: impl Fn(&mut IkeSa)) {
        for spi in self.established.spis() {
            self.with_sa(spi, |sa, _| work(sa));
        }
    }

    fn close_all(&mut self, reason: DownReason) {
        for spi in self.established.spis() {
            self.with_sa(spi, |sa, _| {
                let why = if sa.standing == Standing::Current { reason } else { DownReason::Replaced };
                if !sa.is_closing() {
                    sa.queue(Task::DeleteIke(why));
                }
            });
        }
    }
}
