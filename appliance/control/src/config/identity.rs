//! IKE identities as strongSwan users write them.

use std::str::FromStr;

use ike::config::{Identity, IdentityPattern, IdentityTextError};

use super::error::{ConfigError, harmless};
use super::place::Place;
use super::raw::Word;

const IDENTITY_LEN_MAX: usize = 256;
const ONE: &str = "an address, a name such as gw.example, a mail address, or @# and hexadecimal digits";
const MANY: &str = "an address, a name such as gw.example, a mail address, @# and hexadecimal digits, \
                    or %any, *.example, *@example";

/// Who one end is.
pub(super) fn one(place: &Place<'_>, word: &Word) -> Result<Identity, ConfigError> {
    parse(place, word, ONE)
}

/// Whom one end may be.
pub(super) fn pattern(place: &Place<'_>, word: &Word) -> Result<IdentityPattern, ConfigError> {
    parse(place, word, MANY)
}

fn parse<T: FromStr<Err = IdentityTextError>>(place: &Place<'_>, word: &Word, allowed: &str) -> Result<T, ConfigError> {
    let text = word.value.as_str();
    if text.contains('=') {
        return Err(place.unserved(word, allowed, "distinguished names come with certificates"));
    }
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic());
    // `fqdn:x`, `keyid:x` and `{1}:x` would be taken as names, which nobody means.
    let typed = text.contains(':') && text.parse::<std::net::IpAddr>().is_err();
    if text.is_empty() || text.len() > IDENTITY_LEN_MAX || !plain || typed {
        return Err(place.invalid(word, allowed));
    }
    text.parse().map_err(|error: IdentityTextError| {
        let remedy = harmless(&error.to_string());
        ConfigError::Invalid(place.fault(word.referenced, format!("`{}`", harmless(text)), allowed, remedy))
    })
}

/// Whether a secret that is kept for `kept` can be the one for `meant`.
///
/// Which secret is taken is decided with IKE's identities in hand; here it is asked whether there can be one at all.
pub(super) fn can_serve(kept: &IdentityPattern, meant: &IdentityPattern) -> bool {
    match (kept, meant) {
        (IdentityPattern::Any, _) | (_, IdentityPattern::Any) => true,
        (IdentityPattern::Exactly(kept), IdentityPattern::Exactly(meant)) => kept == meant,
        (IdentityPattern::Ending(end), IdentityPattern::Exactly(who))
        | (IdentityPattern::Exactly(who), IdentityPattern::Ending(end)) => who.to_string().ends_with(&end.to_string()),
        (IdentityPattern::Ending(kept), IdentityPattern::Ending(meant)) => {
            let (kept, meant) = (kept.to_string(), meant.to_string());
            kept.ends_with(&meant) || meant.ends_with(&kept)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_saphyr::Location;

    use super::*;

    fn word(text: &str) -> Word {
        Word::new(text.into(), Location::UNKNOWN, Location::UNKNOWN)
    }

    #[test]
    fn reads_what_strongswan_users_write() {
        let file = Arc::from("p.yaml");
        let top = Place::top(&file);
        for text in ["192.0.2.1", "2001:db8::1", "gw.example", "@gw.example", "alice@example", "@#0aff"] {
            assert!(one(&top, &word(text)).is_ok(), "{text}");
            assert!(pattern(&top, &word(text)).is_ok(), "{text}");
        }
        for text in ["%any", "*", "*.example", "*@example"] {
            assert!(one(&top, &word(text)).is_err(), "{text}");
            assert!(pattern(&top, &word(text)).is_ok(), "{text}");
        }
        for text in ["", "CN=gw", "C=CH, O=x", "keyid:x", "fqdn:gw", "@#0", "a*b", "a b", "a\nb", &"x".repeat(257)] {
            assert!(pattern(&top, &word(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn secrets_serve_whom_they_name() {
        let can = |kept: &str, meant: &str| can_serve(&kept.parse().unwrap(), &meant.parse().unwrap());
        assert!(can("%any", "a.example") && can("a.example", "%any") && can("a.example", "A.example"));
        assert!(can("*.example", "a.example") && can("a.example", "*.example") && can("*.example", "*.b.example"));
        assert!(!can("a.example", "b.example") && !can("*.example", "a.test") && !can("*.example", "*.test"));
    }
}
