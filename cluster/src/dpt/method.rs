//! The ways of choosing a target, and their words.

use core::fmt;
use core::str::FromStr;

/// How a target is chosen among those that are ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// One after the other.
    #[default]
    RoundRobin,
    /// In proportion to the weights, spread as evenly as can be.
    Weighted,
    /// Whoever has the fewest connections for its weight.
    WeightedActive,
    /// In proportion to what is free of each one's time, times its weight.
    LoadBased,
    /// The first that is ready, in configured order.
    HotStandby {
        /// Whether an earlier one that is ready again takes over from a later one that is in use. Has no word of its own:
        /// a setting beside the method.
        switches_back: bool,
    },
}

/// Words and methods.
const WORDS: [(&str, Method); 5] = [
    ("round-robin", Method::RoundRobin),
    ("weighted", Method::Weighted),
    ("weighted-active", Method::WeightedActive),
    ("load-based", Method::LoadBased),
    ("hot-standby", Method::HotStandby { switches_back: true }),
];

impl Method {
    /// The words that are understood.
    pub fn words() -> impl Iterator<Item = &'static str> {
        WORDS.into_iter().map(|(word, _)| word)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Method::RoundRobin => "round-robin",
            Method::Weighted => "weighted",
            Method::WeightedActive => "weighted-active",
            Method::LoadBased => "load-based",
            Method::HotStandby { .. } => "hot-standby",
        })
    }
}

/// A word that names no method.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no way to choose a target; write round-robin, weighted, weighted-active, load-based or hot-standby"
)]
pub struct UnknownMethod(pub String);

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(word: &str) -> Result<Method, UnknownMethod> {
        let found = WORDS.into_iter().find(|(known, _)| *known == word);
        found.map(|(_, method)| method).ok_or_else(|| UnknownMethod(word.to_owned()))
    }
}
