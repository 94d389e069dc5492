//! ESP from the outside, by someone who may even hold the key: an inbound SA against a model.
//!
//! The input is a script of packets for one SA. Some are arbitrary bytes, some are sealed here with the right key around
//! arbitrary content, some are damaged on their way. A plain model (a set of accepted numbers, the trailer read by hand)
//! says what must come out: which inner packet, or which refusal; and that no refusal moved the window.

#![no_main]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};

use ipsec::Spi;
use ipsec::cipher::Cipher;
use ipsec::engine::{Engine, EngineChoice, EngineKind, PEEK_LEN_MAX, select};
use ipsec::inbound::{InboundError, InboundSa, InboundShared};
use ipsec::key::SaKey;
use ipsec::lifetime::Lifetime;
use ipsec::sa::{Direction, Encapsulation, Mode, PeerId, SaParameters};
use ipsec::selector::{Selectors, TrafficSelector};
use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::split;
use ring::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const SPI: u32 = 0x1001;
const KEYMAT: [u8; 36] = *b"thirty-two bytes of key, and a salt!";
const BEFORE_LEN: usize = 16;
const ICV_LEN: usize = 16;

fuzz_target!(|data: &[u8]| {
    let Some(([choices], mut script)) = split::<1>(data) else { return };
    let mut lab = Lab::new(choices);
    while let Some(([kind, mantissa, shift, len], rest)) = split::<4>(script) {
        let (content, rest) = rest.split_at(usize::from(len).min(rest.len()));
        script = rest;
        let sequence = lab.sequence(mantissa, shift);
        match kind % 4 {
            0 => lab.arbitrary(content),
            1 => lab.damaged(sequence, content, mantissa),
            _ => lab.sealed(sequence, content),
        }
    }
});

/// One SA, and what the model knows of it.
struct Lab {
    sa: InboundSa,
    sealer: LessSafeKey,
    salt: [u8; 4],
    esn: bool,
    mode: Mode,
    window: u64,
    top: u64,
    accepted: BTreeSet<u64>,
}

