//! `cluster:` — who the members are, and how they know and reach each other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::fabric::{Encapsulation, Protection};
use cluster::id::MemberId;
use cluster::member::MemberSettings;
use cluster::protection;
use zeroize::Zeroizing;

use super::Sources;
use super::error::{ConfigError, listed, quoted};
use super::place::Place;
use super::ports::{OwnAddresses, Port, Role, host_address};
use super::raw::{self, List, Word};
use super::secret_file::{self, SecretBytes};
use super::secrets::{read, refused};
use super::word::{choice, duration, name, number, token};

/// More members than this no cluster has.
pub const MEMBERS_MAX: usize = 64;
/// What a frame between members adds to the packet that it carries, at most: IP, UDP, GRE and our header.
const FRAME_OVERHEAD_BYTES: u16 = 20 + 8 + 4 + 72;
/// What protection adds to that, at most.
const ESP_OVERHEAD_BYTES: u16 = protection::OVERHEAD_BYTES_MAX as u16;

const ENDPOINTS_MAX: usize = 16;
const PATH_LEN_MAX: usize = 1_024;
const WRAP_KEY_LEN: usize = 32;
const SILENCE: Duration = Duration::from_secs(3);
const SHADOW_PATIENCE: Duration = Duration::from_millis(500);

/// What makes an appliance one of several.
#[derive(Debug)]
pub struct Cluster {
    /// The cluster's name, also in its certificates.
    pub name: Arc<str>,
    /// Which member this appliance is.
    pub me: MemberId,
    /// Every member, by number.
    pub members: Vec<MemberSettings>,
    /// Which of [`Config::ports`](super::Config::ports) joins them.
    pub port: usize,
    /// Who this appliance is, and whom it believes.
    pub pki: Pki,
    /// How frames travel between members.
    pub encapsulation: Encapsulation,
    /// What protects them.
    pub protection: Protection,
    /// Where the cluster keeps what must outlive each of its members.
    pub facility: Facility,
    /// How long a member may be silent before it is believed lost.
    pub silence: Duration,
    /// How long an SA waits for its shadows.
    pub shadow_patience: Duration,
}

/// Certificates for XCF.
#[derive(Debug)]
pub struct Pki {
    /// The cluster's own authority, a PEM file.
    pub ca: PathBuf,
    /// This member's certificate, a PEM file.
    pub certificate: PathBuf,
    /// Its key, the text of a PEM file.
    pub key: SecretBytes,
}

/// The coupling facility.
#[derive(Debug)]
pub struct Facility {
    /// `http://` or `https://` addresses of etcd.
    pub endpoints: Vec<String>,
    /// What all the cluster's records are named with in front.
    pub prefix: String,
    /// What SA keys are wrapped with there.
    pub wrap_key: Zeroizing<[u8; WRAP_KEY_LEN]>,
    /// Who etcd is, and who we are to it, where it speaks TLS.
    pub tls: Option<FacilityTls>,
}

/// TLS towards etcd.
#[derive(Debug)]
pub struct FacilityTls {
    /// Whom to believe, a PEM file.
    pub ca: PathBuf,
    /// Our certificate and its key, PEM files both, where etcd asks for one.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl Cluster {
    /// The member that the operator calls so.
    pub(super) fn member(&self, place: &Place<'_>, word: &Word) -> Result<MemberId, ConfigError> {
        let found = self.members.iter().find(|member| *member.name == *word.value);
        let names = || listed(self.members.iter().map(|member| &*member.name));
        found.map(|member| member.id).ok_or_else(|| place.dangling(word, names(), "name one of `cluster.members:`"))
    }
}

