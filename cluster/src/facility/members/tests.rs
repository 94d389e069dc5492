use super::*;
use crate::facility::births::{CreateSa, Created, DeleteSas, SealSas};
use crate::facility::claim::{Claim, Claimed, Held, OwnerSeen, Reading, ask_owner, forget_all, judge_forgotten};
use crate::facility::memory::Store;
use crate::facility::testing::{dvipa, fresh_start, own, run, shadow};
use crate::facility::wrap::{Sealer, WrapKey};
use crate::id::Epoch;
use ipsec::Spi;

fn held(store: &mut Store, fence: Fence) -> Held {
    let mut reading = Reading::new(fence);
    loop {
        let outcome = run(store, &reading.request(1).unwrap());
        if let Some(held) = reading.take(&outcome).unwrap() {
            assert!(reading.request(1).is_none());
            return held;
        }
    }
}

fn create(store: &mut Store, fence: Fence, sealer: &mut Sealer, number: u32, order: u64) {
    let mut shadow = shadow(number);
    shadow.child.inbound.epoch = fence.record.epoch.0;
    let record = sealer.seal(&shadow, order).unwrap();
    let create = CreateSa { fence, spi: Spi::new(number).unwrap(), record, mark: u64::from(number) };
    assert!(matches!(create.judge(&run(store, &create.request(1))), Ok(Created::Made(_))));
}

const TARGET: (MemberId, Incarnation) = (MemberId(2), Incarnation(5));

fn admit(store: &mut Store, fence: Fence) -> Admitted {
    let admit = AdmitTarget { fence, member: TARGET.0, incarnation: TARGET.1 };
    admit.judge(&run(store, &admit.request(1))).unwrap()
}

fn top(number: u32) -> DrainedTop {
    DrainedTop { spi: Spi::new(number).unwrap(), top: 9, floor: 3 }
}

#[test]
fn a_new_owner_finds_all_that_the_old_one_wrote() {
    let (mut store, key) = (Store::default(), WrapKey::new(&[7; 32]));
    let mut sealer = Sealer::new(&key, fresh_start(1)).unwrap();
    let old = own(&mut store, 1, 1);
    // More than two pages.
    for number in 0x1000..0x1000 + 1_200 {
        create(&mut store, old, &mut sealer, number, number.into());
    }
    let seal = SealSas::batches(old, &[Spi::new(0x1001).unwrap()]).remove(0);
    seal.judge(&run(&mut store, &seal.request(1))).unwrap();
    assert_eq!(admit(&mut store, old), Admitted::Done);

    let new = own(&mut store, 3, 3);
    assert_eq!(new.record.epoch, Epoch(2));
    let held = held(&mut store, new);
    assert_eq!((held.sas.len(), held.marks.len()), (1_200, 1_200));
    let spi = Spi::new(0x1000 + 777).unwrap();
    assert_eq!(held.marks[&spi], 0x1000 + 777);
    assert_eq!(key.open(dvipa(), spi, &held.sas[&spi]).unwrap().child.inbound.spi, spi);
    assert!(held.is_sealed(Spi::new(0x1001).unwrap()) && !held.is_sealed(spi));
    assert_eq!(held.awaited().collect::<Vec<_>>(), [TARGET]);
    // Who reads with an old fence is told.
    let outcome = run(&mut store, &Reading::new(old).request(1).unwrap());
    assert!(matches!(Reading::new(old).take(&outcome), Err(Refused::Stale(_))));
}

#[test]
fn a_loss_seals_what_was_born_before_and_bars_the_start_for_good() {
    let (mut store, key) = (Store::default(), WrapKey::new(&[7; 32]));
    let mut sealer = Sealer::new(&key, fresh_start(1)).unwrap();
    let fence = own(&mut store, 1, 1);
    admit(&mut store, fence);
    create(&mut store, fence, &mut sealer, 0x1000, 1);
    let before = Birth { epoch: fence.record.epoch, order: 2 };
    let loss =
        |seen, before| RecordLoss { member: TARGET.0, incarnation: TARGET.1, seal: SealBefore { fence, seen, before } };
    let recorded = loss(Birth::default(), before);
    assert_eq!(recorded.judge(&run(&mut store, &recorded.request(1))), Ok(Sealed::Done));
    // Repeated, because its reply was lost.
    assert_eq!(recorded.judge(&run(&mut store, &recorded.request(1))), Ok(Sealed::Done));
    create(&mut store, fence, &mut sealer, 0x2000, 2);
    let held = held(&mut store, fence);
    assert!(held.is_sealed(Spi::new(0x1000).unwrap()) && !held.is_sealed(Spi::new(0x2000).unwrap()));
    assert_eq!(held.awaited().count(), 0);
    assert_eq!(admit(&mut store, fence), Admitted::Lost);

    // The next loss, by an owner that does not know how far the seal stands.
    let blind = RecordLoss { member: MemberId(4), ..loss(Birth::default(), before) };
    assert_eq!(blind.judge(&run(&mut store, &blind.request(1))), Ok(Sealed::Elsewhere(before)));
    let seeing = RecordLoss { member: MemberId(4), ..loss(before, before) };
    assert_eq!(seeing.judge(&run(&mut store, &seeing.request(1))), Ok(Sealed::Done));
}

