use super::*;
use ipsec::Spi;

pub(super) fn child(spi: u32) -> ChildId {
    ChildId { dvipa: "203.0.113.80".parse().unwrap(), spi: Spi::new(spi + 256).unwrap() }
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

/// With an SA that has just been born.
fn marks() -> Marks {
    let mut marks = Marks::new(MarkSettings::default());
    let below = marks.at_birth(1);
    marks.born(at(0), child(1), true, 1, below);
    assert_eq!(marks.give(child(1)), Some(1));
    marks
}

#[test]
fn a_mark_is_told_only_when_it_is_durable() {
    let mut marks = marks();
    assert_eq!(marks.poll_raise(at(0)), None);
    marks.observe(at(10_000), child(1), 1 << 23);
    let raise = marks.poll_raise(at(10_000)).unwrap();
    assert_eq!(marks.below(child(1)), Some(1 + (1 << 24)));
    assert_eq!(marks.poll_raise(at(10_000)), None, "one at a time");
    let told = marks.handle_raised(raise.ticket);
    assert_eq!(told, [(child(1), raise.marks[0].below)]);
    assert_eq!(marks.below(child(1)), Some(raise.marks[0].below));
    assert_eq!(marks.handle_raised(raise.ticket), [], "once");
}

#[test]
fn an_unanswered_raise_tells_nothing_and_is_never_followed_by_a_lower_one() {
    let mut marks = marks();
    marks.observe(at(10_000), child(1), 1 << 23);
    let first = marks.poll_raise(at(10_000)).unwrap();
    // Long quiet: the rate is forgotten, and less would do now.
    for second in 11..600 {
        marks.observe(at(second * 1_000), child(1), 1 << 23);
    }
    let again = marks.poll_raise(at(600_000)).unwrap();
    assert!(again.marks[0].below >= first.marks[0].below);
    assert_eq!(marks.handle_raised(first.ticket), [], "too late to be believed");
    marks.handle_failed(at(600_001), again.ticket);
    assert_eq!(marks.poll_raise(at(600_002)), None);
    assert!(marks.poll_raise(at(601_001)).is_some());
    assert_eq!(marks.below(child(1)), Some(1 + (1 << 24)));
}

#[test]
fn an_outage_of_the_stated_length_stops_nobody() {
    let rate_per_ms = 5_000;
    let mut marks = marks();
    let mut next = 1;
    let mut now = 0;
    while now < 120_000 {
        now += 10;
        next += rate_per_ms * 10;
        marks.observe(at(now), child(1), next);
        assert!(now < 1_000 || next < marks.below(child(1)).unwrap());
        if let Some(raise) = marks.poll_raise(at(now)) {
            let _ = marks.handle_raised(raise.ticket);
        }
        // At whatever moment the facility goes away.
        let reserve = marks.below(child(1)).unwrap() - next;
        assert!(now < 2_000 || reserve >= 60_000 * rate_per_ms, "{reserve} at {now} ms");
        assert!(reserve <= 1 << 30);
    }
}

#[test]
fn the_reserve_never_exceeds_its_bound() {
    let mut marks = marks();
    for step in 1..2_000_u64 {
        let below = marks.below(child(1)).unwrap();
        marks.observe(at(step * 100), child(1), below);
        assert_eq!(marks.exhausted(), 1);
        let raise = marks.poll_raise(at(step * 100)).unwrap();
        assert!(raise.marks[0].below - below <= 1 << 30);
        let _ = marks.handle_raised(raise.ticket);
        assert_eq!(marks.exhausted(), 0);
    }
}

#[test]
fn a_new_sender_begins_at_the_mark_and_waits_for_a_higher_one() {
    let mut marks = marks();
    let mark = marks.below(child(1)).unwrap();
    assert_eq!(marks.give(child(1)), Some(mark));
    assert_eq!(marks.exhausted(), 1);
    let raise = marks.poll_raise(at(0)).unwrap();
    assert!(raise.marks[0].below > mark);
}

#[test]
fn with_extended_numbers_no_sender_begins_too_far_above_what_was_used() {
    let mut marks = marks();
    marks.observe(at(100), child(1), 1 << 24);
    let (mut from, mut changes) = (0, 0);
    while changes < 1_000 {
        changes += 1;
        from = marks.give(child(1)).unwrap();
        assert!(from < (1 << 24) + (1 << 31));
        let Some(raise) = marks.poll_raise(at(100 * changes)) else { break };
        let _ = marks.handle_raised(raise.ticket);
    }
    assert!(changes < 300, "senders that never send anything use the room up");
    assert_eq!(marks.below(child(1)), Some(from));
    assert_eq!(marks.poll_rekey(), Some(child(1)));
}

#[test]
fn a_restored_mark_is_where_the_next_sender_begins() {
    let mut marks = Marks::new(MarkSettings::default());
    marks.restore(at(0), child(1), true, 5_000, 700);
    assert_eq!(marks.give(child(1)), Some(5_000));
    let raise = marks.poll_raise(at(0)).unwrap();
    assert_eq!(raise.marks, [RaisedMark { child: child(1), from: 5_000, below: 5_000 + (1 << 24) }]);
}

#[test]
fn without_extended_numbers_half_of_them_ask_for_a_rekey_and_the_last_is_the_last() {
    let mut marks = Marks::new(MarkSettings::default());
    marks.born(at(0), child(1), false, 1, marks.at_birth(1));
    let mut told = 0;
    for step in 1..200 {
        let next = marks.below(child(1)).unwrap();
        marks.observe(at(step * 1_000), child(1), next);
        told += u32::from(marks.poll_rekey().is_some());
        assert_eq!(told > 0, next >= 1 << 31);
        let Some(raise) = marks.poll_raise(at(step * 1_000)) else { break };
        let _ = marks.handle_raised(raise.ticket);
    }
    assert_eq!(marks.below(child(1)), Some(1 << 32));
    assert_eq!(told, 1);
}

#[test]
fn renewals_are_batched_and_the_urgent_go_first() {
    let mut marks = Marks::new(MarkSettings { batch_max: 3, ..MarkSettings::default() });
    for spi in 0..5 {
        marks.born(at(0), child(spi), true, 1, 1 + (1 << 24));
        marks.observe(at(60_000), child(spi), 1 << 23);
    }
    marks.observe(at(60_000), child(4), (1 << 24) - 5);
    let first = marks.poll_raise(at(60_000)).unwrap();
    assert_eq!(first.marks.iter().map(|raised| raised.child).collect::<Vec<_>>(), [child(4), child(0), child(1)]);
    let _ = marks.handle_raised(first.ticket);
    let second = marks.poll_raise(at(60_001)).unwrap();
    assert_eq!(second.marks.len(), 2);
    assert_eq!(marks.handle_raised(second.ticket).len(), 2);
    // What comes due now can wait for others.
    marks.observe(at(60_050), child(2), 1 << 24);
    assert_eq!(marks.next_timeout(), Some(at(61_001)));
    assert_eq!(marks.poll_raise(at(61_000)), None);
    assert_eq!(marks.poll_raise(at(61_001)).unwrap().marks.len(), 1);
    marks.forget(child(2));
    assert_eq!(marks.next_timeout(), None);
}

#[test]
fn a_batch_is_of_one_address() {
    let mut marks = Marks::new(MarkSettings::default());
    let other = ChildId { dvipa: "203.0.113.81".parse().unwrap(), ..child(1) };
    for sa in [child(1), child(2), other] {
        marks.restore(at(0), sa, true, 100, 100);
    }
    let first = marks.poll_raise(at(0)).unwrap();
    assert_eq!(first.marks.len(), 2);
    assert_eq!(marks.handle_raised(first.ticket).len(), 2);
    assert_eq!(marks.poll_raise(at(0)).unwrap().marks[0].child, other);
}

#[test]
fn what_the_facility_already_holds_is_told() {
    let mut marks = marks();
    marks.observe(at(10_000), child(1), 1 << 23);
    let lost = marks.poll_raise(at(10_000)).unwrap();
    marks.handle_failed(at(10_001), lost.ticket);
    let again = marks.poll_raise(at(11_001)).unwrap();
    let held = lost.marks[0].below;
    assert_eq!(marks.handle_found(again.ticket, &[(child(1), held)]), [(child(1), held)]);
    assert_eq!(marks.below(child(1)), Some(held));
    assert_eq!(marks.handle_found(again.ticket, &[(child(1), u64::MAX)]), []);
}
