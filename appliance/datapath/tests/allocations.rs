//! No allocation on a packet's way, whichever way it takes.

use wire::natt;
use wire::tcp::Flags;

use crate::support::Bench;
use crate::support::client::{Client, SaSpec};
use crate::support::packets::{DVIPA, Flow, OTHER_DVIPA, changed};

/// One of everything: new and known connections both ways, punts, and drops for many reasons.
fn mixture(bench: &mut Bench, client: &mut Client, round: u16) {
    let cores = bench.cores();
    for number in 0..8 {
        let core = usize::from(number) % cores;
        let flow = client.flow(1_000 + round * 8 + number);
        let syn = client.seal(&flow.tcp_with_mss(Flags::SYN, Some(1_460), b""));
        let mut forged = client.seal(&flow.udp(b"forged"));
        *forged.last_mut().unwrap() ^= 1;
        for packet in [&syn, &syn, &forged, &changed(forged.clone(), |ip| ip.set_dst(OTHER_DVIPA))] {
            bench.client_sends(core, packet);
        }
        bench.web_sends((core + 1) % cores, &flow.answer().tcp(Flags::SYN | Flags::ACK, b""));
        bench.web_sends(core, &flow.answer().udp(&[0; 1_410]));
        let stranger = Flow { src: [192, 0, 2, 9].into(), src_port: 4500, dst: DVIPA, dst_port: natt::PORT };
        bench.client_sends(core, &stranger.udp(&natt::KEEPALIVE));
        bench.client_sends(core, &stranger.udp(&[0; 40]));
        bench.client_sends(core, &flow.udp(b"clear"));
        bench.web_sends(core, &Flow { dst: [192, 0, 2, 99].into(), ..flow.answer() }.udp(b"to nobody"));
    }
}

#[test]
fn no_packet_costs_an_allocation() {
    for cores in 1..=3 {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec { home: cores - 1, ..SaSpec::default() });
        for round in 0..40 {
            mixture(&mut bench, &mut client, round);
            for core in (0..cores).cycle().take(8 * cores) {
                assert_eq!(bench.poll_and_count_allocations(core), 0, "round {round}, core {core}");
            }
        }
        bench.settle();
        let balance = bench.balance();
        assert_eq!((balance.delivered, balance.forwarded), (320, 320), "every way was taken");
        assert!(bench.drops().len() >= 6, "{:?}", bench.drops());
    }
}
