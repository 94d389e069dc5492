//! Simultaneous rekeying: who wins (RFC 7296 §2.8.1, §2.8.2).
//!
//! Both sides see the same two exchanges and the same four nonces, so both come to the same result without a word.

use crate::crypto::keys::Nonces;

/// What became of our own exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// What we made stays; we delete what it replaces, the peer deletes what it made itself.
    OursStays,
    /// What we made is redundant and we delete it; the peer deletes what was replaced.
    TheirsStays,
}

/// The exchange that the lowest of all four nonces took part in made the redundant SA.
pub(crate) fn judge(ours: &Nonces, theirs_lowest: &[u8]) -> Verdict {
    if ours.lowest() < theirs_lowest { Verdict::TheirsStays } else { Verdict::OursStays }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonces(initiator: u8, responder: u8) -> Nonces {
        Nonces { initiator: vec![initiator; 32], responder: vec![responder; 32] }
    }

    #[test]
    fn exactly_one_of_the_two_stays_wherever_the_lowest_nonce_is() {
        for order in [[1, 2, 3, 4], [4, 3, 2, 1], [2, 1, 3, 4], [3, 4, 1, 2], [2, 4, 3, 1]] {
            let (one, other) = (nonces(order[0], order[1]), nonces(order[2], order[3]));
            let (at_one, at_other) = (judge(&one, other.lowest()), judge(&other, one.lowest()));
            assert_ne!(at_one, at_other, "{order:?}");
            let one_has_lowest = order[0] == 1 || order[1] == 1;
            assert_eq!(at_one == Verdict::TheirsStays, one_has_lowest, "{order:?}");
        }
    }
}
