//! What must always hold (DESIGN §8), held against everything that is seen from outside.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use cluster::id::{Epoch, Incarnation, MemberId};
use ipsec::Spi;
use ipsec::time::Instant;
use wire::{esp, ipv4, protocol, udp};

use crate::packet::{Segment, ip_of};

/// ESP's header, IV and ICV, and what the trailer has at least.
const ESP_OVERHEAD: usize = 8 + 8 + 16 + 2;
/// The most padding that ESP adds to align.
const PADDING_MAX: usize = 3;
/// IKE's header: SPIs, types, flags, message ID, length (RFC 7296 §3.1).
const IKE_HEADER_LEN: usize = 28;
/// The exchange of IKE_SA_INIT, which may be answered twice: with a cookie first.
const IKE_SA_INIT: u8 = 34;
/// The first payload of a message in fragments (RFC 7383).
const FRAGMENT: u8 = 53;

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub rule: &'static str,
    /// How.
    pub what: String,
}

/// What a client sent.
#[derive(Clone, Copy, Debug)]
struct Sent {
    client: (Ipv4Addr, u16),
    /// Which life of the client: each is another peer.
    life: u32,
    spi: Spi,
    len: usize,
    delivered: Option<(MemberId, Instant)>,
}

/// A connection as targets have it.
#[derive(Clone, Copy, Debug)]
struct Place {
    target: MemberId,
    /// The target's start when it got it.
    incarnation: Incarnation,
    epoch: Epoch,
    at: Instant,
}

/// A delivery: where, and what is known of that place.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    /// When.
    pub now: Instant,
    /// Where.
    pub target: MemberId,
    /// The start that the target has.
    pub incarnation: Incarnation,
    /// The epoch that it knows.
    pub epoch: Epoch,
}

/// The model.
#[derive(Debug)]
pub struct Model {
    hard_bytes: Option<u64>,
    /// An entry may be given up by its target when it has been idle for so long.
    idle: Duration,
    sent: HashMap<u64, Sent>,
    answers: HashSet<u64>,
    ivs: HashSet<(Ipv4Addr, u32, u64)>,
    numbers: HashSet<(Ipv4Addr, u32, u32)>,
    inbound_bytes: HashMap<Spi, u64>,
    outbound_bytes: HashMap<(Ipv4Addr, u32), u64>,
    ike: HashMap<([u8; 16], u8, u32), u64>,
    owners: BTreeMap<Epoch, MemberId>,
    places: HashMap<(Ipv4Addr, u16, u32), Place>,
    /// How often each client has started anew.
    lives: HashMap<Ipv4Addr, u32>,
    /// Starts that their owner has given up: their connections may move.
    given_up: HashSet<(MemberId, Incarnation)>,
    /// The newest start of each target that an owner has counted on.
    newest: HashMap<MemberId, Incarnation>,
    /// Segments that hosts got, and that clients got.
    pub counts: (u64, u64),
    violation: Option<Violation>,
}

impl Model {
    /// Knows of nothing.
    #[must_use]
    pub fn new(hard_bytes: Option<u64>, idle: Duration) -> Model {
        Model {
            hard_bytes,
            idle,
            sent: HashMap::new(),
            answers: HashSet::new(),
            ivs: HashSet::new(),
            numbers: HashSet::new(),
            inbound_bytes: HashMap::new(),
            outbound_bytes: HashMap::new(),
            ike: HashMap::new(),
            owners: BTreeMap::new(),
            places: HashMap::new(),
            lives: HashMap::new(),
            given_up: HashSet::new(),
            newest: HashMap::new(),
            counts: (0, 0),
            violation: None,
        }
    }

    /// The first rule that was broken.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Notes that a rule is broken; the first counts.
    pub fn broken(&mut self, rule: &'static str, what: String) {
        self.violation.get_or_insert(Violation { rule, what });
    }

    /// How many segments clients have sent.
    #[must_use]
    pub fn sent_count(&self) -> usize {
        self.sent.len()
    }

