//! No packet is delivered twice: HOSTILE 32, without takeover and other targets.

use std::collections::BTreeMap;
use std::time::Duration;

use datapath::drops::DropReason;
use proptest::prelude::*;
use wire::{ipv4, natt, protocol, udp};

use crate::support::Bench;
use crate::support::client::{Client, SaSpec};
use crate::support::packets::{Flow, changed, ip, ip_header, ip_in};

fn deliver_once(bench: &mut Bench, core: usize, packet: &[u8]) {
    bench.client_sends(core, packet);
    bench.settle();
    assert_eq!(bench.take_delivered().len(), 1, "{:?}", bench.drops());
}

#[test]
fn hostile_32_the_same_frame_again_is_a_replay_on_every_queue() {
    for cores in 1..=3 {
        for (udp_port, esn) in [(None, false), (Some(4500), true)] {
            let mut bench = Bench::new(cores);
            let mut client = bench.connect(SaSpec { udp_port, esn, ..SaSpec::default() });
            let mut replays = 0;
            for (arrival, port) in (0..cores).cycle().zip(5_000..5_020) {
                let packet = client.seal(&client.flow(port).udp(b"once"));
                deliver_once(&mut bench, arrival, &packet);
                for core in 0..cores {
                    bench.client_sends(core, &packet);
                    bench.client_sends(core, &packet);
                    replays += 2;
                }
                bench.settle();
                assert!(bench.take_delivered().is_empty());
            }
            bench.assert_drops(&[(DropReason::ReplayDuplicate, replays)]);
            let counted: u64 = client.totals_in.iter().map(|totals| totals.replay_drops.get()).sum();
            assert_eq!(counted, replays);
        }
    }
}

#[test]
fn hostile_32_copies_in_one_burst_on_all_queues_are_delivered_once() {
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec::default());
        let packet = client.seal(&client.flow(5_000).udp(b"once"));
        for _ in 0..10 {
            (0..cores).for_each(|core| bench.client_sends(core, &packet));
        }
        bench.settle();
        assert_eq!(bench.take_delivered().len(), 1);
        bench.assert_drops(&[(DropReason::ReplayDuplicate, 10 * cores as u64 - 1)]);
    }
}

/// The ESP packet in other outer headers: who forwards or captures it may choose them freely.
fn in_other_clothes(client: &Client, packet: &[u8]) -> Vec<Vec<u8>> {
    let esp = &packet[client.esp_start()..];
    let spec = &client.spec;
    let stranger = [192, 0, 2, 77].into();
    let in_udp = |src, src_port| {
        let flow = Flow { src, src_port, dst: spec.dvipa, dst_port: natt::PORT };
        ip(ip_header(src, spec.dvipa, protocol::UDP), &flow.udp_datagram(esp))
    };
    vec![
        in_udp(spec.remote, 1),
        in_udp(spec.remote, 61_000),
        in_udp(stranger, 4_500),
        ip(ip_header(spec.remote, spec.dvipa, protocol::ESP), esp),
        ip(ip_header(stranger, spec.dvipa, protocol::ESP), esp),
        changed(packet.to_vec(), |ip| ip.set_identification(99)),
        changed(packet.to_vec(), |ip| ip.set_dscp_and_ecn(46, 2)),
    ]
}

#[test]
fn hostile_32_a_replay_in_other_outer_headers_is_a_replay() {
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec { udp_port: Some(4500), ..SaSpec::default() });
        let mut replays = 0;
        for port in 5_000..5_010 {
            let packet = client.seal(&client.flow(port).udp(b"once"));
            deliver_once(&mut bench, 0, &packet);
            for copy in in_other_clothes(&client, &packet) {
                for core in 0..cores {
                    bench.client_sends(core, &copy);
                    replays += 1;
                }
            }
        }
        bench.settle();
        assert!(bench.take_delivered().is_empty());
        bench.assert_drops(&[(DropReason::ReplayDuplicate, replays)]);
    }
}

