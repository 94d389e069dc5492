//! A handful of seeds, so that `cargo test` sees a cluster under faults; `ci/test` runs thousands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is the point

use simulator::plant::Plant;
use simulator::run::run;
use simulator::scenario;

#[test]
fn no_rule_breaks_by_chance() {
    for seed in 0..12 {
        let outcome = run(seed, None, None);
        assert!(outcome.end.is_none(), "{outcome:?}");
        assert!(outcome.counts.0 > 0, "nothing was delivered: {outcome:?}");
    }
}

#[test]
fn one_seed_is_one_course_of_events() {
    let hashes = |seed| run(seed, None, None).trace_hash;
    for seed in [100, 101, 102] {
        assert_eq!(hashes(seed), hashes(seed), "seed {seed}");
    }
    assert_ne!(hashes(100), hashes(102));
}

#[test]
fn every_scenario_goes_to_its_end() {
    for scenario in &scenario::ALL {
        let outcome = run(7, Some(scenario), None);
        assert!(outcome.end.is_none(), "{outcome:?}");
    }
}

/// An SA that lingered was opened by who had owned its address a moment before, as if that were an appliance alone.
#[test]
fn who_owns_an_address_no_more_delivers_nothing_of_it() {
    for seed in [1031, 1059] {
        let outcome = run(seed, scenario::named("cf-rollback"), None);
        assert!(outcome.end.is_none(), "{outcome:?}");
    }
}

#[test]
fn sender_numbers_that_are_not_unique_are_found() {
    let found = (0..100).any(|seed| run(seed, None, Some(Plant::SenderId)).end.is_some());
    assert!(found);
}
