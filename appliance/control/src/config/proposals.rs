//! Proposals as strongSwan users write them: `aes128gcm16-prfsha256-x25519` for IKE, `aes256gcm16` for ESP.

use ipsec::cipher::Cipher;

use super::error::{ConfigError, listed};
use super::place::Place;
use super::raw::{List, Word};

/// More proposals than this nobody sends.
pub const PROPOSALS_MAX: usize = 16;

const IKE_EXAMPLE: &str = "such as aes128gcm16-prfsha256-x25519";
const ESP_EXAMPLE: &str = "such as aes128gcm16 or aes256gcm16-x25519";

/// A pseudo-random function of IKE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Prf {
    /// HMAC-SHA2-256 (RFC 4868).
    HmacSha256,
}

/// A key exchange method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyExchange {
    /// X25519 (RFC 8031).
    X25519,
}

/// What an IKE SA may be made of: any cipher with any PRF and any key exchange of the lists, the first preferred.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IkeProposal {
    /// At least one.
    pub ciphers: Vec<Cipher>,
    /// At least one.
    pub prfs: Vec<Prf>,
    /// At least one.
    pub key_exchanges: Vec<KeyExchange>,
}

/// What a CHILD_SA may be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EspProposal {
    /// At least one.
    pub ciphers: Vec<Cipher>,
    /// For keys of its own (perfect forward secrecy) at a rekey; empty means from the IKE SA's keys.
    pub key_exchanges: Vec<KeyExchange>,
}

#[derive(Clone, Copy)]
enum Transform {
    Cipher(Cipher),
    Prf(Prf),
    KeyExchange(KeyExchange),
    /// 32-bit sequence numbers, which is all there is.
    NoEsn,
}

const CIPHERS: [(&str, Transform); 2] =
    [("aes128gcm16", Transform::Cipher(Cipher::AesGcm128)), ("aes256gcm16", Transform::Cipher(Cipher::AesGcm256))];
const PRFS: [(&str, Transform); 1] = [("prfsha256", Transform::Prf(Prf::HmacSha256))];
const KEY_EXCHANGES: [(&str, Transform); 2] = [
    ("x25519", Transform::KeyExchange(KeyExchange::X25519)),
    ("curve25519", Transform::KeyExchange(KeyExchange::X25519)),
];
const NO_ESN: [(&str, Transform); 1] = [("noesn", Transform::NoEsn)];

/// What the words of one proposal add up to.
#[derive(Default)]
struct Parts {
    ciphers: Vec<Cipher>,
    prfs: Vec<Prf>,
    key_exchanges: Vec<KeyExchange>,
}

/// Validates a connection's `proposals:`.
pub(super) fn validate_ike(here: &Place<'_>, list: Option<List<Word>>) -> Result<Vec<IkeProposal>, ConfigError> {
    let default = || IkeProposal {
        ciphers: Cipher::ALL.to_vec(),
        prfs: vec![Prf::HmacSha256],
        key_exchanges: vec![KeyExchange::X25519],
    };
    let Some(list) = list else { return Ok(vec![default()]) };
    let known = [&CIPHERS[..], &PRFS, &KEY_EXCHANGES].concat();
    let mut proposals = Vec::new();
    for (place, word) in here.some_items(list, PROPOSALS_MAX)? {
        if word.value == "default" {
            proposals.push(default());
            continue;
        }
        let Parts { ciphers, prfs, key_exchanges } = parts(&place, &word, &known, IKE_EXAMPLE)?;
        for (missing, of) in [
            (ciphers.is_empty(), &CIPHERS[..]),
            (prfs.is_empty(), &PRFS[..]),
            (key_exchanges.is_empty(), &KEY_EXCHANGES[..]),
        ] {
            if missing {
                return Err(place.invalid(&word, format!("also one of {} in it, {IKE_EXAMPLE}", names(of))));
            }
        }
        proposals.push(IkeProposal { ciphers, prfs, key_exchanges });
    }
    Ok(proposals)
}

/// Validates a child's `esp_proposals:`.
pub(super) fn validate_esp(here: &Place<'_>, list: Option<List<Word>>) -> Result<Vec<EspProposal>, ConfigError> {
    let default = || EspProposal { ciphers: Cipher::ALL.to_vec(), key_exchanges: Vec::new() };
    let Some(list) = list else { return Ok(vec![default()]) };
    let known = [&CIPHERS[..], &KEY_EXCHANGES, &NO_ESN].concat();
    let mut proposals = Vec::new();
    for (place, word) in here.some_items(list, PROPOSALS_MAX)? {
        if word.value == "default" {
            proposals.push(default());
            continue;
        }
        let Parts { ciphers, prfs: _, key_exchanges } = parts(&place, &word, &known, ESP_EXAMPLE)?;
        if ciphers.is_empty() {
            return Err(place.invalid(&word, format!("also one of {} in it, {ESP_EXAMPLE}", names(&CIPHERS))));
        }
        proposals.push(EspProposal { ciphers, key_exchanges });
    }
    Ok(proposals)
}

fn parts(place: &Place<'_>, word: &Word, known: &[(&str, Transform)], example: &str) -> Result<Parts, ConfigError> {
    let mut parts = Parts::default();
    for name in word.value.split('-') {
        match known.iter().find(|(known, _)| *known == name) {
            Some((_, Transform::Cipher(cipher))) => push_new(&mut parts.ciphers, *cipher),
            Some((_, Transform::Prf(prf))) => push_new(&mut parts.prfs, *prf),
            Some((_, Transform::KeyExchange(method))) => push_new(&mut parts.key_exchanges, *method),
            Some((_, Transform::NoEsn)) => {}
            None if name == "esn" => {
                return Err(place.unserved(word, names(known), "extended sequence numbers come later"));
            }
            None => {
                let found = format!("`{}` in {}", name.escape_debug(), super::error::quoted(&word.value));
                let allowed = format!("words joined by `-` out of {}, {example}", names(known));
                return Err(ConfigError::Invalid(place.fault(word.referenced, found, allowed, "")));
            }
        }
    }
    Ok(parts)
}

fn push_new<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn names(table: &[(&str, Transform)]) -> String {
    listed(table.iter().map(|(name, _)| *name))
}
