//! The shadow SA cache of a target: what the owner of one DVIPA has told it of SAs, and how far it has come with that.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use ipsec::Spi;
use ipsec::lifetime::Lifetime;
use ipsec::sa::{Encapsulation, PeerId};
use ipsec::time::Instant;

use super::seam::{Action, SaUse};
use super::shared::{Refused, Shared};
use crate::id::ChildId;
use crate::lifesize::{Amount, MemberLedger, MemberTimes, Percentage};
use crate::message::{Body, Delta, Departed, Granted, Marked, Moved, NumbersFrom, ShadowImage, ShortReason, Top, Used};
use crate::shadow::{ShadowSa, Use};
use crate::shadow_codec::decode_shadow;

/// Most SAs of one DVIPA that a target keeps.
pub(super) const SHADOWS_MAX: usize = 1 << 18;

/// An owner hears of so many outbound numbers at the latest: a small part of the least that a mark is ahead.
const NUMBERS_UNSAID_MAX: u64 = 1 << 20;
/// What changes otherwise is said this often.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// The shadows of one DVIPA.
#[derive(Default)]
pub(super) struct Cache {
    /// Up to where all changes have come.
    position: u64,
    /// What was last acknowledged: up to where, and how many SAs lack room.
    said: Option<(u64, u32)>,
    held: BTreeMap<Spi, Held>,
    peers: BTreeMap<PeerId, BTreeSet<Spi>>,
    snapshot: Option<Snapshot>,
    installing: BTreeSet<(u64, Spi)>,
    /// SAs of which the owner may have to be told.
    busy: BTreeSet<Spi>,
    lacking: BTreeSet<Spi>,
}

/// A snapshot that is under way.
struct Snapshot {
    number: u64,
    seen: BTreeSet<Spi>,
}

/// One shadow.
#[derive(Debug)]
pub(super) struct Held {
    pub birth: u64,
    pub peer: PeerId,
    /// The change by which it is being installed, until it is.
    installing: Option<u64>,
    /// The highest number that was accepted here.
    pub top: u64,
    next_outbound: u64,
    heard_at: Option<Instant>,
    /// What was last reported of these, and when.
    said: (u64, Option<Instant>, Instant),
    /// How much of the lifesize may go unreported.
    percentage: Percentage,
    pub inbound: MemberLedger,
    pub outbound: MemberLedger,
}

impl Cache {
    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn lacking(&self) -> u32 {
        self.lacking.len() as u32
    }

    pub fn get(&self, spi: Spi) -> Option<&Held> {
        self.held.get(&spi)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Spi, &Held)> {
        self.held.iter().map(|(&spi, held)| (spi, held))
    }

    pub fn knows_peer(&self, peer: PeerId) -> bool {
        self.peers.contains_key(&peer)
    }

