//! What the data path asks of packet memory and ports.
//!
//! Two implementations of each exist: DPDK's mbufs and queues in the binary, and [`crate::memory`] for tests and the
//! simulator. Nothing here allocates on the packet path.

use crate::burst::Burst;

/// One owned, contiguous frame with room before and behind it. Dropping it gives the memory back.
pub trait PacketBuffer: Send + Sized + 'static {
    /// The frame's bytes.
    fn bytes(&self) -> &[u8];

    /// The frame's bytes, to be changed in place.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Grows the frame by `count` bytes at its front; `false`, and nothing changes, without the headroom.
    #[must_use]
    fn prepend(&mut self, count: usize) -> bool;

    /// Grows the frame by `count` bytes at its end; `false`, and nothing changes, without the tailroom.
    #[must_use]
    fn append(&mut self, count: usize) -> bool;

    /// Takes `count` bytes off the front; at most the whole frame.
    fn trim_front(&mut self, count: usize);

    /// Cuts the frame to `len` bytes; nothing where it is shorter.
    fn truncate(&mut self, len: usize);
}

/// One receive queue and one transmit queue of a port, owned by one core.
pub trait PortQueue: Send {
    /// The frames that travel here.
    type Buffer: PacketBuffer;

    /// Fills an empty `burst` with what has arrived, up to its capacity. Never waits.
    fn receive(&mut self, burst: &mut Burst<Self::Buffer>);

    /// Fresh memory for a frame of `len` bytes that a core makes by itself, if there is any. What a port without it cannot
    /// make is not sent.
    fn spare(&mut self, len: usize) -> Option<Self::Buffer> {
        let _ = len;
        None
    }

    /// Sends from the front of `burst`. What was sent has left the burst, what was not stays in order. Never waits.
    fn transmit(&mut self, burst: &mut Burst<Self::Buffer>);
}
