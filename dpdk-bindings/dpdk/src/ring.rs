//! Bounded queues between two threads: one producer, one consumer, no lock.
//!
//! They carry what is a pointer, as it is: packets and boxes. As fast as other good rings, and bursts of packets move
//! without being looked at one by one.

use crate::eal::Eal;
use crate::error::{Errno, Error};
use crate::mbuf::Mbuf;
use arrayvec::ArrayVec;
use core::cell::Cell;
use core::marker::PhantomData;
use core::mem;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, Ordering, fence};
use std::ffi::CString;
use std::sync::Arc;

/// What a ring carries: something that is one owned, non-null pointer.
///
/// # Safety
///
/// The type must have the size, alignment and validity of `NonNull<()>`, so that its bits may travel through C.
pub unsafe trait RingItem: Send + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Mbuf {}
    impl<T> Sealed for Box<T> {}
}

// SAFETY: a transparent wrapper of one non-null pointer.
unsafe impl RingItem for Mbuf {}
// SAFETY: a box of a sized type is one non-null pointer.
unsafe impl<T: Send> RingItem for Box<T> {}

/// Names in DPDK's table of rings must differ.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Makes a ring for up to `capacity` items, at least one, its memory on `numa_node` or anywhere.
pub fn channel<T: RingItem>(
    _: Eal,
    capacity: usize,
    numa_node: Option<u32>,
) -> Result<(Producer<T>, Consumer<T>), Error> {
    let impossible = Error::Ring { capacity, reason: Errno::from_return(-EINVAL) };
    let Some(count) = u32::try_from(capacity).ok().filter(|&count| count > 0) else { return Err(impossible) };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = CString::new(format!("phalanx_{number}")).map_err(|_| Error::ZeroByte { what: "a ring's name" })?;
    let mut errno = 0;
    // SAFETY: the environment runs, `name` is terminated and copied, `errno` is ours.
    let raw = unsafe {
        dpdk_sys::shim_ring_create(name.as_ptr(), count, numa_node.map_or(-1, |node| node as i32), &mut errno)
    };
    let raw = NonNull::new(raw).ok_or(Error::Ring { capacity, reason: Errno::from_return(errno) })?;
    let shared = Arc::new(Shared { raw, items: PhantomData });
    Ok((Producer { shared: Arc::clone(&shared), not_sync: PhantomData }, Consumer { shared, not_sync: PhantomData }))
}

const EINVAL: i32 = 22;

#[derive(Debug)]
struct Shared<T: RingItem> {
    raw: NonNull<dpdk_sys::rte_ring>,
    items: PhantomData<T>,
}

// SAFETY: the ring is made for one producer and one consumer at a time, and there is one handle for each.
unsafe impl<T: RingItem> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: RingItem> Sync for Shared<T> {}

impl<T: RingItem> Shared<T> {
    /// Whether one handle is left. What the other put in before it went is visible then.
    fn has_one_end(self: &Arc<Self>) -> bool {
        let alone = Arc::strong_count(self) == 1;
        fence(Ordering::Acquire);
        alone
    }

    fn len(&self) -> usize {
        // SAFETY: the ring lives as long as this.
        unsafe { dpdk_sys::shim_ring_count(self.raw.as_ptr()) as usize }
    }

    /// Takes up to `count` items into `space`.
    ///
    /// # Safety
    ///
    /// The caller is the only consumer, and `space` has room for `count` items.
    unsafe fn dequeue(&self, space: *mut T, count: usize) -> usize {
        let count = count.min(u32::MAX as usize) as u32;
        // SAFETY: as the caller promises; the ring holds nothing but items of `T`.
        unsafe { dpdk_sys::shim_ring_dequeue(self.raw.as_ptr(), space.cast(), count) as usize }
    }
}

impl<T: RingItem> Drop for Shared<T> {
    fn drop(&mut self) {
        let mut left = ArrayVec::<T, 32>::new();
        loop {
            // SAFETY: both handles are gone, so nobody else consumes; the array is empty and holds 32.
            let count = unsafe { self.dequeue(left.as_mut_ptr(), left.capacity()) };
            if count == 0 {
                break;
            }
            // SAFETY: that many items came out of the ring.
            unsafe { left.set_len(count) };
            left.clear();
        }
        // SAFETY: the ring is empty, and nobody has a handle to it.
        unsafe { dpdk_sys::rte_ring_free(self.raw.as_ptr()) };
    }
}

/// The end that items go into.
#[derive(Debug)]
pub struct Producer<T: RingItem> {
    shared: Arc<Shared<T>>,
    not_sync: PhantomData<Cell<()>>,
}

impl<T: RingItem> Producer<T> {
    /// Puts one item in, or returns it when the ring is full.
    #[inline]
    pub fn push(&mut self, item: T) -> Result<(), T> {
        let object = (&raw const item).cast::<*mut core::ffi::c_void>();
        // SAFETY: `item` is one pointer, read by C where it stands; `&mut self` is the only producer.
        let taken = unsafe { dpdk_sys::shim_ring_enqueue(self.shared.raw.as_ptr(), object, 1) };
        if taken == 1 {
            mem::forget(item);
            return Ok(());
        }
        Err(item)
    }

    /// Puts in from the front of `burst` what there is room for, and says how much that was. The rest stays, in order.
    #[inline]
    pub fn push_burst<const N: usize>(&mut self, burst: &mut ArrayVec<T, N>) -> usize {
        let len = burst.len();
        let items = burst.as_mut_ptr();
        let offered = len.min(u32::MAX as usize) as u32;
        // SAFETY: the array holds `len` pointers and forgets them first; `&mut self` is the only producer.
        let taken = unsafe {
            burst.set_len(0);
            dpdk_sys::shim_ring_enqueue(self.shared.raw.as_ptr(), items.cast(), offered) as usize
        };
        let left = len - taken;
        if left > 0 {
            // SAFETY: the ring took the first `taken`; the `left` behind them are still ours, and move to the front.
            unsafe { ptr::copy(items.add(taken), items, left) };
            // SAFETY: `left` items stand at the front now.
            unsafe { burst.set_len(left) };
        }
        taken
    }

    /// How many items wait; a moment later it may be fewer.
    pub fn len(&self) -> usize {
        self.shared.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the other end is gone, so that nobody will take what is put in.
    pub fn is_abandoned(&self) -> bool {
        self.shared.has_one_end()
    }
}

/// The end that items come out of.
#[derive(Debug)]
pub struct Consumer<T: RingItem> {
    shared: Arc<Shared<T>>,
    not_sync: PhantomData<Cell<()>>,
}

impl<T: RingItem> Consumer<T> {
    /// Takes the oldest item.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let mut one = ArrayVec::<T, 1>::new();
        self.pop_burst(&mut one);
        one.pop()
    }

    /// Adds the oldest items to `burst`, up to its capacity, and says how many.
    #[inline]
    pub fn pop_burst<const N: usize>(&mut self, burst: &mut ArrayVec<T, N>) -> usize {
        let len = burst.len();
        // SAFETY: `&mut self` is the only consumer, and the array has that room behind its first `len`.
        let count = unsafe { self.shared.dequeue(burst.as_mut_ptr().add(len), burst.remaining_capacity()) };
        // SAFETY: that many items came out of the ring.
        unsafe { burst.set_len(len + count) };
        count
    }

    /// How many items wait; a moment later it may be more.
    pub fn len(&self) -> usize {
        self.shared.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the other end is gone, so that nothing new will come.
    pub fn is_abandoned(&self) -> bool {
        self.shared.has_one_end()
    }
}
