//! What frames of the kinds `NumberRequest` and `NumberGrant` carry, in network order.
//!
//! ```text
//! request, 16 bytes:  0 number u64 · 8 want u16 · 10 zero (6 bytes)
//! grant, 24 bytes:    0 number u64 · 8 first u64 · 16 count u16 · 18 zero (6 bytes)
//! ```

/// Length of a request, in bytes.
pub const REQUEST_LEN: usize = 16;
/// Length of a grant, in bytes.
pub const GRANT_LEN: usize = 24;

/// A sender asks for numbers. It thereby says that it is done with all that its earlier requests brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Grows with each request of one sender for one SA, also when the SA was removed there and installed again.
    /// The same again means the same request again.
    pub number: u64,
    /// How many packets wait. 0 only confirms.
    pub want: u16,
}

/// The owner's answer to a [`Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The request's.
    pub number: u64,
    /// The first sequence number; 0 if there is none.
    pub first: u64,
    /// How many from there on. 0 says that a confirmation has been heard.
    pub count: u16,
}

/// Why a payload is neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPayload {
    /// It has not the length that its kind has.
    #[error("a payload of {found} bytes where {expected} are expected; do all members run the same version?")]
    Length {
        /// Bytes found.
        found: usize,
        /// Bytes expected.
        expected: usize,
    },
    /// Bytes that must be zero are not.
    #[error("reserved bytes are not zero; do all members run the same version?")]
    NotZero,
    /// It grants number 0, or numbers past the end of all numbers.
    #[error("it grants {count} numbers from {first} on, which no SA has")]
    NoSuchNumbers {
        /// The first.
        first: u64,
        /// How many.
        count: u16,
    },
}

impl Request {
    /// As a frame carries it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; REQUEST_LEN] {
        let mut bytes = [0; REQUEST_LEN];
        bytes[..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.want.to_be_bytes());
        bytes
    }

    /// From a frame's payload.
    ///
    /// # Errors
    /// [`BadPayload`].
    pub fn parse(payload: &[u8]) -> Result<Self, BadPayload> {
        let bytes: &[u8; REQUEST_LEN] = sized(payload)?;
        let [a, b, c, d, e, f, g, h, want @ .., _, _, _, _, _, _] = *bytes;
        must_be_zero(&bytes[10..])?;
        Ok(Self { number: u64::from_be_bytes([a, b, c, d, e, f, g, h]), want: u16::from_be_bytes(want) })
    }
}

impl Grant {
    /// As a frame carries it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; GRANT_LEN] {
        let mut bytes = [0; GRANT_LEN];
        bytes[..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.first.to_be_bytes());
        bytes[16..18].copy_from_slice(&self.count.to_be_bytes());
        bytes
    }

    /// From a frame's payload.
    ///
    /// # Errors
    /// [`BadPayload`].
    pub fn parse(payload: &[u8]) -> Result<Self, BadPayload> {
        let bytes: &[u8; GRANT_LEN] = sized(payload)?;
        must_be_zero(&bytes[18..])?;
        let [a, b, c, d, e, f, g, h, rest @ ..] = *bytes;
        let [i, j, k, l, m, n, o, p, count @ .., _, _, _, _, _, _] = rest;
        let first = u64::from_be_bytes([i, j, k, l, m, n, o, p]);
        let count = u16::from_be_bytes(count);
        if count > 0 && (first == 0 || first.checked_add(u64::from(count)).is_none()) {
            return Err(BadPayload::NoSuchNumbers { first, count });
        }
        Ok(Self { number: u64::from_be_bytes([a, b, c, d, e, f, g, h]), first, count })
    }
}

fn sized<const LEN: usize>(payload: &[u8]) -> Result<&[u8; LEN], BadPayload> {
    payload.try_into().map_err(|_| BadPayload::Length { found: payload.len(), expected: LEN })
}

fn must_be_zero(bytes: &[u8]) -> Result<(), BadPayload> {
    if bytes.iter().all(|&byte| byte == 0) { Ok(()) } else { Err(BadPayload::NotZero) }
}

const _: () = assert!(REQUEST_LEN <= 32 && GRANT_LEN <= 32);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_39_every_other_length_is_refused() {
        for len in 0..=64 {
            let payload = vec![0; len];
            assert_eq!(Request::parse(&payload).is_ok(), len == REQUEST_LEN);
            assert_eq!(Grant::parse(&payload).is_ok(), len == GRANT_LEN);
        }
    }

    #[test]
    fn numbers_that_no_sa_has_are_refused() {
        for (first, count) in [(0, 1), (u64::MAX, 1), (u64::MAX - 9, 10)] {
            let bytes = Grant { number: 7, first, count }.to_bytes();
            assert_eq!(Grant::parse(&bytes), Err(BadPayload::NoSuchNumbers { first, count }));
        }
        let last = Grant { number: 7, first: u64::MAX - 10, count: 10 };
        assert_eq!(Grant::parse(&last.to_bytes()), Ok(last));
    }

    #[test]
    fn reserved_bytes_must_be_zero() {
        let mut request = Request { number: 1, want: 2 }.to_bytes();
        request[15] = 1;
        assert_eq!(Request::parse(&request), Err(BadPayload::NotZero));
        let mut grant = Grant { number: 1, first: 2, count: 3 }.to_bytes();
        grant[18] = 1;
        assert_eq!(Grant::parse(&grant), Err(BadPayload::NotZero));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(number: u64, first in 1..u64::MAX - 0xffff, count: u16, want: u16) {
            let request = Request { number, want };
            prop_assert_eq!(Request::parse(&request.to_bytes()), Ok(request));
            let grant = Grant { number, first, count };
            prop_assert_eq!(Grant::parse(&grant.to_bytes()), Ok(grant));
        }

        #[test]
        fn whatever_is_read_is_written_the_same(payload in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(request) = Request::parse(&payload) {
                prop_assert_eq!(&request.to_bytes()[..], &payload[..]);
            }
            if let Ok(grant) = Grant::parse(&payload) {
                prop_assert_eq!(&grant.to_bytes()[..], &payload[..]);
            }
        }
    }
}
