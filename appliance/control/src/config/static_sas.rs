//! `static_sas:` — SAs without IKE, for laboratories: their keys never change.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipsec::Spi;
use ipsec::cipher::Cipher;
use ipsec::key::SaKey;
use ipsec::lifetime::Lifetime;
use ipsec::sa::{Direction, Encapsulation, Mode, PeerId, SaParameters};
use ipsec::selector::{AddressRange, SELECTORS_MAX, Selectors, TrafficSelector};
use zeroize::Zeroizing;

use super::Sources;
use super::connections::{mode, selector};
use super::dvipas::Dvipa;
use super::error::{ConfigError, Warning};
use super::lifetime;
use super::place::Place;
use super::ports::{host_address, refuse_ipv6};
use super::raw::{self, List, Word};
use super::secret_file::Refusal;
use super::secrets::{read, refused};
use super::word::{choice, name, number, truth};

/// More static SAs than this no laboratory needs.
pub const STATIC_SAS_MAX: usize = 65_536;

const NATT_PORT: u16 = 4500;
const REPLAY_WINDOW_PACKETS: u32 = 128;

/// A pair of SAs, or one alone, that nobody negotiated.
#[derive(Debug)]
pub struct StaticSa {
    /// From the peer to us.
    pub inbound: Option<SaParameters>,
    /// From us to the peer.
    pub outbound: Option<SaParameters>,
}

/// What both halves share.
struct Common {
    name: Arc<str>,
    peer: PeerId,
    peer_name: Arc<str>,
    dvipa: IpAddr,
    remote: IpAddr,
    mode: Mode,
    encapsulation: Encapsulation,
    cipher: Cipher,
    esn: bool,
    replay_window_packets: u32,
    selectors: Selectors,
    lifetime: Lifetime,
}

/// What must not stand twice, over all static SAs.
#[derive(Default)]
struct Seen {
    names: BTreeMap<String, u64>,
    peers: BTreeMap<Arc<str>, PeerId>,
    spis: BTreeMap<(Direction, IpAddr, Spi), u64>,
    /// By SHA-256, so that no key is kept.
    keys: BTreeMap<[u8; 32], u64>,
}

