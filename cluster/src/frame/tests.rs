use super::*;
use crate::fabric::{Encapsulation, Fabric, FabricDvipa, FabricMember, FabricTarget, Processing, Protection};
use crate::id::MemberId;
use ipsec::ecn::Ecn;
use proptest::prelude::*;

const OWNER: MemberId = MemberId(1);
const TARGET: MemberId = MemberId(2);
const OTHER: MemberId = MemberId(3);

fn dvipa() -> IpAddr {
    [203, 0, 113, 80].into()
}

fn address(member: MemberId) -> IpAddr {
    [192, 168, 0, member.0 as u8].into()
}

/// Owner 1, targets 1 (the owner itself) and 2, and 3, which has no part in it.
fn fabric(me: MemberId) -> Fabric {
    let target = |member: MemberId| FabricTarget {
        member,
        incarnation: Incarnation(u64::from(member.0) * 10),
        serial: Serial(7),
        is_member: true,
        is_eligible: true,
    };
    Fabric {
        me,
        incarnation: Incarnation(u64::from(me.0) * 10),
        encapsulation: Encapsulation::Gre,
        protection: Protection::None,
        members: [OWNER, TARGET, OTHER].map(|id| FabricMember { id, address: address(id) }).to_vec(),
        dvipas: vec![FabricDvipa {
            address: dvipa(),
            owner: OWNER,
            epoch: Epoch(5),
            processing: Processing::Target,
            oldest_serial: Serial(7),
            targets: if me == OWNER { vec![target(OWNER), target(TARGET)] } else { Vec::new() },
            is_settling: false,
        }],
    }
}

fn sample(kind: Kind) -> Repr {
    Repr {
        kind,
        flow_hash: 0x1234_5678,
        epoch: Epoch(5),
        incarnation: Incarnation(20),
        serial: Serial(7),
        dvipa: dvipa(),
        spi: Spi::new(0xc0de_0001).unwrap(),
        floor: 0x0102_0304_0506_0708,
        number: 0x1112_1314_1516_1718,
    }
}

/// A packet of 20 bytes and nothing behind them.
fn ipv4_to(dst: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0; 20];
    (packet[0], packet[1], packet[3]) = (0x45, 0xb9, 20);
    packet[16..].copy_from_slice(&dst);
    packet
}

fn written(path: Path, repr: &Repr, payload: &[u8]) -> Vec<u8> {
    let mut packet = [vec![0xaa; path.overhead()], payload.to_vec()].concat();
    path.write(repr, &mut packet).unwrap();
    packet
}

fn paths() -> Vec<Path> {
    let v4 = (address(OWNER), address(TARGET));
    let v6: (IpAddr, IpAddr) = ("fd00::1".parse().unwrap(), "fd00::2".parse().unwrap());
    [Encapsulation::Gre, Encapsulation::GreInUdp]
        .into_iter()
        .flat_map(|encapsulation| [v4, v6].map(|(src, dst)| Path { encapsulation, src, dst }))
        .collect()
}

#[test]
fn the_header_lies_as_it_is_drawn() {
    let mut bytes = [0xff; HEADER_LEN];
    sample(Kind::Plain).emit(&mut Packet::new_unchecked(&mut bytes[..]));
    let drawn = [
        &[1, 2, 0, 0, 0x12, 0x34, 0x56, 0x78][..],
        &5_u64.to_be_bytes(),
        &20_u64.to_be_bytes(),
        &7_u64.to_be_bytes(),
        &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 80],
        &[0xc0, 0xde, 0, 1, 0, 0, 0, 0],
        &[1, 2, 3, 4, 5, 6, 7, 8],
        &[0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18],
    ]
    .concat();
    assert_eq!(bytes[..], drawn[..]);
}

