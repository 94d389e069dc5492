//! Pre-shared keys, and which identities they are for.

use core::fmt;
use std::sync::Arc;

use super::{Identity, IdentityPattern};
use crate::crypto::Secret;

/// A pre-shared key: wiped when the last user drops it, never printed.
#[derive(Clone)]
pub struct Psk(Arc<Secret>);

/// A pre-shared key of no octets at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the pre-shared key is empty; expected at least one octet")]
pub struct EmptyPsk;

impl Psk {
    /// Takes the octets of a key.
    ///
    /// # Errors
    /// [`EmptyPsk`].
    pub fn new(octets: Vec<u8>) -> Result<Psk, EmptyPsk> {
        let secret = Secret::new(octets);
        if secret.is_empty() { Err(EmptyPsk) } else { Ok(Psk(Arc::new(secret))) }
    }

    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Psk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Psk(..)")
    }
}

/// All pre-shared keys.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    entries: Vec<(Vec<IdentityPattern>, Psk)>,
}

impl Secrets {
    /// Adds a key for the peers that one of `ids` names, or for everyone if there are none.
    pub fn add(&mut self, ids: Vec<IdentityPattern>, psk: Psk) {
        self.entries.push((ids, psk));
    }

    /// The key to use between these two: the one whose ids name the peer most closely; at a tie, the one that names us
    /// too, then the first.
    pub(crate) fn find(&self, local: &Identity, remote: &Identity) -> Option<&Psk> {
        let closeness = |ids: &[IdentityPattern], who: &Identity| ids.iter().filter_map(|id| id.matches(who)).max();
        let mut best: Option<((u8, u8), &Psk)> = None;
        for (ids, psk) in &self.entries {
            let peer = if ids.is_empty() { Some(0) } else { closeness(ids, remote) };
            let Some(peer) = peer else { continue };
            let rank = (peer, closeness(ids, local).unwrap_or(0));
            if best.is_none_or(|(best_rank, _)| rank > best_rank) {
                best = Some((rank, psk));
            }
        }
        best.map(|(_, psk)| psk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Identity {
        text.parse().unwrap()
    }

    #[test]
    fn the_closest_secret_is_found() {
        let mut secrets = Secrets::default();
        for (ids, octet) in
            [(&[][..], 1), (&["*.example.com"], 2), (&["a.example.com"], 3), (&["a.example.com", "gw"], 4)]
        {
            let ids = ids.iter().map(|id: &&str| id.parse().unwrap()).collect();
            secrets.add(ids, Psk::new(vec![octet]).unwrap());
        }
        let found = |local: &str, remote: &str| secrets.find(&id(local), &id(remote)).map(|psk| psk.octets()[0]);
        assert_eq!(found("other", "unknown.org"), Some(1));
        assert_eq!(found("other", "b.example.com"), Some(2));
        assert_eq!(found("other", "a.example.com"), Some(3));
        assert_eq!(found("gw", "a.example.com"), Some(4));
        assert_eq!(Secrets::default().find(&id("a"), &id("b")).map(Psk::octets), None);
    }

    #[test]
    fn a_key_is_not_empty_and_not_printed() {
        assert!(Psk::new(Vec::new()).is_err());
        assert_eq!(format!("{:?}", Psk::new(b"secret".to_vec()).unwrap()), "Psk(..)");
    }
}
