//! Proposals as strongSwan users write them: `aes128gcm16-prfsha256-x25519`, `aes256gcm16-x25519-noesn`.

use core::fmt;
use core::str::FromStr;

use ipsec::cipher::Cipher;

use super::{EspProposal, IkeProposal};
use crate::crypto::kex::Kex;
use crate::crypto::prf::Prf;

/// Why a text is no proposal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposalTextError {
    /// A word that names no algorithm of this kind of proposal.
    #[error("unknown algorithm {found:?} in proposal {text:?}; allowed are {allowed}")]
    Unknown {
        /// The word.
        found: String,
        /// The whole text.
        text: String,
        /// What may stand there.
        allowed: &'static str,
    },
    /// Nothing of a kind that every proposal must have.
    #[error("proposal {text:?} names no {missing}; a complete one is {example:?}")]
    Missing {
        /// The whole text.
        text: String,
        /// What is missing.
        missing: &'static str,
        /// A complete proposal.
        example: &'static str,
    },
}

const IKE_EXAMPLE: &str = "aes128gcm16-prfsha256-x25519";
const ESP_EXAMPLE: &str = "aes128gcm16-x25519";

enum Word {
    Cipher(Cipher),
    Prf(Prf),
    Kex(Kex),
    Esn(bool),
}

fn word(text: &str) -> Option<Word> {
    match text {
        // What strongSwan reads as the same.
        "aes128gcm128" => return Some(Word::Cipher(Cipher::AesGcm128)),
        "aes256gcm128" => return Some(Word::Cipher(Cipher::AesGcm256)),
        "curve25519" => return Some(Word::Kex(Kex::X25519)),
        "esn" => return Some(Word::Esn(true)),
        "noesn" => return Some(Word::Esn(false)),
        _ => {}
    }
    let cipher = Cipher::ALL.into_iter().find(|cipher| cipher.name() == text).map(Word::Cipher);
    let prf = || Prf::ALL.into_iter().find(|prf| prf.name() == text).map(Word::Prf);
    let kex = || Kex::ALL.into_iter().find(|kex| kex.name() == text).map(Word::Kex);
    cipher.or_else(prf).or_else(kex)
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn missing(text: &str, missing: &'static str, example: &'static str) -> ProposalTextError {
    ProposalTextError::Missing { text: text.to_owned(), missing, example }
}

impl FromStr for IkeProposal {
    type Err = ProposalTextError;

    fn from_str(text: &str) -> Result<IkeProposal, ProposalTextError> {
        let mut proposal = IkeProposal { ciphers: Vec::new(), prfs: Vec::new(), kexes: Vec::new() };
        for found in text.split('-') {
            match word(found) {
                Some(Word::Cipher(cipher)) => add(&mut proposal.ciphers, cipher),
                Some(Word::Prf(prf)) => add(&mut proposal.prfs, prf),
                Some(Word::Kex(kex)) => add(&mut proposal.kexes, kex),
                Some(Word::Esn(_)) | None => {
                    let allowed = "aes128gcm16, aes256gcm16, prfsha256, x25519";
                    return Err(ProposalTextError::Unknown { found: found.to_owned(), text: text.to_owned(), allowed });
                }
            }
        }
        match &proposal {
            IkeProposal { ciphers, .. } if ciphers.is_empty() => Err(missing(text, "cipher", IKE_EXAMPLE)),
            IkeProposal { prfs, .. } if prfs.is_empty() => Err(missing(text, "PRF", IKE_EXAMPLE)),
            IkeProposal { kexes, .. } if kexes.is_empty() => Err(missing(text, "key exchange", IKE_EXAMPLE)),
            IkeProposal { .. } => Ok(proposal),
        }
    }
}

impl FromStr for EspProposal {
    type Err = ProposalTextError;

    fn from_str(text: &str) -> Result<EspProposal, ProposalTextError> {
        let mut proposal = EspProposal { ciphers: Vec::new(), kexes: Vec::new(), esn: Vec::new() };
        for found in text.split('-') {
            match word(found) {
                Some(Word::Cipher(cipher)) => add(&mut proposal.ciphers, cipher),
                Some(Word::Kex(kex)) => add(&mut proposal.kexes, kex),
                Some(Word::Esn(form)) => add(&mut proposal.esn, form),
                Some(Word::Prf(_)) | None => {
                    let allowed = "aes128gcm16, aes256gcm16, x25519, esn, noesn";
                    return Err(ProposalTextError::Unknown { found: found.to_owned(), text: text.to_owned(), allowed });
                }
            }
        }
        if proposal.ciphers.is_empty() {
            return Err(missing(text, "cipher", ESP_EXAMPLE));
        }
        if proposal.esn.is_empty() {
            proposal.esn.push(false);
        }
        Ok(proposal)
    }
}

fn join(f: &mut fmt::Formatter<'_>, words: impl Iterator<Item = &'static str>) -> fmt::Result {
    for (at, word) in words.enumerate() {
        write!(f, "{}{word}", if at == 0 { "" } else { "-" })?;
    }
    Ok(())
}

impl fmt::Display for IkeProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ciphers = self.ciphers.iter().map(|cipher| cipher.name());
        let prfs = self.prfs.iter().map(|prf| prf.name());
        join(f, ciphers.chain(prfs).chain(self.kexes.iter().map(|kex| kex.name())))
    }
}

impl fmt::Display for EspProposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ciphers = self.ciphers.iter().map(|cipher| cipher.name());
        let esn = self.esn.iter().map(|form| if *form { "esn" } else { "noesn" });
        join(f, ciphers.chain(self.kexes.iter().map(|kex| kex.name())).chain(esn))
    }
}
