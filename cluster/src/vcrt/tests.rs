use super::*;
use ipsec::Spi;
use ipsec::cipher::Cipher;
use ipsec::engine::{EngineChoice, select};
use ipsec::esp::NEXT_HEADER_IPV4;
use ipsec::inbound::{InboundSa, InboundShared};
use ipsec::iv::{IvGenerator, SenderNumber};
use ipsec::key::SaKey;
use ipsec::lifetime::Lifetime;
use ipsec::outbound::{OutboundSa, OutboundShared, OuterPolicy, esp_overhead};
use ipsec::sa::{Direction, Encapsulation, Mode, PeerId, SaParameters};
use ipsec::selector::{Selectors, TrafficSelector};
use proptest::prelude::*;
use std::collections::BTreeMap;
use wire::flow::FlowKey;

const T1: (MemberId, Incarnation) = (MemberId(1), Incarnation(11));
const T2: (MemberId, Incarnation) = (MemberId(2), Incarnation(12));

/// The proof that comes with an opened packet; there is no other way to one.
fn proof() -> Authentic {
    let parameters = |direction| SaParameters {
        name: "web".into(),
        peer: PeerId(1),
        peer_name: "peer".into(),
        dvipa: [203, 0, 113, 80].into(),
        remote: [198, 51, 100, 1].into(),
        spi: Spi::new(300).unwrap(),
        direction,
        mode: Mode::Tunnel,
        encapsulation: Encapsulation::None,
        cipher: Cipher::AesGcm128,
        key: SaKey::from_keymat(Cipher::AesGcm128, &[7; 20]).unwrap(),
        esn: false,
        replay_window_packets: 64,
        selectors: Selectors { local: vec![TrafficSelector::any_v4()], remote: vec![TrafficSelector::any_v4()] },
        lifetime: Lifetime::NONE,
        epoch: 1,
    };
    let engine = select(EngineChoice::Auto).unwrap().engine;
    let outbound = OutboundShared::new(parameters(Direction::Outbound), engine, SenderNumber(0)).unwrap();
    let inbound = InboundShared::new(parameters(Direction::Inbound), engine, 1).unwrap();
    let mut inner = vec![0; 20];
    (inner[0], inner[3]) = (0x45, 20);
    let room = esp_overhead(inner.len());
    let mut packet = [vec![0; room.before], inner, vec![0; room.after]].concat();
    let mut sender = OutboundSa::new(outbound, 1, OuterPolicy::default());
    let _ = sender.seal(&mut IvGenerator::new(SenderNumber(0)), &mut packet, 20, NEXT_HEADER_IPV4).unwrap();
    InboundSa::new(inbound).open(&mut packet).unwrap().proof
}

fn key_v4(peer: u64, port: u16) -> EntryKey {
    let (src, dst): (IpAddr, IpAddr) = ([10, 7, 0, 9].into(), [203, 0, 113, 80].into());
    EntryKey { peer: PeerId(peer), flow: FlowKey { src, dst, protocol: 6, src_port: port, dst_port: 80 } }
}

fn key_v6(peer: u64, port: u16) -> EntryKey {
    let (src, dst) = ("2001:db8::9".parse().unwrap(), "2001:db8::80".parse().unwrap());
    EntryKey { peer: PeerId(peer), flow: FlowKey { src, dst, ..key_v4(peer, port).flow } }
}

/// So poor that most entries share a bucket, and many a tag. The peer has no part in it.
fn poor_hash(key: &EntryKey) -> u64 {
    let port = u64::from(key.flow.src_port);
    ((port % 2) << 48) | (port % 3)
}

fn everything(table: &Vcrt, page_capacity: usize) -> Vec<(EntryKey, Route)> {
    let (mut all, mut cursor) = (Vec::new(), Some(0));
    while let Some(from) = cursor {
        let mut page = Vec::with_capacity(page_capacity);
        let capacity = page.capacity();
        cursor = table.list(from, &mut page);
        assert_eq!(page.capacity(), capacity, "a page never grows");
        all.extend(page);
    }
    all
}

