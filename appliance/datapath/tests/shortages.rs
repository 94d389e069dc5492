//! When something is full or empty: HOSTILE 41, within one appliance. Drops are counted, what stands is unharmed, and
//! everything recovers.

use std::time::Duration;

use datapath::core::Capacity;
use datapath::drops::DropReason;
use datapath::mailbox::{Command, PuntReason, Retired};
use datapath::routes::NextHop;
use ipsec::iv::{IvGenerator, SenderNumber};
use wire::protocol;
use wire::tcp::Flags;

use crate::support::client::{Client, SaSpec};
use crate::support::packets::{DVIPA, Flow, NETWORK_ADDRESS, WEB, WEB_MAC, from_router};
use crate::support::{Bench, INSIDE, NETWORK, Setup, inbound_entry};

/// Conversations of this client that this core owns.
fn owned_by(bench: &Bench, client: &Client, core: usize, protocol: u8) -> impl Iterator<Item = Flow> {
    let flows: Vec<Flow> = (1..10_000).map(|port| client.flow(port)).collect();
    let owned: Vec<Flow> = flows.into_iter().filter(|flow| bench.owner(&flow.key(protocol)) == core).collect();
    owned.into_iter()
}

fn with_ring(cores: usize, handover: usize) -> Bench {
    let capacity = Capacity { handover, ..Setup::of(cores).capacity };
    Bench::with(Setup { capacity, ..Setup::of(cores) })
}

#[test]
fn hostile_41_a_full_ring_to_the_owning_core_drops_and_recovers() {
    let mut bench = with_ring(2, 4);
    let mut client = bench.connect(SaSpec::default());
    let flows: Vec<Flow> = owned_by(&bench, &client, 1, protocol::UDP).take(32).collect();
    for flow in &flows {
        bench.client_sends(0, &client.seal(&flow.udp(b"for core 1")));
    }
    bench.poll(0);
    assert_eq!(bench.balance().held, 4);
    bench.assert_drops(&[(DropReason::HandoverFull, 28)]);
    bench.settle();
    assert_eq!(bench.take_delivered().len(), 4);
    for flow in &flows {
        bench.client_sends(0, &client.seal(&flow.udp(b"again")));
        bench.settle();
    }
    assert_eq!(bench.take_delivered().len(), 32);
}

#[test]
fn hostile_41_full_rings_on_the_way_out_drop_and_recover() {
    // Arrival, owner and home are three cores, so that an answer crosses two rings.
    let mut bench = with_ring(3, 4);
    let mut client = bench.connect(SaSpec { home: 2, ..SaSpec::default() });
    let flows: Vec<Flow> = owned_by(&bench, &client, 1, protocol::UDP).take(16).collect();
    for flow in &flows {
        bench.client_sends(1, &client.seal(&flow.udp(b"hello")));
        bench.settle();
    }
    for flow in &flows {
        bench.web_sends(0, &flow.answer().udp(b"answer"));
    }
    bench.poll(0);
    bench.assert_drops(&[(DropReason::HandoverFull, 12)]);
    for flow in &flows {
        bench.web_sends(1, &flow.answer().udp(b"answer"));
    }
    bench.poll(1);
    assert_eq!(bench.dropped(DropReason::HandoverFull), 12 + 16, "4 of 20 found room on the way home");
    bench.settle();
    let sent = bench.take_sent();
    assert_eq!(sent.len(), 4);
    for flow in &flows {
        bench.web_sends(0, &flow.answer().udp(b"answer"));
        bench.settle();
    }
    assert_eq!(bench.take_sent().len(), 16);
}

#[test]
fn hostile_41_a_core_that_stands_still_stops_nobody_else() {
    let mut bench = with_ring(2, 64);
    let mut client = bench.connect(SaSpec { home: 0, ..SaSpec::default() });
    let mine: Vec<Flow> = owned_by(&bench, &client, 0, protocol::UDP).take(10).collect();
    let other: Vec<Flow> = owned_by(&bench, &client, 1, protocol::UDP).take(10).collect();
    for round in 0..100 {
        for flow in mine.iter().chain(&other) {
            bench.client_sends(0, &client.seal(&flow.udp(b"hello")));
        }
        bench.poll(0);
        bench.advance(Duration::from_millis(1));
        assert_eq!(bench.take_delivered().len(), 10, "round {round}");
    }
    bench.assert_drops(&[(DropReason::HandoverFull, 1_000 - 64)]);
    bench.settle();
    assert_eq!(bench.take_delivered().len(), 64, "what was held is late, not lost");
}

