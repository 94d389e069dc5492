//! Writing: payloads one after the other, each naming the next.

use ipsec::Spi;

use crate::message::header::{HEADER_LEN, Header};
use crate::message::payload::Payload;

const GENERIC_HEADER_LEN: usize = 4;

/// A chain of payloads in the making.
#[derive(Debug, Default, Clone)]
pub struct PayloadChain {
    first: u8,
    bytes: Vec<u8>,
    /// Where the last payload's header stands; its first octet will name the next one.
    last_at: Option<usize>,
    /// The CHILD_SA of ours that the peer may send on once it has read this.
    pub(crate) promises: Option<Spi>,
}

impl PayloadChain {
    /// An empty chain.
    #[must_use]
    pub fn new() -> PayloadChain {
        PayloadChain::default()
    }

    /// Appends a payload.
    pub fn push(&mut self, payload: &Payload<'_>) {
        let start = self.begin(payload.kind().number());
        payload.emit(&mut self.bytes);
        let length = u16::try_from(self.bytes.len() - start).unwrap_or(u16::MAX);
        self.bytes[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// The same, in passing.
    #[must_use]
    pub fn with(mut self, payload: &Payload<'_>) -> PayloadChain {
        self.push(payload);
        self
    }

    /// Marks the last payload critical, as no honest peer marks any that RFC 7296 knows.
    #[cfg(test)]
    pub(crate) fn made_critical(mut self) -> PayloadChain {
        if let Some(at) = self.last_at {
            self.bytes[at + 1] |= 0x80;
        }
        self
    }

    /// Its octets changed by hand.
    #[cfg(test)]
    pub(crate) fn changed(mut self, change: impl FnOnce(&mut [u8])) -> PayloadChain {
        change(&mut self.bytes);
        self
    }

    /// This chain and then another.
    #[cfg(test)]
    pub(crate) fn followed_by(mut self, other: &PayloadChain) -> PayloadChain {
        match self.last_at {
            None => self.first = other.first,
            Some(at) => self.bytes[at] = other.first,
        }
        self.last_at = other.last_at.map(|at| at + self.bytes.len());
        self.bytes.extend_from_slice(&other.bytes);
        self
    }

    fn begin(&mut self, number: u8) -> usize {
        match self.last_at {
            None => self.first = number,
            Some(at) => self.bytes[at] = number,
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; GENERIC_HEADER_LEN]);
        self.last_at = Some(start);
        start
    }

    /// The type number of the first payload; 0 for an empty chain.
    #[must_use]
    pub fn first(&self) -> u8 {
        self.first
    }

    /// The payloads with their headers.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A whole message that is not encrypted.
    #[must_use]
    pub fn into_message(self, header: Header) -> Vec<u8> {
        let length = HEADER_LEN + self.bytes.len();
        let mut message = Vec::with_capacity(length);
        let header = Header { next_payload: self.first, ..header };
        header.emit(u32::try_from(length).unwrap_or(u32::MAX), &mut message);
        message.extend_from_slice(&self.bytes);
        message
    }
}