    /// How far every SA of a peer has come here; those that carried nothing are left out.
    pub fn tops_of(&self, peer: PeerId) -> impl Iterator<Item = Top> + '_ {
        let spis = self.peers.get(&peer).into_iter().flatten();
        let tops = spis.filter_map(|&spi| self.held.get(&spi).map(|held| Top { spi, number: held.top }));
        let tops = tops.filter(|top| top.number > 0);
        #[cfg(phalanx_plant)]
        let tops = tops.take(if ipsec::plant::breaks(ipsec::plant::Rule::Tops) { 1 } else { usize::MAX });
        tops
    }

    /// Everything is void: takes all SAs off the cores, unless they are the owner's own.
    pub fn clear(&mut self, cx: &mut Shared, dvipa: core::net::IpAddr, why: &'static str) {
        for &spi in self.held.keys() {
            cx.actions.push(Action::Remove { child: ChildId { dvipa, spi }, lingers: false, why });
        }
        *self = Cache::default();
    }

    /// Forgets everything, and leaves the cores as they are: the SAs are the owner's, which is this member too.
    pub fn forget(&mut self) {
        *self = Cache::default();
    }

    /// Says again where it stands, to an owner who asks anew.
    pub fn say_again(&mut self) {
        self.said = None;
        for (&spi, held) in &mut self.held {
            held.inbound.say_again();
            held.outbound.say_again();
            self.busy.insert(spi);
        }
    }

    /// Takes numbered changes in.
    pub fn take_deltas(&mut self, cx: &mut Shared, at: &At, first: u64, deltas: Vec<Delta>) -> Result<(), Refused> {
        if self.snapshot.is_some() || first > self.position + 1 {
            return Err(Refused::Gap { expected: self.position + 1, found: first });
        }
        for (number, delta) in (first..).zip(deltas) {
            if number <= self.position {
                continue;
            }
            self.position = number;
            match delta {
                Delta::Born(image) => self.born(cx, at, number, &image)?,
                Delta::Gone(departed) => self.gone(cx, at, departed),
                Delta::Moved(moved) => self.moved(cx, at, moved),
            }
        }
        Ok(())
    }

    pub fn begin_snapshot(&mut self, number: u64) {
        self.snapshot = Some(Snapshot { number, seen: BTreeSet::new() });
    }

    /// Takes a part of a snapshot in. What is here already stays as it is, with its window.
    pub fn take_snapshot(&mut self, cx: &mut Shared, at: &At, sas: &[ShadowImage]) -> Result<(), Refused> {
        let Some(number) = self.snapshot.as_ref().map(|snapshot| snapshot.number) else {
            return Err(Refused::OutOfOrder("a part of a snapshot that has not begun"));
        };
        for image in sas {
            let spi = self.born_as(cx, at, number, image)?;
            if let Some(snapshot) = &mut self.snapshot {
                snapshot.seen.insert(spi);
            }
        }
        Ok(())
    }

    /// The snapshot is whole: what was not in it is gone.
    pub fn end_snapshot(&mut self, cx: &mut Shared, at: &At, number: u64) -> Result<(), Refused> {
        let Some(snapshot) = self.snapshot.take_if(|snapshot| snapshot.number == number) else {
            return Err(Refused::OutOfOrder("the end of a snapshot that has not begun"));
        };
        let stale: Vec<_> = self.held.keys().copied().filter(|spi| !snapshot.seen.contains(spi)).collect();
        for spi in stale {
            self.gone(cx, at, Departed { spi, lingers: false, why: ShortReason::Deleted });
        }
        self.position = number;
        Ok(())
    }

    /// Every core has it, or one has no room.
    pub fn installed(&mut self, spi: Spi, has_room: bool) {
        if let Some(held) = self.held.get_mut(&spi)
            && let Some(number) = held.installing.take()
        {
            self.installing.remove(&(number, spi));
        }
        if !has_room && self.held.contains_key(&spi) {
            self.lacking.insert(spi);
        }
    }

    /// The acknowledgement that is due, if any is.
    pub fn acknowledgement(&mut self) -> Option<Body> {
        let first_missing = self.installing.first().map_or(u64::MAX, |&(number, _)| number);
        let number = self.position.min(first_missing - 1);
        let say = (number, self.lacking());
        if self.said == Some(say) || self.snapshot.is_some() {
            return None;
        }
        self.said = Some(say);
        Some(Body::ShadowsAcknowledged { number, lacking: say.1 })
    }

    /// Takes in what an SA has carried here; whether there is such an SA.
    pub fn used(&mut self, now: Instant, usage: &SaUse) -> bool {
        let Some(held) = self.held.get_mut(&usage.child.spi) else { return false };
        held.top = held.top.max(usage.top);
        held.next_outbound = held.next_outbound.max(usage.next_outbound);
        held.heard_at = held.heard_at.max(usage.heard_ago.and_then(|ago| now.checked_sub(ago)));
        held.inbound.observe(now, Amount::of(usage.inbound));
        held.outbound.observe(now, Amount::of(usage.outbound));
        self.busy.insert(usage.child.spi);
        true
    }

    /// The owner raises what an SA may carry here.
    pub fn granted(&mut self, cx: &mut Shared, at: &At, granted: &Granted) {
        let ceilings =
            if granted.is_inbound { [granted.ceiling, Amount::ZERO] } else { [Amount::ZERO, granted.ceiling] };
        self.raise(cx, at, granted.spi, ceilings);
    }

    fn raise(&mut self, cx: &mut Shared, at: &At, spi: Spi, [inbound, outbound]: [Amount; 2]) {
        let Some(held) = self.held.get_mut(&spi) else { return };
        self.busy.insert(spi);
        let take = |half: &mut MemberLedger, ceiling| {
            let is_told = ceiling != Amount::ZERO;
            is_told && half.handle_ceiling(ceiling).is_some()
        };
        if take(&mut held.inbound, inbound) | take(&mut held.outbound, outbound) {
            cx.actions.push(Action::Ceiling {
                child: at.child(spi),
                inbound: held.inbound.ceiling().pair(),
                outbound: held.outbound.ceiling().pair(),
            });
        }
    }

    /// Gives back what SAs do not need here that have carried nothing for long.
    pub fn return_idle(&mut self, cx: &mut Shared, dvipa: core::net::IpAddr) {
        for &spi in &self.busy {
            let Some(held) = self.held.get_mut(&spi) else { continue };
            let (inbound, outbound) = (held.inbound.poll_return(cx.now), held.outbound.poll_return(cx.now));
            if inbound.or(outbound).is_some() {
                let [inbound, outbound] = [inbound, outbound].map(|part| part.unwrap_or(Amount::ZERO).pair());
                cx.actions.push(Action::Withdraw { child: ChildId { dvipa, spi }, inbound, outbound });
            }
        }
    }

    /// So much of an SA will never be used here.
    pub fn withdrawn(&mut self, spi: Spi, inbound: Amount, outbound: Amount) {
        if let Some(held) = self.held.get_mut(&spi) {
            held.inbound.returned(inbound);
            held.outbound.returned(outbound);
            self.busy.insert(spi);
        }
    }

    /// Where numbers come from here.
    pub fn numbers(&self, cx: &mut Shared, at: &At, list: &[NumbersFrom]) {
        for &NumbersFrom { spi, source } in list.iter().filter(|from| self.held.contains_key(&from.spi)) {
            cx.actions.push(Action::Numbers { child: at.child(spi), source });
        }
    }

    /// How far numbers may go.
    pub fn marks(&self, cx: &mut Shared, at: &At, list: &[Marked]) {
        for &Marked { spi, below } in list.iter().filter(|marked| self.held.contains_key(&marked.spi)) {
            cx.actions.push(Action::Mark { child: at.child(spi), below });
        }
    }

    /// What to send on before all others.
    pub fn prefer(&self, cx: &mut Shared, at: &At, spis: &[Spi]) {
        for &spi in spis.iter().filter(|spi| self.held.contains_key(spi)) {
            cx.actions.push(Action::Prefer(at.child(spi)));
        }
    }

    /// What to send nothing on.
    pub fn quiet(&self, cx: &mut Shared, at: &At, spis: &[Spi]) {
        for &spi in spis.iter().filter(|spi| self.held.contains_key(spi)) {
            cx.actions.push(Action::Quiet(at.child(spi)));
        }
    }

    /// A block of numbers.
    pub fn lease(&self, cx: &mut Shared, at: &At, spi: Spi, first: u64, count: u64) {
        if self.held.contains_key(&spi) {
            cx.actions.push(Action::Lease { child: at.child(spi), first, count });
        }
    }

    /// What the owner is to be told of SAs now.
    pub fn reports(&mut self, now: Instant) -> Vec<Used> {
        let mut reports = Vec::new();
        let held = &mut self.held;
        self.busy.retain(|&spi| {
            let Some(held) = held.get_mut(&spi) else { return false };
            let inbound = held.inbound.poll_report(now, held.percentage);
            let outbound = held.outbound.poll_report(now, held.percentage);
            if inbound.is_some() || outbound.is_some() || held.has_news(now) {
                held.said = (held.next_outbound, held.heard_at, now);
                reports.push(Used {
                    spi,
                    inbound: inbound.unwrap_or_else(|| held.inbound.report()),
                    outbound: outbound.unwrap_or_else(|| held.outbound.report()),
                    top: held.top,
                    next_outbound: held.next_outbound,
                    heard_ago_ms: held.heard_at.map(|at| now.saturating_since(at).as_millis() as u64),
                });
            }
            let is_unsaid = (held.next_outbound, held.heard_at) != (held.said.0, held.said.1);
            is_unsaid || held.inbound.next_timeout().is_some() || held.outbound.next_timeout().is_some()
        });
        reports
    }

    /// Whether something is to be told later though nothing more happens.
    pub fn is_busy(&self) -> bool {
        !self.busy.is_empty()
    }

    fn born(&mut self, cx: &mut Shared, at: &At, number: u64, image: &ShadowImage) -> Result<(), Refused> {
        self.born_as(cx, at, number, image).map(|_| ())
    }

    fn born_as(&mut self, cx: &mut Shared, at: &At, number: u64, image: &ShadowImage) -> Result<Spi, Refused> {
        let sa = decode_shadow(image.sa.expose()).map_err(|_| Refused::BadShadow)?;
        let child = sa.id();
        if child.dvipa != at.dvipa {
            return Err(Refused::BadShadow);
        }
        if self.held.get(&child.spi).is_some_and(|held| held.birth == image.birth) {
            self.raise(cx, at, child.spi, image.ceilings);
            return Ok(child.spi);
        }
        if self.held.contains_key(&child.spi) {
            self.gone(cx, at, Departed { spi: child.spi, lingers: false, why: ShortReason::Deleted });
        }
        self.hold(cx, at, number, image, sa);
        // Before any core has it, so that none finds nothing granted.
        self.raise(cx, at, child.spi, image.ceilings);
        Ok(child.spi)
    }

    fn hold(&mut self, cx: &mut Shared, at: &At, number: u64, image: &ShadowImage, mut sa: ShadowSa) {
        let (spi, peer) = (sa.child.inbound.spi, sa.child.inbound.peer);
        let is_full = self.held.len() >= SHADOWS_MAX;
        // The owner's cores have it already, or will say so by themselves.
        let waits = !is_full && (!at.is_owner || !at.has_installed(spi));
        let installing = waits.then_some(number);
        let ledger = |lifetime: &Lifetime| {
            MemberLedger::new(cx.now, lifetime.bytes, lifetime.packets, Amount::ZERO, MemberTimes::default())
        };
        let held = Held {
            birth: image.birth,
            peer,
            installing,
            top: 0,
            next_outbound: 0,
            heard_at: None,
            said: (0, None, cx.now),
            percentage: Percentage::from_hundredths(image.percentage.hundredths()),
            inbound: ledger(&sa.child.inbound.lifetime),
            outbound: ledger(&sa.child.outbound.lifetime),
        };
        self.held.insert(spi, held);
        self.peers.entry(peer).or_default().insert(spi);
        if waits {
            self.installing.insert((number, spi));
        }
        if is_full {
            self.lacking.insert(spi);
        } else if !at.is_owner {
            bring_up_to_date(&mut sa, image);
            cx.actions.push(Action::Install(Box::new(sa)));
        }
    }

    fn gone(&mut self, cx: &mut Shared, at: &At, departed: Departed) {
        let Some(held) = self.held.remove(&departed.spi) else { return };
        if let Some(number) = held.installing {
            self.installing.remove(&(number, departed.spi));
        }
        self.lacking.remove(&departed.spi);
        if let Some(spis) = self.peers.get_mut(&held.peer) {
            spis.remove(&departed.spi);
            if spis.is_empty() {
                self.peers.remove(&held.peer);
            }
        }
        if !at.is_owner {
            let why = match departed.why {
                ShortReason::Deleted => "the owner has removed it",
                ShortReason::Refused => "its record could not be made",
            };
            cx.actions.push(Action::Remove { child: at.child(departed.spi), lingers: departed.lingers, why });
        }
    }

    fn moved(&mut self, cx: &mut Shared, at: &At, moved: Moved) {
        if at.is_owner {
            return;
        }
        let Moved { peer, remote, spis } = moved;
        let children: Vec<_> = spis.into_iter().filter(|spi| self.held.contains_key(spi)).collect();
        if !children.is_empty() {
            cx.actions.push(Action::MovePeer { peer, dvipa: at.dvipa, remote, children });
        }
    }
}

