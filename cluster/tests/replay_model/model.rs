//! What can happen next: packets, frames, and what targets do.

use crate::membership::{acknowledge, drain, freeing, loss, takeover};
use crate::rules::Rules;
use crate::state::{Connection, Entry, FREEINGS_MAX, Frame, Freed, Left, Owner, Packet, Seat, State, Target, tops};
use crate::steps::Step;

/// Which connection a packet belongs to, and what may happen at all: bounds that keep the states few.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// By packet.
    pub flows: [u8; 4],
    /// How often a target may be believed lost, rightly or not.
    pub losses: u8,
    /// How often a target may restart.
    pub restarts: u8,
    /// How often a target may be drained.
    pub drains: u8,
    /// The owner may change.
    pub takeover: bool,
    /// The distributor authenticates every packet, and forwards plain ones.
    pub distributor_processes: bool,
    /// Both SAs are there from the start; else the second is born when it is.
    pub both_born: bool,
    /// How often a connection may be stopped.
    pub freeings: u8,
    /// Targets are asked for connections, and stop those that they do not have.
    pub verifies: bool,
}

/// Told of each step and of the state after it; of none if a packet is delivered a second time.
pub type Emit<'a> = dyn FnMut(Step, Option<State>) + 'a;

impl Model {
    /// Where it begins.
    pub fn start(&self) -> State {
        let mut state = State::start();
        state.left =
            Left { losses: self.losses, restarts: self.restarts, drains: self.drains, freeings: self.freeings };
        if self.both_born {
            (state.facility.born, state.owners[0].known) = (3, 3);
        }
        state
    }

    /// Everything that can happen in `state`.
    pub fn steps(&self, rules: Rules, state: &State, emit: &mut Emit<'_>) {
        for frame in state.frames.iter() {
            self.frame(rules, state, frame, emit);
        }
        for at in 0..2 {
            if state.facility.epoch > at {
                self.owner(rules, state, at, emit);
            }
            self.target(rules, state, at, emit);
        }
        if self.takeover {
            takeover(rules, state, emit);
        }
    }

    fn flow(&self, packet: Packet) -> usize {
        usize::from(self.flows[usize::from(packet.0)])
    }

    /// The target's half: DESIGN §4, "a target accepts only …".
    fn frame(&self, rules: Rules, state: &State, frame: Frame, emit: &mut Emit<'_>) {
        let mut after = *state;
        let target = &mut after.targets[usize::from(frame.target)];
        if !accepts(rules, target, frame) || rules.target_window && target.window & frame.packet.bit() != 0 {
            return;
        }
        let flow = self.flow(frame.packet);
        if target.connections[flow] == Connection::Tomb {
            return;
        }
        target.window |= frame.packet.bit();
        let last_sa = if rules.all_tops { 0 } else { frame.packet.sa() as u8 };
        target.connections[flow] = Connection::Live(last_sa);
        if rules.remembered_floor {
            let floor = &mut target.floor[frame.packet.sa()];
            *floor = (*floor).max(frame.floor);
        }
        let is_first = after.delivered & frame.packet.bit() == 0;
        after.delivered |= frame.packet.bit();
        emit(Step::Frame(frame), is_first.then_some(after));
    }

    fn owner(&self, rules: Rules, state: &State, at: u8, emit: &mut Emit<'_>) {
        for packet in Packet::ALL {
            self.authenticated(rules, state, at, packet, emit);
        }
        let owner = &state.owners[usize::from(at)];
        let is_owner_in_cf = state.facility.epoch == at + 1;
        for flow in 0..2 {
            let Some(entry) = owner.entries[usize::from(flow)] else { continue };
            if is_lost(rules, owner, entry) {
                let mut after = *state;
                after.owners[usize::from(at)].entries[usize::from(flow)] = None;
                emit(Step::LostEntryGoes { owner: at, flow }, Some(after));
            }
        }
        for target in 0..2 {
            freeing(rules, state, at, target, emit);
            loss(rules, state, at, target, emit);
            drain(rules, state, at, target, emit);
        }
        if owner.to_seal != 0 {
            let mut after = *state;
            let owner = &mut after.owners[usize::from(at)];
            let sa = owner.to_seal.trailing_zeros() as u8;
            owner.to_seal &= !(1 << sa);
            owner.sealed |= 1 << sa;
            emit(Step::Seal { owner: at, sa }, Some(after));
        }
        if is_owner_in_cf && state.facility.born & 2 == 0 {
            let mut after = *state;
            after.facility.born |= 2;
            after.owners[usize::from(at)].known |= 2;
            emit(Step::Birth { owner: at }, Some(after));
        }
    }

