//! What members send each other beside messages: packets of clients, each behind a header that says what its receiver
//! must know to judge it (DESIGN §3 and §4).
//!
//! **Purpose.** [`Packet`] and [`Repr`] are the header; [`Path::write`] puts it, GRE and the outer headers in front of a
//! packet that lies in a buffer; [`find`] gets them apart again; [`accept`] decides whether a frame may do anything.
//!
//! **Promises.** Any bytes at all can be looked at without a panic, and cost the same few loads. What [`accept`] has not
//! allowed has no [`Accepted`], and there is no other way to one. Nothing here allocates.
//!
//! **What it never does.** It keeps no state: floors, windows and entries stand elsewhere. It does not look into what a
//! frame carries, but for the address that it goes to and the congestion mark on it.
//!
//! ```text
//!  IP | [UDP to 4754 |] GRE (flags 0, type 0x88B5) | header of 72 bytes | payload
//!
//!   0 version = 1   1 kind   2 zero (16 bits)      4 flow hash (32)
//!   8 epoch (64)            16 incarnation (64)   24 serial (64)
//!  32 DVIPA (128, IPv4-mapped for IPv4)           48 SPI (32)   52 zero (32)
//!  56 floor (64)            64 number (64)        all in network order
//! ```

mod acceptance;
mod path;

use core::net::{IpAddr, Ipv6Addr};

use ipsec::Spi;
use wire::{Error, Result};

use crate::id::{ChildId, Epoch, Incarnation, Serial};

pub use acceptance::{Accepted, Refused, accept, sender_of};
pub use path::{Frame, NotAFrame, Path, find, overhead};
pub use wire::gre::UDP_PORT;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 72;

/// The only version there is. Members of different versions refuse each other's frames, not each other's messages.
pub const VERSION: u8 = 1;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Owner to target: the whole outer IP packet as it came from the network. The number is the highest that the owner
    /// knows to be authenticated: a hint at the high half of an extended number, no more.
    Esp,
    /// Owner to target, where the distributor processes: the inner IP packet, and its own number.
    Plain,
    /// Target to owner, where the distributor encrypts: the inner IP packet for the client.
    ToSeal,
    /// Target to owner: numbers of an outbound SA are wanted.
    NumberRequest,
    /// Owner to target: numbers of an outbound SA are given.
    NumberGrant,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Kind; 5] = [Kind::Esp, Kind::Plain, Kind::ToSeal, Kind::NumberRequest, Kind::NumberGrant];

    const fn from_number(number: u8) -> Option<Kind> {
        match number {
            1 => Some(Kind::Esp),
            2 => Some(Kind::Plain),
            3 => Some(Kind::ToSeal),
            4 => Some(Kind::NumberRequest),
            5 => Some(Kind::NumberGrant),
            _other => None,
        }
    }

    const fn number(self) -> u8 {
        match self {
            Kind::Esp => 1,
            Kind::Plain => 2,
            Kind::ToSeal => 3,
            Kind::NumberRequest => 4,
            Kind::NumberGrant => 5,
        }
    }

    /// Whether it goes from a DVIPA's owner to a target; the others go the other way.
    #[must_use]
    pub const fn is_from_owner(self) -> bool {
        match self {
            Kind::Esp | Kind::Plain | Kind::NumberGrant => true,
            Kind::ToSeal | Kind::NumberRequest => false,
        }
    }

    /// Whether its payload is an IP packet.
    #[must_use]
    pub const fn carries_packet(self) -> bool {
        match self {
            Kind::Esp | Kind::Plain | Kind::ToSeal => true,
            Kind::NumberRequest | Kind::NumberGrant => false,
        }
    }

    /// Whether it brings a client's packet to a connection, so that the table serial must be that of the connections.
    #[must_use]
    pub const fn needs_serial(self) -> bool {
        match self {
            Kind::Esp | Kind::Plain => true,
            Kind::ToSeal | Kind::NumberRequest | Kind::NumberGrant => false,
        }
    }
}

/// A view of the header and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<T> {
    buffer: T,
}

impl<T: AsRef<[u8]>> Packet<T> {
    /// Wraps bytes without a look at them. Accessors panic if they are fewer than [`HEADER_LEN`]; meant for
    /// [`Repr::emit`].
    #[inline]
    pub const fn new_unchecked(buffer: T) -> Self {
        Self { buffer }
    }

    /// Wraps a header and its payload.
    ///
    /// # Errors
    /// `Truncated` below [`HEADER_LEN`] bytes; `Version`; `Malformed` for a kind that there is not, or where zeros must
    /// stand and do not.
    #[inline]
    pub fn new_checked(buffer: T) -> Result<Self> {
        let packet = Self { buffer };
        let bytes = packet.buffer.as_ref();
        if bytes.len() < HEADER_LEN {
            return Err(Error::Truncated);
        }
        if bytes[0] != VERSION {
            return Err(Error::Version);
        }
        if packet.kind().is_none() || bytes[2..4] != [0; 2] || bytes[52..56] != [0; 4] {
            return Err(Error::Malformed);
        }
        Ok(packet)
    }

