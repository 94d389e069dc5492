//! How much an SA may carry, over all cores: soft once, hard never exceeded (DESIGN §8 rule 5 within one appliance).

use datapath::drops::DropReason;
use datapath::mailbox::Event;
use ipsec::lifetime::{Lifetime, Limits};
use ipsec::sa::Direction;
use proptest::prelude::*;

use crate::support::Bench;
use crate::support::client::{Client, SaSpec};

fn bytes(soft: u64, hard: u64) -> Lifetime {
    Lifetime { bytes: Limits { soft: Some(soft), hard: Some(hard) }, ..Lifetime::NONE }
}

fn packets(soft: u64, hard: u64) -> Lifetime {
    Lifetime { packets: Limits { soft: Some(soft), hard: Some(hard) }, ..Lifetime::NONE }
}

/// How often the soft and the hard limit were told, of SAs of this direction.
fn told(bench: &Bench, wanted: Direction) -> (usize, usize) {
    let mut told = (0, 0);
    for (_, event) in &bench.events {
        match event {
            Event::SoftLimit { sa } if sa.direction == wanted => told.0 += 1,
            Event::HardLimit { sa } if sa.direction == wanted => told.1 += 1,
            _other => {}
        }
    }
    told
}

/// Sends `count` packets of many flows, each of `len` bytes inside.
fn send(bench: &mut Bench, client: &mut Client, count: u16, len: usize) -> Vec<usize> {
    for number in 0..count {
        let inner = client.flow(5_000 + number % 64).udp(&vec![7; len - 28]);
        bench.client_sends(usize::from(number) % bench.cores(), &client.seal(&inner));
        bench.settle();
    }
    bench.take_delivered().iter().map(|sent| sent.core).collect()
}

#[test]
fn the_soft_limit_is_said_once_over_all_cores_and_before_the_hard_one() {
    for cores in 1..=3 {
        for lifetime_in in [bytes(50_000, 100_000), packets(500, 1_000)] {
            let mut bench = Bench::new(cores);
            let mut client = bench.connect(SaSpec { lifetime_in, ..SaSpec::default() });
            let before = send(&mut bench, &mut client, 450, 100);
            assert_eq!((before.len(), told(&bench, Direction::Inbound)), (450, (0, 0)));
            send(&mut bench, &mut client, 51, 100);
            assert_eq!(told(&bench, Direction::Inbound), (1, 0), "{cores} cores");
            send(&mut bench, &mut client, 400, 100);
            assert_eq!(told(&bench, Direction::Inbound), (1, 0));
            bench.assert_drops(&[]);
        }
    }
}

#[test]
fn all_cores_together_never_deliver_more_than_the_hard_limit() {
    for cores in 1..=3 {
        for (lifetime_in, allowed) in [(bytes(50_000, 100_000), 1_000), (packets(500, 1_000), 1_000)] {
            let mut bench = Bench::new(cores);
            let mut client = bench.connect(SaSpec { lifetime_in, ..SaSpec::default() });
            let delivered = send(&mut bench, &mut client, 1_200, 100).len();
            assert!(delivered <= allowed, "{delivered} packets of 100 bytes");
            // What another core still holds unspent is the only loss: less than the room behind the soft limit.
            assert!(delivered > 950, "{delivered}");
            bench.assert_drops(&[(DropReason::LifesizeHard, 1_200 - delivered as u64)]);
            let (soft, hard) = told(&bench, Direction::Inbound);
            assert_eq!(soft, 1);
            assert!((1..=cores).contains(&hard), "each core that refuses says so once: {hard}");
        }
    }
}

#[test]
fn what_is_dropped_before_it_is_opened_spends_nothing() {
    let mut bench = Bench::new(2);
    let mut client = bench.connect(SaSpec { lifetime_in: packets(5, 10), ..SaSpec::default() });
    let packet = client.seal(&client.flow(5_000).udp(b"first"));
    let mut forged = packet.clone();
    *forged.last_mut().unwrap() ^= 1;
    for core in [0, 1, 0, 1, 0, 1, 0, 1, 0, 1] {
        bench.client_sends(core, &forged);
    }
    bench.client_sends(0, &packet);
    for _ in 0..20 {
        bench.client_sends(1, &packet);
    }
    bench.settle();
    assert_eq!(bench.take_delivered().len(), 1);
    assert_eq!(told(&bench, Direction::Inbound), (0, 0));
}

#[test]
fn an_outbound_sa_ends_at_its_hard_limit_and_says_soft_and_hard_once() {
    for home in 0..2 {
        let mut bench = Bench::new(2);
        let mut client = bench.connect(SaSpec { home, lifetime_out: packets(6, 10), ..SaSpec::default() });
        let flow = client.flow(5_000);
        bench.client_sends(0, &client.seal(&flow.udp(b"hello")));
        bench.settle();
        for number in 0..15 {
            bench.web_sends(number % 2, &flow.answer().udp(b"answer"));
            bench.settle();
        }
        assert_eq!(bench.take_sent().len(), 10);
        bench.assert_drops(&[(DropReason::LifesizeHard, 5)]);
        assert_eq!(told(&bench, Direction::Outbound), (1, 1));
    }
}

#[test]
fn a_limit_that_finds_the_event_ring_full_is_told_later() {
    let mut bench = Bench::new(1);
    let mut client =
        bench.connect(SaSpec { lifetime_in: packets(2, 1_000), tell_first_packet: true, ..SaSpec::default() });
    // The first packet takes the last place.
    bench.fill_events(0);
    for _ in 0..4 {
        bench.client_sends(0, &client.seal(&client.flow(5_000).udp(b"soft")));
        bench.poll(0);
    }
    bench.draining = true;
    bench.settle();
    assert_eq!((bench.take_delivered().len(), told(&bench, Direction::Inbound)), (4, (0, 0)), "no room to tell");
    bench.client_sends(0, &client.seal(&client.flow(5_000).udp(b"soft")));
    bench.settle();
    assert_eq!(told(&bench, Direction::Inbound), (1, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any limit, any sizes, any cores: what is delivered fits the hard limit.
    #[test]
    fn delivered_bytes_never_exceed_the_hard_limit(
        hard in 200_u64..20_000, room in 1_u64..5_000, cores in 1_usize..4,
        lens in prop::collection::vec((28_usize..1_300, 0_u16..40, 0_usize..3), 1..60),
    ) {
        let mut bench = Bench::new(cores);
        let soft = hard.saturating_sub(room).max(1);
        let mut client = bench.connect(SaSpec { lifetime_in: bytes(soft, hard), ..SaSpec::default() });
        for (len, port, arrival) in lens {
            bench.client_sends(arrival % cores, &client.seal(&client.flow(port).udp(&vec![7; len - 28])));
        }
        bench.settle();
        let delivered: u64 = bench.take_delivered().iter().map(|sent| sent.bytes.len() as u64 - 14).sum();
        prop_assert!(delivered <= hard);
        let counted: u64 = client.totals_in.iter().map(|totals| totals.bytes.get()).sum();
        prop_assert_eq!(counted, delivered);
        let (soft_told, _) = told(&bench, Direction::Inbound);
        prop_assert!(soft_told <= 1);
        prop_assert!(delivered < soft || soft_told == 1, "{} of {} bytes and not a word", delivered, soft);
    }
}
