//! The rows that show an appliance as one of several: who owns what, who serves it, and what stands where.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A DVIPA as this member sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DvipaRow {
    /// The address.
    pub address: IpAddr,
    /// Who owns it; empty while nobody is known to.
    pub owner: String,
    /// Since which epoch; 0 before the first claim.
    pub epoch: u64,
    /// This member's part: `owner`, `target`, `owner+target` or `none`.
    pub role: String,
    /// Where its IPsec work is done: `target` or `distributor`.
    pub processing: String,
    /// How its outbound numbers are given out.
    pub outbound_sequence: String,
    /// How its connections are shared out.
    pub distribution: String,
    /// What it offers, such as `tcp/80`; empty for every port.
    pub services: Vec<String>,
    /// SAs that this member holds for it.
    pub sas: u64,
    /// Its owner still waits for members before it takes new connections.
    pub settling: bool,
    /// As the owner, in this epoch: reports of what SAs have carried.
    pub lifesize_reports: u64,
    /// As the owner, in this epoch: SAs that were refreshed for what they had carried.
    pub refreshes: u64,
}

/// A target of a DVIPA, as the owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetRow {
    /// Of which address.
    pub dvipa: IpAddr,
    /// The member's name.
    pub name: String,
    /// `ready`, `behind` (shadows outstanding), `not-ready` (no service answers), `draining`, `drained` or `lost`.
    pub state: String,
    /// The start of it that holds its connections; 0 if it has not come yet.
    pub incarnation: u64,
    /// The serial that frames to it carry.
    pub serial: u64,
    /// Its share, compared with the others'.
    pub weight: u16,
    /// Connections that it has reported.
    pub connections: u64,
    /// How busy its data cores are, in thousandths.
    pub load: u16,
    /// Services that answer there, such as `tcp/80`.
    pub services_ready: Vec<String>,
    /// Changes of the shadow SAs that it has acknowledged, and how many there have been.
    pub shadows_acknowledged: u64,
    /// See `shadows_acknowledged`.
    pub shadows_told: u64,
}

/// A CHILD_SA as this member holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShadowRow {
    /// Our IPsec address.
    pub dvipa: IpAddr,
    /// What we receive on.
    pub spi_in: String,
    /// What the peer receives on.
    pub spi_out: String,
    /// The child that it came of.
    pub name: String,
    /// The peer's authenticated identity.
    pub peer: String,
    /// The owner's epoch at its birth.
    pub epoch: u64,
    /// It is a copy of another appliance's SA.
    pub shadow: bool,
    /// `target` or `distributor`.
    pub processing: String,
    /// Nothing at or below this number is taken any more.
    pub floor: u64,
    /// It delivers on old connections only, and is being replaced.
    pub sealed: bool,
    /// Where the outbound numbers come from here: `own`, `sequencer`, `via-owner`, `leased`, or `none`.
    pub numbers: String,
    /// Outbound numbers from here on may not be used yet; `null` for no bound.
    pub mark: Option<u64>,
    /// Why its peer's SAs are not numbered as the policy wishes; empty if they are, and on members that do not own it.
    pub fallback: String,
    /// The targets that hold it on all their cores; the owner knows.
    pub held_by: Vec<String>,
    /// The member that alone sends on it, which the owner knows; empty where several share its numbers.
    pub sender: String,
}

/// What one half of an SA may carry in the cluster, and has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifesizeRow {
    /// Our IPsec address.
    pub dvipa: IpAddr,
    /// The CHILD_SA, by what we receive on.
    pub spi_in: String,
    /// `in` or `out`.
    pub direction: String,
    /// Inner bytes carried, by all reports.
    pub used_bytes: u64,
    /// Inner bytes that members may carry beyond what they have reported.
    pub granted_bytes: u64,
    /// Inner bytes charged for members that do not answer.
    pub charged_bytes: u64,
    /// It is replaced from here on; `null` for no limit.
    pub soft_limit_bytes: Option<u64>,
    /// It carries nothing beyond this; `null` for no limit.
    pub hard_limit_bytes: Option<u64>,
    /// The most by which the hard limit can be overrun, in bytes.
    pub overrun_bound_bytes: u64,
    /// How much of the lifesize a member carries between two reports, in thousandths.
    pub report_permille: u32,
    /// Reports so far.
    pub reports: u64,
}

/// A member of the cluster, as this one sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRow {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u16,
    /// Its address on the trusted port.
    pub address: IpAddr,
    /// It is this appliance.
    pub own: bool,
    /// `up`, `down` or `lost`; the member that answers is `up`.
    pub state: String,
    /// This start of it; 0 if it has not come yet.
    pub incarnation: u64,
    /// The version that XCF speaks with it; 0 while it does not.
    pub version: u16,
    /// How long ago it was last heard, in milliseconds; `null` if never.
    pub heard_ms: Option<u64>,
    /// Whether the data cores that it told of last moved since.
    pub cores_move: bool,
    /// Whether the network ports of its DVIPAs have a link.
    pub carrier: bool,
    /// Whether a router answers on each of them that leads to one.
    pub next_hop: bool,
}

/// The coupling facility, and the members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRow {
    /// The cluster's name; empty for an appliance on its own.
    pub name: String,
    /// `etcd` or `embedded`.
    pub facility: String,
    /// Whether the facility answers.
    pub facility_up: bool,
    /// The facility's revision when it last answered.
    pub facility_revision: u64,
    /// All members, by number.
    pub members: Vec<MemberRow>,
}

/// Which target has a connection, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhereRow {
    /// The peer's authenticated identity.
    pub peer: String,
    /// The client's end.
    pub src: String,
    /// The service's end.
    pub dst: String,
    /// `tcp`, `udp`, …
    pub protocol: String,
    /// The member that has it.
    pub target: String,
    /// How this member knows: `entry` (it routes there as the owner), `connection` (it terminates here).
    pub known_by: String,
    /// Why it is there.
    pub why: String,
    /// How long it has been routed there, in milliseconds; `null` where this member does not route it.
    pub age_ms: Option<u64>,
    /// How long it has been since its last packet, in milliseconds; `null` where it does not end here.
    pub quiet_ms: Option<u64>,
}
