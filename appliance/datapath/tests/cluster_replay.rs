//! A cluster: what was delivered once is never delivered again, wherever its connection goes.

use std::time::Duration;

use cluster::id::{Epoch, Incarnation, Serial};
use datapath::cluster::reports::Report;
use datapath::drops::DropReason;
use datapath::mailbox::Command;
use wire::protocol;
use wire::tcp::Flags;

use crate::support::client::{Client, SaSpec};
use crate::support::cluster::{Cluster, Seat, number};
use crate::support::packets::{ether, tcp_of};

/// A cluster with a connection of a client on a target, and the packets that made it.
struct Scene {
    cluster: Cluster,
    client: Client,
    target: usize,
    said: Vec<Vec<u8>>,
}

fn scene(cores: usize) -> Scene {
    let mut cluster = Cluster::new(3, cores);
    let client = cluster.connect(SaSpec::default());
    let mut scene = Scene { cluster, client, target: 0, said: Vec::new() };
    scene.say(Flags::SYN);
    let counts = scene.cluster.delivered_counts();
    scene.target = counts.iter().position(|&count| count == 1).unwrap();
    for _ in 0..5 {
        scene.say(Flags::ACK);
    }
    assert_eq!(scene.cluster.delivered(scene.target).len(), 5);
    scene
}

impl Scene {
    fn other(&self) -> usize {
        3 - self.target
    }

    fn say(&mut self, flags: Flags) {
        let packet = self.client.seal(&self.client.flow(5_000).tcp(flags, b"data"));
        self.cluster.client_sends(&packet);
        self.cluster.settle();
        self.said.push(packet);
    }

    /// Everything that was ever said comes again.
    fn replay(&mut self) {
        for packet in self.said.clone() {
            self.cluster.client_sends(&packet);
            self.cluster.settle();
        }
    }

    fn nothing_was_delivered(&mut self) {
        assert_eq!(self.cluster.delivered_counts(), [0, 0, 0]);
    }
}

#[test]
fn hostile_32_a_copy_is_refused_at_the_target_while_its_connection_stands() {
    for cores in 1..=2 {
        let mut scene = scene(cores);
        scene.replay();
        scene.nothing_was_delivered();
        // The SYN takes the full check, and ends in the owner's own window.
        scene.cluster.assert_drops(0, &[(DropReason::ReplayDuplicate, 1)]);
        scene.cluster.assert_drops(scene.target, &[(DropReason::ReplayDuplicate, 5)]);
    }
}

#[test]
fn hostile_32_a_copy_is_refused_after_expiry_at_the_tomb_and_after_the_freeing_by_the_floor() {
    for cores in 1..=2 {
        let mut scene = scene(cores);
        let (flow, target, other) = (scene.client.flow(5_000), scene.target, scene.other());
        scene.cluster.pass(Duration::from_secs(31));
        // Ended, and not freed: all of it is refused where it was, also what is new.
        scene.replay();
        scene.say(Flags::ACK);
        scene.nothing_was_delivered();
        assert_eq!(scene.cluster.members[target].dropped(DropReason::ConnectionEnded), 1);
        assert_eq!(scene.cluster.routes_of(&flow.key(protocol::TCP)).len(), 1);

        let freed = scene.cluster.free(target);
        assert_eq!(freed.len(), 1);
        assert_eq!((freed[0].peer.0, freed[0].flow), (1, flow.key(protocol::TCP)));
        assert!(scene.cluster.routes_of(&flow.key(protocol::TCP)).is_empty());
        assert!(scene.cluster.members[target].connections().is_empty());
        scene.replay();
        scene.nothing_was_delivered();
        let (below, seen) = (DropReason::BelowFloor, DropReason::ReplayDuplicate);
        let owner = &scene.cluster.members[0];
        assert_eq!(owner.dropped(below) + owner.dropped(seen), 8, "the SYN of the first replay, and all of the second");
        assert!(owner.dropped(below) >= 6);

        // What is new begins anew, by turns with the other target.
        scene.say(Flags::SYN);
        let counts = scene.cluster.delivered_counts();
        assert_eq!((counts[target] + counts[other], counts[0]), (1, 0));
    }
}

#[test]
fn hostile_39_frames_under_way_during_a_freeing_come_too_late() {
    for cores in 1..=2 {
        let mut scene = scene(cores);
        let target = scene.target;
        // A hit is relayed, and does not arrive until all is over.
        scene.cluster.intercepted = Some(Vec::new());
        scene.say(Flags::ACK);
        scene.cluster.pass(Duration::from_secs(31));
        let freed = scene.cluster.free(target);
        assert_eq!(freed.len(), 1);
        scene.cluster.release();
        scene.cluster.settle();
        scene.nothing_was_delivered();
        scene.cluster.assert_drops(target, &[(DropReason::FrameStaleSerial, 1)]);
        // The number was above every top, so the client's own copy may be taken, once, wherever it goes.
        let late = scene.said.last().cloned().unwrap();
        for _ in 0..3 {
            scene.cluster.client_sends(&late);
            scene.cluster.settle();
        }
        assert_eq!(scene.cluster.delivered_counts().iter().sum::<usize>(), 1);
    }
}

