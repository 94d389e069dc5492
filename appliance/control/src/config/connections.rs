//! `connections:` — whom IKE talks to, and which SAs come of it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipsec::lifetime::Lifetime;
use ipsec::selector::{AddressRange, SELECTORS_MAX, SelectorTemplate};

use super::error::{ConfigError, Warning, quoted};
use super::identity::{self, Identity};
use super::lifetime::{self, rekey_time};
use super::place::Place;
use super::ports::{OwnAddresses, host_address};
use super::proposals::{self, EspProposal, IkeProposal};
use super::raw::{self, List, Named, Word};
use super::secrets::{Secret, lookup};
use super::word::{choice_with_unserved, duration, name, number};

/// More connections than this no appliance has.
pub const CONNECTIONS_MAX: usize = 4_096;
/// More children than this no connection has.
pub const CHILDREN_MAX: usize = 64;

const ADDRESSES_MAX: usize = 64;
const IKE_REKEY_TIME: Duration = Duration::from_secs(4 * 3_600);
const CHILD_REKEY_TIME: Duration = Duration::from_secs(3_600);
const DPD_DELAY: Duration = Duration::from_secs(30);
const DPD_DELAY_MAX: Duration = Duration::from_secs(86_400);
const REPLAY_WINDOW_PACKETS: u32 = 128;

/// The addresses that a peer may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteAddresses {
    /// Any.
    Any,
    /// One of these.
    Ranges(Vec<AddressRange>),
}

impl RemoteAddresses {
    /// Whether a peer may have this address.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        match self {
            Self::Any => true,
            Self::Ranges(ranges) => ranges.iter().any(|range| range.contains(address)),
        }
    }
}

/// Whom we take a peer to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteIdentity {
    /// Anybody whose secret we hold.
    Any,
    /// This one.
    Exactly(Identity),
}

/// Peers that are treated alike, authenticated by pre-shared key on both sides, IKEv2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The operator's name for it.
    pub name: Arc<str>,
    /// Our addresses for it: DVIPAs or addresses of ports.
    pub local_addrs: Vec<IpAddr>,
    /// The peers' addresses.
    pub remote_addrs: RemoteAddresses,
    /// What the IKE SA may be made of, the first preferred.
    pub proposals: Vec<IkeProposal>,
    /// Who we are.
    pub local_id: Identity,
    /// Who the peer must be.
    pub remote_id: RemoteIdentity,
    /// The age at which the IKE SA is replaced.
    pub rekey_time: Option<Duration>,
    /// The silence after which we ask whether the peer lives.
    pub dpd_delay: Option<Duration>,
    /// The SAs that peers may have.
    pub children: Vec<Child>,
}

/// A kind of CHILD_SA, in tunnel mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// The operator's name for it.
    pub name: Arc<str>,
    /// What peers may reach; dynamic is the address of ours that they talk to.
    pub local_ts: Vec<SelectorTemplate>,
    /// Whence; dynamic is the peer's own address.
    pub remote_ts: Vec<SelectorTemplate>,
    /// What it may be made of, the first preferred.
    pub esp_proposals: Vec<EspProposal>,
    /// When it is replaced, and when it ends.
    pub lifetime: Lifetime,
    /// Width of the replay window, 64 to 65,536.
    pub replay_window_packets: u32,
}

