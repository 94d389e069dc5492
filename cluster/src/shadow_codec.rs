//! A [`ShadowSa`] as bytes: what goes to targets in XCF messages and, wrapped, into the coupling facility.
//!
//! **Promises.** The bytes hold keys: they stand in one buffer that is wiped, and no copy is left on the way. What is
//! decoded is bounded ([`SELECTORS_PER_SIDE_MAX`], [`NAME_BYTES_MAX`]) and fits together, or is refused; no bytes make
//! it panic.
//!
//! **What it never does.** It encrypts nothing: whoever carries the bytes protects them.

use core::fmt;
use core::net::IpAddr;
use core::time::Duration;

use ipsec::Spi;
use ipsec::cipher::Cipher;
use ipsec::iv::SenderNumber;
use ipsec::key::SaKey;
use ipsec::lifetime::{Lifetime, Limits, TimeLimits};
use ipsec::replay::WINDOW_PACKETS_MAX;
use ipsec::sa::{ChildSa, Direction, Encapsulation, Mode, PeerId, SaParameters};
use ipsec::selector::{AddressRange, PortRange, Selectors, TrafficSelector};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use crate::fabric::Processing;
use crate::shadow::{ShadowSa, Use};

/// The version of the form, which is its first byte.
pub const SHADOW_VERSION: u8 = 1;

/// Most traffic selectors on one side of one half.
pub const SELECTORS_PER_SIDE_MAX: usize = 255;

/// Most bytes of a child's or a peer's name.
pub const NAME_BYTES_MAX: usize = 256;

/// Why there is no shadow in the bytes, or none can be made of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ShadowCodecError {
    /// Another version of the program wrote it.
    #[error("a shadow SA of version {found}, this program knows {SHADOW_VERSION}; run one version on all members")]
    Version {
        /// Its version.
        found: u8,
    },
    /// The bytes are no shadow.
    #[error("no shadow SA: {0}")]
    Damaged(postcard::Error),
    /// Bytes follow the shadow.
    #[error("{0} bytes follow a shadow SA")]
    Trailing(usize),
    /// A part is out of its bounds, or parts do not fit together.
    #[error("no shadow SA: {0}")]
    Unfit(&'static str),
}

/// The bytes of a shadow.
///
/// # Errors
/// [`ShadowCodecError::Unfit`] if it is beyond the bounds that every member decodes by.
pub fn encode_shadow(shadow: &ShadowSa) -> Result<Zeroizing<Vec<u8>>, ShadowCodecError> {
    let wire = WireShadow::of(shadow)?;
    let flavor = postcard::ser_flavors::Size::default();
    let len = 1 + postcard::serialize_with_flavor(&wire, flavor).map_err(ShadowCodecError::Damaged)?;
    // One allocation of the right size: growing would leave keys behind.
    let mut bytes = Zeroizing::new(vec![0; len]);
    bytes[0] = SHADOW_VERSION;
    postcard::to_slice(&wire, &mut bytes[1..]).map_err(ShadowCodecError::Damaged)?;
    Ok(bytes)
}

/// The shadow in these bytes, which hold nothing else.
///
/// # Errors
/// [`ShadowCodecError`].
pub fn decode_shadow(bytes: &[u8]) -> Result<ShadowSa, ShadowCodecError> {
    match bytes.split_first() {
        Some((&SHADOW_VERSION, rest)) => {
            let (wire, trailing) =
                postcard::take_from_bytes::<WireShadow<'_>>(rest).map_err(ShadowCodecError::Damaged)?;
            if trailing.is_empty() { wire.shadow() } else { Err(ShadowCodecError::Trailing(trailing.len())) }
        }
        Some((&found, _)) => Err(ShadowCodecError::Version { found }),
        None => Err(ShadowCodecError::Unfit("it is empty")),
    }
}

/// Borrows from the bytes, so that a key is copied once only: to where it stays.
#[derive(Serialize, Deserialize)]
struct WireShadow<'a> {
    #[serde(borrow)]
    inbound: WireHalf<'a>,
    #[serde(borrow)]
    outbound: WireHalf<'a>,
    processing: Processing,
    born_at: u64,
    usage: Use,
    replaces: Option<u32>,
    sibling_of: Option<u32>,
    grant_bytes_max: u64,
}