/// Validates `cluster:`.
pub(super) fn validate(
    top: &Place<'_>,
    raw: Option<raw::Cluster>,
    ports: &[Port],
    own: &OwnAddresses,
    sources: &mut Sources<'_>,
) -> Result<Option<Cluster>, ConfigError> {
    let Some(raw) = raw else {
        return Ok(None);
    };
    let here = top.key("cluster");
    let members = validate_members(&here.key("members"), raw.members, own)?;
    let me_place = here.key("member");
    let me = members.iter().find(|member| *member.settings.name == *raw.member.value).ok_or_else(|| {
        let names = listed(members.iter().map(|member| &*member.settings.name));
        me_place.dangling(&raw.member, names, "name the member that this appliance is")
    })?;
    let (encapsulation, protection) = trusted(&here.key("trusted"), raw.trusted.unwrap_or_default())?;
    let port = trusted_port(&me_place, &raw.member, &me.settings, ports, protection)?;
    for member in &members {
        refuse_elsewhere(&here.key("members"), member, &ports[port])?;
    }
    let span = |key: &str, word: Option<Word>, default, range| match word {
        None => Ok(default),
        Some(word) => duration(&here.key(key), &word, range),
    };
    let me = me.settings.id;
    Ok(Some(Cluster {
        name: label(&here.key("name"), &raw.name)?,
        me,
        members: members.into_iter().map(|member| member.settings).collect(),
        port,
        pki: validate_pki(&here.key("pki"), raw.pki, sources)?,
        encapsulation,
        protection,
        facility: validate_facility(&here.key("facility"), raw.facility, sources)?,
        silence: span("silence", raw.silence, SILENCE, Duration::from_millis(500)..=Duration::from_secs(60))?,
        shadow_patience: span(
            "shadow_patience",
            raw.shadow_patience,
            SHADOW_PATIENCE,
            Duration::from_millis(10)..=Duration::from_secs(10),
        )?,
    }))
}

/// How frames travel between members, and what protects them.
fn trusted(place: &Place<'_>, raw: raw::Trusted) -> Result<(Encapsulation, Protection), ConfigError> {
    let encapsulations = [("gre", Encapsulation::Gre), ("gre-in-udp", Encapsulation::GreInUdp)];
    let protections = [Protection::None, Protection::Esp].map(|protection| (protection.name(), protection));
    let encapsulation = match &raw.encapsulation {
        None => Encapsulation::default(),
        Some(word) => choice(&place.key("encapsulation"), word, &encapsulations)?,
    };
    let protection = match &raw.protect {
        None => Protection::default(),
        Some(word) => choice(&place.key("protect"), word, &protections)?,
    };
    match (&raw.encapsulation, encapsulation, protection) {
        (Some(word), Encapsulation::GreInUdp, Protection::Esp) => {
            let allowed = "gre: ESP hides the ports, and its SPIs spread frames over a card's queues as well";
            Err(place.key("encapsulation").conflict(word, "with `protect: esp`", allowed))
        }
        (_, _, _) => Ok((encapsulation, protection)),
    }
}

/// A member, with the word that holds its address.
struct Listed {
    settings: MemberSettings,
    address: Word,
}

fn validate_members(here: &Place<'_>, list: List<raw::Member>, own: &OwnAddresses) -> Result<Vec<Listed>, ConfigError> {
    let (mut names, mut ids, mut addresses) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut members = Vec::new();
    for (place, raw) in here.some_items(list, MEMBERS_MAX)? {
        let id = number(&place.key("id"), &raw.id, 1..=u16::MAX)?;
        let address = host_address(&place.key("address"), &raw.address)?;
        let settings = MemberSettings { id: MemberId(id), name: label(&place.key("name"), &raw.name)?, address };
        if let Some(line) = names.insert(raw.name.value.clone(), raw.name.referenced.line()) {
            return Err(place.key("name").duplicate(&raw.name, line, "each name once"));
        }
        if let Some(line) = ids.insert(id, raw.id.referenced.line()) {
            return Err(place.key("id").duplicate(&raw.id, line, "each number once"));
        }
        if let Some(line) = addresses.insert(address, raw.address.referenced.line()) {
            return Err(place.key("address").duplicate(&raw.address, line, "each address once"));
        }
        members.push(Listed { settings, address: raw.address });
    }
    let mine = members.iter().filter(|member| own.hold(member.settings.address)).count();
    if let Some(last) = members.last().filter(|_| mine > 1) {
        let allowed = "the address of one member on this appliance's trusted port";
        return Err(here.conflict(&last.address, "and several members' addresses are this appliance's own", allowed));
    }
    members.sort_by_key(|member| member.settings.id);
    Ok(members)
}

