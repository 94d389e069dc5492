//! What one core remembers while it chooses targets for new connections.

use core::net::IpAddr;

use arrayvec::ArrayVec;
use ipsec::time::Instant;
use wire::flow::{FlowKey, FlowSeed};

use super::affinity::Affinity;
use super::{LOAD_MAX, Method, PORTS_MAX, PortTable, PortTarget, TARGETS_MAX, Tables};
use crate::id::MemberId;
use crate::member::ServicePort;

/// Why a new connection goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoTarget {
    /// Nobody offers this port of the DVIPA.
    #[error("the port is not offered")]
    NotOffered,
    /// No target is ready for it.
    #[error("no target is ready")]
    NoneReady,
    /// Targets are ready, and the caller excluded each.
    #[error("every target that is ready is excluded")]
    AllExcluded,
}

/// Credits are shares of one connection, in units of 2⁻³²: they mean the same whatever the weights become.
const SHARE_BITS: u32 = 32;

/// What is remembered of a target at a port.
#[derive(Clone, Copy, Debug)]
struct Remembered {
    member: MemberId,
    /// How much of a connection it has been due and has not had; below zero if it had more.
    credit: i64,
    /// The report that `assigned` counts from.
    report: u64,
    /// New connections that this core gave it since.
    assigned: u32,
}

type PortKey = (IpAddr, Option<ServicePort>);

/// Targets that may be chosen: where each stands in the table, and what the table says of it.
type Candidates<'a> = ArrayVec<(usize, &'a PortTarget), TARGETS_MAX>;

/// What is remembered of a port.
#[derive(Debug)]
struct PortState {
    key: PortKey,
    /// As the table's targets, one for one.
    targets: ArrayVec<Remembered, TARGETS_MAX>,
    /// Where the next round begins.
    next: usize,
}

/// The state of one core.
#[derive(Debug)]
pub struct Chooser {
    seed: FlowSeed,
    affinity: Affinity,
    /// Never more than [`PORTS_MAX`]; all room is taken at the start.
    ports: Vec<PortState>,
    /// Places in `ports`, by key.
    order: Vec<u32>,
}

impl Chooser {
    /// A core's fresh state, which remembers the targets of so many sources. All cores of an appliance must have one
    /// `seed`, or they send one source to different targets; a backup that shares it sends them where they went before.
    #[must_use]
    pub fn new(affinity_capacity: usize, seed: FlowSeed) -> Chooser {
        let affinity = Affinity::new(affinity_capacity);
        Chooser { seed, affinity, ports: Vec::with_capacity(PORTS_MAX), order: Vec::with_capacity(PORTS_MAX) }
    }

    /// The target for a new connection on `flow` (client to service) of `dvipa`. Ask once for each: what is chosen counts.
    ///
    /// `exclude` says which targets must not have it, such as one at which another peer has the same 5-tuple, or one
    /// that the fabric no longer holds eligible.
    ///
    /// # Errors
    /// [`NoTarget`], with nothing remembered.
    pub fn choose(
        &mut self,
        tables: &Tables,
        now: Instant,
        dvipa: IpAddr,
        flow: &FlowKey,
        exclude: &dyn Fn(MemberId) -> bool,
    ) -> Result<MemberId, NoTarget> {
        let port = ServicePort { protocol: flow.protocol, port: flow.dst_port };
        let table = tables.port(dvipa, port).ok_or(NoTarget::NotOffered)?;
        let in_order = table.targets.iter().enumerate();
        let ready: Candidates<'_> = in_order.filter(|(_, target)| target.is_ready).collect();
        if ready.is_empty() {
            return Err(NoTarget::NoneReady);
        }
        let candidates: Candidates<'_> = ready.iter().copied().filter(|(_, target)| !exclude(target.member)).collect();
        if candidates.is_empty() {
            return Err(NoTarget::AllExcluded);
        }
        let local = at_member(&candidates, tables.me).filter(|_| table.is_local_first);
        let bound = local.or_else(|| {
            let source = Source { seed: &self.seed, address: flow.src, dvipa, port: table.port };
            self.affinity.by_source(table, now, &source, &ready, &candidates)
        });
        let state = self.state_of(tables, (dvipa, table.port)).ok_or(NoTarget::NotOffered)?;
        state.follow(&table.targets);
        let at = bound.or_else(|| state.by_method(table, &candidates)).ok_or(NoTarget::NoneReady)?;
        let chosen = &mut state.targets[at];
        chosen.assigned = chosen.assigned.saturating_add(1);
        Ok(chosen.member)
    }

