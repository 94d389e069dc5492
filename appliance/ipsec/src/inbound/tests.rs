use super::*;
use crate::Spi;
use crate::cipher::Cipher;
use crate::engine::{Engine, EngineKind, KeyRefused};
use crate::esp::{BEFORE_PAYLOAD_LEN, NEXT_HEADER_DUMMY, NEXT_HEADER_IPV4, NEXT_HEADER_IPV6};
use crate::key::SaKey;
use crate::lifetime::{Lifetime, Limits};
use crate::outbound::OutboundSa;
use crate::replay::WindowTooWide;
use crate::sa::{BadSa, Direction, SaParameters};
use crate::testing::mcgrew::CASES;
use crate::testing::{ends, engines, hex, ipv4_packet, ivs, parameters, ring, sample_key, sealed, sealed_raw};
use proptest::prelude::*;

/// A receiver that has accepted numbers up to 100, and what its window must go on to look like.
struct Settled {
    sender: OutboundSa,
    receiver: InboundSa,
    ivs: crate::iv::IvGenerator,
    window: String,
}

impl Settled {
    fn new(engine: Engine, change: impl Fn(&mut SaParameters)) -> Self {
        let (mut sender, mut receiver) = ends(engine, change);
        let mut ivs = ivs();
        for _ in 0..100 {
            let mut packet = sealed(&mut sender, &mut ivs, &ipv4_packet(60), NEXT_HEADER_IPV4);
            let _ = receiver.open(&mut packet).unwrap();
        }
        let window = format!("{:?}", receiver.window());
        Self { sender, receiver, ivs, window }
    }

    fn next_packet(&mut self, inner: &[u8]) -> Vec<u8> {
        sealed(&mut self.sender, &mut self.ivs, inner, NEXT_HEADER_IPV4)
    }

    /// Opens a packet that must be refused without a trace in the window.
    fn refuse(&mut self, mut packet: Vec<u8>) -> InboundError {
        let error = self.receiver.open(&mut packet).unwrap_err();
        assert_eq!(format!("{:?}", self.receiver.window()), self.window, "the window has moved");
        error
    }
}

/// What a member says of the SA that it knows to have come so far.
fn hint(top: u64) -> Carried {
    Carried { top, ..Carried::NOTHING }
}

#[test]
fn draft_mcgrew_gcm_test_01_opens_as_whole_packets() {
    let mut run = 0;
    for engine in engines() {
        for case in &CASES {
            let [key, nonce, aad, plain, ciphertext, icv] =
                [case.key, case.nonce, case.aad, case.plain, case.ciphertext, case.icv].map(hex);
            // Case 4 has SPI 0, which no SA has; the engine's own test runs it.
            let Some(spi) = Spi::from_be_bytes(aad[..4].try_into().unwrap()) else { continue };
            let cipher = Cipher::ALL.into_iter().find(|cipher| cipher.key_len() == key.len()).unwrap();
            let mut number = [0; 8];
            number[12 - aad.len()..].copy_from_slice(&aad[4..]);
            let sequence = u64::from_be_bytes(number);
            let mut parameters = parameters(Direction::Inbound);
            parameters.spi = spi;
            parameters.cipher = cipher;
            parameters.key = SaKey::from_keymat(cipher, &[&key, &nonce[..4]].concat()).unwrap();
            parameters.esn = aad.len() == 12;
            parameters.mode = Mode::Transport;
            let mut receiver = InboundSa::new(InboundShared::new(parameters, engine, 1).unwrap());

            let mut packet = [&aad[..4], &number[4..], &nonce[4..], &ciphertext, &icv].concat();
            let peeked = receiver.shared().peek(&packet).unwrap();
            let prepared = receiver.prepare(&packet, hint(sequence)).unwrap();
            let opened = receiver.open_prepared(&mut packet, &prepared).unwrap();
            let pad_len = usize::from(plain[plain.len() - 2]);
            assert_eq!(packet[opened.inner.clone()], plain[..plain.len() - 2 - pad_len], "case {}", case.number);
            assert_eq!(opened.next_header, plain[plain.len() - 1]);
            assert_eq!(opened.sequence(), sequence);
            assert!(plain.starts_with(peeked.unauthenticated_head()));
            assert_eq!(receiver.window().top(), sequence);
            run += 1;
        }
    }
    assert_eq!(run, 12 * engines().len());
}

