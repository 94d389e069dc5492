//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! A checksum is a `u16` as the header carries it, in host order: what goes on the wire is its `to_be_bytes`. [`Sum`]
//! adds up parts of a packet; [`update`] and its kin change a stored checksum when a field changes, without another look
//! at the packet.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A ones' complement sum under way. Parts may be added in any order; every part but the last must be of even length.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The empty sum.
    #[inline]
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds bytes, a last odd one as if a zero byte followed it.
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        // Ones' complement sums commute with a swap of all bytes (RFC 1071 §2 B), so words are added as they lie in
        // memory, 32 bits at a time into 64, and the byte order is put right at the end. The slice would have to be of
        // 16 GiB for this to overflow.
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum: u64 = words.iter().map(|word| u64::from(u32::from_ne_bytes(*word))).sum();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        sum += u64::from(u32::from_ne_bytes(last));
        Self(self.0 + u64::from(u16::from_be(fold(sum))))
    }

    /// Adds one 16-bit word.
    #[inline]
    #[must_use]
    pub const fn word(self, word: u16) -> Self {
        Self(self.0 + word as u64)
    }

    /// Adds the pseudo-header of an upper-layer packet of `len` bytes between two IPv4 addresses (RFC 793, RFC 768).
    #[inline]
    #[must_use]
    pub fn pseudo_header_v4(self, src: Ipv4Addr, dst: Ipv4Addr, protocol: u8, len: usize) -> Self {
        self.bytes(&src.octets()).bytes(&dst.octets()).word(u16::from(protocol)).length(len)
    }

    /// Adds the pseudo-header of an upper-layer packet of `len` bytes between two IPv6 addresses (RFC 8200 §8.1).
    #[inline]
    #[must_use]
    pub fn pseudo_header_v6(self, src: Ipv6Addr, dst: Ipv6Addr, protocol: u8, len: usize) -> Self {
        self.bytes(&src.octets()).bytes(&dst.octets()).word(u16::from(protocol)).length(len)
    }

    /// Adds the pseudo-header for addresses of either family. The two must be of one family; a mixed pair, which no
    /// packet has, is summed as IPv4-mapped IPv6.
    #[inline]
    #[must_use]
    pub fn pseudo_header(self, src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Self {
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.pseudo_header_v4(src, dst, protocol, len),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.pseudo_header_v6(src, dst, protocol, len),
            (IpAddr::V4(src), IpAddr::V6(dst)) => self.pseudo_header_v6(src.to_ipv6_mapped(), dst, protocol, len),
            (IpAddr::V6(src), IpAddr::V4(dst)) => self.pseudo_header_v6(src, dst.to_ipv6_mapped(), protocol, len),
        }
    }

    /// The checksum over all that was added: the complement of the folded sum.
    #[inline]
    #[must_use]
    pub const fn checksum(self) -> u16 {
        !fold(self.0)
    }

    /// Whether a part that holds its own checksum sums up as it must.
    #[inline]
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.checksum() == 0
    }

    const fn length(self, len: usize) -> Self {
        let len = len as u32;
        self.word((len >> 16) as u16).word(len as u16)
    }
}

/// The checksum of one contiguous part.
#[inline]
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::new().bytes(bytes).checksum()
}

/// The checksum after an aligned 16-bit word went from `old` to `new` (RFC 1624, equation 3).
#[inline]
#[must_use]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = (!checksum) as u32 + (!old) as u32 + new as u32;
    !fold(sum as u64)
}

/// The checksum after two adjacent aligned words (an IPv4 address, a sequence number) went from `old` to `new`.
#[inline]
#[must_use]
pub const fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    update(update(checksum, (old >> 16) as u16, (new >> 16) as u16), old as u16, new as u16)
}

/// The checksum after a 16-bit value at an odd offset of the summed bytes went from `old` to `new`: it straddles two
/// words, each of which sees one of its bytes in the other place.
#[inline]
#[must_use]
pub const fn update_unaligned(checksum: u16, old: u16, new: u16) -> u16 {
    update(checksum, old.swap_bytes(), new.swap_bytes())
}

/// Folds carries into 16 bits. The result is 0 only if the sum is.
#[inline]
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

#[cfg(test)]
mod tests;
