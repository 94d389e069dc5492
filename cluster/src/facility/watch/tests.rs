use super::*;
use crate::facility::claim::Fence;
use crate::facility::memory::Store;
use crate::facility::record::MemberRecord;
use crate::facility::senders::SenderPool;
use crate::facility::start::{Progress, Start, Started};
use crate::facility::testing::own;
use crate::facility::{Outcome, Reply};
use crate::id::MemberId;
use ipsec::time::Instant;

/// An appliance: what it remembers is what its disk holds.
struct Member {
    watch: Watch,
    disk: Remembered,
    notices: Vec<RolledBack>,
}

impl Member {
    fn new(number: u8, disk: Remembered) -> Member {
        Member { watch: Watch::new(disk.clone(), [number; 16]), disk, notices: vec![] }
    }

    /// Starts again with what the disk holds.
    fn restart(&mut self, number: u8) {
        *self = Member::new(number, self.disk.clone());
    }

    fn settle(&mut self, store: &mut Store) {
        for _ in 0..5 {
            let Some(request) = self.watch.request(0) else { break };
            let outcome = store.execute(&request).unwrap();
            self.watch.take(&outcome).unwrap();
        }
        assert!(self.watch.request(0).is_none(), "it settles in a few steps");
        self.save();
        self.notices.extend(self.watch.poll_notice());
    }

    fn save(&mut self) {
        if let Some(remembered) = self.watch.poll_save(Save::Soon) {
            self.disk = remembered.clone();
        }
    }

    /// A request of somebody's: `None` when its reply was not to be believed.
    fn ask(&mut self, store: &mut Store, request: &Request) -> Option<Outcome> {
        self.settle(store);
        let mut outcome = store.execute(&self.watch.carry(request.clone())).unwrap();
        let judged = self.watch.judge(request, &mut outcome);
        self.save();
        judged.ok().map(|()| outcome)
    }

    fn start(&mut self, store: &mut Store, me: u16, nonce: u8, senders: u32) -> Started {
        let mut start = Start::new(MemberId(me), [nonce; 16], senders);
        for _ in 0..20 {
            let Some(outcome) = self.ask(store, &start.request(1)) else { continue };
            match start.take(&outcome).unwrap() {
                Progress::Again(again) => start = again,
                Progress::Done(started) => return started,
            }
        }
        panic!("not registered");
    }
}

fn members() -> (Store, Member, Member) {
    let mut store = Store::default();
    let mut members = [1, 2].map(|number| Member::new(number, Remembered::default()));
    members.iter_mut().for_each(|member| member.settle(&mut store));
    let [first, second] = members;
    (store, first, second)
}

fn write(key: &str) -> Request {
    Request { id: 1, compare: vec![], change: vec![Change::Put(key.into(), vec![1])], read: vec![] }
}

#[test]
fn one_facility_has_one_identity_for_all_its_members() {
    let (_, first, second) = members();
    assert_eq!(first.disk.identity, Some([1; 16]));
    assert_eq!(second.disk.identity, Some([1; 16]));
    assert!(first.notices.is_empty() && second.notices.is_empty());
}

#[test]
fn restarts_find_nothing_to_settle() {
    let (mut store, mut first, _) = members();
    first.start(&mut store, 1, 1, 2);
    let before = store.clone();
    for number in 10..13 {
        first.restart(number);
        first.settle(&mut store);
    }
    assert_eq!(store, before);
    assert!(first.notices.is_empty());
}

#[test]
fn a_facility_that_went_back_is_voided_before_anything_is_drawn() {
    let (mut store, mut first, mut second) = members();
    first.start(&mut store, 1, 1, 4);
    let backup = store.clone();
    let fence: Fence = own(&mut store, 1, 1);
    assert!(first.ask(&mut store, &write("sa/203.0.113.80/00001000")).is_some());
    let drawn = second.start(&mut store, 2, 2, 5);
    assert_eq!((drawn.incarnation.0, drawn.senders), (2, 4..9));
    let dvipa = fence.address;
    first.ask(&mut store, &crate::facility::claim::ask_owner(1, dvipa)).unwrap();

    store = backup;
    // Somebody who knows nothing of it goes on: revisions grow again.
    (0..50).for_each(|_| _ = store.execute(&write("sa/203.0.113.80/00002000")).unwrap());
    second.restart(3);
    let drawn = second.start(&mut store, 2, 4, 1);
    assert!(drawn.incarnation.0 > 2 + MARGIN - 1 && drawn.senders.start >= 9 + MARGIN, "{drawn:?}");
    assert_eq!(second.notices.len(), 1);
    assert!(second.notices[0].by_us);
    let outcome =
        store.execute(&Request { id: 1, compare: vec![], change: vec![], read: vec![Read::Prefix("sa/".into())] });
    assert!(outcome.unwrap().records.is_empty(), "the records of SAs are void");

    // The other finds it done, and does nothing more than to know it.
    let before = store.clone();
    first.settle(&mut store);
    let read = Request { id: 1, compare: vec![], change: vec![], read: vec![Read::Record("x".into())] };
    assert!(first.ask(&mut store, &read).is_none());
    assert!(first.ask(&mut store, &read).is_some());
    assert_eq!(store, before);
    assert!(!first.notices[0].by_us);
    // An epoch that was seen never comes again.
    let next = own(&mut store, 2, 9);
    assert!(next.record.epoch.0 > fence.record.epoch.0 + MARGIN - 1);
}