#[test]
fn what_was_sealed_opens_again_and_is_counted() {
    for engine in engines() {
        for len in [28, 61, 62, 63, 64, 256, 1_420, 9_000] {
            for esn in [false, true] {
                let (mut sender, mut receiver) = ends(engine, |sa| sa.esn = esn);
                let inner = ipv4_packet(len);
                let mut packet = sealed(&mut sender, &mut ivs(), &inner, NEXT_HEADER_IPV4);
                let opened = receiver.open(&mut packet).unwrap();
                assert_eq!(packet[opened.inner.clone()], inner);
                assert_eq!((opened.next_header, opened.sequence(), opened.soft_reached), (4, 1, false));
                let counted = InboundCounters { packets: 1, bytes: len as u64, ..InboundCounters::default() };
                assert_eq!(*receiver.counters(), counted);
            }
        }
    }
}

#[test]
fn hostile_30_a_packet_of_another_spi_is_not_opened_even_under_the_same_key() {
    let (mut sender, _) = ends(ring(), |sa| sa.spi = Spi::new(0xc0de_0002).unwrap());
    let mut settled = Settled::new(ring(), |_| ());
    let packet = sealed(&mut sender, &mut settled.ivs, &ipv4_packet(60), NEXT_HEADER_IPV4);
    let mut numbered = packet.clone();
    numbered[4..8].copy_from_slice(&101_u32.to_be_bytes());
    assert_eq!(settled.refuse(numbered), InboundError::AuthenticationFailed);
    assert_eq!(settled.refuse(packet), InboundError::TooOld, "number 1 is long past");
}

#[test]
fn hostile_31_a_packet_cut_at_any_byte_is_refused() {
    for engine in engines() {
        let mut settled = Settled::new(engine, |_| ());
        let packet = settled.next_packet(&ipv4_packet(61));
        for len in 0..packet.len() {
            let expected =
                if len < esp::PACKET_LEN_MIN { InboundError::Truncated } else { InboundError::AuthenticationFailed };
            assert_eq!(settled.refuse(packet[..len].to_vec()), expected, "{len} bytes");
        }
        let counters = *settled.receiver.counters();
        assert_eq!((counters.truncated, counters.authentication_failures), (34, packet.len() as u64 - 34));
        let _ = settled.receiver.open(&mut packet.clone()).unwrap();
    }
}

#[test]
fn hostile_31_a_packet_with_any_bit_flipped_is_refused() {
    for engine in engines() {
        for esn in [false, true] {
            let mut settled = Settled::new(engine, |sa| sa.esn = esn);
            let packet = settled.next_packet(&ipv4_packet(60));
            for bit in 0..packet.len() * 8 {
                let mut forged = packet.clone();
                forged[bit / 8] ^= 1 << (bit % 8);
                // A flipped sequence number may fall among those that are too old or were seen.
                match settled.refuse(forged) {
                    InboundError::AuthenticationFailed => {}
                    InboundError::TooOld | InboundError::Replayed => assert!((4..8).contains(&(bit / 8)), "bit {bit}"),
                    other => panic!("bit {bit}: {other}"),
                }
            }
            let _ = settled.receiver.open(&mut packet.clone()).unwrap();
        }
    }
}

#[test]
fn hostile_31_padding_beyond_the_payload_or_of_other_bytes_is_refused() {
    let mut settled = Settled::new(ring(), |_| ());
    let inner = ipv4_packet(60);
    for trailer in [&[3, 4][..], &[1, 2, 3, 4, 4], &[1, 3, 2, 4], &[0, 1, 4], &[62, 4], &[255, 4]] {
        let plain = [&inner, trailer].concat();
        let packet = sealed_raw(settled.receiver.shared(), 101, [9; 8], &plain);
        assert_eq!(settled.refuse(packet), InboundError::BadPadding, "{trailer:?}");
    }
    let fine = sealed_raw(settled.receiver.shared(), 101, [9; 8], &[&inner, &[1, 2, 3, 3, 4][..]].concat());
    assert_eq!(settled.receiver.open(&mut fine.clone()).unwrap().inner.len(), 60);
}