#[test]
fn both_families_have_entries_and_capacities_of_their_own() {
    let (mut table, proof, now) = (Vcrt::new(2, 1), proof(), Instant::from_secs(5));
    assert_eq!(table.capacity(), (2, 1));
    for key in [key_v4(1, 1), key_v4(1, 2), key_v6(1, 1)] {
        assert_eq!(table.create(now, poor_hash(&key), &key, T1, &proof), Ok(()));
    }
    for key in [key_v4(1, 3), key_v6(1, 3)] {
        assert_eq!(table.create(now, poor_hash(&key), &key, T1, &proof), Err(NotCreated::Full));
    }
    let key = key_v6(1, 1);
    assert_eq!(table.create(now, poor_hash(&key), &key, T2, &proof), Err(NotCreated::Exists));
    let route = Route { target: T1.0, incarnation: T1.1, created: now, verified: now };
    assert_eq!(table.find(poor_hash(&key), &key), Some(route));
    assert_eq!(everything(&table, 10), [key_v4(1, 1), key_v4(1, 2), key].map(|key| (key, route)));
    assert_eq!(table.forget(poor_hash(&key), &key), Some(route));
    assert_eq!((table.len(), table.find(poor_hash(&key), &key)), (2, None));
    assert_eq!(table.create(now, poor_hash(&key_v6(9, 9)), &key_v6(9, 9), T1, &proof), Ok(()), "its room is free");
}

#[test]
fn addresses_of_two_families_have_no_entry() {
    let (mut table, proof) = (Vcrt::new(2, 2), proof());
    let mixed = EntryKey { flow: FlowKey { src: key_v6(1, 1).flow.src, ..key_v4(1, 1).flow }, peer: PeerId(1) };
    assert_eq!(table.create(Instant::ZERO, 1, &mixed, T1, &proof), Err(NotCreated::MixedFamilies));
    let mut found = [None; 4];
    table.find_burst(&[(1, mixed)], &mut found);
    assert_eq!((table.find(1, &mixed), table.forget(1, &mixed), found[0]), (None, None, None));
}

#[test]
fn peers_on_one_flow_are_told_apart_and_found_together() {
    let (mut table, proof, now) = (Vcrt::new(16, 16), proof(), Instant::from_secs(5));
    for (peer, target) in [(1, T1), (2, T2), (3, T1)] {
        let key = key_v4(peer, 7);
        table.create(now, poor_hash(&key), &key, target, &proof).unwrap();
    }
    let beside = key_v4(9, 13);
    assert_eq!(poor_hash(&beside), poor_hash(&key_v4(1, 7)), "same bucket and tag, another flow");
    table.create(now, poor_hash(&beside), &beside, T2, &proof).unwrap();
    let others = |peer| {
        let (key, mut others) = (key_v4(peer, 7), Vec::new());
        table.others_of(poor_hash(&key), &key, |key, route| others.push((key.peer.0, route.target.0)));
        others.sort_unstable();
        others
    };
    assert_eq!(others(1), [(2, 2), (3, 1)]);
    assert_eq!(others(4), [(1, 1), (2, 2), (3, 1)], "one that has no entry yet");
}

/// HOSTILE 41: full tables. Many peers with one inner address and port fall together; others are unharmed.
#[test]
fn hostile_41_peers_that_crowd_one_flow_are_refused_and_harm_nobody_else() {
    let (mut table, proof) = (Vcrt::new(1_000, 0), proof());
    let made = (0..1_000).take_while(|&peer| table.create(Instant::ZERO, 7, &key_v4(peer, 7), T1, &proof).is_ok());
    assert_eq!(made.count(), 80);
    assert_eq!(table.create(Instant::ZERO, 7, &key_v4(80, 7), T1, &proof), Err(NotCreated::Crowded));
    let other = key_v4(1, 8);
    assert_eq!(table.create(Instant::ZERO, 7 + 8, &other, T1, &proof), Ok(()));
    assert_eq!((table.len(), table.find(15, &other).is_some()), (81, true));
}

#[test]
fn an_entry_that_went_to_another_target_is_not_forgotten_for_the_first() {
    let (mut table, proof) = (Vcrt::new(4, 4), proof());
    let (key, hash) = (key_v4(1, 1), 5);
    assert_eq!(table.replace_target(Instant::from_secs(1), hash, &key, T2, &proof), None);
    assert!(table.is_empty(), "what is not there is not made by replacing it");
    table.create(Instant::from_secs(1), hash, &key, T1, &proof).unwrap();
    let before = table.replace_target(Instant::from_secs(9), hash, &key, T2, &proof).unwrap();
    assert_eq!((before.target, before.created), (T1.0, Instant::from_secs(1)));
    let after = table.find(hash, &key).unwrap();
    assert_eq!((after.target, after.incarnation, after.created), (T2.0, T2.1, Instant::from_secs(9)));
    assert_eq!(table.forget_of(hash, &key, T1.0), None);
    assert_eq!(table.forget_of(hash, &key, T2.0), Some(after));
    assert!(table.is_empty());
}

