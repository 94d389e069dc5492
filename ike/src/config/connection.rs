//! Connections: which peers may do what.

use core::net::IpAddr;
use core::ops::Deref;
use core::time::Duration;
use std::sync::Arc;

use ipsec::lifetime::Lifetime;
use ipsec::sa::Mode;
use ipsec::selector::{AddressRange, SELECTORS_MAX, SelectorTemplate, TrafficSelector};

use super::{Identity, IdentityPattern};
use crate::crypto::kex::Kex;
use crate::proposal::{EspProposal, IkeProposal, IkeSuite};

/// What to do when a peer asks for selectors that lie within those of another peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Allow it and say so in `ChildUp`. Clients behind different NATs share inner addresses.
    #[default]
    Report,
    /// TS_UNACCEPTABLE.
    Refuse,
}

/// The settings of one kind of CHILD_SA.
#[derive(Clone, Debug)]
pub struct ChildSettings {
    /// Its name, unique within the connection.
    pub name: Arc<str>,
    /// What peers may reach here.
    pub local_ts: Vec<SelectorTemplate>,
    /// From where; `dynamic` is the peer's own address.
    pub remote_ts: Vec<SelectorTemplate>,
    /// In order of preference.
    pub proposals: Vec<EspProposal>,
    /// Transport mode is a wish, as in strongSwan: as responder we agree to it if the peer asks for it, as initiator we ask
    /// for it; in both cases only without a NAT between, and for traffic between the two IKE addresses only. Otherwise the
    /// SA is a tunnel. What replaces an SA, or stands beside it, by our doing, is asked for in the mode that the SA has.
    pub mode: Mode,
    /// When SAs are replaced and when they end.
    pub lifetime: Lifetime,
    /// Width of the replay window.
    pub replay_window_packets: u32,
    /// Selectors that overlap another peer's.
    pub overlap: Overlap,
}

/// The settings of one connection, not yet checked.
#[derive(Clone, Debug)]
pub struct ConnectionSettings {
    /// Its name.
    pub name: Arc<str>,
    /// Our addresses; none means every one.
    pub local_addrs: Vec<IpAddr>,
    /// The peers' addresses; none means every one.
    pub remote_addrs: Vec<AddressRange>,
    /// Who we say we are; without, our address.
    pub local_id: Option<Identity>,
    /// Who the peer must prove to be.
    pub remote_id: IdentityPattern,
    /// In order of preference.
    pub proposals: Vec<IkeProposal>,
    /// IKE SAs are replaced at about this age, earlier by chance up to a tenth.
    pub rekey_time: Option<Duration>,
    /// IKE SAs that could not be replaced end at this age.
    pub over_time: Option<Duration>,
    /// IKE SAs that one identity may begin here and have at once, at least one; none means what
    /// [`Limits::ike_sas_per_identity`](super::Limits::ike_sas_per_identity) says. Raise it where many peers share an
    /// identity.
    pub ike_sas_per_identity: Option<usize>,
    /// A peer that has been silent for so long is asked whether it lives.
    pub dpd_delay: Option<Duration>,
    /// What it may carry.
    pub children: Vec<ChildSettings>,
}

/// Why settings are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection {connection:?}{}: {fault}", child.as_deref().map(|name| format!(", child {name:?}")).unwrap_or_default())]
pub struct ConfigError {
    /// Which connection.
    pub connection: String,
    /// Which of its children, if it is about one.
    pub child: Option<String>,
    /// What was found and what is allowed.
    pub fault: String,
}

/// A connection whose settings have been checked and can no longer change.
#[derive(Clone, Debug)]
pub struct Connection(Arc<ConnectionSettings>);

impl Deref for Connection {
    type Target = ConnectionSettings;

    fn deref(&self) -> &ConnectionSettings {
        &self.0
    }
}

const REPLAY_WINDOW_PACKETS: core::ops::RangeInclusive<u32> = 64..=65_536;