#[test]
fn a_drained_member_counts_with_all_its_parts_and_until_it_is_admitted_again() {
    let mut store = Store::default();
    let fence = own(&mut store, 1, 1);
    admit(&mut store, fence);
    let tops: Vec<DrainedTop> = (0x1000..0x1000 + 45_000).map(top).collect();
    let parts = RecordDrained::parts(fence, TARGET.0, TARGET.1, &tops);
    assert_eq!(parts.len(), 3);
    for (at, part) in parts.iter().enumerate() {
        assert_eq!(held(&mut store, fence).drained.len(), 0, "before part {at}");
        part.judge(&run(&mut store, &part.request(1))).unwrap();
    }
    let drained = held(&mut store, fence);
    assert_eq!(drained.drained[&TARGET], tops);
    assert_eq!(drained.awaited().count(), 0);
    admit(&mut store, fence);
    assert_eq!(held(&mut store, fence).awaited().collect::<Vec<_>>(), [TARGET]);
    // One that holds nothing can leave too.
    let empty = RecordDrained::parts(fence, TARGET.0, TARGET.1, &[]);
    empty.iter().for_each(|part| part.judge(&run(&mut store, &part.request(1))).unwrap());
    assert_eq!(held(&mut store, fence).drained[&TARGET], []);
}

#[test]
fn members_are_recorded_by_the_owner_only() {
    let mut store = Store::default();
    let old = own(&mut store, 1, 1);
    own(&mut store, 3, 3);
    let before = store.clone();
    let admit = AdmitTarget { fence: old, member: TARGET.0, incarnation: TARGET.1 };
    assert!(matches!(admit.judge(&run(&mut store, &admit.request(1))), Err(Refused::Stale(_))));
    let seal = SealBefore { fence: old, seen: Birth::default(), before: Birth { epoch: Epoch(1), order: 1 } };
    let loss = RecordLoss { member: TARGET.0, incarnation: TARGET.1, seal };
    assert!(matches!(loss.judge(&run(&mut store, &loss.request(1))), Err(Refused::Stale(_))));
    let drained = RecordDrained::parts(old, TARGET.0, TARGET.1, &[top(0x1000)]).remove(0);
    assert!(matches!(drained.judge(&run(&mut store, &drained.request(1))), Err(Refused::Stale(_))));
    run(&mut store, &forget_start(1, &old, TARGET.0, TARGET.1));
    run(&mut store, &forget_all(1, &old));
    assert_eq!(store, before);
}

#[test]
fn what_is_forgotten_is_gone() {
    let (mut store, key) = (Store::default(), WrapKey::new(&[7; 32]));
    let mut sealer = Sealer::new(&key, fresh_start(1)).unwrap();
    let fence = own(&mut store, 1, 1);
    create(&mut store, fence, &mut sealer, 0x1000, 1);
    create(&mut store, fence, &mut sealer, 0x2000, 2);
    admit(&mut store, fence);
    let delete = DeleteSas::batches(fence, &[Spi::new(0x1000).unwrap()]).remove(0);
    delete.judge(&run(&mut store, &delete.request(1))).unwrap();
    let left = held(&mut store, fence);
    assert_eq!((left.sas.len(), left.marks.len()), (1, 1));
    run(&mut store, &forget_start(1, &fence, TARGET.0, TARGET.1));
    assert!(held(&mut store, fence).targets.is_empty());
    let outcome = run(&mut store, &forget_all(1, &fence));
    assert_eq!(judge_forgotten(&fence, &outcome), Ok(()));
    assert_eq!(held(&mut store, fence), Held::default());
}

#[test]
fn of_two_claims_one_wins_and_the_other_sees_it() {
    let mut store = Store::default();
    let seen = OwnerSeen::read(dvipa(), &run(&mut store, &ask_owner(1, dvipa()))).unwrap();
    assert_eq!(seen.next_epoch(), Epoch(1));
    let claims = [1, 2].map(|member| Claim::new(dvipa(), MemberId(member), Incarnation(9), seen.clone()));
    let outcomes = [0, 1].map(|at: usize| run(&mut store, &claims[at].request(1)));
    let Ok(Claimed::Owned(fence)) = claims[0].judge(&outcomes[0]) else { panic!("the first claim wins") };
    let Ok(Claimed::Lost(seen)) = claims[1].judge(&outcomes[1]) else { panic!("the second claim loses") };
    assert_eq!(seen.record, Some(fence.record));
    // The winner repeats it, because its reply was lost.
    assert_eq!(claims[0].judge(&run(&mut store, &claims[0].request(2))), Ok(Claimed::Owned(fence)));
    let next = Claim::new(dvipa(), MemberId(2), Incarnation(9), seen);
    let Ok(Claimed::Owned(fence)) = next.judge(&run(&mut store, &next.request(3))) else { panic!("it claims over it") };
    assert_eq!(fence.record.epoch, Epoch(2));
}
