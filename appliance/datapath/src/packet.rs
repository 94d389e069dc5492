//! What a packet is at each point of its way: one type for each, so that no step can be left out.
//!
//! ```text
//! network:  frame → EspPacket ──(ICV verified)──► InnerPacket ──► delivered
//! inside:   frame → PlainPacket ──(policy)──► SealPacket ──► forwarded
//! ```

use crate::outer::EspPlace;
use crate::routes::PortId;
use ipsec::Spi;
use ipsec::esp::Authentic;
use ipsec::sa::PeerId;
use wire::flow::Inner;

/// An ESP packet as it came; nothing about it is to be believed.
#[derive(Debug)]
pub struct EspPacket<B> {
    /// The whole frame.
    pub frame: B,
    /// Where the ESP packet lies in it.
    pub place: EspPlace,
}

/// An inner packet that came out of an SA and was verified.
#[derive(Debug)]
pub struct InnerPacket<B> {
    /// The inner IP packet alone.
    pub packet: B,
    /// Its headers.
    pub inner: Inner,
    /// The proof.
    pub proof: Authentic,
    /// Whose SA it came by.
    pub peer: PeerId,
    /// The longest inner packet that fits the way back to the peer.
    pub return_mtu: u16,
}

/// An IP packet from an inside port, on its way to a client.
#[derive(Debug)]
pub struct PlainPacket<B> {
    /// The IP packet alone.
    pub packet: B,
    /// The port it came in by.
    pub port: PortId,
    /// Its headers.
    pub inner: Inner,
    /// Symmetric hash of its flow.
    pub hash: u64,
}

/// An IP packet and the outbound SA that it shall leave by.
#[derive(Debug)]
pub struct SealPacket<B> {
    /// The IP packet alone.
    pub packet: B,
    /// Whose SA.
    pub peer: PeerId,
    /// Which of the peer's SAs.
    pub spi: Spi,
}

/// What one core gives to another.
#[derive(Debug)]
pub enum Handed<B> {
    /// To be opened by the core that owns its connection.
    Esp(EspPacket<B>),
    /// To be given an SA by the core that owns its connection.
    Plain(PlainPacket<B>),
    /// To be sealed by the home core of its SA.
    Seal(SealPacket<B>),
}
