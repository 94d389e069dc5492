//! Lifesize and outbound numbers between members.

use core::time::Duration;

use super::world::*;
use crate::member::{ActivePort, NumberSource, SequencePolicy, ServicePort, Told};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn every_member_has_a_share_and_gets_more_as_it_uses_it_until_ike_refreshes() {
    let mut world = World::running(1);
    let id = world.birth_of(1, limits(10_000_000, 20_000_000), None, None);
    world.run_for(SECOND / 2);
    let ceiling = |world: &World, member| world.appliance(member).ceilings[&id].0.0;
    let first = ceiling(&world, ONE);
    assert_eq!(first, 10_000_000 / 4, "hard less soft over two targets, the owner and one more");
    for member in [OWNER, ONE, TWO] {
        assert_eq!(ceiling(&world, member), first, "member {member}");
    }
    world.uses(ONE, id, first * 6 / 10, 10);
    world.run_for(SECOND / 5);
    assert!(ceiling(&world, ONE) > first);
    assert!(world.appliance(OWNER).rekeys.is_empty());
    let mut used = first;
    while world.appliance(OWNER).rekeys.is_empty() {
        assert!(used <= ceiling(&world, ONE));
        world.uses(ONE, id, used, 10);
        world.run_for(SECOND / 5);
        used += first / 2;
    }
    assert_eq!(world.appliance(OWNER).rekeys, [id]);
    let view = world.member(OWNER).lifesize(dvipa(), None, 10)[0];
    let near = 10_000_000 - 400_000 - first / 2..=10_000_000;
    assert!(near.contains(&view.inbound.used.bytes), "2 % may go unreported: {}", view.inbound.used.bytes);
    world.stop(ONE);
    world.run_for(SECOND * 3);
    let view = world.member(OWNER).lifesize(dvipa(), None, 10)[0];
    assert!(view.inbound.charged.bytes > 0 && view.inbound.charged.bytes <= first);
}

#[test]
fn an_sa_has_its_first_share_wherever_it_stands_before_its_peer_may_use_it() {
    for seed in 0..20 {
        let mut world = World::running(seed);
        let id = world.birth_of(1, limits(10_000_000, 20_000_000), None, None);
        while !world.appliance(OWNER).released.contains(&id) {
            world.run_for(Duration::from_micros(100));
        }
        for member in [OWNER, ONE, TWO] {
            let ((bytes, _), _) = world.appliance(member).ceilings.get(&id).copied().unwrap_or_default();
            assert_eq!(bytes, 2_500_000, "member {member}, seed {seed}");
        }
        // Who comes late learns of it with its share.
        world.stop(TWO);
        world.start(TWO);
        world.link_all(TWO);
        while !world.appliance(TWO).installed.contains_key(&id) {
            world.run_for(Duration::from_micros(100));
        }
        assert!(world.appliance(TWO).ceilings.contains_key(&id), "seed {seed}");
    }
}

#[test]
fn what_nobody_uses_comes_back_to_the_owner_as_far_as_no_core_has_claimed_it() {
    let mut world = World::running(7);
    let id = world.birth_of(1, limits(10_000_000, 20_000_000), None, None);
    world.run_for(SECOND / 2);
    let granted = |world: &World| world.member(OWNER).lifesize(dvipa(), None, 10)[0].inbound.granted.bytes;
    assert_eq!(granted(&world), 3 * 2_500_000);
    world.uses(ONE, id, 1_000, 1);
    world.run_for(SECOND * 9);
    assert!(world.appliance(ONE).withdrawn.is_empty());
    world.run_for(SECOND * 2);
    let withdrawn = &world.appliance(ONE).withdrawn[&id];
    assert_eq!(withdrawn, &[2_500_000 - 1_000 - 625_000 - 1], "a quarter stays, and what a core has claimed");
    assert_eq!(granted(&world), 3 * (625_000 + 1), "at the owner and at the other target too");
    // Who needs it again has it again, above what was given back.
    world.uses(ONE, id, 1_000 + 400_000, 2);
    world.run_for(SECOND / 5);
    let ceiling = world.appliance(ONE).ceilings[&id].0.0;
    assert_eq!(ceiling, 401_000 + withdrawn_of(&world, id) + 2_500_000);
}

