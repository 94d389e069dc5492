use crate::iv::{IvGenerator, SenderNumber};
use crate::lifetime::Limits;
use crate::outbound::{GRANTS_MAX, GrantRefused, OutboundError, OutboundSa, OutboundShared, OuterPolicy, esp_overhead};
use crate::sa::{Direction, SaParameters};
use crate::testing::{BORN_AT, ivs, parameters, ring};
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::thread;

const PAYLOAD_LEN: usize = 20;

fn changed(change: impl Fn(&mut SaParameters)) -> SaParameters {
    let mut parameters = parameters(Direction::Outbound);
    change(&mut parameters);
    parameters
}

/// An SA of a cluster, with a lifesize that does not get in the way.
fn shared(esn: bool) -> Arc<OutboundShared> {
    let shared = OutboundShared::new_granted(changed(|sa| sa.esn = esn), ring(), BORN_AT, 1 << 20).unwrap();
    shared.lifesize().raise(u64::MAX, u64::MAX);
    shared
}

fn granted(esn: bool) -> OutboundSa {
    OutboundSa::granted(shared(esn), OuterPolicy::default())
}

/// One packet's number, and whether it was said to be soft.
fn send_by(sa: &mut OutboundSa, ivs: &mut IvGenerator) -> Result<(u64, bool), OutboundError> {
    let room = esp_overhead(PAYLOAD_LEN);
    let mut packet = vec![0; room.before + PAYLOAD_LEN + room.after];
    let sealed = sa.seal(ivs, &mut packet, PAYLOAD_LEN, 6)?;
    assert_eq!(packet[4..8], (sealed.sequence as u32).to_be_bytes());
    Ok((sealed.sequence, sealed.soft_reached))
}

fn send(sa: &mut OutboundSa) -> Result<u64, OutboundError> {
    send_by(sa, &mut ivs()).map(|(sequence, _)| sequence)
}

#[test]
fn no_number_at_or_above_the_mark_is_used() {
    let shared = shared(false);
    let mut sa = OutboundSa::new(shared.clone(), 1, OuterPolicy::default());
    assert_eq!((send(&mut sa), shared.mark()), (Err(OutboundError::MarkReached), 0));
    for (raised, mark, sent) in [(3, 3, 2), (2, 3, 0), (3, 3, 0), (7, 7, 4)] {
        shared.raise_mark(raised);
        assert_eq!((shared.mark(), sa.numbers_left()), (mark, sent));
        for _ in 0..sent {
            assert!(send(&mut sa).unwrap() < mark);
        }
        assert_eq!((send(&mut sa), sa.next_sequence(), sa.numbers_left()), (Err(OutboundError::MarkReached), mark, 0));
    }
    assert_eq!((sa.counters().packets, sa.counters().refused), (6, 5));
}

#[test]
fn outside_clusters_there_is_no_mark() {
    let shared = OutboundShared::new(parameters(Direction::Outbound), ring(), BORN_AT).unwrap();
    assert_eq!(shared.mark(), u64::MAX);
    let mut sa = OutboundSa::new(shared, 1, OuterPolicy::default());
    assert_eq!((send(&mut sa), sa.is_numbered_here()), (Ok(1), true));
}

#[test]
fn a_mark_beyond_the_last_number_makes_no_more_of_them() {
    let shared = shared(false);
    shared.raise_mark(u64::MAX);
    let mut sa = OutboundSa::new(shared, (1 << 32) - 1, OuterPolicy::default());
    assert_eq!(sa.numbers_left(), 1);
    assert_eq!(send(&mut sa), Ok((1 << 32) - 1));
    assert_eq!((send(&mut sa), sa.numbers_left()), (Err(OutboundError::SequenceExhausted), 0));
}

