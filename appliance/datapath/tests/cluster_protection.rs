//! A cluster whose frames are protected by ESP: nothing in the clear goes out of a trusted port, or is taken there.

use cluster::fabric::{Processing, Protection};
use cluster::member::NumberSource;
use datapath::drops::DropReason;
use datapath::mailbox::Command;
use ipsec::Spi;
use ipsec::sa::PeerId;
use wire::tcp::Flags;
use wire::{ipv4, protocol};

use crate::support::client::{Client, SaSpec};
use crate::support::cluster::Cluster;
use crate::support::packets::{a_hop_later, ip_in};

fn protected(cores: usize, processing: Processing) -> (Cluster, Client) {
    let mut cluster = Cluster::new(3, cores);
    cluster.processing = processing;
    cluster.protect(0x5a);
    let client = cluster.connect(SaSpec { home: cores - 1, ..SaSpec::default() });
    (cluster, client)
}

/// Lets a packet of the client's come to its frame, which is kept back.
fn frame_for_a_target(cluster: &mut Cluster, client: &mut Client, port: u16) -> (usize, Vec<u8>) {
    cluster.intercepted = Some(Vec::new());
    cluster.client_sends(&client.seal(&client.flow(port).tcp(Flags::SYN, b"")));
    cluster.settle();
    cluster.intercepted.take().unwrap().remove(0)
}

#[test]
fn connections_work_both_ways_and_every_frame_between_members_is_esp() {
    for (cores, processing) in [(1, Processing::Target), (3, Processing::Target), (2, Processing::Distributor)] {
        let (mut cluster, mut client) = protected(cores, processing);
        for port in 5_000..5_040 {
            cluster.intercepted = Some(Vec::new());
            let packet = client.flow(port).tcp(Flags::SYN, b"");
            cluster.client_sends(&client.seal(&packet));
            cluster.settle();
            let frames = cluster.intercepted.as_ref().unwrap();
            assert_eq!(frames.len(), 1);
            let outer = ipv4::Packet::new_checked(ip_in(&frames[0].1)).unwrap();
            assert_eq!(outer.protocol(), protocol::ESP);
            assert!(!frames[0].1.windows(4).any(|bytes| bytes == [203, 0, 113, 80]), "the DVIPA shows");
            cluster.release();
            cluster.settle();
            let at = (1..3).find(|&at| !cluster.members[at].delivered.is_empty()).unwrap();
            assert_eq!(ip_in(&cluster.delivered(at)[0]), a_hop_later(&packet));
            let answer = client.flow(port).answer().tcp(Flags::SYN | Flags::ACK, b"");
            cluster.web_sends(at, &answer);
            cluster.settle();
            assert_eq!(client.open(&cluster.sent(at)[0]).unwrap().inner, a_hop_later(&answer));
        }
        (0..3).for_each(|at| cluster.assert_drops(at, &[]));
    }
}

#[test]
fn frames_that_a_target_makes_are_protected_too() {
    let mut cluster = Cluster::new(3, 2);
    cluster.numbers_apart = 0;
    cluster.protect(0x5a);
    let mut client = cluster.connect(SaSpec::default());
    let spec = client.spec.clone();
    let (spi, child) = (Spi::new(spec.spi_out).unwrap(), Spi::new(spec.spi_in).unwrap());
    for at in 0..3 {
        let source = if at == 0 { NumberSource::Own { from: 1 } } else { NumberSource::Sequencer };
        let peer = PeerId(spec.peer);
        let command = || Command::SetNumbers { peer, spi, child, source, window_packets: 32 };
        cluster.members[at].command_all(command);
        cluster.members[at].settle();
    }
    cluster.client_sends(&client.seal(&client.flow(5_000).udp(b"hello")));
    cluster.settle();
    let at = cluster.delivered_counts().iter().position(|&count| count == 1).unwrap();
    for _ in 0..20 {
        cluster.web_sends(at, &client.flow(5_000).answer().udp(b"answer"));
    }
    cluster.settle();
    let answers: Vec<u64> = cluster.sent(at).iter().map(|frame| client.open(frame).unwrap().sequence).collect();
    assert_eq!(answers, (1..=20).collect::<Vec<_>>());
    (0..3).for_each(|at| cluster.assert_drops(at, &[]));
}

#[test]
fn a_protected_frame_that_comes_again_is_opened_once_whatever_it_carries() {
    for (cores, processing) in [(1, Processing::Target), (3, Processing::Distributor)] {
        let (mut cluster, mut client) = protected(cores, processing);
        let (at, frame) = frame_for_a_target(&mut cluster, &mut client, 5_000);
        for _ in 0..10 {
            cluster.trusted_frame(at, &frame);
            cluster.settle();
        }
        assert_eq!(cluster.delivered(at).len(), 1);
        cluster.assert_drops(at, &[(DropReason::FrameReplayed, 9)]);
    }
}