#[test]
fn hostile_31_a_tunnel_holds_ip_and_nothing_else() {
    let mut settled = Settled::new(ring(), |_| ());
    let inner = ipv4_packet(60);
    for next_header in (0..=255).filter(|n| ![NEXT_HEADER_IPV4, NEXT_HEADER_IPV6, NEXT_HEADER_DUMMY].contains(n)) {
        let packet = sealed_raw(settled.receiver.shared(), 101, [9; 8], &[&inner, &[0, next_header][..]].concat());
        assert_eq!(settled.refuse(packet), InboundError::UnknownNextHeader);
    }
    assert_eq!(settled.receiver.counters().malformed, 253);
}

#[test]
fn hostile_35_an_inner_packet_that_lies_about_itself_is_refused() {
    let mut settled = Settled::new(ring(), |_| ());
    let v4 = ipv4_packet(60);
    let with = |at: usize, value: u8| {
        let mut changed = v4.clone();
        changed[at] = value;
        changed
    };
    let mut v6 = vec![0; 60];
    (v6[0], v6[5]) = (0x60, 20);
    let mut v6_too_long = v6.clone();
    v6_too_long[5] = 21;
    for (inner, next_header) in [
        (with(3, 61), 4),
        (with(2, 1), 4),
        (with(3, 19), 4),
        (with(0, 0x65), 4),
        (v4[..19].to_vec(), 4),
        (vec![], 4),
        (v4.clone(), 41),
        (v6.clone(), 4),
        (v6_too_long, 41),
        (v6[..39].to_vec(), 41),
    ] {
        let packet = sealed_raw(settled.receiver.shared(), 101, [9; 8], &[&inner, &[0, next_header][..]].concat());
        assert_eq!(settled.refuse(packet), InboundError::MalformedInner, "{inner:02x?}");
    }
    let mut fine = sealed_raw(settled.receiver.shared(), 101, [9; 8], &[&v6, &[0, 41][..]].concat());
    assert_eq!(settled.receiver.open(&mut fine).unwrap().inner.len(), 60);
}

#[test]
fn padding_that_hides_the_length_of_traffic_is_left_out() {
    let mut settled = Settled::new(ring(), |_| ());
    let inner = ipv4_packet(60);
    let plain = [&inner[..], &[0xaa; 500], &[1, 2, 2, 4]].concat();
    let mut packet = sealed_raw(settled.receiver.shared(), 101, [9; 8], &plain);
    let opened = settled.receiver.open(&mut packet).unwrap();
    assert_eq!(packet[opened.inner], inner);
    assert_eq!(settled.receiver.counters().bytes, 101 * 60, "padding is no traffic");
}

#[test]
fn a_dummy_is_accepted_once_and_thrown_away() {
    let mut settled = Settled::new(ring(), |_| ());
    let packet = sealed_raw(settled.receiver.shared(), 101, [9; 8], &[&[0x77; 50][..], &[0, 59]].concat());
    assert_eq!(settled.receiver.open(&mut packet.clone()).unwrap_err(), InboundError::Dummy);
    assert_eq!(settled.receiver.open(&mut packet.clone()).unwrap_err(), InboundError::Replayed);
    let counters = settled.receiver.counters();
    assert_eq!((counters.packets, counters.dummies, counters.bytes), (101, 1, 6_000));
    assert_eq!(settled.receiver.window().top(), 101);
}

#[test]
fn hostile_32_the_same_packet_again_is_refused() {
    for engine in engines() {
        let (mut sender, mut receiver) = ends(engine, |_| ());
        let mut ivs = ivs();
        let packets: Vec<_> =
            (0..200).map(|_| sealed(&mut sender, &mut ivs, &ipv4_packet(60), NEXT_HEADER_IPV4)).collect();
        for packet in &packets {
            let _ = receiver.open(&mut packet.clone()).unwrap();
            assert_eq!(receiver.open(&mut packet.clone()).unwrap_err(), InboundError::Replayed);
        }
        for (at, packet) in packets.iter().enumerate() {
            let expected = if at < 200 - 64 { InboundError::TooOld } else { InboundError::Replayed };
            assert_eq!(receiver.open(&mut packet.clone()).unwrap_err(), expected);
        }
        assert_eq!((receiver.counters().packets, receiver.counters().replay_drops), (200, 400));
    }
}

