//! What every store must do.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use cluster::facility::births::{CreateSa, Created, DeleteSas, MarkRaise, RaiseMarks, SealSas};
use cluster::facility::claim::{Claim, Claimed, Fence, OwnerSeen, Reading, Refused, ask_owner};
use cluster::facility::memory::Store;
use cluster::facility::senders::SenderPool;
use cluster::facility::start::Started;
use cluster::facility::wrap::{Sealer, WrapKey};
use cluster::facility::{Change, Compare, Outcome, Read, Request};
use cluster::id::{Incarnation, MemberId};
use facility::{Facility, Refused as NotTaken, RegisterError, Registration};
use ipsec::Spi;
use ipsec::time::Instant;

use crate::place::Place;

/// How long a test waits for a store that comes up.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn dvipa() -> IpAddr {
    "203.0.113.80".parse().unwrap()
}

/// Asks until there is an answer.
pub fn ask(client: &mut Facility, request: &Request) -> Outcome {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        match client.ask(request.clone()) {
            Ok(outcome) => return outcome,
            Err(RegisterError::Unavailable(_)) if std::time::Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn register(client: &mut Facility, me: u16, senders: u32) -> Started {
    client.register(Registration { me: MemberId(me), senders, patience: PATIENCE }).unwrap()
}

fn own(client: &mut Facility, me: u16, incarnation: Incarnation) -> Fence {
    let seen = OwnerSeen::read(dvipa(), &ask(client, &ask_owner(1, dvipa()))).unwrap();
    let claim = Claim::new(dvipa(), MemberId(me), incarnation, seen);
    match claim.judge(&ask(client, &claim.request(2))).unwrap() {
        Claimed::Owned(fence) => fence,
        Claimed::Lost(seen) => panic!("lost to {seen:?}"),
    }
}

fn spi() -> Spi {
    Spi::new(0x1000).unwrap()
}

fn birth(fence: Fence, sealer: &mut Sealer) -> CreateSa {
    CreateSa { fence, spi: spi(), record: sealer.seal(&shadow::shadow(0x1000), 1).unwrap(), mark: 64 }
}

/// Draws one number for each turn of each client, while the others draw too.
fn draw(mut client: Facility, me: u16, turns: usize) -> Vec<u64> {
    let started = register(&mut client, me, 2);
    let mut pool = SenderPool::new(started.senders, 4);
    let (mut drawn, mut now, mut id) = (Vec::new(), Instant::ZERO, 100);
    while drawn.len() < turns {
        now += Duration::from_secs(1);
        id += 1;
        if let Some(request) = pool.poll_request(now, id) {
            client.submit(request).unwrap();
            let reply = client.wait(PATIENCE).unwrap();
            assert!(pool.handle_reply(now, &reply));
        }
        drawn.extend(pool.take().map(|number| number.0));
    }
    drawn
}

pub fn two_who_draw_at_once_never_draw_the_same<P: Place>(test: &str) {
    let place = P::new(test);
    let clients = if P::IS_SHARED { 3 } else { 1 };
    let drawn: Vec<u64> = if clients == 1 {
        // One process is all there can be; it starts three times.
        (0..3).flat_map(|_| draw(place.client(1), 1, 40)).collect()
    } else {
        std::thread::scope(|scope| {
            let place = &place;
            let threads: Vec<_> = (1..=clients)
                .map(|me| {
                    let client = place.client(me);
                    scope.spawn(move || draw(client, me as u16, 40))
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    };
    let apart: BTreeSet<u64> = drawn.iter().copied().collect();
    assert_eq!((drawn.len(), apart.len()), (120, 120));
}

pub fn what_is_committed_survives_a_crash<P: Place>(test: &str) {
    let mut place = P::new(test);
    let key = WrapKey::new(&[7; 32]);
    let (fence, incarnation) = {
        let mut client = place.client(1);
        let started = register(&mut client, 1, 2);
        let fence = own(&mut client, 1, started.incarnation);
        let mut sealer = Sealer::new(&key, started.fresh).unwrap();
        let birth = birth(fence, &mut sealer);
        let outcome = ask(&mut client, &birth.request(3));
        assert!(matches!(birth.judge(&outcome), Ok(Created::Made(_))));
        (fence, started.incarnation)
    };
    place.crash();
    let mut client = place.client(1);
    let mut reading = Reading::new(fence);
    let held = loop {
        let outcome = ask(&mut client, &reading.request(4).unwrap());
        if let Some(held) = reading.take(&outcome).unwrap() {
            break held;
        }
    };
    let opened = key.open(dvipa(), spi(), &held.sas[&spi()]).unwrap();
    assert_eq!(opened.child.inbound.key, shadow::shadow(0x1000).child.inbound.key);
    assert_eq!(held.marks[&spi()], 64);
    let again = register(&mut client, 1, 1);
    assert!(again.incarnation > incarnation && again.senders.start == 2);
    assert!(client.poll_notice().is_none());
}

pub fn nothing_of_a_stale_epoch_is_written_or_deleted<P: Place>(test: &str) {
    let place = P::new(test);
    let mut client = place.client(1);
    let started = register(&mut client, 1, 1);
    let (stale, incarnation) = (own(&mut client, 1, started.incarnation), started.incarnation);
    let mut sealer = Sealer::new(&WrapKey::new(&[7; 32]), started.fresh).unwrap();
    let made = birth(stale, &mut sealer);
    assert!(matches!(made.judge(&ask(&mut client, &made.request(1))), Ok(Created::Made(_))));
    let fence = own(&mut client, 2, incarnation);
    let everything = |client: &mut Facility| {
        let read = ["sa/", "mark/", "seal/", "dvipa/"].map(|prefix| Read::Prefix(prefix.into())).to_vec();
        ask(client, &Request { id: 9, compare: vec![], change: vec![], read }).records
    };
    let before = everything(&mut client);
    assert_eq!(before.len(), 3);
    let is_stale = |refused: Result<(), Refused>| match refused {
        Err(Refused::Stale(stale)) => assert_eq!(stale.found, Some(fence.record)),
        other => panic!("{other:?}"),
    };
    let late = CreateSa { spi: Spi::new(0x2000).unwrap(), ..made };
    is_stale(late.judge(&ask(&mut client, &late.request(2))).map(|_| ()));
    let marks = RaiseMarks::batches(stale, &[MarkRaise { spi: spi(), from: 64, to: 128 }]).remove(0);
    is_stale(marks.judge(&ask(&mut client, &marks.request(3))).map(|_| ()));
    let seal = SealSas::batches(stale, &[spi()]).remove(0);
    is_stale(seal.judge(&ask(&mut client, &seal.request(4))));
    let delete = DeleteSas::batches(stale, &[spi()]).remove(0);
    is_stale(delete.judge(&ask(&mut client, &delete.request(5))));
    assert_eq!(everything(&mut client), before);
    // The same with the fence that holds.
    let delete = DeleteSas::batches(fence, &[spi()]).remove(0);
    delete.judge(&ask(&mut client, &delete.request(6))).unwrap();
    assert_eq!(everything(&mut client).len(), 1);
}

pub fn a_store_that_went_back_is_found_and_voided<P: Place>(test: &str) {
    let mut place = P::new(test);
    let first = register(&mut place.client(1), 1, 4);
    place.back_up();
    let mut client = place.client(1);
    let second = register(&mut client, 1, 4);
    let fence = own(&mut client, 1, second.incarnation);
    ask(&mut client, &ask_owner(1, dvipa()));
    let mut sealer = Sealer::new(&WrapKey::new(&[7; 32]), second.fresh).unwrap();
    let made = birth(fence, &mut sealer);
    assert!(matches!(made.judge(&ask(&mut client, &made.request(1))), Ok(Created::Made(_))));
    drop(client);
    place.restore();
    let mut client = place.client(1);
    let third = register(&mut client, 1, 4);
    let notice = client.poll_notice().expect("it is found");
    assert!(notice.by_us && notice.found_revision < notice.remembered_revision, "{notice:?}");
    assert!(third.incarnation > second.incarnation && third.senders.start >= second.senders.end);
    assert!(second.senders.start >= first.senders.end);
    let delete = DeleteSas::batches(fence, &[spi()]).remove(0);
    let refused = delete.judge(&ask(&mut client, &delete.request(6)));
    assert!(matches!(refused, Err(Refused::Stale(_))), "every fence is stale: {refused:?}");
    let next = own(&mut client, 1, third.incarnation);
    assert!(next.record.epoch > fence.record.epoch);
    drop(client);
    // Once is enough.
    let mut client = place.client(1);
    register(&mut client, 1, 1);
    assert!(client.poll_notice().is_none());
}

pub fn a_thousand_requests_are_answered_in_order<P: Place>(test: &str) {
    let place = P::new(test);
    let mut client = place.client(1);
    ask(&mut client, &Request { id: 0, compare: vec![], change: vec![], read: vec![Read::Record("x".into())] });
    let key = String::from("counter");
    let number = |number: u64| number.to_be_bytes().to_vec();
    let mut answered = 0;
    let mut asked = 0;
    while answered < 1_000 {
        // Each holds only if the one before it was carried out.
        while asked < 1_000 {
            let before =
                if asked == 0 { Compare::Absent(key.clone()) } else { Compare::Equals(key.clone(), number(asked - 1)) };
            let change = vec![Change::Put(key.clone(), number(asked))];
            match client.submit(Request { id: asked, compare: vec![before], change, read: vec![] }) {
                Ok(()) => asked += 1,
                Err(NotTaken::Full { .. }) => break,
                Err(error) => panic!("{error}"),
            }
            if client.unanswered() >= 64 {
                break;
            }
        }
        let reply = client.wait(PATIENCE).expect("an answer");
        assert_eq!(reply.id, answered);
        assert!(reply.outcome.unwrap().is_committed, "request {answered}");
        answered += 1;
    }
}

/// Small numbers from a seed, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn key(&mut self) -> String {
        ["a/1", "a/2", "a/20", "b/1", "ab/1", "b/2"][self.roll(6) as usize].to_owned()
    }

    fn prefix(&mut self) -> String {
        ["a/", "b/", "a", "a/2"][self.roll(4) as usize].to_owned()
    }

    fn request(&mut self, id: u64) -> Request {
        let mut request = Request { id, compare: vec![], change: vec![], read: vec![] };
        for _ in 0..self.roll(2) {
            let (key, value) = (self.key(), vec![self.roll(3) as u8]);
            request.compare.push(match self.roll(3) {
                0 => Compare::Absent(key),
                1 => Compare::Present(key),
                _ => Compare::Equals(key, value),
            });
        }
        for _ in 0..self.roll(4) {
            let (key, value) = (self.key(), vec![self.roll(3) as u8]);
            request.change.push(match self.roll(5) {
                0 => Change::Delete(key),
                1 => Change::DeletePrefix(self.prefix()),
                _ => Change::Put(key, value),
            });
        }
        for _ in 0..=self.roll(3) {
            request.read.push(match self.roll(3) {
                0 => Read::Record(self.key()),
                1 => Read::Prefix(self.prefix()),
                _ => {
                    let after = (self.roll(2) == 0).then(|| self.key());
                    Read::Page { prefix: self.prefix(), after, count: self.roll(3) as u32 }
                }
            });
        }
        request
    }
}

pub fn it_does_what_the_store_in_memory_does<P: Place>(test: &str) {
    let place = P::new(test);
    let (mut client, mut oracle, mut dice) = (place.client(1), Store::default(), Dice(20));
    let mut revision = ask(&mut client, &Request { id: 0, compare: vec![], change: vec![], read: vec![] }).revision;
    let mut committed = 0;
    for id in 1..=400 {
        let request = dice.request(id);
        match oracle.execute(&request) {
            Ok(expected) => {
                let outcome = client.ask(request.clone()).unwrap();
                assert_eq!(
                    (outcome.is_committed, outcome.records),
                    (expected.is_committed, expected.records),
                    "{request:?}"
                );
                let grown = outcome.is_committed && !request.change.is_empty();
                assert!(outcome.revision >= revision, "a revision never goes back");
                committed += u32::from(grown);
                revision = outcome.revision;
            }
            Err(malformed) => {
                let refused = client.submit(request).unwrap_err();
                assert_eq!(refused.to_string(), malformed.to_string());
            }
        }
    }
    assert!(committed > 50, "the dice try something: {committed}");
}

pub fn a_full_queue_refuses_and_what_was_taken_is_answered<P: Place>(test: &str) {
    let place = P::new(test);
    let mut client = place.client(1);
    let request = |id| Request { id, compare: vec![], change: vec![Change::Put("x".into(), vec![1])], read: vec![] };
    let mut taken = 0;
    let refused = loop {
        match client.submit(request(taken)) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(taken, 1_024);
    assert!(matches!(refused, NotTaken::Full { waiting: 1_024 }));
    for id in 0..taken {
        assert_eq!(client.wait(PATIENCE).unwrap().id, id);
    }
    assert_eq!(client.unanswered(), 0);
    assert!(client.submit(request(0)).is_ok());
}

pub mod shadow {
    //! An SA with keys that can be looked for.

    use cluster::fabric::Processing;
    use cluster::shadow::{ShadowSa, Use};
    use ipsec::Spi;
    use ipsec::cipher::Cipher;
    use ipsec::iv::SenderNumber;
    use ipsec::key::SaKey;
    use ipsec::lifetime::Lifetime;
    use ipsec::sa::{ChildSa, Direction, Encapsulation, Mode, PeerId, SaParameters};
    use ipsec::selector::{Selectors, TrafficSelector};

    pub const KEYMATS: [[u8; 36]; 2] = [keymat(0x1d), keymat(0x93)];

    /// Bytes that stand nowhere by chance.
    const fn keymat(seed: u8) -> [u8; 36] {
        let mut bytes = [0; 36];
        let (mut at, mut value) = (0, seed);
        while at < bytes.len() {
            value = value.wrapping_mul(73).wrapping_add(41);
            bytes[at] = value;
            at += 1;
        }
        bytes
    }

    pub fn shadow(spi: u32) -> ShadowSa {
        let half = |direction, spi: u32, keymat: &[u8]| SaParameters {
            name: "web".into(),
            peer: PeerId(7),
            peer_name: "the peer".into(),
            dvipa: super::dvipa(),
            remote: "192.0.2.20".parse().unwrap(),
            spi: Spi::new(spi).unwrap(),
            direction,
            mode: Mode::Tunnel,
            encapsulation: Encapsulation::None,
            cipher: Cipher::AesGcm256,
            key: SaKey::from_keymat(Cipher::AesGcm256, keymat).unwrap(),
            esn: false,
            replay_window_packets: 64,
            selectors: Selectors { local: vec![TrafficSelector::any_v4()], remote: vec![TrafficSelector::any_v4()] },
            lifetime: Lifetime::NONE,
            epoch: 1,
        };
        let child = ChildSa {
            inbound: half(Direction::Inbound, spi, &KEYMATS[0]),
            outbound: half(Direction::Outbound, spi + 1, &KEYMATS[1]),
        };
        ShadowSa {
            child,
            processing: Processing::Target,
            born_at: SenderNumber(2),
            usage: Use::First,
            replaces: None,
            sibling_of: None,
            grant_bytes_max: 1 << 20,
        }
    }
}
