//! Putting IP fragments together again, within stated bounds.
//!
//! Self-contained: nothing but the standard library and our clock type. smoltcp has a reassembler too, but its few slots
//! are never taken back before their time-out: a stranger who sends a handful of first fragments keeps every peer from
//! negotiating. Here a newcomer displaces the oldest, first of its own source, so a flood costs its sender first.
//!
//! Fragments that overlap end their datagram (RFC 5722): nobody honest sends them. Memory is held for bytes received,
//! never for bytes announced.

use core::time::Duration;
use std::collections::BTreeMap;
use std::net::IpAddr;

use ipsec::time::Instant;

/// Most datagrams put together at one time.
pub const DATAGRAMS_MAX: usize = 256;
/// Most of them from one source address.
pub const DATAGRAMS_PER_SOURCE_MAX: usize = 16;
/// Most fragments of one datagram: 65,535 bytes in pieces of 1,024.
pub const FRAGMENTS_MAX: usize = 64;
/// Most payload bytes held in all.
pub const BYTES_MAX: usize = 4 << 20;
/// How long a datagram may take from its first fragment to its last (RFC 791 §3.2 suggests the value).
pub const TIMEOUT: Duration = Duration::from_secs(15);
/// Longest payload that an IP packet with a 20-byte header can carry.
const PAYLOAD_MAX: usize = 65_535 - 20;

/// What all fragments of one datagram have in common (RFC 791 §2.3, RFC 8200 §4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Who sent it.
    pub source: IpAddr,
    /// For whom it is.
    pub destination: IpAddr,
    /// What the whole datagram carries.
    pub protocol: u8,
    /// The sender's number for the datagram; 16 bits in IPv4.
    pub identification: u32,
}

/// One fragment of a datagram.
#[derive(Debug, Clone, Copy)]
pub struct Fragment<'a> {
    /// Which datagram it belongs to.
    pub key: Key,
    /// Where its payload begins in the datagram's payload, in bytes.
    pub offset: usize,
    /// Whether more of the datagram follows behind it.
    pub more: bool,
    /// Its part of the payload.
    pub payload: &'a [u8],
}

/// What became of a fragment.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is held until the rest comes.
    Held,
    /// It was the missing one: the datagram's payload, and how many fragments held before it took up.
    Whole {
        /// The payload of the whole datagram.
        payload: Vec<u8>,
        /// Fragments held before that are part of it.
        merged: u64,
    },
    /// The very same fragment is held already.
    Duplicate,
    /// It contradicts itself or what is held, and its datagram is given up.
    Malformed,
}

/// Fragments given up, by cause, since they were last asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// The datagram did not become whole in time.
    pub timed_out: u64,
    /// The datagram was displaced by newer ones.
    pub displaced: u64,
    /// The datagram was given up because a later fragment contradicted it.
    pub malformed: u64,
}

#[derive(Debug)]
struct Datagram {
    born: Instant,
    /// Offset → bytes; never overlapping.
    pieces: BTreeMap<usize, Vec<u8>>,
    held_bytes: usize,
    total_bytes: Option<usize>,
}

/// Datagrams waiting for their missing fragments.
#[derive(Debug, Default)]
pub struct Reassembler {
    datagrams: BTreeMap<Key, Datagram>,
    held_bytes: usize,
    lost: Lost,
}

impl Reassembler {
    /// Takes one fragment.
    pub fn handle_fragment(&mut self, now: Instant, fragment: &Fragment<'_>) -> Outcome {
        self.handle_timeout(now);
        let end = fragment.offset + fragment.payload.len();
        let ragged = fragment.more && !fragment.payload.len().is_multiple_of(8);
        if fragment.payload.is_empty() || ragged || end > PAYLOAD_MAX {
            return self.give_up(fragment.key);
        }
        self.make_room(fragment);
        let datagram = self.datagrams.entry(fragment.key).or_insert_with(|| Datagram {
            born: now,
            pieces: BTreeMap::new(),
            held_bytes: 0,
            total_bytes: None,
        });
        match datagram.place(fragment, end) {
            Placed::Duplicate => Outcome::Duplicate,
            Placed::Contradiction => self.give_up(fragment.key),
            Placed::Fits => {
                self.held_bytes += fragment.payload.len();
                self.finish(fragment.key)
            }
        }
    }