#[test]
fn an_entry_is_shown_soon_after_its_creation_and_then_at_long_intervals() {
    let (mut table, proof) = (Vcrt::new(3, 3), proof());
    let after = VerifyAfter::default();
    for key in [key_v4(1, 1), key_v6(1, 1)] {
        table.create(Instant::from_secs(10), poor_hash(&key), &key, T1, &proof).unwrap();
    }
    let mut shown_at = |millis: u64| {
        let mut shown = 0;
        table.sweep(100, Instant::from_millis(millis), after, poor_hash, |_, _| {
            shown += 1;
            Swept::Keep
        });
        shown
    };
    assert_eq!([9_000, 10_000, 11_999, 12_000, 12_000, 14_000].map(&mut shown_at), [0, 0, 0, 2, 0, 0]);
    assert_eq!([71_999, 72_000, 131_999, 200_000].map(&mut shown_at), [0, 2, 0, 2]);
}

#[test]
fn an_entry_that_is_asked_for_in_the_instant_of_its_creation_counts_as_asked() {
    let (mut table, proof, now) = (Vcrt::new(1, 0), proof(), Instant::from_secs(1));
    table.create(now, 1, &key_v4(1, 1), T1, &proof).unwrap();
    let after = VerifyAfter { creation: Duration::ZERO, verification: Duration::from_secs(60) };
    let mut shown = 0;
    for _ in 0..3 {
        table.sweep(1, now, after, poor_hash, |_, _| {
            shown += 1;
            Swept::Keep
        });
    }
    assert_eq!(shown, 1);
}

#[test]
fn a_sweep_looks_at_no_more_than_its_budget_and_comes_round() {
    let (mut table, proof) = (Vcrt::new(8, 4), proof());
    for port in 0..8 {
        table.create(Instant::ZERO, 1, &key_v4(1, port), T1, &proof).unwrap();
    }
    let after = VerifyAfter { creation: Duration::ZERO, verification: Duration::ZERO };
    let mut sweep = |budget| {
        let mut shown = Vec::new();
        table.sweep(
            budget,
            Instant::from_secs(1),
            after,
            |_| 1,
            |key, _| {
                shown.push(key.flow.src_port);
                if key.flow.src_port == 6 { Swept::Forget } else { Swept::Keep }
            },
        );
        shown
    };
    assert_eq!((sweep(5), sweep(5)), (vec![0, 1, 2, 3, 4], vec![5, 6, 7]));
    assert_eq!(sweep(1_000), [0, 1, 2, 3, 4, 5, 7], "not twice in one sweep, and 6 was forgotten");
    assert_eq!(table.len(), 7);
    let mut nothing = Vcrt::new(0, 0);
    nothing.sweep(10, Instant::ZERO, after, |_| 1, |_, _| Swept::Keep);
    assert_eq!((nothing.list(0, &mut Vec::with_capacity(1)), nothing.len()), (None, 0));
}

#[test]
fn a_large_table_is_listed_in_bounded_steps() {
    let mut table = Vcrt::new(10_000, 10_000);
    let key = key_v6(1, 1);
    table.create(Instant::ZERO, 1, &key, T1, &proof()).unwrap();
    let mut page = Vec::with_capacity(8);
    assert_eq!(table.list(0, &mut page), Some(LISTED_AT_ONCE));
    assert_eq!((table.list(usize::MAX, &mut page), page.len()), (None, 0));
    assert_eq!(everything(&table, 8).len(), 1);
}

#[derive(Debug, Clone)]
enum Step {
    Create(EntryKey, bool),
    Replace(EntryKey, bool),
    Forget(EntryKey),
    ForgetOf(EntryKey, bool),
    Sweep { budget: usize, forget_port: u16 },
}

fn keys() -> impl Strategy<Value = EntryKey> + Clone {
    (0..4_u64, 0..9_u16, any::<bool>())
        .prop_map(|(peer, port, v6)| if v6 { key_v6(peer, port) } else { key_v4(peer, port) })
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (keys(), any::<bool>()).prop_map(|(key, first)| Step::Create(key, first)),
        1 => (keys(), any::<bool>()).prop_map(|(key, first)| Step::Replace(key, first)),
        2 => keys().prop_map(Step::Forget),
        1 => (keys(), any::<bool>()).prop_map(|(key, first)| Step::ForgetOf(key, first)),
        1 => (0..40_usize, 0..9_u16).prop_map(|(budget, forget_port)| Step::Sweep { budget, forget_port }),
    ]
}

const CAPACITY: (usize, usize) = (20, 12);

/// The table as a plain map knows it, restamped as the sweep says.
#[derive(Default)]
struct Oracle(BTreeMap<(u64, FlowKey), Route>);

fn name(key: &EntryKey) -> (u64, FlowKey) {
    (key.peer.0, key.flow)
}

impl Oracle {
    fn room_for(&self, key: &EntryKey) -> bool {
        let is_v4 = key.flow.src.is_ipv4();
        let used = self.0.keys().filter(|(_, flow)| flow.src.is_ipv4() == is_v4).count();
        used < if is_v4 { CAPACITY.0 } else { CAPACITY.1 }
    }