#[test]
fn granted_numbers_are_used_in_order_and_the_oldest_first() {
    let mut sa = granted(false);
    assert_eq!((send(&mut sa), sa.next_sequence()), (Err(OutboundError::NoNumber), 1));
    for (first, count) in [(10, 2), (12, 1), (100, 3)] {
        assert_eq!(sa.grant(first, count), Ok(()));
    }
    assert_eq!((sa.numbers_left(), sa.next_sequence(), sa.is_numbered_here()), (6, 10, false));
    let sent: Vec<_> = (0..7).map(|_| (sa.next_sequence(), send(&mut sa))).collect();
    let expected: Vec<_> = [10, 11, 12, 100, 101, 102].map(|number| (number, Ok(number))).to_vec();
    assert_eq!(sent[..6], expected);
    assert_eq!(sent[6], (103, Err(OutboundError::NoNumber)));
    assert_eq!((sa.grant(103, 1), send(&mut sa)), (Ok(()), Ok(103)));
}

#[test]
fn a_grant_that_comes_twice_or_was_overtaken_or_says_nonsense_is_refused() {
    let mut sa = granted(false);
    assert_eq!(sa.grant(50, 10), Ok(()));
    for (first, count, taken) in [(50, 10, 59), (55, 10, 59), (1, 5, 59), (59, 1, 59)] {
        assert_eq!(sa.grant(first, count), Err(GrantRefused::Behind { first, taken }));
    }
    for (first, count) in [(60, 0), (0, 5), (u64::MAX, 1), (u64::MAX, 2), (60, 1 << 32), ((1 << 32) - 5, 6)] {
        assert_eq!(sa.grant(first, count), Err(GrantRefused::NoNumbers), "{first}, {count}");
    }
    assert_eq!(sa.grant((1 << 32) - 5, 5), Ok(()), "up to the last there is");
    assert_eq!(sa.numbers_left(), 15);
    let mut own = OutboundSa::new(shared(false), 1, OuterPolicy::default());
    assert_eq!(own.grant(5, 5), Err(GrantRefused::NumberedHere));
}

#[test]
fn as_many_grants_as_were_promised_are_held() {
    let mut sa = granted(true);
    for round in 0..10 {
        // One is held over from the round before, half used; at the end all are used up but lie there still.
        for first in (0..).map(|at| 1_000 * (round + 1) + at * 10) {
            match sa.grant(first, 2) {
                Ok(()) => {}
                Err(refused) => {
                    assert_eq!(refused, GrantRefused::Full);
                    break;
                }
            }
        }
        assert_eq!(sa.numbers_left() / 2, GRANTS_MAX as u64, "round {round}");
        for _ in 0..2 * GRANTS_MAX - 1 {
            assert!(send(&mut sa).is_ok());
        }
        if round % 2 == 0 {
            assert!(send(&mut sa).is_ok());
        } else {
            sa.abandon_grants();
        }
    }
}

#[test]
fn abandoned_numbers_never_come_back() {
    let mut sa = granted(false);
    sa.grant(10, 5).unwrap();
    sa.grant(20, 5).unwrap();
    assert_eq!(send(&mut sa), Ok(10));
    sa.abandon_grants();
    assert_eq!((send(&mut sa), sa.numbers_left(), sa.next_sequence()), (Err(OutboundError::NoNumber), 0, 25));
    assert_eq!(sa.grant(20, 5), Err(GrantRefused::Behind { first: 20, taken: 24 }));
    assert_eq!((sa.grant(25, 1), send(&mut sa)), (Ok(()), Ok(25)));
    let mut own = OutboundSa::new(shared(false), 7, OuterPolicy::default());
    own.abandon_grants();
    assert!(own.is_numbered_here() && own.next_sequence() == 7, "what is numbered here has nothing to abandon");
}

#[test]
fn an_sa_goes_over_to_grants_and_back_without_a_number_twice() {
    let shared = shared(false);
    shared.raise_mark(1_000);
    let mut sa = OutboundSa::new(shared.clone(), 1, OuterPolicy::default());
    assert_eq!([send(&mut sa), send(&mut sa)], [Ok(1), Ok(2)]);
    sa.wait_for_grants();
    assert_eq!(send(&mut sa), Err(OutboundError::NoNumber), "the mark is for others now");
    assert_eq!(sa.grant(2, 5), Err(GrantRefused::Behind { first: 2, taken: 2 }));
    sa.grant(2_000, 5).unwrap();
    assert_eq!(send(&mut sa), Ok(2_000), "who grants has a mark of its own");
    sa.wait_for_grants();
    assert_eq!(send(&mut sa), Ok(2_001), "told again");
    sa.start_at(100);
    assert_eq!((send(&mut sa), sa.next_sequence()), (Err(OutboundError::MarkReached), 2_005));
    shared.raise_mark(u64::MAX);
    assert_eq!(send(&mut sa), Ok(2_005), "above all that was granted");
    sa.start_at(1);
    assert_eq!(send(&mut sa), Ok(2_006));
    sa.start_at(5_000);
    assert_eq!((send(&mut sa), sa.is_numbered_here()), (Ok(5_000), true));
}