#[test]
fn hostile_41_a_full_ring_to_control_drops_the_worthless_first_and_recovers() {
    let mut bench = Bench::new(1);
    bench.draining = false;
    let ping = Flow { src: [198, 51, 100, 1].into(), src_port: 0, dst: NETWORK_ADDRESS, dst_port: 0 };
    let ike = Flow { src_port: 500, dst_port: 500, dst: DVIPA, ..ping };
    let ike_natt = Flow { src_port: 4500, dst_port: 4500, dst: DVIPA, ..ping };
    let mut arp = from_router(&[0; 28]);
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    for _ in 0..600 {
        bench.client_sends(0, &ping.echo_request(b"flood"));
        bench.poll(0);
    }
    let flooded = bench.balance().punted;
    assert_eq!((flooded, bench.dropped(DropReason::PuntFull)), (256, 344), "half the ring is kept for ARP and IKE");
    for _ in 0..100 {
        bench.client_sends(0, &ike.udp(&[0; 28]));
        bench.client_sends(0, &ike_natt.udp(&[0; 32]));
        bench.network_frame(0, &arp);
        bench.poll(0);
    }
    assert_eq!(bench.balance().punted, 256 + 128, "a quarter is kept for the IKE of peers that are served");
    for _ in 0..100 {
        bench.client_sends(0, &ike.udp(&[0x11; 28]));
        bench.client_sends(0, &ike_natt.udp(&[&[0; 4], &[0x11; 28][..]].concat()));
        bench.poll(0);
    }
    assert_eq!(bench.balance().punted, 512, "it is used to the end");
    assert_eq!(bench.dropped(DropReason::PuntFull), 344 + (300 - 128) + (200 - 128));

    bench.draining = true;
    bench.settle();
    assert!(bench.punted.iter().all(|punted| punted.reason == PuntReason::ForUs));
    bench.client_sends(0, &ping.echo_request(b"ping"));
    bench.settle();
    assert_eq!(bench.punted.len(), 513);
}

#[test]
fn hostile_41_a_full_link_drops_what_it_cannot_take_and_recovers() {
    let mut bench = Bench::with(Setup { link_frames: 40, ..Setup::of(1) });
    let mut client = bench.connect(SaSpec::default());
    let flow = client.flow(5_000);
    bench.draining = false;
    for _ in 0..3 {
        for _ in 0..30 {
            bench.client_sends(0, &client.seal(&flow.udp(b"in")));
            bench.web_sends(0, &flow.answer().udp(b"out"));
        }
        bench.poll(0);
    }
    let balance = bench.balance();
    assert_eq!((balance.delivered, balance.forwarded), (40, 40));
    bench.assert_drops(&[(DropReason::TxFull, 100)]);
    let numbers: Vec<u64> = (1..=40).collect();

    bench.draining = true;
    bench.settle();
    let sent = bench.take_sent();
    assert_eq!(sent.iter().map(|sent| client.open(&sent.bytes).unwrap().sequence).collect::<Vec<_>>(), numbers);
    bench.web_sends(0, &flow.answer().udp(b"out"));
    bench.settle();
    // Numbers that were lost with a full link are not used again.
    assert_eq!(client.open(&bench.take_sent()[0].bytes).unwrap().sequence, 91);
}

#[test]
fn hostile_41_frames_of_control_that_no_link_takes_are_counted_apart() {
    let mut bench = Bench::with(Setup { link_frames: 10, ..Setup::of(1) });
    bench.draining = false;
    for _ in 0..25 {
        bench.originate(0, NETWORK, &[0xab; 60]);
    }
    bench.poll(0);
    assert_eq!((bench.balance().originated, bench.ledger(0).originated_lost.get()), (10, 15));
    assert_eq!(bench.balance().dropped, 0, "they were never received, so they are no drops");
    bench.draining = true;
    bench.settle();
    assert_eq!(bench.take_sent().len(), 10);
}

#[test]
fn hostile_41_an_exhausted_pool_gives_nothing_and_recovers() {
    let mut bench = Bench::with(Setup { pool_frames: 16, ..Setup::of(2) });
    let mut client = bench.connect(SaSpec::default());
    for _ in 0..50 {
        let mut arrived = 0;
        while bench.pool.in_use() < 16 {
            bench.client_sends(arrived % 2, &client.seal(&client.flow(arrived as u16).udp(b"burst")));
            arrived += 1;
        }
        assert!(bench.pool.frame(b"one more").is_none());
        bench.settle();
        assert_eq!(bench.take_delivered().len(), 16, "no step needs a second frame");
    }
    bench.assert_drops(&[]);
}

#[test]
fn hostile_41_a_frame_without_room_for_esp_is_dropped() {
    // Tailroom for the padding, but not for the ICV.
    let mut bench = Bench::with(Setup { frame_len: 400, ..Setup::of(2) });
    let mut client = bench.connect(SaSpec::default());
    let flow = client.flow(5_000);
    bench.client_sends(0, &client.seal(&flow.udp(b"hello")));
    bench.settle();
    for len in [300, 372 - 14] {
        bench.web_sends(0, &flow.answer().udp(&vec![7; len]));
    }
    bench.settle();
    bench.assert_drops(&[(DropReason::NoRoom, 1)]);
    let sent = bench.take_sent();
    assert_eq!(sent.len(), 1);
    assert_eq!(client.open(&sent[0].bytes).unwrap().sequence, 1);
}

