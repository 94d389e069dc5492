use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// The window as RFC 4303 describes it, with a set for a bitmap.
struct Oracle {
    window_packets: u64,
    esn: bool,
    top: u64,
    accepted: BTreeSet<u64>,
}

impl Oracle {
    fn new(window_packets: u64, esn: bool) -> Self {
        Self { window_packets, esn, top: 0, accepted: BTreeSet::new() }
    }

    /// Tries every number with these low bits anywhere near, and takes the nearest; of two the later.
    fn candidate(&self, low: u32, hint: u64) -> u64 {
        if !self.esn {
            return u64::from(low);
        }
        let near = u128::from(self.top.max(hint));
        let high = near >> 32;
        (high.saturating_sub(2)..=high + 2)
            .map(|high| high << 32 | u128::from(low))
            .filter(|number| *number <= u128::from(u64::MAX))
            .min_by_key(|number| (number.abs_diff(near), core::cmp::Reverse(*number)))
            .unwrap() as u64
    }

    fn check(&self, sequence: u64) -> Result<(), ReplayError> {
        let in_or_above = u128::from(sequence) + u128::from(self.window_packets) > u128::from(self.top);
        match sequence {
            0 => Err(ReplayError::TooOld),
            _ if self.window_packets == 0 => Ok(()),
            _ if !in_or_above => Err(ReplayError::TooOld),
            _ if self.accepted.contains(&sequence) => Err(ReplayError::Duplicate),
            _ => Ok(()),
        }
    }

    fn commit(&mut self, sequence: u64) -> Result<(), ReplayError> {
        self.check(sequence)?;
        self.accepted.insert(sequence);
        self.top = self.top.max(sequence);
        Ok(())
    }
}

fn window(window_packets: u32, esn: bool) -> ReplayWindow {
    ReplayWindow::new(window_packets, esn).unwrap()
}

/// A window that has accepted just this number.
fn window_at(window_packets: u32, esn: bool, top: u64) -> ReplayWindow {
    let mut window = window(window_packets, esn);
    window.commit(&Authentic::assume(top)).unwrap();
    window
}

fn commit(window: &mut ReplayWindow, sequence: u64) -> Result<(), ReplayError> {
    window.commit(&Authentic::assume(sequence))
}

#[test]
fn widths_round_up_to_whole_words_and_end_at_65536() {
    for (asked, kept) in
        [(0, 0), (1, 64), (32, 64), (64, 64), (65, 128), (128, 128), (65_535, 65_536), (65_536, 65_536)]
    {
        assert_eq!(window(asked, false).window_packets(), kept);
    }
    for found in [65_537, u32::MAX] {
        assert_eq!(ReplayWindow::new(found, false).unwrap_err(), WindowTooWide { found });
        assert_eq!(ReplayWindow::of_validated(found, false).window_packets(), WINDOW_PACKETS_MAX);
    }
}

#[test]
fn the_bitmap_is_no_larger_than_promised() {
    assert_eq!(window(0, false).words.len(), 0);
    assert_eq!(window(64, false).words.len(), 2);
    assert_eq!(window(128, false).words.len(), 4);
    assert_eq!(window(65_536, false).words.len(), 2_048);
}

#[test]
fn a_fresh_window_accepts_any_number_but_zero() {
    for sequence in [1, 63, 64, 65, u64::from(u32::MAX), u64::MAX] {
        assert_eq!(commit(&mut window(64, true), sequence), Ok(()));
    }
    for width in [0, 64] {
        let mut fresh = window(width, true);
        assert_eq!(fresh.top(), 0);
        assert_eq!(fresh.check(0), Err(ReplayError::TooOld));
        assert_eq!(commit(&mut fresh, 0), Err(ReplayError::TooOld));
    }
}

#[test]
fn hostile_32_the_same_number_is_accepted_once_over_the_whole_width() {
    for width in [64_u32, 128, 192, 1_024, 65_536] {
        let top = 200_000;
        let mut window = window_at(width, false, top);
        let oldest = top + 1 - u64::from(width);
        assert_eq!(commit(&mut window, oldest - 1), Err(ReplayError::TooOld));
        for sequence in oldest..top {
            assert_eq!(window.check(sequence), Ok(()), "{sequence}");
            assert_eq!(commit(&mut window, sequence), Ok(()));
            assert_eq!(window.check(sequence), Err(ReplayError::Duplicate));
            assert_eq!(commit(&mut window, sequence), Err(ReplayError::Duplicate));
        }
        assert_eq!(commit(&mut window, top), Err(ReplayError::Duplicate));
        assert_eq!(window.top(), top);
    }
}

