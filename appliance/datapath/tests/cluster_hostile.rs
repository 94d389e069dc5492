//! The trusted wire and the network against a cluster of an owner and two targets, on every core, in both kinds of
//! processing: what is repeated, late, misdelivered or forged is delivered nowhere, and what stands goes on.

use std::time::Duration;

use cluster::fabric::{Encapsulation, Processing};
use cluster::frame::{Kind, Path, Repr, find};
use cluster::id::{Epoch, Incarnation, MemberId, Serial};
use datapath::drops::DropReason;
use wire::protocol;
use wire::tcp::Flags;

use crate::support::TRUSTED;
use crate::support::client::{Client, SaSpec};
use crate::support::cluster::{Cluster, number, trusted_address, trusted_mac};
use crate::support::packets::{Flow, ether, ip, ip_header};

const BOTH: [Processing; 2] = [Processing::Target, Processing::Distributor];

/// Runs a scene with one to three cores, in both kinds of processing.
fn in_all(scene: impl Fn(Scene)) {
    for processing in BOTH {
        (1..=3).for_each(|cores| scene(Scene::new(processing, cores)));
    }
}

/// A connection of a client that stands on a target, and one more packet of it that left the owner and was kept back.
struct Scene {
    cluster: Cluster,
    client: Client,
    flow: Flow,
    target: usize,
    /// The frame that was kept back, and the packet in it as the client sent it.
    frame: Vec<u8>,
    packet: Vec<u8>,
}

impl Scene {
    fn new(processing: Processing, cores: usize) -> Scene {
        let mut cluster = Cluster::new(3, cores);
        cluster.processing = processing;
        cluster.announce();
        let client = cluster.connect(SaSpec::default());
        let flow = client.flow(5_000);
        let mut scene = Scene { cluster, client, flow, target: 0, frame: Vec::new(), packet: Vec::new() };
        scene.say(flow, Flags::SYN, b"");
        scene.target = scene.cluster.delivered_counts().iter().position(|&count| count == 1).unwrap();
        (scene.packet, scene.frame) = scene.keep_back();
        scene
    }

    fn other(&self) -> usize {
        3 - self.target
    }

    fn say(&mut self, flow: Flow, flags: Flags, payload: &[u8]) -> Vec<u8> {
        let packet = self.client.seal(&flow.tcp(flags, payload));
        self.cluster.client_sends(&packet);
        self.cluster.settle();
        packet
    }

    /// Another packet of the connection, and the frame with it, which arrives nowhere.
    fn keep_back(&mut self) -> (Vec<u8>, Vec<u8>) {
        self.cluster.intercepted = Some(Vec::new());
        let packet = self.say(self.flow, Flags::ACK, b"data");
        let (to, frame) = self.cluster.intercepted.take().unwrap().remove(0);
        assert_eq!(to, self.target);
        (packet, frame)
    }

    /// Lays a frame on every queue of a member's trusted port; what its cores drop for this reason by it.
    fn on_every_core(&mut self, at: usize, frame: &[u8], reason: DropReason) -> u64 {
        let before = self.cluster.members[at].dropped(reason);
        for core in 0..self.cluster.members[at].cores() {
            self.cluster.members[at].inject(core, TRUSTED, frame);
            self.cluster.settle();
        }
        self.cluster.members[at].dropped(reason) - before
    }

    /// Every core refuses a frame for this reason, and nothing is delivered.
    #[track_caller]
    fn refused(&mut self, at: usize, frame: &[u8], reason: DropReason) {
        let cores = self.cluster.members[at].cores() as u64;
        assert_eq!(self.on_every_core(at, frame, reason), cores, "{reason:?}: {:?}", self.cluster.members[at].drops());
        assert_eq!(self.cluster.delivered_counts(), [0, 0, 0]);
    }

    /// The frame that was kept back, with another header around what it holds.
    fn reframed(&self, change: impl FnOnce(&mut Repr)) -> Vec<u8> {
        let packet = &self.frame[14..];
        let found = find(packet).unwrap();
        let mut repr = found.repr;
        change(&mut repr);
        framed((number(0), number(self.target)), &repr, &packet[found.payload])
    }

