//! The cluster's own authority, and the certificates that it issues: Ed25519, X.509 version 3 (RFC 5280, RFC 8410).
//!
//! Files are the caller's. A key leaves here as PEM that is wiped when dropped.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ED25519, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use zeroize::{Zeroize, Zeroizing};

use crate::certificate::Certificate;
use crate::name::Name;

/// A certificate and its key, both in PEM.
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// The key, PKCS #8.
    pub key_pem: Zeroizing<String>,
}

/// From when until when a certificate is valid, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second.
    pub from_unix_seconds: u64,
    /// The last second.
    pub until_unix_seconds: u64,
}

/// Why nothing was issued.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PkiError {
    /// The authority's certificate is none.
    #[error("{0}")]
    Authority(String),
    /// The authority's key is none, or another's.
    #[error("{0}")]
    AuthorityKey(String),
    /// The authority ends before what it should issue.
    #[error(
        "the authority ends {} days before the certificate would; ask for fewer days, or make a new authority",
        (until.saturating_sub(u64::try_from(*authority_until).unwrap_or(0))).div_ceil(86_400)
    )]
    BeyondAuthority {
        /// The end of the authority, in seconds since 1970.
        authority_until: i64,
        /// The end that was asked for.
        until: u64,
    },
    /// A time that no certificate can state.
    #[error("{0} seconds after the start of 1970 is no time that a certificate can state")]
    Time(u64),
    /// Randomness or encoding failed.
    #[error("the certificate could not be made: {0}")]
    Making(String),
}

fn making(error: rcgen::Error) -> PkiError {
    PkiError::Making(error.to_string())
}

/// The authority of a cluster, by its certificate and key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    cluster: Name,
    until_unix_seconds: i64,
}

impl Authority {
    /// A new authority for a cluster.
    ///
    /// # Errors
    /// A time out of range, or a machine without randomness.
    pub fn generate(cluster: &Name, validity: Validity) -> Result<Issued, PkiError> {
        let mut params = params(format!("{AUTHORITY_OF}{cluster}"), validity)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(making)?;
        let certificate = params.self_signed(&key).map_err(making)?;
        Ok(Issued { certificate_pem: certificate_pem(certificate.der())?, key_pem: key_pem(&key)? })
    }

    /// The authority that [`Authority::generate`] has made, from its two files.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn from_pem(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Authority, PkiError> {
        let der = rustls::pki_types::CertificateDer::from_pem_slice(certificate_pem)
            .map_err(|error| PkiError::Authority(format!("no certificate in PEM ({error})")))?;
        let certificate = Certificate::from_der(&der).map_err(|error| PkiError::Authority(error.to_string()))?;
        let cluster = certificate.subject.strip_prefix(&format!("CN={AUTHORITY_OF}")).map(Name::new);
        let (Some(Ok(cluster)), true) = (cluster, certificate.is_authority) else {
            let found = format!("the certificate of {:?} is not that of a cluster's authority", certificate.subject);
            return Err(PkiError::Authority(found));
        };
        let key = read_key(key_pem)?;
        if !is_key_of(&der, &key) {
            return Err(PkiError::AuthorityKey("the key does not belong to the authority's certificate".to_owned()));
        }
        let until_unix_seconds = certificate.not_after_unix_seconds;
        Ok(Authority { issuer: Issuer::from_ca_cert_der(&der, key).map_err(making)?, cluster, until_unix_seconds })
    }

    /// Whose authority it is.
    #[must_use]
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// Until when it can issue, in seconds since 1970.
    #[must_use]
    pub fn until_unix_seconds(&self) -> i64 {
        self.until_unix_seconds
    }

    /// A certificate and key for a member, good for both sides of a session.
    ///
    /// # Errors
    /// An end beyond the authority's own, or a machine without randomness.
    pub fn issue(&self, member: &Name, validity: Validity) -> Result<Issued, PkiError> {
        if i64::try_from(validity.until_unix_seconds).is_ok_and(|until| until > self.until_unix_seconds) {
            let (authority_until, until) = (self.until_unix_seconds, validity.until_unix_seconds);
            return Err(PkiError::BeyondAuthority { authority_until, until });
        }
        let dns_name = member.dns_name_in(&self.cluster);
        let mut params = params(dns_name.clone(), validity)?;
        params.subject_alt_names = vec![SanType::DnsName(dns_name.try_into().map_err(making)?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(making)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(making)?;
        Ok(Issued { certificate_pem: certificate_pem(certificate.der())?, key_pem: key_pem(&key)? })
    }
}

/// How the subject of an authority begins; the cluster's name follows.
const AUTHORITY_OF: &str = "Phalanx authority of ";

fn params(common_name: String, validity: Validity) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = moment(validity.from_unix_seconds)?;
    params.not_after = moment(validity.until_unix_seconds)?;
    params.serial_number = Some(serial_number()?);
    Ok(params)
}

