//! Where in the file we are, and faults that start from there.
//!
//! A [`Place`] costs nothing until a fault is made from it: it is a chain of borrowed steps on the stack.

use std::fmt;
use std::sync::Arc;

use serde_saphyr::Location;

use super::error::{ConfigError, Fault, Warning, harmless, quoted};
use super::raw::{List, Word};

/// A key or an item of the file, by the way that leads to it from the top.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    file: &'a Arc<str>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Top,
    Key(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl<'a> Place<'a> {
    /// The top of a file.
    pub(super) const fn top(file: &'a Arc<str>) -> Self {
        Self { file, step: Step::Top }
    }

    /// A key below this place.
    pub(super) const fn key(&'a self, key: &'a str) -> Self {
        Self { file: self.file, step: Step::Key(self, key) }
    }

    /// An item of the list at this place, from 0.
    const fn item(&'a self, index: usize) -> Self {
        Self { file: self.file, step: Step::Item(self, index) }
    }

    /// The items of the list at this place, each with its own place.
    pub(super) fn items<T>(&'a self, list: impl IntoIterator<Item = T>) -> impl Iterator<Item = (Self, T)> {
        list.into_iter().enumerate().map(|(index, item)| (self.item(index), item))
    }

    /// The items of a list that must not be empty, and not longer than `len_max`.
    pub(super) fn some_items<T>(
        &'a self,
        list: List<T>,
        len_max: usize,
    ) -> Result<impl Iterator<Item = (Self, T)>, ConfigError> {
        let found = list.value.len();
        if found == 0 || found > len_max {
            let (found, allowed) = (format!("{found} items"), format!("1 to {len_max} items"));
            return Err(ConfigError::Invalid(self.fault(list.referenced, found, allowed, "")));
        }
        Ok(self.items(list.value))
    }

    /// A fault at a value of this place.
    pub(super) fn fault(
        &self,
        at: Location,
        found: impl Into<String>,
        allowed: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Box<Fault> {
        Box::new(Fault {
            file: Arc::clone(self.file),
            line: at.line(),
            column: at.column(),
            path: self.to_string(),
            found: found.into(),
            allowed: allowed.into(),
            remedy: remedy.into(),
        })
    }

    /// The value cannot be understood, or lies outside its range.
    pub(super) fn invalid(&self, word: &Word, allowed: impl Into<String>) -> ConfigError {
        ConfigError::Invalid(self.fault(word.referenced, quoted(&word.value), allowed, ""))
    }

    /// The value is known and this version does not serve it.
    pub(super) fn unserved(&self, word: &Word, allowed: impl Into<String>, reason: &str) -> ConfigError {
        ConfigError::Unserved(self.fault(word.referenced, quoted(&word.value), allowed, reason))
    }

    /// The value excludes another one.
    pub(super) fn conflict(&self, word: &Word, other: &str, allowed: &str) -> ConfigError {
        ConfigError::Conflict(self.fault(word.referenced, format!("{}, {other}", quoted(&word.value)), allowed, ""))
    }

    /// The value stood somewhere already.
    pub(super) fn duplicate(&self, word: &Word, first_line: u64, allowed: &str) -> ConfigError {
        let found = format!("{}, which stands in line {first_line} already", quoted(&word.value));
        ConfigError::Duplicate(self.fault(word.referenced, found, allowed, "remove or change one of the two"))
    }

    /// The value refers to something that is not there.
    pub(super) fn dangling(&self, word: &Word, allowed: impl Into<String>, remedy: &str) -> ConfigError {
        ConfigError::Dangling(self.fault(word.referenced, quoted(&word.value), allowed, remedy))
    }

    /// A key is missing beside this value.
    pub(super) fn missing(&self, beside: &Word, key: &str, allowed: &str) -> ConfigError {
        ConfigError::MissingKey(self.fault(
            beside.referenced,
            format!("no key `{key}`"),
            allowed,
            format!("add `{key}:`"),
        ))
    }

    /// Something to be told about this value.
    pub(super) fn warning(&self, word: &Word, text: impl fmt::Display) -> Warning {
        Warning { file: Arc::clone(self.file), line: word.referenced.line(), text: format!("{self}: {text}") }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            Step::Top => Ok(()),
            Step::Key(Place { step: Step::Top, .. }, key) => f.write_str(key),
            // The operator may have chosen the key.
            Step::Key(parent, key) => write!(f, "{parent}.{}", harmless(key)),
            Step::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_way_from_the_top() {
        let file = Arc::from("p.yaml");
        let top = Place::top(&file);
        let ports = top.key("ports");
        let port = ports.item(1);
        assert_eq!(port.key("mtu").to_string(), "ports[1].mtu");
        assert_eq!(top.to_string(), "");
    }
}