    /// The kept frame is as good as ever, once; so nothing that came before it has done anything.
    #[track_caller]
    fn stands_unharmed(mut self) {
        let (target, frame) = (self.target, self.frame.clone());
        let cores = self.cluster.members[target].cores() as u64;
        let duplicates = self.on_every_core(target, &frame, DropReason::ReplayDuplicate);
        assert_eq!((self.cluster.delivered(target).len(), duplicates), (1, cores - 1), "once, on whichever core");
        self.say(self.flow, Flags::ACK, b"more");
        assert_eq!(self.cluster.delivered(target).len(), 1);
    }
}

/// A frame from one member to another.
fn framed((from, to): (MemberId, MemberId), repr: &Repr, payload: &[u8]) -> Vec<u8> {
    let path = Path { encapsulation: Encapsulation::Gre, src: trusted_address(from), dst: trusted_address(to) };
    let mut packet = [&vec![0; path.overhead()], payload].concat();
    path.write(repr, &mut packet).unwrap();
    ether(trusted_mac(from), trusted_mac(to), None, &packet)
}

#[test]
fn hostile_39_a_repeated_frame_is_delivered_once_on_whichever_core_it_arrives() {
    in_all(Scene::stands_unharmed);
}

#[test]
fn hostile_39_a_repeated_frame_of_a_fragment_or_an_error_is_delivered_once_too() {
    in_all(|mut scene| {
        let target = scene.target;
        let piece = |at: u16, more: bool| {
            let mut header = ip_header(scene.flow.src, scene.flow.dst, protocol::TCP);
            (header.more_fragments, header.dont_fragment) = (more, false);
            (header.fragment_offset, header.identification) = (at, 77);
            let segment = scene.flow.tcp_segment(Flags::ACK, None, &[7; 100]);
            let bytes = if more { &segment[..64] } else { &segment[64..] };
            ip(header, bytes)
        };
        let quoted = scene.flow.answer().tcp(Flags::ACK, b"answer");
        let error = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &quoted[..40]].concat();
        let error = ip(ip_header(scene.flow.src, scene.flow.dst, protocol::ICMP), &error);
        for packet in [piece(0, true), piece(64, false), error] {
            let sealed = scene.client.seal(&packet);
            scene.cluster.intercepted = Some(Vec::new());
            scene.cluster.client_sends(&sealed);
            scene.cluster.settle();
            let frame = scene.cluster.intercepted.take().unwrap().remove(0).1;
            for _ in 0..2 {
                scene.on_every_core(target, &frame, DropReason::ReplayDuplicate);
            }
            assert_eq!(scene.cluster.delivered(target).len(), 1);
        }
        scene.stands_unharmed();
    });
}

#[test]
fn hostile_39_frames_of_other_epochs_starts_and_serials_are_refused_on_every_core() {
    in_all(|mut scene| {
        let target = scene.target;
        type Change = fn(&mut Repr);
        let changes: [(Change, DropReason); 5] = [
            (|repr| repr.epoch = Epoch(0), DropReason::FrameStaleEpoch),
            (|repr| repr.epoch = Epoch(2), DropReason::FrameFutureEpoch),
            (|repr| repr.incarnation = Incarnation(7), DropReason::FrameOtherIncarnation),
            (|repr| repr.serial = Serial(0), DropReason::FrameStaleSerial),
            (|repr| repr.dvipa = [203, 0, 113, 81].into(), DropReason::FrameUnknownDvipa),
        ];
        for (change, reason) in changes {
            let frame = scene.reframed(change);
            // Which address an ESP packet is for is seen first where it is steered.
            let is_seen_first = reason == DropReason::FrameUnknownDvipa
                && scene.cluster.processing == Processing::Target
                && scene.cluster.members[0].cores() > 1;
            let reason = if is_seen_first { DropReason::FrameMalformed } else { reason };
            scene.refused(target, &frame, reason);
        }
        // At or below the carried floor, the number is not taken.
        let floor = scene.reframed(|repr| repr.floor = 1_000);
        scene.refused(target, &floor, DropReason::BelowFloor);
        scene.stands_unharmed();
    });
}

