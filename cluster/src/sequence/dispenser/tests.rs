use super::*;
use crate::sequence::requester::{GrantRefused, Numbers, Requester};

const NO_MARK: u64 = u64::MAX;

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn sender(member: u16) -> Sender {
    Sender { member: MemberId(member), incarnation: Incarnation(1) }
}

fn ask(number: u64, want: u16) -> Request {
    Request { number, want }
}

/// A dispenser for a window of 32: 16 numbers in flight.
fn dispenser() -> Dispenser {
    Dispenser::new(32, 1, Times::default())
}

#[test]
fn one_sender_gets_half_a_window_for_each_confirmation() {
    let mut dispenser = dispenser();
    for round in 0..10 {
        let grant = dispenser.handle_request(at(round), sender(1), ask(round + 1, 100), NO_MARK).unwrap();
        assert_eq!(grant, Grant { number: round + 1, first: 1 + 16 * round, count: 16 });
        assert_eq!(dispenser.poll_grant(at(round), NO_MARK), None);
    }
}

#[test]
fn a_repeated_request_gets_the_same_numbers_again() {
    let mut dispenser = dispenser();
    let grant = dispenser.handle_request(at(0), sender(1), ask(1, 5), NO_MARK).unwrap();
    assert_eq!(dispenser.handle_request(at(1), sender(1), ask(1, 5), NO_MARK), Some(grant));
    assert_eq!(dispenser.counters().granted, 5);
    assert_eq!(dispenser.counters().repeated, 1);
}

#[test]
fn an_overtaken_request_is_ignored() {
    let mut dispenser = dispenser();
    let _ = dispenser.handle_request(at(0), sender(1), ask(2, 5), NO_MARK).unwrap();
    assert_eq!(dispenser.handle_request(at(0), sender(1), ask(1, 5), NO_MARK), None);
    assert_eq!(dispenser.oldest_in_flight(), 1);
    assert_eq!(dispenser.counters().stale, 1);
}

#[test]
fn who_waits_gets_numbers_as_soon_as_others_confirm() {
    let mut dispenser = dispenser();
    let first = dispenser.handle_request(at(0), sender(1), ask(1, 16), NO_MARK).unwrap();
    assert_eq!(first.count, 16);
    assert_eq!(dispenser.handle_request(at(0), sender(2), ask(1, 16), NO_MARK), None);
    assert_eq!(dispenser.poll_grant(at(0), NO_MARK), None);
    assert_eq!(dispenser.waiting(), 1);
    // Sender 1 wants more at once, but sender 2 has waited longer.
    assert_eq!(dispenser.handle_request(at(1), sender(1), ask(2, 16), NO_MARK), None);
    let (who, second) = dispenser.poll_grant(at(1), NO_MARK).unwrap();
    assert_eq!((who, second), (sender(2), Grant { number: 1, first: 17, count: 8 }));
    let (who, third) = dispenser.poll_grant(at(1), NO_MARK).unwrap();
    assert_eq!((who, third), (sender(1), Grant { number: 2, first: 25, count: 8 }));
    assert_eq!(dispenser.poll_grant(at(1), NO_MARK), None);
}

#[test]
fn a_dead_sender_holds_the_others_up_once_and_its_numbers_are_never_given_again() {
    let mut dispenser = dispenser();
    let lost = dispenser.handle_request(at(0), sender(1), ask(1, 16), NO_MARK).unwrap();
    assert_eq!(dispenser.handle_request(at(30), sender(2), ask(1, 4), NO_MARK), None);
    assert_eq!(dispenser.next_timeout(), Some(at(40)));
    assert_eq!(dispenser.poll_grant(at(39), NO_MARK), None);
    let (_, grant) = dispenser.poll_grant(at(40), NO_MARK).unwrap();
    assert_eq!(grant.first, lost.first + u64::from(lost.count));
    assert_eq!(dispenser.counters().abandoned, 16);
    // The old answer is not repeated any more.
    assert_eq!(dispenser.handle_request(at(41), sender(1), ask(1, 16), NO_MARK), None);
}

