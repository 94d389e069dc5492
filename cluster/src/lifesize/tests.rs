use super::*;
use crate::id::{Incarnation, MemberId};
use core::time::Duration;
use ipsec::lifetime::TimeLimits;
use ipsec::time::Instant;
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const REPEAT: Duration = Duration::from_millis(500);
const A: MemberId = MemberId(1);
const B: MemberId = MemberId(2);
const ONE: Incarnation = Incarnation(1);
const TWO: Incarnation = Incarnation(2);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn lifetime(soft: u64, hard: u64) -> Lifetime {
    Lifetime { bytes: Limits { soft: Some(soft), hard: Some(hard) }, ..Lifetime::NONE }
}

fn bytes(bytes: u64) -> Amount {
    Amount { bytes, packets: 0 }
}

fn used(bytes: u64, wants: bool) -> Report {
    Report { used: Amount { bytes, packets: 1 }, wants, ..Report::default() }
}

/// 80 MiB soft, 100 MiB hard, two members: 10 MiB for each.
fn ledger() -> OwnerLedger {
    OwnerLedger::new(&GrantLimits::new(&lifetime(80 * MIB, 100 * MIB), 2).unwrap(), Percentage::START, REPEAT)
}

fn member_ledger(ceiling: u64, times: MemberTimes) -> MemberLedger {
    let Lifetime { bytes: limits, packets, .. } = lifetime(80 * MIB, 100 * MIB);
    let ceiling = Amount { bytes: ceiling, packets: u64::MAX };
    MemberLedger::new(at(0), limits, packets, ceiling, times)
}

#[test]
fn all_grants_together_fit_between_soft_and_hard() {
    let limits = GrantLimits::new(&lifetime(80 * MIB, 100 * MIB), 4).unwrap();
    assert_eq!(limits.grant_max, Amount { bytes: 5 * MIB, packets: u64::MAX });
    let without_soft = Limits { soft: None, hard: Some(64 * MIB) };
    let limits = GrantLimits::new(&Lifetime { bytes: without_soft, ..Lifetime::NONE }, 2).unwrap();
    assert_eq!(limits.grant_max.bytes, 4 * MIB);
}

#[test]
fn limits_that_leave_no_room_for_a_packet_are_refused() {
    let refused = GrantLimits::new(&lifetime(MIB, MIB + 2 * PACKET_BYTES_MAX - 1), 2);
    assert_eq!(refused, Err(GrantTooSmall { members_max: 2, found: PACKET_BYTES_MAX - 1 }));
    assert!(GrantLimits::new(&lifetime(MIB, MIB + 2 * PACKET_BYTES_MAX), 2).is_ok());
}

#[test]
fn without_limits_everything_is_granted_at_once() {
    let time = TimeLimits { soft: Some(Duration::from_secs(9)), hard: None };
    let limits = GrantLimits::new(&Lifetime { time, ..Lifetime::NONE }, 3).unwrap();
    let mut ledger = OwnerLedger::new(&limits, Percentage::START, REPEAT);
    for member in 0..3 {
        ledger.join(MemberId(member), ONE).unwrap();
        assert_eq!(ledger.ceiling(MemberId(member), ONE), Some(Amount::UNLIMITED));
    }
    ledger.charge(MemberId(0), ONE);
    ledger.handle_want(MemberId(1), ONE, used(1 << 60, true)).unwrap();
    assert!(!ledger.is_soft_reached());
    assert_eq!(ledger.view().granted, Amount::ZERO);
    assert_eq!(ledger.view().charged, Amount::ZERO);
}

#[test]
fn a_ceiling_is_told_until_it_is_acknowledged() {
    let mut ledger = ledger();
    ledger.join(A, ONE).unwrap();
    assert!(ledger.poll_grant(at(0)).is_some(), "the first share, which may also go with the shadow SA");
    ledger.handle_want(A, ONE, used(5 * MIB, true)).unwrap();
    let ceiling = Amount { bytes: 15 * MIB, packets: u64::MAX };
    let grant = CeilingGrant { member: A, incarnation: ONE, ceiling };
    assert_eq!(ledger.poll_grant(at(1)), Some(grant));
    assert_eq!(ledger.poll_grant(at(2)), None);
    assert_eq!(ledger.next_timeout(), Some(at(501)));
    assert_eq!(ledger.poll_grant(at(501)), Some(grant));
    ledger.handle_report(A, ONE, Report { ceiling, ..used(5 * MIB, false) }).unwrap();
    assert_eq!(ledger.poll_grant(at(2_000)), None);
    assert_eq!(ledger.next_timeout(), None);
}

