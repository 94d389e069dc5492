//! Peeking: the beginning and the Next Header of a packet, decrypted but **not verified**.
//!
//! AES-GCM encrypts with AES in counter mode, so any block can be decrypted by itself. That is enough to see which
//! connection a packet belongs to, at a tenth of the cost of opening it. It proves nothing: whoever can send us bytes
//! can make them decrypt to anything they like, so what is seen here may choose who works on the packet and nothing
//! else.

use core::fmt;

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128Enc, Aes256Enc, Block};

use crate::cipher::Cipher;
use crate::esp::{BEFORE_PAYLOAD_LEN, HEADER_LEN, ICV_LEN, PACKET_LEN_MIN};
use crate::key::SaKey;

const BLOCK_LEN: usize = 16;
const HEAD_BLOCKS: usize = 5;

/// How much of the beginning a peek decrypts: the IPv6 header, one extension header and the ports, or an IPv4 header
/// with all its options and the ports.
pub const PEEK_LEN_MAX: usize = HEAD_BLOCKS * BLOCK_LEN;

/// GCM's counter block 1 makes the ICV; the payload begins with 2 (NIST SP 800-38D §7.1, 96-bit IV).
const FIRST_PAYLOAD_COUNTER: u32 = 2;

/// What a peek saw. Every accessor says `unauthenticated`, since anyone may have sent it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Peeked {
    head: [u8; PEEK_LEN_MAX],
    head_len: u8,
    next_header: u8,
}

impl Peeked {
    /// The first bytes of the payload (and of padding and trailer, if it is that short), at most [`PEEK_LEN_MAX`].
    #[must_use]
    #[inline]
    pub fn unauthenticated_head(&self) -> &[u8] {
        &self.head[..usize::from(self.head_len)]
    }

    /// What the payload claims to be.
    #[must_use]
    #[inline]
    pub fn unauthenticated_next_header(&self) -> u8 {
        self.next_header
    }
}

impl fmt::Debug for Peeked {
    /// Decrypted payload does not belong into a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peeked({} bytes, next header {})", self.head_len, self.next_header)
    }
}

/// AES in the encrypting direction, for counter mode. Wiped when dropped.
pub(crate) struct PeekKey {
    salt: [u8; 4],
    aes: Aes,
}

#[allow(clippy::large_enum_variant, reason = "a key lies behind its SA's Arc already; a box would cost a cache miss")]
enum Aes {
    Aes128(Aes128Enc),
    Aes256(Aes256Enc),
}

impl fmt::Debug for PeekKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeekKey(..)")
    }
}

impl PeekKey {
    pub fn new(key: &SaKey) -> Option<Self> {
        let aes = match key.cipher() {
            Cipher::AesGcm128 => Aes::Aes128(Aes128Enc::new_from_slice(key.key_bytes()).ok()?),
            Cipher::AesGcm256 => Aes::Aes256(Aes256Enc::new_from_slice(key.key_bytes()).ok()?),
        };
        Some(Self { salt: key.salt(), aes })
    }

    /// Decrypts the beginning and the last byte of a whole ESP packet. `None` if it is too short to be one.
    #[inline]
    pub fn peek(&self, packet: &[u8]) -> Option<Peeked> {
        let mut keystream = self.counters(packet)?;
        Some(self.decrypt(packet, &mut keystream))
    }

    /// The counters that belong to the blocks of the head and to the block that holds Next Header.
    #[inline]
    pub fn counters(&self, packet: &[u8]) -> Option<PeekBlocks> {
        let last = ciphertext_of(packet)?.len() - 1;
        let counter = |block: usize| {
            let mut bytes = [0; BLOCK_LEN];
            bytes[..4].copy_from_slice(&self.salt);
            bytes[4..12].copy_from_slice(&packet[HEADER_LEN..BEFORE_PAYLOAD_LEN]);
            bytes[12..].copy_from_slice(&(FIRST_PAYLOAD_COUNTER + block as u32).to_be_bytes());
            Block::from(bytes)
        };
        let block_of = |at| if at < HEAD_BLOCKS { at } else { last / BLOCK_LEN };
        Some(PeekBlocks(core::array::from_fn(|at| counter(block_of(at)))))
    }

    /// Turns the packet's counters into keystream and decrypts with it.
    #[inline]
    pub fn decrypt(&self, packet: &[u8], blocks: &mut PeekBlocks) -> Peeked {
        let PeekBlocks(keystream) = blocks;
        match &self.aes {
            Aes::Aes128(aes) => aes.encrypt_blocks(keystream),
            Aes::Aes256(aes) => aes.encrypt_blocks(keystream),
        }
        let ciphertext = ciphertext_of(packet).unwrap_or(&[0]);
        let last = ciphertext.len() - 1;
        let head_len = ciphertext.len().min(PEEK_LEN_MAX);
        let mut head = match ciphertext.first_chunk() {
            Some(whole) => *whole,
            None => padded(ciphertext),
        };
        for (bytes, key) in head.as_chunks_mut().0.iter_mut().zip(keystream.iter()) {
            *bytes = (u128::from_ne_bytes(*bytes) ^ u128::from_ne_bytes(key.0)).to_ne_bytes();
        }
        let next_header = ciphertext[last] ^ keystream[HEAD_BLOCKS][last % BLOCK_LEN];
        Peeked { head, head_len: head_len as u8, next_header }
    }
}

/// Counter blocks on their way to become keystream. In a burst, write those of all packets before the first is
/// encrypted: the cipher loads what was just written 8 ns late.
pub(crate) struct PeekBlocks([Block; HEAD_BLOCKS + 1]);

/// Payload, padding and trailer of a whole packet, which are never empty.
#[inline]
fn ciphertext_of(packet: &[u8]) -> Option<&[u8]> {
    if packet.len() < PACKET_LEN_MIN {
        return None;
    }
    packet.get(BEFORE_PAYLOAD_LEN..packet.len() - ICV_LEN)
}

/// A short ciphertext in a buffer of full length. What lies behind it turns into keystream, which nobody is shown.
#[cold]
fn padded(ciphertext: &[u8]) -> [u8; PEEK_LEN_MAX] {
    let mut head = [0; PEEK_LEN_MAX];
    head.iter_mut().zip(ciphertext).for_each(|(to, from)| *to = *from);
    head
}