    /// Gives up what has waited too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        let overdue = |datagram: &Datagram| now.saturating_since(datagram.born) >= TIMEOUT;
        // The oldest is looked up first: most calls find nothing to do.
        while let Some((key, datagram)) = self.oldest(|_| true) {
            if !overdue(datagram) {
                break;
            }
            self.lost.timed_out += self.remove(key);
        }
    }

    /// When the next datagram will have waited too long.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.datagrams.values().map(|datagram| datagram.born + TIMEOUT).min()
    }

    /// How many fragments are held.
    pub fn held_fragments(&self) -> u64 {
        self.datagrams.values().map(|datagram| datagram.pieces.len() as u64).sum()
    }

    /// Fragments given up since the last call.
    pub fn take_lost(&mut self) -> Lost {
        core::mem::take(&mut self.lost)
    }

    fn make_room(&mut self, fragment: &Fragment<'_>) {
        let source = fragment.key.source;
        if !self.datagrams.contains_key(&fragment.key) {
            let of_source = self.datagrams.keys().filter(|key| key.source == source).count();
            if of_source >= DATAGRAMS_PER_SOURCE_MAX {
                self.displace_oldest(|key| key.source == source);
            }
            if self.datagrams.len() >= DATAGRAMS_MAX {
                self.displace_oldest(|_| true);
            }
        }
        while self.held_bytes + fragment.payload.len() > BYTES_MAX && self.displace_oldest(|key| *key != fragment.key) {
        }
    }

    fn displace_oldest(&mut self, of: impl Fn(&Key) -> bool) -> bool {
        let Some((key, _)) = self.oldest(of) else { return false };
        self.lost.displaced += self.remove(key);
        true
    }

    fn oldest(&self, of: impl Fn(&Key) -> bool) -> Option<(Key, &Datagram)> {
        let candidates = self.datagrams.iter().filter(|(key, _)| of(key));
        candidates.min_by_key(|(_, datagram)| datagram.born).map(|(key, datagram)| (*key, datagram))
    }

    fn finish(&mut self, key: Key) -> Outcome {
        if self.datagrams.get(&key).is_none_or(|datagram| datagram.total_bytes != Some(datagram.held_bytes)) {
            return Outcome::Held;
        }
        let Some(datagram) = self.datagrams.remove(&key) else { return Outcome::Held };
        self.held_bytes -= datagram.held_bytes;
        let merged = datagram.pieces.len() as u64 - 1;
        let payload =
            datagram.pieces.into_values().fold(Vec::with_capacity(datagram.held_bytes), |mut whole, piece| {
                whole.extend_from_slice(&piece);
                whole
            });
        Outcome::Whole { payload, merged }
    }

    fn give_up(&mut self, key: Key) -> Outcome {
        self.lost.malformed += self.remove(key);
        Outcome::Malformed
    }

    fn remove(&mut self, key: Key) -> u64 {
        let Some(datagram) = self.datagrams.remove(&key) else { return 0 };
        self.held_bytes -= datagram.held_bytes;
        datagram.pieces.len() as u64
    }
}

enum Placed {
    Fits,
    Duplicate,
    Contradiction,
}

