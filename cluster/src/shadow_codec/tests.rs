use super::*;
use crate::shadow::Use;
use proptest::prelude::*;

/// The key is not compared by bytes: it compares itself.
fn same(a: &ShadowSa, b: &ShadowSa) -> bool {
    let halves = [(&a.child.inbound, &b.child.inbound), (&a.child.outbound, &b.child.outbound)];
    halves.iter().all(|(a, b)| a.key == b.key) && format!("{a:?}") == format!("{b:?}")
}

fn addresses(is_v4: bool) -> BoxedStrategy<(IpAddr, IpAddr)> {
    if is_v4 {
        any::<(u32, u32)>().prop_map(|(a, b)| (IpAddr::V4(a.min(b).into()), IpAddr::V4(a.max(b).into()))).boxed()
    } else {
        any::<(u128, u128)>().prop_map(|(a, b)| (IpAddr::V6(a.min(b).into()), IpAddr::V6(a.max(b).into()))).boxed()
    }
}

fn selectors() -> impl Strategy<Value = Vec<TrafficSelector>> {
    let ports = prop_oneof![
        Just(PortRange::OPAQUE),
        Just(PortRange::ANY),
        any::<(u16, u16)>().prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap()),
    ];
    let range = any::<bool>().prop_flat_map(addresses).prop_map(|(a, b)| AddressRange::new(a, b).unwrap());
    let one = (range, any::<u8>(), ports);
    prop::collection::vec(one, 0..6).prop_map(|all| {
        all.into_iter().map(|(addresses, protocol, ports)| TrafficSelector { addresses, protocol, ports }).collect()
    })
}

type Limit = Option<u64>;

prop_compose! {
    fn half(direction: Direction, peer: u64, place: (IpAddr, IpAddr))(
        names in (".{0,40}", ".{0,40}"),
        numbers in (256_u32.., any::<u64>(), 0..=WINDOW_PACKETS_MAX),
        flags in any::<[bool; 3]>(),
        udp in any::<Option<(u16, u16)>>(),
        keymat in any::<[u8; 32]>(),
        selectors in (selectors(), selectors()),
        limits in any::<[(Limit, Limit); 2]>(),
        time in any::<(Option<Duration>, Option<Duration>)>(),
    ) -> SaParameters {
        let cipher = if flags[0] { Cipher::AesGcm128 } else { Cipher::AesGcm256 };
        let keymat: Vec<u8> = keymat.iter().copied().cycle().take(cipher.keymat_len()).collect();
        let limit = |(soft, hard)| Limits { soft, hard };
        SaParameters {
            name: names.0.as_str().into(),
            peer: PeerId(peer),
            peer_name: names.1.as_str().into(),
            dvipa: place.0,
            remote: place.1,
            spi: Spi::new(numbers.0).unwrap(),
            direction,
            mode: if flags[1] { Mode::Transport } else { Mode::Tunnel },
            encapsulation: udp.map_or(Encapsulation::None, |(local_port, remote_port)| {
                Encapsulation::Udp { local_port, remote_port }
            }),
            cipher,
            key: SaKey::from_keymat(cipher, &keymat).unwrap(),
            esn: flags[2],
            replay_window_packets: numbers.2,
            selectors: Selectors { local: selectors.0, remote: selectors.1 },
            lifetime: Lifetime {
                bytes: limit(limits[0]),
                packets: limit(limits[1]),
                time: TimeLimits { soft: time.0, hard: time.1 },
            },
            epoch: numbers.1,
        }
    }
}

fn shadow() -> impl Strategy<Value = ShadowSa> {
    let place = (any::<u64>(), any::<bool>().prop_flat_map(addresses));
    let halves = place
        .prop_flat_map(|(peer, place)| (half(Direction::Inbound, peer, place), half(Direction::Outbound, peer, place)));
    let usage = prop_oneof![Just(Use::First), Just(Use::InReserve), Just(Use::ReceiveOnly)];
    let others = (any::<bool>(), any::<[u64; 2]>(), usage, prop::array::uniform2(prop::option::of(256_u32..)));
    (halves, others).prop_map(|((inbound, outbound), (is_target, numbers, usage, spis))| ShadowSa {
        child: ChildSa { inbound, outbound },
        processing: if is_target { Processing::Target } else { Processing::Distributor },
        born_at: SenderNumber(numbers[0]),
        usage,
        replaces: spis[0].and_then(Spi::new),
        sibling_of: spis[1].and_then(Spi::new),
        grant_bytes_max: numbers[1],
    })
}