#[test]
fn half_of_the_short_numbers_is_soft_said_once_by_a_packet_that_leaves() {
    const SOFT: u64 = 1 << 31;
    let shared = shared(false);
    shared.raise_mark(SOFT + 100);
    let mut sa = OutboundSa::new(shared, SOFT - 1, OuterPolicy::default());
    let mut stranger = IvGenerator::new(SenderNumber(0));
    assert_eq!(send_by(&mut sa, &mut ivs()), Ok((SOFT - 1, false)));
    assert_eq!(send_by(&mut sa, &mut stranger), Err(OutboundError::SenderTooFar));
    assert_eq!(send_by(&mut sa, &mut IvGenerator::standing_at(BORN_AT, 1 << 48)), Err(OutboundError::IvExhausted));
    let sent: Vec<_> = (0..3).map(|_| send_by(&mut sa, &mut ivs()).unwrap()).collect();
    assert_eq!(sent, [(SOFT, true), (SOFT + 1, false), (SOFT + 2, false)]);
    let mut by_grant = granted(false);
    by_grant.grant(SOFT - 1, 2).unwrap();
    by_grant.grant(SOFT + 50, 2).unwrap();
    let sent: Vec<_> = (0..4).map(|_| send_by(&mut by_grant, &mut ivs()).unwrap()).collect();
    assert_eq!(sent, [(SOFT - 1, false), (SOFT, true), (SOFT + 50, false), (SOFT + 51, false)]);
    let mut extended = granted(true);
    extended.grant(SOFT, 1).unwrap();
    assert_eq!(send_by(&mut extended, &mut ivs()), Ok((SOFT, false)));
}

#[test]
fn what_the_lifesize_refuses_costs_no_number() {
    let limited = changed(|sa| sa.lifetime.packets = Limits { soft: None, hard: Some(2) });
    let mut sa = OutboundSa::new(OutboundShared::new(limited, ring(), BORN_AT).unwrap(), 1, OuterPolicy::default());
    let sent = [(); 3].map(|()| send(&mut sa));
    assert_eq!(sent, [Ok(1), Ok(2), Err(OutboundError::HardLimit)]);
    assert_eq!(sa.next_sequence(), 3);
    let ungranted = OutboundShared::new_granted(changed(|_| ()), ring(), BORN_AT, 100).unwrap();
    ungranted.raise_mark(10);
    let mut sa = OutboundSa::new(ungranted.clone(), 1, OuterPolicy::default());
    assert_eq!(send(&mut sa), Err(OutboundError::Ungranted));
    ungranted.lifesize().raise(PAYLOAD_LEN as u64, 5);
    assert_eq!([send(&mut sa), send(&mut sa)], [Ok(1), Err(OutboundError::Ungranted)]);
}

#[test]
fn a_mark_that_rises_while_packets_leave_is_never_passed() {
    let shared = shared(true);
    thread::scope(|scope| {
        let raising = scope.spawn(|| {
            (1..400).for_each(|at| {
                shared.raise_mark(at * 5);
                thread::yield_now();
            });
        });
        let mut sa = OutboundSa::new(shared.clone(), 1, OuterPolicy::default());
        let mut expected = 1;
        while !raising.is_finished() || expected < 399 * 5 {
            match send(&mut sa) {
                Ok(sequence) => {
                    assert!(sequence == expected && sequence < shared.mark());
                    expected += 1;
                }
                Err(error) => assert_eq!(error, OutboundError::MarkReached),
            }
        }
        assert_eq!(send(&mut sa), Err(OutboundError::MarkReached));
    });
}

