//! DPDK's buffers and queues as the data path wants them.

use datapath::buffer::{PacketBuffer, PortQueue};
use datapath::burst::{BURST, Burst};
use dpdk::{Mbuf, Mempool, RxQueue, TxQueue};

/// One mbuf.
#[derive(Debug)]
#[repr(transparent)]
pub struct Frame(pub Mbuf);

impl PacketBuffer for Frame {
    #[inline]
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }

    #[inline]
    fn prepend(&mut self, count: usize) -> bool {
        self.0.prepend(count).is_some()
    }

    #[inline]
    fn append(&mut self, count: usize) -> bool {
        self.0.append(count).is_some()
    }

    #[inline]
    fn trim_front(&mut self, count: usize) {
        self.0.trim_front(count);
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

/// One core's queues of a port. A port with fewer receive queues than cores leaves some cores without one.
#[derive(Debug)]
pub struct QueuePair {
    rx: Option<RxQueue>,
    tx: TxQueue,
    spares: Option<Mempool>,
}

impl QueuePair {
    /// Joins the queues of one port under one owner.
    pub fn new(rx: Option<RxQueue>, tx: TxQueue) -> QueuePair {
        QueuePair { rx, tx, spares: None }
    }

    /// The same queues, with memory for what a core makes by itself.
    #[must_use]
    pub fn with_spares(self, spares: Mempool) -> QueuePair {
        QueuePair { spares: Some(spares), ..self }
    }
}

impl PortQueue for QueuePair {
    type Buffer = Frame;

    #[inline]
    fn receive(&mut self, burst: &mut Burst<Frame>) {
        if !burst.is_empty() {
            return;
        }
        let Some(rx) = &mut self.rx else { return };
        let mut arrived = dpdk::Burst::<BURST>::new();
        rx.receive(&mut arrived);
        burst.extend(arrived.into_iter().map(Frame));
    }

    #[inline]
    fn spare(&mut self, len: usize) -> Option<Frame> {
        let mut frame = Frame(self.spares.as_ref()?.allocate()?);
        frame.append(len).then_some(frame)
    }

    #[inline]
    fn transmit(&mut self, burst: &mut Burst<Frame>) {
        let mut leaving: dpdk::Burst<BURST> = burst.drain(..).map(|frame| frame.0).collect();
        self.tx.transmit(&mut leaving);
        burst.extend(leaving.into_iter().map(Frame));
    }
}
