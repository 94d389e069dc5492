//! What the control core orders: SAs come, are replaced and go, between two bursts.

use std::sync::Arc;

use datapath::connections::LISTED_AT_ONCE;
use datapath::core::Capacity;
use datapath::drops::DropReason;
use datapath::mailbox::{Command, Event, Retired, SaName};
use datapath::policy::Policy;
use ipsec::Spi;
use ipsec::sa::{Direction, PeerId};
use ipsec::spd::Spd;
use wire::protocol;
use wire::tcp::Flags;

use crate::support::client::{Client, SaSpec};
use crate::support::packets::{DVIPA, Flow};
use crate::support::{Bench, Setup, inbound_entry, outbound_entry};

fn names(bench: &Bench) -> Vec<(usize, SaName)> {
    let name = |what: &Retired| match what {
        Retired::Inbound(entry) => Some(entry.name()),
        Retired::Outbound(entry) => Some(entry.name()),
        Retired::Routes(_)
        | Retired::Policy(_)
        | Retired::Ivs(_)
        | Retired::Fabric(_)
        | Retired::Dpt(_)
        | Retired::FrameKeys(_)
        | Retired::Keys(_) => None,
    };
    bench.retired.iter().filter_map(|(core, what)| Some((*core, name(what)?))).collect()
}

fn says_hello(bench: &mut Bench, client: &mut Client, flow: Flow) {
    bench.client_sends(0, &client.seal(&flow.udp(b"hello")));
    bench.settle();
}

#[test]
fn a_removed_sa_comes_back_from_every_core_and_carries_nothing_more() {
    let mut bench = Bench::new(3);
    let mut client = bench.connect(SaSpec { peer: 7, ..SaSpec::default() });
    let flow = client.flow(5_000);
    says_hello(&mut bench, &mut client, flow);
    assert_eq!(bench.take_delivered().len(), 1);

    bench.remove_inbound(&client);
    bench.remove_outbound(&client);
    let name = |direction, spi| SaName { peer: PeerId(7), dvipa: DVIPA.into(), direction, spi: Spi::new(spi).unwrap() };
    let inbound = name(Direction::Inbound, client.spec.spi_in);
    let outbound = name(Direction::Outbound, client.spec.spi_out);
    let cores = 0..3;
    let expected: Vec<(usize, SaName)> =
        cores.clone().map(|core| (core, inbound)).chain(cores.map(|core| (core, outbound))).collect();
    assert_eq!(names(&bench), expected);

    says_hello(&mut bench, &mut client, flow);
    bench.web_sends(0, &flow.answer().udp(b"too late"));
    bench.settle();
    bench.assert_drops(&[(DropReason::SpiUnknown, 1), (DropReason::NoOutboundSa, 1)]);

    bench.retired.clear();
    bench.remove_inbound(&client);
    bench.remove_outbound(&client);
    assert!(bench.retired.is_empty(), "what is not there does not come back twice");
}

/// RFC 7296 §2.8: who answered a rekeying knows that the new SA can be sent on when a packet has come by it.
#[test]
fn an_sa_in_reserve_is_sent_on_only_where_nothing_else_admits_or_when_it_is_preferred() {
    for cores in 1..=2 {
        let mut bench = Bench::new(cores);
        let mut old = bench.accept(SaSpec::default());
        bench.install_reserve(&old);
        let flow = old.flow(5_000);
        says_hello(&mut bench, &mut old, flow);
        let answer = |bench: &mut Bench, client: &mut Client| {
            bench.web_sends(0, &flow.answer().udp(b"answer"));
            bench.settle();
            client.try_open(&bench.take_sent()[0].bytes).is_some_and(|opened| opened.is_ok())
        };
        assert!(answer(&mut bench, &mut old), "the first of all is answered at once");

        let mut new = bench.accept(old.spec.rekeyed());
        bench.install_reserve(&new);
        assert!(answer(&mut bench, &mut old));
        let spi = Spi::new(new.spec.spi_out).unwrap();
        bench.command_all(|| Command::PreferOutbound { peer: PeerId(1), spi });
        bench.settle();
        assert!(answer(&mut bench, &mut new));
        bench.remove_outbound(&new);
        assert!(answer(&mut bench, &mut old));
        bench.assert_drops(&[]);
    }
}

