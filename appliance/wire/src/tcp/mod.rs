//! TCP (RFC 9293), as far as a gateway that passes it on must know it.

use core::net::IpAddr;

use crate::bytes::{clamped, clamped_mut, put_u16, put_u32, u16_at, u32_at};
use crate::checksum::Sum;
use crate::{Error, Result, protocol};

mod clamp;
mod flags;
mod options;

pub use clamp::clamp_mss;
pub use flags::Flags;
pub use options::{Options, TcpOption};

/// Length of a header without options.
pub const HEADER_LEN: usize = 20;
/// Length of the longest header.
pub const MAX_HEADER_LEN: usize = 60;

/// A view of a TCP segment, to the end of the bytes: TCP has no length field of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Wraps bytes without a look at them. Accessors panic if they are fewer than [`HEADER_LEN`]; meant for
    /// [`Repr::emit`].
    #[inline]
    pub const fn new_unchecked(buffer: T) -> Self {
        Self { buffer }
    }

    /// Wraps a segment whose header is complete, options included. The options are not looked at.
    ///
    /// # Errors
    /// `Truncated`; `Malformed` if the data offset is below 5 words.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self { buffer };
        let available = packet.buffer.as_ref().len();
        if available < HEADER_LEN {
            return Err(Error::Truncated);
        }
        let header_len = packet.header_len();
        if header_len < HEADER_LEN {
            return Err(Error::Malformed);
        }
        if available < header_len {
            return Err(Error::Truncated);
        }
        Ok(packet)
    }

    /// Unwraps the bytes.
    #[inline]
    pub fn into_inner(self) -> T {
        self.buffer
    }

    /// Source port.
    #[inline]
    pub fn src_port(&self) -> u16 {
        u16_at(self.buffer.as_ref(), 0)
    }

    /// Destination port.
    #[inline]
    pub fn dst_port(&self) -> u16 {
        u16_at(self.buffer.as_ref(), 2)
    }

    /// Sequence number.
    #[inline]
    pub fn sequence(&self) -> u32 {
        u32_at(self.buffer.as_ref(), 4)
    }

    /// Acknowledgement number; counts only with [`Flags::ACK`].
    #[inline]
    pub fn acknowledgement(&self) -> u32 {
        u32_at(self.buffer.as_ref(), 8)
    }

    /// Header length in bytes, options included.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.buffer.as_ref()[12] >> 4) * 4
    }

    /// Control flags.
    #[inline]
    pub fn flags(&self) -> Flags {
        Flags::from_bits(self.buffer.as_ref()[13])
    }

    /// Receive window, unscaled.
    #[inline]
    pub fn window(&self) -> u16 {
        u16_at(self.buffer.as_ref(), 14)
    }

    /// Checksum, as carried.
    #[inline]
    pub fn checksum(&self) -> u16 {
        u16_at(self.buffer.as_ref(), 16)
    }

    /// Urgent pointer; counts only with [`Flags::URG`].
    #[inline]
    pub fn urgent(&self) -> u16 {
        u16_at(self.buffer.as_ref(), 18)
    }

    /// Whether the checksum matches.
    #[inline]
    pub fn verify_checksum(&self, src: IpAddr, dst: IpAddr) -> bool {
        self.sum(src, dst).is_valid()
    }

    /// The options, one by one.
    #[inline]
    pub fn options(&self) -> Options<'_> {
        Options::new(clamped(self.buffer.as_ref(), HEADER_LEN, self.header_len()))
    }

    /// The first maximum segment size option, if there is one before any malformed option.
    #[inline]
    pub fn mss(&self) -> Option<u16> {
        self.options().map_while(Result::ok).find_map(|option| match option {
            TcpOption::MaxSegmentSize(mss) => Some(mss),
            TcpOption::WindowScale(_)
            | TcpOption::SackPermitted
            | TcpOption::Timestamps { .. }
            | TcpOption::Other { .. } => None,
        })
    }

    /// What follows the header.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        clamped(self.buffer.as_ref(), self.header_len(), usize::MAX)
    }

    #[inline]
    fn sum(&self, src: IpAddr, dst: IpAddr) -> Sum {
        let segment = self.buffer.as_ref();
        Sum::new().pseudo_header(src, dst, protocol::TCP, segment.len()).bytes(segment)
    }
}

impl<T: AsRef<[u8]> + AsMut<[u8]>> Packet<T> {
    /// Sets the source port. The checksum is left to the caller.
    #[inline]
    pub fn set_src_port(&mut self, port: u16) {
        put_u16(self.buffer.as_mut(), 0, port);
    }

    /// Sets the destination port. The checksum is left to the caller.
    #[inline]
    pub fn set_dst_port(&mut self, port: u16) {
        put_u16(self.buffer.as_mut(), 2, port);
    }

    /// Sets the sequence number. The checksum is left to the caller.
    #[inline]
    pub fn set_sequence(&mut self, sequence: u32) {
        put_u32(self.buffer.as_mut(), 4, sequence);
    }