#[test]
fn hostile_39_frames_from_strangers_in_loops_and_in_frames_are_refused_on_every_core() {
    in_all(|mut scene| {
        let target = scene.target;
        let packet = scene.frame[14..].to_vec();
        let found = find(&packet).unwrap();
        let (repr, payload) = (found.repr, packet[found.payload].to_vec());
        let (owner, me, other) = (number(0), number(target), number(scene.other()));
        for (between, reason) in [
            ((MemberId(9), me), DropReason::TrustedStranger),
            ((owner, other), DropReason::TrustedStranger),
            ((me, me), DropReason::TrustedStranger),
            ((other, me), DropReason::FrameWrongRole),
        ] {
            let frame = ether(trusted_mac(owner), trusted_mac(me), None, &framed(between, &repr, &payload)[14..]);
            scene.refused(target, &frame, reason);
        }
        // The owner's own frame comes back to it, and what targets send is sent to a target.
        let back = ether(trusted_mac(me), trusted_mac(owner), None, &packet);
        scene.refused(0, &back, DropReason::TrustedStranger);
        let to_seal = scene.reframed(|repr| repr.kind = Kind::ToSeal);
        scene.refused(target, &to_seal, DropReason::FrameWrongRole);
        // A frame in a frame, as either kind: nothing goes to a member's own address.
        let plain = framed((owner, me), &Repr { kind: Kind::Plain, ..repr }, &packet);
        scene.refused(target, &plain, DropReason::FrameNested);
        let esp = framed((owner, me), &Repr { kind: Kind::Esp, ..repr }, &packet);
        let is_steered = scene.cluster.members[target].cores() > 1;
        let reason = if is_steered { DropReason::FrameMalformed } else { DropReason::FrameNested };
        let refused = scene.on_every_core(target, &esp, reason)
            + scene.cluster.members[target].dropped(DropReason::AddressNotServed);
        assert!(refused >= scene.cluster.members[target].cores() as u64, "{:?}", scene.cluster.members[target].drops());
        assert_eq!(scene.cluster.delivered_counts(), [0, 0, 0]);
        scene.stands_unharmed();
    });
}

#[test]
fn hostile_39_a_frame_of_the_kind_that_its_sa_is_not_processed_as_is_refused() {
    in_all(|mut scene| {
        let target = scene.target;
        let inner = scene.flow.tcp(Flags::ACK, b"never said");
        let found = find(&scene.frame[14..]).unwrap().repr;
        let frame = match found.kind {
            Kind::Esp => framed((number(0), number(target)), &Repr { kind: Kind::Plain, number: 50, ..found }, &inner),
            _plain => {
                let esp = &scene.packet[..];
                let outer = if esp[0] >> 4 == 4 { esp } else { &esp[14..] };
                framed((number(0), number(target)), &Repr { kind: Kind::Esp, ..found }, outer)
            }
        };
        scene.refused(target, &frame, DropReason::FrameWrongRole);
        scene.stands_unharmed();
    });
}