#[test]
fn totals_may_come_twice_late_or_out_of_order() {
    let mut ledger = ledger();
    ledger.join(A, ONE).unwrap();
    for total in [3, 5, 5, 1, 4] {
        ledger.handle_report(A, ONE, used(total * MIB, false)).unwrap();
    }
    assert_eq!(ledger.used().bytes, 5 * MIB);
}

/// 100 MiB hard and 2 %: each member that carries the SA leaves up to 2 MiB unreported.
#[test]
fn the_soft_limit_is_told_once_when_it_may_be_reached_for_all_that_is_reported() {
    let mut ledger = ledger();
    ledger.join(A, ONE).unwrap();
    ledger.join(B, ONE).unwrap();
    ledger.handle_want(A, ONE, used(77 * MIB, true)).unwrap();
    assert!(!ledger.take_soft_reached(), "79 of 80, whatever is granted");
    ledger.handle_report(B, ONE, used(1, false)).unwrap();
    assert!(ledger.take_soft_reached(), "two may leave 2 MiB unreported now");
    assert!(!ledger.take_soft_reached());
    assert_eq!(ledger.refresh(), Refresh::InTime);
}

#[test]
fn what_a_dead_member_is_charged_brings_the_soft_limit_nearer() {
    let mut ledger = ledger();
    ledger.join(A, ONE).unwrap();
    ledger.join(B, ONE).unwrap();
    ledger.handle_want(A, ONE, used(68 * MIB, true)).unwrap();
    ledger.handle_report(B, ONE, used(7 * MIB + MIB / 2, false)).unwrap();
    assert!(!ledger.take_soft_reached(), "75.5, and 2 may be unreported at each, whatever is granted");
    ledger.charge(B, ONE);
    assert!(ledger.take_soft_reached(), "75.5, 2, and 2.5 charged");
}

#[test]
fn a_request_that_cannot_be_filled_asks_for_a_refresh_and_an_empty_pool_makes_it_late() {
    let limits = Limits { soft: None, hard: Some(16 * MIB) };
    let limits = GrantLimits::new(&Lifetime { bytes: limits, ..Lifetime::NONE }, 2).unwrap();
    let mut ledger = OwnerLedger::new(&limits, Percentage::START, REPEAT);
    ledger.join(A, ONE).unwrap();
    ledger.handle_want(A, ONE, used(15 * MIB, true)).unwrap();
    assert!(!ledger.view().is_short, "the last MiB was there");
    ledger.handle_want(A, ONE, used(16 * MIB - 70_000, true)).unwrap();
    assert!(ledger.take_soft_reached());
    assert_eq!(ledger.refresh(), Refresh::InTime);
    ledger.handle_want(A, ONE, used(16 * MIB - 5, true)).unwrap();
    assert_eq!(ledger.refresh(), Refresh::Late);
    assert_eq!(ledger.ceiling(A, ONE).unwrap().bytes, 16 * MIB);
}

#[test]
fn the_dead_are_charged_what_they_may_have_used_and_heard_no_more() {
    let mut ledger = ledger();
    ledger.join(A, ONE).unwrap();
    ledger.handle_report(A, ONE, used(4 * MIB, false)).unwrap();
    ledger.charge(A, ONE);
    let view = ledger.view();
    assert_eq!((view.used.bytes, view.charged.bytes, view.members), (4 * MIB, 6 * MIB, 0));
    let refused = ledger.handle_report(A, ONE, used(5 * MIB, false));
    assert_eq!(refused, Err(LedgerRefused::NotAMember { member: A, incarnation: ONE }));
    ledger.charge(A, ONE);
    assert_eq!(ledger.view().charged.bytes, 6 * MIB, "charged once");
}

#[test]
fn a_new_start_of_a_member_charges_the_one_before() {
    let mut ledger = ledger();
    ledger.join(A, ONE).unwrap();
    ledger.join(A, TWO).unwrap();
    assert_eq!(ledger.view().charged.bytes, 10 * MIB);
    let refused = ledger.join(A, ONE);
    assert_eq!(refused, Err(LedgerRefused::Over { member: A, found: ONE, known: TWO }));
    ledger.join(B, ONE).unwrap();
    assert_eq!(ledger.join(MemberId(3), ONE), Err(LedgerRefused::Full { members_max: 2 }));
}

#[test]
fn who_leaves_in_peace_frees_its_grant() {
    let mut ledger = ledger();
    ledger.join(A, ONE).unwrap();
    ledger.leave(A, ONE, used(3 * MIB, false)).unwrap();
    let view = ledger.view();
    assert_eq!((view.used.bytes, view.granted.bytes, view.charged.bytes), (3 * MIB, 0, 0));
}

