//! Whole clusters of senders round one dispenser, with frames lost, repeated and reordered, senders and owners that
//! die, and a client with a strict window at the end of it all.

use super::*;
use crate::sequence::requester::Requester;
use proptest::prelude::*;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use std::collections::BTreeSet;

/// Below 2^30: what a mark is above the numbers that are in use.
const RESERVE: u64 = 5_000;

struct Appliance {
    sender: Sender,
    requester: Requester,
    /// Packets that want a number.
    waiting: u16,
    /// What it has sent and the client has not got, oldest first.
    on_its_way: VecDeque<u64>,
}

enum Frame {
    Request(Sender, Request),
    Grant(Sender, Grant),
}

/// RFC 4303 §3.4.3, with a set for a bitmap.
struct Client {
    window_packets: u64,
    top: u64,
    seen: BTreeSet<u64>,
    too_old: u64,
}

impl Client {
    fn receive(&mut self, number: u64) {
        self.too_old += u64::from(self.top.saturating_sub(number) >= self.window_packets);
        self.top = self.top.max(number);
        assert!(self.seen.insert(number), "number {number} came twice");
    }
}

struct Cluster {
    random: ChaCha8Rng,
    now: Instant,
    dispenser: Dispenser,
    mark: u64,
    window_packets: u32,
    appliances: Vec<Appliance>,
    frames: Vec<Frame>,
    client: Client,
    /// Of senders that died.
    orphans: Vec<VecDeque<u64>>,
    incarnation: u64,
    loss_percent: u64,
}

impl Cluster {
    fn new(seed: u64, appliances: u16, window_packets: u32, loss_percent: u64) -> Self {
        let times = Times::default();
        let appliance = |member| Appliance {
            sender: sender(member, 1),
            requester: Requester::new(Instant::ZERO, times),
            waiting: 0,
            on_its_way: VecDeque::new(),
        };
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
            now: Instant::ZERO,
            dispenser: Dispenser::new(window_packets, 1, times),
            mark: 1 + RESERVE,
            window_packets,
            appliances: (0..appliances).map(appliance).collect(),
            frames: Vec::new(),
            client: Client {
                window_packets: u64::from(window_packets.max(1)),
                top: 0,
                seen: BTreeSet::new(),
                too_old: 0,
            },
            orphans: Vec::new(),
            incarnation: 1,
            loss_percent,
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.random.next_u64() % bound.max(1) as u64) as usize
    }

    fn happens(&mut self, percent: u64) -> bool {
        self.random.next_u64() % 100 < percent
    }

    fn send(&mut self, frame: Frame) {
        if self.frames.len() < 64 && !self.happens(self.loss_percent) {
            self.frames.push(frame);
        }
    }

    fn step(&mut self, faults: bool) {
        self.now += Duration::from_micros(self.random.next_u64() % 900);
        self.keep_network_bound();
        match self.below(if faults { 103 } else { 100 }) {
            0..20 => {
                let index = self.below(self.appliances.len());
                self.appliances[index].waiting += (self.random.next_u64() % 20) as u16;
            }
            20..50 => {
                let index = self.below(self.appliances.len());
                self.poll_sender(index);
            }
            50..80 if !self.frames.is_empty() => {
                let index = self.below(self.frames.len());
                let repeats = self.happens(5);
                let frame = self.frames.swap_remove(index);
                if repeats {
                    self.frames.push(match &frame {
                        Frame::Request(sender, request) => Frame::Request(*sender, *request),
                        Frame::Grant(sender, grant) => Frame::Grant(*sender, *grant),
                    });
                }
                self.receive(frame);
            }
            50..100 => {
                let index = self.below(self.appliances.len());
                if let Some(number) = self.appliances[index].on_its_way.pop_front() {
                    self.client.receive(number);
                }
            }
            100 | 101 => self.restart_sender(),
            _ => self.change_owner(),
        }
        if self.mark < self.dispenser.next_number() + 100 {
            self.mark += RESERVE;
        }
    }

    fn poll_sender(&mut self, index: usize) {
        let appliance = &mut self.appliances[index];
        let request = appliance.requester.poll(self.now, appliance.waiting);
        let sender = appliance.sender;
        if let Some(request) = request {
            self.send(Frame::Request(sender, request));
        }
    }

    fn receive(&mut self, frame: Frame) {
        match frame {
            Frame::Request(sender, request) => {
                let answer = self.dispenser.handle_request(self.now, sender, request, self.mark);
                if let Some(grant) = answer {
                    self.send(Frame::Grant(sender, grant));
                }
                while let Some((sender, grant)) = self.dispenser.poll_grant(self.now, self.mark) {
                    self.send(Frame::Grant(sender, grant));
                }
            }
            Frame::Grant(sender, grant) => {
                let Some(appliance) = self.appliances.iter_mut().find(|appliance| appliance.sender == sender) else {
                    return;
                };
                if let Ok(numbers) = appliance.requester.handle_grant(self.now, grant, appliance.waiting) {
                    appliance.waiting -= numbers.count;
                    appliance.on_its_way.extend(numbers.first..numbers.first + u64::from(numbers.count));
                    assert!(appliance.on_its_way.back().is_none_or(|&last| last < self.mark));
                }
            }
        }
    }

    /// What is left of the network's freedom: a packet reaches the client before so many numbers after it were confirmed
    /// as the window has room for beside those in flight.
    fn keep_network_bound(&mut self) {
        let slack = self.client.window_packets - budget(self.window_packets);
        let due = self.dispenser.oldest_in_flight().saturating_sub(slack);
        let queues = self.appliances.iter_mut().map(|appliance| &mut appliance.on_its_way).chain(&mut self.orphans);
        for queue in queues {
            while queue.front().is_some_and(|&number| number < due) {
                queue.pop_front().into_iter().for_each(|number| self.client.receive(number));
            }
        }
    }

    fn restart_sender(&mut self) {
        let index = self.below(self.appliances.len());
        self.incarnation += 1;
        let appliance = &mut self.appliances[index];
        self.orphans.push(std::mem::take(&mut appliance.on_its_way));
        appliance.sender.incarnation = Incarnation(self.incarnation);
        // Its clock starts anew.
        appliance.requester = Requester::new(Instant::ZERO, Times::default());
        appliance.waiting = 0;
    }

    /// The next owner knows nothing but the mark; frames of the epoch before are refused.
    fn change_owner(&mut self) {
        self.dispenser = Dispenser::new(self.window_packets, self.mark, Times::default());
        self.mark += RESERVE;
        self.frames.clear();
    }
}

