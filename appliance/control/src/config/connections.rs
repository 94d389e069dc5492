//! `connections:` — whom IKE talks to, and which SAs come of it.

use std::net::IpAddr;
use std::time::Duration;

use ike::config::{ChildSettings, Connection, ConnectionSettings, Identity, IdentityPattern, Limits, Overlap};
use ipsec::sa::Mode;
use ipsec::selector::{AddressRange, SELECTORS_MAX, SelectorTemplate};

use super::error::{ConfigError, Warning, quoted};
use super::identity;
use super::lifetime::{self, rekey_time};
use super::place::Place;
use super::ports::{OwnAddresses, host_address, refuse_ipv6};
use super::proposals;
use super::raw::{self, List, Named, Word};
use super::secrets::Keyring;
use super::word::{choice_with_unserved, duration, name, number};

const CONNECTIONS_MAX: usize = 4_096;
const CHILDREN_MAX: usize = 64;
const ADDRESSES_MAX: usize = 64;
const IKE_REKEY_TIME: Duration = Duration::from_secs(4 * 3_600);
const CHILD_REKEY_TIME: Duration = Duration::from_secs(3_600);
const DPD_DELAY: Duration = Duration::from_secs(30);
const TIME_MIN: Duration = Duration::from_secs(1);
const TIME_MAX: Duration = Duration::from_secs(365 * 86_400);
const REPLAY_WINDOW_PACKETS: u32 = 128;

