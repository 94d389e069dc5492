//! The simulated cluster's certificates: made once in each process, since every start shows the same.

use std::sync::{Arc, LazyLock};

use cluster::id::MemberId;
use xcf::pki::{Authority, PkiError, Validity};
use xcf::{Identity, Name, PartMember, PemFile};

/// Where the wall clock stands at the simulation's zero, in seconds since 1970.
pub const UNIX_AT_ZERO: u64 = 1_800_000_000;
/// The cluster's name.
pub const CLUSTER: &str = "sim";
/// Members that there can be.
const MEMBERS_MAX: u16 = 8;

static IDENTITIES: LazyLock<Result<Vec<Arc<Identity>>, String>> =
    LazyLock::new(|| identities().map_err(|error| error.to_string()));

/// A member's name.
#[must_use]
pub fn name_of(member: MemberId) -> String {
    format!("m{member}")
}

/// A member as sessions know it.
///
/// # Errors
/// A name that no certificate can carry.
pub fn part_member(id: MemberId) -> Result<PartMember, xcf::NameError> {
    Ok(PartMember { id, name: Name::new(&name_of(id))? })
}

/// A member's certificate.
///
/// # Errors
/// A sentence, where certificates could not be made.
pub fn identity_of(member: MemberId) -> Result<Arc<Identity>, String> {
    let identities = IDENTITIES.as_ref().map_err(Clone::clone)?;
    let found = usize::from(member.0).checked_sub(1).and_then(|at| identities.get(at));
    found.cloned().ok_or_else(|| format!("member {member} has no certificate"))
}

fn identities() -> Result<Vec<Arc<Identity>>, Box<dyn std::error::Error + Send + Sync>> {
    let validity = Validity { from_unix_seconds: UNIX_AT_ZERO - 86_400, until_unix_seconds: UNIX_AT_ZERO + 86_400_000 };
    let root = Authority::generate(&Name::new(CLUSTER)?, validity)?;
    let authority = Authority::from_pem(root.certificate_pem.as_bytes(), root.key_pem.as_bytes())?;
    let identity = |member: u16| {
        let issued =
            authority.issue(&Name::new(&name_of(MemberId(member)))?, validity).map_err(|error: PkiError| error)?;
        let file = |path, contents| PemFile { path, contents };
        let identity = Identity::from_pem(
            file("ca.pem", root.certificate_pem.as_bytes()),
            file("member.pem", issued.certificate_pem.as_bytes()),
            file("member.key", issued.key_pem.as_bytes()),
        )?;
        Ok(Arc::new(identity))
    };
    (1..=MEMBERS_MAX).map(identity).collect()
}