impl ChildSettings {
    fn fault(&self) -> Option<String> {
        for (name, selectors) in [("local_ts", &self.local_ts), ("remote_ts", &self.remote_ts)] {
            if !(1..=SELECTORS_MAX).contains(&selectors.len()) {
                return Some(format!("{} selectors in {name}; allowed are 1 to {SELECTORS_MAX}", selectors.len()));
            }
        }
        if self.name.is_empty() {
            return Some("the name is empty".into());
        }
        if self.proposals.is_empty() {
            return Some("no proposal; expected one such as aes128gcm16".into());
        }
        if !self.lifetime.leaves_room() {
            return Some("a soft limit is not below its hard limit, so there would be no time to rekey".into());
        }
        if self.lifetime.time.soft.is_some_and(|soft| soft.is_zero()) {
            return Some("a rekey time of zero; expected more".into());
        }
        if !REPLAY_WINDOW_PACKETS.contains(&self.replay_window_packets) {
            let found = self.replay_window_packets;
            return Some(format!("replay window of {found} packets; allowed are 64 to 65536"));
        }
        None
    }

    /// The key exchange that CREATE_CHILD_SA must have, if one is configured.
    pub(crate) fn first_kex(&self) -> Option<Kex> {
        self.proposals.iter().flat_map(|proposal| &proposal.kexes).next().copied()
    }

    /// Whether CREATE_CHILD_SA may have this key exchange: one that is configured, or any if none is.
    pub(crate) fn allows_kex(&self, kex: Kex) -> bool {
        self.proposals.iter().any(|proposal| proposal.kexes.is_empty() || proposal.kexes.contains(&kex))
    }

    /// The selectors that the settings mean between these two addresses: ours, then the peer's.
    pub(crate) fn selectors(&self, local: IpAddr, remote: IpAddr) -> ipsec::selector::Selectors {
        let resolve = |templates: &[SelectorTemplate], address| -> Vec<TrafficSelector> {
            templates.iter().map(|template| template.resolve(address)).collect()
        };
        ipsec::selector::Selectors { local: resolve(&self.local_ts, local), remote: resolve(&self.remote_ts, remote) }
    }
}

impl ConnectionSettings {
    /// Checks the settings and closes them.
    ///
    /// # Errors
    /// [`ConfigError`] with what was found and what is allowed.
    pub fn check(self) -> Result<Connection, ConfigError> {
        let error = |child: Option<&str>, fault: String| ConfigError {
            connection: self.name.to_string(),
            child: child.map(str::to_owned),
            fault,
        };
        if self.name.is_empty() {
            return Err(error(None, "the name is empty".into()));
        }
        if self.proposals.is_empty() {
            return Err(error(None, "no proposal; expected one such as aes128gcm16-prfsha256-x25519".into()));
        }
        if let Some((soft, hard)) = self.rekey_time.zip(self.over_time)
            && soft >= hard
        {
            return Err(error(None, format!("rekey time {soft:?} is not below over time {hard:?}")));
        }
        if [self.rekey_time, self.over_time, self.dpd_delay].into_iter().flatten().any(|span| span.is_zero()) {
            return Err(error(None, "a time of zero; expected more, or none at all".into()));
        }
        if self.ike_sas_per_identity == Some(0) {
            return Err(error(None, "no IKE SA for an identity; expected one at least".into()));
        }
        for (at, child) in self.children.iter().enumerate() {
            if let Some(fault) = child.fault() {
                return Err(error(Some(&child.name), fault));
            }
            if self.children[..at].iter().any(|earlier| earlier.name == child.name) {
                return Err(error(Some(&child.name), "the name stands twice".into()));
            }
        }
        Ok(Connection(Arc::new(self)))
    }

    /// Whether the connection is for IKE messages between these addresses.
    pub(crate) fn is_between(&self, local: IpAddr, remote: IpAddr) -> bool {
        let local_fits = self.local_addrs.is_empty() || self.local_addrs.contains(&local);
        let remote_fits = self.remote_addrs.is_empty() || self.remote_addrs.iter().any(|range| range.contains(remote));
        local_fits && remote_fits
    }

    /// Whether the connection's proposals could have led to `suite`.
    pub(crate) fn allows(&self, suite: IkeSuite) -> bool {
        self.proposals.iter().any(|proposal| proposal.allows(suite))
    }

    /// Who we are in this connection.
    pub(crate) fn local_identity(&self, local: IpAddr) -> Identity {
        self.local_id.clone().unwrap_or_else(|| Identity::address(local))
    }

    /// The child of this name.
    pub(crate) fn child(&self, name: &str) -> Option<&ChildSettings> {
        self.children.iter().find(|child| *child.name == *name)
    }
}
