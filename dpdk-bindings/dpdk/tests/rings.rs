//! Rings between threads: order, room, and no item lost or doubled.

mod common;

use common::{eal, frame, mempool, numbered, numbers};
use dpdk::ring::channel;
use dpdk::{Burst, Mbuf};
use std::sync::Arc;

#[test]
fn items_come_out_in_order_and_a_full_ring_hands_them_back() {
    let (mut producer, mut consumer) = channel::<Box<u32>>(eal(), 100, None).unwrap();
    for number in 0..100 {
        producer.push(Box::new(number)).unwrap();
    }
    assert_eq!(*producer.push(Box::new(100)).unwrap_err(), 100);
    assert_eq!((producer.len(), consumer.len()), (100, 100));
    for number in 0..100 {
        assert_eq!(*consumer.pop().unwrap(), number);
    }
    assert!(consumer.pop().is_none() && producer.is_empty());
}

#[test]
fn what_a_full_ring_refuses_stays_in_the_burst_in_order() {
    let pool = mempool("burst", 1023);
    let (mut producer, mut consumer) = channel::<Mbuf>(eal(), 50, None).unwrap();
    let mut burst = numbered(&pool, 0);
    assert_eq!(producer.push_burst(&mut burst), 32);
    let mut burst = numbered(&pool, 32);
    assert_eq!(producer.push_burst(&mut burst), 18);
    assert_eq!(numbers(&burst), (50..64).collect::<Vec<_>>());

    let mut out = numbered(&pool, 900);
    out.truncate(20);
    assert_eq!(consumer.pop_burst(&mut out), 12, "only into the room that is left");
    assert_eq!(numbers(&out)[20..], (0..12).collect::<Vec<_>>());
    drop((burst, out));
    assert_eq!(pool.in_use_packets(), 38);
    drop((producer, consumer));
    assert_eq!(pool.in_use_packets(), 0, "what was left in the ring was freed with it");
}

#[test]
fn what_is_left_in_a_ring_is_dropped_once() {
    let token = Arc::new(());
    let (mut producer, mut consumer) = channel::<Box<Arc<()>>>(eal(), 200, None).unwrap();
    for _ in 0..150 {
        producer.push(Box::new(Arc::clone(&token))).unwrap();
    }
    drop(consumer.pop());
    assert_eq!(Arc::strong_count(&token), 150);
    drop(producer);
    assert!(consumer.is_abandoned());
    assert_eq!(Arc::strong_count(&token), 150, "the consumer may still take them");
    drop(consumer);
    assert_eq!(Arc::strong_count(&token), 1);
}

#[test]
fn two_threads_pass_packets_without_loss_or_disorder() {
    const COUNT: u32 = 200_000;
    let pool = mempool("threads", 4095);
    let (mut producer, mut consumer) = channel::<Mbuf>(eal(), 1024, None).unwrap();
    let sender = std::thread::spawn(move || {
        let mut burst = Burst::<32>::new();
        let mut next = 0;
        while next < COUNT || !burst.is_empty() {
            while next < COUNT && !burst.is_full() {
                let Some(mbuf) = pool.copy_of(&frame(next)) else { break };
                burst.push(mbuf);
                next += 1;
            }
            if producer.push_burst(&mut burst) == 0 {
                std::thread::yield_now();
            }
        }
    });
    let mut expected = 0;
    let mut burst = Burst::<32>::new();
    while expected < COUNT {
        if consumer.pop_burst(&mut burst) == 0 {
            std::thread::yield_now();
        }
        for number in numbers(&burst) {
            assert_eq!(number, expected);
            expected += 1;
        }
        burst.clear();
    }
    sender.join().unwrap();
    assert_eq!(pool.in_use_packets(), 0);
}

#[test]
fn a_ring_that_cannot_be_is_an_error() {
    for capacity in [0, usize::MAX] {
        assert!(channel::<Mbuf>(eal(), capacity, None).is_err(), "{capacity}");
    }
}