impl Lab {
    fn new(choices: u8) -> Self {
        let esn = choices & 1 != 0;
        let mode = if choices & 2 != 0 { Mode::Transport } else { Mode::Tunnel };
        let window = [64, 128, 1024, 0][usize::from(choices >> 2 & 3)];
        let (cipher, algorithm) =
            if choices & 16 != 0 { (Cipher::AesGcm256, &AES_256_GCM) } else { (Cipher::AesGcm128, &AES_128_GCM) };
        let keymat = &KEYMAT[..cipher.keymat_len()];
        let (key, salt) = keymat.split_at(cipher.key_len());
        let parameters = SaParameters {
            name: "fuzz".into(),
            peer: PeerId(1),
            peer_name: "stranger".into(),
            dvipa: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 80)),
            remote: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            spi: Spi::new(SPI).expect("it is no reserved one"),
            direction: Direction::Inbound,
            mode,
            encapsulation: Encapsulation::None,
            cipher,
            key: SaKey::from_keymat(cipher, keymat).expect("it has the right length"),
            esn,
            replay_window_packets: window,
            selectors: Selectors { local: vec![TrafficSelector::any_v4()], remote: vec![TrafficSelector::any_v4()] },
            lifetime: Lifetime::NONE,
            epoch: 0,
        };
        let shared: Arc<InboundShared> = InboundShared::new(parameters, engine(), 1).expect("the parameters fit");
        Self {
            sa: InboundSa::new(shared),
            sealer: LessSafeKey::new(UnboundKey::new(algorithm, key).expect("it has the right length")),
            salt: salt.try_into().expect("a salt has four bytes"),
            esn,
            mode,
            window: u64::from(window),
            top: 0,
            accepted: BTreeSet::new(),
        }
    }

    /// A number somewhere around the top: near, far, or across the 32-bit boundary.
    fn sequence(&self, mantissa: u8, shift: u8) -> u64 {
        let distance = i64::from(mantissa as i8) << (shift % 34);
        let sequence = self.top.saturating_add_signed(distance);
        if self.esn { sequence } else { sequence & 0xffff_ffff }
    }

    /// A whole ESP packet around this plaintext (payload, padding, pad length, next header), rightly sealed.
    fn seal(&self, sequence: u64, plain: &[u8]) -> Vec<u8> {
        let mut packet = SPI.to_be_bytes().to_vec();
        packet.extend((sequence as u32).to_be_bytes());
        packet.extend(sequence.to_be_bytes());
        packet.extend(plain);
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&self.salt);
        nonce[4..].copy_from_slice(&sequence.to_be_bytes());
        let mut aad = SPI.to_be_bytes().to_vec();
        if self.esn {
            aad.extend(((sequence >> 32) as u32).to_be_bytes());
        }
        aad.extend((sequence as u32).to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self.sealer.seal_in_place_separate_tag(nonce, Aad::from(&aad), &mut packet[BEFORE_LEN..]);
        packet.extend(sealed.expect("it is short enough").as_ref());
        packet
    }

    fn arbitrary(&mut self, bytes: &[u8]) {
        let mut packet = bytes.to_vec();
        let peeked = self.sa.shared().peek(&packet);
        assert_eq!(peeked.is_ok(), packet.len() >= BEFORE_LEN + 2 + ICV_LEN);
        assert!(self.sa.open(&mut packet).is_err(), "forged without the key");
        assert_eq!(self.sa.window().top(), self.top);
    }

    fn damaged(&mut self, sequence: u64, plain: &[u8], at: u8) {
        let mut packet = self.seal(sequence, plain);
        let bit = usize::from(at) * 37 % (packet.len() * 8);
        packet[bit / 8] ^= 1 << (bit % 8);
        // The SPI in the packet only finds the SA; what is authenticated is the SA's own.
        if bit < 32 {
            return;
        }
        assert!(self.sa.open(&mut packet).is_err(), "one bit was flipped");
        assert_eq!(self.sa.window().top(), self.top);
    }

    fn sealed(&mut self, sequence: u64, plain: &[u8]) {
        let mut packet = self.seal(sequence, plain);
        self.check_peek(&packet, plain);
        let expected = self.expected(sequence, plain);
        let found = self.sa.open(&mut packet).map(|opened| {
            assert_eq!(opened.sequence(), sequence);
            (packet[opened.inner.clone()].to_vec(), opened.next_header)
        });
        assert_eq!(found, expected, "number {sequence} with the top at {}", self.top);
        if matches!(found, Ok(_) | Err(InboundError::Dummy)) {
            assert!(self.accepted.insert(sequence) || self.window == 0, "accepted twice");
            self.top = self.top.max(sequence);
        }
        assert_eq!(self.sa.window().top(), self.top);
    }

    /// A peek at an honest packet sees what opening it will show.
    fn check_peek(&self, packet: &[u8], plain: &[u8]) {
        let Ok(peeked) = self.sa.shared().peek(packet) else {
            assert!(plain.len() < 2);
            return;
        };
        assert_eq!(peeked.unauthenticated_head(), &plain[..plain.len().min(PEEK_LEN_MAX)]);
        assert_eq!(Some(&peeked.unauthenticated_next_header()), plain.last());
    }

    /// What must come of an honest packet, in the order of RFC 4303 §3.4.
    fn expected(&self, sequence: u64, plain: &[u8]) -> Result<(Vec<u8>, u8), InboundError> {
        let believed = if self.esn { nearest(self.top, sequence as u32) } else { sequence };
        if believed == 0 {
            return Err(InboundError::TooOld);
        }
        if self.window > 0 && believed <= self.top {
            if self.top - believed >= self.window {
                return Err(InboundError::TooOld);
            }
            if self.accepted.contains(&believed) {
                return Err(InboundError::Replayed);
            }
        }
        if plain.len() < 2 {
            return Err(InboundError::Truncated);
        }
        if believed != sequence {
            return Err(InboundError::AuthenticationFailed);
        }
        let (payload, next_header) = without_trailer(plain).ok_or(InboundError::BadPadding)?;
        let len = match (next_header, self.mode) {
            (59, _) => return Err(InboundError::Dummy),
            (_, Mode::Transport) => payload.len(),
            (4, Mode::Tunnel) => stated_len(payload, 4, 20).ok_or(InboundError::MalformedInner)?,
            (41, Mode::Tunnel) => stated_len(payload, 6, 40).ok_or(InboundError::MalformedInner)?,
            (_, Mode::Tunnel) => return Err(InboundError::UnknownNextHeader),
        };
        Ok((payload[..len].to_vec(), next_header))
    }
}

fn engine() -> Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    *ENGINE.get_or_init(|| select(EngineChoice::Prefer(EngineKind::Ring)).expect("ring passes its self-test").engine)
}

/// Of all numbers with these low bits the one nearest to the top; of two, the later.
fn nearest(top: u64, low: u32) -> u64 {
    let high = top >> 32;
    let candidates = [high.checked_sub(1), Some(high), high.checked_add(1)];
    let numbers = candidates.into_iter().flatten().filter(|high| *high <= u64::from(u32::MAX));
    let numbers = numbers.map(|high| high << 32 | u64::from(low));
    numbers.min_by_key(|number| (number.abs_diff(top), u64::MAX - number)).expect("the middle one always exists")
}

/// The payload and the next header, if the padding counts 1, 2, 3…
fn without_trailer(plain: &[u8]) -> Option<(&[u8], u8)> {
    let pad_len = usize::from(plain[plain.len() - 2]);
    let end = (plain.len() - 2).checked_sub(pad_len)?;
    let counted = (0..pad_len).all(|at| usize::from(plain[end + at]) == at + 1);
    counted.then_some((&plain[..end], plain[plain.len() - 1]))
}

/// The length that an inner header of this version states, if it lies within the payload.
fn stated_len(payload: &[u8], version: u8, header_len: usize) -> Option<usize> {
    if payload.len() < header_len || payload[0] / 16 != version {
        return None;
    }
    let stated = match version {
        4 => usize::from(payload[2]) * 256 + usize::from(payload[3]),
        _ => 40 + usize::from(payload[4]) * 256 + usize::from(payload[5]),
    };
    (header_len..=payload.len()).contains(&stated).then_some(stated)
}
