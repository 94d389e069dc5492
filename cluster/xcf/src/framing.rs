//! How messages stand in a stream: a length of 32 bits in network order, then as many bytes. A length of 0 is no
//! message, but a sign of life.

use zeroize::Zeroizing;

use crate::message::Message;

/// The longest message, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// What stands before each message.
pub(crate) const LENGTH_BYTES: usize = 4;

/// A message that is longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong {
    pub found: usize,
    pub max: usize,
}

/// Makes messages of a stream's bytes. It holds at most one message that is not complete, and no more of it than its
/// length says, so that nothing of it is left behind where a buffer has grown.
#[derive(Default)]
pub(crate) struct Deframer {
    length: [u8; LENGTH_BYTES],
    length_bytes: usize,
    body: Option<(usize, Zeroizing<Vec<u8>>)>,
}

impl Deframer {
    /// Takes bytes from the front of `input` until a message is complete or none are left. Signs of life are passed over.
    pub fn next(&mut self, input: &mut &[u8], bytes_max: usize) -> Result<Option<Message>, TooLong> {
        loop {
            if let Some((length, body)) = &mut self.body {
                let (taken, rest) = input.split_at(input.len().min(*length - body.len()));
                body.extend_from_slice(taken);
                *input = rest;
                if body.len() < *length {
                    return Ok(None);
                }
                let body = self.body.take().map(|(_, mut body)| core::mem::take(&mut *body));
                return Ok(body.map(Message::new));
            }
            let wanted = LENGTH_BYTES - self.length_bytes;
            let (taken, rest) = input.split_at(input.len().min(wanted));
            self.length[self.length_bytes..self.length_bytes + taken.len()].copy_from_slice(taken);
            self.length_bytes += taken.len();
            *input = rest;
            if self.length_bytes < LENGTH_BYTES {
                return Ok(None);
            }
            self.length_bytes = 0;
            let found = u32::from_be_bytes(self.length) as usize;
            if found > bytes_max {
                return Err(TooLong { found, max: bytes_max });
            }
            if found > 0 {
                self.body = Some((found, Zeroizing::new(Vec::with_capacity(found))));
            }
        }
    }
}

/// A message with its length before it.
pub(crate) fn frame(message: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut framed = Zeroizing::new(Vec::with_capacity(LENGTH_BYTES + message.len()));
    framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
    framed.extend_from_slice(message);
    framed
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(deframer: &mut Deframer, mut input: &[u8]) -> Vec<Vec<u8>> {
        core::iter::from_fn(|| deframer.next(&mut input, MESSAGE_BYTES_MAX).unwrap()).map(|m| m.to_vec()).collect()
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_the_stream_is_cut(
            messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..12),
            cut in 1_usize..50,
        ) {
            let stream: Vec<u8> = messages.iter().flat_map(|message| frame(message).to_vec()).collect();
            let mut deframer = Deframer::default();
            let found: Vec<_> = stream.chunks(cut).flat_map(|piece| all(&mut deframer, piece)).collect();
            let expected: Vec<_> = messages.into_iter().filter(|message| !message.is_empty()).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_anything_is_kept() {
        let mut deframer = Deframer::default();
        let mut input = &[0xff, 0xff, 0xff, 0xff, 1, 2][..];
        let refused = deframer.next(&mut input, MESSAGE_BYTES_MAX);
        assert_eq!(refused, Err(TooLong { found: 0xffff_ffff, max: MESSAGE_BYTES_MAX }));
        assert!(deframer.body.is_none());
    }
}