    fn create(&mut self, now: Instant, key: &EntryKey, target: (MemberId, Incarnation)) -> Result<(), NotCreated> {
        if self.0.contains_key(&name(key)) {
            return Err(NotCreated::Exists);
        }
        if !self.room_for(key) {
            return Err(NotCreated::Full);
        }
        self.0.insert(name(key), Route { target: target.0, incarnation: target.1, created: now, verified: now });
        Ok(())
    }

    fn replace(&mut self, now: Instant, key: &EntryKey, target: (MemberId, Incarnation)) -> Option<Route> {
        let route = self.0.get_mut(&name(key))?;
        let after = Route { target: target.0, incarnation: target.1, created: now, verified: now };
        Some(core::mem::replace(route, after))
    }
}

fn sweep(table: &mut Vcrt, oracle: &mut Oracle, now: Instant, budget: usize, forget_port: u16) {
    let after = VerifyAfter { creation: Duration::from_secs(2), verification: Duration::from_secs(5) };
    table.sweep(budget, now, after, poor_hash, |key, route| {
        let known = oracle.0.get_mut(&name(key)).unwrap();
        assert_eq!(known, route);
        let patience = if route.verified == route.created { after.creation } else { after.verification };
        assert!(now.saturating_since(known.verified) >= patience, "shown too early");
        if key.flow.src_port == forget_port {
            oracle.0.remove(&name(key));
            return Swept::Forget;
        }
        known.verified = now;
        Swept::Keep
    });
    let is_due = |route: &Route| {
        let patience = if route.verified == route.created { after.creation } else { after.verification };
        now.saturating_since(route.verified) >= patience
    };
    if budget >= CAPACITY.0 + CAPACITY.1 {
        assert!(!oracle.0.values().any(is_due), "a whole round shows all that are due");
    }
}

fn take(table: &mut Vcrt, oracle: &mut Oracle, proof: &Authentic, now: Instant, step: &Step) {
    let target = |first: bool| if first { T1 } else { T2 };
    match step {
        Step::Create(key, first) => {
            let made = table.create(now, poor_hash(key), key, target(*first), proof);
            assert_eq!(made, oracle.create(now, key, target(*first)));
        }
        Step::Replace(key, first) => {
            let replaced = table.replace_target(now, poor_hash(key), key, target(*first), proof);
            assert_eq!(replaced, oracle.replace(now, key, target(*first)));
        }
        Step::Forget(key) => assert_eq!(table.forget(poor_hash(key), key), oracle.0.remove(&name(key))),
        Step::ForgetOf(key, first) => {
            let target = target(*first).0;
            let expected = oracle.0.get(&name(key)).copied().filter(|route| route.target == target);
            if expected.is_some() {
                oracle.0.remove(&name(key));
            }
            assert_eq!(table.forget_of(poor_hash(key), key, target), expected);
        }
        Step::Sweep { budget, forget_port } => sweep(table, oracle, now, *budget, *forget_port),
    }
}

/// Everything that can be asked is answered as the map answers it.
fn agree(table: &Vcrt, oracle: &Oracle) {
    assert_eq!(table.len(), oracle.0.len());
    let listed: BTreeMap<_, _> = everything(table, 5).into_iter().map(|(key, route)| (name(&key), route)).collect();
    assert_eq!(listed, oracle.0);
    let all = (0..4).flat_map(|peer| (0..9).flat_map(move |port| [key_v4(peer, port), key_v6(peer, port)]));
    let asked: Vec<_> = all.map(|key| (poor_hash(&key), key)).collect();
    let mut found = [None; 72];
    table.find_burst(&asked, &mut found);
    for ((hash, key), found) in asked.iter().zip(found) {
        let expected = oracle.0.get(&name(key)).copied();
        assert_eq!((table.find(*hash, key), found), (expected, expected));
        let mut others = BTreeMap::new();
        table.others_of(*hash, key, |key, route| assert!(others.insert(name(key), *route).is_none(), "told once"));
        let theirs = oracle.0.iter().filter(|((peer, flow), _)| *flow == key.flow && *peer != key.peer.0);
        assert_eq!(others, theirs.map(|(name, route)| (*name, *route)).collect());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn it_answers_as_a_plain_map_does(steps in prop::collection::vec((steps(), 0..3_u64), 1..120)) {
        let (mut table, mut oracle, proof) = (Vcrt::new(CAPACITY.0, CAPACITY.1), Oracle::default(), proof());
        let mut now = Instant::from_secs(1);
        for (step, seconds) in &steps {
            now += Duration::from_secs(*seconds);
            take(&mut table, &mut oracle, &proof, now, step);
        }
        agree(&table, &oracle);
    }
}
