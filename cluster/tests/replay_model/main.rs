//! The replay rules of the cluster as a small exhaustive model (DESIGN §4): every state that two owners, two targets and
//! two SAs of two numbers can reach is looked at, and in none is a packet delivered twice.
//!
//! **What is modelled.** One owner, and a second one that claims the address while the first may go on as if nothing were.
//! The attacker has every packet, may send it to either owner at any time, and frames that were once sent arrive at any
//! time, any number of times, or never. Connections expire; targets are believed lost, rightly or not, restart, come
//! back and are drained; a new owner hears targets or gives them up. Each step of the owner (raise floors, forget,
//! raise the serial; suspend, tell every core, record, seal each SA, let entries go) is one of its own, so that anything
//! may come between two of them.
//!
//! **What is not.** Time; a CF that forgets; windows that slide; a crash that is not followed by a restart, which is the
//! same as a member that does nothing more. A member's report is heard in the moment that it is made, or never.
//!
//! **Where the code does what is assumed here.** Each step below is one step only because of what stands on its right.
//!
//! | assumed | met by |
//! |---|---|
//! | a frame is accepted and its number marked in one moment, also with several cores | `datapath::cluster::trusted`: what is in the packet names the core that judges it and has the window (a peek at the ciphertext; the headers of a plain packet), so a copy comes to the same one, on whatever queue. `frame::accept` and `open_carried`, or `InboundSa::take` for plain packets, run there without a pause. Transport mode: `InboundSa::admits` takes the peer's own address only |
//! | nothing happens between the mark and the delivery | fragments and ICMP errors go on to another core: `deliver_handed_over` asks there for epoch, incarnation and serial once more, and tombs are asked where connections are |
//! | `Stop` reports the tops of all SAs as of the stop | a core makes the tomb before it tells (`connections::tombs`), the control core reads the counters of all cores after it heard (`cluster::reports::tell_stopped`), all SAs of the peer go into one batch (`member::stopped`); counters are written before a packet is handed over. Later tops are higher, and do no harm |
//! | a connection that is not there becomes a tomb when it is asked for (`verifies`) | `Connections::verify`, on the core of the connection: what is still in a ring to that core finds the tomb |
//! | floors, entries, serial, acknowledgement, in this order, and each for all cores | `member::freeing`: `RaiseFloor` is one atomic write, `Forget` and the fabric with the serial are commands in this order, and `Action::Await` answers when every core has executed them. A miss that makes an entry between two cores' turns is above the floor; until the acknowledgement the tomb refuses its frames, and the batch is not carried out twice |
//! | an entry is forgotten only for who has it | `Vcrt::forget_of` |
//! | frames of the last serial are refused before the tomb goes | `member::stopped::acknowledged`: `Bury` comes after the fabric, on each core |
//! | `CoresHear` before `RecordLoss`, and the seal covers what was born by then | `member::loss`: `lose` waits by `Action::Await`, `suspended` reads the last birth; SAs whose births are being recorded count |
//! | a suspended target's entries stay until all seals are set | `fabric_targets`: `Losing` stays in the fabric, with `is_member: false`; `loss_recorded` seals (atomic writes) before the fabric without the target is told |
//! | a seal divides entries into older and younger | `Part::fabric_at`: an entry is never older than the fabric that it comes of, whose maker set the seals first |
//! | a lost start never comes back; one that is given up by a new owner neither | `AdmitTarget` compares with the loss record; `Owner::given_up` while that is being written |
//! | frames go to a start only when it is recorded (`Enrol`) | `Standing::Admitting` is not in the fabric |
//! | `Leave` finds no entry, no freeing that is under way | `member::drain::let_go`: a count that began after every core had heard of the draining (`control_core::cluster::census`), and no ticket |
//! | `Answer`: no core takes the old epoch any more, and the tops are final | `Dvipa::begin_epoch` waits by `Action::Await` with the tops, `epoch_heard` reports and acknowledges |
//! | a new owner sends nothing before it has heard everybody | `is_settling`, in `DataCore::standing`: hits too; and while its own cores may hold SAs of the epoch before |
//! | a restart that nobody noticed forgets windows | another incarnation (`facility::start`): frames for the one before are refused by every core from its first fabric on; the owner hears of it with the session, or by silence |
//! | a snapshot keeps windows | `Cache::born_as`: an SA that is there is left as it is; SPIs are told apart by birth |
//!
//! Today an owner voids all SAs of the epoch before, so `Answer` has nothing to hand over yet.
//!
//! **What it says.** The rules together let no packet through twice: not in the 5.3 million states that each run of the
//! tests looks at, nor in the 8.6 million of the search that is run by hand. Left out alone, each rule of
//! [`rules::Rules`] lets one through, in a trace that its test prints (`--nocapture`); but for two that stand behind
//! others, see `second_lines_hold_nothing_that_is_not_held_already`.

