//! A message between members, which may hold keys.

use core::fmt;
use core::ops::Deref;

use zeroize::Zeroizing;

/// A message's bytes. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Message(Zeroizing<Vec<u8>>);

impl Message {
    pub(crate) fn new(bytes: Vec<u8>) -> Message {
        Message(Zeroizing::new(bytes))
    }
}

impl Deref for Message {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} bytes)", self.0.len())
    }
}