#[test]
fn every_field_that_must_have_one_value_is_held_to_it() {
    let mut good = [0; HEADER_LEN];
    sample(Kind::Esp).emit(&mut Packet::new_unchecked(&mut good[..]));
    for (at, wrong, error) in [
        (0, 0, wire::Error::Version),
        (0, 2, wire::Error::Version),
        (1, 0, wire::Error::Malformed),
        (1, 6, wire::Error::Malformed),
        (2, 1, wire::Error::Malformed),
        (3, 1, wire::Error::Malformed),
        (52, 1, wire::Error::Malformed),
        (55, 1, wire::Error::Malformed),
    ] {
        let mut bytes = good;
        bytes[at] = wrong;
        assert_eq!(Packet::new_checked(&bytes[..]).unwrap_err(), error, "{wrong} at {at}");
    }
    good[48..52].copy_from_slice(&255_u32.to_be_bytes());
    let reserved_spi = Packet::new_checked(&good[..]).unwrap();
    assert_eq!(Repr::parse(&reserved_spi), Err(wire::Error::Malformed));
    for len in 0..HEADER_LEN {
        assert_eq!(Packet::new_checked(&good[..len]).unwrap_err(), wire::Error::Truncated);
    }
}

#[test]
fn the_outer_headers_say_what_they_must() {
    let payload = ipv4_to([203, 0, 113, 80]);
    let [gre4, gre6, udp4, udp6] = paths()[..] else { panic!("four paths") };
    assert_eq!([gre4, gre6, udp4, udp6].map(|path| path.overhead()), [96, 116, 104, 124]);

    let bytes = written(gre4, &sample(Kind::Esp), &payload);
    let ip = wire::ipv4::Packet::new_checked(&bytes[..]).unwrap();
    assert!(ip.verify_checksum() && ip.dont_fragment() && !ip.more_fragments());
    assert_eq!((ip.ttl(), ip.protocol(), ip.total_len(), ip.identification()), (64, 47, bytes.len(), 0));
    assert_eq!((ip.dscp(), ip.ecn()), (0xb9 >> 2, 1), "class and mark of the packet inside");
    assert_eq!(bytes[20..24], [0, 0, 0x88, 0xb5]);

    let bytes = written(gre6, &sample(Kind::Esp), &payload);
    let ip = wire::ipv6::Packet::new_checked(&bytes[..]).unwrap();
    assert_eq!((ip.hop_limit(), ip.next_header(), ip.total_len()), (64, 47, bytes.len()));
    assert_eq!((ip.dscp(), ip.ecn(), ip.flow_label()), (0xb9 >> 2, 1, 0x4_5678));

    for path in [udp4, udp6] {
        let bytes = written(path, &sample(Kind::Esp), &payload);
        let at = if path.src.is_ipv4() { 20 } else { 40 };
        let udp = wire::udp::Packet::new_checked(&bytes[at..]).unwrap();
        assert_eq!((udp.src_port(), udp.dst_port()), (0xc000 | 0x1678, 4754));
        assert_eq!(udp.len(), bytes.len() - at);
        assert_eq!(udp.checksum() == 0, path.src.is_ipv4());
        assert!(udp.verify_checksum(path.src, path.dst));
    }
    let numbers = written(gre4, &sample(Kind::NumberGrant), &payload);
    assert_eq!(numbers[1], 0, "what is no packet has no class, whatever its bytes look like");
    let inner6 = [[0x6b, 0x9f].to_vec(), vec![0; 38]].concat();
    assert_eq!(written(gre4, &sample(Kind::Plain), &inner6)[1], 0xb9, "the class of an IPv6 packet");
}

#[test]
fn what_cannot_be_written_is_refused_and_nothing_is_touched() {
    let path = paths()[0];
    let mut short = vec![0xaa; path.overhead() - 1];
    assert_eq!(path.write(&sample(Kind::Esp), &mut short), Err(wire::Error::Truncated));
    assert!(short.iter().all(|byte| *byte == 0xaa));
    let mut long = vec![0xaa; 65_536];
    assert_eq!(path.write(&sample(Kind::Esp), &mut long), Err(wire::Error::Malformed));
    let mixed = Path { src: "fd00::1".parse().unwrap(), ..path };
    let mut packet = vec![0xaa; 200];
    assert_eq!(mixed.write(&sample(Kind::Esp), &mut packet), Err(wire::Error::Malformed));
    assert!(long.iter().chain(&packet).all(|byte| *byte == 0xaa));
}

#[test]
fn a_frame_cut_at_any_byte_is_no_frame() {
    for path in paths() {
        let bytes = written(path, &sample(Kind::Esp), &ipv4_to([203, 0, 113, 80]));
        assert!(find(&bytes).is_ok());
        for len in 0..bytes.len() {
            assert_eq!(find(&bytes[..len]), Err(NotAFrame::Broken(wire::Error::Truncated)), "{path:?} cut to {len}");
        }
    }
}

