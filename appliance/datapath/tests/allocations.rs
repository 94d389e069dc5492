//! No allocation on a packet's way, whichever way it takes.

use wire::tcp::Flags;
use wire::{ipv4, natt};

use crate::support::Bench;
use crate::support::client::{Client, SaSpec};
use crate::support::packets::{DVIPA, Flow, OTHER_DVIPA, changed, from_router};

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

/// Ten million frames of every kind that strangers can send, and some that peers can: what a poll leaves behind is
/// nothing.
#[test]
fn hostile_18_ten_million_packets_leave_memory_flat() {
    const FRAMES: usize = 10_000_000;
    const AT_ONCE: usize = 32;
    let mut bench = Bench::new(1);
    let mut client = bench.connect(SaSpec::default());
    let kinds = hostile_frames(&mut client);
    for kind in &kinds {
        bench.network_frame(0, kind);
    }
    bench.settle();
    bench.take_delivered();
    bench.punted.clear();
    let connections = bench.connections().len();
    for round in 0..FRAMES / AT_ONCE {
        for number in 0..AT_ONCE {
            bench.network_frame(0, &kinds[(round + number * 7) % kinds.len()]);
        }
        assert_eq!(bench.poll_and_count_allocations(0), 0, "round {round}");
        bench.punted.clear();
    }
    bench.settle();
    let balance = bench.balance();
    assert_eq!(balance.received, (FRAMES + kinds.len()) as u64);
    assert_eq!(balance.received, balance.delivered + balance.punted + balance.dropped);
    assert!(bench.take_delivered().is_empty(), "what was delivered once is not delivered again");
    assert_eq!((bench.connections().len(), bench.pool.in_use()), (connections, 0));
    assert!(bench.drops().len() >= 10, "{:?}", bench.drops());
}

/// One frame of each kind; those that are authentic are replays from the second time on.
fn hostile_frames(client: &mut Client) -> Vec<Vec<u8>> {
    let flow = client.flow(7_000);
    let true_one = client.seal(&flow.tcp(Flags::SYN, b""));
    let mut forged = client.seal(&flow.udp(b"forged"));
    *forged.last_mut().unwrap() ^= 1;
    let narrow = client.seal(&Flow { src: [10, 99, 0, 1].into(), ..flow }.udp(b"outside the selectors"));
    let stranger = Flow { src: [192, 0, 2, 9].into(), src_port: 4500, dst: DVIPA, dst_port: natt::PORT };
    let ike = Flow { dst_port: 500, ..stranger };
    let spi = |spi: u32| {
        let esp_at = ipv4::HEADER_LEN;
        let mut packet = forged.clone();
        packet[esp_at..esp_at + 4].copy_from_slice(&spi.to_be_bytes());
        packet
    };
    let packets = [
        true_one.clone(),
        forged.clone(),
        narrow,
        spi(0),
        spi(255),
        spi(0xdead_beef),
        changed(forged.clone(), |ip| ip.set_dst(OTHER_DVIPA)),
        changed(forged.clone(), |ip| ip.set_fragmentation(false, true, 0)),
        changed(forged.clone(), |ip| ip.set_total_len(30)),
        changed(forged.clone(), |ip| ip.set_total_len(9_000)),
        stranger.udp(&natt::KEEPALIVE),
        stranger.udp(&[0; 40]),
        stranger.udp(&[1, 2, 3]),
        ike.udp(&[0; 28]),
        ike.udp(&[0xff; 400]),
        stranger.echo_request(b"ping"),
        flow.udp(b"in the clear"),
        Flow { dst: [8, 8, 8, 8].into(), ..stranger }.udp(b"for somebody else"),
    ];
    let mut frames: Vec<_> = packets.iter().map(|packet| from_router(packet)).collect();
    for len in 0..40 {
        frames.push(frames[1][..len].to_vec());
    }
    frames.push(vec![0xff; 60]);
    frames.push(vec![0xa5; 1_500]);
    frames
}