#[test]
fn what_is_returned_can_be_granted_again() {
    let mut ledger = ledger();
    ledger.join(A, ONE).unwrap();
    ledger.join(B, ONE).unwrap();
    ledger.handle_report(A, ONE, Report { returned: bytes(8 * MIB), ..used(0, false) }).unwrap();
    assert_eq!(ledger.view().granted.bytes, 12 * MIB);
    ledger.handle_want(A, ONE, Report { returned: bytes(8 * MIB), ..used(2 * MIB, true) }).unwrap();
    assert_eq!(ledger.ceiling(A, ONE).unwrap().bytes, 20 * MIB, "8 returned, 2 used, 10 to use");
}

#[test]
fn a_member_that_passed_its_grant_is_counted_in_full_and_named() {
    let mut ledger = ledger();
    ledger.join(A, ONE).unwrap();
    ledger.handle_report(A, ONE, used(10 * MIB, false)).unwrap();
    assert!(!ledger.view().was_passed);
    ledger.handle_report(A, ONE, used(90 * MIB, false)).unwrap();
    assert!(ledger.view().was_passed && ledger.take_soft_reached());
    assert_eq!(ledger.used().bytes, 90 * MIB);
}

#[test]
fn a_return_of_more_than_there_is_counts_for_what_there_is() {
    let mut ledger = ledger();
    ledger.join(A, ONE).unwrap();
    ledger.handle_report(A, ONE, Report { returned: bytes(u64::MAX), ..used(4 * MIB, false) }).unwrap();
    assert_eq!(ledger.view().granted.bytes, 0);
    assert_eq!(ledger.used().bytes, 4 * MIB);
}

#[test]
fn a_new_owner_goes_on_from_what_members_say_and_charges_the_silent() {
    let mut ledger = ledger();
    let ceiling = Amount { bytes: 25 * MIB, packets: u64::MAX };
    ledger.adopt(A, ONE, Report { ceiling, ..used(20 * MIB, false) }).unwrap();
    assert_eq!(ledger.overrun_bound(), Amount::ZERO);
    ledger.adopt_silent(bytes(30 * MIB));
    let view = ledger.view();
    assert_eq!(view.used.bytes, 50 * MIB);
    assert_eq!((view.granted.bytes, view.charged.bytes), (10 * MIB, 10 * MIB));
    assert_eq!(ledger.overrun_bound(), bytes(10 * MIB));
}

#[test]
fn a_member_reports_when_the_percentage_is_reached_and_not_before() {
    let mut member = member_ledger(50 * MIB, MemberTimes::default());
    assert!(member.poll_report(at(0), Percentage::START).is_some(), "acknowledges its first share");
    member.observe(at(1), bytes(1));
    assert_eq!(member.poll_report(at(1), Percentage::START).unwrap().used, bytes(1), "the first is told at once");
    member.observe(at(1), bytes(2 * MIB));
    assert_eq!(member.poll_report(at(1), Percentage::START), None);
    member.observe(at(2), bytes(2 * MIB + 1));
    assert_eq!(member.poll_report(at(2), Percentage::START).unwrap().used, bytes(2 * MIB + 1));
    assert_eq!(member.poll_report(at(3), Percentage::START), None);
}

#[test]
fn the_first_use_is_reported_at_once_what_is_small_at_the_slow_timer_and_the_unchanged_not_at_all() {
    let times = MemberTimes { idle_after: Duration::MAX, ..MemberTimes::default() };
    let mut member = member_ledger(50 * MIB, times);
    assert!(member.poll_report(at(0), Percentage::START).is_some());
    member.observe(at(5), bytes(100));
    assert_eq!(member.poll_report(at(5), Percentage::START).unwrap().used, bytes(100));
    member.observe(at(6), bytes(200));
    assert_eq!(member.next_timeout(), Some(at(10_005)));
    assert_eq!(member.poll_report(at(10_004), Percentage::START), None);
    assert_eq!(member.poll_report(at(10_005), Percentage::START).unwrap().used, bytes(200));
    assert_eq!(member.poll_report(at(40_000), Percentage::START), None);
}