    /// The owner's half for what it authenticates: marked, and an entry is made where there is none.
    fn authenticated(&self, rules: Rules, state: &State, at: u8, packet: Packet, emit: &mut Emit<'_>) {
        let owner = &state.owners[usize::from(at)];
        let sa = 1 << packet.sa();
        let flow = self.flow(packet);
        let is_settling = owner.seats.contains(&Seat::Unanswered);
        let is_above = !rules.floor || packet.number() > owner.floor[packet.sa()];
        let is_marked = rules.owner_window && owner.window & packet.bit() != 0;
        if owner.known & !owner.dead & sa == 0 || !is_above || is_marked {
            return;
        }
        let mut marked = *state;
        marked.owners[usize::from(at)].window |= packet.bit();
        if let Some(entry) = owner.entries[flow] {
            let is_sealed = owner.sealed & entry.too_young_for & sa != 0;
            let is_held = is_settling && rules.settling_hits || is_sealed || is_lost(rules, owner, entry);
            if self.distributor_processes && sends(owner, entry.target) && !is_held {
                send(rules, &mut marked, at, entry.target, packet);
                emit(Step::Hit { owner: at, packet }, Some(marked));
            }
            return;
        }
        if is_settling && rules.settling || owner.sealed & sa != 0 {
            return;
        }
        for target in 0..2 {
            let is_member = owner.seats[usize::from(target)] == Seat::Member;
            if is_member || owner.unheard >> target & 1 != 0 {
                let mut after = marked;
                let owner = &mut after.owners[usize::from(at)];
                let incarnation = owner.incarnations[usize::from(target)];
                owner.entries[flow] = Some(Entry { target, incarnation, too_young_for: owner.sealed });
                send(rules, &mut after, at, target, packet);
                emit(Step::Miss { owner: at, packet, target }, Some(after));
            }
        }
    }

    /// The owner's half for hits that nobody authenticates. The attacker may send any packet again at any time, and a hit changes nothing but that
    /// one more frame is on the wire, which nobody need ever receive: so every hit that is possible is made at once.
    pub fn forward_hits(&self, rules: Rules, state: &mut State, at: u8) {
        let owner = state.owners[usize::from(at)];
        let is_settling = rules.settling_hits && owner.seats.contains(&Seat::Unanswered);
        if is_settling || self.distributor_processes {
            return;
        }
        for packet in Packet::ALL {
            let sa = 1 << packet.sa();
            let Some(entry) = owner.entries[self.flow(packet)] else { continue };
            let is_served = owner.known & !owner.dead & !(owner.sealed & entry.too_young_for) & sa != 0;
            if sends(&owner, entry.target) && is_served && !is_lost(rules, &owner, entry) {
                send(rules, state, at, entry.target, packet);
            }
        }
    }

    fn target(&self, rules: Rules, state: &State, at: u8, emit: &mut Emit<'_>) {
        let target = &state.targets[usize::from(at)];
        if let 1..=2 = target.epoch {
            self.stop(rules, state, at, emit);
            acknowledge(state, at, emit);
        }
        if state.left.restarts > 0 && target.incarnation == 0 {
            let mut after = *state;
            after.left.restarts -= 1;
            after.targets[usize::from(at)] = Target { incarnation: 1, ..Target::default() };
            if !rules.enrolment && after.facility.enrolled[usize::from(at)].is_some() {
                after.facility.enrolled[usize::from(at)] = Some(1);
            }
            emit(Step::Restart { target: at }, Some(after));
        }
        if target.takes_old_epoch {
            let mut after = *state;
            after.targets[usize::from(at)].takes_old_epoch = false;
            emit(Step::TargetsCoresHear { target: at }, Some(after));
        }
        if !rules.snapshot_keeps_window && target.window != 0 {
            let mut after = *state;
            after.targets[usize::from(at)].window = 0;
            emit(Step::Snapshot { target: at }, Some(after));
        }
    }