#[derive(Serialize, Deserialize)]
struct WireHalf<'a> {
    name: &'a str,
    peer: u64,
    peer_name: &'a str,
    dvipa: IpAddr,
    remote: IpAddr,
    spi: u32,
    is_transport: bool,
    /// Our port, then the peer's, where ESP travels in UDP.
    udp: Option<(u16, u16)>,
    cipher: WireCipher,
    #[serde(borrow)]
    keymat: &'a [u8],
    esn: bool,
    replay_window_packets: u32,
    local: Side,
    remote_side: Side,
    bytes: (Option<u64>, Option<u64>),
    packets: (Option<u64>, Option<u64>),
    time: (Option<Duration>, Option<Duration>),
    epoch: u64,
}

/// Numbers of their own: the order of ours may change, the meaning of bytes may not.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum WireCipher {
    AesGcm128,
    AesGcm256,
}

#[derive(Serialize, Deserialize)]
struct WireSelector {
    first: IpAddr,
    last: IpAddr,
    protocol: u8,
    ports: (u16, u16),
}

/// The selectors of one side, bounded while they are read.
#[derive(Serialize)]
struct Side(Vec<WireSelector>);

impl<'de> Deserialize<'de> for Side {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bounded;

        impl<'de> Visitor<'de> for Bounded {
            type Value = Side;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {SELECTORS_PER_SIDE_MAX} traffic selectors")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Side, A::Error> {
                let mut side = Vec::new();
                while let Some(selector) = from.next_element()? {
                    if side.len() == SELECTORS_PER_SIDE_MAX {
                        return Err(A::Error::invalid_length(side.len() + 1, &self));
                    }
                    side.push(selector);
                }
                Ok(Side(side))
            }
        }

        deserializer.deserialize_newtype_struct("Side", SeqInNewtype(Bounded))
    }
}

/// `Serialize` writes a newtype; what is in it is the sequence.
struct SeqInNewtype<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for SeqInNewtype<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        deserializer.deserialize_seq(self.0)
    }
}

impl<'a> WireShadow<'a> {
    fn of(shadow: &'a ShadowSa) -> Result<Self, ShadowCodecError> {
        let ShadowSa { child, processing, born_at, usage, replaces, sibling_of, grant_bytes_max } = shadow;
        Ok(WireShadow {
            inbound: WireHalf::of(&child.inbound)?,
            outbound: WireHalf::of(&child.outbound)?,
            processing: *processing,
            born_at: born_at.0,
            usage: *usage,
            replaces: replaces.map(Spi::get),
            sibling_of: sibling_of.map(Spi::get),
            grant_bytes_max: *grant_bytes_max,
        })
    }

    fn shadow(self) -> Result<ShadowSa, ShadowCodecError> {
        let inbound = self.inbound.parameters(Direction::Inbound)?;
        let outbound = self.outbound.parameters(Direction::Outbound)?;
        if (inbound.dvipa, inbound.peer) != (outbound.dvipa, outbound.peer) {
            return Err(ShadowCodecError::Unfit("its halves are of two addresses, or of two peers"));
        }
        let optional = |number: Option<u32>| number.map(spi).transpose();
        Ok(ShadowSa {
            child: ChildSa { inbound, outbound },
            processing: self.processing,
            born_at: SenderNumber(self.born_at),
            usage: self.usage,
            replaces: optional(self.replaces)?,
            sibling_of: optional(self.sibling_of)?,
            grant_bytes_max: self.grant_bytes_max,
        })
    }
}

