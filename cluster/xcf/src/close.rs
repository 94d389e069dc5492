//! Why a session ended, and what was wrong with a peer's certificate.

use rustls::CertificateError as ChainError;

use crate::certificate::{CertificateError, MemberNameError};
use crate::hello::FirstMessageError;
use crate::name::Name;

/// What is wrong with a peer's certificate.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PeerError {
    /// It does not chain to the cluster's authority, or is not valid now.
    #[error("{0}; renew it with `phalanx pki issue`, and compare ca.pem and the clocks of both members")]
    Chain(ChainError),
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] CertificateError),
    /// It names no member.
    #[error(transparent)]
    NoMember(#[from] MemberNameError),
    /// It is of another cluster.
    #[error("the certificate is of cluster {found:?}, this one is {expected:?}")]
    Cluster {
        /// Its cluster.
        found: Name,
        /// Ours.
        expected: Name,
    },
    /// The cluster has no such member.
    #[error("the certificate is of member {found:?}, which the configuration of cluster {cluster:?} does not name")]
    Stranger {
        /// Its name.
        found: Name,
        /// Our cluster.
        cluster: Name,
    },
    /// Another member than the one dialled answered.
    #[error("member {found:?} answered at the trusted address of {expected:?}; compare the addresses of both")]
    OtherMember {
        /// Who answered.
        found: Name,
        /// Who was dialled.
        expected: Name,
    },
    /// It is our own name.
    #[error("the peer has a certificate of {0:?}, which is this member; every member needs its own")]
    Ourselves(Name),
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CloseReason {
    /// The peer's certificate was refused.
    #[error("certificate refused: {0}")]
    Certificate(PeerError),
    /// The peer has none.
    #[error("the peer has shown no certificate")]
    NoCertificate,
    /// What came is no TLS 1.3, or no TLS at all, or was changed on its way; or the peer has refused us.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// The first message is not the one that members begin with.
    #[error("first message refused: {0}")]
    FirstMessage(FirstMessageError),
    /// A message beyond the limit.
    #[error("a message of {found} bytes; at most {max} are allowed")]
    MessageTooLong {
        /// Its length as announced.
        found: usize,
        /// What is allowed.
        max: usize,
    },
    /// The peer does not take what is sent.
    #[error("the peer is too slow: {queued_bytes} bytes wait for it, at most {max} may")]
    TooSlow {
        /// How many bytes would wait.
        queued_bytes: usize,
        /// How many may.
        max: usize,
    },
    /// This member does not take what comes.
    #[error("this member is too slow: {waiting_bytes} bytes of received messages wait, at most {max} may")]
    NotTaken {
        /// How many bytes would wait.
        waiting_bytes: usize,
        /// How many may.
        max: usize,
    },
    /// The peer has ended the session in order.
    #[error("the peer ended the session")]
    PeerClosed,
    /// This member has ended it.
    #[error("this member ended the session")]
    Closed,
}

impl CloseReason {
    /// Sorts what TLS says.
    pub(crate) fn from_tls(error: rustls::Error) -> CloseReason {
        match error {
            rustls::Error::InvalidCertificate(ChainError::Other(other)) => match other.0.downcast_ref::<PeerError>() {
                Some(why) => CloseReason::Certificate(why.clone()),
                None => CloseReason::Tls(rustls::Error::InvalidCertificate(ChainError::Other(other))),
            },
            rustls::Error::InvalidCertificate(why) => CloseReason::Certificate(PeerError::Chain(why)),
            rustls::Error::NoCertificatesPresented => CloseReason::NoCertificate,
            other => CloseReason::Tls(other),
        }
    }
}
