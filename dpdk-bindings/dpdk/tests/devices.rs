//! Devices whose other end is a file or the kernel.

#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy does not see that helpers of tests are tests

mod common;

use common::{eal, frame, mempool, numbered, numbers, single};
use dpdk::{Burst, Device, Error, PortConfig};
use std::path::PathBuf;

/// A file that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Scratch(std::env::temp_dir().join(format!("dpdk-test-{}-{name}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A capture file with these frames, little-endian, microseconds.
fn capture(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.extend(word.to_le_bytes());
    }
    for frame in frames {
        for word in [1, 0, frame.len() as u32, frame.len() as u32] {
            file.extend(u32::to_le_bytes(word));
        }
        file.extend(frame);
    }
    file
}

#[test]
fn a_capture_file_is_received_and_what_is_sent_is_captured() {
    let (input, output) = (Scratch::new("in.pcap"), Scratch::new("out.pcap"));
    let frames: Vec<Vec<u8>> = (0..20).map(|number| frame(number).to_vec()).collect();
    std::fs::write(&input.0, capture(&frames)).unwrap();
    let pool = mempool("pcap", 1023);
    let device = format!("net_pcap0,rx_pcap={},tx_pcap={}", input.path(), output.path());
    let (port, mut rx, mut tx) = single(&device, pool);
    let mut burst = Burst::<32>::new();
    while rx.receive(&mut burst) > 0 {}
    assert_eq!(numbers(&burst), (0..20).collect::<Vec<_>>());
    assert_eq!(tx.transmit(&mut burst), 20);
    drop((port, rx, tx));
    assert_eq!(pool.in_use_packets(), 0);

    let written = std::fs::read(&output.0).unwrap();
    let mut packets = Vec::new();
    let mut rest = &written[24..];
    while rest.len() > 16 {
        let len = u32::from_le_bytes(rest[8..12].try_into().unwrap()) as usize;
        packets.push(rest[16..16 + len].to_vec());
        rest = &rest[16 + len..];
    }
    assert_eq!(packets, frames);
}

#[test]
fn polls_without_a_buffer_are_counted_and_reception_goes_on() {
    let input = Scratch::new("dry.pcap");
    let frames: Vec<Vec<u8>> = (0..20).map(|number| frame(number).to_vec()).collect();
    std::fs::write(&input.0, capture(&frames)).unwrap();
    let pool = mempool("dry", 7);
    let (port, mut rx, _tx) = single(&format!("net_pcap3,rx_pcap={}", input.path()), pool);
    let mut burst = Burst::<32>::new();
    assert_eq!(rx.receive(&mut burst), 7);
    assert!(pool.is_dry());
    assert_eq!(port.starved_polls(), 0, "something came");
    assert_eq!((rx.receive(&mut burst), rx.receive(&mut burst)), (0, 0));
    assert_eq!(port.starved_polls(), 2);
    burst.clear();
    assert!(!pool.is_dry());
    assert!(rx.receive(&mut burst) > 0, "reception goes on");
    for _ in 0..20 {
        burst.clear();
        rx.receive(&mut burst);
    }
    let counted = port.starved_polls();
    assert_eq!(rx.receive(&mut burst), 0);
    assert_eq!(port.starved_polls(), counted, "nothing to receive is no shortage");
}

#[test]
fn a_device_string_with_an_address_is_refused() {
    let device = "net_ring7,internal=0x1000".to_owned();
    assert_eq!(Device::open(eal(), &device).unwrap_err(), Error::DeviceAddress { device });
}

#[test]
fn a_capture_that_repeats_for_ever_gives_each_packet_its_own_buffer() {
    let input = Scratch::new("infinite.pcap");
    let frames: Vec<Vec<u8>> = (0..4).map(|number| frame(number).to_vec()).collect();
    std::fs::write(&input.0, capture(&frames)).unwrap();
    let pool = mempool("infinite", 4095);
    let (_port, mut rx, _tx) = single(&format!("net_pcap1,rx_pcap={},infinite_rx=1", input.path()), pool);
    let mut burst = Burst::<32>::new();
    assert_eq!(rx.receive(&mut burst), 32);
    burst.iter_mut().for_each(|mbuf| mbuf.bytes_mut().fill(0));
    burst.clear();
    assert_eq!(rx.receive(&mut burst), 32);
    assert_eq!(numbers(&burst)[..4], [0, 1, 2, 3], "what we wrote into a packet is not in the next");
}

