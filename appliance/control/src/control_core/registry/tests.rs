//! What the cores are told of an SA that members share.

use cluster::shadow::{ShadowSa, Use};
use datapath::mailbox::{Mailbox, mailbox};
use ipsec::cipher::Cipher;
use ipsec::engine::{self, EngineChoice};
use ipsec::key::SaKey;
use ipsec::lifetime::Lifetime;
use ipsec::sa::{ChildSa, Encapsulation, Mode};
use ipsec::selector::{Selectors, TrafficSelector};

use super::*;
use crate::control_core::cores::CoreHandle;

type Frame = datapath::memory::Frame;

const WINDOW_PACKETS: u32 = 32;

fn sibling() -> ShadowSa {
    let half = |direction, spi: u32, fill: u8| SaParameters {
        name: "web".into(),
        peer: PeerId(7),
        peer_name: "alice".into(),
        dvipa: "203.0.113.80".parse().unwrap(),
        remote: "192.0.2.20".parse().unwrap(),
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
        epoch: 1,
    };
    ShadowSa {
        child: ChildSa { inbound: half(Direction::Inbound, 300, 1), outbound: half(Direction::Outbound, 301, 2) },
        processing: Processing::Target,
        born_at: SenderNumber(0),
        usage: Use::ReceiveOnly,
        replaces: None,
        sibling_of: Spi::new(299),
        grant_bytes_max: 1 << 20,
    }
}

/// Two cores, what they are told, and a sibling that only receives.
fn installed() -> (Registry, Cores<Frame>, Vec<Mailbox<Frame>>, ChildId) {
    let (mailboxes, links): (Vec<_>, Vec<_>) = (0..2).map(|_| mailbox()).unzip();
    let cores = links.into_iter().map(|link| CoreHandle::new(link, Arc::default(), Arc::default())).collect();
    let mut registry = Registry::new(engine::select(EngineChoice::Auto).unwrap().engine, 2, vec![1500]);
    let (sibling, routes) = (sibling(), RouteTable::new(&[], &[]).unwrap());
    let child = sibling.id();
    let mut cores = Cores::new(cores);
    let id = registry.admit_shadow(sibling, &routes).unwrap();
    registry.install_inbound(id, true, &mut cores);
    (registry, cores, mailboxes, child)
}

/// What each core is told, in short.
fn told(mailboxes: &mut [Mailbox<Frame>]) -> Vec<Vec<&'static str>> {
    let name = |command| match command {
        Command::InstallInbound(_) => "inbound",
        Command::InstallOutbound(_) => "outbound",
        Command::InstallReserve(_) => "reserve",
        Command::SetNumbers { source: NumberSource::Own { from: 40 }, window_packets: WINDOW_PACKETS, .. } => "numbers",
        Command::PreferOutbound { .. } => "prefer",
        _ => "else",
    };
    mailboxes.iter_mut().map(|core| std::iter::from_fn(|| core.next_command()).map(name).collect()).collect()
}

#[test]
fn a_sibling_is_sent_on_by_whom_it_is_given_to_and_with_the_numbers_told_before() {
    let (mut registry, mut cores, mut mailboxes, child) = installed();
    assert_eq!(told(&mut mailboxes), [["inbound"], ["inbound"]], "nobody sends on it yet");
    registry.set_numbers(child, NumberSource::Own { from: 40 }, WINDOW_PACKETS, &mut cores);
    told(&mut mailboxes);
    registry.send_first(child, WINDOW_PACKETS, &mut cores);
    assert_eq!(told(&mut mailboxes), [["outbound", "numbers"], ["outbound", "numbers"]]);
}

#[test]
fn what_is_preferred_again_comes_before_an_sa_that_is_newer() {
    let (mut registry, mut cores, mut mailboxes, child) = installed();
    registry.send_first(child, WINDOW_PACKETS, &mut cores);
    told(&mut mailboxes);
    registry.send_first(child, WINDOW_PACKETS, &mut cores);
    assert_eq!(told(&mut mailboxes), [["prefer"], ["prefer"]]);
}