impl Datagram {
    fn place(&mut self, fragment: &Fragment<'_>, end: usize) -> Placed {
        if self.pieces.get(&fragment.offset).is_some_and(|held| held == fragment.payload)
            && fragment.more == (self.total_bytes != Some(end))
        {
            return Placed::Duplicate;
        }
        let ends_before = |(&offset, piece): (&usize, &Vec<u8>)| offset + piece.len();
        let before = self.pieces.range(..=fragment.offset).next_back().map_or(0, ends_before);
        let behind = self.pieces.range(fragment.offset..).next().map_or(usize::MAX, |(&offset, _)| offset);
        let highest = self.pieces.last_key_value().map_or(0, ends_before).max(end);
        let total_bytes = match (fragment.more, self.total_bytes) {
            (true, total_bytes) => total_bytes,
            (false, None) => Some(end),
            (false, Some(_)) => return Placed::Contradiction,
        };
        let overlaps = before > fragment.offset || behind < end;
        if overlaps || total_bytes.is_some_and(|total| highest > total) || self.pieces.len() >= FRAGMENTS_MAX {
            return Placed::Contradiction;
        }
        self.total_bytes = total_bytes;
        self.held_bytes += fragment.payload.len();
        self.pieces.insert(fragment.offset, fragment.payload.to_vec());
        Placed::Fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    const NOW: Instant = Instant::from_secs(100);

    fn key(source: u32, identification: u32) -> Key {
        let destination = Ipv4Addr::new(192, 0, 2, 10).into();
        Key { source: Ipv4Addr::from_bits(source).into(), destination, protocol: 17, identification }
    }

    fn payload(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 7 + i / 256) as u8).collect()
    }

    fn cut(key: Key, payload: &[u8], size: usize) -> Vec<Fragment<'_>> {
        let pieces = payload.chunks(size).enumerate();
        let more = |i: usize| (i + 1) * size < payload.len();
        pieces.map(|(i, piece)| Fragment { key, offset: i * size, more: more(i), payload: piece }).collect()
    }

    #[test]
    fn overlapping_fragments_end_their_datagram() {
        let bytes = payload(64);
        for (offset, length) in [(8, 24), (24, 16), (0, 16), (16, 24), (16, 8)] {
            let mut reassembler = Reassembler::default();
            let first = Fragment { key: key(1, 1), offset: 16, more: true, payload: &bytes[16..32] };
            assert_eq!(reassembler.handle_fragment(NOW, &first), Outcome::Held);
            let second = Fragment { key: key(1, 1), offset, more: true, payload: &bytes[offset..offset + length] };
            let fits = offset + length <= 16;
            let expected = if fits { Outcome::Held } else { Outcome::Malformed };
            assert_eq!(reassembler.handle_fragment(NOW, &second), expected, "{offset}+{length}");
            assert_eq!(reassembler.take_lost().malformed, u64::from(!fits));
        }
    }

    #[test]
    fn contradictory_ends_end_their_datagram() {
        let bytes = payload(64);
        let last = Fragment { key: key(1, 1), offset: 32, more: false, payload: &bytes[..8] };
        let beyond = Fragment { offset: 40, more: true, ..last };
        let other_last = Fragment { offset: 48, ..last };
        for (first, second) in [(last, beyond), (beyond, last), (last, other_last), (other_last, last)] {
            let mut reassembler = Reassembler::default();
            assert_eq!(reassembler.handle_fragment(NOW, &first), Outcome::Held);
            assert_eq!(reassembler.handle_fragment(NOW, &second), Outcome::Malformed);
            assert_eq!(reassembler.held_fragments(), 0);
        }
    }

    #[test]
    fn impossible_fragments_are_refused() {
        let bytes = payload(16);
        let sound = Fragment { key: key(1, 1), offset: 0, more: true, payload: &bytes };
        for fragment in [
            Fragment { payload: &[], ..sound },
            Fragment { payload: &bytes[..9], ..sound },
            Fragment { offset: 65_528, more: false, ..sound },
        ] {
            assert_eq!(Reassembler::default().handle_fragment(NOW, &fragment), Outcome::Malformed);
        }
    }

    #[test]
    fn a_flood_displaces_its_own_source_first_and_memory_stays_bounded() {
        let mut reassembler = Reassembler::default();
        let bytes = payload(1_480);
        let honest = cut(key(7, 7), &bytes, 1_000);
        assert_eq!(reassembler.handle_fragment(NOW, &honest[0]), Outcome::Held);
        for identification in 0..100_000 {
            let fragment = Fragment { key: key(1, identification), offset: 0, more: true, payload: &bytes };
            reassembler.handle_fragment(NOW, &fragment);
        }
        assert_eq!(reassembler.datagrams.len(), DATAGRAMS_PER_SOURCE_MAX + 1);
        assert!(matches!(reassembler.handle_fragment(NOW, &honest[1]), Outcome::Whole { merged: 1, .. }));
        for source in 0..100_000 {
            let fragment = Fragment { key: key(source, 1), offset: 0, more: true, payload: &bytes };
            reassembler.handle_fragment(NOW, &fragment);
        }
        assert_eq!(reassembler.datagrams.len(), DATAGRAMS_MAX);
        assert!(reassembler.held_bytes <= BYTES_MAX);
    }

    #[test]
    fn long_datagrams_of_many_sources_stay_within_the_bytes_held() {
        let mut reassembler = Reassembler::default();
        let bytes = payload(60_000);
        for source in 0..200 {
            for piece in &cut(key(source, 1), &bytes, 1_480)[1..] {
                assert_eq!(reassembler.handle_fragment(NOW, piece), Outcome::Held);
                assert!(reassembler.held_bytes <= BYTES_MAX);
            }
        }
        let last = cut(key(199, 1), &bytes, 1_480)[0];
        assert!(
            matches!(reassembler.handle_fragment(NOW, &last), Outcome::Whole { .. }),
            "the newest is not displaced"
        );
    }

    #[test]
    fn tiny_fragments_do_not_pile_up() {
        let mut reassembler = Reassembler::default();
        let bytes = payload(8 * 200);
        let outcomes: Vec<_> =
            cut(key(1, 1), &bytes, 8).iter().map(|piece| reassembler.handle_fragment(NOW, piece)).collect();
        assert_eq!(outcomes.iter().position(|outcome| *outcome == Outcome::Malformed), Some(FRAGMENTS_MAX));
        assert!(!outcomes.iter().any(|outcome| matches!(outcome, Outcome::Whole { .. })));
    }

    #[test]
    fn what_never_becomes_whole_is_given_up_in_time() {
        let mut reassembler = Reassembler::default();
        let bytes = payload(1_000);
        let pieces = cut(key(1, 1), &bytes, 400);
        reassembler.handle_fragment(NOW, &pieces[0]);
        assert_eq!(reassembler.poll_timeout(), Some(NOW + TIMEOUT));
        reassembler.handle_timeout(NOW + TIMEOUT);
        assert_eq!(reassembler.take_lost(), Lost { timed_out: 1, ..Lost::default() });
        assert_eq!((reassembler.poll_timeout(), reassembler.held_bytes), (None, 0));
        assert_eq!(reassembler.handle_fragment(NOW + TIMEOUT, &pieces[2]), Outcome::Held, "the first is forgotten");
    }

    proptest! {
        #[test]
        fn any_order_with_duplicates_gives_the_datagram_back(
            length in 1_usize..60_000, size in 128_usize..200, seed in any::<u64>(),
        ) {
            let bytes = payload(length);
            let mut order = cut(key(1, 1), &bytes, size * 8);
            let doubled = order.clone();
            order.extend(doubled.into_iter().take(3));
            // A cheap shuffle: the order is what matters, not its quality.
            for i in (1..order.len()).rev() {
                order.swap(i, (seed.rotate_left(i as u32) % (i as u64 + 1)) as usize);
            }
            let mut reassembler = Reassembler::default();
            let mut whole = None;
            for fragment in &order {
                if let Outcome::Whole { payload, .. } = reassembler.handle_fragment(NOW, fragment) {
                    whole = whole.or(Some(payload));
                }
            }
            prop_assert_eq!(whole, Some(bytes));
        }

        #[test]
        fn random_fragments_keep_the_books(
            fragments in proptest::collection::vec((0_u32..3, 0_usize..12, 0_usize..5, any::<bool>()), 0..200),
        ) {
            let bytes = payload(64);
            let mut reassembler = Reassembler::default();
            let mut ended = 0;
            for (id, offset, length, more) in &fragments {
                let fragment = Fragment { key: key(1, *id), offset: offset * 8, more: *more, payload: &bytes[..length * 8] };
                ended += match reassembler.handle_fragment(NOW, &fragment) {
                    Outcome::Held => 0,
                    Outcome::Whole { merged, .. } => merged + 1,
                    Outcome::Duplicate | Outcome::Malformed => 1,
                };
            }
            let lost = reassembler.take_lost();
            let all = ended + lost.timed_out + lost.displaced + lost.malformed + reassembler.held_fragments();
            prop_assert_eq!(all, fragments.len() as u64);
            let held: usize = reassembler.datagrams.values().map(|datagram| datagram.held_bytes).sum();
            prop_assert_eq!(held, reassembler.held_bytes);
        }
    }
}
