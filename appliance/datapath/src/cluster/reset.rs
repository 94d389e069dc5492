//! The end of a connection whose target is lost: its client is told by a reset, where TCP has one.
//!
//! Only the owner sends it, and only in answer to a segment that it authenticated. It goes the way of all packets to the
//! client: under the client's own SA, numbered by that SA's home core.

use super::check::{Body, Checked};
use crate::buffer::{PacketBuffer, PortQueue};
use crate::core::DataCore;
use crate::drops::DropReason;
use crate::inbound::cut;
use crate::packet::{Handed, SealPacket};
use cluster::member::EntryKey;
use core::net::{IpAddr, Ipv4Addr};
use ipsec::time::Instant;
use wire::flow::FlowKey;
use wire::tcp::{self, Flags};
use wire::{ipv4, protocol};

/// A reset without options, over IPv4.
const RESET_LEN: usize = ipv4::HEADER_LEN + tcp::HEADER_LEN;

const TTL_HOPS: u8 = 64;

/// What a reset says (RFC 9293 §3.10.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reset {
    sequence: u32,
    acknowledgement: u32,
    flags: Flags,
}

impl<Q: PortQueue> DataCore<Q> {
    /// Forgets the entry of a lost connection, and answers the segment that asked for it. The segment itself ends here.
    pub(super) fn end_lost(&mut self, checked: Checked<Q::Buffer>, key: &EntryKey, now: Instant) {
        if let Some(part) = &mut self.part {
            let _ = part.vcrt.forget(checked.hash, key);
        }
        let segment = match (&checked.body, &self.part) {
            (Body::Copied(range), Some(part)) => part.scratch.get(range.clone()),
            (Body::Opened, _) => Some(checked.frame.bytes()),
            (Body::Sealed, _) | (Body::Copied(_), None) => None,
        };
        let reset =
            segment.and_then(|packet| reset_for(packet.get(checked.inner.header_len..checked.inner.total_len)?));
        self.drops.note(DropReason::TargetLost);
        if let Some(reset) = reset {
            self.send_reset(checked.frame, reset, key, now);
        }
    }

    /// Makes the reset in the memory of the segment that it answers.
    fn send_reset(&mut self, mut frame: Q::Buffer, reset: Reset, key: &EntryKey, now: Instant) {
        let flow = key.flow.reversed();
        let (IpAddr::V4(src), IpAddr::V4(dst)) = (flow.src, flow.dst) else { return };
        let outbound = self.sas.outbound.of_peer(key.peer, &flow, wire::Fragment::Whole);
        let Some((spi, home)) = outbound.map(|entry| (entry.shared.parameters().spi, entry.home)) else { return };
        let len = frame.bytes().len();
        if len < RESET_LEN {
            return;
        }
        cut(&mut frame, len - RESET_LEN..len);
        write(frame.bytes_mut(), &flow, (src, dst), reset);
        self.ledger.made.add(1);
        let packet = SealPacket { packet: frame, peer: key.peer, spi, is_made: true };
        if home == self.handover.own() {
            self.seal([packet].into_iter().collect(), now);
        } else {
            self.outgoing[home].push(Handed::Seal(packet));
        }
    }
}

/// The answer to a segment; none to a reset.
fn reset_for(segment: &[u8]) -> Option<Reset> {
    let tcp = tcp::Packet::new_checked(segment).ok()?;
    let flags = tcp.flags();
    if flags.contains(Flags::RST) {
        return None;
    }
    if flags.contains(Flags::ACK) {
        return Some(Reset { sequence: tcp.acknowledgement(), acknowledgement: 0, flags: Flags::RST });
    }
    let length =
        tcp.payload().len() as u32 + u32::from(flags.contains(Flags::SYN)) + u32::from(flags.contains(Flags::FIN));
    let acknowledgement = tcp.sequence().wrapping_add(length);
    Some(Reset { sequence: 0, acknowledgement, flags: Flags::RST | Flags::ACK })
}

fn write(packet: &mut [u8], flow: &FlowKey, (src, dst): (Ipv4Addr, Ipv4Addr), reset: Reset) {
    let ip = ipv4::Repr {
        src,
        dst,
        protocol: protocol::TCP,
        dscp: 0,
        ecn: 0,
        identification: 0,
        dont_fragment: true,
        more_fragments: false,
        fragment_offset: 0,
        ttl: TTL_HOPS,
        payload_len: tcp::HEADER_LEN,
    };
    let segment = tcp::Repr {
        src_port: flow.src_port,
        dst_port: flow.dst_port,
        sequence: reset.sequence,
        acknowledgement: reset.acknowledgement,
        flags: reset.flags,
        window: 0,
        urgent: 0,
        mss: None,
        window_scale: None,
        sack_permitted: false,
        timestamps: None,
    };
    let (header, payload) = packet.split_at_mut(ipv4::HEADER_LEN);
    let mut view = tcp::Packet::new_unchecked(payload);
    segment.emit(&mut view);
    view.fill_checksum(flow.src, flow.dst);
    ip.emit(&mut ipv4::Packet::new_unchecked(header));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(flags: Flags, payload: &[u8]) -> Vec<u8> {
        let repr = tcp::Repr {
            src_port: 5_000,
            dst_port: 80,
            sequence: 0xffff_fffe,
            acknowledgement: 0x2000,
            flags,
            window: 1,
            urgent: 0,
            mss: None,
            window_scale: None,
            sack_permitted: false,
            timestamps: None,
        };
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut tcp::Packet::new_unchecked(&mut bytes[..]));
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn a_reset_is_as_rfc_9293_says() {
        let reset = |sequence, acknowledgement, flags| Some(Reset { sequence, acknowledgement, flags });
        assert_eq!(reset_for(&segment(Flags::ACK, b"data")), reset(0x2000, 0, Flags::RST));
        assert_eq!(reset_for(&segment(Flags::FIN | Flags::ACK, b"")), reset(0x2000, 0, Flags::RST));
        assert_eq!(reset_for(&segment(Flags::PSH, b"data")), reset(0, 2, Flags::RST | Flags::ACK), "it wraps");
        assert_eq!(reset_for(&segment(Flags::FIN, b"data")), reset(0, 3, Flags::RST | Flags::ACK));
        assert_eq!(reset_for(&segment(Flags::RST, b"")), None);
        assert_eq!(reset_for(&segment(Flags::RST | Flags::ACK, b"")), None);
        assert_eq!(reset_for(&[0; 19]), None);
    }
}
