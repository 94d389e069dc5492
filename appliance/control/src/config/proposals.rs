//! Proposals as strongSwan users write them: `aes128gcm16-prfsha256-x25519` for IKE, `aes256gcm16` for ESP.

use std::str::FromStr;

use ike::proposal::{EspProposal, IkeProposal, ProposalTextError};

use super::error::{ConfigError, quoted};
use super::place::Place;
use super::raw::{List, Word};

const PROPOSALS_MAX: usize = 16;
const PROPOSAL_LEN_MAX: usize = 256;

/// What `default` and no word at all mean. The peer's order decides between algorithms that are all good.
const IKE_DEFAULT: &str = "aes256gcm16-aes128gcm16-prfsha256-x25519";
const ESP_DEFAULT: &str = "aes256gcm16-aes128gcm16";

/// Validates a connection's `proposals:`.
pub(super) fn validate_ike(here: &Place<'_>, list: Option<List<Word>>) -> Result<Vec<IkeProposal>, ConfigError> {
    validate(here, list, IKE_DEFAULT)
}

/// Validates a child's `esp_proposals:`.
pub(super) fn validate_esp(here: &Place<'_>, list: Option<List<Word>>) -> Result<Vec<EspProposal>, ConfigError> {
    validate(here, list, ESP_DEFAULT)
}

fn validate<T>(here: &Place<'_>, list: Option<List<Word>>, default: &str) -> Result<Vec<T>, ConfigError>
where
    T: FromStr<Err = ProposalTextError>,
{
    let Some(list) = list else { return Ok(default.parse().into_iter().collect()) };
    let mut proposals = Vec::new();
    for (place, word) in here.some_items(list, PROPOSALS_MAX)? {
        if word.value.len() > PROPOSAL_LEN_MAX {
            return Err(place.invalid(&word, format!("at most {PROPOSAL_LEN_MAX} characters")));
        }
        let text = if word.value == "default" { default } else { &word.value };
        proposals.push(text.parse().map_err(|error| explain(&place, &word, error))?);
    }
    Ok(proposals)
}

fn explain(place: &Place<'_>, word: &Word, error: ProposalTextError) -> ConfigError {
    let (found, allowed) = match error {
        ProposalTextError::Unknown { found, allowed, .. } => {
            (format!("{} in {}", quoted(&found), quoted(&word.value)), format!("{allowed}, joined by `-`"))
        }
        ProposalTextError::Missing { missing, example, .. } => {
            (format!("{} without a {missing}", quoted(&word.value)), format!("such as {example}"))
        }
    };
    ConfigError::Invalid(place.fault(word.referenced, found, allowed, ""))
}