#![allow(clippy::panic, clippy::unwrap_used)] // a failed expectation is the point

mod membership;
mod model;
mod rules;
mod search;
mod state;
mod steps;
mod tidy;

use cluster::fabric::{Encapsulation, Fabric, FabricDvipa, FabricMember, Processing, Protection};
use cluster::frame::{Kind, Repr};
use cluster::id::{Epoch, Incarnation, MemberId, Serial};
use model::Model;
use rules::Rules;
use search::{Found, search};
use state::{Frame, Packet, Target};
use steps::Step;

/// One connection with packets under both SAs, two freeings, and nothing else that goes wrong.
const QUIET: Model = Model {
    flows: [0; 4],
    losses: 0,
    restarts: 0,
    drains: 0,
    takeover: false,
    distributor_processes: false,
    both_born: true,
    freeings: 2,
    verifies: false,
};

const WITH_TAKEOVER: Model = Model { takeover: true, ..QUIET };
const WITH_LOSS: Model = Model { losses: 1, restarts: 1, ..QUIET };
const WITH_LOSS_AND_TAKEOVER: Model = Model { takeover: true, ..WITH_LOSS };

fn finds_nothing(name: &str, model: Model) {
    match search(Rules::ALL, model) {
        Found::Nothing { states } => println!("{name}: no replay in {states} states"),
        Found::Replay { states, trace } => panic!("{name}: a replay after {states} states\n{}", told(&trace)),
    }
}

fn finds_a_replay(without: &str, model: Model, leave_out: fn(&mut Rules)) {
    let mut rules = Rules::ALL;
    leave_out(&mut rules);
    match search(rules, model) {
        Found::Nothing { states } => panic!("without {without} there is no replay in {states} states"),
        Found::Replay { states, trace } => {
            println!("without {without}, after {states} states:\n{}", told(&trace));
            assert!(matches!(trace.last(), Some(Step::Frame(_))));
        }
    }
}

fn told(trace: &[Step]) -> String {
    trace.iter().map(|step| format!("  {step}\n")).collect()
}

#[test]
fn no_replay_through_a_loss_a_restart_and_an_owner_change() {
    finds_nothing("loss, restart, owner change", WITH_LOSS_AND_TAKEOVER);
}

#[test]
fn no_replay_through_a_drain_a_restart_and_an_owner_change() {
    finds_nothing("drain, restart, owner change", Model { drains: 1, restarts: 1, ..WITH_TAKEOVER });
}

#[test]
fn no_replay_between_two_connections_when_one_is_lost() {
    finds_nothing("two connections, loss, restart", Model { flows: [0, 1, 0, 1], ..WITH_LOSS });
    finds_nothing(
        "two connections, loss, owner change",
        Model { flows: [0, 1, 1, 0], restarts: 0, ..WITH_LOSS_AND_TAKEOVER },
    );
}

#[test]
fn no_replay_when_targets_are_asked_for_what_they_do_not_have() {
    finds_nothing("verification, loss, restart", Model { verifies: true, ..WITH_LOSS });
}

#[test]
fn no_replay_when_an_sa_is_born_at_any_time() {
    finds_nothing("late SA, loss, owner change", Model { both_born: false, restarts: 0, ..WITH_LOSS_AND_TAKEOVER });
}

#[test]
fn no_replay_where_the_distributor_processes() {
    finds_nothing("distributor", Model { distributor_processes: true, restarts: 0, ..WITH_LOSS_AND_TAKEOVER });
}

