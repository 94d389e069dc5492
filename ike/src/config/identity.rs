//! IKE identities (RFC 7296 §3.5) and patterns of them.

use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::str::FromStr;

use crate::message::payload::{IdKind, Identification};

/// Longer identities are refused: they would be kept for as long as the peer lives.
const IDENTITY_BYTES_MAX: usize = 256;

/// An IKE identity. Names are compared without regard to ASCII case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    kind: IdKind,
    data: Vec<u8>,
}

impl Identity {
    fn new(kind: IdKind, data: &[u8]) -> Identity {
        let data = match kind {
            IdKind::FQDN | IdKind::RFC822 => data.to_ascii_lowercase(),
            _ => data.to_vec(),
        };
        Identity { kind, data }
    }

    /// The identity of whoever has this address.
    #[must_use]
    pub fn address(address: IpAddr) -> Identity {
        match address {
            IpAddr::V4(address) => Identity::new(IdKind::IPV4, &address.octets()),
            IpAddr::V6(address) => Identity::new(IdKind::IPV6, &address.octets()),
        }
    }

    /// The identity in a payload, unless it is too long to be kept or an address of the wrong length.
    pub(crate) fn from_payload(payload: &Identification<'_>) -> Option<Identity> {
        let (kind, data) = (payload.kind(), payload.data());
        let fits = match kind {
            IdKind::IPV4 => data.len() == 4,
            IdKind::IPV6 => data.len() == 16,
            _ => (1..=IDENTITY_BYTES_MAX).contains(&data.len()),
        };
        fits.then(|| Identity::new(kind, data))
    }

    /// Whether its octets, read as text, mean this identity and no other.
    fn is_plain(&self) -> bool {
        let text =
            core::str::from_utf8(&self.data).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
        // The end of mail addresses in a pattern looks like no other kind either.
        let ends_mail = |text: &str| self.kind == IdKind::RFC822 && text.starts_with('@') && !text.starts_with("@#");
        text.is_some_and(|text| !text.starts_with('{') && (ends_mail(text) || text.parse().as_ref() == Ok(self)))
    }

    /// The body of the payload that claims this identity.
    pub(crate) fn to_payload_body(&self) -> Vec<u8> {
        Identification::body_of(self.kind, &self.data)
    }
}

impl fmt::Display for Identity {
    /// As strongSwan writes it, and never as it writes another: a name that would be read as one of another kind, or that
    /// holds octets which do not print, is shown by the number of its kind and in hexadecimal. The peer chose it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == IdKind::IPV4
            && let Ok(octets) = <[u8; 4]>::try_from(self.data.as_slice())
        {
            return write!(f, "{}", Ipv4Addr::from(octets));
        }
        if self.kind == IdKind::IPV6
            && let Ok(octets) = <[u8; 16]>::try_from(self.data.as_slice())
        {
            return write!(f, "{}", Ipv6Addr::from(octets));
        }
        match self.kind {
            IdKind::FQDN | IdKind::RFC822 if self.is_plain() => write!(f, "{}", self.data.escape_ascii()),
            IdKind::KEY_ID => f.write_str("@#").and_then(|()| write_hex(f, &self.data)),
            // Also a name that is not what it looks like.
            IdKind(number) => write!(f, "{{{number}}}:#").and_then(|()| write_hex(f, &self.data)),
        }
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> fmt::Result {
    octets.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self})")
    }
}

/// Why a text is no identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityTextError {
    /// Nothing, or too much.
    #[error("an identity of {found} bytes; expected 1 to {IDENTITY_BYTES_MAX}")]
    Length {
        /// How many.
        found: usize,
    },
    /// A distinguished name.
    #[error(
        "{0:?} looks like a distinguished name, which needs certificates; allowed are an address, a host name, a mail address, @#hex"
    )]
    DistinguishedName(String),
    /// `@#` without octets in hexadecimal.
    #[error("{0:?} is no key id; expected @# and pairs of hexadecimal digits")]
    KeyId(String),
    /// A pattern where one identity must stand.
    #[error("{0:?} names many; expected one identity")]
    Pattern(String),
    /// A star that is not at the start of a name.
    #[error("{0:?} has a * where none may stand; allowed are *, *.example.com and *@example.com")]
    Star(String),
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) || text.is_empty() {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

fn parse(text: &str) -> Result<Identity, IdentityTextError> {
    if !(1..=IDENTITY_BYTES_MAX).contains(&text.len()) {
        return Err(IdentityTextError::Length { found: text.len() });
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Identity::address(address));
    }
    if let Some(hex) = text.strip_prefix("@#") {
        let octets = parse_hex(hex).ok_or_else(|| IdentityTextError::KeyId(text.to_owned()))?;
        return Ok(Identity::new(IdKind::KEY_ID, &octets));
    }
    if text.contains('=') {
        return Err(IdentityTextError::DistinguishedName(text.to_owned()));
    }
    Ok(match text.strip_prefix('@') {
        Some(name) => Identity::new(IdKind::FQDN, name.as_bytes()),
        None if text.contains('@') => Identity::new(IdKind::RFC822, text.as_bytes()),
        None => Identity::new(IdKind::FQDN, text.as_bytes()),
    })
}

impl FromStr for Identity {
    type Err = IdentityTextError;

    /// An address, `host.example.com` (or `@host`), `user@example.com`, `@#` and hexadecimal digits for a key id.
    fn from_str(text: &str) -> Result<Identity, IdentityTextError> {
        if text.contains('*') || text == "%any" {
            return Err(IdentityTextError::Pattern(text.to_owned()));
        }
        parse(text)
    }
}