    /// Sets the acknowledgement number. The checksum is left to the caller.
    #[inline]
    pub fn set_acknowledgement(&mut self, acknowledgement: u32) {
        put_u32(self.buffer.as_mut(), 8, acknowledgement);
    }

    /// Sets the header length in bytes, a multiple of 4 from 20 to 60, and clears the reserved bits. The checksum is
    /// left to the caller.
    #[inline]
    pub fn set_header_len(&mut self, header_len: usize) {
        self.buffer.as_mut()[12] = ((header_len / 4) as u8) << 4;
    }

    /// Sets the control flags. The checksum is left to the caller.
    #[inline]
    pub fn set_flags(&mut self, flags: Flags) {
        self.buffer.as_mut()[13] = flags.bits();
    }

    /// Sets the receive window. The checksum is left to the caller.
    #[inline]
    pub fn set_window(&mut self, window: u16) {
        put_u16(self.buffer.as_mut(), 14, window);
    }

    /// Sets the checksum.
    #[inline]
    pub fn set_checksum(&mut self, checksum: u16) {
        put_u16(self.buffer.as_mut(), 16, checksum);
    }

    /// Sets the urgent pointer. The checksum is left to the caller.
    #[inline]
    pub fn set_urgent(&mut self, urgent: u16) {
        put_u16(self.buffer.as_mut(), 18, urgent);
    }

    /// Computes and sets the checksum over header and payload.
    #[inline]
    pub fn fill_checksum(&mut self, src: IpAddr, dst: IpAddr) {
        self.set_checksum(0);
        let checksum = self.sum(src, dst).checksum();
        self.set_checksum(checksum);
    }

    /// What follows the header, mutable.
    #[inline]
    pub fn payload_mut(&mut self) -> &mut [u8] {
        let header_len = self.header_len();
        clamped_mut(self.buffer.as_mut(), header_len, usize::MAX)
    }
}

/// A TCP header with the options that end hosts exchange in a handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repr {
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number.
    pub acknowledgement: u32,
    /// Control flags.
    pub flags: Flags,
    /// Receive window, unscaled.
    pub window: u16,
    /// Urgent pointer.
    pub urgent: u16,
    /// Maximum segment size (RFC 9293 §3.7.1).
    pub mss: Option<u16>,
    /// Window scale: a shift of 0 to 14 (RFC 7323 §2).
    pub window_scale: Option<u8>,
    /// Selective acknowledgement permitted (RFC 2018).
    pub sack_permitted: bool,
    /// Timestamp value and echo reply (RFC 7323 §3).
    pub timestamps: Option<(u32, u32)>,
}

impl Repr {
    /// Reads a header. Options of other kinds are left out; of repeated ones the first counts. The checksum is not
    /// looked at (see [`Packet::verify_checksum`]).
    ///
    /// # Errors
    /// `Malformed` if an option's length is wrong for its kind or runs past the header.
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self> {
        let mut repr = Self {
            src_port: packet.src_port(),
            dst_port: packet.dst_port(),
            sequence: packet.sequence(),
            acknowledgement: packet.acknowledgement(),
            flags: packet.flags(),
            window: packet.window(),
            urgent: packet.urgent(),
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: None,
        };
        for option in packet.options() {
            match option? {
                TcpOption::MaxSegmentSize(mss) => repr.mss = repr.mss.or(Some(mss)),
                TcpOption::WindowScale(shift) => repr.window_scale = repr.window_scale.or(Some(shift)),
                TcpOption::SackPermitted => repr.sack_permitted = true,
                TcpOption::Timestamps { value, echo } => repr.timestamps = repr.timestamps.or(Some((value, echo))),
                TcpOption::Other { .. } => {}
            }
        }
        Ok(repr)
    }

    /// How many bytes [`Repr::emit`] writes: the header with its options, padded to whole words.
    #[inline]
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        let mut len = HEADER_LEN;
        if self.mss.is_some() {
            len += 4;
        }
        if self.window_scale.is_some() {
            len += 3;
        }
        if self.sack_permitted {
            len += 2;
        }
        if self.timestamps.is_some() {
            len += 10;
        }
        len.next_multiple_of(4)
    }

    /// Writes the header, without a checksum: once the payload stands, [`Packet::fill_checksum`] adds it. Panics if the
    /// view holds fewer than [`Repr::buffer_len`] bytes.
    pub fn emit<T: AsRef<[u8]> + AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        packet.set_src_port(self.src_port);
        packet.set_dst_port(self.dst_port);
        packet.set_sequence(self.sequence);
        packet.set_acknowledgement(self.acknowledgement);
        packet.set_header_len(self.buffer_len());
        packet.set_flags(self.flags);
        packet.set_window(self.window);
        packet.set_checksum(0);
        packet.set_urgent(self.urgent);
        let options = &mut packet.buffer.as_mut()[HEADER_LEN..self.buffer_len()];
        options::emit(self, options);
    }
}

#[cfg(test)]
mod tests;
