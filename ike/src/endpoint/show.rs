//! What an operator may see. No keys.

use core::net::SocketAddr;
use std::sync::Arc;

use ipsec::Spi;
use ipsec::sa::{Encapsulation, Mode, PeerId};
use ipsec::selector::Selectors;
use ipsec::time::Instant;

use super::Endpoint;
use crate::channel::Role;
use crate::message::Spis;
use crate::proposal::{EspSuite, IkeSuite};
use crate::sa::{IkeSa, Standing};

/// An IKE SA, to be shown.
#[derive(Clone, Debug)]
pub struct IkeSaInfo {
    /// Whose.
    pub peer: PeerId,
    /// Its authenticated identity.
    pub peer_name: Arc<str>,
    /// The connection that it matched.
    pub connection: Arc<str>,
    /// Both SPIs.
    pub spis: Spis,
    /// Which side of it we are.
    pub role: Role,
    /// Our address and port.
    pub local: SocketAddr,
    /// The peer's.
    pub remote: SocketAddr,
    /// Algorithms.
    pub suite: IkeSuite,
    /// In use; else replaced or about to be deleted.
    pub is_current: bool,
    /// When it was made.
    pub born: Instant,
    /// When it will be replaced.
    pub rekey_at: Option<Instant>,
    /// Its CHILD_SAs.
    pub children: Vec<ChildInfo>,
}

/// A CHILD_SA, to be shown.
#[derive(Clone, Debug)]
pub struct ChildInfo {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// What we receive on.
    pub inbound: Spi,
    /// What the peer receives on.
    pub outbound: Spi,
    /// Algorithms.
    pub suite: EspSuite,
    /// Tunnel or transport.
    pub mode: Mode,
    /// What carries ESP.
    pub encapsulation: Encapsulation,
    /// What it may carry.
    pub selectors: Selectors,
    /// The inbound SPI of the one that it was made to stand beside.
    pub sibling_of: Option<Spi>,
    /// In use; else replaced or about to be deleted.
    pub is_in_use: bool,
    /// When it will be replaced.
    pub rekey_at: Option<Instant>,
}

/// How full the tables are, against [`Limits`](crate::config::Limits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Authenticated IKE SAs.
    pub ike_sas: usize,
    /// Half-open ones, as responder.
    pub half_open: usize,
    /// Begun ones, as initiator.
    pub initiating: usize,
    /// Responses kept for retransmitted requests.
    pub kept_responses: usize,
    /// CHILD_SAs whose selectors are watched for overlaps.
    pub watched_selectors: usize,
    /// Octets of fragments that wait for the rest of their message.
    pub fragment_octets: usize,
    /// SPIs for ESP in use.
    pub esp_spis: usize,
    /// SPIs for IKE in use.
    pub ike_spis: usize,
}

impl Endpoint {
    /// Every authenticated IKE SA.
    pub fn sas(&self) -> impl Iterator<Item = IkeSaInfo> + '_ {
        self.established.iter().map(|sa| IkeSaInfo {
            peer: sa.lineage.peer,
            peer_name: sa.lineage.peer_name.clone(),
            connection: sa.lineage.connection.name.clone(),
            spis: sa.spis,
            role: sa.role,
            local: sa.path.local,
            remote: sa.path.remote,
            suite: sa.suite,
            is_current: sa.standing == Standing::Current,
            born: sa.born,
            rekey_at: sa.rekey_at,
            children: sa.children.iter().map(|child| child.info(sa.path.encapsulation())).collect(),
        })
    }

    /// How full the tables are.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        let (esp_spis, ike_spis) = self.cx.spis.in_use();
        Occupancy {
            ike_sas: self.established.len(),
            half_open: self.half_open.len(),
            initiating: self.initiating.len(),
            kept_responses: self.cx.kept.len(),
            watched_selectors: self.cx.overlaps.len(),
            fragment_octets: self.established.iter().map(IkeSa::waiting_octets).sum(),
            esp_spis,
            ike_spis,
        }
    }
}