/// The trusted port that holds this member's address.
fn trusted_port(
    place: &Place<'_>,
    word: &Word,
    me: &MemberSettings,
    ports: &[Port],
    protection: Protection,
) -> Result<usize, ConfigError> {
    let holds = |port: &&Port| port.addresses.iter().any(|own| own.address == me.address);
    let remedy = format!("give a port of role trusted the address {}", me.address);
    let Some((index, port)) = ports.iter().enumerate().find(|(_, port)| holds(port)) else {
        return Err(place.dangling(word, "a member whose address one of our trusted ports holds", &remedy));
    };
    if port.role != Role::Trusted {
        let found = format!("{}, whose address is on port {} of role {}", quoted(&word.value), port.name, port.role);
        return Err(ConfigError::Dangling(place.fault(word.referenced, found, "an address on a trusted port", remedy)));
    }
    let widest = ports.iter().filter(|port| port.role == Role::Network).map(|port| port.mtu_bytes).max();
    let (overhead, of) = match protection {
        Protection::None => (FRAME_OVERHEAD_BYTES, "GRE"),
        Protection::Esp => (FRAME_OVERHEAD_BYTES + ESP_OVERHEAD_BYTES, "GRE in ESP"),
    };
    let needed = widest.unwrap_or(0).saturating_add(overhead);
    if port.mtu_bytes < needed {
        let found =
            format!("{}, whose trusted port {} has an MTU of {}", quoted(&word.value), port.name, port.mtu_bytes);
        let allowed = format!("an MTU of {needed} at least: that of the network ports and {overhead} for {of}");
        let remedy = "raise the trusted port's `mtu:` (and the link's), or lower that of the network ports";
        return Err(ConfigError::Invalid(place.fault(word.referenced, found, allowed, remedy)));
    }
    Ok(index)
}

fn refuse_elsewhere(place: &Place<'_>, member: &Listed, port: &Port) -> Result<(), ConfigError> {
    if port.is_on_link(member.settings.address) {
        return Ok(());
    }
    let links = listed(
        port.addresses.iter().map(|own| own.network().to_string()).collect::<Vec<_>>().iter().map(String::as_str),
    );
    let allowed = format!("an address on the trusted port's link: {links}");
    Err(place.dangling(&member.address, allowed, "members speak to each other without a router between"))
}

/// A label of a DNS name, since names stand in certificates.
fn label(place: &Place<'_>, word: &Word) -> Result<Arc<str>, ConfigError> {
    let text = name(place, word)?;
    let is_label = text.len() <= 63
        && !text.ends_with('-')
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if is_label { Ok(text) } else { Err(place.invalid(word, "1 to 63 small letters, digits or `-`, as in DNS")) }
}

fn validate_pki(here: &Place<'_>, raw: raw::Pki, sources: &mut Sources<'_>) -> Result<Pki, ConfigError> {
    Ok(Pki {
        ca: path(&here.key("ca"), &raw.ca, sources)?,
        certificate: path(&here.key("certificate"), &raw.certificate, sources)?,
        key: read(&here.key("key"), &raw.key, sources)?,
    })
}

/// The name of a file that anyone may read, relative ones from where the configuration lies.
fn path(place: &Place<'_>, word: &Word, sources: &Sources<'_>) -> Result<PathBuf, ConfigError> {
    let text = token(place, word, PATH_LEN_MAX, "the name of a file, such as pki/ca.pem")?;
    Ok(sources.directory.join(text))
}

