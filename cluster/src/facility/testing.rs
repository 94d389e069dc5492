//! What the tests of the transactions share.

use core::net::IpAddr;

use ipsec::Spi;
use ipsec::cipher::Cipher;
use ipsec::iv::SenderNumber;
use ipsec::key::SaKey;
use ipsec::lifetime::Lifetime;
use ipsec::sa::{ChildSa, Direction, Encapsulation, Mode, PeerId, SaParameters};
use ipsec::selector::{Selectors, TrafficSelector};

use super::claim::{Claim, Claimed, Fence, OwnerSeen, ask_owner};
use super::memory::Store;
use super::start::{FreshStart, Progress, Start};
use super::{Outcome, Request};
use crate::fabric::Processing;
use crate::id::{Incarnation, MemberId};
use crate::shadow::{ShadowSa, Use};

pub const DVIPA: &str = "203.0.113.80";

pub fn dvipa() -> IpAddr {
    DVIPA.parse().unwrap()
}

/// Carries a transaction out.
pub fn run(store: &mut Store, request: &Request) -> Outcome {
    store.execute(request).unwrap()
}

/// Makes a member the owner, whoever is it now.
pub fn own(store: &mut Store, member: u16, incarnation: u64) -> Fence {
    let seen = OwnerSeen::read(dvipa(), &run(store, &ask_owner(1, dvipa()))).unwrap();
    let claim = Claim::new(dvipa(), MemberId(member), Incarnation(incarnation), seen);
    match claim.judge(&run(store, &claim.request(2))).unwrap() {
        Claimed::Owned(fence) => fence,
        Claimed::Lost(seen) => panic!("lost to {seen:?}"),
    }
}

/// A start of a member, in a facility of its own.
pub fn fresh_start(member: u16) -> FreshStart {
    let mut store = Store::default();
    let mut start = Start::new(MemberId(member), [member as u8; 16], 1);
    loop {
        let outcome = run(&mut store, &start.request(1));
        match start.take(&outcome).unwrap() {
            Progress::Again(again) => start = again,
            Progress::Done(started) => return started.fresh,
        }
    }
}

/// A shadow SA with this inbound SPI, of epoch 3.
pub fn shadow(spi: u32) -> ShadowSa {
    let half = |direction, spi: u32, fill: u8| SaParameters {
        name: "web".into(),
        peer: PeerId(7),
        peer_name: "alice".into(),
        dvipa: dvipa(),
        remote: "192.0.2.20".parse().unwrap(),
        spi: Spi::new(spi).unwrap(),
        direction,
        mode: Mode::Tunnel,
        encapsulation: Encapsulation::None,
        cipher: Cipher::AesGcm128,
        key: SaKey::from_keymat(Cipher::AesGcm128, &(fill..fill + 20).collect::<Vec<_>>()).unwrap(),
        esn: false,
        replay_window_packets: 64,
        selectors: Selectors { local: vec![TrafficSelector::any_v4()], remote: vec![TrafficSelector::any_v4()] },
        lifetime: Lifetime::NONE,
        epoch: 3,
    };
    let child =
        ChildSa { inbound: half(Direction::Inbound, spi, 0x20), outbound: half(Direction::Outbound, spi + 1, 0x80) };
    ShadowSa {
        child,
        processing: Processing::Target,
        born_at: SenderNumber(70_000),
        usage: Use::First,
        replaces: None,
        sibling_of: None,
        grant_bytes_max: 1 << 20,
    }
}