/// Validates `connections:`.
pub(super) fn validate(
    top: &Place<'_>,
    named: Option<Named<raw::Connection>>,
    own: &OwnAddresses,
    secrets: &[Secret],
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Connection>, ConfigError> {
    let here = top.key("connections");
    let mut connections: Vec<Connection> = Vec::new();
    for (name_word, raw) in named.unwrap_or_default().0 {
        let place = here.key(&name_word.value);
        if connections.len() == CONNECTIONS_MAX {
            return Err(place.invalid(&name_word, format!("at most {CONNECTIONS_MAX} connections")));
        }
        let connection = validate_connection(&place, &name_word, raw, own, secrets)?;
        if let Some(earlier) = connections.iter().find(|earlier| shadows(earlier, &connection)) {
            let text = format!("never used: connection {} before it takes the same peers", earlier.name);
            warnings.push(place.warning(&name_word, text));
        }
        connections.push(connection);
    }
    Ok(connections)
}

/// Whether an earlier connection takes every peer that a later one could.
fn shadows(earlier: &Connection, later: &Connection) -> bool {
    let identity = match (&earlier.remote_id, &later.remote_id) {
        (RemoteIdentity::Any, _) => true,
        (RemoteIdentity::Exactly(one), RemoteIdentity::Exactly(other)) => one == other,
        (RemoteIdentity::Exactly(_), RemoteIdentity::Any) => false,
    };
    let addresses = match (&earlier.remote_addrs, &later.remote_addrs) {
        (RemoteAddresses::Any, _) => true,
        (RemoteAddresses::Ranges(_), RemoteAddresses::Any) => false,
        (RemoteAddresses::Ranges(wide), RemoteAddresses::Ranges(narrow)) => {
            narrow.iter().all(|range| wide.iter().any(|wide| wide.covers(range)))
        }
    };
    let local = later.local_addrs.iter().all(|address| earlier.local_addrs.contains(address));
    identity && addresses && local && earlier.local_id == later.local_id
}

fn validate_connection(
    place: &Place<'_>,
    name_word: &Word,
    raw: raw::Connection,
    own: &OwnAddresses,
    secrets: &[Secret],
) -> Result<Connection, ConfigError> {
    let name = name(place, name_word)?;
    if let Some(word) = &raw.version {
        choice_with_unserved(&place.key("version"), word, &[("2", ())], &["0", "1"], "IKEv1 is not served")?;
    }
    let local_addrs = local_addrs(&place.key("local_addrs"), raw.local_addrs, own)?;
    let (local, remote) = (place.key("local"), place.key("remote"));
    let local_id = match authenticated_id(&local, &raw.local)? {
        Some((id, _)) => id,
        // As strongSwan does: who does not say who he is, is his address.
        None => Identity::Address(local_addrs[0]),
    };
    let remote_id = match authenticated_id(&remote, &raw.remote)? {
        None => RemoteIdentity::Any,
        Some((id, _)) => RemoteIdentity::Exactly(id),
    };
    let usable = match &remote_id {
        RemoteIdentity::Any => !secrets.is_empty(),
        RemoteIdentity::Exactly(remote) => lookup(secrets, &local_id, remote).is_some(),
    };
    if !usable {
        let word = raw.remote.id.as_ref().unwrap_or(&raw.remote.auth);
        let found = format!("{}, for which `secrets:` holds nothing", quoted(&word.value));
        let remedy = "add `ike-NAME: {id: […], file: …}` to `secrets:`";
        let fault = remote.fault(word.referenced, found, "an identity with a secret", remedy);
        return Err(ConfigError::Dangling(fault));
    }
    Ok(Connection {
        name,
        local_addrs,
        remote_addrs: remote_addrs(&place.key("remote_addrs"), raw.remote_addrs)?,
        proposals: proposals::validate_ike(&place.key("proposals"), raw.proposals)?,
        local_id,
        remote_id,
        rekey_time: match &raw.rekey_time {
            None => Some(IKE_REKEY_TIME),
            Some(word) => rekey_time(&place.key("rekey_time"), word)?,
        },
        dpd_delay: match &raw.dpd_delay {
            None => Some(DPD_DELAY),
            Some(word) if word.value == "0" => None,
            Some(word) => Some(duration(&place.key("dpd_delay"), word, Duration::from_secs(1)..=DPD_DELAY_MAX)?),
        },
        children: children(&place.key("children"), name_word, raw.children.value)?,
    })
}

fn local_addrs(here: &Place<'_>, list: List<Word>, own: &OwnAddresses) -> Result<Vec<IpAddr>, ConfigError> {
    let mut addresses = Vec::new();
    for (place, word) in here.some_items(list, ADDRESSES_MAX)? {
        let address = host_address(&place, &word)?;
        if !own.hold(address) {
            let remedy = "add it to `dvipas:`, or to the `addresses:` of a port";
            return Err(place.dangling(&word, "an address of a DVIPA or of a port", remedy));
        }
        if addresses.contains(&address) {
            return Err(place.duplicate(&word, word.referenced.line(), "each address once"));
        }
        addresses.push(address);
    }
    Ok(addresses)
}

fn remote_addrs(here: &Place<'_>, list: Option<List<Word>>) -> Result<RemoteAddresses, ConfigError> {
    let Some(list) = list else { return Ok(RemoteAddresses::Any) };
    let mut any = false;
    let mut ranges: Vec<AddressRange> = Vec::new();
    for (place, word) in here.some_items(list, ADDRESSES_MAX)? {
        match word.value.as_str() {
            "any" | "%any" => any = true,
            text => ranges.push(text.parse().map_err(|_| {
                place.invalid(&word, "any, an address, a prefix or a range, such as 198.51.100.7 or 198.51.100.0/24")
            })?),
        }
    }
    Ok(if any { RemoteAddresses::Any } else { RemoteAddresses::Ranges(ranges) })
}

/// The identity that an end of a connection is authenticated as, with the word that says so.
fn authenticated_id<'w>(place: &Place<'_>, raw: &'w raw::Auth) -> Result<Option<(Identity, &'w Word)>, ConfigError> {
    let unserved = ["pubkey", "rsa", "ecdsa", "ed25519", "eap", "eap-mschapv2", "eap-tls", "xauth", "any"];
    let reason = "only pre-shared keys are served so far";
    choice_with_unserved(&place.key("auth"), &raw.auth, &[("psk", ())], &unserved, reason)?;
    match &raw.id {
        None => Ok(None),
        Some(word) => Ok(identity::parse(&place.key("id"), word)?.map(|id| (id, word))),
    }
}

