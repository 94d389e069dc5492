//! How the words of other crates stand in a message.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A peer as its number.
pub mod peer {
    use ipsec::sa::PeerId;

    use super::*;

    /// Writes it.
    pub fn serialize<S: Serializer>(peer: &PeerId, serializer: S) -> Result<S::Ok, S::Error> {
        peer.0.serialize(serializer)
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PeerId, D::Error> {
        u64::deserialize(deserializer).map(PeerId)
    }
}

/// An SPI as its number; reserved ones are refused.
pub mod spi {
    use ipsec::Spi;

    use super::*;

    /// Writes it.
    pub fn serialize<S: Serializer>(spi: &Spi, serializer: S) -> Result<S::Ok, S::Error> {
        spi.get().serialize(serializer)
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Spi, D::Error> {
        let number = u32::deserialize(deserializer)?;
        Spi::new(number).ok_or_else(|| D::Error::custom("a reserved SPI"))
    }
}

/// Many SPIs.
pub mod spis {
    use ipsec::Spi;

    use super::*;

    /// Writes them.
    pub fn serialize<S: Serializer>(spis: &[Spi], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(spis.iter().map(|spi| spi.get()))
    }

    /// Reads them.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Spi>, D::Error> {
        let numbers = Vec::<u32>::deserialize(deserializer)?;
        let spis = numbers.into_iter().map(Spi::new).collect::<Option<Vec<_>>>();
        spis.ok_or_else(|| D::Error::custom("a reserved SPI"))
    }
}

/// A 5-tuple; addresses of two families make none.
pub mod flow {
    use core::net::IpAddr;

    use wire::flow::FlowKey;

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Flow(IpAddr, IpAddr, u8, u16, u16);

    /// Writes it.
    pub fn serialize<S: Serializer>(flow: &FlowKey, serializer: S) -> Result<S::Ok, S::Error> {
        Flow(flow.src, flow.dst, flow.protocol, flow.src_port, flow.dst_port).serialize(serializer)
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<FlowKey, D::Error> {
        let Flow(src, dst, protocol, src_port, dst_port) = Flow::deserialize(deserializer)?;
        if src.is_ipv4() != dst.is_ipv4() {
            return Err(D::Error::custom("a flow between two families"));
        }
        Ok(FlowKey { src, dst, protocol, src_port, dst_port })
    }
}
