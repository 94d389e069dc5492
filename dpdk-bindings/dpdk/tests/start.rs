//! Starting DPDK: once, and without harm to the thread that does it.

#![allow(clippy::unwrap_used, clippy::expect_used)] // clippy does not see that helpers of tests are tests

mod common;

use dpdk::{Device, Eal, EalArguments, Error, Memory};

/// The CPUs that this thread may run on.
fn own_cpus() -> String {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned()
}

/// One test, because there is one start in a process.
#[test]
fn dpdk_starts_once_leaves_affinity_alone_and_shows_failed_devices() {
    assert!(Eal::running().is_none());
    let cpus = own_cpus();
    let arguments = EalArguments::new("test")
        .lcores("0")
        .memory(Memory::NoHuge { megabytes: 64 })
        .no_pci()
        .log_level("critical")
        .vdev("net_null_good")
        .vdev("net_af_packet_bad,iface=no-such-iface");
    let refused = arguments.clone().raw("--in-memory");
    assert_eq!(Eal::start(&refused).unwrap_err(), Error::NoHugeInMemory, "a typing error does not use up the start");

    let eal = Eal::start(&arguments).unwrap();
    assert_eq!(own_cpus(), cpus, "the starting thread keeps its CPUs");
    assert_eq!(std::thread::spawn(own_cpus).join().unwrap(), cpus, "and so do the threads that it starts");
    assert_eq!(Eal::start(&arguments).unwrap_err(), Error::AlreadyStarted);
    assert!(Eal::running().is_some());
    assert!(eal.version().starts_with("DPDK "), "{}", eal.version());
    assert!(matches!(eal.register_thread(), Err(Error::RegisterThread { .. })), "the main lcore is known already");

    let good = Device::open(eal, "net_null_good").unwrap();
    assert_eq!(good.info().unwrap().driver, "net_null");
    let error = Device::open(eal, "net_af_packet_bad").unwrap_err();
    assert!(error.to_string().contains("net_af_packet_bad"), "{error}");
    let again = Device::open(eal, "net_null_good,size=100").unwrap_err();
    assert_eq!(again, Error::DeviceExists { device: "net_null_good,size=100".into() });
    drop(good);
    Device::open(eal, "net_null_good,size=100").expect("a closed device may be opened again, with other arguments");
}
