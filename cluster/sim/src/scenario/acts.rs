//! What scenarios have in common.

use core::time::Duration;

use cluster::dpt::Method;
use cluster::fabric::Processing;
use cluster::id::MemberId;
use ipsec::lifetime::Limits;
use wire::tcp::Flags;

use crate::dice::Dice;
use crate::place::client_address;
use crate::topology::{OWNER, Topology};
use crate::world::{End, World};

/// The connection that scenarios are about; background traffic uses other ports.
pub const PORT: u16 = 50_000;

/// Where targets decrypt and take turns, no owner among them, and SAs live as long as nobody replaces them.
pub fn shadows(_: &mut Dice, topology: &mut Topology) {
    topology.processing = Processing::Target;
    topology.method = Method::RoundRobin;
    topology.bytes = Limits::default();
    topology.targets.retain(|target| *target != OWNER);
    if !topology.targets.contains(&MemberId(3)) {
        topology.targets.push(MemberId(3));
    }
}

/// A connection from client 0 that some target has; which.
pub fn connect(world: &mut World, port: u16) -> Result<MemberId, End> {
    for _ in 0..20 {
        world.client_sends(0, port, Flags::SYN, 0, 0);
        world.run_for(Duration::from_millis(4))?;
        world.client_sends(0, port, Flags::ACK, 100, 0);
        world.run_for(Duration::from_millis(4))?;
        if let Some(target) = world.model.place_of((client_address(0), port)).filter(|target| world.runs(*target)) {
            return Ok(target);
        }
        world.run_for(Duration::from_millis(50))?;
    }
    Err(End::World(format!("no target takes a connection on port {port}")))
}

/// Data on a connection, so often; the frames.
pub fn talk(world: &mut World, port: u16, count: u64) -> Vec<Vec<u8>> {
    (0..count).filter_map(|_| world.client_sends(0, port, Flags::ACK, 200, 0)).collect()
}

/// Lets all connections that nobody speaks on expire, and their ends be told.
pub fn expire(world: &mut World) -> Result<(), End> {
    let ages = world.topology.timeouts;
    let longest = ages.new.max(ages.established_tcp).max(ages.closing);
    world.run_for(longest + Duration::from_millis(350))
}

/// An attacker sends these to the owner, one after the other.
pub fn replay(world: &mut World, frames: &[Vec<u8>]) -> Result<(), End> {
    replay_at(world, OWNER, frames)
}

/// An attacker sends these to a member.
pub fn replay_at(world: &mut World, member: MemberId, frames: &[Vec<u8>]) -> Result<(), End> {
    for frame in frames {
        let core = world.dice.below(4) as usize;
        world.attack(member, core, frame.clone());
        let pause = world.dice.micros(10, 400);
        world.run_for(pause)?;
    }
    world.run_for(Duration::from_millis(2))
}

/// Traffic and attacks on everything else, now or later.
pub fn some_noise(world: &mut World) {
    world.traffic.is_on = world.dice.permille(600);
    world.background.attacks = world.dice.between(0, 200);
}