#[test]
fn after_a_rekey_the_new_sa_is_sent_on_and_both_are_received_on() {
    for cores in 1..=2 {
        let mut bench = Bench::new(cores);
        let mut old = bench.connect(SaSpec::default());
        let flow = old.flow(5_000);
        says_hello(&mut bench, &mut old, flow);
        bench.web_sends(0, &flow.answer().udp(b"on the old one"));
        bench.settle();
        assert!(old.open(&bench.take_sent()[0].bytes).is_ok());

        let mut new = bench.connect(old.spec.rekeyed());
        bench.web_sends(0, &flow.answer().udp(b"on the new one"));
        bench.settle();
        assert!(new.open(&bench.take_sent()[0].bytes).is_ok());
        says_hello(&mut bench, &mut old, flow);
        says_hello(&mut bench, &mut new, flow);
        assert_eq!(bench.take_delivered().len(), 3);

        bench.remove_inbound(&old);
        bench.remove_outbound(&old);
        says_hello(&mut bench, &mut old, flow);
        says_hello(&mut bench, &mut new, flow);
        bench.web_sends(0, &flow.answer().udp(b"still on the new one"));
        bench.settle();
        assert!(new.open(&bench.take_sent()[0].bytes).is_ok());
        assert_eq!(bench.take_delivered().len(), 1);
        bench.assert_drops(&[(DropReason::SpiUnknown, 1)]);
    }
}

#[test]
fn when_the_new_sa_goes_first_the_old_one_is_sent_on_again() {
    let mut bench = Bench::new(2);
    let mut old = bench.connect(SaSpec::default());
    let flow = old.flow(5_000);
    says_hello(&mut bench, &mut old, flow);
    let new = bench.connect(old.spec.rekeyed());
    bench.remove_outbound(&new);
    bench.web_sends(1, &flow.answer().udp(b"back to the old one"));
    bench.settle();
    assert!(old.open(&bench.take_sent()[0].bytes).is_ok());
}

#[test]
fn a_packet_on_its_way_to_the_home_core_of_an_sa_that_goes_is_dropped_and_counted() {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec { home: 1, ..SaSpec::default() });
    let flow = (5_000..6_000).map(|port| client.flow(port)).find(|flow| bench.owner(&flow.key(protocol::UDP)) == 0);
    let flow = flow.unwrap();
    says_hello(&mut bench, &mut client, flow);
    bench.web_sends(0, &flow.answer().udp(b"on its way"));
    bench.poll(0);
    assert_eq!(bench.balance().held, 1);
    bench.remove_outbound(&client);
    bench.assert_drops(&[(DropReason::NoOutboundSa, 1)]);
}

#[test]
fn an_sa_whose_place_is_taken_comes_back_and_the_first_keeps_its_window() {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec::default());
    let packet = client.seal(&client.flow(5_000).udp(b"once"));
    bench.client_sends(0, &packet);
    bench.settle();
    for core in 0..2 {
        bench.command(core, Command::InstallInbound(inbound_entry(&client, core)));
    }
    bench.settle();
    assert_eq!(names(&bench).len(), 2);
    bench.client_sends(1, &packet);
    bench.settle();
    bench.assert_drops(&[(DropReason::ReplayDuplicate, 1)]);
}