    /// What is remembered of a port of `tables`. Where there is no room left, ports that are not in them make room.
    fn state_of(&mut self, tables: &Tables, key: PortKey) -> Option<&mut PortState> {
        let known = match self.search(&key) {
            Ok(known) => known,
            Err(_) => {
                if self.ports.len() == PORTS_MAX {
                    self.ports.retain(|state| tables.exactly(state.key.0, state.key.1).is_some());
                    self.order.clear();
                    self.order.extend(0..self.ports.len() as u32);
                    self.order.sort_unstable_by_key(|at| self.ports[*at as usize].key);
                }
                let place = self.search(&key).unwrap_or_else(|place| place);
                self.order.insert(place, self.ports.len() as u32);
                self.ports.push(PortState { key, targets: ArrayVec::new(), next: 0 });
                place
            }
        };
        self.ports.get_mut(self.order[known] as usize)
    }

    fn search(&self, key: &PortKey) -> Result<usize, usize> {
        self.order.binary_search_by_key(key, |at| self.ports[*at as usize].key)
    }

    #[cfg(test)]
    pub(super) fn state_count(&self) -> usize {
        self.ports.len().max(self.order.len())
    }
}

impl Affinity {
    /// Where the target stands that a source keeps, or that every core would give it; `None` if that is not asked for.
    fn by_source(
        &mut self,
        table: &PortTable,
        now: Instant,
        source: &Source<'_>,
        ready: &Candidates<'_>,
        candidates: &Candidates<'_>,
    ) -> Option<usize> {
        let timeout = table.affinity?;
        let is_weighted = match table.method {
            // There is one for all sources anyway.
            Method::HotStandby { .. } => return None,
            Method::RoundRobin => false,
            Method::Weighted | Method::WeightedActive | Method::LoadBased => true,
        };
        let name = source.name();
        let kept = self.target_of(now, name).and_then(|member| at_member(ready, member));
        let home = kept.or_else(|| source.first_choice(ready, is_weighted))?;
        if candidates.iter().any(|(at, _)| *at == home) {
            self.remember(now, name, table.targets[home].member, timeout);
            return Some(home);
        }
        // One connection goes elsewhere, as another core would send it; the next ones are to come home again.
        source.first_choice(candidates, is_weighted)
    }
}

/// A source at a port.
struct Source<'a> {
    seed: &'a FlowSeed,
    address: IpAddr,
    dvipa: IpAddr,
    port: Option<ServicePort>,
}