/// Random, and always of the same length once encoded: the first octet neither needs a zero before it nor is one.
fn serial_number() -> Result<SerialNumber, PkiError> {
    let mut octets = [0; 16];
    SystemRandom::new().fill(&mut octets).map_err(|_| PkiError::Making("no randomness".to_owned()))?;
    octets[0] = octets[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&octets))
}

fn moment(unix_seconds: u64) -> Result<OffsetDateTime, PkiError> {
    let moment = i64::try_from(unix_seconds).ok().and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok());
    moment.filter(|moment| moment.year() < 10_000).ok_or(PkiError::Time(unix_seconds))
}

fn certificate_pem(der: &[u8]) -> Result<String, PkiError> {
    encode("CERTIFICATE", der)
}

fn key_pem(key: &KeyPair) -> Result<Zeroizing<String>, PkiError> {
    encode("PRIVATE KEY", key.serialized_der()).map(Zeroizing::new)
}

fn encode(label: &str, der: &[u8]) -> Result<String, PkiError> {
    pem_rfc7468::encode_string(label, pem_rfc7468::LineEnding::LF, der)
        .map_err(|error| PkiError::Making(error.to_string()))
}

fn read_key(pem: &[u8]) -> Result<KeyPair, PkiError> {
    let refused = |found: String| PkiError::AuthorityKey(format!("no Ed25519 key in PKCS #8 PEM ({found})"));
    let mut buffer = vec![0; pem.len()];
    let key = match pem_rfc7468::decode(pem, &mut buffer) {
        Ok(("PRIVATE KEY", der)) => {
            KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ED25519)
                .map_err(|error| refused(error.to_string()))
        }
        Ok((label, _)) => Err(refused(format!("a block {label:?}"))),
        Err(error) => Err(refused(error.to_string())),
    };
    buffer.zeroize();
    key
}

fn is_key_of(certificate_der: &[u8], key: &KeyPair) -> bool {
    let parsed = x509_parser::parse_x509_certificate(certificate_der);
    parsed.is_ok_and(|(_, parsed)| parsed.public_key().subject_public_key.data.as_ref() == key.public_key_raw())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::testing::{NOW, TestAuthority, VALID, name};

    /// An authority's key, turned to issue for a cluster that is not its own.
    pub(crate) fn authority_for(cluster: &str, of: &TestAuthority) -> Authority {
        let authority = Authority::from_pem(of.issued.certificate_pem.as_bytes(), of.issued.key_pem.as_bytes());
        Authority { cluster: name(cluster), ..authority.unwrap() }
    }

    #[test]
    fn what_is_issued_says_what_it_should() {
        let authority = TestAuthority::new("east");
        assert_eq!(authority.authority.cluster(), &name("east"));
        let issued = authority.authority.issue(&name("node-1"), VALID).unwrap();
        let der = rustls::pki_types::CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap();
        let read = Certificate::from_der(&der).unwrap();
        assert_eq!(read.member(), Ok((name("node-1"), name("east"))));
        assert_eq!(read.issuer, "CN=Phalanx authority of east");
        assert_eq!(read.not_after_unix_seconds, VALID.until_unix_seconds as i64);
        assert!(read.is_ed25519 && !read.is_authority);
        assert_eq!(der.len(), {
            let again = authority.authority.issue(&name("node-2"), VALID).unwrap();
            rustls::pki_types::CertificateDer::from_pem_slice(again.certificate_pem.as_bytes()).unwrap().len()
        });
    }

    #[test]
    fn nothing_is_issued_beyond_the_end_of_the_authority() {
        let authority = TestAuthority::new("east");
        let until_unix_seconds = NOW + 10_000 * 86_400;
        let refused = authority.authority.issue(&name("a"), Validity { until_unix_seconds, ..VALID });
        assert!(matches!(refused, Err(PkiError::BeyondAuthority { .. })));
    }

    #[test]
    fn an_authority_is_made_of_its_own_two_files_only() {
        let (one, other) = (TestAuthority::new("east").issued, TestAuthority::new("east").issued);
        let from = |certificate: &str, key: &str| Authority::from_pem(certificate.as_bytes(), key.as_bytes()).err();
        assert_eq!(from(&one.certificate_pem, &one.key_pem), None);
        let refused = |error: Option<PkiError>| matches!(error, Some(PkiError::AuthorityKey(_)));
        assert!(refused(from(&one.certificate_pem, &other.key_pem)));
        assert!(refused(from(&one.certificate_pem, &one.certificate_pem)));
        let member = TestAuthority::new("east").authority.issue(&name("a"), VALID).unwrap();
        assert!(matches!(from(&member.certificate_pem, &member.key_pem), Some(PkiError::Authority(_))));
        assert!(matches!(from("", &one.key_pem), Some(PkiError::Authority(_))));
    }
}