/// The IP header's own length cut short, checksum and all: then the frame inside is.
#[test]
fn a_frame_whose_ip_header_says_less_is_no_frame() {
    let path = paths()[0];
    let bytes = written(path, &sample(Kind::Esp), &[]);
    for total_len in 20..bytes.len() as u16 {
        let mut bytes = bytes.clone();
        let mut ip = wire::ipv4::Packet::new_unchecked(&mut bytes[..]);
        ip.set_total_len(total_len);
        ip.fill_checksum();
        assert_eq!(find(&bytes), Err(NotAFrame::Broken(wire::Error::Truncated)), "{total_len}");
    }
}

#[test]
fn padding_of_the_link_is_not_payload() {
    for path in paths() {
        let payload = ipv4_to([203, 0, 113, 80]);
        let mut bytes = written(path, &sample(Kind::Esp), &payload);
        bytes.extend([0; 9]);
        let frame = find(&bytes).unwrap();
        assert_eq!(bytes[frame.payload], payload, "{path:?}");
    }
}

#[test]
fn what_stands_behind_the_datagram_is_not_payload() {
    let path = paths()[2];
    let mut bytes = written(path, &sample(Kind::NumberGrant), &[7; 30]);
    let udp_len = bytes.len() as u16 - 20 - 6;
    wire::udp::Packet::new_unchecked(&mut bytes[20..]).set_len(udp_len);
    assert_eq!(bytes[find(&bytes).unwrap().payload], [7; 24]);
}

#[test]
fn what_is_somebody_elses_is_left_to_others_and_what_is_broken_is_not() {
    let change = |at: usize, to: u8| {
        let mut bytes = written(paths()[0], &sample(Kind::Esp), &[]);
        bytes[at] = to;
        wire::ipv4::Packet::new_unchecked(&mut bytes[..]).fill_checksum();
        find(&bytes)
    };
    assert_eq!(change(9, 6), Err(NotAFrame::Another), "TCP");
    assert_eq!(change(9, 17), Err(NotAFrame::Another), "UDP to a port that is not ours");
    assert_eq!(change(20, 0x20), Err(NotAFrame::Broken(wire::Error::Unsupported)), "GRE with a key");
    assert_eq!(change(21, 1), Err(NotAFrame::Broken(wire::Error::Version)), "GRE version 1");
    assert_eq!(change(22, 0x08), Err(NotAFrame::Broken(wire::Error::Unsupported)), "GRE of another type");
    assert_eq!(change(6, 0x20), Err(NotAFrame::Broken(wire::Error::Malformed)), "a fragment");
    let mut arp_like = written(paths()[0], &sample(Kind::Esp), &[]);
    arp_like[0] = 0x05;
    assert_eq!(find(&arp_like), Err(NotAFrame::Another));
}

#[test]
fn a_checksum_that_is_wrong_or_missing_is_noticed() {
    let mut ip_header = written(paths()[0], &sample(Kind::Esp), &[]);
    ip_header[15] ^= 1;
    assert_eq!(find(&ip_header), Err(NotAFrame::Broken(wire::Error::Checksum)));
    let over_v6 = written(paths()[3], &sample(Kind::Esp), &[]);
    let mut floor = over_v6.clone();
    floor[40 + 8 + 4 + 56] ^= 1;
    assert_eq!(find(&floor), Err(NotAFrame::Broken(wire::Error::Checksum)));
    let mut none = over_v6;
    none[46..48].fill(0);
    assert_eq!(find(&none), Err(NotAFrame::Broken(wire::Error::Checksum)));
}

#[test]
fn a_mark_that_the_trusted_wire_made_is_told() {
    let mut bytes = written(paths()[0], &sample(Kind::Esp), &ipv4_to([203, 0, 113, 80]));
    bytes[1] |= 3;
    wire::ipv4::Packet::new_unchecked(&mut bytes[..]).fill_checksum();
    assert_eq!(find(&bytes).unwrap().ecn, Ecn::Congested);
}