#[test]
fn half_a_grant_used_asks_for_the_next_until_it_comes() {
    let mut member = member_ledger(10 * MIB, MemberTimes::default());
    let low = Percentage::MAX;
    assert!(!member.poll_report(at(0), low).unwrap().wants);
    member.observe(at(1), bytes(5 * MIB));
    assert!(member.poll_report(at(1), low).unwrap().wants);
    assert_eq!(member.poll_report(at(2), low), None);
    assert_eq!(member.next_timeout(), Some(at(201)));
    assert!(member.poll_report(at(201), low).unwrap().wants);
    let ceiling = Amount { bytes: 15 * MIB, packets: u64::MAX };
    assert_eq!(member.handle_ceiling(ceiling), Some(ceiling));
    let report = member.poll_report(at(202), low).unwrap();
    assert_eq!((report.wants, report.ceiling), (false, ceiling));
    assert_eq!(member.handle_ceiling(Amount { bytes: 12 * MIB, packets: 0 }), None, "late, and lower");
    assert_eq!(member.ceiling(), ceiling);
}

#[test]
fn a_grant_too_small_for_a_packet_asks_for_more() {
    let mut member = member_ledger(10 * MIB, MemberTimes::default());
    member.observe(at(0), bytes(10 * MIB - 500));
    assert!(member.poll_report(at(0), Percentage::MAX).unwrap().wants);
    assert!(member.handle_ceiling(Amount { bytes: 10 * MIB + 200, packets: u64::MAX }).is_some());
    assert!(member.poll_report(at(1), Percentage::MAX).unwrap().wants, "700 bytes are more than half of 700");
}

#[test]
fn an_idle_member_returns_what_it_can_do_without_once_for_each_grant() {
    let mut member = member_ledger(8 * MIB, MemberTimes::default());
    member.observe(at(0), bytes(1));
    assert!(member.poll_report(at(0), Percentage::START).is_some());
    assert_eq!(member.next_timeout(), Some(at(10_000)));
    assert_eq!(member.poll_return(at(9_999)), None);
    let spare = member.poll_return(at(10_000)).unwrap();
    assert_eq!(spare, bytes(6 * MIB - 1));
    assert_eq!(member.poll_return(at(10_001)), None, "asked once");
    // A core claimed some of it meanwhile.
    let taken = spare.less(bytes(500));
    member.returned(taken);
    let report = member.poll_report(at(10_000), Percentage::START).unwrap();
    assert_eq!((report.returned, report.wants), (taken, false));
    assert_eq!(member.left().bytes, 2 * MIB + 500);
    assert_eq!(member.poll_return(at(200_000)), None);
    member.observe(at(200_001), bytes(MIB + 500));
    assert!(member.poll_report(at(200_001), Percentage::START).unwrap().wants);
}

#[test]
fn a_member_that_does_not_hear_the_owner_is_suspended_until_it_does() {
    let mut watch = OwnerWatch::new(at(0), Duration::from_secs(5));
    assert!(!watch.is_suspended(at(4_999)));
    assert!(watch.is_suspended(at(5_000)));
    watch.handle_heard(at(6_000));
    assert!(!watch.is_suspended(at(10_999)));
    watch.handle_heard(at(3_000));
    assert_eq!(watch.suspends_at(), at(11_000), "a reading from before changes nothing");
}

#[test]
fn the_percentage_is_halved_by_late_refreshes_and_grows_slowly_by_timely_ones() {
    let start = Percentage::START;
    assert_eq!(start.after(Refresh::Late).hundredths(), 100);
    assert_eq!(start.after(Refresh::InTime).hundredths(), 212);
    assert_eq!(start.after(Refresh::NotByLifesize), start);
    assert_eq!(start.to_string(), "2.00 %");
    assert!(!start.is_reached(None, u64::MAX));
    assert!(start.is_reached(Some(100), 2) && !start.is_reached(Some(100), 1));
    assert!(!Percentage::MIN.is_reached(Some(1), 0), "nothing is never worth a report");
}

proptest! {
    #[test]
    fn the_percentage_stays_in_its_bounds(start: u16, refreshes in prop::collection::vec(0_u8..3, 0..200)) {
        let mut percentage = Percentage::from_hundredths(start);
        for refresh in refreshes {
            let before = percentage;
            let refresh = [Refresh::Late, Refresh::InTime, Refresh::NotByLifesize][usize::from(refresh)];
            percentage = before.after(refresh);
            prop_assert!((Percentage::MIN..=Percentage::MAX).contains(&percentage));
            match refresh {
                Refresh::Late => prop_assert!(percentage < before || before == Percentage::MIN),
                Refresh::InTime => prop_assert!(percentage > before || before == Percentage::MAX),
                Refresh::NotByLifesize => prop_assert_eq!(percentage, before),
            }
        }
    }
}