#[test]
fn hostile_39_what_is_forged_cut_or_in_the_clear_ends_on_a_protected_trusted_port() {
    let (mut cluster, mut client) = protected(2, Processing::Target);
    cluster.protection = Protection::None;
    cluster.announce_to(0);
    let (clear_at, clear) = frame_for_a_target(&mut cluster, &mut client, 5_000);
    cluster.protection = Protection::Esp;
    cluster.announce_to(0);
    cluster.trusted_frame(clear_at, &clear);
    cluster.settle();
    cluster.assert_drops(clear_at, &[(DropReason::FrameUnprotected, 1)]);

    let other = 3 - clear_at;
    let (at, frame) = loop {
        let (at, frame) = frame_for_a_target(&mut cluster, &mut client, 6_000);
        if at == other {
            break (at, frame);
        }
    };
    // Behind the SPI, each byte flipped in turn.
    let begin = 14 + ipv4::HEADER_LEN + 4;
    for byte in begin..frame.len() {
        let mut forged = frame.clone();
        forged[byte] ^= 0x10;
        cluster.trusted_frame(at, &forged);
    }
    // From another member, with which this one has other keys.
    let mut foreign = frame.clone();
    foreign[29] = clear_at as u8 + 1;
    ipv4::Packet::new_checked(&mut foreign[14..]).unwrap().fill_checksum();
    cluster.trusted_frame(at, &foreign);
    cluster.settle();
    let forged = cluster.members[at].dropped(DropReason::FrameForged);
    let replayed = cluster.members[at].dropped(DropReason::FrameReplayed);
    // A forged number may lie before the window's first one, 1.
    assert!(forged + replayed == (frame.len() - begin) as u64 && forged > replayed, "{forged} {replayed}");
    assert_eq!(cluster.members[at].dropped(DropReason::FrameKeyless), 1);
    assert!(cluster.delivered(at).is_empty());
    // Nothing of this has harmed the lane.
    cluster.trusted_frame(at, &frame);
    cluster.settle();
    assert_eq!(cluster.delivered(at).len(), 1);
}

#[test]
fn a_member_that_protects_nothing_refuses_what_is_protected() {
    let (mut cluster, mut client) = protected(1, Processing::Target);
    let (at, frame) = frame_for_a_target(&mut cluster, &mut client, 5_000);
    cluster.protection = Protection::None;
    cluster.announce_to(at);
    cluster.trusted_frame(at, &frame);
    cluster.settle();
    cluster.assert_drops(at, &[(DropReason::FrameProtected, 1)]);
}

#[test]
fn without_a_session_frames_are_dropped_and_counted_and_never_sent_in_the_clear() {
    let mut cluster = Cluster::new(3, 2);
    cluster.protection = Protection::Esp;
    cluster.announce();
    let mut client = cluster.connect(SaSpec::default());
    cluster.intercepted = Some(Vec::new());
    for port in 5_000..5_010 {
        cluster.client_sends(&client.seal(&client.flow(port).tcp(Flags::SYN, b"")));
    }
    cluster.settle();
    assert!(cluster.intercepted.take().unwrap().is_empty());
    cluster.assert_drops(0, &[(DropReason::FrameKeyless, 10)]);
}

#[test]
fn a_frame_that_does_not_fit_with_its_protection_is_not_sent() {
    let (mut cluster, mut client) = protected(1, Processing::Target);
    // The trusted wire of the bench is as wide as the frame in the clear of the longest packet needs, and no wider.
    let fits = |cluster: &mut Cluster, client: &mut Client, len: usize| {
        let payload = vec![0; len];
        cluster.client_sends(&client.seal(&client.flow(7_000).udp(&payload)));
        cluster.settle();
        cluster.delivered_counts().iter().sum::<usize>() == 1
    };
    let longest = (0..1_400).rev().find(|&len| fits(&mut cluster, &mut client, len)).unwrap();
    cluster.protection = Protection::None;
    cluster.announce();
    let longest_clear = (0..1_400).rev().find(|&len| fits(&mut cluster, &mut client, len)).unwrap();
    assert!((longest..=longest + 40).contains(&longest_clear), "{longest} {longest_clear}");
    assert!(cluster.members[0].dropped(DropReason::RelayTooBig) > 0 || longest == longest_clear);
}
