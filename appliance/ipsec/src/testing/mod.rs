//! What the tests of this crate share.

pub mod mcgrew;
pub mod packets;

use core::net::Ipv4Addr;

use wire::ipv4;

use crate::Spi;
use crate::cipher::Cipher;
use crate::engine::{Engine, EngineChoice, EngineKind, select};
use crate::inbound::{InboundSa, InboundShared};
use crate::iv::{IvGenerator, SenderNumber};
use crate::key::SaKey;
use crate::lifetime::Lifetime;
use crate::outbound::{OutboundSa, OutboundShared, OuterPolicy, esp_overhead};
use crate::sa::{Direction, Encapsulation, Mode, PeerId, SaParameters};
use crate::selector::{Selectors, TrafficSelector};

/// Where the sender counter stood when the tests' SAs were made.
pub const BORN_AT: SenderNumber = SenderNumber(100_000);

/// Bytes from pairs of hexadecimal digits.
pub fn hex(digits: &str) -> Vec<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).unwrap() as u8;
    digits.as_bytes().chunks(2).map(|pair| digit(&pair[0]) << 4 | digit(&pair[1])).collect()
}

/// Every engine of this build. One that does not work here fails the test: nothing is skipped.
pub fn engines() -> Vec<Engine> {
    let mut kinds = vec![EngineKind::Ring];
    if cfg!(feature = "ipsec-mb") {
        kinds.push(EngineKind::IpsecMb);
    }
    let selected = kinds.into_iter().map(|kind| select(EngineChoice::Prefer(kind)).unwrap());
    selected.inspect(|selection| assert_eq!(selection.fell_back, None)).map(|selection| selection.engine).collect()
}

/// The portable engine.
pub fn ring() -> Engine {
    engines()[0]
}

/// A tunnel between 203.0.113.80 and 198.51.100.9 that carries any IPv4 or IPv6 packet.
pub fn parameters(direction: Direction) -> SaParameters {
    let any = || vec![TrafficSelector::any_v4(), TrafficSelector::any_v6()];
    SaParameters {
        name: "web".into(),
        peer: PeerId(7),
        peer_name: "client@example".into(),
        dvipa: [203, 0, 113, 80].into(),
        remote: [198, 51, 100, 9].into(),
        spi: Spi::new(0xc0de_0001).unwrap(),
        direction,
        mode: Mode::Tunnel,
        encapsulation: Encapsulation::None,
        cipher: Cipher::AesGcm128,
        key: sample_key(Cipher::AesGcm128),
        esn: false,
        replay_window_packets: 64,
        selectors: Selectors { local: any(), remote: any() },
        lifetime: Lifetime::NONE,
        epoch: 1,
    }
}

/// Some key of a cipher, always the same.
pub fn sample_key(cipher: Cipher) -> SaKey {
    let keymat: Vec<u8> = (0x40..).take(cipher.keymat_len()).collect();
    SaKey::from_keymat(cipher, &keymat).unwrap()
}

/// Both ends of one SA: who sends and who receives. `change` is made to both.
pub fn ends(engine: Engine, change: impl Fn(&mut SaParameters)) -> (OutboundSa, InboundSa) {
    let changed = |direction| {
        let mut parameters = parameters(direction);
        change(&mut parameters);
        parameters
    };
    let outbound = OutboundShared::new(changed(Direction::Outbound), engine, BORN_AT).unwrap();
    let inbound = InboundShared::new(changed(Direction::Inbound), engine, 1).unwrap();
    (OutboundSa::new(outbound, 1, OuterPolicy::default()), InboundSa::new(inbound))
}

/// A sender that the tests' SAs admit.
pub fn ivs() -> IvGenerator {
    IvGenerator::new(BORN_AT)
}

/// A UDP packet of this length, at least 28.
pub fn ipv4_packet(len: usize) -> Vec<u8> {
    let mut packet: Vec<u8> = (0..len).map(|at| at as u8).collect();
    packet[..28].fill(0);
    let mut ip = ipv4::Packet::new_unchecked(&mut packet[..]);
    ip.set_version_and_header_len(20);
    ip.set_total_len(len as u16);
    ip.set_ttl(64);
    ip.set_protocol(17);
    ip.set_src(Ipv4Addr::new(10, 7, 0, 9));
    ip.set_dst(Ipv4Addr::new(203, 0, 113, 80));
    ip.fill_checksum();
    packet[20..24].copy_from_slice(&[0x9c, 0x40, 0, 53]);
    packet[24..26].copy_from_slice(&(len as u16 - 20).to_be_bytes());
    packet
}

/// One payload as an ESP packet without outer headers.
pub fn sealed(sa: &mut OutboundSa, ivs: &mut IvGenerator, payload: &[u8], next_header: u8) -> Vec<u8> {
    let overhead = esp_overhead(payload.len());
    let mut packet = vec![0; overhead.before + payload.len() + overhead.after];
    packet[overhead.before..][..payload.len()].copy_from_slice(payload);
    let _ = sa.seal(ivs, &mut packet, payload.len(), next_header).unwrap();
    packet
}

/// An ESP packet with any plaintext and number at all, trailer included: what a broken but authentic peer may send.
pub fn sealed_raw(shared: &InboundShared, sequence: u64, iv: [u8; 8], plain: &[u8]) -> Vec<u8> {
    let parameters = shared.parameters();
    let mut packet = parameters.spi.to_be_bytes().to_vec();
    packet.extend((sequence as u32).to_be_bytes());
    packet.extend(iv);
    packet.extend(plain);
    packet.extend([0; 16]);
    let key = crate::engine::AeadKey::new(ring(), &parameters.key).unwrap();
    let input = key.input(iv, parameters.spi, sequence, parameters.esn);
    key.seal(&input, &mut packet[16..]).unwrap();
    packet
}
