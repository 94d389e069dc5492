//! IKE identities as strongSwan users write them.

use std::fmt;
use std::net::IpAddr;

use super::error::ConfigError;
use super::place::Place;
use super::raw::Word;
use super::word::token;

const IDENTITY_LEN_MAX: usize = 255;

/// Who one end of an IKE SA says it is (RFC 7296 §3.5).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// `192.0.2.1`: ID_IPV4_ADDR or ID_IPV6_ADDR.
    Address(IpAddr),
    /// `gw.example`, or `@gw.example`: ID_FQDN.
    Fqdn(String),
    /// `alice@example`: ID_RFC822_ADDR.
    Email(String),
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Fqdn(name) | Self::Email(name) => f.write_str(name),
        }
    }
}

/// The identity that a word names; `None` for `%any`.
pub(super) fn parse(place: &Place<'_>, word: &Word) -> Result<Option<Identity>, ConfigError> {
    let meaning = "an identity: an address, a name such as gw.example, a mail address, or %any for a peer's";
    let text = token(place, word, IDENTITY_LEN_MAX, meaning)?;
    if text == "%any" {
        return Ok(None);
    }
    if let Ok(address) = text.parse() {
        return Ok(Some(Identity::Address(address)));
    }
    let name = text.strip_prefix('@').unwrap_or(text);
    // Distinguished names, key ids, wildcards and typed forms (`fqdn:…`) mean something else than they seem to.
    if name.is_empty() || name.starts_with('@') || name.contains(['=', ':', '*', '%', '#', '/', ',']) {
        let served = "an address, a name such as gw.example, a mail address, or %any for a peer's";
        return Err(place.unserved(word, served, "other kinds of identity come with certificates"));
    }
    Ok(Some(match name.contains('@') {
        true => Identity::Email(name.to_owned()),
        false => Identity::Fqdn(name.to_owned()),
    }))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_saphyr::Location;

    use super::*;

    fn read(text: &str) -> Result<Option<Identity>, ConfigError> {
        let file = Arc::from("p.yaml");
        parse(&Place::top(&file), &Word::new(text.into(), Location::UNKNOWN, Location::UNKNOWN))
    }

    #[test]
    fn reads_what_strongswan_users_write() {
        assert_eq!(read("%any"), Ok(None));
        assert_eq!(read("192.0.2.1"), Ok(Some(Identity::Address("192.0.2.1".parse().unwrap()))));
        assert_eq!(read("2001:db8::1"), Ok(Some(Identity::Address("2001:db8::1".parse().unwrap()))));
        assert_eq!(read("gw.example"), Ok(Some(Identity::Fqdn("gw.example".into()))));
        assert_eq!(read("@gw.example"), read("gw.example"));
        assert_eq!(read("alice@example"), Ok(Some(Identity::Email("alice@example".into()))));
    }

    #[test]
    fn what_would_be_misunderstood_is_refused() {
        for text in
            ["CN=gw", "C=CH, O=x", "@#0102", "keyid:x", "*.example", "*@example", "%dynamic", "@", "@@x", "", "a b"]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