#[test]
fn hostile_32_copies_in_one_prepared_burst_are_delivered_once() {
    for engine in engines() {
        let mut settled = Settled::new(engine, |_| ());
        let packet = settled.next_packet(&ipv4_packet(60));
        let prepared = [(); 3].map(|()| settled.receiver.prepare(&packet, Carried::NOTHING).unwrap());
        assert_eq!(format!("{:?}", settled.receiver.window()), settled.window, "preparing moves nothing");
        let results =
            prepared.map(|prepared| settled.receiver.open_prepared(&mut packet.clone(), &prepared).map(|_| ()));
        assert_eq!(results, [Ok(()), Err(InboundError::Replayed), Err(InboundError::Replayed)]);
        assert_eq!((settled.receiver.counters().packets, settled.receiver.counters().replay_drops), (101, 2));
    }
}

#[test]
fn what_was_prepared_fits_no_other_packet() {
    let mut settled = Settled::new(ring(), |_| ());
    let (one, mut other) = (settled.next_packet(&ipv4_packet(60)), settled.next_packet(&ipv4_packet(60)));
    let prepared = settled.receiver.prepare(&one, Carried::NOTHING).unwrap();
    let mismatched = settled.receiver.open_prepared(&mut other, &prepared).unwrap_err();
    assert_eq!(mismatched, InboundError::AuthenticationFailed);
    for len in 0..esp::PACKET_LEN_MIN {
        let refused = settled.receiver.open_prepared(&mut one.clone()[..len], &prepared).unwrap_err();
        assert!(matches!(refused, InboundError::Truncated | InboundError::AuthenticationFailed), "{len} bytes");
    }
    assert_eq!(format!("{:?}", settled.receiver.window()), settled.window);
    let _ = settled.receiver.open_prepared(&mut one.clone(), &prepared).unwrap();
}

#[test]
fn hostile_33_a_guess_that_the_burst_itself_outdates_is_made_again() {
    let mut parameters = parameters(Direction::Inbound);
    parameters.esn = true;
    let mut receiver = InboundSa::new(InboundShared::new(parameters, ring(), 1).unwrap());
    let plain = [&ipv4_packet(60)[..], &[1, 2, 2, 4]].concat();
    let packet = |receiver: &InboundSa, sequence| sealed_raw(receiver.shared(), sequence, [9; 8], &plain);
    let base = 5_u64 << 32;
    let mut settled = packet(&receiver, base);
    let prepared = receiver.prepare(&settled, hint(base)).unwrap();
    let _ = receiver.open_prepared(&mut settled, &prepared).unwrap();

    let mut burst = [packet(&receiver, base + (1 << 31)), packet(&receiver, base + (1 << 31) + 5)];
    let prepared = [(&burst[0], 0), (&burst[1], base + 10)];
    let prepared = prepared.map(|(packet, top)| receiver.prepare(packet, hint(top)).unwrap());
    for (packet, prepared) in burst.iter_mut().zip(&prepared) {
        let _ = receiver.open_prepared(packet, prepared).unwrap();
    }
    assert_eq!(receiver.window().top(), base + (1 << 31) + 5);
}

#[test]
fn hostile_32_a_forged_high_number_does_not_close_the_window() {
    for esn in [false, true] {
        let mut settled = Settled::new(ring(), |sa| sa.esn = esn);
        let genuine = settled.next_packet(&ipv4_packet(60));
        for number in [102, 1 << 20, 1 << 31, u32::MAX] {
            let mut forged = genuine.clone();
            forged[4..8].copy_from_slice(&u32::to_be_bytes(number));
            assert_eq!(settled.refuse(forged), InboundError::AuthenticationFailed);
        }
        let _ = settled.receiver.open(&mut genuine.clone()).unwrap();
    }
}