fn sender(member: u16, incarnation: u64) -> Sender {
    Sender { member: MemberId(member), incarnation: Incarnation(incarnation) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Rule 1 of DESIGN §8, over everything that can go wrong; `Client::receive` asserts it.
    #[test]
    fn no_number_is_used_twice(seed: u64, appliances in 1_u16..6, window in 0_u32..130, loss in 0_u64..40) {
        let mut cluster = Cluster::new(seed, appliances, window, loss);
        for _ in 0..3_000 {
            cluster.step(true);
        }
    }

    /// The client's window is never overrun, whatever senders, frames and the network within its bound do, also when
    /// senders die.
    #[test]
    fn a_client_with_the_window_drops_nothing(seed: u64, appliances in 1_u16..6, window in 1_u32..130, loss in 0_u64..40) {
        let mut cluster = Cluster::new(seed, appliances, window, loss);
        for step in 0..3_000 {
            cluster.step(false);
            if step % 500 == 499 {
                cluster.restart_sender();
            }
        }
        prop_assert_eq!(cluster.client.too_old, 0);
    }

    /// What waits is sent in the end: no loss, death or silence stops the counter for good.
    #[test]
    fn whoever_waits_is_served(seed: u64, appliances in 1_u16..6, window in 0_u32..130) {
        let mut cluster = Cluster::new(seed, appliances, window, 30);
        for _ in 0..1_000 {
            cluster.step(true);
        }
        cluster.loss_percent = 0;
        for _ in 0..20_000 {
            if cluster.appliances.iter().all(|appliance| appliance.waiting == 0) {
                return Ok(());
            }
            cluster.now += Duration::from_micros(200);
            cluster.keep_network_bound();
            for index in 0..cluster.appliances.len() {
                cluster.poll_sender(index);
            }
            while let Some(frame) = cluster.frames.pop() {
                cluster.receive(frame);
            }
            cluster.mark = cluster.dispenser.next_number() + RESERVE;
        }
        prop_assert!(false, "packets still wait");
    }
}
