//! What a certificate says, as far as members and operators have to know.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::name::Name;

/// A certificate's contents, read and not verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// Its serial number, in hexadecimal.
    pub serial: String,
    /// Valid from, in seconds since 1970.
    pub not_before_unix_seconds: i64,
    /// Valid until, in seconds since 1970.
    pub not_after_unix_seconds: i64,
    /// Whether it may issue others.
    pub is_authority: bool,
    /// Its DNS names.
    pub dns_names: Vec<String>,
    /// How many other names it has.
    pub other_names: usize,
    /// Whether its key is an Ed25519 key (RFC 8410).
    pub is_ed25519: bool,
}

/// Why bytes are no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no X.509 certificate: {found}")]
pub struct CertificateError {
    /// What was found.
    pub found: String,
}

/// Why a certificate names no member.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the certificate names {found:?}; expected exactly one DNS name MEMBER.CLUSTER.phalanx")]
pub struct MemberNameError {
    /// The names that were found, a few of them.
    pub found: Vec<String>,
}

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// Whatever is no certificate, or more than one.
    pub fn from_der(der: &[u8]) -> Result<Certificate, CertificateError> {
        let (rest, parsed) =
            X509Certificate::from_der(der).map_err(|error| CertificateError { found: error.to_string() })?;
        if !rest.is_empty() {
            return Err(CertificateError { found: format!("{} bytes behind the certificate", rest.len()) });
        }
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| CertificateError { found: error.to_string() })?
            .map(|names| names.value.general_names.as_slice())
            .unwrap_or_default();
        let dns_name = |name: &GeneralName<'_>| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            // Another crate's enum: whatever else a name can be, it is no DNS name.
            _ => None,
        };
        let dns_names: Vec<String> = names.iter().filter_map(dns_name).collect();
        Ok(Certificate {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            serial: parsed.raw_serial_as_string(),
            not_before_unix_seconds: parsed.validity().not_before.timestamp(),
            not_after_unix_seconds: parsed.validity().not_after.timestamp(),
            is_authority: parsed.is_ca(),
            other_names: names.len() - dns_names.len(),
            dns_names,
            is_ed25519: parsed.public_key().algorithm.algorithm == x509_parser::oid_registry::OID_SIG_ED25519,
        })
    }

    /// Reads all certificates of a PEM file: at least one.
    ///
    /// # Errors
    /// No PEM, nothing in it, or what is no certificate.
    pub fn from_pem(pem: &[u8]) -> Result<Vec<Certificate>, CertificateError> {
        let ders: Vec<CertificateDer<'_>> = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<_, _>>()
            .map_err(|error| CertificateError { found: error.to_string() })?;
        if ders.is_empty() {
            return Err(CertificateError { found: "nothing in PEM".to_owned() });
        }
        ders.iter().map(|der| Certificate::from_der(der)).collect()
    }

    /// The member that it speaks for, and that member's cluster.
    ///
    /// # Errors
    /// No such name, or more than one, or names of other kinds beside it.
    pub fn member(&self) -> Result<(Name, Name), MemberNameError> {
        let found = || MemberNameError { found: self.dns_names.iter().take(4).cloned().collect() };
        match self.dns_names.as_slice() {
            [only] if self.other_names == 0 => Name::from_dns_name(only).ok_or_else(found),
            _ => Err(found()),
        }
    }
}
