//! Two members with one session, core by core.

use ipsec::engine::{self, EngineChoice};
use ipsec::iv::SenderNumber;
use proptest::prelude::*;
use wire::{ipv4, protocol};
use zeroize::Zeroizing;

use super::*;
use crate::id::Incarnation;

const NOW: Instant = Instant::from_secs(7);

fn engine() -> Engine {
    engine::select(EngineChoice::Auto).unwrap().engine
}

fn end(member: u16) -> End {
    End {
        member: MemberId(member),
        incarnation: Incarnation(u64::from(member) * 100),
        address: [10, 255, 0, member as u8].into(),
    }
}

/// What member `ours` has in common with member `theirs` by a session whose secret is this byte, over and over.
fn keys(ours: u16, theirs: u16, secret: u8) -> SessionKeys {
    SessionKeys::new(Zeroizing::new([secret; SECRET_LEN]), end(ours), end(theirs))
}

/// One core of a member.
struct Core {
    guard: Guard,
    ivs: IvGenerator,
}

impl Core {
    fn new(core: usize, cores: usize) -> Core {
        Core { guard: Guard::new(core, cores), ivs: IvGenerator::new(SenderNumber(core as u64)) }
    }

    fn knowing(core: usize, cores: usize, keys: SessionKeys) -> Core {
        let mut made = Core::new(core, cores);
        assert!(made.guard.learn(NOW, keys, engine()).is_none());
        made
    }

    /// What goes to the wire for a frame with this payload.
    fn try_seal(&mut self, now: Instant, to: u16, hash: u32, payload: &[u8]) -> Result<Vec<u8>, NotSealed> {
        let len = ipv4::HEADER_LEN + payload.len();
        let room = overhead(len);
        let mut packet = vec![0; room.before];
        packet.resize(room.before + ipv4::HEADER_LEN, 0);
        let header = ipv4::Repr {
            src: [10, 255, 0, 1].into(),
            dst: [10, 255, 0, 2].into(),
            protocol: protocol::GRE,
            dscp: 0,
            ecn: 0,
            identification: 0,
            dont_fragment: true,
            more_fragments: false,
            fragment_offset: 0,
            ttl: 64,
            payload_len: payload.len(),
        };
        header.emit(&mut ipv4::Packet::new_unchecked(&mut packet[room.before..]));
        packet.extend_from_slice(payload);
        packet.resize(packet.len() + room.after, 0);
        self.guard.seal(now, MemberId(to), hash, &mut self.ivs, &mut packet, len)?;
        Ok(packet)
    }

    fn seal(&mut self, hash: u32, payload: &[u8]) -> Vec<u8> {
        self.try_seal(NOW, 2, hash, payload).unwrap()
    }

    fn open(&mut self, packet: &[u8]) -> Result<Vec<u8>, NotOpened> {
        let mut esp = packet[ipv4::HEADER_LEN..].to_vec();
        let opened = self.guard.open(MemberId(1), &mut esp)?;
        assert_eq!(opened.next_header, protocol::GRE);
        Ok(esp[opened.inner].to_vec())
    }
}

fn pair() -> (Core, Core) {
    (Core::knowing(0, 1, keys(1, 2, 7)), Core::knowing(0, 1, keys(2, 1, 7)))
}

fn spi(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[ipv4::HEADER_LEN..][..4].try_into().unwrap())
}

#[test]
fn a_frame_is_opened_once_and_shows_nothing_on_its_way() {
    let (mut sender, mut receiver) = pair();
    for hash in 0..100 {
        let payload = format!("a frame that nobody else may read, number {hash}");
        let packet = sender.seal(hash, payload.as_bytes());
        assert_eq!(ipv4::Packet::new_checked(&packet[..]).unwrap().protocol(), protocol::ESP);
        assert!(!packet.windows(8).any(|bytes| bytes == b"a frame "));
        assert!(packet.len() <= ipv4::HEADER_LEN + payload.len() + OVERHEAD_BYTES_MAX);
        assert_eq!(receiver.open(&packet).unwrap(), payload.as_bytes());
        assert_eq!(receiver.open(&packet), Err(NotOpened::Esp(InboundError::Replayed)));
    }
}