fn withdrawn_of(world: &World, id: crate::id::ChildId) -> u64 {
    world.appliance(ONE).withdrawn[&id].iter().sum()
}

#[test]
fn an_sa_whose_limits_cannot_be_shared_is_refused() {
    let mut world = World::running(2);
    let id = world.birth_of(1, limits(100_000, 110_000), None, None);
    assert!(world.appliance(OWNER).refused.contains(&id));
}

#[test]
fn the_owner_numbers_an_sa_below_a_mark_that_stands_and_targets_ask_it() {
    let mut world = World::running(3);
    let id = world.birth(1);
    world.run_for(SECOND / 2);
    assert_eq!(world.appliance(OWNER).sources[&id], NumberSource::Sequencer, "of its own dispenser");
    assert_eq!(world.appliance(ONE).sources[&id], NumberSource::Sequencer);
    let mark = world.appliance(OWNER).marks[&id];
    assert!(mark > 1 << 20);
    assert!(!world.appliance(ONE).marks.contains_key(&id));
    let mut usage = crate::member::SaUse {
        child: id,
        inbound: (0, 0),
        outbound: (0, 0),
        top: 0,
        next_outbound: mark - 1_000,
        heard_ago: None,
    };
    world.tell(OWNER, Told::Use(vec![usage]));
    world.run_for(SECOND * 15);
    let raised = world.appliance(OWNER).marks[&id];
    assert!(raised > mark, "raised before it is reached");
    world.is_facility_up = false;
    usage.next_outbound = raised - 1_000;
    world.tell(OWNER, Told::Use(vec![usage]));
    world.run_for(SECOND * 15);
    assert_eq!(world.appliance(OWNER).marks[&id], raised, "none is told that does not stand");
    world.is_facility_up = true;
    world.run_for(SECOND * 15);
    assert!(world.appliance(OWNER).marks[&id] > raised);
}

#[test]
fn a_second_sender_gets_an_sa_of_its_own_when_the_peer_has_proven_it() {
    let mut world = World::running(4);
    let id = world.birth(1);
    world.run_for(SECOND / 2);
    for _ in 0..20 {
        for member in [ONE, TWO] {
            world.tell(member, Told::NumbersWanted { child: id, next: 1 });
        }
        world.run_for(SECOND / 10);
    }
    assert_eq!(world.appliance(OWNER).siblings_asked, [id], "one request for each peer");
    let sibling = world.birth_of(1, ipsec::lifetime::Lifetime::NONE, Some(id.spi), None);
    world.run_for(SECOND / 2);
    let own = |world: &World| {
        let sends = |member: &crate::id::MemberId| world.appliance(*member).preferred.contains(&sibling);
        [ONE, TWO].into_iter().filter(sends).collect::<Vec<_>>()
    };
    assert!(own(&world).is_empty(), "nothing is sent on it before it is proven");
    world.tell(TWO, Told::FirstPacket(sibling));
    world.run_for(SECOND / 2);
    let sender = own(&world);
    assert_eq!(sender.len(), 1);
    assert!(matches!(world.appliance(sender[0]).sources[&sibling], NumberSource::Own { .. }));
    assert!(world.appliance(sender[0]).marks.contains_key(&sibling));
    assert_eq!(world.appliance(sender[0]).preferred.last(), Some(&sibling));
    let others = [OWNER, ONE, TWO].into_iter().filter(|member| *member != sender[0]);
    assert!(others.into_iter().all(|member| !world.appliance(member).preferred.contains(&sibling)));
    // Its sender is lost: another takes it over, above all that can have been used.
    let mark = world.appliance(sender[0]).marks[&sibling];
    world.stop(sender[0]);
    let other = if sender[0] == ONE { TWO } else { ONE };
    world.run_for(SECOND * 3);
    for _ in 0..5 {
        world.tell(other, Told::NumbersWanted { child: id, next: 1 });
        world.tell(OWNER, Told::NumbersWanted { child: id, next: 1 });
        world.run_for(SECOND / 5);
    }
    let from = match world.appliance(other).sources[&sibling] {
        NumberSource::Own { from } => from,
        found => panic!("{found:?}"),
    };
    assert!(from >= mark, "{from}");
}

