//! What the tests beside the code share: real SAs, and a proof of authenticity from one.

use core::net::IpAddr;
use ipsec::Spi;
use ipsec::cipher::Cipher;
use ipsec::engine::{Engine, EngineChoice, select};
use ipsec::esp::{Authentic, NEXT_HEADER_IPV4};
use ipsec::inbound::{InboundSa, InboundShared};
use ipsec::iv::{IvGenerator, SenderNumber};
use ipsec::key::SaKey;
use ipsec::lifetime::Lifetime;
use ipsec::outbound::{OutboundSa, OutboundShared, OuterPolicy, esp_overhead};
use ipsec::sa::{Direction, Encapsulation, Mode, PeerId, SaParameters};
use ipsec::selector::{Selectors, TrafficSelector};

use crate::packet::Proof;

pub(crate) fn engine() -> Engine {
    select(EngineChoice::Auto).unwrap().engine
}

/// A tunnel for these addresses of a peer.
pub(crate) fn parameters(peer: u64, spi: u32, direction: Direction, remote_ts: &[&str]) -> SaParameters {
    let remote: IpAddr = [198, 51, 100, peer as u8].into();
    SaParameters {
        name: "web".into(),
        peer: PeerId(peer),
        peer_name: format!("peer{peer}").into(),
        dvipa: [203, 0, 113, 80].into(),
        remote,
        spi: Spi::new(spi).unwrap(),
        direction,
        mode: Mode::Tunnel,
        encapsulation: Encapsulation::None,
        cipher: Cipher::AesGcm128,
        key: SaKey::from_keymat(Cipher::AesGcm128, &[7; 20]).unwrap(),
        esn: false,
        replay_window_packets: 64,
        selectors: Selectors {
            local: vec![TrafficSelector::any_v4()],
            remote: remote_ts.iter().map(|text| text.parse().unwrap()).collect(),
        },
        lifetime: Lifetime::NONE,
        epoch: 1,
    }
}

/// The proof that comes with an opened packet; there is no other way to one.
pub(crate) fn authentic() -> Authentic {
    let shared =
        OutboundShared::new(parameters(1, 300, Direction::Outbound, &["0.0.0.0/0"]), engine(), SenderNumber(0));
    let mut sender = OutboundSa::new(shared.unwrap(), 1, OuterPolicy::default());
    let shared = InboundShared::new(parameters(1, 300, Direction::Inbound, &["0.0.0.0/0"]), engine(), 1);
    let mut receiver = InboundSa::new(shared.unwrap());
    let mut inner = vec![0; 20];
    (inner[0], inner[3]) = (0x45, 20);
    let room = esp_overhead(inner.len());
    let mut packet = [vec![0; room.before], inner, vec![0; room.after]].concat();
    let _ = sender.seal(&mut IvGenerator::new(SenderNumber(0)), &mut packet, 20, NEXT_HEADER_IPV4).unwrap();
    receiver.open(&mut packet).unwrap().proof
}

/// The same, as the data path carries it.
pub(crate) fn proof() -> Proof {
    Proof::Authentic(authentic())
}
