//! Fragmented IKE messages (RFC 7383): reassembly of what has been authenticated, fragment by fragment.

use core::time::Duration;
use std::collections::BTreeMap;

use ipsec::time::Instant;

use crate::kept::RequestDigest;
use crate::message::ExchangeType;

/// Fragments wait so long for the rest of their message.
const PATIENCE: Duration = Duration::from_secs(15);

/// No message comes in more fragments. The longest that is taken by default makes 34 of the smallest datagrams that
/// every IPv4 host takes (576 octets); without a bound of their own, fragments of nothing would cost no octets.
const FRAGMENTS_MAX: u16 = 64;

/// Which message a fragment is of, among those of one IKE SA that are alike requests or alike responses: one that is
/// both at once, or of two exchanges, was never sent by anybody (RFC 7383 §2.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MessageName {
    pub(crate) message_id: u32,
    pub(crate) exchange: ExchangeType,
}

/// An authenticated fragment.
pub(crate) struct Fragment {
    pub(crate) of: MessageName,
    pub(crate) number: u16,
    pub(crate) total: u16,
    /// Type of the first payload; only the first fragment tells.
    pub(crate) first: u8,
    pub(crate) plain: Vec<u8>,
    /// Digest of the datagram that brought it.
    pub(crate) digest: RequestDigest,
}

/// A message put together.
pub(crate) struct Assembled {
    pub(crate) first: u8,
    pub(crate) plain: Vec<u8>,
    /// Digest of the datagram with the first fragment: the one whose repetition asks for the response again
    /// (RFC 7383 §2.6.1).
    pub(crate) digest: RequestDigest,
}

/// The fragments of one message. Of one IKE SA never more than one request and one response of the peer can be
/// expected, so it has one assembly for each.
#[derive(Default)]
pub(crate) struct Assembly {
    of: Option<MessageName>,
    total: u16,
    parts: BTreeMap<u16, Fragment>,
    octets: usize,
    until: Option<Instant>,
}

/// Why a fragment is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unwanted;

impl Assembly {
    /// Adds a fragment; gives the message when it was the last one missing.
    pub(crate) fn add(
        &mut self,
        now: Instant,
        fragment: Fragment,
        octets_max: usize,
    ) -> Result<Option<Assembled>, Unwanted> {
        if fragment.total > FRAGMENTS_MAX {
            return Err(Unwanted);
        }
        let is_stale = self.until.is_none_or(|until| until <= now);
        // A larger total means that the peer has begun again with smaller fragments (RFC 7383 §2.6).
        if is_stale || self.of != Some(fragment.of) || fragment.total > self.total {
            self.clear();
            self.of = Some(fragment.of);
            self.total = fragment.total;
            self.until = Some(now + PATIENCE);
        }
        if fragment.total != self.total || self.parts.contains_key(&fragment.number) {
            return Err(Unwanted);
        }
        if self.octets + fragment.plain.len() > octets_max {
            self.clear();
            return Err(Unwanted);
        }
        self.octets += fragment.plain.len();
        self.parts.insert(fragment.number, fragment);
        if self.parts.len() < usize::from(self.total) {
            return Ok(None);
        }
        let mut plain = Vec::with_capacity(self.octets);
        let parts = core::mem::take(&mut self.parts);
        let head = parts.values().next().map(|part| (part.first, part.digest));
        parts.values().for_each(|part| plain.extend_from_slice(&part.plain));
        self.clear();
        head.map(|(first, digest)| Some(Assembled { first, plain, digest })).ok_or(Unwanted)
    }

    fn clear(&mut self) {
        *self = Assembly::default();
    }