    /// What it carries, if there is such a kind: in a checked view there is.
    #[inline]
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_number(self.buffer.as_ref()[1])
    }

    /// A hash of the connection, so that frames can be spread; it decides nothing.
    #[inline]
    pub fn flow_hash(&self) -> u32 {
        u32::from_be_bytes(self.array(4))
    }

    /// The epoch that the sender believes in.
    #[inline]
    pub fn epoch(&self) -> Epoch {
        Epoch(u64::from_be_bytes(self.array(8)))
    }

    /// Which start of the target the frame is meant for, or comes from.
    #[inline]
    pub fn incarnation(&self) -> Incarnation {
        Incarnation(u64::from_be_bytes(self.array(16)))
    }

    /// The owner's table serial for the target.
    #[inline]
    pub fn serial(&self) -> Serial {
        Serial(u64::from_be_bytes(self.array(24)))
    }

    /// Whose address it is about.
    #[inline]
    pub fn dvipa(&self) -> IpAddr {
        Ipv6Addr::from(self.array::<16>(32)).to_canonical()
    }

    /// The inbound SPI that names the CHILD_SA, if a CHILD_SA can have it.
    #[inline]
    pub fn spi(&self) -> Option<Spi> {
        Spi::from_be_bytes(self.array(48))
    }

    /// Nothing at or below this number may be taken.
    #[inline]
    pub fn floor(&self) -> u64 {
        u64::from_be_bytes(self.array(56))
    }

    /// See [`Kind`].
    #[inline]
    pub fn number(&self) -> u64 {
        u64::from_be_bytes(self.array(64))
    }

    /// What follows the header.
    #[inline]
    pub fn payload(&self) -> &[u8] {
        self.buffer.as_ref().get(HEADER_LEN..).unwrap_or_default()
    }

    #[inline]
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&self.buffer.as_ref()[at..at + N]);
        out
    }
}

impl<T: AsMut<[u8]>> Packet<T> {
    #[inline]
    fn put(&mut self, at: usize, value: &[u8]) {
        self.buffer.as_mut()[at..at + value.len()].copy_from_slice(value);
    }
}

/// The header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repr {
    /// What it carries.
    pub kind: Kind,
    /// A hash of the connection, so that frames can be spread; it decides nothing.
    pub flow_hash: u32,
    /// The epoch that the sender believes in.
    pub epoch: Epoch,
    /// Which start of the target the frame is meant for, or comes from.
    pub incarnation: Incarnation,
    /// The owner's table serial for the target.
    pub serial: Serial,
    /// Whose address it is about.
    pub dvipa: IpAddr,
    /// The inbound SPI that names the CHILD_SA.
    pub spi: Spi,
    /// Nothing at or below this number may be taken.
    pub floor: u64,
    /// See [`Kind`].
    pub number: u64,
}

impl Repr {
    /// Reads a header.
    ///
    /// # Errors
    /// `Malformed` if the SPI is one that no CHILD_SA can have.
    #[inline]
    pub fn parse<T: AsRef<[u8]>>(packet: &Packet<T>) -> Result<Self> {
        Ok(Self {
            kind: packet.kind().ok_or(Error::Malformed)?,
            flow_hash: packet.flow_hash(),
            epoch: packet.epoch(),
            incarnation: packet.incarnation(),
            serial: packet.serial(),
            dvipa: packet.dvipa(),
            spi: packet.spi().ok_or(Error::Malformed)?,
            floor: packet.floor(),
            number: packet.number(),
        })
    }

    /// How many bytes [`Repr::emit`] writes: the header.
    #[inline]
    #[must_use]
    pub const fn buffer_len(&self) -> usize {
        HEADER_LEN
    }

    /// Writes the header. Panics if the view holds fewer than [`HEADER_LEN`] bytes.
    #[inline]
    pub fn emit<T: AsMut<[u8]>>(&self, packet: &mut Packet<T>) {
        let dvipa = match self.dvipa {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        packet.put(0, &[VERSION, self.kind.number(), 0, 0]);
        packet.put(4, &self.flow_hash.to_be_bytes());
        packet.put(8, &self.epoch.0.to_be_bytes());
        packet.put(16, &self.incarnation.0.to_be_bytes());
        packet.put(24, &self.serial.0.to_be_bytes());
        packet.put(32, &dvipa.octets());
        packet.put(48, &self.spi.to_be_bytes());
        packet.put(52, &[0; 4]);
        packet.put(56, &self.floor.to_be_bytes());
        packet.put(64, &self.number.to_be_bytes());
    }

    /// How members name its CHILD_SA.
    #[must_use]
    pub const fn child(&self) -> ChildId {
        ChildId { dvipa: self.dvipa, spi: self.spi }
    }
}

#[cfg(test)]
mod tests;
