//! States that differ in nothing that matters, made one.

use crate::model::{Model, hears};
use crate::rules::Rules;
use crate::state::{Frames, LEFT, Owner, Packet, Reports, Seat, State, Target};

impl Model {
    /// The state without what can make no difference any more.
    pub fn tidied(&self, rules: Rules, mut state: State) -> State {
        let has_changed = state.facility.epoch == 2;
        if has_changed {
            let facility = &mut state.facility;
            (facility.sealed, facility.floor, facility.enrolled) = (0, [0; 2], [None; 2]);
            let takes_old = |target: &Target| target.epoch == 1 || target.takes_old_epoch;
            if rules.epoch && !state.targets.iter().any(takes_old) {
                state.owners[0] = Owner::default();
            }
        }
        for target in &mut state.targets {
            if target.epoch == LEFT {
                *target = Target { epoch: LEFT, incarnation: target.incarnation, ..Target::default() };
            }
            if has_changed && target.epoch == 2 {
                target.floor = [0; 2];
            }
        }
        for at in 0..2 {
            if state.facility.epoch > at {
                self.forward_hits(rules, &mut state, at);
            }
        }
        tidy_frames(rules, &mut state);
        let targets = state.targets;
        for (owner, epoch) in state.owners.iter_mut().zip(1..) {
            tidy_owner(rules, owner, epoch, &targets);
        }
        state
    }
}

/// Drops frames that can never be accepted again, and those that another one outdoes.
fn tidy_frames(rules: Rules, state: &mut State) {
    let forgets_marks = !(rules.target_window && rules.incarnation && rules.snapshot_keeps_window);
    let mut kept = Frames::default();
    for frame in state.frames.iter() {
        let target = &state.targets[usize::from(frame.target)];
        let is_old_start = rules.incarnation && frame.incarnation != target.incarnation;
        let is_old_epoch = rules.epoch && frame.epoch < target.epoch && !target.takes_old_epoch;
        let is_old_serial = rules.serial && frame.epoch == target.epoch && frame.serial < target.oldest_serial;
        let is_marked = !forgets_marks && target.window & frame.packet.bit() != 0;
        if !is_old_start && !is_old_epoch && !is_old_serial && !is_marked {
            kept.insert(frame);
        }
    }
    state.frames = kept.without_outdone();
}

fn tidy_owner(rules: Rules, owner: &mut Owner, epoch: u8, targets: &[Target; 2]) {
    for packet in Packet::ALL {
        let sa = 1 << packet.sa();
        let is_below = rules.floor && packet.number() <= owner.floor[packet.sa()];
        if is_below || (owner.sealed | owner.dead) & sa != 0 {
            // Nothing that is a miss is taken any more.
            owner.window &= !packet.bit();
        }
        if owner.dead & sa != 0 {
            owner.floor[packet.sa()] = 0;
        }
    }
    for target in 0..2 {
        let is_named = owner.entries.iter().flatten().any(|entry| entry.target == target);
        if owner.seats[usize::from(target)] == Seat::Absent && !is_named {
            owner.incarnations[usize::from(target)] = 0;
        }
        if !hears(owner, target) {
            owner.reports[usize::from(target)] = Reports::default();
        }
    }
    for (reports, target) in owner.reports.iter_mut().zip(targets) {
        for (freed, batch) in reports.freed.iter_mut().zip(0..) {
            if reports.floored > batch {
                freed.tops = [0; 2];
            }
            let is_heard = target.epoch != epoch || target.oldest_serial > batch;
            if rules.batch_numbers && reports.forgotten > batch && is_heard {
                freed.flow = 0;
            }
        }
    }
}
