//! What operators see: `phalanx show`, the command socket behind it, and the metrics.
//!
//! **Purpose.** The appliance's state as plain rows. Everything here starts from a [`Snapshot`]; who takes it, and of
//! what, is the caller's business.
//!
//! **Promises.**
//! - The JSON field names of the rows are a contract: fields are added, never renamed, never removed.
//! - Whoever connects to a socket here can hold up neither the appliance nor, for long, another client: requests,
//!   clients and waiting times are bounded.
//! - The number of metrics is bounded by the configuration, not by how often SAs are rekeyed.
//!
//! **What it never does.** It changes nothing in the appliance, and never shows a key.

mod cluster_rows;
mod cluster_table;
pub mod metrics;
mod protocol;
mod rows;
pub mod socket;
mod table;
mod totals;

pub use cluster_rows::{ClusterRow, DvipaRow, LifesizeRow, MemberRow, ShadowRow, TargetRow, WhereRow};
pub use protocol::{REQUEST_LEN_MAX, Request, RequestError, Response, What, human, human_where};
pub use rows::{BalanceRow, ConnectionRow, CoreRow, DropRow, PortRow, SaRow, SaTraffic};
pub use totals::{CHILDREN_MAX, ChildKey, ChildTotals, SaLedger};

/// The appliance's state at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// How long the appliance has been running.
    pub uptime: std::time::Duration,
    /// Every live SA, each direction by itself.
    pub sas: Vec<SaRow>,
    /// Every reason to drop a packet, including those that have not occurred.
    pub drops: Vec<DropRow>,
    /// Where packets ended.
    pub balance: BalanceRow,
    /// Connections, as far as a page goes.
    pub connections: Vec<ConnectionRow>,
    /// Every port.
    pub ports: Vec<PortRow>,
    /// Every core.
    pub cores: Vec<CoreRow>,
    /// Every DVIPA that this member has a part in.
    pub dvipas: Vec<DvipaRow>,
    /// Every target of the DVIPAs that it owns.
    pub targets: Vec<TargetRow>,
    /// Every CHILD_SA that it holds.
    pub shadows: Vec<ShadowRow>,
    /// Both halves of every CHILD_SA that it owns.
    pub lifesizes: Vec<LifesizeRow>,
    /// The cluster.
    pub cluster: ClusterRow,
    /// Traffic of all SAs that ever lived, by the child that they came of. Metrics only.
    pub children: Vec<(ChildKey, ChildTotals)>,
    /// What IKE has counted: the event's name, and how often. Metrics only.
    pub ike_events: Vec<(&'static str, u64)>,
    /// IKE SAs now: the state's name, and how many. Metrics only.
    pub ike_sas: Vec<(&'static str, u64)>,
}

impl Snapshot {
    /// Answers `show` from the command socket.
    #[must_use]
    pub fn respond(&self, what: What) -> Response {
        match what {
            What::Sas => Response::rows(&self.sas),
            What::Drops => Response::rows(&self.drops),
            What::Balance => Response::rows(&self.balance),
            What::Connections => Response::rows(&self.connections),
            What::Ports => Response::rows(&self.ports),
            What::Cores => Response::rows(&self.cores),
            What::Dvipas => Response::rows(&self.dvipas),
            What::Targets => Response::rows(&self.targets),
            What::Shadow => Response::rows(&self.shadows),
            What::Lifesize => Response::rows(&self.lifesizes),
            What::Cluster => Response::rows(&self.cluster),
        }
    }
}
