//! Frames between members: any bytes on the trusted wire, and every header around any packet. What is found is written the
//! same way again, and what is accepted is what the rules of DESIGN §4 say, put down here a second time.

#![no_main]

use std::net::IpAddr;

use cluster::fabric::{Encapsulation, Fabric, FabricDvipa, FabricMember, FabricTarget, Processing, Protection};
use cluster::frame::{Kind, Path, Repr, accept, find};
use cluster::id::{Epoch, Incarnation, MemberId, Serial};
use ipsec::Spi;
use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::{assert_within, split};

fuzz_target!(|data: &[u8]| {
    found_again(data);
    let Some(([one, two, three, floor, number], payload)) = split::<5>(data) else { return };
    let repr = Repr {
        kind: Kind::ALL[usize::from(one) % Kind::ALL.len()],
        flow_hash: u32::from(two) << 24 | u32::from(three),
        epoch: Epoch(u64::from(one >> 4 & 3)),
        incarnation: Incarnation(u64::from(two & 3)),
        serial: Serial(u64::from(two >> 2 & 3)),
        dvipa: [203, 0, 113, 80 + (two >> 7)].into(),
        spi: Spi::new(0x100 + u32::from(floor)).expect("it is no reserved one"),
        floor: u64::from(floor) << (three & 31),
        number: u64::from(number) << (three >> 3),
    };
    judged(&repr, payload, three);
    written(&repr, payload, three);
});

/// Any bytes at all.
fn found_again(data: &[u8]) {
    let Ok(frame) = find(data) else { return };
    let payload = &data[frame.payload.clone()];
    assert_within(data, payload);
    for encapsulation in [Encapsulation::Gre, Encapsulation::GreInUdp] {
        let path = Path { encapsulation, src: frame.src, dst: frame.dst };
        let mut again = vec![0xa5; path.overhead()];
        again.extend_from_slice(payload);
        if path.write(&frame.repr, &mut again).is_err() {
            continue;
        }
        let found = find(&again).expect("we wrote it");
        assert_eq!((found.repr, found.src, found.dst), (frame.repr, frame.src, frame.dst));
        assert_eq!(&again[found.payload], payload);
    }
}

fn written(repr: &Repr, payload: &[u8], choices: u8) {
    let encapsulation = if choices & 1 == 0 { Encapsulation::Gre } else { Encapsulation::GreInUdp };
    let path = Path { encapsulation, src: address(1), dst: address(2) };
    let mut packet = vec![0; path.overhead()];
    packet.extend_from_slice(payload);
    path.write(repr, &mut packet).expect("it is short enough");
    let found = find(&packet).expect("we wrote it");
    assert_eq!((found.repr, &packet[found.payload]), (*repr, payload));
    // Cut anywhere it is none.
    let cut = usize::from(choices) % packet.len();
    assert!(find(&packet[..cut]).is_err());
}

fn judged(repr: &Repr, payload: &[u8], choices: u8) {
    let (me, sender) = (1 + u16::from(choices & 1), 1 + u16::from(choices >> 1 & 3));
    let (owner, is_member, is_listed) = (1, choices & 8 != 0, choices & 16 != 0);
    let target = |member| FabricTarget {
        member: MemberId(member),
        incarnation: Incarnation(2),
        serial: Serial(1),
        is_member,
        is_eligible: true,
    };
    let listed: Vec<_> = if me == owner && is_listed { vec![target(1), target(2)] } else { Vec::new() };
    let fabric = Fabric {
        me: MemberId(me),
        incarnation: Incarnation(2),
        encapsulation: Encapsulation::Gre,
        protection: Protection::None,
        members: (1..=3).map(|id| FabricMember { id: MemberId(id), address: address(id as u8) }).collect(),
        dvipas: vec![FabricDvipa {
            address: [203, 0, 113, 80].into(),
            owner: MemberId(owner),
            epoch: Epoch(1),
            processing: Processing::Target,
            oldest_serial: Serial(1),
            targets: listed.clone(),
            is_settling: false,
        }],
    };
    let to_member = (1..=3).any(|id| destination(payload) == Some(address(id)));
    let is_right = sender <= 3 && repr.dvipa == IpAddr::from([203, 0, 113, 80]) && repr.epoch == Epoch(1);
    let serial = repr.serial >= Serial(1);
    let is_mine = repr.incarnation == Incarnation(2);
    let expected = is_right
        && is_mine
        && match repr.kind {
            Kind::Esp | Kind::Plain => sender == owner && (me != owner || is_listed) && serial && !to_member,
            Kind::NumberGrant => sender == owner && (me != owner || is_listed),
            Kind::ToSeal | Kind::NumberRequest => {
                let is_target = is_member && listed.iter().any(|target| target.member == MemberId(sender));
                me == owner && is_target && !(repr.kind == Kind::ToSeal && to_member)
            }
        };
    let accepted = accept(&fabric, MemberId(sender), repr, payload);
    assert_eq!(accepted.is_ok(), expected, "{accepted:?} {repr:?}");
    if let Ok(accepted) = accepted {
        assert_eq!((accepted.floor(), accepted.number()), (repr.floor, repr.number));
        assert_eq!(accepted.vouched().is_some(), repr.kind == Kind::Plain, "only the owner vouches, for what is plain");
    }
}

fn address(member: u8) -> IpAddr {
    [10, 255, 0, member].into()
}

/// Where an IPv4 packet goes, if it has a whole header; members have no other addresses here.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    let is_v4 = wire::ipv4::Packet::new_prefix(packet).is_ok() && packet[0] >> 4 == 4;
    is_v4.then(|| IpAddr::from([packet[16], packet[17], packet[18], packet[19]]))
}
