//! From text to the raw document, and the parser's complaints in our own words.

use std::sync::Arc;

use serde_path_to_error::Segment;
use serde_saphyr::Error;

use super::error::{ConfigError, Fault, harmless, listed, quoted};
use super::raw::Document;

/// The longest configuration that is read, in bytes.
pub(super) const TEXT_LEN_MAX: usize = 1 << 20;

/// Nesting that a configuration can need: `connections`, one of them, `children`, one of them, a list, its item.
const DEPTH_MAX: usize = 16;

/// Values that aliases may put in by repetition.
const ALIASED_VALUES_MAX: usize = 10_000;

/// The one thing about YAML that surprises people who write selectors.
const BRACKETS: &str = "inside `[…]` a selector with brackets needs quotes: ['10.1.0.0/16[tcp/80]']";

/// Reads the structure of `text`.
pub(super) fn read(text: &str, file: &Arc<str>) -> Result<Document, ConfigError> {
    if text.len() > TEXT_LEN_MAX {
        return Err(ConfigError::Unreadable(whole_file(
            file,
            format!("{} bytes", text.len()),
            format!("at most {TEXT_LEN_MAX} bytes"),
        )));
    }
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        reject_unsupported_tags: true,
        budget: serde_saphyr::budget! { max_depth: DEPTH_MAX, flow_nesting_limit: DEPTH_MAX },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: ALIASED_VALUES_MAX },
    };
    let mut path = String::new();
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            path = readable(error.path());
            error.into_inner()
        })
    })
    .map_err(|error| explain(error.without_snippet(), file, text, path))
}

/// A fault of the file as a whole.
pub(super) fn whole_file(file: &Arc<str>, found: String, allowed: String) -> Box<Fault> {
    Box::new(Fault {
        file: Arc::clone(file),
        line: 0,
        column: 0,
        path: String::new(),
        found,
        allowed,
        remedy: String::new(),
    })
}

/// The path as the operator knows it. No key of ours is called `value`, so that step is a span's wrapper; a name that
/// the operator chose is not known here, but the line says which it is.
fn readable(path: &serde_path_to_error::Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Map { key } if key == "value" => {}
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key: name } | Segment::Enum { variant: name } => push_step(&mut text, name),
            Segment::Unknown => push_step(&mut text, "*"),
        }
    }
    text
}

fn push_step(path: &mut String, step: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(&harmless(step));
}

fn explain(error: &Error, file: &Arc<str>, text: &str, path: String) -> ConfigError {
    let (line, column) = error.location().map_or((0, 0), |place| (place.line(), place.column()));
    let fault = |found: String, allowed: String, remedy: &str| {
        let (file, path, remedy) = (Arc::clone(file), path.clone(), remedy.to_owned());
        Box::new(Fault { file, line, column, path, found, allowed, remedy })
    };
    match error {
        Error::SerdeUnknownField { field, expected, .. } => {
            let remedy = nearest(field, expected).map(|near| format!("did you mean `{near}`?")).unwrap_or_default();
            ConfigError::UnknownKey(fault(quoted(field), listed(expected.iter().copied()), &remedy))
        }
        Error::SerdeMissingField { field, .. } => {
            let found = format!("no key `{field}`");
            ConfigError::MissingKey(fault(found, format!("`{field}` must be here"), "add it"))
        }
        Error::DuplicateMappingKey { key, .. } => {
            let found = key.as_deref().map_or("a key".to_owned(), quoted);
            let found = format!("{found}, which stands in this mapping already");
            ConfigError::Duplicate(fault(found, "each key once".into(), "remove or rename one of the two"))
        }
        Error::SerdeInvalidType { unexpected, expected, .. } => {
            ConfigError::WrongShape(fault(harmless(unexpected), expected.clone(), ""))
        }
        Error::Unexpected { expected, .. } => {
            ConfigError::WrongShape(fault(shape_at(text, line, column).into(), plain_shape(expected).into(), ""))
        }
        Error::NullIntoString { .. } => ConfigError::WrongShape(fault(
            "no value".into(),
            "a single value".into(),
            "write a value or remove the key",
        )),
        Error::MultipleDocuments { .. } => {
            ConfigError::Syntax(fault("a second document".into(), "one document".into(), "remove what follows `---`"))
        }
        Error::Eof { .. } => ConfigError::Syntax(fault(
            "the end of the text".into(),
            "a mapping (`key: value`), `ports` at least".into(),
            "",
        )),
        Error::AliasError { error, .. } => explain(error, file, text, path),
        // The parser's own set is open and grows; its words are good and its snippets are left out.
        other => {
            let words = other.to_string();
            let words = words.split(" at line ").next().unwrap_or_default();
            let remedy = if path.ends_with("_ts") { BRACKETS } else { "" };
            ConfigError::Syntax(fault(harmless(words), "YAML 1.2".into(), remedy))
        }
    }
}

/// The parser's words for what it wanted, in the operator's.
fn plain_shape(expected: &str) -> &str {
    match expected {
        "mapping start" => "a mapping (`key: value`)",
        "sequence start" => "a list (`- item` or `[item, item]`)",
        "string scalar" => "a single value",
        other => other,
    }
}

/// What stands at a place, without repeating it: it may be a secret in a wrong place.
fn shape_at(text: &str, line: u64, column: u64) -> &'static str {
    let nth = |number: u64| usize::try_from(number.saturating_sub(1)).unwrap_or(usize::MAX);
    let rest = text.lines().nth(nth(line)).unwrap_or_default();
    let rest = rest.char_indices().nth(nth(column)).map_or("", |(at, _)| &rest[at..]);
    match rest.chars().next() {
        None | Some('#') => "nothing",
        Some('{') => "a mapping",
        Some('[') => "a list",
        Some('-') if rest == "-" || rest.starts_with("- ") => "a list",
        Some(_) if rest.contains(": ") || rest.ends_with(':') => "a mapping",
        Some(_) => "a single value",
    }
}

/// The allowed word that a misspelt one most probably means.
fn nearest<'a>(found: &str, allowed: &[&'a str]) -> Option<&'a str> {
    const EDITS_MAX: usize = 2;
    if found.len() > 40 {
        return None;
    }
    let near = allowed.iter().map(|word| (edits(found, word), *word)).min()?;
    (near.0 <= EDITS_MAX && near.0 < found.len()).then_some(near.1)
}

/// Letters to insert, remove or replace to make one word of the other (Levenshtein).
fn edits(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, letter) in one.chars().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (at, against) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *against);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_words_are_recognised_and_strange_ones_are_not() {
        let allowed = ["ports", "routes", "local_ts", "mtu"];
        assert_eq!(nearest("port", &allowed), Some("ports"));
        assert_eq!(nearest("local-ts", &allowed), Some("local_ts"));
        assert_eq!(nearest("mtuu", &allowed), Some("mtu"));
        assert_eq!(nearest("x", &allowed), None);
        assert_eq!(nearest("interfaces", &allowed), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn a_bomb_of_aliases_is_refused_in_no_time() {
        let mut text = String::from("eal:\n  args: &a0 [x, x, x, x, x, x, x, x, x, x]\nroutes:\n");
        for level in 1..12 {
            let previous = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("  - &a{level} [{previous}]\n"));
        }
        assert!(read(&text, &"p.yaml".into()).is_err());
        let nested = format!("eal: {}", "[".repeat(100_000));
        assert!(read(&nested, &"p.yaml".into()).is_err());
    }
}