fn one() -> ShadowSa {
    let place = ("192.0.2.80".parse().unwrap(), "192.0.2.20".parse().unwrap());
    let half = |direction, spi: u32, fill: u8| SaParameters {
        name: "web".into(),
        peer: PeerId(7),
        peer_name: "alice".into(),
        dvipa: place.0,
        remote: place.1,
        spi: Spi::new(spi).unwrap(),
        direction,
        mode: Mode::Tunnel,
        encapsulation: Encapsulation::None,
        cipher: Cipher::AesGcm128,
        key: SaKey::from_keymat(Cipher::AesGcm128, &[fill; 20]).unwrap(),
        esn: false,
        replay_window_packets: 64,
        selectors: Selectors { local: vec![TrafficSelector::any_v4()], remote: vec![TrafficSelector::any_v4()] },
        lifetime: Lifetime::NONE,
        epoch: 3,
    };
    ShadowSa {
        child: ChildSa {
            inbound: half(Direction::Inbound, 0x1000, 0x11),
            outbound: half(Direction::Outbound, 0x2000, 0x22),
        },
        processing: Processing::Target,
        born_at: SenderNumber(70_000),
        usage: Use::First,
        replaces: None,
        sibling_of: None,
        grant_bytes_max: 1 << 20,
    }
}

proptest! {
    #[test]
    fn shadows_read_back_as_they_were(shadow in shadow()) {
        let bytes = encode_shadow(&shadow).unwrap();
        let back = decode_shadow(&bytes).unwrap();
        prop_assert!(same(&shadow, &back), "{shadow:?}\n{back:?}");
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = decode_shadow(&bytes);
        let mut bytes = bytes;
        bytes.insert(0, SHADOW_VERSION);
        let _ = decode_shadow(&bytes);
    }

    /// One byte changed: another shadow or a refusal, never a panic.
    #[test]
    fn no_damage_makes_it_panic(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = encode_shadow(&one()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = decode_shadow(&bytes);
    }
}

#[test]
fn every_truncation_and_every_addition_is_refused() {
    let whole = encode_shadow(&one()).unwrap();
    for len in 0..whole.len() {
        assert!(decode_shadow(&whole[..len]).is_err(), "{len}");
    }
    let longer = [&whole[..], &[0]].concat();
    assert_eq!(decode_shadow(&longer).unwrap_err(), ShadowCodecError::Trailing(1));
}

#[test]
fn an_unknown_version_says_so() {
    let mut bytes = encode_shadow(&one()).unwrap();
    bytes[0] = 2;
    let error = decode_shadow(&bytes).unwrap_err();
    assert_eq!(error, ShadowCodecError::Version { found: 2 });
    assert!(error.to_string().contains("version 2, this program knows 1"));
}

#[test]
fn what_is_out_of_bounds_is_neither_written_nor_read() {
    let with_selectors = |count: usize| {
        let mut shadow = one();
        shadow.child.inbound.selectors.remote = vec![TrafficSelector::any_v4(); count];
        shadow
    };
    let most = encode_shadow(&with_selectors(255)).unwrap();
    assert!(same(&decode_shadow(&most).unwrap(), &with_selectors(255)));
    assert_eq!(
        encode_shadow(&with_selectors(256)).unwrap_err(),
        ShadowCodecError::Unfit("it has too many traffic selectors")
    );
    let mut shadow = one();
    shadow.child.outbound.peer_name = "x".repeat(257).into();
    assert_eq!(encode_shadow(&shadow).unwrap_err(), ShadowCodecError::Unfit("a name is too long"));
    // A writer that knows no bounds.
    let mut wire = WireShadow::of(&shadow_of_bounds()).map(|wire| postcard::to_allocvec(&wire).unwrap()).unwrap();
    wire.insert(0, SHADOW_VERSION);
    assert!(decode_shadow(&wire).is_ok());
    let sender = one();
    let mut wide = WireShadow::of(&sender).unwrap();
    let selector = || WireSelector { first: [0; 4].into(), last: [9; 4].into(), protocol: 6, ports: (1, 2) };
    wide.inbound.local = Side((0..256).map(|_| selector()).collect());
    let bytes = [&[SHADOW_VERSION][..], &postcard::to_allocvec(&wide).unwrap()].concat();
    assert!(matches!(decode_shadow(&bytes), Err(ShadowCodecError::Damaged(_))));
}

fn shadow_of_bounds() -> ShadowSa {
    let mut shadow = one();
    shadow.child.outbound.peer_name = "x".repeat(256).into();
    shadow
}

#[test]
fn halves_that_do_not_belong_together_are_refused() {
    let refused = |change: &dyn Fn(&mut ShadowSa)| {
        let mut shadow = one();
        change(&mut shadow);
        decode_shadow(&encode_shadow(&shadow).unwrap()).unwrap_err()
    };
    let two = ShadowCodecError::Unfit("its halves are of two addresses, or of two peers");
    assert_eq!(refused(&|shadow| shadow.child.outbound.peer = PeerId(8)), two);
    assert_eq!(refused(&|shadow| shadow.child.outbound.dvipa = "192.0.2.81".parse().unwrap()), two);
    assert_eq!(
        refused(&|shadow| shadow.child.inbound.remote = "::1".parse().unwrap()),
        ShadowCodecError::Unfit("its addresses are of two families")
    );
    assert_eq!(
        refused(&|shadow| shadow.child.inbound.replay_window_packets = WINDOW_PACKETS_MAX + 1),
        ShadowCodecError::Unfit("its replay window is too wide")
    );
}
