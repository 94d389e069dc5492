//! Why a configuration was refused, told so that the operator can put it right without asking anyone.

use std::fmt;
use std::sync::Arc;

/// The longest piece of the file that a message repeats, in characters.
const QUOTED_CHARS_MAX: usize = 80;

/// One fault in a configuration: where it is, what stands there, what may stand there, what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The configuration file, as it was named to us.
    pub file: Arc<str>,
    /// Line in that file, from 1. Zero when the fault is the file itself.
    pub line: u64,
    /// Column in that line, from 1. Zero when the fault is the file itself.
    pub column: u64,
    /// The way from the top of the file, such as `ports[1].mtu`. Empty when the fault is the file itself.
    pub path: String,
    /// What stands there.
    pub found: String,
    /// What may stand there.
    pub allowed: String,
    /// What the operator can do about it. May be empty when `allowed` says it all.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.path.is_empty() {
            write!(f, " {}:", self.path)?;
        }
        write!(f, " found {}; allowed: {}", self.found, self.allowed)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

/// A configuration that is not taken, by the kind of its first fault. Nothing of it is put to use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file itself cannot be read.
    #[error("cannot read the configuration: {0}")]
    Unreadable(Box<Fault>),
    /// The text is not YAML, or uses more of YAML than a configuration needs.
    #[error("not valid YAML: {0}")]
    Syntax(Box<Fault>),
    /// A key that does not exist here.
    #[error("unknown key: {0}")]
    UnknownKey(Box<Fault>),
    /// A key or a name that stands twice.
    #[error("duplicate: {0}")]
    Duplicate(Box<Fault>),
    /// A key that must be there and is not.
    #[error("missing key: {0}")]
    MissingKey(Box<Fault>),
    /// A list, mapping or single value where another of these belongs.
    #[error("wrong shape: {0}")]
    WrongShape(Box<Fault>),
    /// A value that cannot be understood, or lies outside its range.
    #[error("invalid value: {0}")]
    Invalid(Box<Fault>),
    /// A value that Phalanx knows and this version does not serve.
    #[error("not served yet: {0}")]
    Unserved(Box<Fault>),
    /// Two values that exclude each other, such as overlapping addresses.
    #[error("conflict: {0}")]
    Conflict(Box<Fault>),
    /// A name or address that refers to something that is not there.
    #[error("refers to nothing: {0}")]
    Dangling(Box<Fault>),
    /// A secret or key file that is missing, too open, or unusable.
    #[error("secret refused: {0}")]
    Secret(Box<Fault>),
}

impl ConfigError {
    /// The fault itself, whatever its kind.
    #[must_use]
    pub fn fault(&self) -> &Fault {
        match self {
            Self::Unreadable(fault)
            | Self::Syntax(fault)
            | Self::UnknownKey(fault)
            | Self::Duplicate(fault)
            | Self::MissingKey(fault)
            | Self::WrongShape(fault)
            | Self::Invalid(fault)
            | Self::Unserved(fault)
            | Self::Conflict(fault)
            | Self::Dangling(fault)
            | Self::Secret(fault) => fault,
        }
    }
}

/// Something that is accepted and should not go unnoticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The configuration file, as it was named to us.
    pub file: Arc<str>,
    /// Line in that file, from 1. Zero when the whole file is meant.
    pub line: u64,
    /// What the operator should know.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:", self.line)?;
        }
        write!(f, " {}", self.text)
    }
}

/// Text from the file as a message shows it: quoted, bounded, without control characters.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", harmless(text))
}

/// Text from the file, bounded and without control characters.
pub(super) fn harmless(text: &str) -> String {
    let mut shown = String::new();
    for char in text.chars().take(QUOTED_CHARS_MAX) {
        match char {
            '\'' | '"' | '\\' => shown.push(char),
            _ => shown.extend(char.escape_debug()),
        }
    }
    if text.chars().nth(QUOTED_CHARS_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Words as a list that a message shows: `a, b, c`.
pub(super) fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_from_the_file_is_short_and_harmless() {
        assert_eq!(quoted("it's \\plain"), "`it's \\plain`");
        assert_eq!(quoted("a\u{1b}[2Jb\n"), "`a\\u{1b}[2Jb\\n`");
        assert_eq!(quoted(&"x".repeat(5000)).chars().count(), QUOTED_CHARS_MAX + 3);
    }

    #[test]
    fn a_fault_says_where_what_and_what_instead() {
        let mut fault = Fault {
            file: "p.yaml".into(),
            line: 3,
            column: 7,
            path: "ports[0].mtu".into(),
            found: "`9`".into(),
            allowed: "576 to 9216".into(),
            remedy: String::new(),
        };
        assert_eq!(fault.to_string(), "p.yaml:3:7: ports[0].mtu: found `9`; allowed: 576 to 9216");
        fault = Fault { line: 0, path: String::new(), remedy: "create it".into(), ..fault };
        assert_eq!(fault.to_string(), "p.yaml: found `9`; allowed: 576 to 9216; create it");
    }
}