impl Held {
    /// Whether the owner is to know how far its numbers are, or that its peer lives, though no ledger has a reason.
    fn has_news(&self, now: Instant) -> bool {
        let (number, heard_at, at) = self.said;
        let is_changed = (number, heard_at) != (self.next_outbound, self.heard_at);
        let is_far = self.next_outbound.saturating_sub(number) >= NUMBERS_UNSAID_MAX;
        is_far || (is_changed && now.saturating_since(at) >= SAY_EVERY)
    }
}

/// Of which DVIPA it is, and what the owner's part says if this member is the owner too.
pub(super) struct At<'a> {
    pub dvipa: core::net::IpAddr,
    pub is_owner: bool,
    /// The SAs of the owner's part that stand on all cores.
    pub installed: &'a BTreeSet<Spi>,
}

impl At<'_> {
    fn child(&self, spi: Spi) -> ChildId {
        ChildId { dvipa: self.dvipa, spi }
    }

    fn has_installed(&self, spi: Spi) -> bool {
        self.installed.contains(&spi)
    }
}

/// What has changed since the birth of an SA, for who learns of it late.
fn bring_up_to_date(sa: &mut ShadowSa, image: &ShadowImage) {
    if image.is_preferred && sa.usage == Use::InReserve {
        sa.usage = Use::First;
    }
    let Some(remote) = image.remote.filter(|remote| remote.is_ipv4() == sa.child.inbound.dvipa.is_ipv4()) else {
        return;
    };
    for half in [&mut sa.child.inbound, &mut sa.child.outbound] {
        half.remote = remote.ip();
        if let Encapsulation::Udp { remote_port, .. } = &mut half.encapsulation {
            *remote_port = remote.port();
        }
    }
}