#[test]
fn hostile_33_packets_pass_over_two_to_the_32_in_step_and_out_of_step() {
    const BORDER: u64 = 1 << 32;
    let mut parameters = parameters(Direction::Inbound);
    parameters.esn = true;
    let mut receiver = InboundSa::new(InboundShared::new(parameters, ring(), 1).unwrap());
    let plain = [&ipv4_packet(60)[..], &[1, 2, 2, 4]].concat();
    let packet = |receiver: &InboundSa, sequence| sealed_raw(receiver.shared(), sequence, [9; 8], &plain);
    let mut first = packet(&receiver, BORDER - 50);
    assert_eq!(receiver.open(&mut first).unwrap().sequence(), BORDER - 50);
    for pair in (BORDER - 49..BORDER + 50).collect::<Vec<_>>().chunks(2) {
        for sequence in pair.iter().rev() {
            let genuine = packet(&receiver, *sequence);
            assert_eq!(receiver.open(&mut genuine.clone()).unwrap().sequence(), *sequence);
            assert_eq!(receiver.open(&mut genuine.clone()).unwrap_err(), InboundError::Replayed);
        }
    }
    // The same low bits one subspace earlier or later are other numbers, which no guess makes valid.
    for other in [BORDER + 60 - (1 << 32), BORDER + 60 + (1 << 32)] {
        let mut wrong = packet(&receiver, other);
        assert_eq!(receiver.open(&mut wrong).unwrap_err(), InboundError::AuthenticationFailed);
    }
    let mut jump = packet(&receiver, BORDER + 49 + (1 << 31));
    assert_eq!(receiver.open(&mut jump).unwrap().sequence(), BORDER + 49 + (1 << 31));
    let mut too_far = packet(&receiver, 2 * BORDER + 50);
    assert_eq!(receiver.open(&mut too_far).unwrap_err(), InboundError::TooOld);
    assert_eq!(receiver.window().top(), BORDER + 49 + (1 << 31));
    let mut hinted = packet(&receiver, 2 * BORDER + 50);
    let prepared = receiver.prepare(&hinted, hint(2 * BORDER)).unwrap();
    assert_eq!(receiver.open_prepared(&mut hinted, &prepared).unwrap().sequence(), 2 * BORDER + 50);
}

#[test]
fn limits_end_an_sa_after_saying_so() {
    let bytes = Limits { soft: Some(300), hard: Some(420) };
    let lifetime = Lifetime { bytes, ..Lifetime::NONE };
    let (mut sender, _) = ends(ring(), |_| ());
    let (_, mut receiver) = ends(ring(), |sa| sa.lifetime = lifetime);
    let mut ivs = ivs();
    let mut results = Vec::new();
    for _ in 0..9 {
        let mut packet = sealed(&mut sender, &mut ivs, &ipv4_packet(60), NEXT_HEADER_IPV4);
        results.push(receiver.open(&mut packet).map(|opened| opened.soft_reached));
    }
    let (within, hard) = (Ok(false), Err(InboundError::HardLimit));
    assert_eq!(results, [within, within, within, within, Ok(true), within, within, hard, hard]);
    assert_eq!((receiver.counters().bytes, receiver.counters().lifesize_drops), (420, 2));
}

#[test]
fn cores_share_one_lifesize_and_keep_windows_of_their_own() {
    let mut parameters = parameters(Direction::Inbound);
    parameters.lifetime.packets = Limits { soft: None, hard: Some(3) };
    let shared = InboundShared::new(parameters, ring(), 2).unwrap();
    let mut cores = [InboundSa::new(shared.clone()), InboundSa::new(shared.clone())];
    let (mut sender, _) = ends(ring(), |_| ());
    let mut ivs = ivs();
    let mut accepted = 0;
    for at in 0..6 {
        let mut packet = sealed(&mut sender, &mut ivs, &ipv4_packet(60), NEXT_HEADER_IPV4);
        accepted += u32::from(cores[at % 2].open(&mut packet).is_ok());
    }
    assert_eq!(accepted, 3);
    assert_eq!(shared.lifesize().claimed().1, 3);
    drop(cores);
    assert_eq!(shared.lifesize().claimed().1, 3, "what was spent is not given back");
}

#[test]
fn a_dropped_instance_gives_its_share_back() {
    let mut parameters = parameters(Direction::Inbound);
    parameters.lifetime.bytes = Limits { soft: None, hard: Some(64_000) };
    let shared = InboundShared::new(parameters, ring(), 1).unwrap();
    let mut core = InboundSa::new(shared.clone());
    let (mut sender, _) = ends(ring(), |_| ());
    let mut packet = sealed(&mut sender, &mut ivs(), &ipv4_packet(60), NEXT_HEADER_IPV4);
    let _ = core.open(&mut packet).unwrap();
    assert_eq!(shared.lifesize().claimed().0, 1_000);
    drop(core);
    assert_eq!(shared.lifesize().claimed().0, 60);
}

#[test]
fn hostile_35_what_lies_outside_the_selectors_is_counted() {
    let (_, mut receiver) = ends(ring(), |sa| sa.selectors.remote = vec!["10.7.0.0/24".parse().unwrap()]);
    let mut packet = ipv4_packet(60);
    assert!(receiver.admits(&wire::flow::parse_inner(&packet).unwrap()));
    packet[14] = 1;
    assert!(!receiver.admits(&wire::flow::parse_inner(&packet).unwrap()));
    assert_eq!(receiver.counters().selector_drops, 1);
}

