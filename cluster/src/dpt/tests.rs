use super::*;
use core::net::Ipv4Addr;
use ipsec::time::Instant;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use wire::flow::{FlowKey, FlowSeed};

const ME: MemberId = MemberId(9);
const WEB: ServicePort = ServicePort { protocol: 6, port: 443 };
const NOBODY: &dyn Fn(MemberId) -> bool = &|_| false;
const STANDBY: Method = Method::HotStandby { switches_back: false };

fn dvipa() -> IpAddr {
    [203, 0, 113, 80].into()
}

fn target(member: u16, weight: u16) -> PortTarget {
    let weight = NonZeroU16::new(weight).unwrap();
    PortTarget { member: MemberId(member), is_ready: true, weight, active: 0, load: 0, report: 1 }
}

fn targets(weights: &[u16]) -> Vec<PortTarget> {
    (1..).zip(weights).map(|(member, weight)| target(member, *weight)).collect()
}

fn tables_of(table: PortTable, previous: Option<&Tables>) -> Tables {
    Tables::new(ME, vec![DvipaTable { address: dvipa(), ports: vec![table] }], previous).unwrap()
}

fn tables(method: Method, targets: Vec<PortTarget>) -> Tables {
    tables_of(PortTable::new(Some(WEB), method, targets), None)
}

fn chooser() -> Chooser {
    Chooser::new(64, FlowSeed::new([7; 16]))
}

fn flow_from(source: u32) -> FlowKey {
    let src = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + source));
    FlowKey { src, dst: dvipa(), protocol: 6, src_port: 40_000, dst_port: 443 }
}

/// The numbers of the targets of so many connections, each from another source.
fn chosen(chooser: &mut Chooser, tables: &Tables, count: u32) -> Vec<u16> {
    let choose = |source| chooser.choose(tables, Instant::ZERO, dvipa(), &flow_from(source), NOBODY).unwrap().0;
    (0..count).map(choose).collect()
}

fn counts(chosen: &[u16]) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    chosen.iter().for_each(|member| *counts.entry(*member).or_default() += 1);
    counts
}

#[test]
fn every_word_names_its_method_and_no_other_does() {
    for word in Method::words() {
        assert_eq!(word.parse::<Method>().unwrap().to_string(), word);
    }
    assert_eq!(Method::words().count(), 5);
    let error = "Round-Robin".parse::<Method>().unwrap_err().to_string();
    assert!(Method::words().all(|word| error.contains(word)) && error.contains("Round-Robin"), "{error}");
}

#[test]
fn a_port_is_found_by_its_own_table_or_by_that_of_every_port() {
    let named = PortTable::new(Some(WEB), Method::RoundRobin, targets(&[1]));
    let every = PortTable::new(None, Method::Weighted, targets(&[1]));
    let other: IpAddr = "2001:db8::1".parse().unwrap();
    let dvipas = vec![
        DvipaTable { address: other, ports: vec![named.clone()] },
        DvipaTable { address: dvipa(), ports: vec![named, every] },
    ];
    let tables = Tables::new(ME, dvipas, None).unwrap();
    assert_eq!(tables.port(dvipa(), WEB).unwrap().method, Method::RoundRobin);
    assert_eq!(tables.port(dvipa(), ServicePort { protocol: 17, ..WEB }).unwrap().method, Method::Weighted);
    assert!(tables.offers(dvipa(), 1, 0) && tables.offers(other, 6, 443));
    assert!(!tables.offers(other, 17, 443) && !tables.offers(other, 6, 80));
    assert!(!tables.offers([203, 0, 113, 81].into(), 6, 443) && !Tables::empty(ME).offers(dvipa(), 6, 443));
}

#[test]
fn tables_that_contradict_themselves_are_refused() {
    let port = || PortTable::new(Some(WEB), Method::RoundRobin, targets(&[1]));
    let table = |ports| DvipaTable { address: dvipa(), ports };
    let refused = |dvipas| Tables::new(ME, dvipas, None).unwrap_err();
    assert_eq!(refused(vec![table(vec![]), table(vec![])]), Invalid::DvipaTwice(dvipa()));
    assert_eq!(refused(vec![table(vec![port(), port()])]), Invalid::PortTwice(dvipa()));
    let twice = PortTable { targets: vec![target(3, 1), target(4, 1), target(3, 1)], ..port() };
    assert_eq!(refused(vec![table(vec![twice])]), Invalid::TargetTwice(dvipa(), MemberId(3)));
    let many = PortTable { targets: targets(&[1; TARGETS_MAX + 1]), ..port() };
    assert_eq!(refused(vec![table(vec![many])]), Invalid::TooManyTargets(dvipa(), TARGETS_MAX + 1));
    let named = |port| PortTable::new(Some(ServicePort { protocol: 6, port }), Method::RoundRobin, vec![]);
    let ports: Vec<_> = (0..=PORTS_MAX as u16).map(named).collect();
    assert_eq!(refused(vec![table(ports)]), Invalid::TooManyPorts(PORTS_MAX + 1));
}