/// 8.6 million states.
#[test]
#[ignore = "takes minutes; run it after a change of the protocol"]
fn no_replay_through_everything_at_once() {
    finds_nothing("everything", Model { drains: 1, ..WITH_LOSS_AND_TAKEOVER });
    finds_nothing("late SA, restart", Model { both_born: false, ..WITH_LOSS_AND_TAKEOVER });
    finds_nothing("distributor, restart", Model { distributor_processes: true, ..WITH_LOSS_AND_TAKEOVER });
}

#[test]
fn without_the_floor_there_is_a_replay() {
    finds_a_replay("the floor", QUIET, |rules| rules.floor = false);
}

#[test]
fn without_the_floor_in_frames_there_is_a_replay() {
    finds_a_replay("the carried floor", QUIET, |rules| rules.carried_floor = false);
}

#[test]
fn without_the_serial_there_is_a_replay() {
    finds_a_replay("the table serial", QUIET, |rules| rules.serial = false);
}

#[test]
fn without_the_incarnation_there_is_a_replay() {
    finds_a_replay("the incarnation", WITH_LOSS, |rules| rules.incarnation = false);
}

#[test]
fn without_the_epoch_there_is_a_replay() {
    finds_a_replay("the epoch", WITH_TAKEOVER, |rules| rules.epoch = false);
}

#[test]
fn without_the_seal_there_is_a_replay() {
    finds_a_replay("the seal", WITH_LOSS, |rules| rules.seal = false);
}

#[test]
fn where_sealed_sas_serve_after_an_owner_change_there_is_a_replay() {
    let model = Model { restarts: 0, ..WITH_LOSS_AND_TAKEOVER };
    finds_a_replay("the seal's second half", model, |rules| rules.sealed_serve_nothing = false);
}

#[test]
fn without_the_tops_of_all_sas_there_is_a_replay() {
    finds_a_replay("the tops of all SAs", QUIET, |rules| rules.all_tops = false);
}

#[test]
fn without_tombs_there_is_a_replay() {
    finds_a_replay("tombs", QUIET, |rules| rules.tomb = false);
}

#[test]
fn where_a_report_is_taken_twice_there_is_a_replay() {
    finds_a_replay("numbered reports", QUIET, |rules| rules.batch_numbers = false);
}

/// A target that is asked for a connection which is another's by the time that it answers.
#[test]
fn where_an_entry_is_forgotten_for_whoever_says_so_there_is_a_replay() {
    finds_a_replay("a look at who has the entry", Model { verifies: true, ..QUIET }, |rules| {
        rules.forget_guard = false
    });
}

#[test]
fn where_entries_go_before_floors_rise_there_is_a_replay() {
    finds_a_replay("floors first", QUIET, |rules| rules.floor_before_forget = false);
}

#[test]
fn where_the_serial_rises_before_entries_go_there_is_a_replay() {
    finds_a_replay("the serial last", QUIET, |rules| rules.forget_before_serial = false);
}

/// A target that is suspended and a target that is lost are two things to a data core: the entries of the first stay.
#[test]
fn where_entries_of_a_lost_target_go_before_all_seals_are_set_there_is_a_replay() {
    finds_a_replay("seals first", WITH_LOSS, |rules| rules.seal_before_replacing = false);
}

/// A core that still sends to the lost target, on an SA that was born after the loss and is not sealed.
#[test]
fn where_a_core_has_not_heard_of_the_suspension_there_is_a_replay() {
    let model = Model { both_born: false, ..WITH_LOSS };
    finds_a_replay("every core's word", model, |rules| rules.suspension_heard = false);
}

#[test]
fn where_a_targets_core_has_not_heard_of_the_epoch_there_is_a_replay() {
    finds_a_replay("every target core's word", WITH_TAKEOVER, |rules| rules.epoch_heard = false);
}

#[test]
fn where_a_loss_is_not_recorded_there_is_a_replay() {
    finds_a_replay("the CF's record of losses", WITH_LOSS_AND_TAKEOVER, |rules| rules.loss_recorded = false);
}

#[test]
fn where_a_drained_target_leaves_no_tops_in_the_cf_there_is_a_replay() {
    let model = Model { drains: 1, ..WITH_TAKEOVER };
    finds_a_replay("the CF's record of drained targets", model, |rules| rules.drained_recorded = false);
}

