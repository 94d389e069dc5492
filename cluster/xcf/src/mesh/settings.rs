//! What a mesh is told, and what it says of its members.

use core::net::SocketAddr;
use core::time::Duration;

use cluster::id::{Incarnation, MemberId};

use super::DownReason;
use crate::part::Part;

/// How long things take, and how long is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From a stream's begin until the session on it must be established.
    pub handshake: Duration,
    /// After so much silence of ours, a sign of life.
    pub keep_alive: Duration,
    /// After so much silence of theirs, the session is over.
    pub silence: Duration,
    /// Before the first new attempt after a failure; doubled with each further one, half of it random.
    pub back_off_min: Duration,
    /// The longest wait. A session that stood so long has made its earlier failures forgotten.
    pub back_off_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            handshake: Duration::from_secs(5),
            keep_alive: Duration::from_secs(2),
            silence: Duration::from_secs(10),
            back_off_min: Duration::from_millis(100),
            back_off_max: Duration::from_secs(5),
        }
    }
}

/// What a mesh is told at its start.
#[derive(Debug)]
pub struct MeshSettings {
    /// Who we are, and whom we know.
    pub part: Part,
    /// Where each other member's XCF is: its trusted address, and the port.
    pub addresses: Vec<(MemberId, SocketAddr)>,
    /// How long things take.
    pub timing: Timing,
}

/// What there is to know about another member.
#[derive(Clone, Debug, PartialEq)]
pub struct MemberStatus {
    /// Which.
    pub member: MemberId,
    /// Where its XCF is.
    pub address: SocketAddr,
    /// Its start and the version spoken, while its session is up.
    pub up: Option<(Incarnation, u16)>,
    /// Bytes that wait to be sent to it.
    pub queued_bytes: usize,
    /// Why the last session or attempt ended.
    pub last_failure: Option<DownReason>,
}
