//! Rules that the simulator breaks on purpose, to see that it finds what comes of it.
//!
//! There is none of this in any build but that with `--cfg phalanx_plant`, which only `ci/plant` makes. It is no feature:
//! features of one crate reach all others that are built beside it.

use std::cell::Cell;

/// A rule that can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A lost target seals no SA.
    Seal,
    /// Freeings tell the top of one SA of the peer only.
    Tops,
    /// What ended takes packets again before the owner has forgotten it.
    Tomb,
    /// The connections of a target that is believed lost are given up before its loss is recorded and SAs are sealed.
    EarlyLoss,
    /// A member carries more of an SA than it was granted.
    Grant,
}

thread_local! {
    static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
}

/// Breaks one rule, or none, on this thread.
pub fn set(rule: Option<Rule>) {
    BROKEN.set(rule);
}

/// Whether this rule is broken.
#[must_use]
pub fn breaks(rule: Rule) -> bool {
    BROKEN.get() == Some(rule)
}