/// Validates `static_sas:` and reads their keys.
pub(super) fn validate(
    top: &Place<'_>,
    list: Option<Vec<raw::StaticSa>>,
    dvipas: &[Dvipa],
    sources: &mut Sources<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<StaticSa>, ConfigError> {
    let here = top.key("static_sas");
    let mut seen = Seen::default();
    let mut sas = Vec::new();
    for (place, mut raw) in here.items(list.unwrap_or_default()) {
        if sas.len() == STATIC_SAS_MAX {
            return Err(place.invalid(&raw.name, format!("at most {STATIC_SAS_MAX} static SAs")));
        }
        if sas.is_empty() {
            let text = "FOR LABORATORIES ONLY: keys that never change, no IKE, no liveness check, no forward secrecy";
            warnings.push(here.warning(&raw.name, text));
        }
        let (inbound, outbound) = (raw.inbound.take(), raw.outbound.take());
        if inbound.is_none() && outbound.is_none() {
            return Err(place.missing(&raw.name, "in", "`in`, `out` or both, each {spi: …, key_file: …}"));
        }
        let common = validate_common(&place, raw, dvipas, &mut seen)?;
        let mut half = |key, direction, raw: Option<raw::StaticHalf>| {
            raw.map(|raw| validate_half(&place.key(key), &common, direction, &raw, &mut seen, sources)).transpose()
        };
        let inbound = half("in", Direction::Inbound, inbound)?;
        let outbound = half("out", Direction::Outbound, outbound)?;
        sas.push(StaticSa { inbound, outbound });
    }
    Ok(sas)
}

fn validate_common(
    place: &Place<'_>,
    raw: raw::StaticSa,
    dvipas: &[Dvipa],
    seen: &mut Seen,
) -> Result<Common, ConfigError> {
    if let Some(line) = seen.names.insert(raw.name.value.clone(), raw.name.referenced.line()) {
        return Err(place.key("name").duplicate(&raw.name, line, "each name once"));
    }
    let mode = mode(&place.key("mode"), raw.mode.as_ref())?;
    let peer_name = name(&place.key("peer"), &raw.peer)?;
    // IKE counts its peers from below.
    let next_peer = PeerId(u64::MAX - seen.peers.len() as u64);
    let dvipa_place = place.key("dvipa");
    let dvipa = host_address(&dvipa_place, &raw.dvipa)?;
    if !dvipas.iter().any(|known| known.address == dvipa) {
        let remedy = "add it to `dvipas:`";
        return Err(dvipa_place.dangling(&raw.dvipa, "the address of a DVIPA", remedy));
    }
    let remote = host_address(&place.key("remote"), &raw.remote)?;
    if remote.is_ipv4() != dvipa.is_ipv4() {
        return Err(place.key("remote").invalid(&raw.remote, format!("an address of the same family as {dvipa}")));
    }
    let encapsulation = encapsulation(place, raw.encap.as_ref(), raw.remote_port.as_ref())?;
    let selectors = Selectors {
        local: selectors(&place.key("local_ts"), raw.local_ts)?,
        remote: selectors(&place.key("remote_ts"), raw.remote_ts)?,
    };
    if let Some(word) = raw.mode.as_ref().filter(|_| mode == Mode::Transport) {
        check_transport(&place.key("mode"), word, &selectors, (dvipa, remote), encapsulation)?;
    }
    let ciphers = Cipher::ALL.map(|cipher| (cipher.name(), cipher));
    let limits = lifetime::Words {
        rekey_time: raw.rekey_time,
        life_time: raw.life_time,
        rekey_bytes: raw.rekey_bytes,
        life_bytes: raw.life_bytes,
        rekey_packets: raw.rekey_packets,
        life_packets: raw.life_packets,
    };
    Ok(Common {
        name: name(&place.key("name"), &raw.name)?,
        peer: *seen.peers.entry(Arc::clone(&peer_name)).or_insert(next_peer),
        peer_name,
        dvipa,
        remote,
        mode,
        encapsulation,
        cipher: choice(&place.key("cipher"), &raw.cipher, &ciphers)?,
        esn: raw.esn.map(|word| truth(&place.key("esn"), &word)).transpose()?.unwrap_or(false),
        replay_window_packets: replay_window(&place.key("replay_window"), raw.replay_window.as_ref())?,
        selectors,
        lifetime: lifetime::validate(place, &limits, None)?,
    })
}

fn validate_half(
    place: &Place<'_>,
    common: &Common,
    direction: Direction,
    raw: &raw::StaticHalf,
    seen: &mut Seen,
    sources: &mut Sources<'_>,
) -> Result<SaParameters, ConfigError> {
    let spi_place = place.key("spi");
    let spi = parse_spi(&raw.spi.value)
        .ok_or_else(|| spi_place.invalid(&raw.spi, "a number from 256 to 4294967295, or 0x00000100 to 0xffffffff"))?;
    // Inbound, the SPI is unique at our address; outbound, at the peer's.
    let at = match direction {
        Direction::Inbound => common.dvipa,
        Direction::Outbound => common.remote,
    };
    if let Some(line) = seen.spis.insert((direction, at, spi), raw.spi.referenced.line()) {
        return Err(spi_place.duplicate(&raw.spi, line, "each SPI once for an address and a direction"));
    }
    let key_place = place.key("key_file");
    let text = read(&key_place, &raw.key_file, sources)?;
    let keymat = keymat(text.expose(), common.cipher).map_err(|refusal| refused(&key_place, &raw.key_file, refusal))?;
    let key = SaKey::from_keymat(common.cipher, &keymat)
        .map_err(|error| key_place.invalid(&raw.key_file, error.to_string()))?;
    if let Some(line) = seen.keys.insert(digest(&keymat), raw.key_file.referenced.line()) {
        // Two senders under one GCM key would repeat each other's nonces sooner or later.
        return Err(key_place.duplicate(&raw.key_file, line, "a key of its own for each direction of each SA"));
    }
    Ok(SaParameters {
        name: Arc::clone(&common.name),
        peer: common.peer,
        peer_name: Arc::clone(&common.peer_name),
        dvipa: common.dvipa,
        remote: common.remote,
        spi,
        direction,
        mode: common.mode,
        encapsulation: common.encapsulation,
        cipher: common.cipher,
        key,
        esn: common.esn,
        replay_window_packets: common.replay_window_packets,
        selectors: common.selectors.clone(),
        lifetime: common.lifetime,
        epoch: 0,
    })
}

/// Transport mode has no addresses but those of the two ends, and none that a NAT has changed.
fn check_transport(
    place: &Place<'_>,
    word: &Word,
    selectors: &Selectors,
    (dvipa, remote): (IpAddr, IpAddr),
    encapsulation: Encapsulation,
) -> Result<(), ConfigError> {
    if encapsulation != Encapsulation::None {
        return Err(place.conflict(word, "with `encap: udp`", "transport mode without encapsulation, or a tunnel"));
    }
    let is_of = |list: &[TrafficSelector], end| list.iter().all(|ts| ts.addresses == AddressRange::single(end));
    if is_of(&selectors.local, dvipa) && is_of(&selectors.remote, remote) {
        return Ok(());
    }
    let allowed = format!("`local_ts` within {dvipa} and `remote_ts` within {remote}, or a tunnel");
    Err(place.conflict(word, "with selectors of other addresses", &allowed))
}

fn encapsulation(
    place: &Place<'_>,
    encap: Option<&Word>,
    remote_port: Option<&Word>,
) -> Result<Encapsulation, ConfigError> {
    let udp = match encap {
        None => false,
        Some(word) => choice(&place.key("encap"), word, &[("none", false), ("udp", true)])?,
    };
    let port = place.key("remote_port");
    match (udp, remote_port) {
        (false, None) => Ok(Encapsulation::None),
        (false, Some(word)) => Err(port.conflict(word, "without `encap: udp`", "no remote_port, or `encap: udp`")),
        (true, None) => Ok(Encapsulation::Udp { local_port: NATT_PORT, remote_port: NATT_PORT }),
        (true, Some(word)) => {
            Ok(Encapsulation::Udp { local_port: NATT_PORT, remote_port: number(&port, word, 1..=u16::MAX)? })
        }
    }
}

fn replay_window(place: &Place<'_>, word: Option<&Word>) -> Result<u32, ConfigError> {
    match word {
        None => Ok(REPLAY_WINDOW_PACKETS),
        Some(word) if word.value == "0" => Ok(0),
        Some(word) => number(place, word, 64..=65_536)
            .map_err(|_| place.invalid(word, "a whole number from 64 to 65536, or 0 for no replay check")),
    }
}

fn selectors(here: &Place<'_>, list: List<Word>) -> Result<Vec<TrafficSelector>, ConfigError> {
    let items = here.some_items(list, SELECTORS_MAX)?;
    let one = |(place, word): (Place<'_>, Word)| {
        let selector: TrafficSelector = selector(&place, &word)?;
        refuse_ipv6(&place, &word, selector.addresses.is_ipv4()).map(|()| selector)
    };
    items.map(one).collect()
}

fn parse_spi(text: &str) -> Option<Spi> {
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
    let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    u32::from_str_radix(digits, radix).ok().filter(|_| plain).and_then(Spi::new)
}

/// The key and its salt, in hexadecimal with or without `0x`.
fn keymat(text: &[u8], cipher: Cipher) -> Result<Zeroizing<Vec<u8>>, Refusal> {
    let trimmed = text.trim_ascii();
    let digits = trimmed.strip_prefix(b"0x").unwrap_or(trimmed);
    let refusal = |found: String| Refusal {
        found,
        allowed: match cipher {
            Cipher::AesGcm128 => "40 hexadecimal digits: 16 bytes of key, then 4 bytes of salt",
            Cipher::AesGcm256 => "72 hexadecimal digits: 32 bytes of key, then 4 bytes of salt",
        },
        remedy: format!("write {} random bytes in hexadecimal into the file", cipher.keymat_len()),
    };
    if digits.len() != 2 * cipher.keymat_len() {
        return Err(refusal(format!("a key of {} digits", digits.len())));
    }
    let bytes = base16ct::mixed::decode_vec(digits).map_err(|_| refusal("a key with other characters".into()))?;
    Ok(Zeroizing::new(bytes))
}

fn digest(keymat: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, keymat).as_ref());
    digest
}
