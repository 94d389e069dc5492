//! What can happen next: freeings, losses, drains, and the change of the owner.

use crate::model::{Emit, hears};
use crate::rules::Rules;
use crate::state::{Connection, Entry, LEFT, Owner, Reports, Seat, State, raise, tops};
use crate::steps::Step;

/// What an owner does with a report: floors, entries, serial, and only then the acknowledgement.
pub fn freeing(rules: Rules, state: &State, at: u8, target: u8, emit: &mut Emit<'_>) {
    let owner = &state.owners[usize::from(at)];
    if !hears(owner, target) {
        return;
    }
    let reports = &owner.reports[usize::from(target)];
    let changed = |change: &dyn Fn(&mut Owner, &mut Reports)| {
        let mut after = *state;
        let owner = &mut after.owners[usize::from(at)];
        let mut reports = owner.reports[usize::from(target)];
        change(owner, &mut reports);
        owner.reports[usize::from(target)] = reports;
        Some(after)
    };
    let forget = |owner: &mut Owner, batch: u8| {
        let entry = &mut owner.entries[usize::from(reports.freed[usize::from(batch)].flow)];
        if entry.is_some_and(|entry| entry.target == target || !rules.forget_guard) {
            *entry = None;
        }
    };
    if reports.floored < reports.sent {
        let after = changed(&|owner, reports| {
            raise(&mut owner.floor, reports.freed[usize::from(reports.floored)].tops);
            reports.floored += 1;
        });
        emit(Step::RaiseFloors { owner: at, target }, after);
    }
    let may_forget = if rules.floor_before_forget { reports.floored } else { reports.sent };
    if reports.forgotten < may_forget {
        let after = changed(&|owner, reports| {
            forget(owner, reports.forgotten);
            reports.forgotten += 1;
        });
        emit(Step::Forget { owner: at, target }, after);
    }
    let may_raise = if rules.forget_before_serial { reports.forgotten } else { reports.sent };
    if reports.serial < may_raise {
        emit(Step::RaiseSerial { owner: at, target }, changed(&|_, reports| reports.serial += 1));
    }
    if !rules.batch_numbers {
        for batch in 0..reports.forgotten {
            emit(Step::TakeReportAgain { owner: at, target, batch }, changed(&|owner, _| forget(owner, batch)));
        }
    }
}

pub fn acknowledge(state: &State, at: u8, emit: &mut Emit<'_>) {
    let mut after = *state;
    let target = &mut after.targets[usize::from(at)];
    let owner = &state.owners[usize::from(target.epoch) - 1];
    let reports = &owner.reports[usize::from(at)];
    let acknowledged = reports.serial.min(reports.forgotten).min(reports.floored);
    if owner.incarnations[usize::from(at)] != target.incarnation || target.oldest_serial >= acknowledged {
        return;
    }
    let freed = reports.freed[usize::from(target.oldest_serial)];
    target.oldest_serial += 1;
    let connection = &mut target.connections[usize::from(freed.flow)];
    if *connection == Connection::Tomb {
        *connection = Connection::None;
    }
    emit(Step::Acknowledge { target: at }, Some(after));
}

/// A target is believed lost, and a new start of it comes back.
pub fn loss(rules: Rules, state: &State, at: u8, target: u8, emit: &mut Emit<'_>) {
    let (owner_at, target_at) = (usize::from(at), usize::from(target));
    let is_owner_in_cf = state.facility.epoch == at + 1;
    let is_unheard = state.owners[owner_at].unheard >> target & 1 != 0;
    if is_unheard {
        let mut after = *state;
        after.owners[owner_at].unheard &= !(1 << target);
        emit(Step::CoresHear { owner: at, target }, Some(after));
    }
    let mut after = *state;
    let (owner, facility) = (&mut after.owners[owner_at], &mut after.facility);
    match owner.seats[target_at] {
        Seat::Member | Seat::Draining if state.left.losses > 0 => {
            after.left.losses -= 1;
            owner.seats[target_at] = Seat::Suspended;
            owner.unheard |= 1 << target;
            emit(Step::Suspend { owner: at, target }, Some(after));
        }
        Seat::Suspended if is_unheard && rules.suspension_heard => {}
        Seat::Suspended if is_owner_in_cf || !rules.loss_recorded => {
            owner.seats[target_at] = Seat::Recorded;
            owner.to_seal = if rules.seal { owner.known & !owner.sealed } else { 0 };
            if rules.loss_recorded {
                facility.enrolled[target_at] = None;
                facility.sealed |= facility.born;
            }
            emit(Step::RecordLoss { owner: at, target }, Some(after));
        }
        Seat::Recorded if owner.to_seal == 0 || !rules.seal_before_replacing => {
            owner.seats[target_at] = Seat::Absent;
            emit(Step::Replace { owner: at, target }, Some(after));
        }
        Seat::Absent if is_owner_in_cf && !is_unheard && state.targets[target_at].epoch == 0 => {
            let incarnation = state.targets[target_at].incarnation;
            owner.seats[target_at] = Seat::Member;
            owner.incarnations[target_at] = incarnation;
            owner.reports[target_at] = Reports::default();
            facility.enrolled[target_at] = Some(incarnation);
            after.targets[target_at].epoch = at + 1;
            emit(Step::Enrol { owner: at, target }, Some(after));
        }
        Seat::Member | Seat::Draining | Seat::Suspended | Seat::Recorded | Seat::Absent | Seat::Unanswered => {}
    }
}