/// The core that works on a fragment and the core of its connection are two: what is between them must be judged again.
#[test]
fn hostile_39_what_waits_between_cores_is_refused_when_its_start_or_epoch_has_passed() {
    for (processing, is_epoch) in [(BOTH[0], true), (BOTH[0], false), (BOTH[1], true), (BOTH[1], false)] {
        let mut judged = 0;
        for port in 5_000..5_016 {
            let mut scene = Scene::new(processing, 3);
            let target = scene.target;
            // An error travels from the core of its addresses to that of the connection that it quotes.
            let flow = Flow { src_port: port, ..scene.flow };
            scene.say(flow, Flags::SYN, b"");
            if scene.cluster.delivered_counts()[target] == 0 {
                continue;
            }
            let quoted = flow.answer().tcp(Flags::ACK, b"answer");
            let error = [&[3, 1, 0, 0, 0, 0, 0, 0][..], &quoted[..40]].concat();
            let sealed = scene.client.seal(&ip(ip_header(flow.src, flow.dst, protocol::ICMP), &error));
            scene.cluster.intercepted = Some(Vec::new());
            scene.cluster.client_sends(&sealed);
            scene.cluster.settle();
            let frame = scene.cluster.intercepted.take().unwrap().remove(0).1;
            // Steered, accepted and its number taken, but not delivered: every core polls but that of the connection.
            let before = scene.cluster.top(scene.client.spec.spi_in, target);
            let bench = &mut scene.cluster.members[target];
            let home = bench.owner(&flow.key(protocol::TCP));
            let others: Vec<_> = (0..3).filter(|&core| core != home).collect();
            bench.inject(others[0], TRUSTED, &frame);
            for &core in others.iter().chain(&others) {
                bench.poll(core);
            }
            // Or its core is that of the connection, which has not polled.
            let is_between = scene.cluster.top(scene.client.spec.spi_in, target) > before;
            let reason = if is_epoch { DropReason::FrameStaleEpoch } else { DropReason::FrameOtherIncarnation };
            if is_epoch {
                scene.cluster.epoch = Epoch(2);
            } else {
                scene.cluster.seats[target].incarnation = Incarnation(999);
            }
            scene.cluster.announce_to(target);
            scene.cluster.settle();
            judged += u32::from(is_between);
            let delivered = scene.cluster.delivered(target).len() as u64;
            assert_eq!((scene.cluster.members[target].dropped(reason), delivered), (1, 0));
        }
        assert!(judged > 0, "some waited between two cores");
    }
}

#[test]
fn hostile_34_what_is_forged_to_look_like_a_connection_harms_none_and_makes_none() {
    in_all(|mut scene| {
        let (target, flow) = (scene.target, scene.flow);
        let tables = |scene: &mut Scene| [1, 2].map(|at| scene.cluster.members[at].connections());
        let before = tables(&mut scene);
        let fresh = Flow { src_port: 6_000, ..flow };
        let said: Vec<_> = [
            (flow, Flags::ACK),
            (flow, Flags::FIN | Flags::ACK),
            (flow, Flags::RST),
            (flow, Flags::SYN),
            (fresh, Flags::SYN),
            (fresh, Flags::ACK),
        ]
        .map(|(flow, flags)| scene.client.seal(&flow.tcp(flags, b"never said, but it decrypts to this")))
        .to_vec();
        for mut forged in said {
            // The first blocks, which a peek sees, stay; what it does not see is another's, or the ICV is.
            let last = forged.len() - 1;
            for at in [last, last - 16] {
                let byte = forged[at];
                forged[at] ^= 0x40;
                for core in 0..scene.cluster.members[0].cores() {
                    scene.cluster.members[0].client_sends(core, &forged);
                    scene.cluster.settle();
                }
                forged[at] = byte;
            }
        }
        assert_eq!(scene.cluster.delivered_counts(), [0, 0, 0]);
        assert_eq!(tables(&mut scene), before, "no state, no age, no entry has changed");
        assert!(scene.cluster.routes_of(&fresh.key(protocol::TCP)).is_empty());
        let failed: u64 = (0..3).map(|at| scene.cluster.members[at].dropped(DropReason::AuthenticationFailed)).sum();
        assert!(failed > 0);
        let window = [0, target].map(|at| scene.cluster.top(scene.client.spec.spi_in, at));
        assert!(window[0].max(window[1]) <= 2, "no window has moved: {window:?}");
        scene.stands_unharmed();
    });
}