#[test]
fn round_robin_takes_one_after_the_other_and_passes_over_who_is_not_ready() {
    let mut chooser = chooser();
    let mut ports = targets(&[1, 9, 1]);
    assert_eq!(chosen(&mut chooser, &tables(Method::RoundRobin, ports.clone()), 7), [1, 2, 3, 1, 2, 3, 1]);
    ports[1].is_ready = false;
    assert_eq!(chosen(&mut chooser, &tables(Method::RoundRobin, ports.clone()), 3), [3, 1, 3]);
    ports.push(target(4, 1));
    ports[1].is_ready = true;
    assert_eq!(chosen(&mut chooser, &tables(Method::RoundRobin, ports), 5), [4, 1, 2, 3, 4]);
}

#[test]
fn weighted_spreads_each_ones_share() {
    let tables = tables(Method::Weighted, targets(&[5, 1, 1]));
    assert_eq!(chosen(&mut chooser(), &tables, 7), [1, 1, 2, 1, 3, 1, 1]);
}

/// What is owed under the old weights is a share of a connection, not a debt of thousands.
#[test]
fn new_weights_take_effect_at_once() {
    let mut chooser = chooser();
    let _ = chosen(&mut chooser, &tables(Method::Weighted, targets(&[60_000, 59_999, 1])), 50_001);
    let after = chosen(&mut chooser, &tables(Method::Weighted, targets(&[1, 1, 1])), 9);
    assert!(counts(&after).values().all(|count| (2..=4).contains(count)), "{after:?}");
}

#[test]
fn weighted_active_levels_connections_by_weight_from_reports_and_what_was_assigned_since() {
    let mut chooser = chooser();
    let mut ports = targets(&[1, 2]);
    (ports[0].active, ports[1].active) = (10, 2);
    let even_out = chosen(&mut chooser, &tables(Method::WeightedActive, ports.clone()), 18);
    assert_eq!(even_out, [2; 18], "up to twice as many as the first has");
    let then = chosen(&mut chooser, &tables(Method::WeightedActive, ports.clone()), 9);
    assert_eq!(counts(&then), BTreeMap::from([(1, 3), (2, 6)]));
    // The same report again changes nothing; a new one says that all are gone.
    assert_eq!(counts(&chosen(&mut chooser, &tables(Method::WeightedActive, ports.clone()), 3))[&2], 2);
    (ports[1].active, ports[1].report) = (0, 2);
    assert_eq!(counts(&chosen(&mut chooser, &tables(Method::WeightedActive, ports), 20)), BTreeMap::from([(2, 20)]));
}

#[test]
fn equals_take_turns_under_weighted_active() {
    let tables = tables(Method::WeightedActive, targets(&[1, 1, 1]));
    assert_eq!(chosen(&mut chooser(), &tables, 6), [1, 2, 3, 1, 2, 3]);
    // Every new report sets the counts back: the first one must not get them all.
    let mut chooser = chooser();
    let mut first_after_report = |report: u64| {
        let mut ports = targets(&[1, 1, 1]);
        ports.iter_mut().for_each(|target| target.report = report);
        chosen(&mut chooser, &super::tests::tables(Method::WeightedActive, ports), 1)[0]
    };
    assert_eq!([2, 3, 4, 5].map(&mut first_after_report), [1, 2, 3, 1]);
}

#[test]
fn load_based_goes_by_what_is_free() {
    let loaded = |loads: [u16; 3]| {
        let mut ports = targets(&[1, 1, 2]);
        ports.iter_mut().zip(loads).for_each(|(target, load)| target.load = load);
        counts(&chosen(&mut chooser(), &tables(Method::LoadBased, ports), 100))
    };
    assert_eq!(loaded([200, 400, 700]), BTreeMap::from([(1, 40), (2, 30), (3, 30)]));
    assert_eq!(loaded([1_000, 500, 1_000]), BTreeMap::from([(2, 100)]));
    assert_eq!(loaded([1_000, 1_000, 65_535]), BTreeMap::from([(1, 25), (2, 25), (3, 50)]), "none is free");
}

