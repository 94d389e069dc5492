//! What an appliance remembers of its facility, as a small text that an operator can read.

use core::fmt::Write as _;
use core::net::IpAddr;
use std::collections::BTreeMap;

const HEAD: &str = "what this appliance has seen of its coupling facility, version 1";

/// Addresses that are remembered; beyond, what the counters say must do.
const EPOCHS_MAX: usize = 10_000;

/// The highest of everything that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// Which facility it was.
    pub identity: Option<[u8; 16]>,
    /// How often it had been voided.
    pub generation: u64,
    /// Its revision.
    pub revision: u64,
    /// The last incarnation that was drawn, by anybody.
    pub incarnations: u64,
    /// The first sender number that was not drawn.
    pub senders: u64,
    /// The epoch of each DVIPA.
    pub epochs: BTreeMap<IpAddr, u64>,
}

/// The text is not ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: found {found:?}, expected {expected}")]
pub struct RememberedError {
    /// Which line, from 1.
    pub line: usize,
    /// What stands there.
    pub found: String,
    /// What should.
    pub expected: &'static str,
}

impl Remembered {
    /// Notes an epoch. Returns whether it is higher than any before.
    pub(super) fn saw_epoch(&mut self, address: IpAddr, epoch: u64) -> bool {
        if self.epochs.len() >= EPOCHS_MAX && !self.epochs.contains_key(&address) {
            return false;
        }
        let highest = self.epochs.entry(address).or_default();
        let is_higher = epoch > *highest;
        *highest = epoch.max(*highest);
        is_higher
    }

    /// As text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = format!("{HEAD}\n");
        if let Some(identity) = self.identity {
            // Writing into a string does not fail.
            let _ = writeln!(text, "identity {:032x}", u128::from_be_bytes(identity));
        }
        let Remembered { identity: _, generation, revision, incarnations, senders, epochs } = self;
        let numbers =
            [("generation", generation), ("revision", revision), ("incarnations", incarnations), ("senders", senders)];
        for (word, number) in numbers {
            let _ = writeln!(text, "{word} {number}");
        }
        for (address, epoch) in epochs {
            let _ = writeln!(text, "epoch {address} {epoch}");
        }
        text.push_str("end\n");
        text
    }

    /// From text.
    ///
    /// # Errors
    /// [`RememberedError`]; a text that was cut off is refused too.
    pub fn from_text(text: &str) -> Result<Remembered, RememberedError> {
        let mut remembered = Remembered::default();
        let mut is_whole = false;
        for (line, found) in (1..).zip(text.lines()) {
            let expected = |expected| RememberedError { line, found: found.to_owned(), expected };
            if line == 1 {
                if found != HEAD {
                    return Err(expected("the heading of version 1"));
                }
                continue;
            }
            if is_whole {
                return Err(expected("nothing after `end`"));
            }
            let words: Vec<&str> = found.split(' ').collect();
            let number = |word: &str| word.parse::<u64>().map_err(|_| expected("a decimal number"));
            match words[..] {
                ["identity", word] if word.len() == 32 => {
                    let number = u128::from_str_radix(word, 16).map_err(|_| expected("32 hexadecimal digits"))?;
                    remembered.identity = Some(number.to_be_bytes());
                }
                ["generation", word] => remembered.generation = number(word)?,
                ["revision", word] => remembered.revision = number(word)?,
                ["incarnations", word] => remembered.incarnations = number(word)?,
                ["senders", word] => remembered.senders = number(word)?,
                ["epoch", address, word] => {
                    let address = address.parse().map_err(|_| expected("an address"))?;
                    remembered.epochs.insert(address, number(word)?);
                }
                ["end"] => is_whole = true,
                _ => return Err(expected("a word of version 1 and its value")),
            }
        }
        if is_whole {
            Ok(remembered)
        } else {
            let line = text.lines().count() + 1;
            Err(RememberedError { line, found: String::new(), expected: "`end`" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one() -> Remembered {
        Remembered {
            identity: Some([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]),
            generation: 2,
            revision: 1_000,
            incarnations: 7,
            senders: 70_000,
            epochs: [("203.0.113.80".parse().unwrap(), 5), ("2001:db8::80".parse().unwrap(), 6)].into(),
        }
    }

    #[test]
    fn reads_back_as_it_was() {
        for remembered in [one(), Remembered::default()] {
            assert_eq!(Remembered::from_text(&remembered.to_text()), Ok(remembered));
        }
    }

    #[test]
    fn a_text_that_was_cut_off_or_changed_is_refused() {
        let whole = one().to_text();
        for len in 0..whole.len() - 1 {
            assert!(Remembered::from_text(&whole[..len]).is_err(), "{:?}", &whole[..len]);
        }
        for (from, to) in [("version 1", "version 2"), ("7000", "x"), ("epoch 203", "epoch x"), ("end", "end\nend")] {
            assert!(Remembered::from_text(&whole.replacen(from, to, 1)).is_err(), "{to}");
        }
    }
}