impl Source<'_> {
    /// A keyed hash of the source and what it is at.
    fn name(&self) -> u64 {
        self.hash(MemberId(u16::MAX))
    }

    /// Where the target stands that this source prefers: each has a share of all sources, and a target that comes or goes
    /// moves only the sources that it gains or loses (weighted rendezvous hashing).
    fn first_choice(&self, among: &Candidates<'_>, is_weighted: bool) -> Option<usize> {
        let distance = |target: &PortTarget| {
            let weight = if is_weighted { target.weight.get() } else { 1 };
            // Strictly between 0 and 1, each of 2^53 steps as likely.
            let uniform = ((self.hash(target.member) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            -uniform.ln() / f64::from(weight)
        };
        let nearest = among.iter().min_by(|(_, one), (_, other)| {
            distance(one).total_cmp(&distance(other)).then(one.member.cmp(&other.member))
        });
        nearest.map(|(at, _)| *at)
    }

    /// The flow hash is the one keyed hash that there is; what is hashed here has the form of a flow.
    fn hash(&self, with: MemberId) -> u64 {
        let port = self.port.unwrap_or(ServicePort { protocol: 0, port: 0 });
        let flow = FlowKey {
            src: self.address,
            dst: self.dvipa,
            protocol: port.protocol,
            src_port: with.0,
            dst_port: port.port,
        };
        flow.symmetric_hash(self.seed)
    }
}

impl PortState {
    /// Brings what is remembered level with a table that may have changed.
    fn follow(&mut self, targets: &[PortTarget]) {
        let is_level = self.targets.len() == targets.len()
            && self.targets.iter().zip(targets).all(|(known, target)| known.member == target.member);
        if !is_level {
            let known = core::mem::take(&mut self.targets);
            let of = |member| known.iter().find(|known| known.member == member).copied();
            let fresh = |target: &PortTarget| Remembered {
                member: target.member,
                credit: 0,
                report: target.report,
                assigned: 0,
            };
            self.targets = targets.iter().map(|target| of(target.member).unwrap_or_else(|| fresh(target))).collect();
        }
        for (known, target) in self.targets.iter_mut().zip(targets) {
            if known.report != target.report {
                (known.report, known.assigned) = (target.report, 0);
            }
        }
    }

    /// Where the target stands that the table's method chooses.
    fn by_method(&mut self, table: &PortTable, candidates: &Candidates<'_>) -> Option<usize> {
        match table.method {
            Method::RoundRobin => {
                let chosen = self.in_turn(candidates).next().map(|(at, _)| *at);
                self.begin_after(chosen)
            }
            Method::Weighted => self.due(candidates, |target| u64::from(target.weight.get())),
            Method::WeightedActive => {
                let least = self.in_turn(candidates).min_by(|(one, at_one), (other, at_other)| {
                    let one = self.connections_with_one_more(*one, at_one) * u64::from(at_other.weight.get());
                    let other = self.connections_with_one_more(*other, at_other) * u64::from(at_one.weight.get());
                    one.cmp(&other)
                });
                let chosen = least.map(|(at, _)| *at);
                self.begin_after(chosen)
            }
            Method::LoadBased => {
                let free = |target: &PortTarget| u64::from(LOAD_MAX.saturating_sub(target.load));
                let is_any_free = candidates.iter().any(|(_, target)| free(target) > 0);
                // All are at their end: then all the same.
                let free = |target: &PortTarget| if is_any_free { free(target) } else { 1 };
                self.due(candidates, |target| u64::from(target.weight.get()) * free(target))
            }
            Method::HotStandby { .. } => {
                let hot = table.hot.and_then(|member| at_member(candidates, member));
                hot.or_else(|| candidates.first().map(|(at, _)| *at))
            }
        }
    }

    /// The candidates, beginning where the last round ended: so that equals take turns.
    fn in_turn<'a, 'b>(&self, candidates: &'b Candidates<'a>) -> impl Iterator<Item = &'b (usize, &'a PortTarget)> {
        let begin = candidates.iter().position(|(at, _)| *at >= self.next).unwrap_or(0);
        candidates[begin..].iter().chain(&candidates[..begin])
    }

    fn begin_after(&mut self, chosen: Option<usize>) -> Option<usize> {
        self.next = chosen? + 1;
        chosen
    }

    fn connections_with_one_more(&self, at: usize, target: &PortTarget) -> u64 {
        u64::from(target.active) + u64::from(self.targets[at].assigned) + 1
    }

    /// Smooth weighted round robin: each connection is credited to all by their shares and taken by whoever is owed most.
    fn due(&mut self, candidates: &Candidates<'_>, weight: impl Fn(&PortTarget) -> u64) -> Option<usize> {
        let total: u64 = candidates.iter().map(|(_, target)| weight(target)).sum();
        let mut credited = 0;
        for (at, target) in candidates {
            let share = ((weight(target) << SHARE_BITS) / total.max(1)) as i64;
            self.targets[*at].credit += share;
            credited += share;
        }
        let may = candidates.iter().filter(|(_, target)| weight(target) > 0);
        // Of equals the first: `max_by_key` would take the last.
        let (chosen, _) = *may.min_by_key(|(at, _)| core::cmp::Reverse(self.targets[*at].credit))?;
        self.targets[chosen].credit -= credited;
        Some(chosen)
    }
}

fn at_member(among: &Candidates<'_>, member: MemberId) -> Option<usize> {
    among.iter().find(|(_, target)| target.member == member).map(|(at, _)| *at)
}
