//! Delete payloads (RFC 7296 §3.11).

use super::{PayloadKind, ProtocolId};
use crate::error::Malformed;

/// Which SAs are gone, named by the SPIs that the sender receives on; of the IKE SA itself, none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delete<'a> {
    /// Whose SPIs these are.
    pub protocol: ProtocolId,
    spi_len: u8,
    spis: &'a [u8],
}

impl<'a> Delete<'a> {
    /// "This IKE SA is gone."
    pub const IKE_SA: Delete<'static> = Delete { protocol: ProtocolId::IKE, spi_len: 0, spis: &[] };

    /// "These ESP SAs are gone": SPIs of four octets, one after the other.
    #[must_use]
    pub fn esp(spis: &'a [u8]) -> Delete<'a> {
        Delete { protocol: ProtocolId::ESP, spi_len: 4, spis: &spis[..spis.len() - spis.len() % 4] }
    }

    pub(super) fn parse(body: &'a [u8]) -> Result<Delete<'a>, Malformed> {
        let fault = |fault| Malformed::Payload { kind: PayloadKind::Delete, fault };
        let [protocol, spi_len, high, low, spis @ ..] = body else {
            return Err(fault("shorter than its head"));
        };
        let count = usize::from(u16::from_be_bytes([*high, *low]));
        if count * usize::from(*spi_len) != spis.len() {
            return Err(fault("SPI size times number of SPIs is not its length"));
        }
        let delete = Delete { protocol: ProtocolId(*protocol), spi_len: *spi_len, spis };
        match delete.protocol {
            ProtocolId::IKE if *spi_len == 0 && count == 0 => Ok(delete),
            ProtocolId::IKE => Err(fault("an IKE SA is deleted without SPI")),
            ProtocolId::AH | ProtocolId::ESP if *spi_len == 4 => Ok(delete),
            ProtocolId::AH | ProtocolId::ESP => Err(fault("SPIs of AH and ESP are four octets")),
            _ => Err(fault("protocol is none of IKE, AH and ESP")),
        }
    }

    /// The SPIs of AH or ESP SAs.
    pub fn spis(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.spis.chunks_exact(4).map(|spi| u32::from_be_bytes([spi[0], spi[1], spi[2], spi[3]]))
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        let count = self.spis.len().checked_div(usize::from(self.spi_len)).unwrap_or(0);
        out.extend_from_slice(&[self.protocol.0, self.spi_len]);
        out.extend_from_slice(&u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
        out.extend_from_slice(self.spis);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_spis_of_esp() {
        let delete = Delete::parse(&[3, 4, 0, 2, 0, 0, 1, 0, 0, 0, 1, 1]).unwrap();
        assert_eq!(delete.spis().collect::<Vec<_>>(), [256, 257]);
        assert_eq!(Delete::parse(&[1, 0, 0, 0]), Ok(Delete::IKE_SA));
    }

    #[test]
    fn hostile_10_odd_protocols_and_spi_sizes_are_refused() {
        for body in [
            &[0, 4, 0, 1, 0, 0, 1, 0][..],
            &[1, 4, 0, 1, 0, 0, 1, 0],
            &[1, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1],
            &[3, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1],
            &[3, 0, 0xff, 0xff],
            &[3, 4, 0, 2, 0, 0, 1, 0],
            &[4, 4, 0, 1, 0, 0, 1, 0],
            &[3, 4, 0],
        ] {
            assert!(Delete::parse(body).is_err(), "{body:?}");
        }
    }
}
