//! What a member brings to every session: who it is, and whom it knows.

use std::sync::Arc;

use cluster::id::{Incarnation, MemberId};

use crate::hello::{Hello, Versions};
use crate::identity::Identity;
use crate::name::Name;

/// A member by number and name, as the configuration has it; the same everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartMember {
    /// Its number.
    pub id: MemberId,
    /// Its name, which its certificate carries.
    pub name: Name,
}

/// This member's part in its cluster.
#[derive(Debug)]
pub struct Part {
    pub(crate) identity: Arc<Identity>,
    pub(crate) cluster: Name,
    pub(crate) incarnation: Incarnation,
    pub(crate) versions: Versions,
    pub(crate) members: Vec<PartMember>,
    me: PartMember,
}

/// Why a configuration and a certificate do not go together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PartError {
    /// The configuration does not name this member.
    #[error("this is member {0}, which is not among the cluster's members")]
    NotAMember(MemberId),
    /// One number or name stands twice.
    #[error("member {0} or its name {1:?} stands twice")]
    Duplicate(MemberId, Name),
    /// The certificate is of another cluster.
    #[error("the certificate is of cluster {found:?}, the configuration of {expected:?}")]
    Cluster {
        /// What the certificate says.
        found: Name,
        /// What the configuration says.
        expected: Name,
    },
    /// The certificate is another member's.
    #[error("the certificate is of member {found:?}, this one is {expected:?}")]
    Member {
        /// What the certificate says.
        found: Name,
        /// What the configuration says.
        expected: Name,
    },
    /// A member that cannot be found.
    #[error("member {0:?} has no trusted address")]
    NoAddress(Name),
    /// Versions turned round.
    #[error("versions {0}; the lowest must stand first")]
    Versions(Versions),
}

impl Part {
    /// Joins a certificate and a configuration.
    ///
    /// # Errors
    /// What contradicts what.
    pub fn new(
        identity: Arc<Identity>,
        cluster: Name,
        me: MemberId,
        incarnation: Incarnation,
        versions: Versions,
        members: Vec<PartMember>,
    ) -> Result<Part, PartError> {
        for (at, member) in members.iter().enumerate() {
            if members[..at].iter().any(|earlier| earlier.id == member.id || earlier.name == member.name) {
                return Err(PartError::Duplicate(member.id, member.name.clone()));
            }
        }
        let me = members.iter().find(|member| member.id == me).cloned().ok_or(PartError::NotAMember(me))?;
        if versions.min > versions.max {
            return Err(PartError::Versions(versions));
        }
        let part = Part { identity, cluster, incarnation, versions, members, me };
        part.check_identity(&part.identity).map(|()| part)
    }

    /// This member.
    #[must_use]
    pub fn me(&self) -> &PartMember {
        &self.me
    }

    /// The same part with a renewed certificate.
    ///
    /// # Errors
    /// A certificate of another member or cluster.
    pub fn renewed(&self, identity: Arc<Identity>) -> Result<Part, PartError> {
        self.check_identity(&identity)?;
        Ok(self.with(identity))
    }

    fn with(&self, identity: Arc<Identity>) -> Part {
        let (cluster, members, me) = (self.cluster.clone(), self.members.clone(), self.me.clone());
        Part { identity, cluster, incarnation: self.incarnation, versions: self.versions, members, me }
    }

    fn check_identity(&self, identity: &Identity) -> Result<(), PartError> {
        if *identity.cluster() != self.cluster {
            return Err(PartError::Cluster { found: identity.cluster().clone(), expected: self.cluster.clone() });
        }
        if *identity.member() != self.me.name {
            return Err(PartError::Member { found: identity.member().clone(), expected: self.me.name.clone() });
        }
        Ok(())
    }

    /// What a liar would bring.
    #[cfg(test)]
    pub(crate) fn unchecked(identity: Arc<Identity>, honest: &Part) -> Part {
        honest.with(identity)
    }

    pub(crate) fn hello(&self) -> Hello {
        let (versions, incarnation, cluster) = (self.versions, self.incarnation, self.cluster.clone());
        Hello { versions, member: self.me.id, incarnation, cluster }
    }
}