#[test]
fn a_running_member_notices_at_its_next_reply() {
    let (mut store, mut first, _) = members();
    let backup = store.clone();
    (0..3).for_each(|_| _ = first.ask(&mut store, &write("x")).unwrap());
    store = backup;
    assert!(first.ask(&mut store, &write("y")).is_none(), "the reply is not believed");
    assert!(first.ask(&mut store, &write("y")).is_some());
    assert_eq!(first.notices.len(), 1);
    assert_eq!(first.notices[0].generation, 1);
}

#[test]
fn a_draw_on_counters_that_went_back_draws_nothing() {
    let (mut store, mut first, _) = members();
    let started = first.start(&mut store, 1, 1, 3);
    let backup = store.clone();
    let mut pool = SenderPool::new(started.senders, 6);
    let (now, mut ask) = (Instant::from_secs(1), |pool: &mut SenderPool, store: &mut Store, now| {
        let request = pool.poll_request(now, 1)?;
        let outcome = first.ask(store, &request);
        let outcome = outcome.ok_or(crate::facility::Unavailable { why: "in doubt".into() });
        pool.handle_reply(now, &Reply { id: 1, outcome });
        Some(())
    });
    ask(&mut pool, &mut store, now).unwrap();
    let mut taken: Vec<u64> = std::iter::from_fn(|| pool.take()).map(|number| number.0).collect();
    assert_eq!(taken, (0..6).collect::<Vec<_>>());
    store = backup;
    for second in 2..10 {
        ask(&mut pool, &mut store, Instant::from_secs(second));
        taken.extend(std::iter::from_fn(|| pool.take()).map(|number| number.0));
    }
    assert!(taken.len() > 6, "it goes on by itself");
    assert!(taken[6] >= 6 + MARGIN, "{taken:?}");
}

#[test]
fn a_facility_that_was_wiped_begins_above_everything_remembered() {
    let (mut store, mut first, mut second) = members();
    first.start(&mut store, 1, 1, 4);
    store = Store::default();
    first.restart(7);
    let started = first.start(&mut store, 1, 3, 1);
    assert!(started.senders.start >= 4 + MARGIN && started.incarnation.0 > 1 + MARGIN);
    assert_eq!(first.disk.identity, Some([7; 16]));
    second.settle(&mut store);
    let read = Request { id: 1, compare: vec![], change: vec![], read: vec![Read::Record("x".into())] };
    while second.ask(&mut store, &read).is_none() {}
    assert_eq!(second.disk.identity, Some([7; 16]));
}

/// An appliance that ran alone for years joins a young cluster.
#[test]
fn another_facility_is_not_voided_but_its_counters_are_raised() {
    let (mut store, mut first, _) = members();
    first.start(&mut store, 1, 1, 4);
    own(&mut store, 1, 1);
    let fence_before = store.clone();
    let epochs = [("203.0.113.80".parse().unwrap(), 500)].into();
    let alone = Remembered {
        identity: Some([99; 16]),
        generation: 3,
        revision: 1_000_000,
        incarnations: 900,
        senders: 5_000,
        epochs,
    };
    let mut joining = Member::new(5, alone);
    let started = joining.start(&mut store, 3, 9, 1);
    assert!(started.incarnation.0 > 900 && started.senders.start > 5_000);
    assert!(joining.notices.is_empty());
    assert_eq!(joining.disk.generation, 0);
    let owner =
        |store: &mut Store| store.execute(&crate::facility::claim::ask_owner(1, crate::facility::testing::dvipa()));
    let before = owner(&mut fence_before.clone()).unwrap();
    let after = owner(&mut store).unwrap();
    assert_eq!(before.record("dvipa/203.0.113.80"), after.record("dvipa/203.0.113.80"), "its owner stays");
}

/// What an appliance drew before there was a facility.
#[test]
fn a_counter_from_before_the_facility_is_respected() {
    let mut store = Store::default();
    let mut member = Member::new(1, Remembered { senders: 123, ..Remembered::default() });
    let started = member.start(&mut store, 1, 1, 2);
    assert!(started.senders.start >= 123);
    assert!(member.notices.is_empty());
}

#[test]
fn a_record_of_another_version_stops_everything() {
    let mut store = Store::default();
    let mut bytes = MemberRecord {
        incarnation: crate::id::Incarnation(1),
        nonce: [0; 16],
        senders_first: ipsec::iv::SenderNumber(0),
        senders_count: 0,
    }
    .encode();
    bytes[0] = 9;
    let change = vec![Change::Put(name::LINEAGE.into(), bytes)];
    store.execute(&Request { id: 0, compare: vec![], change, read: vec![] }).unwrap();
    let mut watch = Watch::new(Remembered::default(), [1; 16]);
    let outcome = store.execute(&watch.request(0).unwrap()).unwrap();
    assert!(matches!(watch.take(&outcome), Err(RecordError::Version { found: 9, .. })));
    assert!(watch.request(0).is_some(), "nothing else is asked");
}