#[test]
fn other_policies_are_told_as_they_are() {
    for (policy, source) in
        [(SequencePolicy::ViaDistributor, NumberSource::ViaOwner), (SequencePolicy::LeasedBlocks, NumberSource::Leased)]
    {
        let mut settings = dvipa_settings();
        settings.outbound_sequence = policy;
        let mut world = World::of(5, settings, 3);
        world.start_all();
        let id = world.birth(1);
        world.run_for(SECOND / 2);
        assert_eq!(world.appliance(ONE).sources[&id], source);
        for _ in 0..3 {
            world.tell(ONE, Told::NumbersWanted { child: id, next: 1 });
            world.tell(TWO, Told::NumbersWanted { child: id, next: 1 });
            world.run_for(SECOND / 5);
        }
        assert!(world.appliance(OWNER).siblings_asked.is_empty());
        let blocks: Vec<_> = [ONE, TWO].iter().flat_map(|&member| world.appliance(member).leases.clone()).collect();
        assert_eq!(blocks.is_empty(), policy != SequencePolicy::LeasedBlocks);
        for (index, one) in blocks.iter().enumerate() {
            assert!(blocks[..index].iter().all(|other| one.0 >= other.0 + other.1 || other.0 >= one.0 + one.1));
        }
    }
}

#[test]
fn the_owner_knows_when_a_peer_was_last_heard_anywhere() {
    let mut world = World::running(6);
    let id = world.birth(1);
    world.run_for(SECOND);
    world.uses(TWO, id, 100, 5);
    let at = world.now;
    world.run_for(SECOND * 15);
    let heard = world.member(OWNER).heard_at(id).expect("it was told");
    assert!(heard.saturating_since(at) < SECOND / 2 && at.saturating_since(heard) < SECOND / 2);
}

#[test]
fn new_connections_go_by_what_targets_report_of_themselves() {
    let mut world = World::running(5);
    let https = ServicePort { protocol: 6, port: 443 };
    let target = |world: &World| {
        let targets = world.member(OWNER).targets(dvipa());
        targets.into_iter().find(|target| target.member == ONE).unwrap()
    };
    let before = target(&world);
    assert_eq!(before.active, []);
    let active = vec![ActivePort { service: https, connections: 7 }];
    world.tell(ONE, Told::Active { dvipa: dvipa(), ports: active.clone() });
    world.run_for(SECOND / 10);
    let told = target(&world);
    assert_eq!(told.active, active);
    assert!(told.reports > before.reports, "cores begin to count their own choices anew");
    world.run_for(SECOND * 3);
    assert!(
        target(&world).reports > told.reports,
        "also where nothing has changed: what was chosen since may have ended"
    );
    assert_eq!(target(&world).active, active);
    world.tell(OWNER, Told::Active { dvipa: dvipa(), ports: active });
    world.run_for(SECOND / 10);
    assert!(world.member(OWNER).targets(dvipa()).iter().all(|target| target.member != OWNER), "it is no target");
}

/// Members that carry an SA as their ceilings allow, and what they have carried by their own counters.
struct Carried {
    id: crate::id::ChildId,
    bytes: std::collections::BTreeMap<crate::id::MemberId, u64>,
}

impl Carried {
    /// One more packet at a member, if what it was granted has room for it and it may send.
    fn carry(&mut self, world: &mut World, member: crate::id::MemberId, packet: u64) -> bool {
        let appliance = world.appliance(member);
        let (ceiling, taken) = (appliance.ceilings[&self.id].0.0, appliance.withdrawn.get(&self.id));
        let taken: u64 = taken.into_iter().flatten().sum();
        let bytes = self.bytes.entry(member).or_default();
        let fits = !appliance.muted && *bytes + taken + packet <= ceiling;
        if fits {
            *bytes += packet;
        }
        fits
    }

