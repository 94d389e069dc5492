//! Real packets through the kernel: two af_packet devices on the ends of a veth pair. Needs root; without it, it says so
//! and checks nothing.

mod common;

use common::{eal, frame, mempool, number};
use dpdk::{Burst, Device, Mempool, Port, PortConfig, RxQueue, TxQueue};
use std::process::Command;
use std::time::{Duration, Instant};

/// The EtherType of our frames; the kernel sends its own on a fresh link.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.split_whitespace().take(3).eq(["Uid:", "0", "0"]))
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A veth pair that goes with the test, also when it fails.
struct Veth {
    ends: [String; 2],
}

impl Veth {
    fn create(tag: &str) -> Self {
        let ends = ["a", "b"].map(|end| format!("pv{tag}{:x}{end}", std::process::id()));
        ip(&["link", "add", &ends[0], "type", "veth", "peer", "name", &ends[1]]);
        let veth = Veth { ends };
        for end in &veth.ends {
            ip(&["link", "set", end, "up"]);
        }
        veth
    }
}

impl Drop for Veth {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &self.ends[0]]).output();
    }
}

fn open(name: &str, interface: &str, pool: Mempool) -> (Port, RxQueue, TxQueue) {
    let device = Device::open(eal(), &format!("{name},iface={interface}")).unwrap();
    let config = PortConfig { mtu: Some(1500), promiscuous: true, ..PortConfig::default() };
    let (port, mut rx, mut tx) = device.start(&config, &[pool]).unwrap();
    (port, rx.remove(0), tx.remove(0))
}

/// Receives until `count` of our frames are there, or two seconds have passed.
fn collect(rx: &mut RxQueue, count: usize) -> Vec<Vec<u8>> {
    let (mut frames, deadline) = (Vec::new(), Instant::now() + Duration::from_secs(2));
    let mut burst = Burst::<32>::new();
    while frames.len() < count && Instant::now() < deadline {
        if rx.receive(&mut burst) == 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
        for mbuf in burst.drain(..) {
            if mbuf.bytes().windows(2).skip(12).step_by(4).take(2).any(|word| word == ETHERTYPE) {
                frames.push(mbuf.bytes().to_vec());
            }
        }
    }
    frames
}

fn send(tx: &mut TxQueue, pool: &Mempool, frames: &[Vec<u8>]) {
    let mut burst: Burst<32> = frames.iter().map(|frame| pool.copy_of(frame).unwrap()).collect();
    let deadline = Instant::now() + Duration::from_secs(2);
    while !burst.is_empty() && Instant::now() < deadline {
        tx.transmit(&mut burst);
    }
    assert!(burst.is_empty(), "the kernel takes 32 frames within two seconds");
}

#[test]
fn frames_cross_a_veth_pair_whole_both_ways() {
    if !is_root() {
        return eprintln!("af_packet over veth needs root: nothing was checked");
    }
    let veth = Veth::create("w");
    let pool = mempool("veth", 4095);
    let (left, mut left_rx, mut left_tx) = open("net_af_packet_left", &veth.ends[0], pool);
    let (right, mut right_rx, mut right_tx) = open("net_af_packet_right", &veth.ends[1], pool);
    assert_ne!(left.mac().unwrap(), right.mac().unwrap());
    assert_ne!(left.mac().unwrap(), [0; 6]);
    assert_eq!(left.mtu().unwrap(), 1500);
    assert!(left.info().interface_index.is_some());
    assert!(left.link().unwrap().up);

    let frames: Vec<Vec<u8>> = (0..32).map(|number| frame(number).to_vec()).collect();
    send(&mut left_tx, &pool, &frames);
    assert_eq!(collect(&mut right_rx, 32), frames);
    send(&mut right_tx, &pool, &frames[..5]);
    assert_eq!(collect(&mut left_rx, 5), frames[..5]);

    let mut longest = frame(99).to_vec();
    longest.resize(1514, 0x5a);
    send(&mut left_tx, &pool, std::slice::from_ref(&longest));
    assert_eq!(collect(&mut right_rx, 1), [longest]);
    assert!(right.stats().unwrap().rx_packets >= 33);
    assert_eq!(pool.in_use_packets(), 0);
}

#[test]
fn a_vlan_tag_survives_although_the_kernel_takes_it_off() {
    if !is_root() {
        return eprintln!("af_packet over veth needs root: nothing was checked");
    }
    let veth = Veth::create("v");
    let pool = mempool("vlan", 1023);
    let (_left, _, mut left_tx) = open("net_af_packet_tagged", &veth.ends[0], pool);
    let (_right, mut right_rx, _) = open("net_af_packet_untagged", &veth.ends[1], pool);
    let mut tagged = frame(3).to_vec();
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x0a]);
    send(&mut left_tx, &pool, std::slice::from_ref(&tagged));
    assert_eq!(collect(&mut right_rx, 1), [tagged]);
}

#[test]
fn a_link_that_was_pulled_carries_again_and_no_buffer_is_lost() {
    if !is_root() {
        return eprintln!("af_packet over veth needs root: nothing was checked");
    }
    let veth = Veth::create("p");
    let pool = mempool("pulled", 4095);
    let (left, mut left_rx, mut left_tx) = open("net_af_packet_pulled", &veth.ends[0], pool);
    let (right, mut right_rx, _) = open("net_af_packet_other", &veth.ends[1], pool);
    assert!(left.link().unwrap().up);
    ip(&["link", "set", &veth.ends[0], "down"]);
    assert!(!left.link().unwrap().up, "the pulled end");
    assert!(!right.link().unwrap().up, "the other end has no carrier");
    let start = Instant::now();
    let mut burst = Burst::<32>::new();
    // More than the kernel's transmit ring holds.
    for round in 0..100 {
        burst.extend((burst.len() as u32..32).map(|number| pool.copy_of(&frame(round * 32 + number)).unwrap()));
        left_tx.transmit(&mut burst);
        left_rx.receive(&mut Burst::<32>::new());
    }
    assert!(start.elapsed() < Duration::from_secs(5), "a pulled link stops no poll loop");
    let stats = left.stats().unwrap();
    eprintln!("left in the burst: {}, counted: {stats:?}", burst.len());
    burst.clear();
    ip(&["link", "set", &veth.ends[0], "up"]);
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut carried = false;
    while !carried && Instant::now() < deadline {
        burst.push(pool.copy_of(&frame(1000)).unwrap());
        left_tx.transmit(&mut burst);
        burst.clear();
        let deadline = Instant::now() + Duration::from_millis(50);
        let mut seen = Burst::<32>::new();
        while Instant::now() < deadline {
            right_rx.receive(&mut seen);
            carried |= seen.drain(..).any(|mbuf| mbuf.len() == 64 && number(&mbuf) == 1000);
        }
    }
    assert!(carried, "the link carries again");
    assert!(left.link().unwrap().up);
    assert_eq!(pool.in_use_packets(), 0);
}