#[test]
fn a_good_frame_of_each_kind_is_accepted_with_what_it_says() {
    for kind in Kind::ALL {
        let (sender, me) = if kind.is_from_owner() { (OWNER, TARGET) } else { (TARGET, OWNER) };
        let accepted = accept(&fabric(me), sender, &sample(kind), &ipv4_to([10, 0, 0, 1])).unwrap();
        let repr = sample(kind);
        assert_eq!((accepted.kind(), accepted.sender(), accepted.child()), (kind, sender, repr.child()));
        assert_eq!((accepted.floor(), accepted.number()), (repr.floor, repr.number));
        assert_eq!((accepted.dvipa(), accepted.spi()), (repr.dvipa, repr.spi));
        // An owner that is a target hands itself frames.
        let to_itself = Repr { incarnation: Incarnation(10), ..repr };
        assert!(accept(&fabric(OWNER), OWNER, &to_itself, &[]).is_ok());
    }
}

fn refusal(me: MemberId, sender: MemberId, change: impl Fn(&mut Repr), kind: Kind) -> Option<Refused> {
    let mut repr = sample(kind);
    change(&mut repr);
    accept(&fabric(me), sender, &repr, &ipv4_to([10, 0, 0, 1])).err()
}

#[test]
fn each_rule_alone_refuses() {
    for kind in Kind::ALL {
        let (sender, me) = if kind.is_from_owner() { (OWNER, TARGET) } else { (TARGET, OWNER) };
        let alone = |change: fn(&mut Repr)| refusal(me, sender, change, kind);
        assert_eq!(alone(|_| {}), None);
        assert_eq!(alone(|repr| repr.dvipa = [203, 0, 113, 81].into()), Some(Refused::UnknownDvipa));
        assert_eq!(alone(|repr| repr.epoch = Epoch(4)), Some(Refused::StaleEpoch));
        assert_eq!(alone(|repr| repr.epoch = Epoch(6)), Some(Refused::FutureEpoch));
        assert_eq!(alone(|repr| repr.incarnation = Incarnation(19)), Some(Refused::WrongIncarnation));
        assert_eq!(alone(|repr| repr.incarnation = Incarnation(21)), Some(Refused::WrongIncarnation));
        let stale = alone(|repr| repr.serial = Serial(6));
        assert_eq!(stale, kind.needs_serial().then_some(Refused::StaleSerial));
        assert_eq!(alone(|repr| repr.serial = Serial(8)), None, "a newer serial: our acknowledgement is under way");
        assert_eq!(refusal(me, MemberId(9), |_| {}, kind), Some(Refused::NotAMember));
        let wrong_sender = if kind.is_from_owner() { Refused::NotFromOwner } else { Refused::NotFromTarget };
        assert_eq!(refusal(me, OTHER, |_| {}, kind), Some(wrong_sender));
        let reaching = accept(&fabric(me), sender, &sample(kind), &ipv4_to([192, 168, 0, 3]));
        assert_eq!(reaching.err(), kind.carries_packet().then_some(Refused::ForAMember));
    }
}

#[test]
fn a_kind_goes_one_way_only() {
    for kind in Kind::ALL {
        if kind.is_from_owner() {
            let backwards = refusal(OWNER, TARGET, |_| {}, kind);
            assert_eq!(backwards, Some(Refused::NotFromOwner), "{kind:?} from a target");
        } else {
            let backwards = refusal(TARGET, OWNER, |_| {}, kind);
            assert_eq!(backwards, Some(Refused::NotTheOwner), "{kind:?} to a target");
        }
    }
}

#[test]
fn an_owner_that_is_no_target_takes_no_frames_of_its_own() {
    let mut fabric = fabric(OWNER);
    fabric.dvipas[0].targets.retain(|target| target.member != OWNER);
    let repr = Repr { incarnation: Incarnation(10), ..sample(Kind::Esp) };
    assert_eq!(accept(&fabric, OWNER, &repr, &[]), Err(Refused::NotATarget));
}

#[test]
fn a_target_that_is_believed_lost_is_not_served() {
    let mut fabric = fabric(OWNER);
    fabric.dvipas[0].targets[1].is_member = false;
    for kind in [Kind::ToSeal, Kind::NumberRequest] {
        assert_eq!(accept(&fabric, TARGET, &sample(kind), &[]), Err(Refused::NotFromTarget));
    }
}