#[test]
fn a_packet_in_pieces_is_gathered_or_dropped_and_counted() {
    let input = Scratch::new("long.pcap");
    let mut long = frame(1).to_vec();
    long.resize(3000, 0x77);
    let mut longer = frame(2).to_vec();
    longer.resize(9000, 0x78);
    std::fs::write(&input.0, capture(&[long.clone(), longer, frame(3).to_vec()])).unwrap();
    let pool = mempool("pieces", 1023);
    let (_port, mut rx, _tx) = single(&format!("net_pcap2,rx_pcap={}", input.path()), pool);
    let mut burst = Burst::<32>::new();
    for _ in 0..10 {
        rx.receive(&mut burst);
    }
    // The buffers of this mempool hold 2,048 bytes: neither long frame fits one.
    assert_eq!(numbers(&burst), [3]);
    assert_eq!(rx.scattered_drops(), 2);
    burst.clear();
    assert_eq!(pool.in_use_packets(), 0);
}

#[test]
#[ignore = "needs root"]
fn a_tap_device_hands_frames_to_the_kernel() {
    let interface = format!("ptap{:x}", std::process::id());
    let pool = mempool("tap", 4095);
    let device = Device::open(eal(), &format!("net_tap0,iface={interface}")).unwrap();
    let (port, rx, mut tx) = device.start(&PortConfig::default(), &[pool]).unwrap();
    let received = || {
        let path = format!("/sys/class/net/{interface}/statistics/rx_packets");
        std::fs::read_to_string(path).unwrap().trim().parse::<u64>().unwrap()
    };
    let before = received();
    let mut burst = numbered(&pool, 0);
    assert_eq!(tx[0].transmit(&mut burst), 32);
    assert_eq!(received() - before, 32);
    assert!(port.link().unwrap().up);
    drop((port, rx, tx));
    assert!(!std::path::Path::new(&format!("/sys/class/net/{interface}")).exists(), "it goes with its last handle");
    assert_eq!(pool.in_use_packets(), 0);
}

#[test]
fn flows_are_spread_by_a_hash_where_the_device_offers_one() {
    let pool = mempool("rss", 1023);
    let start = |device: &str, rss, queues: usize| {
        let config = PortConfig { rss, ..PortConfig::default() };
        let (port, ..) = Device::open(eal(), device).unwrap().start(&config, &vec![pool; queues]).unwrap();
        (port.info().rss_offered, port.rss_active())
    };
    assert_eq!(start("net_null_rss", true, 2), (true, true));
    assert_eq!(start("net_null_rss", false, 2), (true, false));
    assert_eq!(start("net_null_rss", true, 1), (true, false));
    assert_eq!(start("net_ring_rss", true, 2), (false, false));
}

#[test]
fn several_queues_have_one_owner_each() {
    let pool = mempool("queues", 4095);
    let device = Device::open(eal(), "net_null0").unwrap();
    let config = PortConfig { tx_queues: 3, ..PortConfig::default() };
    let (_port, mut rx, mut tx) = device.start(&config, &[pool, pool]).unwrap();
    assert_eq!(rx.iter().map(|queue| queue.index()).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(tx.iter().map(|queue| queue.index()).collect::<Vec<_>>(), [0, 1, 2]);
    std::thread::scope(|scope| {
        for (rx, tx) in rx.iter_mut().zip(&mut tx) {
            scope.spawn(move || {
                let mut burst = Burst::<32>::new();
                for _ in 0..1000 {
                    rx.receive(&mut burst);
                    tx.transmit(&mut burst);
                    burst.clear();
                }
            });
        }
    });
    assert_eq!(pool.in_use_packets(), 0);
}
