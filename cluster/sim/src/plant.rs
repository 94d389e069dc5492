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
    /// A lost target seals no SA.
    Seal,
    /// Freeings tell the top of one SA of the peer only.
    Tops,
    /// What ended takes packets again before the owner has forgotten it.
    Tomb,
    /// Connections of a target that is believed lost are given up before SAs are sealed.
    EarlyLoss,
    /// A member carries more of an SA than it was granted.
    Grant,
}

impl Plant {
    /// All of them.
    pub const ALL: [Plant; 9] = [
        Plant::Floor,
        Plant::Serial,
        Plant::Incarnation,
        Plant::SenderId,
        Plant::Seal,
        Plant::Tops,
        Plant::Tomb,
        Plant::EarlyLoss,
        Plant::Grant,
    ];

    /// Those that this build can break: a build as it ships only what passes through the simulator's hands.
    pub fn available() -> impl Iterator<Item = Plant> {
        Plant::ALL.into_iter().filter(|plant| cfg!(phalanx_plant) || plant.is_outside())
    }

    /// Whether the simulator can break it without the appliance's help: on the trusted wire, at a start.
    const fn is_outside(self) -> bool {
        matches!(self, Plant::Floor | Plant::Serial | Plant::Incarnation | Plant::SenderId)
    }

    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Plant::Floor => "floor",
            Plant::Serial => "serial",
            Plant::Incarnation => "incarnation",
            Plant::SenderId => "sender-id",
            Plant::Seal => "seal",
            Plant::Tops => "tops",
            Plant::Tomb => "tomb",
            Plant::EarlyLoss => "early-loss",
            Plant::Grant => "grant",
        }
    }

    /// Breaks it in all that this thread does from now on.
    pub(crate) fn set(plant: Option<Plant>) {
        #[cfg(phalanx_plant)]
        ipsec::plant::set(plant.and_then(Plant::inside));
        #[cfg(not(phalanx_plant))]
        let _ = plant;
    }

    #[cfg(phalanx_plant)]
    const fn inside(self) -> Option<ipsec::plant::Rule> {
        use ipsec::plant::Rule;
        match self {
            Plant::Floor | Plant::Serial | Plant::Incarnation | Plant::SenderId => None,
            Plant::Seal => Some(Rule::Seal),
            Plant::Tops => Some(Rule::Tops),
            Plant::Tomb => Some(Rule::Tomb),
            Plant::EarlyLoss => Some(Rule::EarlyLoss),
            Plant::Grant => Some(Rule::Grant),
        }
    }
}

impl FromStr for Plant {
    type Err = String;

    fn from_str(word: &str) -> Result<Plant, String> {
        Plant::available().find(|plant| plant.name() == word).ok_or_else(|| {
            let words: Vec<&str> = Plant::available().map(Plant::name).collect();
            let more = if cfg!(phalanx_plant) { "" } else { "; `ci/plant` builds a simulator that can break more" };
            format!("found {word:?}; rules that can be broken are {}{more}", words.join(", "))
        })
    }
}
