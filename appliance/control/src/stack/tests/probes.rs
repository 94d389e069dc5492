use super::*;
use wire::tcp::{self, Flags};

const INSIDE: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 1);
const APPLICATION: Ipv4Addr = Ipv4Addr::new(10, 7, 0, 2);
const SERVED: u16 = 7_575;

/// An appliance that owns the DVIPA on another port, and reaches it on an application host by this one.
fn prober() -> Stack {
    let settings = StackSettings {
        ports: vec![port(0, OWN_MAC, INSIDE), port(1, MacAddress([2, 0, 0, 0, 1, 10]), OWN)],
        routes: vec![StaticRoute { to: "203.0.113.80/32".parse().unwrap(), via: Some(APPLICATION.into()), port: None }],
        dvipas: vec![Dvipa { address: DVIPA.into(), port: PortId(1), owned: true }],
    };
    Stack::new(NOW, settings, [7; 32]).unwrap()
}

/// A host that holds the DVIPA and serves one port of it.
fn application() -> Stack {
    let mut link = port(0, STRANGER_MAC, APPLICATION);
    link.addresses.push(PortAddress::new(DVIPA.into(), 32).unwrap());
    let settings = StackSettings { ports: vec![link], ..StackSettings::default() };
    let mut stack = Stack::new(NOW, settings, [9; 32]).unwrap();
    let members = vec![INSIDE.into()];
    let served = TrustedSettings { port: PORT, address: DVIPA.into(), members, xcf_port: SERVED, heartbeat_port: 1 };
    stack.open_trusted(served).unwrap();
    stack
}

fn joined() -> Segment {
    let mut segment = Segment::new(vec![prober(), application()]);
    segment.run(Duration::from_secs(1));
    segment.carried.clear();
    segment
}

fn probe(segment: &mut Segment, port: u16) -> ProbeId {
    let now = segment.now;
    segment.stacks[0].probe(now, PORT, INSIDE.into(), socket(DVIPA, port)).unwrap()
}

fn flags(segment: &Segment) -> Vec<Flags> {
    let of = |frame: &Vec<u8>| {
        let view = ethernet::Packet::new_checked(&frame[..]).unwrap();
        let packet =
            ipv4::Packet::new_checked(view.payload()).ok().filter(|packet| packet.protocol() == protocol::TCP)?;
        Some(tcp::Packet::new_checked(packet.payload()).unwrap().flags())
    };
    segment.carried.iter().filter_map(of).collect()
}

fn has(flags: Flags, all: &[Flags]) -> bool {
    all.iter().all(|&flag| flags.contains(flag))
}

#[test]
fn a_host_that_serves_is_ready_and_its_application_never_hears_of_it() {
    let mut segment = joined();
    for _ in 0..100 {
        let id = probe(&mut segment, SERVED);
        segment.run(Duration::from_millis(10));
        assert_eq!(segment.stacks[0].poll_probe(), Some((id, ProbeOutcome::Ready)));
        let now = segment.now;
        assert_eq!(segment.stacks[1].poll_stream(now), None);
    }
    let flags = flags(&segment);
    assert_eq!(flags.len(), 300);
    for exchange in flags.chunks(3) {
        assert!(exchange[0].opens_connection() && has(exchange[1], &[Flags::SYN, Flags::ACK]));
        assert!(exchange[2].contains(Flags::RST), "{exchange:?}");
    }
    assert_eq!(segment.stacks[0].probes.poll_timeout(), None);
}

#[test]
fn a_host_that_does_not_serve_refuses() {
    let mut segment = joined();
    let id = probe(&mut segment, 81);
    segment.run(Duration::from_millis(10));
    assert_eq!(segment.stacks[0].poll_probe(), Some((id, ProbeOutcome::Refused)));
}

#[test]
fn a_host_that_does_not_answer_is_given_two_seconds() {
    let mut segment = Segment::new(vec![prober()]);
    segment.run(Duration::from_secs(10));
    let id = probe(&mut segment, SERVED);
    segment.run(Duration::from_millis(1_990));
    assert_eq!(segment.stacks[0].poll_probe(), None);
    segment.run(Duration::from_millis(20));
    assert_eq!(segment.stacks[0].poll_probe(), Some((id, ProbeOutcome::TimedOut)));
}

#[test]
fn a_lost_syn_is_repeated() {
    let mut segment = joined();
    let mut lost = false;
    segment.loses = Box::new(move |frame| frame[23] == protocol::TCP && !core::mem::replace(&mut lost, true));
    let id = probe(&mut segment, SERVED);
    segment.run(Duration::from_millis(1_900));
    assert_eq!(segment.stacks[0].poll_probe(), Some((id, ProbeOutcome::Ready)));
}

#[test]
fn a_packet_from_a_dvipa_of_ours_is_believed_only_while_a_probe_waits_for_it() {
    let mut segment = joined();
    probe(&mut segment, SERVED);
    segment.run(Duration::from_millis(10));
    let answer = segment.carried.iter().find(|frame| frame[6..12] == STRANGER_MAC.0 && frame[23] == protocol::TCP);
    let answer = answer.unwrap().clone();
    let before = segment.stacks[0].counters().dropped(DropReason::SourceInvalid);
    let now = segment.now;
    segment.stacks[0].handle_frame(now, PORT, &answer);
    assert_eq!(segment.stacks[0].counters().dropped(DropReason::SourceInvalid), before + 1);
    assert_eq!((drain(&mut segment.stacks[0]), segment.stacks[0].counters().difference()), (vec![], 0));
}

#[test]
fn probes_that_cannot_be_are_refused_and_their_number_is_bounded() {
    let mut stack = prober();
    let served = socket(DVIPA, SERVED);
    let elsewhere = socket(Ipv4Addr::new(192, 0, 2, 7), 80);
    let (inside, own) = (IpAddr::from(INSIDE), IpAddr::from(OWN));
    assert_eq!(stack.probe(NOW, PORT, own, served), Err(ProbeError::Source(own, PORT)));
    assert_eq!(stack.probe(NOW, PortId(7), inside, served), Err(ProbeError::Source(inside, PortId(7))));
    assert_eq!(stack.probe(NOW, PORT, inside, elsewhere), Err(ProbeError::NoRoute(elsewhere.ip(), PORT)));
    assert_eq!(stack.probe(NOW, PORT, inside, socket(DVIPA, 0)), Err(ProbeError::Destination(socket(DVIPA, 0))));
    let begun = (0..1_000).filter(|_| stack.probe(NOW, PORT, inside, served).is_ok()).count();
    assert_eq!(begun, 256);
    assert_eq!(stack.probe(NOW, PORT, inside, served), Err(ProbeError::TooMany));
    stack.handle_timeout(NOW + Duration::from_secs(2));
    assert_eq!(stack.probe(NOW, PORT, inside, served), Err(ProbeError::TooMany), "nobody has taken the answers");
    assert_eq!(core::iter::from_fn(|| stack.poll_probe()).count(), 256);
    assert!(stack.probe(NOW + Duration::from_secs(2), PORT, inside, served).is_ok());
}
