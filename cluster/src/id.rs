//! The numbers by which members, their starts, and their views of each other are told apart.

use core::fmt;
use core::net::IpAddr;

use ipsec::Spi;
use serde::{Deserialize, Serialize};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

number!(
    /// An appliance of the cluster, by the number that the configuration gives it. The same on every member.
    MemberId(u16)
);
number!(
    /// One start of one member, drawn from the coupling facility: grows with each start and never comes again.
    Incarnation(u64)
);
number!(
    /// Grows by one each time a DVIPA changes its owner; fences everything stale. 0 before the first claim.
    Epoch(u64)
);
number!(
    /// The owner's table serial for one target of one DVIPA: grows with each freeing that the owner has acknowledged.
    Serial(u64)
);

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub const fn next(self) -> Epoch {
        Epoch(self.0 + 1)
    }
}

/// How members name a CHILD_SA: our address and the SPI that we receive on, which is unique for the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId {
    /// Our IPsec address.
    pub dvipa: IpAddr,
    /// The SPI of the inbound half.
    pub spi: Spi,
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.dvipa, self.spi)
    }
}