/// What the first milestone must show: a captured UDP packet whose connection has expired, on another receive queue,
/// with another outer UDP port.
#[test]
fn hostile_32_a_packet_whose_connection_has_expired_is_still_a_replay_on_another_queue_with_another_outer_port() {
    for cores in 2..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec { udp_port: Some(4500), ..SaSpec::default() });
        for port in 5_000..5_020 {
            let packet = client.seal(&client.flow(port).udp(b"captured"));
            let first_arrival = usize::from(port) % cores;
            deliver_once(&mut bench, first_arrival, &packet);
            bench.advance(Duration::from_secs(10_000));
            for _ in 0..200 {
                (0..cores).for_each(|core| _ = bench.poll(core));
            }
            assert!(bench.connections().is_empty());

            let mut again = packet.clone();
            again[ipv4::HEADER_LEN..ipv4::HEADER_LEN + 2].copy_from_slice(&(port + 1).to_be_bytes());
            assert_ne!(udp::Packet::new_checked(&again[ipv4::HEADER_LEN..]).unwrap().src_port(), 4500);
            let before = bench.dropped(DropReason::ReplayDuplicate);
            bench.client_sends((first_arrival + 1) % cores, &again);
            bench.settle();
            assert!(bench.take_delivered().is_empty());
            assert_eq!(bench.dropped(DropReason::ReplayDuplicate), before + 1);
            assert!(bench.connections().is_empty(), "and it brings no connection back");
        }
    }
}

#[test]
fn hostile_32_what_lies_below_the_window_is_too_old() {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec { window_packets: 64, ..SaSpec::default() });
    let flow = client.flow(5_000);
    let late: Vec<Vec<u8>> = (1..=3).map(|_| client.seal(&flow.udp(b"late"))).collect();
    client.skip_to(66);
    deliver_once(&mut bench, 0, &client.seal(&flow.udp(b"top is 66")));
    for packet in &late {
        bench.client_sends(1, packet);
    }
    bench.settle();
    assert_eq!(bench.take_delivered().len(), 1, "number 3 is the last one within 64");
    bench.assert_drops(&[(DropReason::ReplayTooOld, 2)]);
}

#[test]
fn hostile_32_a_forged_packet_with_a_high_number_moves_no_window() {
    for cores in 1..=3 {
        for esn in [false, true] {
            let mut bench = Bench::new(cores);
            let mut client = bench.connect(SaSpec { esn, window_packets: 64, ..SaSpec::default() });
            let flow = client.flow(5_000);
            deliver_once(&mut bench, 0, &client.seal(&flow.udp(b"one")));
            let next = client.seal(&flow.udp(b"two"));
            let mut forged = 0;
            for number in [3, 100, 1 << 16, 1 << 30, (1 << 31) + 5, u32::MAX] {
                for core in 0..cores {
                    let mut packet = next.clone();
                    let start = client.esp_start() + 4;
                    packet[start..start + 4].copy_from_slice(&u32::to_be_bytes(number));
                    bench.client_sends(core, &packet);
                    forged += 1;
                }
            }
            bench.settle();
            assert!(bench.take_delivered().is_empty());
            let refused = bench.dropped(DropReason::AuthenticationFailed) + bench.dropped(DropReason::ReplayTooOld);
            assert_eq!(refused, forged);
            deliver_once(&mut bench, 0, &next);
        }
    }
}