#[test]
fn who_waits_but_asks_no_more_is_forgotten() {
    let mut dispenser = dispenser();
    let _ = dispenser.handle_request(at(0), sender(1), ask(1, 16), NO_MARK).unwrap();
    assert_eq!(dispenser.handle_request(at(0), sender(2), ask(1, 4), NO_MARK), None);
    assert_eq!(dispenser.handle_request(at(39), sender(3), ask(1, 4), NO_MARK), None);
    let (who, _) = dispenser.poll_grant(at(40), NO_MARK).unwrap();
    assert_eq!(who, sender(3));
    assert_eq!(dispenser.waiting(), 0);
}

#[test]
fn a_new_start_of_a_sender_counts_its_requests_anew_and_the_old_one_is_heard_no_more() {
    let mut dispenser = dispenser();
    let old = sender(1);
    let new = Sender { incarnation: Incarnation(2), ..old };
    let _ = dispenser.handle_request(at(0), old, ask(1_000, 3), NO_MARK).unwrap();
    let grant = dispenser.handle_request(at(1), new, ask(1, 3), NO_MARK).unwrap();
    assert_eq!(grant.first, 4);
    assert_eq!(dispenser.handle_request(at(1), old, ask(1_001, 3), NO_MARK), None);
    // What the old one held is not confirmed by the new one: it may be under way.
    assert_eq!(dispenser.oldest_in_flight(), 1);
}

#[test]
fn nothing_is_granted_at_or_above_the_mark() {
    let mut dispenser = Dispenser::new(32, 100, Times::default());
    let grant = dispenser.handle_request(at(0), sender(1), ask(1, 16), 105).unwrap();
    assert_eq!((grant.first, grant.count), (100, 5));
    assert_eq!(dispenser.handle_request(at(1), sender(1), ask(2, 16), 105), None);
    assert_eq!(dispenser.poll_grant(at(1), 105), None);
    let (_, grant) = dispenser.poll_grant(at(2), 1_000).unwrap();
    assert_eq!((grant.first, grant.count), (105, 16));
}

#[test]
fn the_smallest_windows_let_one_number_out_at_a_time() {
    for window_packets in 0..4 {
        let mut dispenser = Dispenser::new(window_packets, 1, Times::default());
        let grant = dispenser.handle_request(at(0), sender(1), ask(1, 9), NO_MARK).unwrap();
        assert_eq!(grant.count, 1);
        assert_eq!(dispenser.handle_request(at(0), sender(2), ask(1, 9), NO_MARK), None);
    }
}

#[test]
fn hostile_41_senders_are_bounded_and_idle_ones_make_room() {
    let mut dispenser = Dispenser::new(256, 1, Times::default());
    for member in 0..SENDERS_MAX as u16 {
        let grant = dispenser.handle_request(at(0), sender(member), ask(1, 1), NO_MARK);
        assert!(grant.is_some());
    }
    assert_eq!(dispenser.handle_request(at(1), sender(1_000), ask(1, 1), NO_MARK), None);
    assert_eq!(dispenser.counters().refused, 1);
    let acknowledged = dispenser.handle_request(at(2), sender(7), ask(2, 0), NO_MARK);
    assert_eq!(acknowledged, Some(Grant { number: 2, first: 0, count: 0 }));
    assert!(dispenser.handle_request(at(3), sender(1_000), ask(1, 1), NO_MARK).is_some());
    assert_eq!(dispenser.senders.len(), SENDERS_MAX);
}

#[test]
fn the_ceiling_is_half_a_window_each_round_trip() {
    let mut dispenser = dispenser();
    assert_eq!(dispenser.ceiling_packets_per_second(), None);
    for round in 0..50 {
        let grant = dispenser.handle_request(at(2 * round), sender(1), ask(round + 1, 16), NO_MARK);
        assert!(grant.is_some());
    }
    assert_eq!(dispenser.round_trip(), Some(Duration::from_millis(2)));
    assert_eq!(dispenser.ceiling_packets_per_second(), Some(8_000));
    assert_eq!(ceiling_packets_per_second(32, Duration::ZERO), u64::MAX);
}

