//! What one packet costs: opening, sealing and peeking, at the sizes that DPDK's own measurements use, for each engine
//! of this build; and the SAD's lookup.
//!
//! Times are CPU times of the benchmark's thread, so that other load on the machine does not count (it still takes
//! caches and the other half of a core). "open" and "encapsulate" need a fresh packet each time: take what "copy" costs
//! off them.
//!
//! The appliance's data path looks each packet's SA up, peeks into it and opens it before it turns to the next: its are
//! "peek" and "open". "open, a burst prepared ahead" and the SAD's "burst of 32" are what a data path would pay that
//! takes each step for a whole burst, which nothing in the appliance does yet. `perf/run` measures the appliance itself.
//!
//! `cargo bench -p ipsec --features ipsec-mb --bench esp`

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot start shall stop")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipsec::Spi;
use ipsec::cipher::Cipher;
use ipsec::engine::{Engine, EngineChoice, EngineKind, select};
use ipsec::inbound::{Carried, InboundSa, InboundShared};
use ipsec::iv::{IvGenerator, SenderNumber};
use ipsec::key::SaKey;
use ipsec::lifetime::Lifetime;
use ipsec::outbound::{OutboundSa, OutboundShared, OuterPolicy, esp_overhead};
use ipsec::sa::{Direction, Encapsulation, Mode, PeerId, SaParameters};
use ipsec::sad::{Place, Sad, SadSeed};
use ipsec::selector::{Selectors, TrafficSelector};

const SIZES: [usize; 3] = [64, 256, 1_420];
const BURST: usize = 32;
const SENDER: SenderNumber = SenderNumber(1);

/// How long this thread has run, as the scheduler counts it.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let schedstat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        Duration::from_nanos(schedstat.split(' ').next().unwrap().parse().unwrap())
    }

    fn end(&self, start: Duration) -> Duration {
        self.start() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn engines() -> Vec<Engine> {
    let wanted = [EngineKind::Ring, EngineKind::IpsecMb].map(|kind| select(EngineChoice::Prefer(kind)).unwrap());
    wanted.into_iter().filter(|selection| selection.fell_back.is_none()).map(|selection| selection.engine).collect()
}

fn parameters(direction: Direction, replay_window_packets: u32) -> SaParameters {
    let any = || vec![TrafficSelector::any_v4()];
    SaParameters {
        name: "bench".into(),
        peer: PeerId(1),
        peer_name: "peer".into(),
        dvipa: [203, 0, 113, 80].into(),
        remote: [198, 51, 100, 9].into(),
        spi: Spi::new(0x1000).unwrap(),
        direction,
        mode: Mode::Tunnel,
        encapsulation: Encapsulation::None,
        cipher: Cipher::AesGcm128,
        key: SaKey::from_keymat(Cipher::AesGcm128, &[7; 20]).unwrap(),
        esn: false,
        replay_window_packets,
        selectors: Selectors { local: any(), remote: any() },
        lifetime: Lifetime::NONE,
        epoch: 1,
    }
}

fn outbound(engine: Engine) -> OutboundSa {
    let shared = OutboundShared::new(parameters(Direction::Outbound, 0), engine, SENDER).unwrap();
    OutboundSa::new(shared, 1, OuterPolicy::default())
}

fn inner(len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
    packet
}

fn sealed(engine: Engine, len: usize) -> Vec<u8> {
    let room = esp_overhead(len);
    let mut packet = vec![0; room.before + len + room.after];
    packet[room.before..][..len].copy_from_slice(&inner(len));
    let _ = outbound(engine).seal(&mut IvGenerator::new(SENDER), &mut packet, len, 4).unwrap();
    packet
}

fn esp(c: &mut Criterion<CpuTime>) {
    for engine in engines() {
        for len in SIZES {
            let mut group = c.benchmark_group(format!("{engine}/{len}"));
            group.throughput(Throughput::Elements(1));
            let packet = sealed(engine, len);
            // Without a window, so that one packet can be opened again and again.
            let shared = InboundShared::new(parameters(Direction::Inbound, 0), engine, 1).unwrap();
            let mut receiver = InboundSa::new(Arc::clone(&shared));
            let mut buffer = packet.clone();
            group.bench_function("copy", |b| b.iter(|| black_box(&mut buffer).copy_from_slice(black_box(&packet))));
            group.bench_function("open", |b| {
                b.iter(|| {
                    buffer.copy_from_slice(black_box(&packet));
                    receiver.open(black_box(&mut buffer)).map(|opened| opened.inner.len())
                });
            });
            group.bench_function("peek", |b| b.iter(|| shared.peek(black_box(&packet))));
            group.throughput(Throughput::Elements(BURST as u64));
            let mut burst = vec![packet.clone(); BURST];
            group.bench_function("open, a burst prepared ahead", |b| {
                b.iter(|| {
                    burst.iter_mut().for_each(|buffer| buffer.copy_from_slice(black_box(&packet)));
                    let prepared: [_; BURST] =
                        core::array::from_fn(|at| receiver.prepare(&burst[at], Carried::NOTHING).unwrap());
                    for (buffer, prepared) in burst.iter_mut().zip(&prepared) {
                        let _ = black_box(receiver.open_prepared(buffer, prepared));
                    }
                });
            });
            group.throughput(Throughput::Elements(1));
            let mut sender = outbound(engine);
            let mut ivs = IvGenerator::new(SENDER);
            let room = sender.shared().overhead(len);
            let mut buffer = vec![0; room.before + len + room.after];
            group.bench_function("encapsulate", |b| {
                b.iter(|| {
                    buffer[room.before] = 0x45;
                    sender.encapsulate(&mut ivs, black_box(&mut buffer), len)
                });
            });
            group.finish();
        }
    }
}

/// Random keys in bursts of 32, so that caches hold what they would in life.
fn sad(c: &mut Criterion<CpuTime>) {
    for entries in [1_000_u32, 100_000, 1_000_000] {
        let mut sad = Sad::new(entries as usize, SadSeed::new([3; 32]));
        let key =
            |number: u32| ([203, 0, 113, 80].into(), Spi::new(256 + number.wrapping_mul(0x9e37_79b1) / 2).unwrap());
        for number in 0..entries {
            let (dvipa, spi) = key(number);
            let _ = sad.insert(dvipa, spi, u64::from(number));
        }
        let mut group = c.benchmark_group(format!("sad/{entries}"));
        group.throughput(Throughput::Elements(32));
        let mut state = 1_u32;
        group.bench_function("burst of 32", |b| {
            b.iter(|| {
                let keys: [_; 32] = core::array::from_fn(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    key(((u64::from(state) * u64::from(entries)) >> 32) as u32)
                });
                let mut found: [Option<Place>; 32] = [None; 32];
                sad.lookup_burst(&keys, &mut found);
                found.iter().flatten().filter_map(|place| sad.at(*place)).sum::<u64>()
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = esp, sad
}
criterion_main!(benches);
