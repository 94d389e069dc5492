//! The queues of a started port: each has one owner, who may live on any thread.

use super::Owner;
use crate::mbuf::Burst;
use crate::mempool::Mempool;
use core::cell::Cell;
use core::marker::PhantomData;
use core::ptr;
use core::sync::atomic::Ordering;
use std::sync::Arc;

/// Queues may move to another thread, but two threads never share one.
type NotSync = PhantomData<Cell<()>>;

/// A receive queue. It may move to another thread, but is never shared:
///
/// ```compile_fail,E0277
/// fn may_be_shared<T: Sync>() {}
/// may_be_shared::<dpdk::RxQueue>();
/// ```
#[derive(Debug)]
pub struct RxQueue {
    /// Keeps the port open.
    owner: Arc<Owner>,
    port: u16,
    queue: u16,
    mempool: Mempool,
    scattered: u64,
    not_sync: NotSync,
}

impl RxQueue {
    pub(super) fn new(owner: Arc<Owner>, queue: u16, mempool: Mempool) -> Self {
        RxQueue { port: owner.number, owner, queue, mempool, scattered: 0, not_sync: PhantomData }
    }

    /// Adds what has arrived to `burst`, up to its capacity, and says how much that was. Never waits. When nothing came
    /// because the mempool is empty, that counts as [`Port::starved_polls`](super::Port::starved_polls).
    #[inline]
    pub fn receive<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let len = burst.len();
        let room = burst.remaining_capacity().min(usize::from(u16::MAX)) as u16;
        // SAFETY: the port is open while `owner` lives, `&mut self` is the queue's only user, and the array has room
        // for `room` pointers behind its first `len`.
        let received = unsafe {
            let spare = burst.as_mut_ptr().add(len).cast();
            dpdk_sys::shim_rx_burst(self.port, self.queue, spare, room, &mut self.scattered)
        };
        let received = usize::from(received);
        if received == 0 && room > 0 && self.mempool.is_dry() {
            self.owner.starved_polls.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: that many mbufs were written behind the first `len`, each of one segment and ours alone.
        unsafe { burst.set_len(len + received) };
        received
    }

    /// Packets dropped here because they came in pieces that did not fit one buffer.
    pub fn scattered_drops(&self) -> u64 {
        self.scattered
    }

    /// Which queue of its port it is.
    pub fn index(&self) -> u16 {
        self.queue
    }
}

/// A transmit queue. It may move to another thread, but is never shared:
///
/// ```compile_fail,E0277
/// fn may_be_shared<T: Sync>() {}
/// may_be_shared::<dpdk::TxQueue>();
/// ```
#[derive(Debug)]
pub struct TxQueue {
    /// Keeps the port open.
    _owner: Arc<Owner>,
    port: u16,
    queue: u16,
    not_sync: NotSync,
}

impl TxQueue {
    pub(super) fn new(owner: Arc<Owner>, queue: u16) -> Self {
        TxQueue { port: owner.number, _owner: owner, queue, not_sync: PhantomData }
    }

    /// Sends from the front of `burst` what the queue takes, and says how much that was. What was sent has left the
    /// burst; what was not stays, in order.
    #[inline]
    pub fn transmit<const N: usize>(&mut self, burst: &mut Burst<N>) -> usize {
        let len = burst.len();
        let offered = len.min(usize::from(u16::MAX)) as u16;
        let packets = burst.as_mut_ptr();
        // SAFETY: the port is open while `_owner` lives, `&mut self` is the queue's only user, and the array holds
        // `offered` mbufs. The array forgets them all first, so that none is ever owned twice.
        let sent = unsafe {
            burst.set_len(0);
            dpdk_sys::shim_tx_burst(self.port, self.queue, packets.cast(), offered)
        };
        let sent = usize::from(sent.min(offered));
        let left = len - sent;
        if left > 0 {
            // SAFETY: the driver took the first `sent`; the `left` behind them are still ours, and move to the front.
            unsafe { ptr::copy(packets.add(sent), packets, left) };
            // SAFETY: `left` mbufs stand at the front now.
            unsafe { burst.set_len(left) };
        }
        sent
    }

    /// Which queue of its port it is.
    pub fn index(&self) -> u16 {
        self.queue
    }
}