#[test]
fn hostile_32_a_copy_is_refused_at_another_target_and_on_another_core() {
    in_all(|mut scene| {
        let (target, other) = (scene.target, scene.other());
        scene.on_every_core(target, &scene.frame.clone(), DropReason::ReplayDuplicate);
        assert_eq!(scene.cluster.delivered(target).len(), 1);
        // Sent on to the other target, it is not meant for that; and made out for it, it is of another start.
        let astray = ether(trusted_mac(number(0)), trusted_mac(number(other)), None, &scene.frame.clone()[14..]);
        scene.refused(other, &astray, DropReason::TrustedStranger);
        let found = find(&scene.frame[14..]).unwrap();
        let redirected = framed((number(0), number(other)), &found.repr, &scene.frame[14..][found.payload]);
        scene.refused(other, &redirected, DropReason::FrameOtherIncarnation);
        // The client's own copy, by every queue of the owner.
        for core in 0..scene.cluster.members[0].cores() {
            scene.cluster.members[0].client_sends(core, &scene.packet);
            scene.cluster.settle();
        }
        assert_eq!(scene.cluster.delivered_counts(), [0, 0, 0]);
        // And by the other target's own network port.
        scene.cluster.members[other].client_sends(0, &scene.packet);
        scene.cluster.settle();
        assert_eq!(scene.cluster.members[other].dropped(DropReason::NotOwner), 1);
        assert_eq!(scene.cluster.delivered_counts(), [0, 0, 0]);
    });
}

#[test]
fn hostile_32_copies_are_refused_after_a_rekey_and_after_expiry_and_reassignment() {
    in_all(|mut scene| {
        let mut packets = vec![scene.packet.clone()];
        let mut frames = vec![scene.frame.clone()];
        scene.cluster.trusted_frame(scene.target, &scene.frame.clone());
        scene.cluster.settle();
        assert_eq!(scene.cluster.delivered_counts()[scene.target], 1);
        let again = |scene: &mut Scene, packets: &[Vec<u8>], frames: &[Vec<u8>]| {
            for core in 0..scene.cluster.members[0].cores() {
                packets.iter().for_each(|packet| scene.cluster.members[0].client_sends(core, packet));
                for at in 1..3 {
                    frames.iter().for_each(|frame| scene.cluster.members[at].inject(core, TRUSTED, frame));
                }
                scene.cluster.settle();
            }
            assert_eq!(scene.cluster.delivered_counts(), [0, 0, 0]);
        };
        // A rekey: the new SA is in use, the old one is still there.
        let spec = scene.client.spec.rekeyed();
        scene.client = scene.cluster.connect(spec);
        packets.push(scene.say(scene.flow, Flags::ACK, b"under the new one"));
        assert_eq!(scene.cluster.delivered_counts()[scene.target], 1);
        again(&mut scene, &packets, &frames);
        // Under the new SPI, an old packet is nobody's.
        let mut moved = packets[0].clone();
        let esp = scene.client.esp_start();
        moved[esp..esp + 4].copy_from_slice(&scene.client.spec.spi_in.to_be_bytes());
        again(&mut scene, &[moved], &[]);
        // Expiry, freeing, and the same addresses and ports on some target again: with the freeing's tops as floors.
        scene.cluster.pass(Duration::from_secs(10_000));
        (1..3).for_each(|at| _ = scene.cluster.free(at));
        again(&mut scene, &packets, &frames);
        for _ in 0..4 {
            scene.cluster.intercepted = Some(Vec::new());
            packets.push(scene.say(scene.flow, Flags::SYN, b""));
            frames.extend(scene.cluster.intercepted.take().unwrap().into_iter().map(|(_, frame)| frame));
            scene.cluster.trusted_frame(1, frames.last().unwrap());
            scene.cluster.trusted_frame(2, frames.last().unwrap());
            scene.cluster.settle();
            assert_eq!(scene.cluster.delivered_counts().iter().sum::<usize>(), 1);
            again(&mut scene, &packets, &frames);
            scene.cluster.pass(Duration::from_secs(10_000));
            (1..3).for_each(|at| _ = scene.cluster.free(at));
            again(&mut scene, &packets, &frames);
        }
    });
}