/// The hot one as each of these states of readiness follows the one before.
fn hot_through(method: Method, readiness: &[[bool; 3]]) -> Vec<u16> {
    let mut previous: Option<Tables> = None;
    let mut hot = Vec::new();
    for ready in readiness {
        let mut ports = targets(&[1, 1, 1]);
        ports.iter_mut().zip(ready).for_each(|(target, ready)| target.is_ready = *ready);
        let tables = tables_of(PortTable::new(Some(WEB), method, ports), previous.as_ref());
        let mut cores = [chooser(), chooser()];
        let chosen = cores.each_mut().map(|core| core.choose(&tables, Instant::ZERO, dvipa(), &flow_from(1), NOBODY));
        assert_eq!(chosen[0], chosen[1], "a core that chose nothing meanwhile agrees");
        hot.push(chosen[0].map_or(0, |member| member.0));
        previous = Some(tables);
    }
    hot
}

#[test]
fn a_hot_standby_serves_and_switches_back_if_told_so() {
    let (all, first_lost, first_two_lost) = ([true; 3], [false, true, true], [false, false, true]);
    let history = [all, first_lost, all, first_two_lost, first_lost, [false; 3], all];
    assert_eq!(hot_through(Method::HotStandby { switches_back: true }, &history), [1, 2, 1, 3, 2, 0, 1]);
    assert_eq!(hot_through(STANDBY, &history), [1, 2, 2, 3, 3, 0, 1]);
}

#[test]
fn a_hot_one_that_is_excluded_gives_way_to_the_next_for_that_once() {
    let tables = tables(STANDBY, targets(&[1, 1, 1]));
    let mut chooser = chooser();
    let mut choose = |excluded: u16| {
        chooser.choose(&tables, Instant::ZERO, dvipa(), &flow_from(1), &|member| member.0 == excluded).unwrap().0
    };
    assert_eq!([0, 1, 2, 0].map(&mut choose), [1, 2, 1, 1]);
}

#[test]
fn local_first_goes_before_everything_else() {
    let mut ports = targets(&[1, 1]);
    ports.push(target(ME.0, 1));
    for method in [Method::RoundRobin, Method::Weighted, Method::WeightedActive, Method::LoadBased, STANDBY] {
        let mut table = PortTable::new(Some(WEB), method, ports.clone());
        (table.is_local_first, table.affinity) = (true, Some(Duration::from_secs(9)));
        let tables_now = tables_of(table.clone(), None);
        assert_eq!(chosen(&mut chooser(), &tables_now, 3), [ME.0; 3]);
        let elsewhere = chooser().choose(&tables_now, Instant::ZERO, dvipa(), &flow_from(1), &|member| member == ME);
        assert!(elsewhere.is_ok_and(|member| member != ME));
        table.targets[2].is_ready = false;
        assert!(!chosen(&mut chooser(), &tables_of(table, None), 3).contains(&ME.0), "{method}");
    }
}

fn with_affinity(targets: Vec<PortTarget>) -> Tables {
    let affinity = Some(Duration::from_secs(60));
    tables_of(PortTable { affinity, ..PortTable::new(Some(WEB), Method::Weighted, targets) }, None)
}

#[test]
fn sources_are_shared_by_weight_and_all_cores_agree() {
    let tables = with_affinity(targets(&[1, 2, 3]));
    let (first, second) = (chosen(&mut chooser(), &tables, 6_000), chosen(&mut chooser(), &tables, 6_000));
    assert_eq!(first, second);
    for (member, count) in counts(&first) {
        let share = usize::from(member) * 1_000;
        assert!(count.abs_diff(share) < 150, "{member} has {count}");
    }
    let mut other_seed = Chooser::new(64, FlowSeed::new([8; 16]));
    assert_ne!(chosen(&mut other_seed, &tables, 6_000), first, "nobody outside can tell where a source goes");
}

#[test]
fn a_new_target_takes_only_what_it_gains() {
    let before = chosen(&mut chooser(), &with_affinity(targets(&[1, 1, 1])), 3_000);
    let after = chosen(&mut chooser(), &with_affinity(targets(&[1, 1, 1, 1])), 3_000);
    let moved = before.iter().zip(&after).filter(|(before, after)| before != after);
    assert!(moved.clone().all(|(_, after)| *after == 4));
    assert!((600..900).contains(&moved.count()));
}

