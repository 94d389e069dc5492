//! What links do to frames.

use core::time::Duration;
use std::collections::BTreeMap;

use ipsec::time::Instant;

use crate::dice::Dice;

/// How bad a link is. Chances in a thousand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Frames that are lost.
    pub lost: u64,
    /// Frames that come twice, the second time late.
    pub repeated: u64,
    /// Frames that come late, by up to `late_max`.
    pub late: u64,
    /// How late the late are.
    pub late_max: Duration,
    /// Whether frames may overtake each other otherwise.
    pub reorders: bool,
}

impl Weather {
    /// Nothing happens to frames.
    pub const FINE: Weather = Weather { lost: 0, repeated: 0, late: 0, late_max: Duration::ZERO, reorders: false };

    /// One that chance gives.
    pub fn draw(dice: &mut Dice) -> Weather {
        let often = |dice: &mut Dice, max| if dice.permille(600) { dice.below(max) } else { 0 };
        Weather {
            lost: often(dice, 60),
            repeated: often(dice, 80),
            late: often(dice, 80),
            late_max: dice.millis(1, 600),
            reorders: dice.permille(400),
        }
    }
}

/// A link between stations: fair or foul, and in order unless it is foul.
#[derive(Debug)]
pub struct Link {
    /// What it is like now.
    pub weather: Weather,
    latency_micros: (u64, u64),
    /// When the last frame from one station to another arrives.
    last: BTreeMap<(u64, u64), Instant>,
}

impl Link {
    /// A link in fine weather with a latency in this range.
    #[must_use]
    pub fn new(first_micros: u64, last_micros: u64) -> Link {
        Link { weather: Weather::FINE, latency_micros: (first_micros, last_micros), last: BTreeMap::new() }
    }

    /// When a frame from one station to another arrives: never, once, or twice.
    pub fn arrivals(&mut self, now: Instant, way: (u64, u64), dice: &mut Dice) -> Vec<Instant> {
        let Weather { lost, repeated, late, late_max, reorders } = self.weather;
        let (first, last) = self.latency_micros;
        if dice.permille(lost) {
            return Vec::new();
        }
        let late_max = late_max.as_micros() as u64;
        let mut at = now + dice.micros(first, last);
        if dice.permille(late) {
            at += dice.micros(0, late_max);
        } else if !reorders {
            let before = self.last.entry(way).or_insert(at);
            at = at.max(*before + Duration::from_nanos(1));
            *before = at;
        }
        let mut arrivals = vec![at];
        if dice.permille(repeated) {
            arrivals.push(at + dice.micros(0, late_max));
        }
        arrivals
    }
}