#[test]
fn a_reset_window_accepts_the_same_packets_again() {
    let mut settled = Settled::new(ring(), |_| ());
    let packet = settled.next_packet(&ipv4_packet(60));
    let _ = settled.receiver.open(&mut packet.clone()).unwrap();
    settled.receiver.reset_window();
    let _ = settled.receiver.open(&mut packet.clone()).unwrap();
}

#[test]
fn parameters_that_contradict_themselves_make_no_sa() {
    let refused = |change: fn(&mut SaParameters)| {
        let mut parameters = parameters(Direction::Inbound);
        change(&mut parameters);
        InboundShared::new(parameters, ring(), 1).map(|_| ()).unwrap_err()
    };
    assert_eq!(refused(|sa| sa.direction = Direction::Outbound), BadSa::Direction { found: Direction::Outbound });
    assert_eq!(refused(|sa| sa.cipher = Cipher::AesGcm256), BadSa::Key);
    assert_eq!(refused(|sa| sa.remote = "2001:db8::1".parse().unwrap()), BadSa::Addresses);
    let too_wide = WindowTooWide { found: 65_537 };
    assert_eq!(refused(|sa| sa.replay_window_packets = 65_537), BadSa::Window(too_wide));
    assert_eq!(BadSa::from(KeyRefused(EngineKind::Ring)).to_string(), "ring refused a key");
}

#[test]
fn counters_add_up_over_cores() {
    let (mut one, mut sum) = (InboundCounters::default(), InboundCounters::default());
    let errors = [
        InboundError::Truncated,
        InboundError::Replayed,
        InboundError::TooOld,
        InboundError::BelowFloor,
        InboundError::AuthenticationFailed,
        InboundError::BadPadding,
        InboundError::UnknownNextHeader,
        InboundError::MalformedInner,
        InboundError::Dummy,
        InboundError::HardLimit,
        InboundError::Ungranted,
    ];
    errors.into_iter().for_each(|error| one.count(error));
    (one.bytes, one.selector_drops, one.authenticated) = (5, 6, 7);
    sum.add(&one);
    sum.add(&one);
    let expected = InboundCounters {
        packets: 2,
        bytes: 10,
        authenticated: 14,
        truncated: 2,
        replay_drops: 6,
        authentication_failures: 2,
        malformed: 6,
        dummies: 2,
        selector_drops: 12,
        lifesize_drops: 4,
    };
    assert_eq!(sum, expected);
}

#[test]
fn keys_are_not_printed() {
    let shared = InboundShared::new(parameters(Direction::Inbound), ring(), 1).unwrap();
    let printed = format!("{:?}", InboundSa::new(shared));
    assert!(printed.contains("SaKey(..)") && printed.contains("PeekKey(..)") && printed.contains("AeadKey(ring, ..)"));
    assert!(!printed.contains(&format!("{:?}", [0x40, 0x41, 0x42])), "{printed}");
    let _ = sample_key(Cipher::AesGcm256);
}

proptest! {
    /// HOSTILE 9 of the design: no bytes make the receiver panic, and none that it did not make are accepted.
    #[test]
    fn no_bytes_panic_or_pass(bytes in prop::collection::vec(any::<u8>(), 0..400), esn: bool) {
        let (_, mut receiver) = ends(ring(), |sa| sa.esn = esn);
        let _ = receiver.shared().peek(&bytes);
        let mut bytes = bytes;
        prop_assert!(receiver.open(&mut bytes).is_err());
        prop_assert_eq!(receiver.window().top(), 0);
    }

    /// Authentic plaintext of any content: never a panic, and never an inner packet beyond the payload.
    #[test]
    fn no_authentic_plaintext_panics(plain in prop::collection::vec(any::<u8>(), 0..300), next_header in prop::sample::select(vec![4_u8, 41, 59, 6]), pad in 0_u8..5) {
        let (_, mut receiver) = ends(ring(), |_| ());
        let mut plain = plain;
        plain.extend((1..=pad).chain([pad, next_header]));
        let mut packet = sealed_raw(receiver.shared(), 1, [3; 8], &plain);
        if let Ok(opened) = receiver.open(&mut packet) {
            prop_assert!(opened.inner.start == BEFORE_PAYLOAD_LEN && opened.inner.end <= packet.len() - 18);
        }
    }
}
