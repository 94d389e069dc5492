//! Who this member is: its certificate, its key, and the authority that it believes.

use core::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring::sign::any_eddsa_type;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use zeroize::Zeroize;

use crate::certificate::{Certificate, CertificateError, MemberNameError};
use crate::name::Name;

/// What a file of an Ed25519 key in PKCS #8 (RFC 8410) takes, with room for comments.
const KEY_BYTES_MAX: usize = 4_096;
/// Certificates in one file: a chain, or authorities of which one succeeds the other.
const CERTIFICATES_MAX: usize = 8;

/// A file's contents, and its path for what there is to say about it.
#[derive(Clone, Copy)]
pub struct PemFile<'a> {
    /// Where it was read.
    pub path: &'a str,
    /// What it holds. A key's contents are the caller's to wipe.
    pub contents: &'a [u8],
}

/// A member's certificate chain and key, and its cluster's authority.
pub struct Identity {
    pub(crate) certified_key: Arc<CertifiedKey>,
    pub(crate) authorities: Arc<RootCertStore>,
    member: Name,
    cluster: Name,
    not_after_unix_seconds: i64,
}

/// Why files make no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// No PEM, or no certificate in it.
    #[error("{path}: {found}; expected 1 to {CERTIFICATES_MAX} certificates in PEM")]
    NoCertificates {
        /// Which file.
        path: String,
        /// What was found.
        found: String,
    },
    /// Something that stands where a certificate should.
    #[error("{path}: {why}")]
    Certificate {
        /// Which file.
        path: String,
        /// Why it is none.
        why: CertificateError,
    },
    /// A certificate that may issue no others, where an authority's must stand.
    #[error("{path}: the certificate of {subject:?} is no authority's; name the cluster's ca.pem here")]
    NoAuthority {
        /// Which file.
        path: String,
        /// Whose certificate it is.
        subject: String,
    },
    /// A certificate that names no member.
    #[error("{path}: {why}; `phalanx pki issue` makes such a certificate")]
    Member {
        /// Which file.
        path: String,
        /// What it names.
        why: MemberNameError,
    },
    /// A key of another kind, or none.
    #[error("{path}: {found}; expected an unencrypted Ed25519 key in PKCS #8 PEM, as `phalanx pki issue` makes it")]
    Key {
        /// Which file.
        path: String,
        /// What was found, never the key.
        found: String,
    },
    /// The key of another certificate.
    #[error("{key_path}: the key does not belong to the certificate in {certificate_path}; they are issued together")]
    KeyMismatch {
        /// The key's file.
        key_path: String,
        /// The certificate's file.
        certificate_path: String,
    },
}

impl Identity {
    /// Reads an identity from PEM: the authority's certificate (or several, while one succeeds the other), the member's
    /// chain, its own certificate first, and its key. Whether the chain is valid now is another question, see
    /// [`Identity::check`].
    ///
    /// # Errors
    /// The first file that is not what it should be, and what it is instead.
    pub fn from_pem(
        authority: PemFile<'_>,
        certificate: PemFile<'_>,
        key: PemFile<'_>,
    ) -> Result<Identity, IdentityError> {
        let authorities = read_authorities(authority)?;
        let chain = read_certificates(certificate)?;
        let in_certificate = |why| IdentityError::Certificate { path: certificate.path.to_owned(), why };
        let own = Certificate::from_der(&chain[0]).map_err(in_certificate)?;
        let of_member = |why| IdentityError::Member { path: certificate.path.to_owned(), why };
        let (member, cluster) = own.member().map_err(of_member)?;
        let certified_key = CertifiedKey::new(chain, read_key(key)?);
        if certified_key.keys_match().is_err() {
            let (key_path, certificate_path) = (key.path.to_owned(), certificate.path.to_owned());
            return Err(IdentityError::KeyMismatch { key_path, certificate_path });
        }
        Ok(Identity {
            certified_key: Arc::new(certified_key),
            authorities: Arc::new(authorities),
            member,
            cluster,
            not_after_unix_seconds: own.not_after_unix_seconds,
        })
    }

    /// The member that it is.
    #[must_use]
    pub fn member(&self) -> &Name {
        &self.member
    }

    /// The member's cluster.
    #[must_use]
    pub fn cluster(&self) -> &Name {
        &self.cluster
    }

    /// Until when its certificate is valid, in seconds since 1970.
    #[must_use]
    pub fn not_after_unix_seconds(&self) -> i64 {
        self.not_after_unix_seconds
    }

