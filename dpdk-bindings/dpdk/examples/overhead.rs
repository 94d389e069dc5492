//! What safety costs: nanoseconds per packet of the safe layer and of bare C calls, in turns, on one core:
//! `cargo run --release -p dpdk --example overhead`.

use arrayvec::ArrayVec;
use dpdk::{Burst, Device, Eal, EalArguments, Mbuf, Memory, Mempool, MempoolConfig, PortConfig, free_burst, ring};
use rustix::time::{ClockId, clock_gettime};
use std::error::Error;

const BURST: usize = 32;
const ROUNDS: u32 = 20_000;
const REPEATS: usize = 25;

/// As another crate wraps a buffer, to implement its own traits for it.
struct Wrapped(Mbuf);

type Raw = *mut dpdk_sys::rte_mbuf;

/// This thread's CPU time: what other programs use does not count.
fn cpu_nanoseconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

/// Nanoseconds per packet of one run of `work`, which handles a burst a call.
fn run(work: &mut dyn FnMut()) -> f64 {
    let start = cpu_nanoseconds();
    (0..ROUNDS).for_each(|_| work());
    (cpu_nanoseconds() - start) / f64::from(ROUNDS) / BURST as f64
}

/// Lets both take turns, so that a disturbance meets both, and prints their medians.
fn compare(what: &str, plain: &mut dyn FnMut(), safe: &mut dyn FnMut()) {
    let (mut plain_ns, mut safe_ns): (Vec<f64>, Vec<f64>) = (0..REPEATS).map(|_| (run(plain), run(safe))).unzip();
    plain_ns.sort_by(f64::total_cmp);
    safe_ns.sort_by(f64::total_cmp);
    println!("{what:<44} {:>8.2} {:>8.2}", plain_ns[REPEATS / 2], safe_ns[REPEATS / 2]);
}

fn receive_and_transmit(eal: Eal, pool: Mempool) -> Result<(), Box<dyn Error>> {
    let config = PortConfig::default();
    let (port, mut rx, mut tx) = Device::open(eal, "net_null0")?.start(&config, &[pool])?;
    let number = port.number();
    let mut plain = || {
        let mut mbufs: [Raw; BURST] = [std::ptr::null_mut(); BURST];
        let mut scattered = 0;
        // SAFETY: the array holds 32 pointers, the port runs, and nobody polls queue 0 meanwhile.
        unsafe {
            let count = dpdk_sys::shim_rx_burst(number, 0, mbufs.as_mut_ptr(), BURST as u16, &mut scattered);
            dpdk_sys::shim_tx_burst(number, 0, mbufs.as_mut_ptr(), count);
        }
    };
    let mut burst = Burst::<BURST>::new();
    let mut safe = || {
        rx[0].receive(&mut burst);
        tx[0].transmit(&mut burst);
    };
    compare("receive and transmit, net_null", &mut plain, &mut safe);
    let mut frames = ArrayVec::<Wrapped, BURST>::new();
    let mut wrapped = || {
        let mut burst = Burst::<BURST>::new();
        rx[0].receive(&mut burst);
        frames.extend(burst.into_iter().map(Wrapped));
        let mut burst: Burst<BURST> = std::hint::black_box(&mut frames).drain(..).map(|frame| frame.0).collect();
        tx[0].transmit(&mut burst);
        frames.extend(burst.into_iter().map(Wrapped));
    };
    compare("the same, buffers wrapped in a type", &mut plain, &mut wrapped);
    Ok(())
}

fn allocate_and_free(pool: Mempool) {
    let mut one_by_one = || {
        let mut burst = Burst::<BURST>::new();
        let _ = pool.allocate_burst(&mut burst, BURST);
    };
    let mut burst = Burst::<BURST>::new();
    let mut in_bulk = || {
        let _ = pool.allocate_burst(&mut burst, BURST);
        free_burst(&mut burst);
    };
    compare("allocate, free: one by one | in bulk", &mut one_by_one, &mut in_bulk);
}

fn look_at_headers(pool: Mempool) -> Result<(), Box<dyn Error>> {
    let mut burst = Burst::<BURST>::new();
    while let Some(mbuf) = pool.copy_of(&[7; 64]).filter(|_| !burst.is_full()) {
        burst.push(mbuf);
    }
    let copies: Vec<[u8; 64]> = vec![[7; 64]; BURST];
    let mut sum = 0u64;
    let mut plain = || copies.iter().for_each(|bytes| sum += u64::from(std::hint::black_box(bytes)[14]));
    let mut total = 0u64;
    let mut safe = || burst.iter().for_each(|mbuf| total += u64::from(std::hint::black_box(mbuf).bytes()[14]));
    compare("one byte of a header: array | Mbuf", &mut plain, &mut safe);
    println!("{}", if sum == total { "" } else { "the sums differ" });
    Ok(())
}

fn rings(eal: Eal, pool: Mempool) -> Result<(), Box<dyn Error>> {
    let (mut sender, mut receiver) = rtrb::RingBuffer::<Mbuf>::new(1024);
    let mut first = Burst::<BURST>::new();
    let _ = pool.allocate_burst(&mut first, BURST);
    let mut with_rtrb = || {
        if let Ok(chunk) = sender.write_chunk_uninit(first.len()) {
            chunk.fill_from_iter(first.drain(..));
        }
        if let Ok(chunk) = receiver.read_chunk(BURST) {
            first.extend(chunk);
        }
    };
    let (mut producer, mut consumer) = ring::channel::<Mbuf>(eal, 1024, None)?;
    let mut second = Burst::<BURST>::new();
    let _ = pool.allocate_burst(&mut second, BURST);
    let mut with_ours = || {
        producer.push_burst(&mut second);
        consumer.pop_burst(&mut second);
    };
    compare("a burst through a ring: rtrb | rte_ring", &mut with_rtrb, &mut with_ours);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = EalArguments::new("overhead")
        .lcores("0")
        .memory(Memory::NoHuge { megabytes: 256 })
        .no_pci()
        .log_level("warning");
    let eal = Eal::start(&arguments)?;
    let pool = Mempool::create(eal, &MempoolConfig::new("packets", 8191))?;
    println!("{}, bursts of {BURST}, ns per packet", eal.version());
    println!("{:<44} {:>8} {:>8}", "", "plain", "safe");
    receive_and_transmit(eal, pool)?;
    allocate_and_free(pool);
    look_at_headers(pool)?;
    rings(eal, pool)
}