#[test]
fn each_core_opens_the_lanes_that_are_its_own_and_no_others() {
    const CORES: usize = 3;
    let mut receivers: Vec<Core> = (0..CORES).map(|core| Core::knowing(core, CORES, keys(2, 1, 7))).collect();
    let mut opened = [0; CORES];
    for sending in 0..5 {
        let mut sender = Core::knowing(sending, 5, keys(1, 2, 7));
        for hash in 0..32 {
            let packet = sender.seal(hash, b"payload");
            let at = core_of(spi(&packet), CORES).unwrap();
            for (core, receiver) in receivers.iter_mut().enumerate() {
                assert_eq!(receiver.open(&packet).is_ok(), core == at, "core {core}");
            }
            opened[at] += 1;
        }
    }
    assert!(opened.iter().all(|&count| count > 40), "{opened:?}");
}

#[test]
fn frames_of_another_session_direction_or_member_are_refused() {
    let (mut sender, mut receiver) = pair();
    let packet = sender.seal(0, b"payload");
    // Sent back to whoever sent it, under the same session.
    let mut esp = packet[ipv4::HEADER_LEN..].to_vec();
    assert_eq!(
        sender.guard.open(MemberId(2), &mut esp).unwrap_err(),
        NotOpened::Esp(InboundError::AuthenticationFailed)
    );
    // With another member's address, with which there is a session, too.
    let _ = receiver.guard.learn(NOW, keys(2, 3, 9), engine());
    let mut esp = packet[ipv4::HEADER_LEN..].to_vec();
    assert_eq!(receiver.guard.open(MemberId(3), &mut esp).unwrap_err(), NotOpened::NoKeys);
    let mut esp = packet[ipv4::HEADER_LEN..].to_vec();
    assert_eq!(receiver.guard.open(MemberId(4), &mut esp).unwrap_err(), NotOpened::NoKeys);
    // Another session of the same two.
    let mut stranger = Core::knowing(0, 1, keys(1, 2, 8));
    let mut foreign = stranger.seal(0, b"payload");
    assert_eq!(receiver.open(&foreign), Err(NotOpened::NoKeys));
    foreign[ipv4::HEADER_LEN..][..4].copy_from_slice(&spi(&packet).to_be_bytes());
    assert_eq!(receiver.open(&foreign), Err(NotOpened::Esp(InboundError::AuthenticationFailed)));
    assert_eq!(receiver.open(&packet).unwrap(), b"payload");
}

#[test]
fn before_a_session_nothing_is_sent_and_nothing_opened() {
    let (mut sender, _) = pair();
    let packet = sender.seal(0, b"payload");
    let mut nobody = Core::new(0, 1);
    assert_eq!(nobody.try_seal(NOW, 2, 0, b"payload"), Err(NotSealed::NoKeys));
    assert_eq!(nobody.open(&packet), Err(NotOpened::NoKeys));
}

#[test]
fn a_session_that_is_known_is_not_begun_anew() {
    let (mut sender, mut receiver) = pair();
    let packet = sender.seal(0, b"payload");
    assert!(receiver.open(&packet).is_ok());
    for keys in [keys(2, 1, 7), keys(2, 1, 8), keys(2, 1, 7)] {
        let _ = receiver.guard.learn(NOW, keys, engine());
        assert_eq!(receiver.open(&packet), Err(NotOpened::Esp(InboundError::Replayed)));
    }
}

