//! The six words that bound an SA's life: `rekey_…` is soft, `life_…` is hard, each for time, bytes and packets.

use std::time::Duration;

use ipsec::lifetime::{Lifetime, Limits, TimeLimits};

use super::error::{ConfigError, quoted};
use super::place::Place;
use super::raw::Word;
use super::word::{duration, number, size_bytes};

const TIME_MAX: Duration = Duration::from_secs(365 * 86_400);
const BYTES_MIN: u64 = 4_096;
const PACKETS_MIN: u64 = 16;

/// The words of one SA.
pub(super) struct Words {
    pub(super) rekey_time: Option<Word>,
    pub(super) life_time: Option<Word>,
    pub(super) rekey_bytes: Option<Word>,
    pub(super) life_bytes: Option<Word>,
    pub(super) rekey_packets: Option<Word>,
    pub(super) life_packets: Option<Word>,
}

/// A soft age, 0 for none.
pub(super) fn rekey_time(place: &Place<'_>, word: &Word) -> Result<Option<Duration>, ConfigError> {
    if word.value == "0" {
        return Ok(None);
    }
    duration(place, word, Duration::from_secs(1)..=TIME_MAX).map(Some)
}

/// Validates the words of the SA at `place`. Time ends at `default_rekey_time` where nothing is said.
pub(super) fn validate(
    place: &Place<'_>,
    words: &Words,
    default_rekey_time: Option<Duration>,
) -> Result<Lifetime, ConfigError> {
    let millis = |place: &Place<'_>, word: &Word| {
        rekey_time(place, word).map(|span| span.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    };
    let bytes = |place: &Place<'_>, word: &Word| zero_or(word, || size_bytes(place, word, BYTES_MIN..=u64::MAX / 2));
    let packets = |place: &Place<'_>, word: &Word| zero_or(word, || number(place, word, PACKETS_MIN..=u64::MAX / 2));

    let time = pair(place, ("rekey_time", &words.rekey_time), ("life_time", &words.life_time), millis)?;
    let time = match (&words.rekey_time, &words.life_time, default_rekey_time) {
        (None, None, Some(default)) => TimeLimits { soft: Some(default), hard: Some(default + default / 10) },
        (_, _, _) => {
            TimeLimits { soft: time.soft.map(Duration::from_millis), hard: time.hard.map(Duration::from_millis) }
        }
    };
    Ok(Lifetime {
        time,
        bytes: pair(place, ("rekey_bytes", &words.rekey_bytes), ("life_bytes", &words.life_bytes), bytes)?,
        packets: pair(place, ("rekey_packets", &words.rekey_packets), ("life_packets", &words.life_packets), packets)?,
    })
}

/// A soft limit without a hard one gets a tenth more as the hard one, as in strongSwan; a hard one without a soft one
/// gets a tenth less as the soft one, so that no SA ends without having been replaced.
fn pair(
    place: &Place<'_>,
    (soft_key, soft_word): (&str, &Option<Word>),
    (hard_key, hard_word): (&str, &Option<Word>),
    read: impl Fn(&Place<'_>, &Word) -> Result<Option<u64>, ConfigError>,
) -> Result<Limits, ConfigError> {
    let read_key = |key, word: &Option<Word>| match word {
        None => Ok(None),
        Some(word) => read(&place.key(key), word),
    };
    let soft = read_key(soft_key, soft_word)?;
    let hard = read_key(hard_key, hard_word)?;
    let limits = match (soft, hard) {
        (Some(soft), None) if hard_word.is_none() => Limits { soft: Some(soft), hard: Some(soft + (soft / 10).max(1)) },
        (None, Some(hard)) if soft_word.is_none() => Limits { soft: Some(hard - (hard / 10).max(1)), hard: Some(hard) },
        (soft, hard) => Limits { soft, hard },
    };
    match (limits.leaves_room(), soft_word, hard_word) {
        (false, Some(soft_word), Some(hard_word)) => {
            let found = format!("{}, with {soft_key} {}", quoted(&hard_word.value), quoted(&soft_word.value));
            let allowed = format!("more than {soft_key}, or 0 for no limit");
            Err(ConfigError::Invalid(place.key(hard_key).fault(hard_word.referenced, found, allowed, "")))
        }
        (_, _, _) => Ok(limits),
    }
}

fn zero_or(word: &Word, read: impl FnOnce() -> Result<u64, ConfigError>) -> Result<Option<u64>, ConfigError> {
    if word.value == "0" { Ok(None) } else { read().map(Some) }
}