#[test]
fn hostile_39_frames_of_other_epochs_incarnations_and_serials_are_refused_by_name() {
    let mut scene = scene(2);
    let target = scene.target;
    let frame = |scene: &mut Scene| {
        scene.cluster.intercepted = Some(Vec::new());
        scene.say(Flags::ACK);
        scene.cluster.intercepted.take().unwrap().remove(0).1
    };
    let kept = frame(&mut scene);
    type Change = fn(&mut Seat, &mut Epoch);
    let changes: [(Change, DropReason); 4] = [
        (|_, epoch| *epoch = Epoch(2), DropReason::FrameStaleEpoch),
        (|_, epoch| *epoch = Epoch(0), DropReason::FrameFutureEpoch),
        (|seat, _| seat.incarnation = Incarnation(999), DropReason::FrameOtherIncarnation),
        (|seat, _| seat.oldest_serial = Serial(2), DropReason::FrameStaleSerial),
    ];
    for (change, reason) in changes {
        let (seat, epoch) = (scene.cluster.seats[target].clone(), scene.cluster.epoch);
        change(&mut scene.cluster.seats[target], &mut scene.cluster.epoch);
        scene.cluster.announce_to(target);
        scene.cluster.trusted_frame(target, &kept);
        scene.cluster.settle();
        assert_eq!(scene.cluster.members[target].dropped(reason), 1, "{reason:?}");
        scene.nothing_was_delivered();
        (scene.cluster.seats[target], scene.cluster.epoch) = (seat, epoch);
        scene.cluster.announce_to(target);
    }
    // Unchanged it is still good, once.
    scene.cluster.trusted_frame(target, &kept);
    scene.cluster.trusted_frame(target, &kept);
    scene.cluster.settle();
    assert_eq!(scene.cluster.delivered(target).len(), 1);
    assert_eq!(scene.cluster.members[target].dropped(DropReason::ReplayDuplicate), 1);
}

#[test]
fn hostile_39_what_no_member_sent_or_what_is_no_frame_ends_on_the_trusted_port() {
    let mut scene = scene(2);
    let target = scene.target;
    scene.cluster.intercepted = Some(Vec::new());
    scene.say(Flags::ACK);
    let kept = scene.cluster.intercepted.take().unwrap().remove(0).1;
    // From a stranger, for somebody else, and with our own address as sender.
    for (at, last) in [(26, 99), (30, 99), (26, target as u8 + 1)] {
        let mut frame = kept.clone();
        frame[at + 3] = last;
        let mut ip = wire::ipv4::Packet::new_checked(&mut frame[14..]).unwrap();
        ip.fill_checksum();
        scene.cluster.trusted_frame(target, &frame);
    }
    // From a member that does not own the address.
    let mut other = kept.clone();
    other[29] = scene.other() as u8 + 1;
    wire::ipv4::Packet::new_checked(&mut other[14..]).unwrap().fill_checksum();
    scene.cluster.trusted_frame(target, &other);
    // Cut at every byte.
    for len in 14..kept.len() {
        scene.cluster.trusted_frame(target, &kept[..len]);
    }
    scene.cluster.settle();
    let cut = (kept.len() - 14) as u64;
    let malformed = scene.cluster.members[target].dropped(DropReason::FrameMalformed);
    let drops = [(DropReason::TrustedStranger, 3), (DropReason::FrameMalformed, cut), (DropReason::FrameWrongRole, 1)];
    assert_eq!(malformed, cut);
    scene.cluster.assert_drops(target, &drops);
    scene.nothing_was_delivered();
    // The same frame on another port is cleartext like any other.
    let mac = crate::support::packets::NETWORK_MAC;
    let clear = ether(mac, mac, None, &kept[14..]);
    scene.cluster.members[target].network_frame(0, &clear);
    scene.cluster.settle();
    scene.nothing_was_delivered();
}