#[test]
fn an_sa_whose_home_is_no_core_comes_back() {
    let mut bench = Bench::new(2);
    let client = bench.accept(SaSpec { home: 2, ..SaSpec::default() });
    let shared = client.spec.appliance_outbound();
    bench.command_all(|| Command::InstallOutbound(outbound_entry(&client, &shared, 0)));
    bench.web_sends(0, &client.flow(5_000).answer().udp(b"nobody seals this"));
    bench.settle();
    assert_eq!(names(&bench).len(), 2);
    bench.assert_drops(&[(DropReason::NoOutboundSa, 1)]);
}

#[test]
fn a_new_policy_decides_from_the_next_packet_on_and_the_old_one_comes_back() {
    let mut bench = Bench::new(2);
    let to_dvipa = Flow { src: [198, 51, 100, 1].into(), src_port: 500, dst: DVIPA, dst_port: 500 };
    bench.client_sends(0, &to_dvipa.udp(b"ike"));
    bench.settle();
    assert_eq!(bench.punted.len(), 1);
    let none = Arc::new(Policy::new([], Spd::default()));
    bench.command_all(|| Command::Policy(Arc::clone(&none)));
    bench.client_sends(0, &to_dvipa.udp(b"ike"));
    bench.settle();
    assert_eq!(bench.punted.len(), 1);
    bench.assert_drops(&[(DropReason::AddressNotServed, 1)]);
    assert!(bench.retired.iter().filter(|(_, what)| matches!(what, Retired::Policy(_))).count() == 2);
}

#[test]
fn an_appliance_without_addresses_of_its_own_serves_nobody() {
    let mut bench = Bench::new(1);
    let mut client = bench.connect(SaSpec::default());
    bench.command_all(|| Command::Policy(Arc::default()));
    let flow = client.flow(5_000);
    says_hello(&mut bench, &mut client, flow);
    bench.assert_drops(&[(DropReason::AddressNotServed, 1)]);
}

/// For benchmarks with SAs without IKE, and for nothing else.
#[test]
fn reset_windows_forget_every_number() {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec::default());
    let packet = client.seal(&client.flow(5_000).udp(b"round and round"));
    for _ in 0..3 {
        bench.client_sends(0, &packet);
        bench.client_sends(1, &packet);
        bench.command_all(|| Command::ResetWindows);
        bench.settle();
        assert_eq!(bench.take_delivered().len(), 1);
    }
    bench.assert_drops(&[(DropReason::ReplayDuplicate, 3)]);
}

/// A turn of the loop must not go through millions of empty slots.
#[test]
fn a_listing_looks_at_a_bounded_part_of_the_table_at_once() {
    let capacity = Capacity { connections: 3 * LISTED_AT_ONCE, ..Setup::of(1).capacity };
    let mut bench = Bench::with(Setup { capacity, ..Setup::of(1) });
    bench.command(0, Command::ListConnections { cursor: 0, page: Vec::with_capacity(10) });
    bench.settle();
    let listed: Vec<_> = bench
        .events
        .iter()
        .map(|(_, event)| match event {
            Event::Connections { page, next } => (page.len(), *next),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(listed, [(0, Some(LISTED_AT_ONCE))]);
    bench.events.clear();
    let mut client = bench.connect(SaSpec::default());
    for port in 0..50 {
        bench.client_sends(0, &client.seal(&client.flow(port).tcp(Flags::SYN, b"")));
    }
    bench.settle();
    assert_eq!(bench.connections().len(), 50);
    bench.command(0, Command::ListConnections { cursor: usize::MAX, page: Vec::with_capacity(10) });
    bench.settle();
    assert!(matches!(bench.events[..], [(0, Event::Connections { next: None, .. })]));
}

#[test]
fn a_dummy_is_a_first_packet_too() {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec { tell_first_packet: true, ..SaSpec::default() });
    bench.client_sends(1, &client.seal_raw(b"nothing to say", protocol::NO_NEXT_HEADER));
    bench.settle();
    assert!(matches!(bench.events[..], [(1, Event::FirstPacket { .. })]), "{:?}", bench.events);
}
