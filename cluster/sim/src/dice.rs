//! Seeded chance.

use core::time::Duration;

use rand_chacha::ChaCha12Rng;
use rand_core::{Rng as _, SeedableRng as _};

/// All chance of one kind, from one seed: what is drawn of one does not change what comes of another.
#[derive(Debug, Clone)]
pub struct Dice(ChaCha12Rng);

impl Dice {
    /// The dice of this name for this seed.
    #[must_use]
    pub fn new(seed: u64, name: &str) -> Dice {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_be_bytes());
        for (at, byte) in name.bytes().enumerate() {
            key[8 + at % 24] ^= byte.rotate_left(at as u32 / 24);
        }
        Dice(ChaCha12Rng::from_seed(key))
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        match end {
            0 => 0,
            end => self.0.next_u64() % end,
        }
    }

    /// A number in this range, both ends included.
    pub fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last.saturating_sub(first) + 1)
    }

    /// Whether something happens that happens so often in a thousand times.
    pub fn permille(&mut self, often: u64) -> bool {
        self.below(1_000) < often
    }

    /// A span in this range, both in microseconds.
    pub fn micros(&mut self, first: u64, last: u64) -> Duration {
        Duration::from_micros(self.between(first, last))
    }

    /// A span in this range, both in milliseconds.
    pub fn millis(&mut self, first: u64, last: u64) -> Duration {
        self.micros(first * 1_000, last * 1_000)
    }

    /// One of these; none of none.
    pub fn pick<'a, T>(&mut self, some: &'a [T]) -> Option<&'a T> {
        some.get(self.below(some.len() as u64) as usize)
    }

    /// A secret.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }
}
