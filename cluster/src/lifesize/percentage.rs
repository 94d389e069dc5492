//! How much of an SA's lifesize may go unreported: learned for each peer from how its last refreshes went.

use serde::{Deserialize, Serialize};

/// A percentage, in hundredths of a percent (1 to 10,000).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Percentage(u16);

/// How the refresh of one SA went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// The hard limit was reached before the new SA was in use.
    Late,
    /// The soft limit was told, and the new SA was in use in time.
    InTime,
    /// It was not the lifesize that ended the SA, so this says nothing.
    NotByLifesize,
}

impl Percentage {
    /// 0.05 %: below this, reports cost more than they tell.
    pub const MIN: Self = Self(5);
    /// 10 %: above this, operators would see old figures only.
    pub const MAX: Self = Self(1_000);
    /// Where a new peer starts: 2 %.
    pub const START: Self = Self(200);

    /// From hundredths of a percent, as another member says it; kept within the bounds.
    #[must_use]
    pub fn from_hundredths(hundredths: u16) -> Self {
        Self(hundredths).clamp(Self::MIN, Self::MAX)
    }

    /// In hundredths of a percent.
    #[must_use]
    pub const fn hundredths(self) -> u16 {
        self.0
    }

    /// After a refresh: halved if it came too late, so that the owner learns sooner; raised by a sixteenth if it came
    /// in time. So one late refresh weighs as much as eleven in time.
    #[must_use]
    pub fn after(self, refresh: Refresh) -> Self {
        match refresh {
            Refresh::Late => Self(self.0 / 2).max(Self::MIN),
            Refresh::InTime => Self(self.0 + (self.0 / 16).max(1)).min(Self::MAX),
            Refresh::NotByLifesize => self,
        }
    }

    /// The least that is this percentage of the whole; [`u64::MAX`] without a limit.
    #[must_use]
    pub fn of(self, whole: Option<u64>) -> u64 {
        whole.map_or(u64::MAX, |whole| (u128::from(whole) * u128::from(self.0)).div_ceil(10_000) as u64)
    }

    /// Whether so much is this percentage of the whole. Never without a limit.
    #[must_use]
    pub fn is_reached(self, whole: Option<u64>, part: u64) -> bool {
        part > 0 && whole.is_some_and(|whole| u128::from(part) * 10_000 >= u128::from(whole) * u128::from(self.0))
    }
}

impl Default for Percentage {
    fn default() -> Self {
        Self::START
    }
}

impl core::fmt::Display for Percentage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{:02} %", self.0 / 100, self.0 % 100)
    }
}
