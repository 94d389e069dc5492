//! Sending in transport mode (RFC 4303 §3.1.1).

use super::{OutboundError, OutboundSa, Overhead, Prepared, Sealed, esp_overhead};
use crate::esp::BEFORE_PAYLOAD_LEN;
use crate::iv::IvGenerator;
use crate::sa::Mode;
use crate::transport::{self, NotTransportable, Place};

impl OutboundSa {
    /// Encrypts the payload of an IP packet in transport mode, between its IP header and its end.
    ///
    /// `packet` is the room that [`OutboundShared::overhead`](super::OutboundShared::overhead) asks for, with the IP packet
    /// of `ip_len` bytes in its place; on success it is what goes to the wire. The header goes to the front, says ESP and
    /// the new length, and is otherwise the packet's own; addresses are the caller's care. ESP comes behind IPv4's options,
    /// and behind IPv6's hop-by-hop, routing and fragment headers.
    ///
    /// An SA in UDP is refused: through a NAT transport mode would need checksums mended that nobody can mend here.
    ///
    /// # Errors
    /// [`OutboundError`]. Nothing may be sent then; what is not the IP packet may be overwritten.
    #[inline]
    pub fn encapsulate_transport(
        &mut self,
        ivs: &mut IvGenerator,
        packet: &mut [u8],
        ip_len: usize,
    ) -> Result<Sealed, OutboundError> {
        let mut prepared = self.prepare_transport(ivs, packet, ip_len)?;
        self.finish(packet, &mut prepared)
    }

    /// [`encapsulate_transport`](Self::encapsulate_transport) up to the cipher: the packet has its number, its IV and its
    /// place in the lifesize. In a burst, prepare every packet before the first is finished, see [`Prepared`].
    ///
    /// # Errors
    /// As [`encapsulate_transport`](Self::encapsulate_transport).
    #[inline]
    pub fn prepare_transport(
        &mut self,
        ivs: &mut IvGenerator,
        packet: &mut [u8],
        ip_len: usize,
    ) -> Result<Prepared, OutboundError> {
        let prepared = self.prepare_in_place(ivs, packet, ip_len);
        self.counters.refused += u64::from(prepared.is_err());
        prepared
    }

    #[inline]
    fn prepare_in_place(
        &mut self,
        ivs: &mut IvGenerator,
        packet: &mut [u8],
        ip_len: usize,
    ) -> Result<Prepared, OutboundError> {
        if self.shared.frame.mode != Mode::Transport || self.outer.is_udp() {
            return Err(OutboundError::WrongMode);
        }
        let ip =
            packet.get(BEFORE_PAYLOAD_LEN..).and_then(|rest| rest.get(..ip_len)).ok_or(OutboundError::WrongRoom)?;
        let place = transport::place(ip)?;
        let Place { header_len, next_header, .. } = place;
        let payload_len = ip_len - header_len;
        let Overhead { before, after } = esp_overhead(payload_len);
        if packet.len() != before + ip_len + after {
            return Err(OutboundError::WrongRoom);
        }
        let esp_len = packet.len() - header_len;
        if esp_len > transport::payload_len_max(&packet[BEFORE_PAYLOAD_LEN..], place) {
            return Err(OutboundError::TooLong);
        }
        let taken = self.take(ivs, payload_len)?;
        packet.copy_within(BEFORE_PAYLOAD_LEN..BEFORE_PAYLOAD_LEN + header_len, 0);
        let (header, esp) = packet.split_at_mut(header_len);
        transport::announce_esp(header, place, esp_len)?;
        let prepared = self.write_esp(esp, payload_len, next_header, taken);
        Ok(Prepared { esp_at: header_len, ..prepared })
    }
}

impl From<NotTransportable> for OutboundError {
    fn from(refused: NotTransportable) -> Self {
        match refused {
            NotTransportable::Header(_) | NotTransportable::Fragment | NotTransportable::Length { .. } => {
                Self::WrongMode
            }
            NotTransportable::TooLong { .. } => Self::TooLong,
        }
    }
}

#[cfg(test)]
mod tests;