#[test]
fn hostile_33_a_core_that_has_slept_takes_up_the_numbers_where_the_others_are() {
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec { esn: true, ..SaSpec::default() });
        let flow_of = |core| {
            let mut flows = (5_000..6_000).map(|port| client.flow(port));
            flows.find(|flow| bench.owner(&flow.key(protocol::UDP)) == core).unwrap()
        };
        let (awake, asleep) = (flow_of(0), flow_of(cores - 1));
        deliver_once(&mut bench, 0, &client.seal(&asleep.udp(b"good night")));
        for far in 1..8 {
            client.skip_to(far * ((1 << 31) - 1));
            deliver_once(&mut bench, 0, &client.seal(&awake.udp(b"far on")));
        }
        let packet = client.seal(&asleep.udp(b"good morning"));
        deliver_once(&mut bench, 0, &packet);
        bench.client_sends(cores - 1, &packet);
        bench.settle();
        bench.assert_drops(&[(DropReason::ReplayDuplicate, 1)]);
    }
}

#[test]
fn hostile_32_after_a_rekey_old_packets_are_replays_or_unknown() {
    for cores in 1..=2 {
        let mut bench = Bench::new(cores);
        let mut old = bench.connect(SaSpec::default());
        let packet = old.seal(&old.flow(5_000).udp(b"before the rekey"));
        let unsent = old.seal(&old.flow(5_000).udp(b"overtaken by the rekey"));
        deliver_once(&mut bench, 0, &packet);
        let mut new = bench.connect(old.spec.rekeyed());
        new.skip_to(10);
        deliver_once(&mut bench, 0, &new.seal(&new.flow(5_000).udp(b"after the rekey")));

        let mut moved = packet.clone();
        let start = old.esp_start();
        moved[start..start + 4].copy_from_slice(&new.spec.spi_in.to_be_bytes());
        for core in 0..cores {
            bench.client_sends(core, &packet);
            bench.client_sends(core, &moved);
        }
        bench.settle();
        assert!(bench.take_delivered().is_empty());
        assert_eq!(bench.dropped(DropReason::ReplayDuplicate), cores as u64, "its window is still the one it was");

        deliver_once(&mut bench, 0, &unsent);
        bench.remove_inbound(&old);
        for core in 0..cores {
            bench.client_sends(core, &packet);
            bench.client_sends(core, &unsent);
        }
        bench.settle();
        assert!(bench.take_delivered().is_empty());
        assert_eq!(bench.dropped(DropReason::SpiUnknown), 2 * cores as u64);
    }
}

/// What one packet of a capture is, and where each of its copies arrives.
fn captures() -> impl Strategy<Value = Vec<(u16, Vec<usize>)>> {
    let copies = prop::collection::vec(0_usize..3, 1..4);
    prop::collection::vec((5_000_u16..5_006, copies), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Copies of everything, on any queue, in any order.
    #[test]
    fn hostile_32_any_mixture_of_copies_is_delivered_once(
        capture in captures(), order in any::<u64>(), cores in 1_usize..4,
    ) {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec { window_packets: 64, ..SaSpec::default() });
        let mut arrivals = Vec::new();
        for (number, (port, copies)) in capture.iter().enumerate() {
            let packet = client.seal(&client.flow(*port).udp(&(number as u32).to_be_bytes()));
            for (copy, core) in copies.iter().enumerate() {
                // Shuffled, but reproducibly so.
                let key = (number as u64 + copy as u64 * 7).wrapping_mul(order | 1).rotate_left(17);
                arrivals.push((key, core % cores, packet.clone()));
            }
        }
        arrivals.sort_by_key(|(key, _, _)| *key);
        for (at, (_, core, packet)) in arrivals.iter().enumerate() {
            bench.client_sends(*core, packet);
            if at % 5 == 0 {
                bench.poll(at % cores);
            }
        }
        bench.settle();
        let mut delivered: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
        for sent in bench.take_delivered() {
            *delivered.entry(ip_in(&sent.bytes)[28..32].to_vec()).or_default() += 1;
        }
        prop_assert!(delivered.values().all(|&count| count == 1), "{delivered:?}");
        prop_assert_eq!(delivered.len(), capture.len(), "none lay outside its window");
        prop_assert_eq!(bench.dropped(DropReason::ReplayDuplicate), bench.balance().dropped);
    }
}
