use super::*;
use crate::facility::claim::Stale;
use crate::facility::memory::Store;
use crate::facility::testing::{dvipa, fresh_start, own, run, shadow};
use crate::facility::wrap::{Sealer, WrapKey};
use crate::id::Epoch;

fn spi(number: u32) -> Spi {
    Spi::new(number).unwrap()
}

fn record(order: u64) -> SaRecord {
    Sealer::new(&WrapKey::new(&[7; 32]), fresh_start(1)).unwrap().seal(&shadow(0x1000), order).unwrap()
}

fn create(fence: Fence) -> CreateSa {
    CreateSa { fence, spi: spi(0x1000), record: record(1), mark: 64 }
}

fn raise(fence: Fence, from: u64, to: u64) -> RaiseMarks {
    RaiseMarks::batches(fence, &[MarkRaise { spi: spi(0x1000), from, to }]).remove(0)
}

#[test]
fn a_birth_makes_record_and_mark_and_tells_the_counter() {
    let mut store = Store::default();
    let fence = own(&mut store, 1, 1);
    let senders = Change::Put(name::SENDERS.into(), encode_number(77));
    run(&mut store, &Request { id: 0, compare: vec![], change: vec![senders], read: vec![] });
    let create = create(fence);
    let outcome = run(&mut store, &create.request(1));
    assert_eq!(create.judge(&outcome), Ok(Created::Made(SenderNumber(77))));
    // Repeated, because its reply was lost.
    let outcome = run(&mut store, &create.request(2));
    assert!(!outcome.is_committed);
    assert_eq!(create.judge(&outcome), Ok(Created::Made(SenderNumber(77))));
    let other = CreateSa { record: record(2), ..create };
    let outcome = run(&mut store, &other.request(3));
    assert_eq!(other.judge(&outcome), Ok(Created::Taken));
}

#[test]
fn nothing_of_a_stale_epoch_is_carried_out() {
    let mut store = Store::default();
    let old = own(&mut store, 1, 1);
    let made = create(old);
    run(&mut store, &made.request(1));
    let new = own(&mut store, 2, 2);
    let before = store.clone();
    let stale = Refused::Stale(Stale { address: dvipa(), ours: old.record, found: Some(new.record) });

    let spis = [spi(0x1000)];
    let again = CreateSa { spi: spi(0x2000), ..made };
    assert_eq!(again.judge(&run(&mut store, &again.request(1))), Err(stale.clone()));
    let marks = raise(old, 64, 128);
    assert_eq!(marks.judge(&run(&mut store, &marks.request(1))), Err(stale.clone()));
    let seal = SealSas::batches(old, &spis).remove(0);
    assert_eq!(seal.judge(&run(&mut store, &seal.request(1))), Err(stale.clone()));
    let before_all = SealBefore { fence: old, seen: Birth::default(), before: Birth { epoch: Epoch(9), order: 0 } };
    assert_eq!(before_all.judge(&run(&mut store, &before_all.request(1))), Err(stale.clone()));
    let delete = DeleteSas::batches(old, &spis).remove(0);
    assert_eq!(delete.judge(&run(&mut store, &delete.request(1))), Err(stale));
    assert_eq!(store, before);
}

#[test]
fn a_raise_that_arrives_late_never_lowers_a_mark() {
    let mut store = Store::default();
    let fence = own(&mut store, 1, 1);
    run(&mut store, &create(fence).request(1));
    let (late, second) = (raise(fence, 64, 100), raise(fence, 64, 200));
    let outcome = run(&mut store, &second.request(1));
    assert_eq!(second.judge(&outcome), Ok(Raised::Done));
    let outcome = run(&mut store, &late.request(2));
    assert!(!outcome.is_committed);
    // It was asked to stand at 100 at least, and it does.
    assert_eq!(late.judge(&outcome), Ok(Raised::Done));
    let higher = raise(fence, 64, 300);
    let outcome = run(&mut store, &higher.request(3));
    assert_eq!(higher.judge(&outcome), Ok(Raised::Elsewhere(vec![(spi(0x1000), Some(200))])));
}

#[test]
fn batches_stay_within_what_a_facility_takes() {
    let mut store = Store::default();
    let fence = own(&mut store, 1, 1);
    let spis: Vec<Spi> = (0..500).map(|number| spi(0x1000 + number)).collect();
    let marks: Vec<MarkRaise> = spis.iter().map(|&spi| MarkRaise { spi, from: 0, to: 9 }).collect();
    for batch in RaiseMarks::batches(fence, &marks) {
        assert_eq!(batch.request(1).check(), Ok(()));
    }
    let seals = SealSas::batches(fence, &spis);
    assert!(seals.iter().all(|batch| batch.judge(&run(&mut store, &batch.request(1))).is_ok()));
    let deletes = DeleteSas::batches(fence, &spis);
    assert_eq!(deletes.iter().map(|batch| batch.spis().len()).sum::<usize>(), 500);
    assert!(deletes.iter().all(|batch| batch.request(1).check().is_ok()));
}

#[test]
fn a_seal_before_a_birth_only_grows() {
    let mut store = Store::default();
    let fence = own(&mut store, 1, 1);
    let birth = |order| Birth { epoch: Epoch(1), order };
    let seal = |seen, before| SealBefore { fence, seen, before };
    let first = seal(Birth::default(), birth(10));
    assert_eq!(first.judge(&run(&mut store, &first.request(1))), Ok(Sealed::Done));
    let blind = seal(Birth::default(), birth(20));
    assert_eq!(blind.judge(&run(&mut store, &blind.request(1))), Ok(Sealed::Elsewhere(birth(10))));
    let second = seal(birth(10), birth(20));
    assert_eq!(second.judge(&run(&mut store, &second.request(1))), Ok(Sealed::Done));
    let lower = seal(birth(20), birth(15));
    assert_eq!(lower.judge(&run(&mut store, &lower.request(1))), Ok(Sealed::Done));
    let highest = seal(birth(20), birth(21));
    assert_eq!(highest.judge(&run(&mut store, &highest.request(1))), Ok(Sealed::Done));
}