/// A target that is to leave has no connection left, and no freeing that is not acknowledged.
pub fn drain(rules: Rules, state: &State, at: u8, target: u8, emit: &mut Emit<'_>) {
    let (owner_at, target_at) = (usize::from(at), usize::from(target));
    let mut after = *state;
    let owner = &mut after.owners[owner_at];
    match owner.seats[target_at] {
        Seat::Member if state.left.drains > 0 => {
            after.left.drains -= 1;
            owner.seats[target_at] = Seat::Draining;
            emit(Step::Drain { owner: at, target }, Some(after));
        }
        Seat::Draining if state.facility.epoch == at + 1 => {
            let leaving = &mut after.targets[target_at];
            let has_entries = owner.entries.iter().flatten().any(|entry| entry.target == target);
            let is_mine = leaving.epoch == at + 1 && leaving.incarnation == owner.incarnations[target_at];
            let is_level = leaving.oldest_serial == owner.reports[target_at].sent;
            let is_empty = leaving.connections == [Connection::None; 2];
            if has_entries || !is_mine || !is_level || !is_empty {
                return;
            }
            owner.seats[target_at] = Seat::Absent;
            after.facility.enrolled[target_at] = None;
            if rules.drained_recorded {
                raise(&mut after.facility.floor, tops(leaving.window));
                raise(&mut after.facility.floor, leaving.floor);
            }
            leaving.epoch = LEFT;
            emit(Step::Leave { owner: at, target }, Some(after));
        }
        Seat::Member | Seat::Draining | Seat::Absent | Seat::Unanswered | Seat::Suspended | Seat::Recorded => {}
    }
}

/// The second owner claims, hears the targets, or waits no longer for one.
pub fn takeover(rules: Rules, state: &State, emit: &mut Emit<'_>) {
    if state.facility.epoch == 1 {
        let mut after = *state;
        after.facility.epoch = 2;
        let facility = after.facility;
        let owner = &mut after.owners[1];
        owner.known = facility.born;
        owner.born_before_claim = facility.born;
        if rules.sealed_serve_nothing {
            owner.dead = facility.sealed;
        } else {
            owner.sealed = facility.sealed;
        }
        owner.floor = facility.floor;
        for (target, enrolled) in facility.enrolled.into_iter().enumerate() {
            owner.seats[target] = if enrolled.is_some() { Seat::Unanswered } else { Seat::Absent };
            owner.incarnations[target] = enrolled.unwrap_or(0);
        }
        emit(Step::Claim, Some(after));
        return;
    }
    for at in 0..2_u8 {
        let target = usize::from(at);
        if state.owners[1].seats[target] != Seat::Unanswered {
            continue;
        }
        let mut after = *state;
        let owner = &mut after.owners[1];
        owner.seats[target] = Seat::Absent;
        owner.dead |= if rules.seal { owner.born_before_claim } else { 0 };
        emit(Step::GiveUp { target: at }, Some(after));
        let found = &state.targets[target];
        let is_it = found.incarnation == state.owners[1].incarnations[target];
        if is_it && (found.epoch == 1 || found.epoch == 0 && !rules.enrolment) {
            emit(Step::Answer { target: at }, Some(answered(rules, *state, at)));
        }
    }
}

fn answered(rules: Rules, mut state: State, at: u8) -> State {
    let (owner, target) = (&mut state.owners[1], &mut state.targets[usize::from(at)]);
    owner.seats[usize::from(at)] = Seat::Member;
    if rules.tops_at_change {
        raise(&mut owner.floor, tops(target.window));
        raise(&mut owner.floor, target.floor);
    }
    (target.epoch, target.oldest_serial, target.takes_old_epoch) = (2, 0, !rules.epoch_heard);
    for (connection, entry) in target.connections.iter_mut().zip(&mut owner.entries) {
        match connection {
            Connection::Live(_) => {
                let incarnation = target.incarnation;
                *entry = entry.or(Some(Entry { target: at, incarnation, too_young_for: 0 }));
            }
            // No frame of the old epoch is taken any more, so nothing is left to be refused.
            Connection::Tomb | Connection::None => *connection = Connection::None,
        }
    }
    state
}
