//! Real packets through the kernel: two af_packet devices on the ends of a veth pair, in a network namespace of the
//! test's own. Only root may do that, so they wait to be asked for: `cargo test -p dpdk -- --ignored`, as `ci/test` does.

#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy does not see that helpers of tests are tests

mod common;

use common::{eal, frame, mempool, number};
use dpdk::{Burst, Device, Mempool, Port, PortConfig, RxQueue, TxQueue};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The EtherType of our frames; the kernel sends its own on a fresh link.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

fn ip(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().expect("iproute2 is installed");
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Puts this thread into a fresh network namespace with a veth pair, `left` and `right`; all of it goes with the thread.
fn enter_namespace_with_veth() {
    // SAFETY: only the network namespace is left behind; no file descriptor table or memory is unshared.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }.expect("root may make a namespace");
    ip(&["link", "add", "left", "type", "veth", "peer", "name", "right"]);
    ip(&["link", "set", "left", "up"]);
    ip(&["link", "set", "right", "up"]);
    assert!(within_two_seconds(|| ip(&["link", "show", "left"]).contains("LOWER_UP")));
}

/// Waits for what the kernel does in its own time.
fn within_two_seconds(mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(2);
    while Instant::now() < deadline {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
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
#[ignore = "needs root"]
fn frames_cross_a_veth_pair_whole_both_ways() {
    enter_namespace_with_veth();
    let pool = mempool("veth", 4095);
    let (left, mut left_rx, mut left_tx) = open("net_af_packet_left", "left", pool);
    let (right, mut right_rx, mut right_tx) = open("net_af_packet_right", "right", pool);
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
#[ignore = "needs root"]
fn a_vlan_tag_survives_although_the_kernel_takes_it_off() {
    enter_namespace_with_veth();
    let pool = mempool("vlan", 1023);
    let (_left, _, mut left_tx) = open("net_af_packet_tagged", "left", pool);
    let (_right, mut right_rx, _) = open("net_af_packet_untagged", "right", pool);
    let mut tagged = frame(3).to_vec();
    tagged.splice(12..12, [0x81, 0x00, 0x00, 0x0a]);
    send(&mut left_tx, &pool, std::slice::from_ref(&tagged));
    assert_eq!(collect(&mut right_rx, 1), [tagged]);
}

#[test]
#[ignore = "needs root"]
fn a_link_that_was_pulled_carries_again_and_no_buffer_is_lost() {
    enter_namespace_with_veth();
    let pool = mempool("pulled", 4095);
    let (left, mut left_rx, mut left_tx) = open("net_af_packet_pulled", "left", pool);
    let (right, mut right_rx, _) = open("net_af_packet_other", "right", pool);
    assert!(left.link().unwrap().up);
    ip(&["link", "set", "left", "down"]);
    assert!(!left.link().unwrap().up, "the pulled end");
    assert!(within_two_seconds(|| !right.link().unwrap().up), "the other end has no carrier");
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
    assert_eq!(burst.len(), 32, "what the kernel's full ring does not take stays here");
    assert!(stats.tx_packets == 0 && stats.tx_errors > 0, "what it took and did not send is counted: {stats:?}");
    burst.clear();
    ip(&["link", "set", "left", "up"]);
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

#[test]
#[ignore = "needs root"]
fn frames_of_other_interfaces_do_not_show_up_in_a_fresh_port() {
    enter_namespace_with_veth();
    ip(&["link", "add", "busy", "type", "veth", "peer", "name", "other"]);
    ip(&["link", "set", "busy", "up"]);
    ip(&["link", "set", "other", "up"]);
    let pool = mempool("busy", 4095);
    let (_busy, _, mut busy_tx) = open("net_af_packet_busy", "busy", pool);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let mut burst: Burst<32> = (0..32).map(|number| pool.copy_of(&frame(number)).unwrap()).collect();
                busy_tx.transmit(&mut burst);
            }
        });
        for round in 0..20 {
            let (_left, mut rx, _) = open(&format!("net_af_packet_fresh{round}"), "left", pool);
            let strangers = drain(&mut rx);
            stop.store(round == 19 || strangers > 0, Ordering::Relaxed);
            assert_eq!(strangers, 0, "in round {round}");
        }
    });
}

fn drain(rx: &mut RxQueue) -> usize {
    let (mut burst, mut ours) = (Burst::<32>::new(), 0);
    while rx.receive(&mut burst) > 0 {
        ours += burst.drain(..).filter(|mbuf| mbuf.bytes()[12..14] == ETHERTYPE).count();
    }
    ours
}

#[test]
#[ignore = "needs root"]
fn every_queue_pair_of_an_af_packet_device_must_be_read() {
    enter_namespace_with_veth();
    let pool = mempool("pairs", 1023);
    let start = |queues: usize| {
        let device = Device::open(eal(), "net_af_packet_pairs,iface=left,qpairs=2").unwrap();
        device.start(&PortConfig { tx_queues: 2, ..PortConfig::default() }, &vec![pool; queues]).map(|_| ())
    };
    let error = start(1).unwrap_err();
    assert!(error.to_string().contains("receive queues: 1 is outside 2 to 2"), "{error}");
    start(2).unwrap();
}

#[test]
#[ignore = "needs root"]
fn an_interface_is_promiscuous_only_while_its_port_is_open() {
    enter_namespace_with_veth();
    let port = open("net_af_packet_promiscuous", "left", mempool("promiscuous", 1023));
    assert!(ip(&["link", "show", "left"]).contains("PROMISC"));
    drop(port);
    assert!(!ip(&["link", "show", "left"]).contains("PROMISC"));
}