#[test]
fn hostile_32_looking_moves_nothing() {
    let window = window_at(64, true, 1_000);
    let before = format!("{window:?}");
    for low in [1_001, 5_000, u32::MAX] {
        let sequence = window.candidate(low, 1 << 40);
        let _ = window.check(sequence);
    }
    assert_eq!(window.check(1 << 50), Ok(()));
    assert_eq!(format!("{window:?}"), before);
}

#[test]
fn a_jump_forgets_what_falls_out_and_nothing_else() {
    for jump in [1, 63, 64, 65, 127, 128, 191, 192, 255, 256, 257, 300, 1 << 20, 1 << 40] {
        let mut window = window(128, true);
        for sequence in 1..=500 {
            commit(&mut window, sequence).unwrap();
        }
        let top = 500 + jump;
        commit(&mut window, top).unwrap();
        for sequence in top - 127..top {
            let expected = if sequence <= 500 { Err(ReplayError::Duplicate) } else { Ok(()) };
            assert_eq!(window.check(sequence), expected, "jump {jump}, number {sequence}");
        }
        assert_eq!(window.check(top - 128), Err(ReplayError::TooOld));
    }
}

#[test]
fn without_a_window_everything_passes_and_the_top_still_follows() {
    let mut off = window(0, true);
    for sequence in [9, 9, 5, 1 << 33, 5] {
        assert_eq!(commit(&mut off, sequence), Ok(()));
    }
    assert_eq!(off.top(), 1 << 33);
    assert_eq!(off.candidate(7, 0), 1 << 33 | 7);
    off.reset();
    assert_eq!(off.top(), 0);
}

#[test]
fn without_esn_the_number_is_what_the_packet_says() {
    let window = window_at(64, false, 4_000_000_000);
    for low in [0, 1, u32::MAX] {
        assert_eq!(window.candidate(low, u64::MAX), u64::from(low));
    }
}

#[test]
fn hostile_33_every_step_around_two_to_the_32() {
    const BORDER: u64 = 1 << 32;
    for top in BORDER - 70..BORDER + 70 {
        for sequence in top - 70..top + 70 {
            let mut window = window_at(64, true, top);
            let oracle = Oracle { top, accepted: [top].into(), ..Oracle::new(64, true) };
            assert_eq!(window.candidate(sequence as u32, 0), sequence, "top {top}");
            assert_eq!(window.check(sequence), oracle.check(sequence), "top {top}, number {sequence}");
            assert_eq!(commit(&mut window, sequence), oracle.check(sequence));
        }
    }
}

#[test]
fn hostile_33_jumps_around_two_to_the_31() {
    const HALF: u64 = 1 << 31;
    for top in [5 << 32, (5 << 32) + 7, (6 << 32) - 1, (5 << 32) + HALF] {
        let window = window_at(64, true, top);
        // Up to half a subspace ahead is ahead; one more step is behind, and too old.
        assert_eq!(window.candidate((top + HALF - 1) as u32, 0), top + HALF - 1);
        assert_eq!(window.candidate((top + HALF) as u32, 0), top + HALF);
        let wrapped = window.candidate((top + HALF + 1) as u32, 0);
        assert_eq!(wrapped, top - (HALF - 1));
        assert_eq!(window.check(wrapped), Err(ReplayError::TooOld));
        assert_eq!(window.candidate((top - HALF + 1) as u32, 0), top - HALF + 1);
    }
}

#[test]
fn hostile_33_the_first_subspace_has_nothing_before_it() {
    let fresh = window(64, true);
    for low in [1, 1 << 31, (1 << 31) + 1, u32::MAX] {
        assert_eq!(fresh.candidate(low, 0), u64::from(low));
    }
    let young = window_at(64, true, 1_000);
    assert_eq!(young.candidate(u32::MAX, 0), u64::from(u32::MAX));
    assert_eq!(young.candidate(999, 0), 999);
    let nearly_half = window_at(64, true, (1 << 31) - 1);
    assert_eq!(nearly_half.candidate(u32::MAX, 0), u64::from(u32::MAX));
    let past_half = window_at(64, true, (1 << 31) + 1);
    assert_eq!(past_half.candidate(2, 0), 2);
    assert_eq!(past_half.candidate(1, 0), (1 << 32) + 1, "equally near: the later");
    assert_eq!(past_half.candidate(0, 0), 1 << 32);
}

