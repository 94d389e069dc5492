//! A start that DPDK refuses is an error, and the process lives on.

use dpdk::{Eal, EalArguments, Error, Memory};

#[test]
fn a_refused_start_says_why_and_is_final() {
    let wrong = EalArguments::new("test").lcores("999999").memory(Memory::NoHuge { megabytes: 32 }).no_pci();
    let error = Eal::start(&wrong).unwrap_err();
    assert!(matches!(error, Error::StartRefused { .. }), "{error}");
    assert!(error.to_string().contains("--lcores=999999"), "{error}");
    assert!(Eal::running().is_none());
    let right = EalArguments::new("test").lcores("0").memory(Memory::NoHuge { megabytes: 32 }).no_pci();
    assert_eq!(Eal::start(&right).unwrap_err(), Error::EarlierStartFailed);
}