#[test]
fn a_new_session_takes_over_without_a_gap_and_ends_the_one_before_the_last() {
    let (mut sender, mut receiver) = pair();
    let old = sender.seal(0, b"old");
    let _ = sender.guard.learn(NOW, keys(1, 2, 8), engine());
    // The receiver has not heard of the new session yet.
    assert!(receiver.open(&sender.seal(0, b"still old")).is_ok());
    let _ = receiver.guard.learn(NOW, keys(2, 1, 8), engine());
    let later = NOW + SETTLING;
    assert_eq!(receiver.open(&sender.try_seal(later, 2, 0, b"new").unwrap()).unwrap(), b"new");
    assert_eq!(receiver.open(&old).unwrap(), b"old");
    assert!(receiver.guard.learn(NOW, keys(2, 1, 9), engine()).is_some());
    assert_eq!(receiver.open(&old), Err(NotOpened::NoKeys));
}

#[test]
fn who_starts_anew_is_sent_to_with_the_new_keys_at_once() {
    let (mut sender, _) = pair();
    let restarted = End { incarnation: Incarnation(201), ..end(2) };
    let secret = || Zeroizing::new([8; SECRET_LEN]);
    let _ = sender.guard.learn(NOW, SessionKeys::new(secret(), end(1), restarted), engine());
    let mut receiver = Core::knowing(0, 1, SessionKeys::new(secret(), restarted, end(1)));
    assert!(receiver.open(&sender.seal(0, b"payload")).is_ok());
}

#[test]
fn a_lane_is_replaced_in_time_and_the_receiver_follows_nothing_forged() {
    let (mut sender, mut receiver) = pair();
    sender.guard.rekey_at = 4;
    let mut late: Option<Vec<u8>> = None;
    let mut seen = Vec::new();
    for round in 0..100_u32 {
        let packet = sender.seal(0, &round.to_be_bytes());
        let mut forged = packet.clone();
        // The next generation's SPI, or one far away.
        let ahead = (spi(&packet) & !0xf0) | (spi(&packet).wrapping_add((round % 15 + 1) << 4) & 0xf0);
        forged[ipv4::HEADER_LEN..][..4].copy_from_slice(&ahead.to_be_bytes());
        assert!(receiver.open(&forged).is_err());
        if let Some(late) = late.take() {
            assert!(receiver.open(&late).is_ok(), "round {round}: overtaken, not replayed");
        }
        if round % 3 == 2 {
            late = Some(packet.clone());
        } else {
            assert_eq!(receiver.open(&packet).unwrap(), round.to_be_bytes());
        }
        seen.push(packet);
    }
    let generations: std::collections::BTreeSet<u32> = seen.iter().map(|packet| spi(packet)).collect();
    assert_eq!(generations.len(), 16, "every generation that an SPI can tell apart was passed through, and more");
    for packet in &seen[..99] {
        assert!(receiver.open(packet).is_err(), "a frame of an older generation was opened again");
    }
}

#[test]
fn a_sender_that_draws_a_new_number_goes_on_with_keys_of_their_own() {
    let (mut sender, mut receiver) = pair();
    assert!(receiver.open(&sender.seal(0, b"one")).is_ok());
    sender.ivs = IvGenerator::new(SenderNumber(1 << 20));
    assert_eq!(receiver.open(&sender.seal(0, b"two")).unwrap(), b"two");
}

#[test]
fn keys_are_not_printed() {
    let text = format!("{:?}", keys(1, 2, 0x77));
    assert!(text.contains("SessionKeys") && !text.contains("119") && !text.contains("77"), "{text}");
}

proptest! {
    #[test]
    fn names_are_read_as_they_were_written(session: u16, core in 0_u8..64, generation in 0_u8..16, lane in 0_u8..16) {
        let name = Name { session: session | keys::SESSION_BIT, core, generation, lane };
        prop_assert_eq!(Name::from_u32(name.to_u32()), Some(name));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let (mut sender, mut receiver) = pair();
        let mut esp = sender.seal(0, b"payload")[ipv4::HEADER_LEN..][..4].to_vec();
        esp.extend_from_slice(&bytes);
        prop_assert!(receiver.guard.open(MemberId(1), &mut esp).is_err());
        let mut bytes = bytes;
        prop_assert!(receiver.guard.open(MemberId(1), &mut bytes).is_err());
    }
}
