//! Packet headers, as views and as representations.
//!
//! Each protocol is one module with the same two types. `Packet<T>` is a *view*: it wraps the bytes and reads or writes
//! single fields in place, which is what the packet path does. `Repr` is a *representation*: the fields of a legal
//! header as a plain value, parsed from a view or emitted into one, which is what everything else does.
//!
//! # Promises
//!
//! - `Packet::new_checked` accepts any bytes without panicking, and no accessor or setter of a view that it returned
//!   panics, not even after setters have made the header contradict itself.
//! - A checked view never shows bytes beyond the length that its own header states.
//! - `Repr::parse` of what `Repr::emit` wrote gives back the same `Repr`.
//! - Nothing allocates (the crate is `no_std` without `alloc`), every walk over options or extension headers is
//!   bounded, and errors are one byte.
//!
//! # What this crate never does
//!
//! It keeps no state, knows no security association and reassembles nothing. It follows neither ESP nor AH into what
//! they protect. Lengths and structure are checked by `new_checked`; checksums only where a method says so, since a NIC
//! has often done it already, and since ESP authenticates better than any checksum.

#![no_std]
#![forbid(unsafe_code)]

#[cfg(test)]
extern crate std;

pub mod arp;
pub mod checksum;
pub mod esp;
pub mod ethernet;
pub mod flow;
pub mod gre;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod natt;
pub mod protocol;
pub mod tcp;
pub mod udp;

mod bytes;
mod siphash;

/// Why bytes are not the packet that they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Error {
    /// The bytes end before the header does, or before the length that the header states.
    Truncated,
    /// A field has a value that the protocol forbids or that contradicts another field.
    Malformed,
    /// The version field is not that of the expected protocol.
    Version,
    /// The checksum does not match.
    Checksum,
    /// Legal, but of a kind that this crate does not represent (an ARP for another link type, a rare ICMP type).
    Unsupported,
    /// The packet dictates its own route: an IPv4 source route option (RFC 7126 §4.3, §4.4) or an IPv6 type 0 routing
    /// header with segments left (RFC 5095). Its destination address is not where it ends, so no selector can judge it.
    SourceRouted,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::Version => "wrong version",
            Self::Checksum => "wrong checksum",
            Self::Unsupported => "unsupported",
            Self::SourceRouted => "source-routed",
        })
    }
}

impl core::error::Error for Error {}

/// The result of looking at bytes.
pub type Result<T> = core::result::Result<T, Error>;

/// Which part of an IP packet this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// Not fragmented (or an IPv6 atomic fragment, RFC 6946, which is complete in itself).
    Whole,
    /// The first fragment: it holds the upper-layer header, and more follow.
    First,
    /// A fragment that starts past offset 0: it holds no upper-layer header.
    Later,
}

#[cfg(test)]
mod tests {
    use super::Error;
    use std::string::ToString;

    #[test]
    fn each_error_has_words_of_its_own() {
        use Error::{Checksum, Malformed, SourceRouted, Truncated, Unsupported, Version};
        let all = [Truncated, Malformed, Version, Checksum, Unsupported, SourceRouted];
        let words: std::collections::BTreeSet<_> = all.iter().map(Error::to_string).collect();
        assert!(words.len() == all.len() && !words.contains(""));
    }
}