fn validate_facility(
    here: &Place<'_>,
    mut raw: raw::Facility,
    sources: &mut Sources<'_>,
) -> Result<Facility, ConfigError> {
    let place = here.key("backend");
    if raw.backend.value == "embedded" {
        let reason = "the embedded facility is one appliance's own; a cluster shares one: use etcd";
        return Err(place.unserved(&raw.backend, "etcd", reason));
    }
    choice(&place, &raw.backend, &[("etcd", ())])?;
    let Some(endpoints) = raw.endpoints.take() else {
        return Err(here.missing(&raw.backend, "endpoints", "the addresses of etcd, such as [http://192.0.2.1:2379]"));
    };
    let mut uses_tls = None;
    let at = here.key("endpoints");
    let mut checked = Vec::new();
    for (place, word) in at.some_items(endpoints, ENDPOINTS_MAX)? {
        let text = token(&place, &word, PATH_LEN_MAX, "an address of etcd")?;
        let tls = match text.split_once("://") {
            Some(("http", host)) if !host.is_empty() => false,
            Some(("https", host)) if !host.is_empty() => true,
            Some(_) | None => {
                return Err(place.invalid(&word, "http:// or https://, host and port, such as http://192.0.2.1:2379"));
            }
        };
        if *uses_tls.get_or_insert(tls) != tls {
            return Err(place.conflict(
                &word,
                "where others say differently",
                "http for all endpoints, or https for all",
            ));
        }
        checked.push(text.to_owned());
    }
    let prefix = match &raw.prefix {
        None => "/phalanx".to_owned(),
        Some(word) => {
            let text = token(&here.key("prefix"), word, 256, "the beginning of all records' names")?;
            text.trim_end_matches('/').to_owned()
        }
    };
    let tls = facility_tls(here, &raw, uses_tls == Some(true), sources)?;
    Ok(Facility { endpoints: checked, prefix, wrap_key: wrap_key(&here.key("wrap_key"), &raw.wrap_key, sources)?, tls })
}

fn facility_tls(
    here: &Place<'_>,
    raw: &raw::Facility,
    uses_tls: bool,
    sources: &mut Sources<'_>,
) -> Result<Option<FacilityTls>, ConfigError> {
    match (&raw.ca, uses_tls) {
        (None, false) => Ok(None),
        (None, true) => Err(here.missing(&raw.backend, "ca", "the authority that etcd's certificates come from")),
        (Some(word), false) => Err(here.key("ca").conflict(word, "but the endpoints say http", "https:// endpoints")),
        (Some(ca), true) => {
            let client = match (&raw.certificate, &raw.key) {
                (None, None) => None,
                (Some(certificate), Some(key)) => {
                    Some((path(&here.key("certificate"), certificate, sources)?, path(&here.key("key"), key, sources)?))
                }
                (Some(word), None) => return Err(here.missing(word, "key", "the certificate's key")),
                (None, Some(word)) => return Err(here.missing(word, "certificate", "the key's certificate")),
            };
            Ok(Some(FacilityTls { ca: path(&here.key("ca"), ca, sources)?, client }))
        }
    }
}

fn wrap_key(
    place: &Place<'_>,
    word: &Word,
    sources: &mut Sources<'_>,
) -> Result<Zeroizing<[u8; WRAP_KEY_LEN]>, ConfigError> {
    let text = read(place, word, sources)?;
    let bytes = Zeroizing::new(secret_file::decode(&text).map_err(|refusal| refused(place, word, refusal))?);
    let mut key = Zeroizing::new([0; WRAP_KEY_LEN]);
    match <&[u8; WRAP_KEY_LEN]>::try_from(&bytes[..]) {
        Ok(bytes) => *key = *bytes,
        Err(_) => {
            let found = format!("a key of {} bytes", bytes.len());
            let remedy = "make one with: (umask 077; printf 0x; head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n') > FILE; \
                 every member has the same";
            return Err(ConfigError::Secret(place.fault(
                word.referenced,
                found,
                "32 bytes, as 0x and 64 hex digits",
                remedy,
            )));
        }
    }
    Ok(key)
}

/// The members that a list names, each once.
pub(super) fn members_of(here: &Place<'_>, list: List<Word>, cluster: &Cluster) -> Result<Vec<MemberId>, ConfigError> {
    let mut members = Vec::new();
    for (place, word) in here.some_items(list, MEMBERS_MAX)? {
        let member = cluster.member(&place, &word)?;
        if members.contains(&member) {
            return Err(place.conflict(&word, "which stands there already", "each member once"));
        }
        members.push(member);
    }
    Ok(members)
}
