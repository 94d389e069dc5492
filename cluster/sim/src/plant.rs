//! Rules that can be broken on purpose, one at a time, to see that the simulator finds it.

use core::str::FromStr;

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// Frames carry no floor.
    Floor,
    /// Frames of any serial are taken.
    Serial,
    /// Frames for any start of a target are taken.
    Incarnation,
    /// All starts draw the same sender numbers.
    SenderId,
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 4] = [Plant::Floor, Plant::Serial, Plant::Incarnation, Plant::SenderId];

    /// Those that this build can break.
    pub fn available() -> impl Iterator<Item = Plant> {
        Plant::ALL.into_iter()
    }

    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Plant::Floor => "floor",
            Plant::Serial => "serial",
            Plant::Incarnation => "incarnation",
            Plant::SenderId => "sender-id",
        }
    }
}

impl FromStr for Plant {
    type Err = String;

    fn from_str(word: &str) -> Result<Plant, String> {
        let found = Plant::ALL.into_iter().find(|plant| plant.name() == word);
        found.ok_or_else(|| {
            let words: Vec<&str> = Plant::ALL.iter().map(|plant| plant.name()).collect();
            format!("found {word:?}; rules that can be broken are {}", words.join(", "))
        })
    }
}