#[test]
fn a_source_keeps_its_target_until_it_has_been_quiet_for_the_timeout() {
    let (few, many) = (with_affinity(targets(&[1])), with_affinity(targets(&[1; 8])));
    let mut chooser = chooser();
    let at = |chooser: &mut Chooser, tables: &Tables, seconds| {
        chooser.choose(tables, Instant::from_secs(seconds), dvipa(), &flow_from(5), NOBODY).unwrap().0
    };
    let home = at(&mut self::chooser(), &many, 0);
    assert_ne!(home, 1, "a source that would go elsewhere now");
    assert_eq!(at(&mut chooser, &few, 0), 1);
    assert_eq!([59, 118, 177].map(|seconds| at(&mut chooser, &many, seconds)), [1, 1, 1]);
    assert_eq!(at(&mut chooser, &many, 237), home);
}

#[test]
fn a_source_comes_home_after_an_exclusion_and_leaves_when_its_target_is_lost() {
    let mut ports = targets(&[1; 4]);
    let now = with_affinity(ports.clone());
    let mut chooser = chooser();
    let mut choose = |tables: &Tables, excluded: u16| {
        let exclude = |member: MemberId| member.0 == excluded;
        chooser.choose(tables, Instant::ZERO, dvipa(), &flow_from(5), &exclude).unwrap().0
    };
    let home = choose(&now, 0);
    let elsewhere = choose(&now, home);
    assert_ne!(elsewhere, home);
    assert_eq!(choose(&now, 0), home);
    ports[usize::from(home) - 1].is_ready = false;
    assert_eq!(choose(&with_affinity(ports), 0), elsewhere, "the next best, as for any core");
    assert_eq!(choose(&now, 0), elsewhere, "and there it stays, though its first choice is back");
}

#[test]
fn the_memory_of_sources_is_bounded_and_forgets_the_oldest() {
    let few = with_affinity(targets(&[1]));
    let mut chooser = Chooser::new(4, FlowSeed::new([7; 16]));
    for source in 0..1_000 {
        let now = Instant::from_millis(u64::from(source));
        chooser.choose(&few, now, dvipa(), &flow_from(source), NOBODY).unwrap();
    }
    let many = with_affinity(targets(&[1; 30]));
    let at = |chooser: &mut Chooser, source| {
        chooser.choose(&many, Instant::from_secs(2), dvipa(), &flow_from(source), NOBODY).unwrap().0
    };
    let kept = (996..1_000).filter(|source| at(&mut chooser, *source) == 1).count();
    assert_eq!(kept, 4, "the last four");
    let forgotten = (0..200).filter(|source| at(&mut chooser, *source) == 1).count();
    assert!(forgotten < 30, "{forgotten} of 200 go to the first of thirty by chance");
    let mut without = Chooser::new(0, FlowSeed::new([7; 16]));
    assert_eq!(chosen(&mut without, &few, 3), [1; 3]);
}

#[test]
fn what_is_remembered_of_ports_is_bounded() {
    let table = |address: u8, port: u16| {
        let port = PortTable::new(Some(ServicePort { protocol: 6, port }), Method::RoundRobin, targets(&[1, 1]));
        DvipaTable { address: [203, 0, 113, address].into(), ports: vec![port] }
    };
    let mut chooser = chooser();
    for port in 0..3 * PORTS_MAX as u16 {
        let tables = Tables::new(ME, vec![table(80, port), table(81, 1)], None).unwrap();
        for (address, dst_port) in [(80, port), (81, 1)] {
            let flow = FlowKey { dst_port, ..flow_from(1) };
            let address = [203, 0, 113, address].into();
            let chosen = chooser.choose(&tables, Instant::ZERO, address, &flow, NOBODY).unwrap().0;
            let turn = if dst_port == port && address == dvipa() { 1 } else { 1 + port % 2 };
            assert_eq!(chosen, turn, "what is still in the tables is not forgotten");
        }
    }
    assert!(chooser.state_count() <= PORTS_MAX);
}

#[test]
fn each_way_of_having_no_target_has_its_name() {
    let mut ports = targets(&[1, 1]);
    let choose = |ports: &[PortTarget], flow: &FlowKey, excluded: bool| {
        let tables = tables(Method::Weighted, ports.to_vec());
        chooser().choose(&tables, Instant::ZERO, dvipa(), flow, &|_| excluded)
    };
    let udp = FlowKey { protocol: 17, ..flow_from(1) };
    assert_eq!(choose(&ports, &udp, false), Err(NoTarget::NotOffered));
    assert_eq!(choose(&ports, &flow_from(1), true), Err(NoTarget::AllExcluded));
    ports.iter_mut().for_each(|target| target.is_ready = false);
    assert_eq!(choose(&ports, &flow_from(1), true), Err(NoTarget::NoneReady));
    assert_eq!(choose(&[], &flow_from(1), false), Err(NoTarget::NoneReady));
}