#[test]
fn the_last_numbers_have_nothing_after_them() {
    let last = window_at(64, true, u64::MAX - 1);
    assert_eq!(last.candidate(u32::MAX, 0), u64::MAX);
    assert_eq!(last.candidate(0, 0), u64::MAX - u64::from(u32::MAX));
}

#[test]
fn a_hint_from_elsewhere_guides_the_guess_and_moves_nothing() {
    let window = window_at(64, true, 100);
    let hint = 7 << 32 | 50;
    assert_eq!(window.candidate(60, hint), 7 << 32 | 60);
    assert_eq!(window.candidate(60, 0), 60);
    assert_eq!(window.candidate(101, 99), 101, "a hint below the top changes nothing");
    assert_eq!(window.top(), 100);
}

#[test]
fn a_reset_window_has_seen_nothing() {
    let mut window = window(64, false);
    for sequence in 1..=100 {
        commit(&mut window, sequence).unwrap();
    }
    window.reset();
    assert_eq!(window.top(), 0);
    for sequence in 1..=100 {
        assert_eq!(commit(&mut window, sequence), Ok(()));
    }
}

/// Steps that stay near the top, cross it, leap, and go back.
fn steps() -> impl Strategy<Value = Vec<i64>> {
    let step = prop_oneof![
        8 => -150_i64..150,
        3 => -70_000_i64..70_000,
        1 => prop::sample::select(vec![1 << 31, (1 << 31) + 1, -(1 << 31), 1 << 32, 3 << 32, (1 << 31) - 1]),
    ];
    prop::collection::vec(step, 1..150)
}

proptest! {
    #[test]
    fn the_window_agrees_with_a_set(
        width in prop::sample::select(vec![0_u32, 64, 100, 128, 192, 256, 1_000, 4_096, 65_536]),
        start in prop::sample::select(vec![1_u64, 64, 1 << 31, (1 << 32) - 100, 1 << 32, (5 << 32) - 1, u64::MAX - (1 << 20)]),
        steps in steps(),
    ) {
        let mut window = window(width, true);
        let mut oracle = Oracle::new(window.window_packets().into(), true);
        let mut sequence = start;
        for step in steps {
            prop_assert_eq!(window.check(sequence), oracle.check(sequence), "{}", sequence);
            prop_assert_eq!(commit(&mut window, sequence), oracle.commit(sequence), "{}", sequence);
            prop_assert_eq!(window.top(), oracle.top);
            sequence = sequence.saturating_add_signed(step);
        }
    }

    #[test]
    fn candidates_agree_with_trying_all(top: u64, low: u32, hint: u64, near in -3_i64..3, shift in 0_u32..64) {
        let top = (top >> shift).max(1);
        let hint = hint >> shift;
        let window = window_at(64, true, top);
        let oracle = Oracle { top, ..Oracle::new(64, true) };
        prop_assert_eq!(window.candidate(low, 0), oracle.candidate(low, 0));
        prop_assert_eq!(window.candidate(low, hint), oracle.candidate(low, hint));
        // Where the choice tips over: half a subspace from the top.
        let tipping = top.wrapping_add(1 << 31).wrapping_add_signed(near) as u32;
        prop_assert_eq!(window.candidate(tipping, 0), oracle.candidate(tipping, 0));
    }

    /// What a receiver with ESN sees of a sender that goes on and on: low bits only.
    #[test]
    fn low_bits_alone_are_enough_for_an_honest_sender(start in 1_u64..1 << 34, steps in prop::collection::vec(-60_i64..1 << 30, 1..60)) {
        let mut window = window(64, true);
        let mut sequence = start % (1 << 32);
        for step in steps {
            sequence = sequence.max(1);
            prop_assert_eq!(window.candidate(sequence as u32, 0), sequence);
            let _ = commit(&mut window, sequence);
            sequence = window.top().saturating_add_signed(step);
        }
    }
}