impl<'a> WireHalf<'a> {
    fn of(half: &'a SaParameters) -> Result<Self, ShadowCodecError> {
        // Every field by name: one that is added must find its place here, or this does not compile.
        let SaParameters {
            name,
            peer,
            peer_name,
            dvipa,
            remote,
            spi,
            direction: _,
            mode,
            encapsulation,
            cipher,
            key,
            esn,
            replay_window_packets,
            selectors,
            lifetime,
            epoch,
        } = half;
        Ok(WireHalf {
            name: bounded(name)?,
            peer: peer.0,
            peer_name: bounded(peer_name)?,
            dvipa: *dvipa,
            remote: *remote,
            spi: spi.get(),
            is_transport: match mode {
                Mode::Tunnel => false,
                Mode::Transport => true,
            },
            udp: match *encapsulation {
                Encapsulation::None => None,
                Encapsulation::Udp { local_port, remote_port } => Some((local_port, remote_port)),
            },
            cipher: match cipher {
                Cipher::AesGcm128 => WireCipher::AesGcm128,
                Cipher::AesGcm256 => WireCipher::AesGcm256,
            },
            keymat: key.expose_keymat(),
            esn: *esn,
            replay_window_packets: *replay_window_packets,
            local: side_of(&selectors.local)?,
            remote_side: side_of(&selectors.remote)?,
            bytes: (lifetime.bytes.soft, lifetime.bytes.hard),
            packets: (lifetime.packets.soft, lifetime.packets.hard),
            time: (lifetime.time.soft, lifetime.time.hard),
            epoch: *epoch,
        })
    }

    fn parameters(self, direction: Direction) -> Result<SaParameters, ShadowCodecError> {
        let cipher = match self.cipher {
            WireCipher::AesGcm128 => Cipher::AesGcm128,
            WireCipher::AesGcm256 => Cipher::AesGcm256,
        };
        if self.dvipa.is_ipv4() != self.remote.is_ipv4() {
            return Err(ShadowCodecError::Unfit("its addresses are of two families"));
        }
        if self.replay_window_packets > WINDOW_PACKETS_MAX {
            return Err(ShadowCodecError::Unfit("its replay window is too wide"));
        }
        let limits = |(soft, hard): (Option<u64>, Option<u64>)| Limits { soft, hard };
        Ok(SaParameters {
            name: bounded(self.name)?.into(),
            peer: PeerId(self.peer),
            peer_name: bounded(self.peer_name)?.into(),
            dvipa: self.dvipa,
            remote: self.remote,
            spi: spi(self.spi)?,
            direction,
            mode: if self.is_transport { Mode::Transport } else { Mode::Tunnel },
            encapsulation: match self.udp {
                None => Encapsulation::None,
                Some((local_port, remote_port)) => Encapsulation::Udp { local_port, remote_port },
            },
            cipher,
            key: SaKey::from_keymat(cipher, self.keymat)
                .map_err(|_| ShadowCodecError::Unfit("its key is of the wrong length"))?,
            esn: self.esn,
            replay_window_packets: self.replay_window_packets,
            selectors: Selectors { local: side(&self.local)?, remote: side(&self.remote_side)? },
            lifetime: Lifetime {
                bytes: limits(self.bytes),
                packets: limits(self.packets),
                time: TimeLimits { soft: self.time.0, hard: self.time.1 },
            },
            epoch: self.epoch,
        })
    }
}

fn bounded(name: &str) -> Result<&str, ShadowCodecError> {
    if name.len() <= NAME_BYTES_MAX { Ok(name) } else { Err(ShadowCodecError::Unfit("a name is too long")) }
}

fn spi(number: u32) -> Result<Spi, ShadowCodecError> {
    Spi::new(number).ok_or(ShadowCodecError::Unfit("a reserved number names an SA"))
}

fn side_of(selectors: &[TrafficSelector]) -> Result<Side, ShadowCodecError> {
    if selectors.len() > SELECTORS_PER_SIDE_MAX {
        return Err(ShadowCodecError::Unfit("it has too many traffic selectors"));
    }
    let wire = selectors.iter().map(|TrafficSelector { addresses, protocol, ports }| WireSelector {
        first: addresses.start(),
        last: addresses.end(),
        protocol: *protocol,
        ports: (ports.start(), ports.end()),
    });
    Ok(Side(wire.collect()))
}

fn side(wire: &Side) -> Result<Vec<TrafficSelector>, ShadowCodecError> {
    let selector = |wire: &WireSelector| {
        let addresses = AddressRange::new(wire.first, wire.last)?;
        let ports = PortRange::from_wire(wire.ports.0, wire.ports.1)?;
        Some(TrafficSelector { addresses, protocol: wire.protocol, ports })
    };
    let selectors: Option<Vec<_>> = wire.0.iter().map(selector).collect();
    selectors.ok_or(ShadowCodecError::Unfit("a traffic selector is no range"))
}

#[cfg(test)]
mod tests;