    /// A member's clock went ahead: what it has is older by so much, for it alone goes by that clock.
    pub fn aged(&mut self, member: MemberId, span: Duration) {
        for place in self.places.values_mut().filter(|place| place.target == member) {
            place.at = place.at.checked_sub(span).unwrap_or(Instant::ZERO);
        }
    }

    /// Which target last delivered of a client's connection.
    #[must_use]
    pub fn place_of(&self, client: (Ipv4Addr, u16)) -> Option<MemberId> {
        self.places.get(&(client.0, client.1, self.life_of(client.0))).map(|place| place.target)
    }

    /// A client has sealed a segment.
    pub fn sent(&mut self, segment: &Segment, spi: Spi) {
        let life = self.life_of(segment.client.0);
        let sent = Sent { client: segment.client, life, spi, len: segment.len, delivered: None };
        self.sent.insert(segment.tag, sent);
    }

    /// A client starts anew: what it did before, another peer did.
    pub fn renewed(&mut self, client: Ipv4Addr) {
        *self.lives.entry(client).or_default() += 1;
    }

    fn life_of(&self, client: Ipv4Addr) -> u32 {
        self.lives.get(&client).copied().unwrap_or(0)
    }

    /// A host has answered.
    pub fn answered(&mut self, segment: &Segment) {
        self.answers.insert(segment.tag);
    }

    /// The owner counts on this start of a target, or does no more; whether that is news.
    pub fn target(&mut self, member: MemberId, incarnation: Incarnation, is_given_up: bool) -> bool {
        let newest = self.newest.entry(member).or_default();
        *newest = incarnation.max(*newest);
        is_given_up && self.given_up.insert((member, incarnation))
    }

    /// Whether an owner has given this start of a target up.
    #[must_use]
    pub fn is_given_up(&self, member: MemberId, incarnation: Incarnation) -> bool {
        let newest = self.newest.get(&member).copied().unwrap_or_default();
        self.given_up.contains(&(member, incarnation)) || incarnation < newest
    }

    /// A frame left an appliance by its inside port.
    pub fn delivered(&mut self, at: &Delivery, segment: &Segment) {
        let target = at.target;
        let Some(sent) = self.sent.get_mut(&segment.tag).filter(|_| segment.to_service) else {
            return self.broken("3 nothing unauthenticated", format!("member {target} delivered {segment:?}, unsent"));
        };
        if sent.client != segment.client || sent.len != segment.len {
            let what = format!("member {target} delivered {segment:?} for another's {sent:?}");
            return self.broken("3 nothing unauthenticated", what);
        }
        if let Some((first, when)) = sent.delivered {
            let what = format!("{segment:?} of {} at member {first} at {when:?}, again at member {target}", sent.spi);
            return self.broken("2 no replay", what);
        }
        sent.delivered = Some((target, at.now));
        let (spi, len, life) = (sent.spi, sent.len as u64, sent.life);
        self.counts.0 += 1;
        let carried = self.inbound_bytes.entry(spi).or_default();
        *carried += len;
        if let Some(hard) = self.hard_bytes.filter(|hard| *carried > *hard) {
            let what = format!("inbound SA {spi} carried {carried} of {hard} bytes");
            return self.broken("5 hard lifesize", what);
        }
        self.place(at, (segment.client.0, segment.client.1, life));
    }

    /// A connection stays with its target until that is lost, or has given it up.
    fn place(&mut self, at: &Delivery, client: (Ipv4Addr, u16, u32)) {
        let Delivery { now, target, incarnation, epoch } = *at;
        // Who was given up may deliver what it was sent before; the connection is elsewhere.
        if self.is_given_up(target, incarnation) {
            return;
        }
        let place = Place { target, incarnation, epoch, at: now };
        let Some(before) = self.places.insert(client, place) else { return };
        let is_lost = self.is_given_up(before.target, before.incarnation) || before.epoch != epoch;
        let is_idle = now.saturating_since(before.at) >= self.idle;
        if before.target != target && !is_lost && !is_idle {
            let what = format!("{client:?} moved from {before:?} to member {target} (start {incarnation})");
            self.broken("7 a connection stays", what);
        }
    }