    /// When what is kept must be forgotten.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.until
    }

    pub(crate) fn on_time(&mut self, now: Instant) {
        if self.until.is_some_and(|until| until <= now) {
            self.clear();
        }
    }

    pub(crate) fn octets(&self) -> usize {
        self.octets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(message_id: u32) -> MessageName {
        MessageName { message_id, exchange: ExchangeType::Informational }
    }

    fn fragment(message_id: u32, number: u16, total: u16) -> Fragment {
        let plain = vec![number as u8; 10];
        Fragment {
            of: name(message_id),
            number,
            total,
            first: if number == 1 { 35 } else { 0 },
            plain,
            digest: [number as u8; 32],
        }
    }

    fn add(assembly: &mut Assembly, seconds: u64, fragment: Fragment) -> Result<Option<Assembled>, Unwanted> {
        assembly.add(Instant::from_secs(seconds), fragment, 100)
    }

    fn is_kept(result: Result<Option<Assembled>, Unwanted>) -> bool {
        matches!(result, Ok(None))
    }

    #[test]
    fn fragments_in_any_order_make_the_message() {
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
            let mut assembly = Assembly::default();
            assert!(is_kept(add(&mut assembly, 0, fragment(5, order[0], 3))));
            assert!(is_kept(add(&mut assembly, 1, fragment(5, order[1], 3))));
            let whole = add(&mut assembly, 2, fragment(5, order[2], 3)).unwrap().unwrap();
            assert_eq!((whole.first, whole.digest), (35, [1; 32]));
            assert_eq!(whole.plain, [[1; 10], [2; 10], [3; 10]].concat());
            assert_eq!((assembly.octets(), assembly.next_timeout()), (0, None));
        }
    }

    #[test]
    fn hostile_19_duplicates_and_other_totals_are_not_kept() {
        let mut assembly = Assembly::default();
        assert!(is_kept(add(&mut assembly, 0, fragment(5, 1, 3))));
        assert_eq!(add(&mut assembly, 0, fragment(5, 1, 3)).err(), Some(Unwanted));
        assert_eq!(add(&mut assembly, 0, fragment(5, 2, 2)).err(), Some(Unwanted));
        assert_eq!(assembly.octets(), 10);
        // A larger total begins anew.
        assert!(is_kept(add(&mut assembly, 0, fragment(5, 4, 4))));
        assert_eq!((assembly.octets(), assembly.total), (10, 4));
        // So does another message.
        assert!(is_kept(add(&mut assembly, 0, fragment(6, 2, 2))));
        assert_eq!((assembly.octets(), assembly.of), (10, Some(name(6))));
        // And a message of another exchange under the same number.
        let of = MessageName { exchange: ExchangeType::CreateChildSa, ..name(6) };
        assert!(is_kept(add(&mut assembly, 0, Fragment { of, ..fragment(6, 1, 2) })));
        assert_eq!((assembly.octets(), assembly.of), (10, Some(of)));
    }

    #[test]
    fn hostile_19_fragments_of_nothing_are_bounded_in_number() {
        let empty = |number, total| Fragment { plain: Vec::new(), ..fragment(5, number, total) };
        let mut assembly = Assembly::default();
        for number in 1..=1_000 {
            assert_eq!(add(&mut assembly, 0, empty(number, FRAGMENTS_MAX + 1)).err(), Some(Unwanted));
        }
        assert_eq!((assembly.parts.len(), assembly.next_timeout()), (0, None));
        for number in 1..FRAGMENTS_MAX {
            assert!(is_kept(add(&mut assembly, 0, empty(number, FRAGMENTS_MAX))));
        }
        assert!(add(&mut assembly, 0, empty(FRAGMENTS_MAX, FRAGMENTS_MAX)).unwrap().is_some());
    }

    #[test]
    fn hostile_19_what_never_completes_is_bounded_in_octets_and_time() {
        let mut assembly = Assembly::default();
        for number in 1..=10 {
            assert!(is_kept(add(&mut assembly, 0, fragment(5, number, 60))));
        }
        assert_eq!(add(&mut assembly, 0, fragment(5, 11, 60)).err(), Some(Unwanted));
        assert_eq!(assembly.octets(), 0);
        assert!(is_kept(add(&mut assembly, 0, fragment(5, 1, 2))));
        assembly.on_time(Instant::from_secs(14));
        assert_eq!(assembly.octets(), 10);
        assembly.on_time(Instant::from_secs(15));
        assert_eq!((assembly.octets(), assembly.next_timeout()), (0, None));
        assert!(is_kept(add(&mut assembly, 20, fragment(5, 1, 2))));
        assert!(is_kept(add(&mut assembly, 36, fragment(5, 2, 2))), "a stale half counts no more");
    }
}
