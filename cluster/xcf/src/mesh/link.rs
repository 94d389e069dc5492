//! What is remembered of one other member, whether its session is up or not.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::VecDeque;

use cluster::id::Incarnation;
use ipsec::time::Instant;
use rand_chacha::ChaCha20Rng;
use rand_core::Rng;

use super::beats::BeatKey;
use super::{DownReason, Timing};
use crate::name::Name;
use crate::session::Session;
use crate::stream::StreamId;

/// Sessions whose heartbeats count: the newest, and the one before, whose last datagrams may be under way.
const KEYS_MAX: usize = 2;

pub(super) struct Link {
    pub name: Name,
    pub address: SocketAddr,
    /// Whether it is for us to dial.
    pub dials: bool,
    /// The stream whose session counts.
    pub current: Option<StreamId>,
    /// The stream that we have dialled, established or not.
    pub dialling: Option<StreamId>,
    pub retry_at: Option<Instant>,
    /// Attempts in a row that have come to nothing, or to little.
    failures: u32,
    /// The newest start that has been heard of.
    pub newest: Option<Incarnation>,
    pub version: u16,
    pub waiting_bytes: usize,
    pub last_failure: Option<DownReason>,
    /// The newest first.
    pub keys: VecDeque<BeatKey>,
}

impl Link {
    pub fn new(name: Name, address: SocketAddr, dials: bool, now: Instant) -> Link {
        Link {
            name,
            address,
            dials,
            current: None,
            dialling: None,
            retry_at: dials.then_some(now),
            failures: 0,
            newest: None,
            version: 0,
            waiting_bytes: 0,
            last_failure: None,
            keys: VecDeque::new(),
        }
    }

    /// Its session is up on this stream.
    pub fn came_up(&mut self, stream: StreamId, incarnation: Incarnation, version: u16, session: &Session) {
        self.current = Some(stream);
        self.newest = Some(incarnation);
        self.version = version;
        if let Some(key) = BeatKey::of(session, incarnation) {
            self.keys.push_front(key);
            self.keys.truncate(KEYS_MAX);
        }
    }

    /// A session that has stood for long lets what was before be forgotten; a short one is as good as none.
    pub fn has_lasted(&mut self, span: Duration, long: Duration) {
        if span >= long {
            self.failures = 0;
        }
    }

    /// The next attempt: after a time that doubles with each failure, half of it random, so that members which have lost
    /// each other at once do not come back at once.
    pub fn retry_later(&mut self, now: Instant, timing: &Timing, rng: &mut ChaCha20Rng) {
        let doubled = timing.back_off_min.saturating_mul(1 << self.failures.min(16));
        let longest = doubled.min(timing.back_off_max);
        let half_micros = u64::try_from(longest.as_micros() / 2).unwrap_or(u64::MAX);
        let random = Duration::from_micros(rng.next_u64() % (half_micros + 1));
        self.failures = self.failures.saturating_add(1);
        self.retry_at = Some(now + longest / 2 + random);
    }
}
