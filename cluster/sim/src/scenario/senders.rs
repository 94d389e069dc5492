//! A sender is believed lost and goes on sending; another takes its SA over.

use core::time::Duration;

use cluster::id::MemberId;
use cluster::member::SequencePolicy;
use wire::tcp::Flags;

use super::Scenario;
use super::acts::{PORT, connect, shadows};
use crate::dice::Dice;
use crate::place::client_address;
use crate::topology::{OWNER, Topology};
use crate::world::{End, World};

pub(super) const SCENARIO: Scenario = Scenario {
    name: "senders",
    what: "a sender is believed lost and goes on sending; another takes its SA over",
    shape,
    run,
};

fn shape(dice: &mut Dice, topology: &mut Topology) {
    shadows(dice, topology);
    topology.sequence = SequencePolicy::Auto;
    topology.members = topology.members.max(4);
    topology.targets = vec![MemberId(2), MemberId(3), MemberId(4)];
    topology.clients = 1;
    topology.silence = Duration::from_millis(400);
    let ages = &mut topology.timeouts;
    (ages.new, ages.established_tcp) = (Duration::from_secs(3), Duration::from_secs(3));
}

fn run(world: &mut World) -> Result<(), End> {
    world.settle()?;
    world.traffic.answered = 1_000;
    let lost = connect(world, PORT)?;
    connect(world, PORT + 1)?;
    // Two speak at first, so that both get SAs of their own.
    for _ in 0..world.dice.between(100, 250) {
        world.client_sends(0, PORT, Flags::ACK, 100, 0);
        world.client_sends(0, PORT + 1, Flags::ACK, 100, 0);
        world.run_for(Duration::from_millis(3))?;
    }
    let start = world.incarnation_of(lost);
    world.cut(lost, OWNER);
    world.cut(OWNER, lost);
    for _ in 0..400 {
        world.host_speaks(lost, 0, PORT);
        if world.is_given_up(lost, start) {
            break;
        }
        world.run_for(Duration::from_millis(3))?;
    }
    // Now others need SAs, and one of a sender that is gone is at hand.
    let ports: Vec<u16> = (2..5).map(|number| PORT + number).collect();
    for round in 0..world.dice.between(100, 200) {
        world.host_speaks(lost, 0, PORT);
        for &port in &ports {
            world.client_sends(0, port, if round == 0 { Flags::SYN } else { Flags::ACK }, 100, 0);
            if let Some(member) = world.model.place_of((client_address(0), port)).filter(|member| *member != lost) {
                world.host_speaks(member, 0, port);
            }
        }
        world.run_for(Duration::from_millis(2))?;
    }
    world.heal();
    world.run_for(Duration::from_millis(300))
}