/// Which identities are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityPattern {
    /// Everyone: `%any` or `*`.
    Any,
    /// Every identity of the kind that ends so: `*.example.com`, `*@example.com`.
    Ending(Identity),
    /// Just this one.
    Exactly(Identity),
}

impl IdentityPattern {
    /// How closely this names `who`, if at all: the larger, the closer.
    pub(crate) fn matches(&self, who: &Identity) -> Option<u8> {
        match self {
            IdentityPattern::Any => Some(1),
            IdentityPattern::Ending(end) => (end.kind == who.kind && who.data.ends_with(&end.data)).then_some(2),
            IdentityPattern::Exactly(id) => (id == who).then_some(3),
        }
    }
}

impl FromStr for IdentityPattern {
    type Err = IdentityTextError;

    /// As for [`Identity`], or `%any`, `*`, `*.example.com`, `*@example.com`.
    fn from_str(text: &str) -> Result<IdentityPattern, IdentityTextError> {
        if text == "%any" || text == "*" {
            return Ok(IdentityPattern::Any);
        }
        let star = || IdentityTextError::Star(text.to_owned());
        match text.strip_prefix('*') {
            None if text.contains('*') => Err(star()),
            None => parse(text).map(IdentityPattern::Exactly),
            Some(end) if end.contains('*') => Err(star()),
            Some(end) if end.starts_with('.') => {
                Ok(IdentityPattern::Ending(Identity::new(IdKind::FQDN, end.as_bytes())))
            }
            Some(end) if end.starts_with('@') => {
                Ok(IdentityPattern::Ending(Identity::new(IdKind::RFC822, end.as_bytes())))
            }
            Some(_) => Err(star()),
        }
    }
}

impl fmt::Display for IdentityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityPattern::Any => f.write_str("%any"),
            IdentityPattern::Ending(end) => write!(f, "*{end}"),
            IdentityPattern::Exactly(id) => fmt::Display::fmt(id, f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_the_kinds_that_strongswan_makes_of_them() {
        for (text, kind, shown) in [
            ("192.0.2.1", IdKind::IPV4, "192.0.2.1"),
            ("2001:db8::1", IdKind::IPV6, "2001:db8::1"),
            ("Host.Example.com", IdKind::FQDN, "host.example.com"),
            ("@host", IdKind::FQDN, "host"),
            ("user@Example.com", IdKind::RFC822, "user@example.com"),
            ("@#0aFF", IdKind::KEY_ID, "@#0aff"),
        ] {
            let id: Identity = text.parse().unwrap();
            assert_eq!((id.kind, id.to_string().as_str()), (kind, shown));
        }
        for text in ["", "CN=x", "@#0", "@#zz", "*.example.com", "%any"] {
            assert!(text.parse::<Identity>().is_err(), "{text}");
        }
    }

    #[test]
    fn patterns_name_who_they_say() {
        let matches =
            |pattern: &str, id: &str| pattern.parse::<IdentityPattern>().unwrap().matches(&id.parse().unwrap());
        assert_eq!(matches("%any", "192.0.2.1"), Some(1));
        assert_eq!(matches("*.example.com", "a.example.COM"), Some(2));
        assert_eq!(matches("*.example.com", "example.com"), None);
        assert_eq!(matches("*@example.com", "u@example.com"), Some(2));
        assert_eq!(matches("*.example.com", "u@a.example.com"), None);
        assert_eq!(matches("a.example.com", "A.example.com"), Some(3));
        assert_eq!(matches("a.example.com", "b.example.com"), None);
        for text in ["a*b", "*a", "**", "*.a*"] {
            assert!(text.parse::<IdentityPattern>().is_err(), "{text}");
        }
    }

    /// Peers are told apart by what they are called.
    #[test]
    fn no_identity_is_shown_as_another_is() {
        let claimed = |kind, data: &[u8]| {
            let body = Identification::body_of(kind, data);
            Identity::from_payload(&Identification::from_body(&body).unwrap()).unwrap()
        };
        for text in ["alice@example.com", "192.0.2.1", "@#0aff", "{3}:#61", "host", "@host", "2001:db8::1", "Host"] {
            let kinds = [IdKind::FQDN, IdKind::RFC822, IdKind::KEY_ID];
            let mut shown: Vec<_> = kinds.map(|kind| claimed(kind, text.as_bytes()).to_string()).into();
            shown.push(claimed(IdKind::RFC822, b"a").to_string());
            let count = shown.len();
            shown.sort();
            shown.dedup();
            assert_eq!(shown.len(), count, "{shown:?}");
        }
        assert_eq!(claimed(IdKind::RFC822, b"alice@example.com").to_string(), "alice@example.com");
        assert_ne!(claimed(IdKind::FQDN, b"alice@example.com").to_string(), "alice@example.com");
        assert_ne!(claimed(IdKind::FQDN, b"192.0.2.1").to_string(), "192.0.2.1");
        assert_ne!(claimed(IdKind::FQDN, b"@#0aff").to_string(), "@#0aff");
    }

    #[test]
    fn what_a_peer_sends_is_bounded_and_escaped() {
        let body = Identification::body_of(IdKind::FQDN, b"a\nb\x1b[31m");
        let id = Identity::from_payload(&Identification::from_body(&body).unwrap()).unwrap();
        assert_eq!(id.to_string(), "{2}:#610a621b5b33316d");
        for (kind, length) in [(IdKind::FQDN, 0), (IdKind::FQDN, 257), (IdKind::IPV4, 5), (IdKind::IPV6, 4)] {
            let body = Identification::body_of(kind, &vec![b'a'; length]);
            assert_eq!(Identity::from_payload(&Identification::from_body(&body).unwrap()), None);
        }
    }
}