#[test]
fn hostile_41_a_full_sad_gives_the_newcomer_back_and_harms_nobody() {
    let capacity = Capacity { sas: 2, ..Setup::of(2).capacity };
    let mut bench = Bench::with(Setup { capacity, ..Setup::of(2) });
    let spec = |peer: u32| SaSpec {
        peer: peer.into(),
        spi_in: 0xc000_0000 + peer,
        spi_out: 0xd000_0000 + peer,
        ..SaSpec::default()
    };
    let mut first = bench.connect(spec(1));
    let mut second = bench.connect(spec(2));
    let mut third = bench.accept(spec(3));
    let given_back =
        |bench: &Bench| bench.retired.iter().filter(|(_, what)| matches!(what, Retired::Inbound(_))).count();
    assert_eq!(given_back(&bench), 2, "by both cores");
    for (client, port) in [&mut first, &mut second, &mut third].into_iter().zip(5_000..) {
        bench.client_sends(0, &client.seal(&client.flow(port).udp(b"hello")));
    }
    bench.settle();
    assert_eq!(bench.take_delivered().len(), 2);
    bench.assert_drops(&[(DropReason::SpiUnknown, 1)]);

    bench.remove_inbound(&first);
    for core in 0..2 {
        bench.command(core, Command::InstallInbound(inbound_entry(&third, core)));
    }
    bench.client_sends(0, &third.seal(&third.flow(5_002).udp(b"hello")));
    bench.settle();
    assert_eq!(bench.take_delivered().len(), 1);
}

#[test]
fn hostile_41_with_the_event_ring_full_commands_wait_and_packets_do_not() {
    let mut bench = Bench::new(1);
    let mut client = bench.connect(SaSpec::default());
    bench.fill_events(0);
    assert!(bench.refuses_commands(0), "a full mailbox gives the command back");
    for _ in 0..100 {
        bench.client_sends(0, &client.seal(&client.flow(5_000).tcp(Flags::ACK, b"go on")));
        bench.poll(0);
    }
    assert_eq!(bench.balance().delivered, 100);
    bench.draining = true;
    bench.drain(0);
    bench.settle();
    assert!(bench.has_obeyed(0), "they are executed once there is room");
    assert!(!bench.refuses_commands(0));
}

#[test]
fn hostile_41_a_burst_of_commands_delays_a_packet_by_one_turn_at_most() {
    let mut bench = Bench::new(1);
    let mut client = bench.connect(SaSpec::default());
    for _ in 0..1_000 {
        let hop = NextHop { port: INSIDE, address: WEB.into() };
        bench.command(0, Command::Neighbour { hop, mac: Some(WEB_MAC) });
    }
    bench.client_sends(0, &client.seal(&client.flow(5_000).udp(b"hello")));
    bench.poll(0);
    assert_eq!(bench.take_delivered().len(), 1);
    assert!(!bench.has_obeyed(0), "a turn executes a bounded number");
    bench.settle();
    assert!(bench.has_obeyed(0));
}

#[test]
fn frames_of_control_are_sent_some_at_a_time() {
    let mut bench = Bench::new(1);
    for number in 0..500_u16 {
        bench.originate(0, if number % 2 == 0 { NETWORK } else { INSIDE }, &number.to_be_bytes());
    }
    bench.poll(0);
    let at_once = bench.balance().originated;
    assert!((1..=64).contains(&at_once), "{at_once} in one turn");
    bench.settle();
    assert_eq!(bench.balance().originated, 500);
    let order: Vec<Vec<u8>> = bench.take_sent().into_iter().map(|sent| sent.bytes).collect();
    assert_eq!(order, (0..500).step_by(2).map(|number: u16| number.to_be_bytes().to_vec()).collect::<Vec<_>>());
}

#[test]
fn a_frame_of_control_for_a_port_that_is_not_there_is_counted_as_lost() {
    let mut bench = Bench::new(1);
    bench.originate(0, datapath::routes::PortId(7), &[0; 60]);
    bench.settle();
    assert_eq!((bench.balance().originated, bench.ledger(0).originated_lost.get()), (0, 1));
}

#[test]
fn new_ivs_take_the_place_of_old_ones_without_a_pause() {
    let mut bench = Bench::new(1);
    let mut client = bench.connect(SaSpec::default());
    let flow = client.flow(5_000);
    bench.client_sends(0, &client.seal(&flow.udp(b"hello")));
    for sender in 1..20 {
        bench.web_sends(0, &flow.answer().udp(b"answer"));
        bench.command(0, Command::Ivs(Box::new(IvGenerator::new(SenderNumber(sender)))));
        bench.settle();
        let sent = bench.take_sent();
        assert_eq!(sent[0].bytes[14 + 20 + 8..][..2], (sender as u16).to_be_bytes());
        let _ = client.open(&sent[0].bytes).unwrap();
    }
}
