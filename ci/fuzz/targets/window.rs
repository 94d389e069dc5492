//! A replay window in a cluster, against a set: packets that are opened here, packets that another appliance opened and
//! vouches for, floors and tops that come with either, and floors that rise meanwhile.

#![no_main]

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};

use ipsec::Spi;
use ipsec::cipher::Cipher;
use ipsec::engine::{Engine, EngineChoice, EngineKind, select};
use ipsec::inbound::{Carried, InboundError, InboundSa, InboundShared, Vouched};
use ipsec::key::SaKey;
use ipsec::lifetime::Lifetime;
use ipsec::sa::{Direction, Encapsulation, Mode, PeerId, SaParameters};
use ipsec::selector::{Selectors, TrafficSelector};
use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::split;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

const SPI: u32 = 0x1001;
const KEYMAT: [u8; 20] = *b"sixteen bytes & salt";

fuzz_target!(|data: &[u8]| {
    let Some(([choices], mut script)) = split::<1>(data) else { return };
    let mut lab = Lab::new(choices);
    while let Some(([kind, mantissa, shift, floor, top], rest)) = split::<5>(script) {
        script = rest;
        let sequence = lab.near(mantissa, shift);
        let carried =
            Carried { floor: lab.near(floor, top % 8), top: if top & 8 != 0 { lab.near(top, floor) } else { 0 } };
        match kind % 5 {
            0 | 1 => lab.open(sequence, carried),
            2 | 3 => lab.take(sequence, carried.floor),
            _ => lab.raise(sequence),
        }
    }
});

struct Lab {
    sa: InboundSa,
    shared: Arc<InboundShared>,
    sealer: LessSafeKey,
    esn: bool,
    window: u64,
    top: u64,
    floor: u64,
    /// What the SA knew of its progress before the packet.
    progress: u64,
    taken: BTreeSet<u64>,
}

impl Lab {
    fn new(choices: u8) -> Lab {
        let (esn, window) = (choices & 1 != 0, [64, 128, 4_096][usize::from(choices >> 1) % 3]);
        let parameters = SaParameters {
            name: "fuzz".into(),
            peer: PeerId(1),
            peer_name: "member".into(),
            dvipa: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 80)),
            remote: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            spi: Spi::new(SPI).expect("it is no reserved one"),
            direction: Direction::Inbound,
            mode: Mode::Transport,
            encapsulation: Encapsulation::None,
            cipher: Cipher::AesGcm128,
            key: SaKey::from_keymat(Cipher::AesGcm128, &KEYMAT).expect("it has the right length"),
            esn,
            replay_window_packets: window,
            selectors: Selectors { local: vec![TrafficSelector::any_v4()], remote: vec![TrafficSelector::any_v4()] },
            lifetime: Lifetime::NONE,
            epoch: 0,
        };
        let shared = InboundShared::new(parameters, engine(), 1).expect("the parameters fit");
        Lab {
            sa: InboundSa::new(Arc::clone(&shared)),
            shared,
            sealer: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &KEYMAT[..16]).expect("it has the right length")),
            esn,
            window: u64::from(window),
            top: 0,
            floor: 0,
            progress: 0,
            taken: BTreeSet::new(),
        }
    }

    /// A number around the top: near, far, or across the 32-bit boundary.
    fn near(&self, mantissa: u8, shift: u8) -> u64 {
        let sequence = self.top.saturating_add_signed(i64::from(mantissa as i8) << (shift % 34));
        if self.esn { sequence } else { sequence & 0xffff_ffff }
    }

    /// What a window and the floors say to a number.
    fn judge(&self, sequence: u64, floor: u64) -> Result<(), InboundError> {
        let is_old = sequence == 0 || sequence + self.window <= self.top;
        match () {
            () if is_old => Err(InboundError::TooOld),
            () if self.taken.contains(&sequence) => Err(InboundError::Replayed),
            () if sequence <= floor.max(self.floor) => Err(InboundError::BelowFloor),
            () => Ok(()),
        }
    }

    fn conclude(&mut self, sequence: u64, is_taken: bool) {
        if is_taken {
            assert!(self.taken.insert(sequence), "{sequence} was taken twice");
            self.top = self.top.max(sequence);
        }
        assert_eq!(self.sa.window().top(), self.top);
    }

    fn open(&mut self, sequence: u64, carried: Carried) {
        let mut packet = self.seal(sequence);
        let found = self.sa.open_carried(&mut packet, carried).map(|opened| opened.sequence());
        let hint = self.top.max(carried.top).max(self.progress);
        let believed = if self.esn { nearest(hint, sequence as u32) } else { sequence };
        let expected = match self.judge(believed, carried.floor) {
            Ok(()) if believed != sequence => Err(InboundError::AuthenticationFailed),
            judged => judged.map(|()| sequence),
        };
        assert_eq!(found, expected, "number {sequence}, {carried:?}, top {}, floor {}", self.top, self.floor);
        self.conclude(sequence, found.is_ok());
        self.progress = self.shared.progress();
    }

    fn take(&mut self, sequence: u64, floor: u64) {
        let found = self.sa.take(Vouched::new(sequence, floor)).map(|taken| taken.sequence());
        let judged = self.judge(sequence, floor);
        assert_eq!(found.is_ok(), judged.is_ok(), "number {sequence} above {floor}: {found:?}, not {judged:?}");
        self.conclude(sequence, found.is_ok());
    }

    fn raise(&mut self, floor: u64) {
        self.shared.raise_floor(floor);
        self.floor = self.floor.max(floor);
        assert_eq!(self.shared.floor(), self.floor);
        self.progress = self.shared.progress();
    }

    fn seal(&self, sequence: u64) -> Vec<u8> {
        let mut packet = SPI.to_be_bytes().to_vec();
        packet.extend((sequence as u32).to_be_bytes());
        packet.extend(sequence.to_be_bytes());
        // Eight bytes of payload, padding, pad length, UDP.
        packet.extend([7, 7, 7, 7, 7, 7, 7, 7, 1, 2, 2, 17]);
        let mut aad = SPI.to_be_bytes().to_vec();
        if self.esn {
            aad.extend(((sequence >> 32) as u32).to_be_bytes());
        }
        aad.extend((sequence as u32).to_be_bytes());
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&KEYMAT[16..]);
        nonce[4..].copy_from_slice(&sequence.to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self.sealer.seal_in_place_separate_tag(nonce, Aad::from(&aad), &mut packet[16..]);
        packet.extend(sealed.expect("it is short enough").as_ref());
        packet
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