#[test]
fn a_target_that_lost_the_first_frame_is_found_out_by_asking() {
    for cores in 1..=2 {
        let mut scene = scene(cores);
        let target = scene.target;
        scene.cluster.advance(Duration::from_secs(3));
        scene.cluster.pass(Duration::ZERO);
        let unverified = |cluster: &mut Cluster| {
            let reports = std::mem::take(&mut cluster.members[0].reports).into_iter();
            let entries = reports.filter_map(|report| match report {
                Report::Unverified { entry, target, .. } => Some((entry, target)),
                _other => None,
            });
            entries.collect::<Vec<_>>()
        };
        let asked = unverified(&mut scene.cluster);
        assert_eq!(asked.iter().map(|(_, target)| *target).collect::<Vec<_>>(), [number(target)]);
        let keys: Vec<_> = asked.iter().map(|(key, _)| *key).collect();
        for (at, report) in [(target, Report::Alive(keys[0])), (scene.other(), Report::Stopped(keys[0]))] {
            scene.cluster.members[at].command_all(|| Command::Verify(keys.clone()));
            scene.cluster.settle();
            let mut told = std::mem::take(&mut scene.cluster.members[at].reports);
            told.retain(|report| !matches!(report, Report::Active { .. }));
            assert_eq!(told, [report], "one core speaks");
        }
        assert_eq!(unverified(&mut scene.cluster), []);
    }
}

/// The owner learns that a target is lost: frames stop, the loss is recorded, SAs are sealed, and the entries are lost.
fn lose(scene: &mut Scene) {
    let target = scene.target;
    scene.cluster.seats[target].is_member = false;
    scene.cluster.announce_to(0);
    scene.say(Flags::ACK);
    scene.cluster.assert_drops(0, &[(DropReason::TargetSilent, 1)]);
    let now = scene.cluster.members[0].now;
    assert!(scene.cluster.shadow(scene.client.spec.spi_in, 0).inbound.seal(now));
    scene.cluster.seats[target].is_member = true;
    scene.cluster.seats[target].incarnation = Incarnation(200);
    scene.cluster.announce();
}

#[test]
fn a_lost_targets_connection_is_reset_in_answer_to_an_authentic_segment_and_once() {
    for cores in 1..=3 {
        let mut scene = scene(cores);
        scene.cluster.advance(Duration::from_secs(1));
        lose(&mut scene);
        let mut forged = scene.client.seal(&scene.client.flow(5_000).tcp(Flags::ACK, b"forged"));
        *forged.last_mut().unwrap() ^= 1;
        scene.cluster.client_sends(&forged);
        scene.cluster.settle();
        assert!(scene.cluster.sent(0).is_empty(), "nothing answers what is forged");
        scene.replay();
        let answered = scene.cluster.sent(0);
        // Of the replay, the owner has not seen the hits: the first of them is answered, no other.
        assert_eq!(answered.len(), 1);
        let answer = scene.client.open(&answered[0]).unwrap();
        let reset = tcp_of(&answer.inner);
        assert_eq!((reset.sequence(), reset.flags()), (0x2000, Flags::RST), "SEQ = its ACK");
        let key = scene.client.flow(5_000).answer();
        assert_eq!((reset.src_port(), reset.dst_port()), (key.src_port, key.dst_port));
        assert_eq!(scene.cluster.members[0].balance().originated, 1);
        scene.nothing_was_delivered();
        assert_eq!(scene.cluster.members[0].dropped(DropReason::TargetLost), 1);
        assert!(scene.cluster.members[0].dropped(DropReason::SaSealed) > 0);
        let met = Report::SealMet(cluster::id::ChildId {
            dvipa: crate::support::packets::DVIPA.into(),
            spi: ipsec::Spi::new(scene.client.spec.spi_in).unwrap(),
        });
        assert!(scene.cluster.members[0].reports.contains(&met));
    }
}

#[test]
fn a_sealed_sa_serves_what_was_routed_before_its_seal_and_nothing_new() {
    let mut scene = scene(2);
    let (target, now) = (scene.target, scene.cluster.members[0].now);
    scene.cluster.advance(Duration::from_secs(1));
    let shared = std::sync::Arc::clone(&scene.cluster.shadow(scene.client.spec.spi_in, 0).inbound);
    assert!(shared.seal(now + Duration::from_millis(500)));
    scene.say(Flags::ACK);
    scene.say(Flags::SYN);
    assert_eq!(scene.cluster.delivered(target).len(), 2);
    let packet = scene.client.seal(&scene.client.flow(6_000).tcp(Flags::SYN, b""));
    scene.cluster.client_sends(&packet);
    scene.cluster.settle();
    scene.nothing_was_delivered();
    scene.cluster.assert_drops(0, &[(DropReason::SaSealed, 1)]);
}

#[test]
fn entries_of_an_earlier_ownership_mean_nothing() {
    let mut scene = scene(1);
    scene.cluster.advance(Duration::from_secs(1));
    // Another has owned the address since, and may have routed, freed and delivered anything.
    scene.cluster.epoch = Epoch(3);
    scene.cluster.announce();
    scene.say(Flags::ACK);
    let routes = scene.cluster.routes_of(&scene.client.flow(5_000).key(protocol::TCP));
    assert_eq!(routes[0].1.created, scene.cluster.members[0].now, "it was made anew, by an authentic packet");
    assert_eq!(scene.cluster.delivered_counts().iter().sum::<usize>(), 1);
}