    /// A connection expires; or the owner asks for one that is not there, which then must not come to be either.
    fn stop(&self, rules: Rules, state: &State, at: u8, emit: &mut Emit<'_>) {
        for flow in 0..2_u8 {
            if !self.flows.contains(&flow) {
                continue;
            }
            let mut after = *state;
            let target = &mut after.targets[usize::from(at)];
            let owner = &mut after.owners[usize::from(target.epoch) - 1];
            if !hears(owner, at) {
                return;
            }
            let reports = &mut owner.reports[usize::from(at)];
            let mut reported = tops(target.window);
            match target.connections[usize::from(flow)] {
                Connection::Tomb => continue,
                Connection::None if !self.verifies => continue,
                Connection::Live(last_sa) if !rules.all_tops => reported[1 - usize::from(last_sa)] = 0,
                Connection::Live(_) | Connection::None => {}
            }
            if state.left.freeings == 0 || usize::from(reports.sent) == FREEINGS_MAX {
                continue;
            }
            after.left.freeings -= 1;
            target.connections[usize::from(flow)] = if rules.tomb { Connection::Tomb } else { Connection::None };
            reports.freed[usize::from(reports.sent)] = Freed { flow, tops: reported };
            reports.sent += 1;
            emit(Step::Stop { target: at, flow }, Some(after));
        }
    }
}

/// The rules of `cluster::frame::accept`, and the carried floor.
pub fn accepts(rules: Rules, target: &Target, frame: Frame) -> bool {
    let is_of_epoch = target.epoch == frame.epoch || target.takes_old_epoch && frame.epoch == 1;
    let is_of_epoch = is_of_epoch || !rules.epoch && matches!(target.epoch, 1 | 2);
    let is_mine = target.incarnation == frame.incarnation || !rules.incarnation;
    let is_known = frame.serial >= target.oldest_serial || !rules.serial;
    let is_above = frame.packet.number() > frame.floor || !(rules.floor && rules.carried_floor);
    is_of_epoch && is_mine && is_known && is_above
}

/// Whether the connection of an entry is gone with its target, so that the entry may go.
fn is_lost(rules: Rules, owner: &Owner, entry: Entry) -> bool {
    let at = usize::from(entry.target);
    if owner.unheard >> entry.target & 1 != 0 {
        return false;
    }
    match owner.seats[at] {
        Seat::Absent => true,
        Seat::Suspended | Seat::Recorded => !rules.seal_before_replacing,
        Seat::Unanswered | Seat::Member | Seat::Draining => owner.incarnations[at] != entry.incarnation,
    }
}

/// Whether what a target reports is listened to.
pub fn hears(owner: &Owner, target: u8) -> bool {
    matches!(owner.seats[usize::from(target)], Seat::Member | Seat::Draining | Seat::Suspended)
}

/// Whether an owner's cores send to a target.
fn sends(owner: &Owner, target: u8) -> bool {
    let seat = owner.seats[usize::from(target)];
    matches!(seat, Seat::Member | Seat::Draining) || owner.unheard >> target & 1 != 0
}

fn send(rules: Rules, state: &mut State, at: u8, target: u8, packet: Packet) {
    let owner = &state.owners[usize::from(at)];
    let floor = if rules.floor && rules.carried_floor { owner.floor[packet.sa()] } else { 0 };
    if floor >= packet.number() {
        return;
    }
    let serial = owner.reports[usize::from(target)].serial;
    let incarnation = owner.incarnations[usize::from(target)];
    state.frames.insert(Frame { packet, target, incarnation, epoch: at + 1, serial, floor });
}
