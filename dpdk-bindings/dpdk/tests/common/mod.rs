//! What the test binaries share: DPDK starts once in each of them.
#![allow(dead_code)] // not every binary uses everything
#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy does not see that helpers of tests are tests

use dpdk::{
    Burst, Device, Eal, EalArguments, Mbuf, Memory, Mempool, MempoolConfig, Port, PortConfig, RxQueue, TxQueue,
};
use std::sync::OnceLock;

/// The environment, started by whichever test comes first.
pub fn eal() -> Eal {
    static EAL: OnceLock<Eal> = OnceLock::new();
    *EAL.get_or_init(|| Eal::start(&arguments()).expect("DPDK starts without hugepages, devices or privilege"))
}

/// No hugepages, no devices; four lcores on whatever CPUs there are.
pub fn arguments() -> EalArguments {
    let cpus = std::thread::available_parallelism().map_or(1, |count| count.get());
    EalArguments::new("test")
        .lcores(&format!("(0-3)@(0-{})", cpus - 1))
        .memory(Memory::NoHuge { megabytes: 128 })
        .no_pci()
        .log_level("warning")
}

pub fn mempool(name: &str, size_packets: u32) -> Mempool {
    Mempool::create(eal(), &MempoolConfig::new(name, size_packets)).unwrap()
}

/// A device with one queue each way.
pub fn single(device: &str, mempool: Mempool) -> (Port, RxQueue, TxQueue) {
    let device = Device::open(eal(), device).unwrap();
    let config = PortConfig { promiscuous: true, ..PortConfig::default() };
    let (port, mut rx, mut tx) = device.start(&config, &[mempool]).unwrap();
    (port, rx.remove(0), tx.remove(0))
}

/// An Ethernet frame with a number in it.
pub fn frame(number: u32) -> [u8; 64] {
    let mut frame = [0; 64];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame
}

/// The number in a frame.
pub fn number(mbuf: &Mbuf) -> u32 {
    u32::from_be_bytes(mbuf.bytes()[14..18].try_into().unwrap())
}

pub fn numbers<const N: usize>(burst: &Burst<N>) -> Vec<u32> {
    burst.iter().map(number).collect()
}

/// A full burst of frames, numbered from `first`.
pub fn numbered(mempool: &Mempool, first: u32) -> Burst<32> {
    (first..first + 32).map(|number| mempool.copy_of(&frame(number)).unwrap()).collect()
}
