//! Names of clusters and members, and the DNS name that a certificate carries for the two.

use core::fmt;

/// The last label of every name in a certificate of ours, which no public DNS has.
const SUFFIX: &str = "phalanx";

/// The name of a cluster or of a member: a DNS label in lower case (RFC 1035 §2.3.1), so that it stands in a
/// certificate as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<str>);

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no name; expected 1 to 63 of a-z, 0-9 and -, the first and the last no -")]
pub struct NameError {
    /// What was found, its beginning if it is long.
    pub found: String,
}

impl Name {
    /// Reads a name.
    ///
    /// # Errors
    /// A text that is no DNS label in lower case.
    pub fn new(text: &str) -> Result<Name, NameError> {
        let bytes = text.as_bytes();
        let is_letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_sound = (1..=63).contains(&bytes.len())
            && bytes.iter().all(|byte| is_letter(byte) || *byte == b'-')
            && bytes.first().is_some_and(is_letter)
            && bytes.last().is_some_and(is_letter);
        match is_sound {
            true => Ok(Name(text.into())),
            false => Err(NameError { found: text.chars().take(80).collect() }),
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The DNS name of this member in a certificate of that cluster.
    #[must_use]
    pub fn dns_name_in(&self, cluster: &Name) -> String {
        format!("{self}.{cluster}.{SUFFIX}")
    }

    /// The member and the cluster that a DNS name speaks of. DNS knows no case.
    #[must_use]
    pub fn from_dns_name(dns_name: &str) -> Option<(Name, Name)> {
        let lower = dns_name.to_ascii_lowercase();
        let mut labels = lower.split('.');
        let (member, cluster, suffix) = (labels.next()?, labels.next()?, labels.next()?);
        let is_ours = suffix == SUFFIX && labels.next().is_none();
        is_ours.then(|| Some((Name::new(member).ok()?, Name::new(cluster).ok()?))).flatten()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dns_labels_in_lower_case_are_names() {
        for text in ["a", "1", "node-1", &"x".repeat(63)] {
            assert_eq!(Name::new(text).unwrap().as_str(), text);
        }
        for text in ["", "-a", "a-", "A", "a.b", "a_b", "*", "ä", &"x".repeat(64)] {
            assert!(Name::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_dns_name_speaks_of_one_member_of_one_cluster() {
        let (member, cluster) = (Name::new("node-1").unwrap(), Name::new("east").unwrap());
        assert_eq!(member.dns_name_in(&cluster), "node-1.east.phalanx");
        assert_eq!(Name::from_dns_name("Node-1.EAST.Phalanx"), Some((member, cluster)));
        for other in [
            "node-1.east",
            "node-1.east.phalanx.",
            "x.node-1.east.phalanx",
            "node-1.east.example",
            "*.east.phalanx",
            "",
        ] {
            assert_eq!(Name::from_dns_name(other), None, "{other}");
        }
    }
}