/// What may happen to an SA's numbers.
#[derive(Clone, Copy, Debug)]
enum Event {
    Send,
    Grant(u64, u64),
    Mark(u64),
    StartAt(u64),
    Wait,
    Abandon,
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => Just(Event::Send),
        5 => (0_u64..30, 0_u64..6).prop_map(|(ahead, count)| Event::Grant(ahead, count)),
        3 => (0_u64..30).prop_map(Event::Mark),
        1 => (0_u64..40).prop_map(Event::StartAt),
        1 => Just(Event::Wait),
        1 => Just(Event::Abandon),
    ]
}

/// An SA's numbers as one reads the rules: what may be used, one by one.
#[derive(Default)]
struct Oracle {
    is_own: bool,
    mark: u64,
    used: BTreeSet<u64>,
    granted: Vec<Vec<u64>>,
    /// Nothing below is used any more.
    from: u64,
}

impl Oracle {
    fn next(&mut self) -> Option<u64> {
        self.granted.retain(|grant| !grant.is_empty());
        match self.is_own {
            true => Some(self.from).filter(|next| *next < self.mark),
            false => self.granted.first().map(|grant| grant[0]),
        }
    }

    fn send(&mut self) -> Option<u64> {
        let next = self.next()?;
        if !self.is_own {
            self.granted[0].remove(0);
        }
        self.from = self.from.max(next + 1);
        assert!(self.used.insert(next), "{next} was used twice");
        Some(next)
    }

    fn grant(&mut self, first: u64, count: u64) -> bool {
        self.next();
        let highest = self.granted.last().map_or(self.from, |grant| grant[grant.len() - 1] + 1);
        let takes = !self.is_own && first > 0 && count > 0 && first >= highest && self.granted.len() < GRANTS_MAX;
        if takes {
            self.granted.push((first..first + count).collect());
        }
        takes
    }

    fn give_up(&mut self) {
        self.from = self.granted.drain(..).flatten().last().map_or(self.from, |last| self.from.max(last + 1));
    }
}

proptest! {
    #[test]
    fn numbers_agree_with_the_oracle_whatever_happens(esn: bool, starts_own: bool, script in prop::collection::vec(events(), 1..150)) {
        let shared = shared(esn);
        let mut sa = match starts_own {
            true => OutboundSa::new(shared.clone(), 1, OuterPolicy::default()),
            false => OutboundSa::granted(shared.clone(), OuterPolicy::default()),
        };
        let mut oracle = Oracle { is_own: starts_own, from: 1, ..Oracle::default() };
        let mut base = 0_u64;
        for event in script {
            match event {
                Event::Send => {
                    let (next, left) = (sa.next_sequence(), sa.numbers_left());
                    let (expected, sent) = (oracle.send(), send(&mut sa));
                    prop_assert_eq!(sent.ok(), expected);
                    prop_assert!(expected.is_none_or(|sent| sent == next));
                    prop_assert_eq!(expected.is_some(), left > 0);
                    let why = if oracle.is_own { OutboundError::MarkReached } else { OutboundError::NoNumber };
                    prop_assert!(sent.is_ok() || sent == Err(why));
                    base = base.max(sa.next_sequence());
                }
                Event::Grant(ahead, count) => {
                    let first = (base + ahead).saturating_sub(3);
                    prop_assert_eq!(sa.grant(first, count).is_ok(), oracle.grant(first, count), "{} {}", first, count);
                    base = base.max(first + count);
                }
                Event::Mark(ahead) => {
                    let mark = (base + ahead).saturating_sub(8);
                    shared.raise_mark(mark);
                    oracle.mark = oracle.mark.max(mark);
                }
                Event::StartAt(ahead) => {
                    let from = (base + ahead).saturating_sub(20);
                    sa.start_at(from);
                    oracle.give_up();
                    (oracle.is_own, oracle.from) = (true, oracle.from.max(from));
                }
                Event::Wait => {
                    sa.wait_for_grants();
                    oracle.is_own = false;
                }
                Event::Abandon => {
                    sa.abandon_grants();
                    if !oracle.is_own {
                        oracle.give_up();
                    }
                }
            }
        }
    }
}
