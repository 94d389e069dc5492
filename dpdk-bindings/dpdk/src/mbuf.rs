//! One owned packet buffer, and bursts of them.

use arrayvec::ArrayVec;
use core::fmt;
use core::mem;
use core::ptr::NonNull;
use core::slice;

/// Bytes that DPDK leaves before the data of a fresh or received buffer.
pub const HEADROOM_BYTES: usize = dpdk_sys::SHIM_HEADROOM_BYTES as usize;

/// Up to `N` owned buffers. Any array of this type serves, also one under another name.
pub type Burst<const N: usize> = ArrayVec<Mbuf, N>;

/// One owned buffer: contiguous, with room before and after its bytes.
///
/// Dropping it returns it to its mempool, from any thread. It may be dropped or sent once only, so it is not `Clone`:
///
/// ```compile_fail,E0599
/// fn twice(mbuf: dpdk::Mbuf) -> (dpdk::Mbuf, dpdk::Mbuf) {
///     (mbuf.clone(), mbuf)
/// }
/// ```
#[repr(transparent)]
pub struct Mbuf {
    raw: NonNull<dpdk_sys::rte_mbuf>,
}

// Queues and rings hand arrays of `Mbuf` to C as arrays of pointers.
const _: () = assert!(mem::size_of::<Mbuf>() == mem::size_of::<*mut dpdk_sys::rte_mbuf>());

// SAFETY: a buffer has one owner and no tie to a thread; freeing finds the calling thread's own cache.
unsafe impl Send for Mbuf {}
// SAFETY: a shared reference only reads.
unsafe impl Sync for Mbuf {}

impl Mbuf {
    /// Takes ownership.
    ///
    /// # Safety
    ///
    /// `raw` must be a live mbuf of one segment, from a packet mempool, with one reference, that nobody else uses.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: NonNull<dpdk_sys::rte_mbuf>) -> Self {
        Mbuf { raw }
    }

    /// Reads the field at `OFFSET`.
    #[inline(always)]
    fn field<T: Copy, const OFFSET: u32>(&self) -> T {
        // SAFETY: the mbuf is live, and each offset that this file names holds a `T`: the shim asserts the offsets
        // when it is compiled.
        unsafe { self.raw.as_ptr().byte_add(OFFSET as usize).cast::<T>().read() }
    }

    /// Writes the field at `OFFSET`.
    #[inline(always)]
    fn set_field<T: Copy, const OFFSET: u32>(&mut self, value: T) {
        // SAFETY: as for reading; `&mut self` excludes other readers.
        unsafe { self.raw.as_ptr().byte_add(OFFSET as usize).cast::<T>().write(value) }
    }

    /// Bytes of room before the data.
    #[inline]
    pub fn headroom(&self) -> usize {
        usize::from(self.field::<u16, { dpdk_sys::SHIM_MBUF_DATA_OFF }>())
    }

    /// Bytes of data.
    #[inline]
    #[allow(clippy::len_without_is_empty)] // is_empty stands below; the lint looks for it in this order
    pub fn len(&self) -> usize {
        usize::from(self.field::<u16, { dpdk_sys::SHIM_MBUF_DATA_LEN }>())
    }

    /// Whether there is no data.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of room behind the data.
    #[inline]
    pub fn tailroom(&self) -> usize {
        usize::from(self.field::<u16, { dpdk_sys::SHIM_MBUF_BUF_LEN }>()).saturating_sub(self.headroom() + self.len())
    }

    #[inline]
    fn start(&self) -> *mut u8 {
        let buffer = self.field::<*mut u8, { dpdk_sys::SHIM_MBUF_BUF_ADDR }>();
        // SAFETY: data starts within the buffer.
        unsafe { buffer.add(self.headroom()) }
    }

    /// Sets where the data starts and how long it is; the callers keep both within the buffer.
    #[inline]
    fn set_data(&mut self, headroom: usize, len: usize) {
        debug_assert!(headroom + len <= usize::from(self.field::<u16, { dpdk_sys::SHIM_MBUF_BUF_LEN }>()));
        self.set_field::<u16, { dpdk_sys::SHIM_MBUF_DATA_OFF }>(headroom as u16);
        self.set_field::<u16, { dpdk_sys::SHIM_MBUF_DATA_LEN }>(len as u16);
        self.set_field::<u32, { dpdk_sys::SHIM_MBUF_PKT_LEN }>(len as u32);
    }

    /// The data.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the one segment holds `len` bytes from `start`, and nobody writes while we are borrowed.
        unsafe { slice::from_raw_parts(self.start(), self.len()) }
    }

    /// The data, to be changed in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `bytes`, and the buffer has one owner.
        unsafe { slice::from_raw_parts_mut(self.start(), self.len()) }
    }

    /// Grows the data by `count` bytes at its front and returns these, their content left over from earlier use.
    /// `None`, and nothing changes, without the headroom.
    #[inline]
    pub fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        let (headroom, len) = (self.headroom(), self.len());
        let headroom = headroom.checked_sub(count)?;
        self.set_data(headroom, len + count);
        Some(&mut self.bytes_mut()[..count])
    }

    /// Grows the data by `count` bytes at its end and returns these, their content left over from earlier use.
    /// `None`, and nothing changes, without the tailroom.
    #[inline]
    pub fn append(&mut self, count: usize) -> Option<&mut [u8]> {
        if count > self.tailroom() {
            return None;
        }
        let (headroom, len) = (self.headroom(), self.len());
        self.set_data(headroom, len + count);
        Some(&mut self.bytes_mut()[len..])
    }

    /// Takes `count` bytes off the front; at most all of them.
    #[inline]
    pub fn trim_front(&mut self, count: usize) {
        let (headroom, len) = (self.headroom(), self.len());
        let count = count.min(len);
        self.set_data(headroom + count, len - count);
    }

    /// Cuts the data to `len` bytes; nothing changes where it is shorter.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.set_data(self.headroom(), len);
        }
    }

    /// Asks the CPU for the first cache line of the data, to be there when it is looked at some packets later.
    #[inline]
    pub fn prefetch(&self) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a prefetch reads nothing into the program, and every x86-64 CPU has it.
        unsafe {
            core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(self.start().cast());
        }
    }

    /// Makes the buffer as if fresh: no data, the full headroom, no flags.
    pub fn reset(&mut self) {
        // SAFETY: the mbuf is live and ours.
        unsafe { dpdk_sys::shim_mbuf_reset(self.raw.as_ptr()) };
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the mbuf is live and ours, and this is the last that is heard of it.
        unsafe { dpdk_sys::shim_mbuf_free(self.raw.as_ptr()) };
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf")
            .field("headroom", &self.headroom())
            .field("len", &self.len())
            .field("tailroom", &self.tailroom())
            .finish()
    }
}

/// Frees a whole burst in one call, which is cheaper than dropping its buffers one by one.
#[inline]
pub fn free_burst<const N: usize>(burst: &mut Burst<N>) {
    let count = burst.len();
    // SAFETY: no buffer of the array is touched again by it: it forgets them before DPDK frees them.
    unsafe {
        burst.set_len(0);
        dpdk_sys::rte_pktmbuf_free_bulk(burst.as_mut_ptr().cast(), count as u32);
    }
}
