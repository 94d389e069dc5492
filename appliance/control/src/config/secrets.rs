//! `secrets:` — pre-shared keys, from files.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::Sources;
use super::error::{ConfigError, Warning};
use super::identity::{self, Identity};
use super::place::Place;
use super::raw::{self, Named, Word};
use super::secret_file::{self, Refusal, SecretBytes};
use super::word::name;

/// More pre-shared keys than this no appliance has.
pub const SECRETS_MAX: usize = 65_536;

const IDS_MAX: usize = 256;
const PATH_LEN_MAX: usize = 4_095;
/// Below this a pre-shared key can be guessed by whoever records a handshake.
const LEN_ADVISED: usize = 16;

/// A pre-shared key and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// The operator's name for it, such as `ike-office`.
    pub name: Arc<str>,
    /// The ends that it authenticates. Empty means any.
    pub ids: Vec<Identity>,
    /// The key.
    pub key: SecretBytes,
}

/// The secret that fits best, as strongSwan chooses: the one that names the peer, else the one that names us, else the
/// one that names nobody. `None` as an identity is one that nothing names.
#[must_use]
pub fn lookup<'s>(secrets: &'s [Secret], local: &Identity, remote: &Identity) -> Option<&'s Secret> {
    let naming = |identity: &Identity| secrets.iter().find(|secret| secret.ids.contains(identity));
    naming(remote).or_else(|| naming(local)).or_else(|| secrets.iter().find(|secret| secret.ids.is_empty()))
}

/// Validates `secrets:` and reads their files.
pub(super) fn validate(
    top: &Place<'_>,
    named: Option<Named<raw::Secret>>,
    sources: &mut Sources<'_>,
    warnings: &mut Vec<Warning>,
) -> Result<Vec<Secret>, ConfigError> {
    let here = top.key("secrets");
    let mut lines: BTreeMap<Option<Identity>, u64> = BTreeMap::new();
    let mut secrets = Vec::new();
    for (name_word, raw) in named.unwrap_or_default().0 {
        let place = here.key(&name_word.value);
        if secrets.len() == SECRETS_MAX {
            return Err(place.invalid(&name_word, format!("at most {SECRETS_MAX} secrets")));
        }
        let name = name(&place, &name_word)?;
        check_kind(&place, &name_word)?;
        let ids = match raw.id {
            None => {
                refuse_second(&place, &name_word, None, &mut lines)?;
                Vec::new()
            }
            Some(list) => {
                let here = place.key("id");
                let mut ids = Vec::new();
                for (place, word) in here.some_items(list, IDS_MAX)? {
                    let id = identity::parse(&place, &word)?;
                    refuse_second(&place, &word, id.as_ref(), &mut lines)?;
                    ids.extend(id);
                }
                ids
            }
        };
        let file = place.key("file");
        let key = read(&file, &raw.file, sources)
            .and_then(|text| secret_file::decode(&text).map_err(|refusal| refused(&file, &raw.file, refusal)))?;
        if key.expose().len() < LEN_ADVISED {
            let text = format!("a pre-shared key of less than {LEN_ADVISED} bytes can be guessed");
            warnings.push(file.warning(&raw.file, text));
        }
        secrets.push(Secret { name, ids, key });
    }
    Ok(secrets)
}

/// Reads the file that a word names; relative names start where the configuration lies.
pub(super) fn read(place: &Place<'_>, word: &Word, sources: &mut Sources<'_>) -> Result<SecretBytes, ConfigError> {
    if word.value.is_empty() || word.value.len() > PATH_LEN_MAX || word.value.contains('\0') {
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

fn refuse_second(
    place: &Place<'_>,
    word: &Word,
    id: Option<&Identity>,
    lines: &mut BTreeMap<Option<Identity>, u64>,
) -> Result<(), ConfigError> {
    match lines.insert(id.cloned(), word.referenced.line()) {
        None => Ok(()),
        Some(line) => Err(place.duplicate(word, line, "one secret for each identity, and one without `id`")),
    }
}