    /// Whether other members would believe it at this time.
    ///
    /// # Errors
    /// What they would refuse it for.
    pub fn check(&self, unix_seconds: u64) -> Result<(), crate::PeerError> {
        crate::tls::check_own(self, unix_seconds)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}.{})", self.member, self.cluster)
    }
}

fn read_certificates(file: PemFile<'_>) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let refused = |found: String| IdentityError::NoCertificates { path: file.path.to_owned(), found };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(file.contents)
        .take(CERTIFICATES_MAX + 1)
        .collect::<Result<_, _>>()
        .map_err(|error| refused(error.to_string()))?;
    match certificates.len() {
        0 => Err(refused("no certificate".to_owned())),
        1..=CERTIFICATES_MAX => Ok(certificates),
        _more => Err(refused("too many certificates".to_owned())),
    }
}

fn read_authorities(file: PemFile<'_>) -> Result<RootCertStore, IdentityError> {
    let mut authorities = RootCertStore::empty();
    for der in read_certificates(file)? {
        let refused = |why| IdentityError::Certificate { path: file.path.to_owned(), why };
        let certificate = Certificate::from_der(&der).map_err(refused)?;
        if !certificate.is_authority {
            return Err(IdentityError::NoAuthority { path: file.path.to_owned(), subject: certificate.subject });
        }
        authorities.add(der).map_err(|error| refused(CertificateError { found: error.to_string() }))?;
    }
    Ok(authorities)
}

fn read_key(file: PemFile<'_>) -> Result<Arc<dyn rustls::sign::SigningKey>, IdentityError> {
    let refused = |found: &str| IdentityError::Key { path: file.path.to_owned(), found: found.to_owned() };
    if file.contents.len() > KEY_BYTES_MAX {
        return Err(refused(&format!("{} bytes", file.contents.len())));
    }
    // Decoded into a buffer of our own, so that it can be wiped.
    let mut buffer = vec![0; file.contents.len()];
    let key = match pem_rfc7468::decode(file.contents, &mut buffer) {
        Ok(("PRIVATE KEY", der)) => {
            any_eddsa_type(&PrivatePkcs8KeyDer::from(der)).map_err(|_| refused("a key that is no Ed25519 key"))
        }
        Ok((label, _)) => Err(refused(&format!("a PEM block {label:?}"))),
        Err(error) => Err(refused(&format!("no PEM ({error})"))),
    };
    buffer.zeroize();
    key
}

#[cfg(test)]
mod tests {
    use crate::testing::{EAST, VALID, identity, name};

    #[test]
    fn an_identity_knows_its_member_and_cluster() {
        let identity = EAST.identity("a");
        assert_eq!((identity.member(), identity.cluster()), (&name("a"), &name("east")));
        assert_eq!(identity.not_after_unix_seconds(), VALID.until_unix_seconds as i64);
    }

    #[test]
    fn errors_name_the_file_and_what_was_found() {
        let authority = &EAST.issued.certificate_pem;
        let (a, b) =
            (EAST.authority.issue(&name("a"), VALID).unwrap(), EAST.authority.issue(&name("b"), VALID).unwrap());
        let refused = |authority: &str, certificate: &str, key: &str| {
            identity(authority, certificate, key).unwrap_err().to_string()
        };
        let cases = [
            (refused("", &a.certificate_pem, &a.key_pem), "ca.pem: no certificate"),
            (refused(&a.certificate_pem, &a.certificate_pem, &a.key_pem), "ca.pem: the certificate of"),
            (refused(authority, "nothing", &a.key_pem), "member.pem: no certificate"),
            (refused(authority, authority, &a.key_pem), "member.pem: the certificate names []"),
            (refused(authority, &a.certificate_pem, &b.key_pem), "member.key: the key does not belong"),
            (refused(authority, &a.certificate_pem, &a.certificate_pem), "member.key: a PEM block \"CERTIFICATE\""),
            (refused(authority, &a.certificate_pem, "x"), "member.key: no PEM"),
            (refused(authority, &a.certificate_pem, &"x".repeat(5_000)), "member.key: 5000 bytes"),
            (refused(authority, &a.certificate_pem.repeat(9), &a.key_pem), "member.pem: too many certificates"),
        ];
        for (found, expected) in cases {
            assert!(found.starts_with(expected), "{found:?} begins with {expected:?}");
        }
    }
}