    /// A client has opened a packet.
    pub fn received(&mut self, segment: &Segment) {
        self.counts.1 += 1;
        // Resets are the owner's own.
        if !self.answers.contains(&segment.tag) {
            self.broken("3 nothing unauthenticated", format!("a client got {segment:?}, which no host has sent"));
        }
    }

    /// A frame left an appliance by its network port.
    pub fn left(&mut self, member: MemberId, frame: &[u8]) {
        let Some(ip) = ip_of(frame).and_then(|packet| ipv4::Packet::new_checked(packet).ok()) else { return };
        match ip.protocol() {
            protocol::ESP => self.esp_left(member, ip.dst(), ip.payload()),
            protocol::UDP => {
                if let Ok(datagram) = udp::Packet::new_checked(ip.payload()) {
                    self.ike_left(member, datagram.payload());
                }
            }
            _other => {}
        }
    }

    fn esp_left(&mut self, member: MemberId, to: Ipv4Addr, packet: &[u8]) {
        let (Some(header), Some(iv)) = (esp::Packet::new_checked(packet).ok(), packet.get(8..16)) else { return };
        let (spi, sequence) = (header.spi(), header.sequence());
        let iv = iv.try_into().map_or(0, u64::from_be_bytes);
        if !self.ivs.insert((to, spi, iv)) {
            let what = format!("member {member} sent IV {iv:#018x} again under the key of SA {spi:#010x} to {to}");
            self.broken("1 no key and IV twice", what);
        }
        if !self.numbers.insert((to, spi, sequence)) {
            let what = format!("member {member} sent number {sequence} again on SA {spi:#010x} to {to}");
            self.broken("1 no SA and sequence number twice", what);
        }
        let inner = packet.len().saturating_sub(ESP_OVERHEAD + PADDING_MAX) as u64;
        let carried = self.outbound_bytes.entry((to, spi)).or_default();
        *carried += inner;
        if let Some(hard) = self.hard_bytes.filter(|hard| *carried > *hard) {
            let what = format!("outbound SA {spi:#010x} to {to} carried at least {carried} of {hard} bytes");
            self.broken("5 hard lifesize", what);
        }
    }

    /// Rule 8: two different messages never have one message ID.
    fn ike_left(&mut self, member: MemberId, message: &[u8]) {
        let Some(header) = message.get(..IKE_HEADER_LEN) else { return };
        let (exchange, flags) = (header[18], header[19]);
        if exchange == IKE_SA_INIT || header[16] == FRAGMENT {
            return;
        }
        let id = header[20..24].try_into().map_or(0, u32::from_be_bytes);
        let mut spis = [0; 16];
        spis.copy_from_slice(&header[..16]);
        let mut hasher = DefaultHasher::new();
        message.hash(&mut hasher);
        let hash = hasher.finish();
        let known = *self.ike.entry((spis, flags, id)).or_insert(hash);
        if known != hash {
            let what = format!("member {member} sent another message under ID {id}, flags {flags:#x}");
            self.broken("8 one message of an ID", what);
        }
    }

    /// A member says that it owns the address in this epoch, or a frame of an owner says so.
    pub fn owns(&mut self, member: MemberId, epoch: Epoch) {
        let known = *self.owners.entry(epoch).or_insert(member);
        if known != member {
            self.broken("6 one owner of an epoch", format!("epoch {epoch} is that of members {known} and {member}"));
        }
    }

    /// An appliance's books.
    pub fn balanced(&mut self, member: MemberId, difference: i64) {
        if difference != 0 {
            self.broken("4 every packet ends once", format!("member {member}'s books differ by {difference}"));
        }
    }
}