/// A target that restarts writes its new number over the one that the owner has used: nobody misses the old one.
#[test]
fn where_a_restart_overwrites_who_was_a_target_there_is_a_replay() {
    finds_a_replay("the owner's record of targets", WITH_LOSS_AND_TAKEOVER, |rules| rules.enrolment = false);
}

#[test]
fn where_a_new_owner_does_not_wait_there_is_a_replay() {
    finds_a_replay("settling", WITH_TAKEOVER, |rules| (rules.settling, rules.settling_hits) = (false, false));
}

/// A target that answers early knows the floors of the SAs that it has had frames of, and of no others.
#[test]
fn where_a_new_owner_forwards_hits_while_it_waits_there_is_a_replay() {
    finds_a_replay("holding hits back", WITH_TAKEOVER, |rules| rules.settling_hits = false);
}

#[test]
fn where_a_new_owner_is_not_told_tops_there_is_a_replay() {
    finds_a_replay("tops at an owner change", WITH_TAKEOVER, |rules| rules.tops_at_change = false);
}

#[test]
fn without_the_targets_window_there_is_a_replay() {
    finds_a_replay("the target's window", QUIET, |rules| rules.target_window = false);
}

/// The frame may come twice, and nothing in a plain packet could be authenticated.
#[test]
fn without_the_targets_window_there_is_a_replay_where_the_distributor_processes_too() {
    let model = Model { distributor_processes: true, ..QUIET };
    finds_a_replay("the target's window", model, |rules| rules.target_window = false);
}

#[test]
fn where_a_snapshot_resets_a_window_there_is_a_replay() {
    finds_a_replay("the window through a snapshot", QUIET, |rules| rules.snapshot_keeps_window = false);
}

/// The owner's window refuses early what its target would refuse; floors that targets remember are in some target's tops,
/// or in the CF. Neither is needed, and whoever takes one of the others away should know that.
#[test]
fn second_lines_hold_nothing_that_is_not_held_already() {
    let model = Model { drains: 1, ..WITH_TAKEOVER };
    for rules in [Rules { owner_window: false, ..Rules::ALL }, Rules { remembered_floor: false, ..Rules::ALL }] {
        assert!(matches!(search(rules, model), Found::Nothing { .. }));
    }
}

/// The model's rules for frames are those that the packet path asks.
#[test]
fn the_model_accepts_what_the_packet_path_accepts() {
    let dvipa = [203, 0, 113, 80].into();
    let address = |member: u8| [192, 168, 0, member].into();
    let members = [1, 2].map(|id| FabricMember { id: MemberId(id), address: address(id as u8) }).to_vec();
    for numbers in 0..2_u32.pow(6) {
        let digit = |at: u32| (numbers >> at & 1) as u8;
        let target =
            Target { incarnation: digit(0), epoch: 1 + digit(1), oldest_serial: digit(2), ..Target::default() };
        let (incarnation, epoch, serial) = (digit(3), 1 + digit(4), digit(5));
        let frame = Frame { packet: Packet(0), target: 0, incarnation, epoch, serial, floor: 0 };
        let fabric = Fabric {
            me: MemberId(2),
            incarnation: Incarnation(target.incarnation.into()),
            encapsulation: Encapsulation::Gre,
            protection: Protection::None,
            members: members.clone(),
            dvipas: vec![FabricDvipa {
                address: dvipa,
                owner: MemberId(1),
                epoch: Epoch(target.epoch.into()),
                processing: Processing::Target,
                oldest_serial: Serial(target.oldest_serial.into()),
                targets: Vec::new(),
                is_settling: false,
            }],
        };
        let repr = Repr {
            kind: Kind::Esp,
            flow_hash: 0,
            epoch: Epoch(epoch.into()),
            incarnation: Incarnation(incarnation.into()),
            serial: Serial(serial.into()),
            dvipa,
            spi: ipsec::Spi::new(256).unwrap(),
            floor: 0,
            number: 0,
        };
        let accepted = cluster::frame::accept(&fabric, MemberId(1), &repr, &[]).is_ok();
        assert_eq!(model::accepts(Rules::ALL, &target, frame), accepted, "{target:?} {frame:?}");
    }
}
