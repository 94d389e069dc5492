//! One buffer: its bytes and the room around them, against a plain model of it.

mod common;

use common::{frame, mempool};
use dpdk::{HEADROOM_BYTES, Mbuf, Mempool, MempoolConfig};

const ROOM: usize = 2048;

/// What a buffer should be: its content is known, so stale or shifted bytes show.
struct Model {
    headroom: usize,
    bytes: Vec<u8>,
}

impl Model {
    fn tailroom(&self) -> usize {
        HEADROOM_BYTES + ROOM - self.headroom - self.bytes.len()
    }

    fn agrees(&self, mbuf: &Mbuf) {
        assert_eq!(mbuf.bytes(), self.bytes);
        assert_eq!((mbuf.headroom(), mbuf.len(), mbuf.tailroom()), (self.headroom, self.bytes.len(), self.tailroom()));
    }

    fn step(&mut self, mbuf: &mut Mbuf, kind: u32, count: usize, fill: u8) {
        match kind {
            0 => {
                let fits = count <= self.headroom;
                let grown = mbuf.prepend(count);
                assert_eq!(grown.is_some(), fits);
                if let Some(space) = grown {
                    assert_eq!(space.len(), count);
                    space.fill(fill);
                    self.headroom -= count;
                    self.bytes.splice(0..0, vec![fill; count]);
                }
            }
            1 => {
                let fits = count <= self.tailroom();
                let grown = mbuf.append(count);
                assert_eq!(grown.is_some(), fits);
                if let Some(space) = grown {
                    assert_eq!(space.len(), count);
                    space.fill(fill);
                    self.bytes.extend(vec![fill; count]);
                }
            }
            2 => {
                mbuf.trim_front(count);
                let count = count.min(self.bytes.len());
                self.headroom += count;
                self.bytes.drain(..count);
            }
            3 => {
                mbuf.truncate(count);
                self.bytes.truncate(count);
            }
            _ => {
                mbuf.reset();
                self.headroom = HEADROOM_BYTES;
                self.bytes.clear();
            }
        }
    }
}

#[test]
fn a_buffer_behaves_like_its_model_under_any_sequence_of_changes() {
    let pool = mempool("model", 63);
    // xorshift: the same sequence each time.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    for _ in 0..200 {
        let mut mbuf = pool.allocate().unwrap();
        let mut model = Model { headroom: HEADROOM_BYTES, bytes: Vec::new() };
        for _ in 0..100 {
            let kind = if random(50) == 0 { 4 } else { random(4) as u32 };
            let scale = [64, 200, 2300][random(3) as usize];
            let count = random(scale) as usize;
            model.step(&mut mbuf, kind, count, random(256) as u8);
            model.agrees(&mbuf);
        }
    }
    assert_eq!(pool.in_use_packets(), 0);
}

#[test]
fn absurd_counts_change_nothing_and_never_wrap() {
    let pool = mempool("absurd", 63);
    let mut mbuf = pool.copy_of(&frame(1)).unwrap();
    for count in [usize::MAX, usize::MAX - 100, 1 << 16, (1 << 16) + 4, 1 << 32] {
        assert!(mbuf.prepend(count).is_none());
        assert!(mbuf.append(count).is_none());
        mbuf.truncate(count);
        assert_eq!(mbuf.bytes(), frame(1));
    }
    mbuf.trim_front(usize::MAX);
    assert!(mbuf.is_empty());
}

#[test]
fn the_largest_buffer_holds_as_much_as_it_says() {
    let config = MempoolConfig { buffer_bytes: u16::MAX, ..MempoolConfig::new("largest", 15) };
    let pool = Mempool::create(common::eal(), &config).unwrap();
    let room = usize::from(u16::MAX) - HEADROOM_BYTES;
    let mut mbuf = pool.allocate().unwrap();
    mbuf.append(room).unwrap().fill(7);
    assert!(mbuf.append(1).is_none());
    assert!(mbuf.prepend(HEADROOM_BYTES + 1).is_none());
    assert_eq!(mbuf.prepend(HEADROOM_BYTES).unwrap().len(), HEADROOM_BYTES);
    assert_eq!(mbuf.len(), usize::from(u16::MAX));
}

#[test]
fn a_copy_that_does_not_fit_is_refused_and_leaks_nothing() {
    let pool = mempool("copy", 63);
    assert_eq!(pool.copy_of(&[9; ROOM]).unwrap().len(), ROOM);
    assert!(pool.copy_of(&[9; ROOM + 1]).is_none());
    assert_eq!(pool.in_use_packets(), 0);
}

#[test]
fn buffers_come_home_from_any_thread() {
    let pool = mempool("home", 1023);
    let mbufs: Vec<Mbuf> = (0..500).map(|number| pool.copy_of(&frame(number)).unwrap()).collect();
    std::thread::spawn(move || drop(mbufs)).join().unwrap();
    assert_eq!(pool.in_use_packets(), 0);
    let registered = std::thread::spawn(move || {
        let _guard = common::eal().register_thread().unwrap();
        let held: Vec<Mbuf> = (0..100).map(|_| pool.allocate().unwrap()).collect();
        drop(held);
        pool.in_use_packets()
    });
    assert_eq!(registered.join().unwrap(), 0);
}

#[test]
fn a_mempools_name_is_taken_once() {
    mempool("taken", 63);
    let error = Mempool::create(common::eal(), &MempoolConfig::new("taken", 63)).unwrap_err();
    assert!(error.to_string().contains("mempool taken was not made"), "{error}");
}

#[test]
fn a_mempool_larger_than_memory_is_an_error() {
    let config = MempoolConfig::new("huge", 1 << 24);
    let error = Mempool::create(common::eal(), &config).unwrap_err();
    assert!(error.to_string().contains("mempool huge was not made"), "{error}");
}
