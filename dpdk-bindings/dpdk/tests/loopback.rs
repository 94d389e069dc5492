//! Frames through virtual devices: what goes in comes out, and nobody loses or doubles a buffer.

mod common;

use common::{eal, frame, mempool, number, numbered, numbers, single};
use dpdk::{Burst, Device, Error, PortConfig, free_burst};

#[test]
fn a_ring_device_returns_what_it_was_given_in_order() {
    let pool = mempool("loop", 1023);
    let (port, mut rx, mut tx) = single("net_ring_loop", pool);
    let mut burst = numbered(&pool, 7);
    assert_eq!(tx.transmit(&mut burst), 32);
    assert!(burst.is_empty());
    assert_eq!(pool.in_use_packets(), 32);

    assert_eq!(rx.receive(&mut burst), 32);
    assert_eq!(numbers(&burst), (7..39).collect::<Vec<_>>());
    assert_eq!(burst[0].bytes(), frame(7));
    let stats = port.stats().unwrap();
    assert_eq!((stats.rx_packets, stats.tx_packets), (32, 32));

    free_burst(&mut burst);
    assert_eq!(pool.in_use_packets(), 0);
}

#[test]
fn a_burst_that_is_not_empty_keeps_what_it_holds() {
    let pool = mempool("keeps", 1023);
    let (_port, mut rx, mut tx) = single("net_ring_keeps", pool);
    let mut burst = numbered(&pool, 100);
    tx.transmit(&mut burst);
    let mut burst = numbered(&pool, 0);
    burst.truncate(30);
    assert_eq!(rx.receive(&mut burst), 2, "there is room for two");
    assert_eq!(numbers(&burst)[28..], [28, 29, 100, 101]);
}

#[test]
fn what_a_full_queue_refuses_stays_with_the_caller_in_order() {
    let pool = mempool("full", 4095);
    let (_port, mut rx, mut tx) = single("net_ring_full", pool);
    let mut next = 0;
    let refused = loop {
        let mut burst = numbered(&pool, next);
        let sent = tx.transmit(&mut burst) as u32;
        next += sent;
        if sent < 32 {
            assert_eq!(numbers(&burst), (next..next + 32 - sent).collect::<Vec<_>>());
            break burst;
        }
        assert!(next < 4000, "the ring device must fill up");
    };
    assert!(!refused.is_empty());
    assert_eq!(pool.in_use_packets(), next + refused.len() as u32);

    let mut expected = 0;
    let mut burst = Burst::<32>::new();
    while rx.receive(&mut burst) > 0 {
        for mbuf in burst.drain(..) {
            assert_eq!(number(&mbuf), expected);
            expected += 1;
        }
    }
    assert_eq!(expected, next);
    drop(refused);
    assert_eq!(pool.in_use_packets(), 0);
}

#[test]
fn a_null_device_swallows_and_invents() {
    let pool = mempool("null", 1023);
    let (port, mut rx, mut tx) = single("net_null_a,size=98", pool);
    let mut burst = numbered(&pool, 0);
    assert_eq!(tx.transmit(&mut burst), 32);
    assert_eq!(rx.receive(&mut burst), 32);
    assert!(burst.iter().all(|mbuf| mbuf.len() == 98));
    assert_eq!(port.stats().unwrap().tx_packets, 32);
    drop(burst);
    assert_eq!(pool.in_use_packets(), 0);
}

#[test]
fn an_exhausted_mempool_refuses_and_recovers() {
    let pool = mempool("small", 63);
    let (port, mut rx, _tx) = single("net_null_b", pool);
    let mut all = Vec::new();
    while let Some(mbuf) = pool.allocate() {
        all.push(mbuf);
    }
    assert_eq!((all.len(), pool.in_use_packets()), (63, 63));
    let mut burst = Burst::<32>::new();
    assert!(!pool.allocate_burst(&mut burst, 1));
    assert_eq!(rx.receive(&mut burst), 0, "reception finds no buffer, and says nothing worse");
    let _ = port.stats().unwrap();

    all.clear();
    assert_eq!(pool.in_use_packets(), 0);
    assert!(pool.allocate_burst(&mut burst, 32));
    assert!(!pool.allocate_burst(&mut burst, 1), "a full burst takes no more");
    burst.clear();
    assert_eq!(rx.receive(&mut burst), 32);
    burst.clear();
    assert_eq!(pool.in_use_packets(), 0);
}

#[test]
fn queues_keep_their_port_open_and_the_last_handle_closes_it() {
    let pool = mempool("open", 1023);
    let (port, mut rx, mut tx) = single("net_ring_open", pool);
    drop(port);
    let mut burst = numbered(&pool, 1);
    assert_eq!(tx.transmit(&mut burst), 32);
    assert_eq!(Device::open(eal(), "net_ring_open").unwrap_err(), Error::PortInUse { name: "net_ring_open".into() });
    drop(tx);
    assert_eq!(rx.receive(&mut burst), 32);
    drop(rx);
    drop(single("net_ring_open", pool));
    burst.clear();
    assert_eq!(pool.in_use_packets(), 0);
}

#[test]
fn a_device_that_cannot_be_is_a_clear_error() {
    let error = Device::open(eal(), "net_af_packet_x,iface=no-such-iface").unwrap_err();
    assert!(matches!(error, Error::Attach { .. }), "{error}");
    assert!(error.to_string().contains("net_af_packet_x,iface=no-such-iface"), "{error}");
    let error = Device::open(eal(), "net_nonsense0").unwrap_err();
    assert!(error.to_string().contains("net_nonsense0"), "{error}");
    assert_eq!(Device::open(eal(), "a\0b").unwrap_err(), Error::ZeroByte { what: "a device string" });
}

#[test]
fn settings_that_a_device_does_not_have_are_refused_by_name() {
    let pool = mempool("range", 63);
    let open = || Device::open(eal(), "net_null_c").unwrap();
    let mtu = PortConfig { mtu: Some(60000), ..PortConfig::default() };
    let queues = PortConfig { tx_queues: 5000, ..PortConfig::default() };
    let error = open().start(&queues, &[pool]).unwrap_err();
    assert!(error.to_string().contains("transmit queues: 5000 is outside 0 to "), "{error}");
    let error = open().start(&mtu, &[pool]).unwrap_err();
    assert!(matches!(error, Error::OutOfRange { wanted: 60000 | 60022, .. }), "{error}");
}