/// Validates `connections:`.
pub(super) fn validate(
    top: &Place<'_>,
    named: Option<Named<raw::Connection>>,
    own: &OwnAddresses,
    keyring: &Keyring,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Connection>, ConfigError> {
    let here = top.key("connections");
    let mut connections: Vec<Connection> = Vec::new();
    for (name_word, raw) in named.unwrap_or_default().0 {
        let place = here.key(&name_word.value);
        if connections.len() == CONNECTIONS_MAX {
            return Err(place.invalid(&name_word, format!("at most {CONNECTIONS_MAX} connections")));
        }
        let connection = validate_connection(&place, &name_word, raw, own, keyring)?;
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
    let identity = earlier.remote_id == IdentityPattern::Any || earlier.remote_id == later.remote_id;
    let covered = |range: &AddressRange| earlier.remote_addrs.iter().any(|wide| wide.covers(range));
    let remote =
        earlier.remote_addrs.is_empty() || (!later.remote_addrs.is_empty() && later.remote_addrs.iter().all(covered));
    let local = later.local_addrs.iter().all(|address| earlier.local_addrs.contains(address));
    identity && remote && local
}

fn validate_connection(
    place: &Place<'_>,
    name_word: &Word,
    raw: raw::Connection,
    own: &OwnAddresses,
    keyring: &Keyring,
) -> Result<Connection, ConfigError> {
    if let Some(word) = &raw.version {
        choice_with_unserved(&place.key("version"), word, &[("2", ())], &["0", "1"], "IKEv1 is not served")?;
    }
    let rekey_time = match &raw.rekey_time {
        None => Some(IKE_REKEY_TIME),
        Some(word) => rekey_time(&place.key("rekey_time"), word)?,
    };
    let settings = ConnectionSettings {
        name: name(place, name_word)?,
        local_addrs: local_addrs(&place.key("local_addrs"), raw.local_addrs, own)?,
        remote_addrs: remote_addrs(&place.key("remote_addrs"), raw.remote_addrs)?,
        local_id: local_id(&place.key("local"), &raw.local)?,
        remote_id: remote_id(&place.key("remote"), &raw.remote, keyring)?,
        proposals: proposals::validate_ike(&place.key("proposals"), raw.proposals)?,
        rekey_time,
        over_time: over_time(&place.key("over_time"), raw.over_time.as_ref(), rekey_time)?,
        ike_sas_per_identity: raw
            .ike_sas_per_identity
            .map(|word| number(&place.key("ike_sas_per_identity"), &word, 1..=Limits::default().ike_sas))
            .transpose()?,
        dpd_delay: match &raw.dpd_delay {
            None => Some(DPD_DELAY),
            Some(word) if word.value == "0" => None,
            Some(word) => Some(duration(&place.key("dpd_delay"), word, TIME_MIN..=TIME_MAX)?),
        },
        children: children(&place.key("children"), name_word, raw.children.value)?,
    };
    // What IKE checks on its own account has been checked above, with lines; this is for what it adds one day.
    settings.check().map_err(|error| {
        ConfigError::Invalid(place.fault(name_word.referenced, error.to_string(), "a connection that IKE takes", ""))
    })
}

/// The age at which an IKE SA that could not be replaced ends. As in strongSwan the word counts from the rekey time on.
fn over_time(
    place: &Place<'_>,
    word: Option<&Word>,
    rekey_time: Option<Duration>,
) -> Result<Option<Duration>, ConfigError> {
    let over = word.map(|word| duration(place, word, TIME_MIN..=TIME_MAX)).transpose()?;
    if let (Some(word), None) = (word, rekey_time) {
        return Err(place.invalid(word, "no over_time beside `rekey_time: 0`, for it counts from there"));
    }
    Ok(rekey_time.map(|soft| soft + over.unwrap_or((soft / 10).max(TIME_MIN))))
}

/// Who we are; without a word, whatever address of ours the peer talks to, as in strongSwan.
fn local_id(place: &Place<'_>, raw: &raw::Auth) -> Result<Option<Identity>, ConfigError> {
    check_auth(&place.key("auth"), &raw.auth)?;
    raw.id.as_ref().map(|word| identity::one(&place.key("id"), word)).transpose()
}

/// Who the peer must be; without a word, anybody whose secret we hold.
fn remote_id(place: &Place<'_>, raw: &raw::Auth, keyring: &Keyring) -> Result<IdentityPattern, ConfigError> {
    check_auth(&place.key("auth"), &raw.auth)?;
    let here = place.key("id");
    let pattern = match &raw.id {
        None => IdentityPattern::Any,
        Some(word) => identity::pattern(&here, word)?,
    };
    if keyring.can_serve(&pattern) {
        return Ok(pattern);
    }
    let word = raw.id.as_ref().unwrap_or(&raw.auth);
    let found = format!("{}, for which `secrets:` holds nothing", quoted(&word.value));
    let remedy = "add `ike-NAME: {id: […], file: …}` to `secrets:`";
    Err(ConfigError::Dangling(here.fault(word.referenced, found, "an identity with a secret", remedy)))
}

fn check_auth(place: &Place<'_>, word: &Word) -> Result<(), ConfigError> {
    let unserved = ["pubkey", "rsa", "ecdsa", "ed25519", "eap", "eap-mschapv2", "eap-tls", "xauth", "any"];
    choice_with_unserved(place, word, &[("psk", ())], &unserved, "only pre-shared keys are served so far")
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

/// The addresses that peers may have; none means every one.
fn remote_addrs(here: &Place<'_>, list: Option<List<Word>>) -> Result<Vec<AddressRange>, ConfigError> {
    let Some(list) = list else { return Ok(Vec::new()) };
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
    if any {
        ranges.clear();
    }
    Ok(ranges)
}

fn children(here: &Place<'_>, connection: &Word, named: Named<raw::Child>) -> Result<Vec<ChildSettings>, ConfigError> {
    let len = named.0.len();
    if len == 0 || len > CHILDREN_MAX {
        let (found, allowed) = (format!("{len} children"), format!("1 to {CHILDREN_MAX} children"));
        return Err(ConfigError::Invalid(here.fault(connection.referenced, found, allowed, "")));
    }
    let child = |(name_word, raw): (Word, raw::Child)| child(&here.key(&name_word.value), &name_word, raw);
    named.0.into_iter().map(child).collect()
}

fn child(place: &Place<'_>, name_word: &Word, raw: raw::Child) -> Result<ChildSettings, ConfigError> {
    let limits = lifetime::Words {
        rekey_time: raw.rekey_time,
        life_time: raw.life_time,
        rekey_bytes: raw.rekey_bytes,
        life_bytes: raw.life_bytes,
        rekey_packets: raw.rekey_packets,
        life_packets: raw.life_packets,
    };
    Ok(ChildSettings {
        name: name(place, name_word)?,
        local_ts: selectors(&place.key("local_ts"), raw.local_ts)?,
        remote_ts: selectors(&place.key("remote_ts"), raw.remote_ts)?,
        proposals: proposals::validate_esp(&place.key("esp_proposals"), raw.esp_proposals)?,
        mode: mode(&place.key("mode"), raw.mode.as_ref())?,
        lifetime: lifetime::validate(place, &limits, Some(CHILD_REKEY_TIME))?,
        overlap: Overlap::default(),
        replay_window_packets: match &raw.replay_window {
            None => REPLAY_WINDOW_PACKETS,
            Some(word) => number(&place.key("replay_window"), word, 64..=65_536)?,
        },
    })
}

/// How ESP carries packets: in a tunnel, if nothing is said.
pub(super) fn mode(place: &Place<'_>, word: Option<&Word>) -> Result<Mode, ConfigError> {
    let Some(word) = word else { return Ok(Mode::Tunnel) };
    let (served, unserved) =
        ([("tunnel", Mode::Tunnel), ("transport", Mode::Transport)], ["transport_proxy", "beet", "pass", "drop"]);
    choice_with_unserved(place, word, &served, &unserved, "tunnel and transport mode are served")
}

fn selectors(here: &Place<'_>, list: Option<List<Word>>) -> Result<Vec<SelectorTemplate>, ConfigError> {
    let Some(list) = list else {
        return Ok("dynamic".parse().into_iter().collect());
    };
    let mut selectors = Vec::new();
    for (place, word) in here.some_items(list, SELECTORS_MAX)? {
        let template = selector(&place, &word)?;
        if let SelectorTemplate::Fixed(fixed) = &template {
            refuse_ipv6(&place, &word, fixed.addresses.is_ipv4())?;
        }
        selectors.push(template);
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