#[test]
fn a_requester_asks_repeats_uses_and_confirms() {
    let mut requester = Requester::new(at(0), Times::default());
    assert_eq!(requester.poll(at(0), 0), None);
    let request = requester.poll(at(1), 3).unwrap();
    assert_eq!(request.want, 3);
    assert_eq!(requester.poll(at(2), 9), None);
    assert_eq!(requester.next_timeout(), Some(at(6)));
    assert_eq!(requester.poll(at(6), 9), Some(request));
    let grant = Grant { number: request.number, first: 40, count: 3 };
    assert_eq!(requester.handle_grant(at(7), grant, 2), Ok(Numbers { first: 40, count: 2 }));
    assert_eq!(requester.handle_grant(at(7), grant, 2), Err(GrantRefused::NotAsked));
    assert_eq!(requester.poll(at(7), 0), None);
    let confirmation = requester.poll(at(8), 0).unwrap();
    assert_eq!((confirmation.number, confirmation.want), (request.number + 1, 0));
    let heard = Grant { number: confirmation.number, first: 0, count: 0 };
    assert_eq!(requester.handle_grant(at(9), heard, 0), Ok(Numbers { first: 0, count: 0 }));
    assert_eq!(requester.next_timeout(), None);
    assert_eq!(requester.poll(at(99), 0), None);
}

#[test]
fn a_requester_throws_away_what_comes_too_late_or_is_not_its_own() {
    let mut requester = Requester::new(at(0), Times::default());
    let request = requester.poll(at(0), 8).unwrap();
    let grant = Grant { number: request.number, first: 40, count: 8 };
    for (wrong, why) in [
        (Grant { number: request.number - 1, ..grant }, GrantRefused::NotAsked),
        (Grant { count: 9, ..grant }, GrantRefused::NotAsAsked),
        (Grant { count: 0, ..grant }, GrantRefused::NotAsAsked),
        (Grant { first: u64::MAX, ..grant }, GrantRefused::NotAsAsked),
        (Grant { first: 0, ..grant }, GrantRefused::NotAbove),
    ] {
        assert_eq!(requester.handle_grant(at(1), wrong, 8), Err(why));
    }
    assert_eq!(requester.handle_grant(at(25), grant, 8), Err(GrantRefused::TooLate));
    // The next request confirms that nothing is held.
    let next = requester.poll(at(25), 8).unwrap();
    assert_eq!(next.number, request.number + 1);
    assert_eq!(requester.expired(), 1);
    // Numbers below those that were used are never taken.
    let higher = Grant { number: next.number, first: 60, count: 8 };
    assert_eq!(requester.handle_grant(at(26), higher, 8), Ok(Numbers { first: 60, count: 8 }));
    let third = requester.poll(at(27), 8).unwrap();
    let lower = Grant { number: third.number, first: 67, count: 8 };
    assert_eq!(requester.handle_grant(at(28), lower, 8), Err(GrantRefused::NotAbove));
}

#[test]
fn a_requester_of_an_sa_that_was_installed_again_is_newer_than_the_one_before() {
    let mut dispenser = dispenser();
    let mut before = Requester::new(at(10), Times::default());
    let mut now = at(10);
    for _ in 0..100 {
        let request = before.poll(now, 1).unwrap();
        let grant = dispenser.handle_request(now, sender(1), request, NO_MARK).unwrap();
        assert!(before.handle_grant(now, grant, 1).is_ok());
    }
    now = at(11);
    let mut after = Requester::new(now, Times::default());
    let request = after.poll(now, 1).unwrap();
    assert!(dispenser.handle_request(now, sender(1), request, NO_MARK).is_some());
}