/// HOSTILE 39: GRE from a non-member, with a stale epoch, GRE in GRE, GRE to ourselves in a loop.
#[test]
fn hostile_39_strangers_stale_epochs_frames_in_frames_and_loops_are_refused() {
    let path = paths()[0];
    let fabric = fabric(TARGET);
    let judged = |bytes: &[u8]| {
        let frame = find(bytes).unwrap();
        let sender = sender_of(&fabric, (frame.src, frame.dst))?;
        accept(&fabric, sender, &frame.repr, &bytes[frame.payload])
    };
    let plain = ipv4_to([203, 0, 113, 80]);
    let good = written(path, &sample(Kind::Esp), &plain);
    assert!(judged(&good).is_ok());

    let stranger = written(Path { src: [192, 168, 0, 66].into(), ..path }, &sample(Kind::Esp), &plain);
    assert_eq!(judged(&stranger), Err(Refused::NotAMember));
    let stale = Repr { epoch: Epoch(4), ..sample(Kind::Esp) };
    assert_eq!(judged(&written(path, &stale, &plain)), Err(Refused::StaleEpoch));
    for encapsulation in [Encapsulation::Gre, Encapsulation::GreInUdp] {
        for dst in [OWNER, TARGET, OTHER].map(address) {
            let inside = written(Path { encapsulation, src: address(OWNER), dst }, &sample(Kind::Esp), &plain);
            for kind in [Kind::Esp, Kind::Plain] {
                assert_eq!(judged(&written(path, &sample(kind), &inside)), Err(Refused::ForAMember));
            }
        }
    }
    let looped = written(Path { src: address(TARGET), ..path }, &sample(Kind::Esp), &plain);
    assert_eq!(judged(&looped), Err(Refused::FromOurselves));
    let passing = written(Path { dst: address(OTHER), ..path }, &sample(Kind::Esp), &plain);
    assert_eq!(judged(&passing), Err(Refused::NotForUs));
}

#[test]
fn every_refusal_has_words_of_its_own() {
    let words: std::collections::BTreeSet<_> = Refused::ALL.iter().map(Refused::to_string).collect();
    assert_eq!(words.len(), Refused::ALL.len());
}

prop_compose! {
    fn any_repr()(
        kind in prop::sample::select(Kind::ALL.to_vec()),
        flow_hash: u32, epoch: u64, incarnation: u64, serial: u64, floor: u64, number: u64,
        dvipa in prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)],
        spi in Spi::MIN..,
    ) -> Repr {
        Repr {
            kind, flow_hash, epoch: Epoch(epoch), incarnation: Incarnation(incarnation), serial: Serial(serial),
            dvipa: dvipa.to_canonical(), spi: Spi::new(spi).unwrap(), floor, number,
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_found(repr in any_repr(), which in 0..4_usize, payload: Vec<u8>) {
        let path = paths()[which];
        let bytes = written(path, &repr, &payload);
        let frame = find(&bytes).unwrap();
        prop_assert_eq!((frame.src, frame.dst, frame.repr), (path.src, path.dst, repr));
        prop_assert_eq!(&bytes[frame.payload], &payload[..]);
    }

    #[test]
    fn no_bytes_panic(mut bytes: Vec<u8>, version in prop::sample::select(vec![0x45_u8, 0x46, 0x60])) {
        let _ = find(&bytes);
        let _ = Packet::new_checked(&bytes[..]).map(|packet| Repr::parse(&packet));
        let _ = accept(&fabric(TARGET), OWNER, &sample(Kind::Plain), &bytes);
        if let Some(first) = bytes.first_mut() {
            *first = version;
        }
        let _ = find(&bytes);
        let _ = accept(&fabric(TARGET), OWNER, &sample(Kind::Plain), &bytes);
    }

    /// Whatever one byte of a frame becomes: it is found with its payload inside the packet, or not at all.
    #[test]
    fn a_flipped_byte_never_leads_outside(which in 0..4_usize, at in 0..200_usize, to: u8) {
        let mut bytes = written(paths()[which], &sample(Kind::Esp), &ipv4_to([203, 0, 113, 80]));
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(frame) = find(&bytes) {
            prop_assert!(frame.payload.start <= frame.payload.end && frame.payload.end <= bytes.len());
        }
    }
}