fn children(here: &Place<'_>, connection: &Word, named: Named<raw::Child>) -> Result<Vec<Child>, ConfigError> {
    let len = named.0.len();
    if len == 0 || len > CHILDREN_MAX {
        let (found, allowed) = (format!("{len} children"), format!("1 to {CHILDREN_MAX} children"));
        return Err(ConfigError::Invalid(here.fault(connection.referenced, found, allowed, "")));
    }
    let child = |(name_word, raw): (Word, raw::Child)| child(&here.key(&name_word.value), &name_word, raw);
    named.0.into_iter().map(child).collect()
}

fn child(place: &Place<'_>, name_word: &Word, raw: raw::Child) -> Result<Child, ConfigError> {
    if let Some(word) = &raw.mode {
        mode(&place.key("mode"), word)?;
    }
    let limits = lifetime::Words {
        rekey_time: raw.rekey_time,
        life_time: raw.life_time,
        rekey_bytes: raw.rekey_bytes,
        life_bytes: raw.life_bytes,
        rekey_packets: raw.rekey_packets,
        life_packets: raw.life_packets,
    };
    Ok(Child {
        name: name(place, name_word)?,
        local_ts: selectors(&place.key("local_ts"), raw.local_ts)?,
        remote_ts: selectors(&place.key("remote_ts"), raw.remote_ts)?,
        esp_proposals: proposals::validate_esp(&place.key("esp_proposals"), raw.esp_proposals)?,
        lifetime: lifetime::validate(place, &limits, Some(CHILD_REKEY_TIME))?,
        replay_window_packets: match &raw.replay_window {
            None => REPLAY_WINDOW_PACKETS,
            Some(word) => number(&place.key("replay_window"), word, 64..=65_536)?,
        },
    })
}

/// Refuses every mode but tunnel.
pub(super) fn mode(place: &Place<'_>, word: &Word) -> Result<(), ConfigError> {
    let unserved = ["transport", "transport_proxy", "beet", "pass", "drop"];
    choice_with_unserved(place, word, &[("tunnel", ())], &unserved, "only tunnel mode is served so far")
}

fn selectors(here: &Place<'_>, list: Option<List<Word>>) -> Result<Vec<SelectorTemplate>, ConfigError> {
    let Some(list) = list else {
        return Ok("dynamic".parse().into_iter().collect());
    };
    let mut selectors = Vec::new();
    for (place, word) in here.some_items(list, SELECTORS_MAX)? {
        selectors.push(selector(&place, &word)?);
    }
    Ok(selectors)
}

/// A traffic selector as strongSwan users write it.
pub(super) fn selector<T>(place: &Place<'_>, word: &Word) -> Result<T, ConfigError>
where
    T: std::str::FromStr<Err = ipsec::selector::SelectorTextError>,
{
    word.value.parse().map_err(|error| {
        let allowed = "addresses with protocol and port if need be, such as 10.1.0.0/16[tcp/80] or dynamic";
        ConfigError::Invalid(place.fault(word.referenced, quoted(&word.value), allowed, format!("{error}")))
    })
}