prop_compose! {
    fn any_target()(
        member in 1..7_u16, is_ready in prop::bool::weighted(0.7), weight in 1..=u16::MAX,
        active: u32, load: u16, report in 0..3_u64,
    ) -> PortTarget {
        PortTarget { is_ready, active, load, report, ..target(member, weight) }
    }
}

fn any_method() -> impl Strategy<Value = Method> {
    prop::sample::select(Method::words().map(|word| word.parse().unwrap()).chain([STANDBY]).collect::<Vec<_>>())
}

prop_compose! {
    fn any_table()(
        method in any_method(), found in prop::collection::vec(any_target(), 0..6),
        affinity in prop::option::of((1..100_u64).prop_map(Duration::from_secs)), is_local_first: bool, me in 1..7_u16,
    ) -> (u16, PortTable) {
        let mut seen = BTreeSet::new();
        let targets = found.into_iter().filter(|target| seen.insert(target.member)).collect();
        (me, PortTable { affinity, is_local_first, ..PortTable::new(Some(WEB), method, targets) })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Through any history of tables: only who is ready and not excluded, always somebody if there is one, and two cores
    /// with the same past say the same.
    #[test]
    fn only_who_may_be_chosen_is_and_alike_everywhere(
        history in prop::collection::vec((any_table(), prop::collection::vec((0..9_u32, 0..128_u8, 0..50_u64), 1..20)), 1..6),
    ) {
        let mut cores = [chooser(), chooser()];
        let (mut now, mut previous) = (Instant::ZERO, None);
        for ((me, table), questions) in history {
            let dvipas = vec![DvipaTable { address: dvipa(), ports: vec![table.clone()] }];
            let tables = Tables::new(MemberId(me), dvipas, previous.as_ref()).unwrap();
            for (source, excluded, seconds) in questions {
                now += Duration::from_secs(seconds);
                let exclude = |member: MemberId| excluded >> member.0 & 1 == 1;
                let chosen = cores.each_mut().map(|core| core.choose(&tables, now, dvipa(), &flow_from(source), &exclude));
                prop_assert_eq!(chosen[0], chosen[1]);
                let ready = || table.targets.iter().filter(|target| target.is_ready).map(|target| target.member);
                let may: BTreeSet<_> = ready().filter(|member| !exclude(*member)).collect();
                match chosen[0] {
                    Ok(member) => prop_assert!(may.contains(&member)),
                    Err(NoTarget::NoneReady) => prop_assert_eq!(ready().count(), 0),
                    Err(NoTarget::AllExcluded) => prop_assert!(ready().count() > 0 && may.is_empty()),
                    Err(NoTarget::NotOffered) => prop_assert!(false, "it is offered"),
                }
                if table.is_local_first && may.contains(&MemberId(me)) {
                    prop_assert_eq!(chosen[0], Ok(MemberId(me)));
                }
            }
            previous = Some(tables);
        }
    }

    #[test]
    fn weights_are_kept_within_one_over_each_cycle(weights in prop::collection::vec(1..40_u16, 1..7)) {
        let (tables, mut chooser) = (tables(Method::Weighted, targets(&weights)), chooser());
        let cycle: u32 = weights.iter().map(|weight| u32::from(*weight)).sum();
        for _ in 0..3 {
            let counts = counts(&chosen(&mut chooser, &tables, cycle));
            for (member, weight) in (1..).zip(&weights) {
                prop_assert!(counts.get(&member).copied().unwrap_or(0).abs_diff(usize::from(*weight)) <= 1);
            }
        }
    }

    #[test]
    fn a_source_with_a_living_target_stays(sources in prop::collection::vec(0..20_u32, 1..60), weights in prop::collection::vec(1..9_u16, 1..7)) {
        let tables = with_affinity(targets(&weights));
        let (mut chooser, mut homes) = (chooser(), BTreeMap::new());
        for source in sources {
            let chosen = chooser.choose(&tables, Instant::ZERO, dvipa(), &flow_from(source), NOBODY).unwrap();
            prop_assert_eq!(*homes.entry(source).or_insert(chosen), chosen);
        }
    }
}
