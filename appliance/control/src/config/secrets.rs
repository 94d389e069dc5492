//! `secrets:` — pre-shared keys, from files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ike::config::{IdentityPattern, Psk, Secrets};

use super::Sources;
use super::error::{ConfigError, Warning};
use super::identity::{self, can_serve};
use super::place::Place;
use super::raw::{self, List, Named, Word};
use super::secret_file::{self, Refusal, SecretBytes};
use super::word::name;

/// More pre-shared keys than this no appliance has.
const SECRETS_MAX: usize = 65_536;
const IDS_MAX: usize = 256;
const PATH_LEN_MAX: usize = 1_024;
/// Below this a pre-shared key can be guessed by whoever records a handshake.
const LEN_ADVISED: usize = 16;

/// The keys, and whom they are for.
#[derive(Default)]
pub(super) struct Keyring {
    pub(super) secrets: Secrets,
    /// By the texts that name them, since two spellings of one identity are one.
    lines: BTreeMap<String, u64>,
    ids: Vec<IdentityPattern>,
}

impl Keyring {
    /// Whether there can be a key for such a peer.
    pub(super) fn can_serve(&self, peer: &IdentityPattern) -> bool {
        self.ids.iter().any(|id| can_serve(id, peer))
    }

    fn claim(&mut self, place: &Place<'_>, word: &Word, id: IdentityPattern) -> Result<(), ConfigError> {
        match self.lines.insert(id.to_string(), word.referenced.line()) {
            None => {
                self.ids.push(id);
                Ok(())
            }
            Some(line) => Err(place.duplicate(word, line, "one secret for each identity, and one without `id`")),
        }
    }
}

/// Validates `secrets:` and reads their files.
pub(super) fn validate(
    top: &Place<'_>,
    named: Option<Named<raw::Secret>>,
    sources: &mut Sources<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Keyring, ConfigError> {
    let here = top.key("secrets");
    let mut keyring = Keyring::default();
    for (at, (name_word, raw)) in named.unwrap_or_default().0.into_iter().enumerate() {
        let place = here.key(&name_word.value);
        if at == SECRETS_MAX {
            return Err(place.invalid(&name_word, format!("at most {SECRETS_MAX} secrets")));
        }
        name(&place, &name_word)?;
        check_kind(&place, &name_word)?;
        let ids = match raw.id {
            None => {
                keyring.claim(&place, &name_word, IdentityPattern::Any)?;
                Vec::new()
            }
            Some(list) => validate_ids(&place.key("id"), list, &mut keyring)?,
        };
        let file = place.key("file");
        let refused = |refusal| refused(&file, &raw.file, refusal);
        let text = read(&file, &raw.file, sources)?;
        let key = secret_file::decode(&text).map_err(refused)?;
        if key.len() < LEN_ADVISED {
            let text = format!("a pre-shared key of less than {LEN_ADVISED} bytes can be guessed");
            warnings.push(file.warning(&raw.file, text));
        }
        let key = Psk::new(key).map_err(|_| refused(secret_file::empty()))?;
        keyring.secrets.add(ids, key);
    }
    Ok(keyring)
}

fn validate_ids(
    here: &Place<'_>,
    list: List<Word>,
    keyring: &mut Keyring,
) -> Result<Vec<IdentityPattern>, ConfigError> {
    let mut ids = Vec::new();
    for (place, word) in here.some_items(list, IDS_MAX)? {
        let id = identity::pattern(&place, &word)?;
        keyring.claim(&place, &word, id.clone())?;
        ids.push(id);
    }
    Ok(ids)
}

/// Reads the file that a word names; relative names start where the configuration lies.
pub(super) fn read(place: &Place<'_>, word: &Word, sources: &mut Sources<'_>) -> Result<SecretBytes, ConfigError> {
    // Messages repeat the name whole, so it must be fit for them.
    let fit = (1..=PATH_LEN_MAX).contains(&word.value.len()) && !word.value.contains(char::is_control);
    if !fit {
        return Err(place.invalid(word, "the name of a file, such as /etc/phalanx/psk"));
    }
    let path: PathBuf = sources.directory.join(&word.value);
    (sources.read_secret)(&path).map_err(|refusal| refused(place, word, refusal))
}

/// A refusal, at the word that names the file.
pub(super) fn refused(place: &Place<'_>, word: &Word, refusal: Refusal) -> ConfigError {
    ConfigError::Secret(place.fault(word.referenced, refusal.found, refusal.allowed, refusal.remedy))
}

fn check_kind(place: &Place<'_>, word: &Word) -> Result<(), ConfigError> {
    let kind = word.value.split('-').next().unwrap_or_default();
    match kind {
        "ike" => Ok(()),
        "eap" | "xauth" | "ntlm" | "ppk" | "private" | "rsa" | "ecdsa" | "pkcs8" | "pkcs12" | "token" => {
            Err(place.unserved(word, "names that start with `ike-`", "only pre-shared keys are served so far"))
        }
        _ => Err(place.invalid(word, "names that start with `ike-`, such as ike-office")),
    }
}
