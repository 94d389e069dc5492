//! Bounded queues with a reserve: what strangers can provoke never takes the last places.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::drops::DropReason;
use datapath::routes::{NextHop, PortId};

/// Frames that may wait to be sent.
pub const FRAMES_MAX: usize = 2_048;
/// Packets that may wait for all neighbours together, and for one of them: a whole 64 KiB datagram in fragments.
const WAITING_MAX: usize = 512;
const WAITING_PER_HOP_MAX: usize = 64;
/// IKE datagrams that may wait, and their payload bytes.
pub const DATAGRAMS_MAX: usize = 1_024;
const DATAGRAM_BYTES_MAX: usize = 4 << 20;

/// How much an outgoing packet matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// IKE and ARP: may use every place.
    Vital,
    /// Echo replies and ICMP errors: strangers decide how many there are, so half of the places are enough.
    Courtesy,
}

/// Frames waiting to be sent.
#[derive(Debug, Default)]
pub struct TransmitQueue {
    frames: VecDeque<(PortId, Vec<u8>)>,
}

impl TransmitQueue {
    /// Appends a frame, or refuses it.
    pub fn push(&mut self, class: Class, port: PortId, frame: Vec<u8>) -> Result<(), DropReason> {
        let places = match class {
            Class::Vital => FRAMES_MAX,
            Class::Courtesy => FRAMES_MAX / 2,
        };
        if self.frames.len() >= places {
            return Err(DropReason::TransmitFull);
        }
        self.frames.push_back((port, frame));
        Ok(())
    }

    /// The oldest frame.
    pub fn pop(&mut self) -> Option<(PortId, Vec<u8>)> {
        self.frames.pop_front()
    }
}

/// IP packets waiting for their next hop to be resolved.
#[derive(Debug, Default)]
pub struct WaitingPackets {
    by_hop: BTreeMap<NextHop, Vec<(Class, Vec<u8>)>>,
    count: usize,
}

impl WaitingPackets {
    /// Lets a packet wait, or refuses it.
    pub fn push(&mut self, hop: NextHop, class: Class, packet: Vec<u8>) -> Result<(), DropReason> {
        let places = match class {
            Class::Vital => WAITING_MAX,
            Class::Courtesy => WAITING_MAX / 2,
        };
        let of_hop = self.by_hop.get(&hop).map_or(0, Vec::len);
        if self.count >= places || of_hop >= WAITING_PER_HOP_MAX {
            return Err(DropReason::WaitingFull);
        }
        self.by_hop.entry(hop).or_default().push((class, packet));
        self.count += 1;
        Ok(())
    }

    /// Takes out everything that waited for this hop, in order.
    pub fn take(&mut self, hop: NextHop) -> Vec<(Class, Vec<u8>)> {
        let packets = self.by_hop.remove(&hop).unwrap_or_default();
        self.count -= packets.len();
        packets
    }
}

/// An IKE message as it came, or as it is to go: without the non-ESP marker of port 4500.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IkeDatagram {
    /// Our address, and port 500 or 4500.
    pub local: SocketAddr,
    /// The peer's address and port.
    pub remote: SocketAddr,
    /// The IKE message.
    pub payload: Vec<u8>,
}

impl IkeDatagram {
    /// Whether it asks for a new IKE SA: the responder's SPI is still zero (RFC 7296 §3.1). Anyone can send these.
    fn is_initial(&self) -> bool {
        self.payload.get(8..16).is_none_or(|responder_spi| responder_spi == [0; 8])
    }
}

/// IKE datagrams waiting for the IKE endpoint.
#[derive(Debug, Default)]
pub struct DatagramQueue {
    datagrams: VecDeque<IkeDatagram>,
    bytes: usize,
}

impl DatagramQueue {
    /// Appends a datagram, or refuses it. Requests for new IKE SAs get half of the room, so that a flood of them leaves
    /// the other half to what belongs to an IKE SA, or pretends to.
    pub fn push(&mut self, datagram: IkeDatagram) -> Result<(), DropReason> {
        let (share, reason) = match datagram.is_initial() {
            true => (2, DropReason::IkeInitialsFull),
            false => (1, DropReason::IkeQueueFull),
        };
        let bytes = self.bytes + datagram.payload.len();
        if self.datagrams.len() >= DATAGRAMS_MAX / share || bytes > DATAGRAM_BYTES_MAX / share {
            return Err(reason);
        }
        self.bytes = bytes;
        self.datagrams.push_back(datagram);
        Ok(())
    }

    /// The oldest datagram.
    pub fn pop(&mut self) -> Option<IkeDatagram> {
        let datagram = self.datagrams.pop_front()?;
        self.bytes -= datagram.payload.len();
        Some(datagram)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(responder_spi: u8, length: usize) -> IkeDatagram {
        let mut payload = vec![0; length];
        payload[15] = responder_spi;
        IkeDatagram { local: ([192, 0, 2, 1], 500).into(), remote: ([192, 0, 2, 2], 500).into(), payload }
    }

    #[test]
    fn a_flood_of_new_ike_sas_leaves_room_for_established_ones() {
        let mut queue = DatagramQueue::default();
        let admitted = (0..5_000).filter(|_| queue.push(datagram(0, 28)).is_ok()).count();
        assert_eq!(admitted, DATAGRAMS_MAX / 2);
        assert_eq!(queue.push(datagram(0, 28)), Err(DropReason::IkeInitialsFull));
        assert!(queue.push(datagram(1, 28)).is_ok());
        let admitted = (0..5_000).filter(|_| queue.push(datagram(1, 28)).is_ok()).count();
        assert_eq!(admitted, DATAGRAMS_MAX / 2 - 1);
        assert_eq!(queue.push(datagram(1, 28)), Err(DropReason::IkeQueueFull));
    }

    #[test]
    fn bytes_are_bounded_too_and_given_back() {
        let mut queue = DatagramQueue::default();
        let admitted = (0..500).filter(|_| queue.push(datagram(1, 65_000)).is_ok()).count();
        assert_eq!(admitted, DATAGRAM_BYTES_MAX / 65_000);
        while queue.pop().is_some() {}
        assert_eq!(queue.bytes, 0);
        assert!(queue.push(datagram(1, 65_000)).is_ok());
    }

    #[test]
    fn courtesy_leaves_half_of_the_places_to_what_matters() {
        let mut queue = TransmitQueue::default();
        let admitted = (0..10_000).filter(|_| queue.push(Class::Courtesy, PortId(0), vec![]).is_ok()).count();
        assert_eq!(admitted, FRAMES_MAX / 2);
        let admitted = (0..10_000).filter(|_| queue.push(Class::Vital, PortId(0), vec![]).is_ok()).count();
        assert_eq!(admitted, FRAMES_MAX / 2);
    }

    #[test]
    fn one_silent_neighbour_does_not_take_all_the_waiting_room() {
        let mut waiting = WaitingPackets::default();
        let hop = |last| NextHop { port: PortId(0), address: [192, 0, 2, last].into() };
        let admitted = (0..1_000).filter(|_| waiting.push(hop(1), Class::Vital, vec![]).is_ok()).count();
        assert_eq!(admitted, WAITING_PER_HOP_MAX);
        assert!(waiting.push(hop(2), Class::Vital, vec![]).is_ok());
        assert_eq!(waiting.take(hop(1)).len(), WAITING_PER_HOP_MAX);
        assert_eq!(waiting.count, 1);
    }
}
