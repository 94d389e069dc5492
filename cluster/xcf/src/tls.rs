//! TLS as members speak it: version 1.3, X25519, Ed25519, both sides by certificates, no tickets.

use std::sync::{Arc, LazyLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ServerConfig, ServerConnection, SignatureScheme,
};

use crate::certificate::Certificate;
use crate::close::PeerError;
use crate::identity::Identity;
use crate::name::Name;
use crate::part::Part;

/// What members of a cluster can do: one key exchange and one kind of key, so that all lengths are fixed, and ciphers
/// that are no weaker than the keys which messages carry.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let cipher_suites =
        vec![ring::cipher_suite::TLS13_AES_256_GCM_SHA384, ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(CryptoProvider { cipher_suites, kx_groups: vec![ring::kx_group::X25519], ..ring::default_provider() })
});

fn algorithms() -> WebPkiSupportedAlgorithms {
    PROVIDER.signature_verification_algorithms
}

#[derive(Debug)]
struct At(UnixTime);

impl rustls::time_provider::TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

fn unix_time(unix_seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(core::time::Duration::from_secs(unix_seconds))
}

/// Our side of a connection to a member that we dial.
pub(crate) fn client(part: &Arc<Part>, expected: &Name, unix_seconds: u64) -> Result<ClientConnection, Error> {
    let verifier = DialledMember { part: Arc::clone(part), expected: expected.clone() };
    let mut config = ClientConfig::builder_with_details(Arc::clone(&PROVIDER), Arc::new(At(unix_time(unix_seconds))))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&part.identity.certified_key))));
    config.resumption = Resumption::disabled();
    // Nobody on the wire has to know whom we call; the certificate says who answers.
    config.enable_sni = false;
    ClientConnection::new(Arc::new(config), server_name(expected, &part.cluster)?)
}

/// Our side of a connection that a member has dialled.
pub(crate) fn server(part: &Arc<Part>, unix_seconds: u64) -> Result<ServerConnection, Error> {
    let roots = Arc::clone(&part.identity.authorities);
    let chain = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&PROVIDER))
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
    let verifier = AnyMember { part: Arc::clone(part), chain };
    let mut config = ServerConfig::builder_with_details(Arc::clone(&PROVIDER), Arc::new(At(unix_time(unix_seconds))))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&part.identity.certified_key))));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    ServerConnection::new(Arc::new(config))
}

fn server_name(member: &Name, cluster: &Name) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(member.dns_name_in(cluster)).map_err(|error| Error::General(error.to_string()))
}

/// Whether others would believe this identity.
pub(crate) fn check_own(identity: &Identity, unix_seconds: u64) -> Result<(), PeerError> {
    let chain = &identity.certified_key.cert;
    let (own, others) = chain.split_first().ok_or(PeerError::Chain(CertificateError::BadEncoding))?;
    check_chain(identity, own, others, unix_time(unix_seconds)).map_err(|error| match error {
        Error::InvalidCertificate(why) => PeerError::Chain(why),
        _other => PeerError::Chain(CertificateError::ApplicationVerificationFailure),
    })
}

fn check_chain(
    identity: &Identity,
    end_entity: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    now: UnixTime,
) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(end_entity)?;
    let roots = &identity.authorities;
    rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, roots, others, now, algorithms().all)
}

/// Which member of ours a certificate names. Whether it chains to the authority is asked elsewhere.
pub(crate) fn member_named(part: &Part, certificate: &CertificateDer<'_>) -> Result<Name, PeerError> {
    let certificate = Certificate::from_der(certificate)?;
    let (member, cluster) = certificate.member()?;
    if cluster != part.cluster {
        return Err(PeerError::Cluster { found: cluster, expected: part.cluster.clone() });
    }
    if member == part.me().name {
        return Err(PeerError::Ourselves(member));
    }
    match part.members.iter().any(|known| known.name == member) {
        true => Ok(member),
        false => Err(PeerError::Stranger { found: member, cluster }),
    }
}

fn refused(why: PeerError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}

/// Believes the one member that was dialled.
#[derive(Debug)]
struct DialledMember {
    part: Arc<Part>,
    expected: Name,
}

impl ServerCertVerifier for DialledMember {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_chain(&self.part.identity, end_entity, intermediates, now)?;
        let found = member_named(&self.part, end_entity).map_err(refused)?;
        if found != self.expected {
            return Err(refused(PeerError::OtherMember { found, expected: self.expected.clone() }));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Believes every member of the cluster but ourselves.
#[derive(Debug)]
struct AnyMember {
    part: Arc<Part>,
    chain: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for AnyMember {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A member has one certificate; a hint would only tell strangers whose cluster this is.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        member_named(&self.part, end_entity).map_err(refused)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A dialler that shows no certificate.
    pub(crate) fn client_without_certificate(part: &Arc<Part>, expected: &Name, unix_seconds: u64) -> ClientConnection {
        let verifier = DialledMember { part: Arc::clone(part), expected: expected.clone() };
        let at = Arc::new(At(unix_time(unix_seconds)));
        let config = ClientConfig::builder_with_details(Arc::clone(&PROVIDER), at)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        ClientConnection::new(Arc::new(config), server_name(expected, &part.cluster).unwrap()).unwrap()
    }
}