    fn tell(&self, world: &mut World, member: crate::id::MemberId) {
        world.uses(member, self.id, self.bytes[&member], 10);
    }

    fn sum(&self) -> u64 {
        self.bytes.values().sum()
    }

    /// Used is never above what was carried, and with what is granted and charged never below it.
    fn check(&self, world: &World) {
        let view = world.member(OWNER).lifesize(dvipa(), None, 10)[0].inbound;
        let carried = self.sum();
        assert!(view.used.bytes <= carried, "{} of {carried}", view.used.bytes);
        let most = view.used.bytes + view.granted.bytes + view.charged.bytes;
        assert!(carried <= most && most <= 20_000_000, "{carried}, {most}");
        assert_eq!(view.overrun_bound, crate::lifesize::Amount::ZERO);
    }
}

#[test]
fn the_sum_agrees_with_what_was_carried_also_when_a_target_dies_between_reports() {
    for seed in 0..10 {
        let mut world = World::running(seed);
        let id = world.birth_of(1, limits(10_000_000, 20_000_000), None, None);
        world.run_for(SECOND / 2);
        let mut carried = Carried { id, bytes: Default::default() };
        for at in 0..2_000 {
            carried.carry(&mut world, if at % 3 == 0 { TWO } else { ONE }, 1_000);
            if at % 20 == 0 {
                carried
                    .bytes
                    .keys()
                    .copied()
                    .collect::<Vec<_>>()
                    .iter()
                    .for_each(|&member| carried.tell(&mut world, member));
                world.run_for(SECOND / 50);
                carried.check(&world);
            }
        }
        // To the byte, once the slow timer has passed.
        [ONE, TWO].iter().for_each(|&member| carried.tell(&mut world, member));
        world.run_for(SECOND * 11);
        assert_eq!(world.member(OWNER).lifesize(dvipa(), None, 10)[0].inbound.used.bytes, carried.sum());
        // It carries on unreported, and is dead.
        while carried.carry(&mut world, ONE, 1_000) {}
        carried.check(&world);
        world.stop(ONE);
        world.run_for(SECOND * 3);
        carried.check(&world);
        let view = world.member(OWNER).lifesize(dvipa(), None, 10)[0].inbound;
        assert!(view.charged.bytes > 0 && view.charged.bytes <= 2_500_000, "one grant at most: {}", view.charged.bytes);
        // Who is left can use the rest, and nothing of what the dead one may have carried.
        for _ in 0..400 {
            while carried.carry(&mut world, TWO, 1_000) {}
            carried.tell(&mut world, TWO);
            world.run_for(SECOND / 50);
            carried.check(&world);
        }
        assert!(carried.sum() <= 20_000_000 && carried.sum() > 16_000_000, "{}", carried.sum());
    }
}

#[test]
fn a_target_without_its_trusted_port_stops_within_its_grant_and_in_time() {
    let mut world = World::running(11);
    let id = world.birth_of(1, limits(10_000_000, 20_000_000), None, None);
    world.run_for(SECOND / 2);
    let mut carried = Carried { id, bytes: Default::default() };
    for member in [ONE, TWO] {
        assert!(carried.carry(&mut world, member, 1_000));
        carried.tell(&mut world, member);
    }
    world.run_for(SECOND);
    world.unlink(OWNER, ONE);
    world.unlink(TWO, ONE);
    let since = world.now;
    let mut stopped = None;
    // A trickle, so that its grant alone does not stop it.
    for _ in 0..400 {
        if !carried.carry(&mut world, ONE, 1_000) {
            stopped = stopped.or(Some(world.now));
        }
        carried.tell(&mut world, ONE);
        while carried.carry(&mut world, TWO, 50_000) {}
        carried.tell(&mut world, TWO);
        world.run_for(SECOND / 50);
        carried.check(&world);
    }
    let after = stopped.expect("it stops").saturating_since(since);
    assert!(after >= SECOND * 4 && after < SECOND * 6, "the owner may be silent for five seconds: {after:?}");
    assert!(world.appliance(ONE).muted && !world.appliance(TWO).muted);
    assert!(carried.sum() <= 20_000_000);
}
