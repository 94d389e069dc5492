//! Single values: words of a closed set, numbers, names, spans of time, amounts of bytes.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::error::{ConfigError, listed};
use super::place::Place;
use super::raw::Word;

const NAME_LEN_MAX: usize = 64;
const NAMES: &str = "1 to 64 letters, digits, `-`, `_` or `.`, the first a letter or a digit";
const DURATIONS: &str =
    "a whole number with a unit: ms, s, m, h, d (such as 500ms, 30s, 4h); without a unit it is seconds";
const SIZES: &str = "a whole number of bytes with a unit: kB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB \
                     or k, M, G, T (powers of 1024); without a unit it is bytes";

/// One of a closed set of words.
pub(super) fn choice<T: Copy>(place: &Place<'_>, word: &Word, table: &[(&str, T)]) -> Result<T, ConfigError> {
    choice_with_unserved(place, word, table, &[], "")
}

/// One of a closed set of words, where others are known and come later.
pub(super) fn choice_with_unserved<T: Copy>(
    place: &Place<'_>,
    word: &Word,
    table: &[(&str, T)],
    unserved: &[&str],
    reason: &str,
) -> Result<T, ConfigError> {
    if let Some((_, value)) = table.iter().find(|(name, _)| *name == word.value) {
        return Ok(*value);
    }
    let allowed = listed(table.iter().map(|(name, _)| *name));
    if unserved.contains(&word.value.as_str()) {
        return Err(place.unserved(word, allowed, reason));
    }
    Err(place.invalid(word, allowed))
}

/// `true` or `false`, and no other spelling.
pub(super) fn truth(place: &Place<'_>, word: &Word) -> Result<bool, ConfigError> {
    choice(place, word, &[("true", true), ("false", false)])
}

/// A decimal number in a range.
pub(super) fn number<T>(place: &Place<'_>, word: &Word, range: RangeInclusive<T>) -> Result<T, ConfigError>
where
    T: FromStr + PartialOrd + Display,
{
    let decimal = word.value.bytes().all(|byte| byte.is_ascii_digit());
    match word.value.parse() {
        Ok(number) if decimal && range.contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(place.invalid(word, format!("a whole number from {} to {}", range.start(), range.end()))),
    }
}

/// A name that the operator gives to something.
pub(super) fn name(place: &Place<'_>, word: &Word) -> Result<Arc<str>, ConfigError> {
    let text = word.value.as_str();
    let starts_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    let reads_well = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if starts_well && reads_well && text.len() <= NAME_LEN_MAX {
        return Ok(Arc::from(text));
    }
    Err(place.invalid(word, NAMES))
}

/// Text of printable ASCII characters without blanks, bounded.
pub(super) fn token<'w>(
    place: &Place<'_>,
    word: &'w Word,
    len_max: usize,
    meaning: &str,
) -> Result<&'w str, ConfigError> {
    let text = word.value.as_str();
    if !text.is_empty() && text.len() <= len_max && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text);
    }
    Err(place.invalid(word, format!("{meaning}: 1 to {len_max} printable ASCII characters without blanks")))
}

/// A span of time within bounds.
pub(super) fn duration(
    place: &Place<'_>,
    word: &Word,
    range: RangeInclusive<Duration>,
) -> Result<Duration, ConfigError> {
    match parse_duration(&word.value) {
        Some(span) if range.contains(&span) => Ok(span),
        Some(_) => Err(place.invalid(word, format!("{:?} to {:?}", range.start(), range.end()))),
        None => Err(place.invalid(word, DURATIONS)),
    }
}

/// An amount of bytes within bounds.
pub(super) fn size_bytes(place: &Place<'_>, word: &Word, range: RangeInclusive<u64>) -> Result<u64, ConfigError> {
    match parse_size_bytes(&word.value) {
        Some(size) if range.contains(&size) => Ok(size),
        Some(_) => Err(place.invalid(word, format!("{} to {} bytes", range.start(), range.end()))),
        None => Err(place.invalid(word, SIZES)),
    }
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit))
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text)?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3_600),
        "d" => seconds(86_400),
        _ => None,
    }
}

fn parse_size_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text)?;
    let factor = match unit {
        "" | "B" => 1,
        "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "k" | "K" | "KiB" => 1 << 10,
        "m" | "M" | "MiB" => 1 << 20,
        "g" | "G" | "GiB" => 1 << 30,
        "t" | "T" | "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use serde_saphyr::Location;

    use super::*;

    fn word(text: &str) -> Word {
        Word::new(text.into(), Location::UNKNOWN, Location::UNKNOWN)
    }

    #[test]
    fn durations_have_units() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("30", 30_000),
            ("2m", 120_000),
            ("4h", 14_400_000),
            ("1d", 86_400_000),
            ("0", 0),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "h", "4 h", "-1s", "1.5h", "1h30m", "4H", "99999999999999999999s", "999999999999999999d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_tell_thousands_from_powers_of_two() {
        for (text, bytes) in [
            ("1500", 1500),
            ("500MB", 500_000_000),
            ("1GiB", 1 << 30),
            ("64k", 65_536),
            ("64kB", 64_000),
            ("2T", 2 << 40),
        ] {
            assert_eq!(parse_size_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "MB", "5 MB", "5mb", "-1", "1e9", "99999999999999999999", "99999999TiB"] {
            assert_eq!(parse_size_bytes(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_are_decimal_and_in_range() {
        let file = Arc::from("p.yaml");
        let top = Place::top(&file);
        assert_eq!(number(&top, &word("1500"), 576..=9216_u16), Ok(1500));
        for text in ["575", "9217", "+1500", "0x5dc", "1_500", "", "70000", " 1500"] {
            assert!(number(&top, &word(text), 576..=9216_u16).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_fit_for_logs_and_metrics() {
        let file = Arc::from("p.yaml");
        let top = Place::top(&file);
        for text in ["net0", "Office-2.example_x", "0"] {
            assert!(name(&top, &word(text)).is_ok(), "{text}");
        }
        for text in ["", "-net", "a b", "é", "a/b", "a\nb", &"x".repeat(65)] {
            assert!(name(&top, &word(text)).is_err(), "{text}");
        }
    }
}
