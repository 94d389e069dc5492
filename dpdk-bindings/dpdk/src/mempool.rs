//! Preallocated packet buffers.

use crate::eal::Eal;
use crate::error::{Errno, Error};
use crate::mbuf::{Burst, HEADROOM_BYTES, Mbuf};
use core::ptr::NonNull;
use std::ffi::CString;

/// The largest per-lcore cache that DPDK allows.
const MAX_CACHE_PACKETS: u32 = 512;

/// What a mempool shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MempoolConfig {
    /// Its name, unique in the process, at most 25 bytes.
    pub name: String,
    /// How many buffers; 2^n − 1 wastes no memory.
    pub size_packets: u32,
    /// How many buffers each lcore keeps at hand, 0 to 512, at most two thirds of the size.
    pub cache_packets: u32,
    /// Bytes of one buffer, [`HEADROOM_BYTES`] included.
    pub buffer_bytes: u16,
    /// The NUMA node to take memory from; `None` for any.
    pub numa_node: Option<u32>,
}

impl MempoolConfig {
    /// Buffers for Ethernet frames of 2,048 bytes beside the headroom, 256 at hand for each lcore.
    pub fn new(name: &str, size_packets: u32) -> Self {
        MempoolConfig {
            name: name.into(),
            size_packets,
            cache_packets: MAX_CACHE_PACKETS.min(256).min(size_packets / 2),
            buffer_bytes: HEADROOM_BYTES as u16 + 2048,
            numa_node: None,
        }
    }

    fn check(&self) -> Result<(), Error> {
        let problem = if self.size_packets == 0 {
            "a mempool without buffers"
        } else if self.cache_packets > MAX_CACHE_PACKETS {
            "cache_packets is above 512"
        } else if u64::from(self.cache_packets) * 3 > u64::from(self.size_packets) * 2 {
            "cache_packets is above two thirds of size_packets"
        } else if usize::from(self.buffer_bytes) <= HEADROOM_BYTES {
            "buffer_bytes leaves no room beside the headroom"
        } else {
            return Ok(());
        };
        Err(Error::MempoolConfig { name: self.name.clone(), problem })
    }
}

/// A shared handle to a mempool.
///
/// A mempool is never freed. Its buffers travel through queues, rings and threads; to know when the last has come home
/// would cost an atomic count for each packet, while an appliance makes its few mempools at start and needs them to the
/// end. So a buffer needs no lifetime, and a handle is a plain copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mempool {
    raw: NonNull<dpdk_sys::rte_mempool>,
    size_packets: u32,
    buffer_bytes: u16,
}

// SAFETY: `create` asks for the handler for many producers and consumers, whatever the environment's default is;
// per-lcore caches are found by the calling thread.
unsafe impl Send for Mempool {}
// SAFETY: as above.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// Makes a mempool.
    pub fn create(_: Eal, config: &MempoolConfig) -> Result<Mempool, Error> {
        config.check()?;
        let name = CString::new(config.name.as_str()).map_err(|_| Error::ZeroByte { what: "a mempool's name" })?;
        let numa_node = config.numa_node.map_or(-1, |node| node as i32);
        let mut errno = 0;
        // SAFETY: the environment runs, `name` is terminated and copied, `errno` is ours.
        let raw = unsafe {
            dpdk_sys::shim_pool_create(
                name.as_ptr(),
                config.size_packets,
                config.cache_packets,
                config.buffer_bytes,
                numa_node,
                &mut errno,
            )
        };
        match NonNull::new(raw) {
            Some(raw) => Ok(Mempool { raw, size_packets: config.size_packets, buffer_bytes: config.buffer_bytes }),
            None => Err(Error::Mempool { name: config.name.clone(), reason: Errno::from_return(errno) }),
        }
    }

    /// An empty buffer with [`HEADROOM_BYTES`] before it, or `None` when all are in use.
    #[inline]
    pub fn allocate(&self) -> Option<Mbuf> {
        // SAFETY: mempools are never freed.
        let raw = unsafe { dpdk_sys::shim_mbuf_alloc(self.raw.as_ptr()) };
        // SAFETY: a fresh mbuf of a packet mempool is one segment and belongs to the caller alone.
        NonNull::new(raw).map(|raw| unsafe { Mbuf::from_raw(raw) })
    }

    /// Fills `burst` up to `count` more buffers: all of them, or none and `false`.
    #[inline]
    #[must_use]
    pub fn allocate_burst<const N: usize>(&self, burst: &mut Burst<N>, count: usize) -> bool {
        if count > burst.remaining_capacity() {
            return false;
        }
        let len = burst.len();
        // SAFETY: `len` is within the array, which has room for `count` pointers behind it; an Mbuf is such a pointer.
        let done = unsafe {
            let spare = burst.as_mut_ptr().add(len).cast();
            dpdk_sys::shim_mbuf_alloc_bulk(self.raw.as_ptr(), spare, count as u32) == 0
        };
        if done {
            // SAFETY: DPDK wrote `count` fresh mbufs behind the first `len`.
            unsafe { burst.set_len(len + count) };
        }
        done
    }

    /// A buffer with a copy of `frame` in it; `None` when all are in use or the frame is too long for one.
    pub fn copy_of(&self, frame: &[u8]) -> Option<Mbuf> {
        let mut mbuf = self.allocate()?;
        mbuf.append(frame.len())?.copy_from_slice(frame);
        Some(mbuf)
    }

    /// How many buffers there are.
    pub fn size_packets(&self) -> u32 {
        self.size_packets
    }

    /// Bytes of one buffer, headroom included.
    pub fn buffer_bytes(&self) -> u16 {
        self.buffer_bytes
    }

    /// How many buffers are out: with an owner, in a queue or in a device. Buffers in lcore caches are not. Exact while
    /// nobody allocates or frees. Walks every lcore's cache: for metrics, not for the packet path.
    pub fn in_use_packets(&self) -> u32 {
        // SAFETY: mempools are never freed; the count reads the caches of other threads, which DPDK allows.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.raw.as_ptr()) }
    }

    /// Whether the calling thread would get no buffer now. Cheap while it would.
    #[inline]
    pub fn is_dry(&self) -> bool {
        // SAFETY: mempools are never freed; the thread looks into its own cache only.
        unsafe { dpdk_sys::shim_pool_dry(self.raw.as_ptr()) != 0 }
    }

    pub(crate) fn as_ptr(&self) -> *mut dpdk_sys::rte_mempool {
        self.raw.as_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_do_not_fit_are_named() {
        let good = MempoolConfig::new("p", 1023);
        assert_eq!(good.check(), Ok(()));
        for bad in [
            MempoolConfig { size_packets: 0, cache_packets: 0, ..good.clone() },
            MempoolConfig { cache_packets: 513, size_packets: 4095, ..good.clone() },
            MempoolConfig { cache_packets: 512, size_packets: 767, ..good.clone() },
            MempoolConfig { buffer_bytes: 128, ..good.clone() },
        ] {
            assert!(matches!(bad.check(), Err(Error::MempoolConfig { .. })), "{bad:?}");
        }
    }

    #[test]
    fn even_tiny_mempools_have_a_valid_default() {
        for size_packets in 1..2000 {
            assert_eq!(MempoolConfig::new("p", size_packets).check(), Ok(()));
        }
    }
}
