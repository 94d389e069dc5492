//! The destination port table: which targets are ready for what, and which of them a new connection goes to.
//!
//! **Purpose.** [`Tables`] is what the targets' reports and the configuration amount to: a value that the control core
//! makes anew and every data core reads. [`Chooser`] is what one core remembers while it chooses.
//!
//! **Promises.** A target that is not ready is never chosen, nor one that the caller excludes. All state is of fixed size,
//! taken at the start. The same tables, states and questions give the same answers: there is no clock and no chance here.
//! What all cores must agree on without a word (the hot one of a hot standby, the first choice for a source) rests on
//! the tables and a shared seed alone.
//!
//! **What it never does.** It moves no connection that stands (DESIGN §8, rule 7): only new ones are asked for. It does
//! not know who is lost or drains, beyond what the tables and the caller's `exclude` say.

mod affinity;
mod chooser;
mod method;

use core::net::IpAddr;
use core::num::NonZeroU16;
use core::time::Duration;

use crate::id::MemberId;
use crate::member::ServicePort;

pub use chooser::{Chooser, NoTarget};
pub use method::{Method, UnknownMethod};

/// Most targets of one port.
pub const TARGETS_MAX: usize = 32;

/// Most ports over all DVIPAs.
pub const PORTS_MAX: usize = 1_024;

/// The load of an appliance that has no time left.
pub const LOAD_MAX: u16 = 1_000;

/// A target at one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortTarget {
    /// Which member.
    pub member: MemberId,
    /// Whether it may have new connections: its application hosts answer, it holds the shadows, it does not drain.
    pub is_ready: bool,
    /// Its share of connections, against those of the others.
    pub weight: NonZeroU16,
    /// How many connections of this port it has, by its last report.
    pub active: u32,
    /// How busy its data cores are, by its last report: 0 to [`LOAD_MAX`].
    pub load: u16,
    /// Another number for each report: what a core has assigned since then is not yet in `active`.
    pub report: u64,
}

/// A port of a DVIPA, and how its connections are shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortTable {
    /// Which; `None` is every port, and every protocol, that is not named by another.
    pub port: Option<ServicePort>,
    /// How a target is chosen.
    pub method: Method,
    /// How long a source keeps its target after its last new connection; `None` is not at all.
    pub affinity: Option<Duration>,
    /// Whether the owner serves what it can itself, before all others.
    pub is_local_first: bool,
    /// The targets, in configured order.
    pub targets: Vec<PortTarget>,
    /// The one that a hot standby uses now; [`Tables::new`] says which.
    hot: Option<MemberId>,
}

impl PortTable {
    /// A port with these targets, in configured order.
    #[must_use]
    pub fn new(port: Option<ServicePort>, method: Method, targets: Vec<PortTarget>) -> PortTable {
        PortTable { port, method, affinity: None, is_local_first: false, targets, hot: None }
    }

    /// The target that a hot standby uses now; `None` for other methods, and while none is ready.
    #[must_use]
    pub fn hot(&self) -> Option<MemberId> {
        self.hot
    }

    fn is_ready(&self, member: MemberId) -> bool {
        self.targets.iter().any(|target| target.member == member && target.is_ready)
    }

    /// Who is hot, if `before` was.
    fn hot_after(&self, before: Option<MemberId>) -> Option<MemberId> {
        let switches_back = match self.method {
            Method::HotStandby { switches_back } => switches_back,
            Method::RoundRobin | Method::Weighted | Method::WeightedActive | Method::LoadBased => return None,
        };
        let stays = before.filter(|member| !switches_back && self.is_ready(*member));
        stays.or_else(|| self.targets.iter().find(|target| target.is_ready).map(|target| target.member))
    }
}

/// The ports of a DVIPA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DvipaTable {
    /// The address.
    pub address: IpAddr,
    /// Its ports.
    pub ports: Vec<PortTable>,
}

/// Why tables cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A DVIPA stands twice.
    #[error("DVIPA {0} stands twice in the port tables; name it once")]
    DvipaTwice(IpAddr),
    /// A port of a DVIPA stands twice.
    #[error("a port of DVIPA {0} stands twice in its port table; name it once")]
    PortTwice(IpAddr),
    /// A target of a port stands twice.
    #[error("member {1} stands twice at a port of DVIPA {0}; name it once")]
    TargetTwice(IpAddr, MemberId),
    /// Too many targets at one port.
    #[error("a port of DVIPA {0} has {1} targets, and {TARGETS_MAX} at most are allowed")]
    TooManyTargets(IpAddr, usize),
    /// Too many ports.
    #[error("all DVIPAs have {0} ports together, and {PORTS_MAX} at most are allowed")]
    TooManyPorts(usize),
}

/// The destination port tables of all DVIPAs that this appliance owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    me: MemberId,
    /// By address; the ports of each by themselves, "every port" first.
    dvipas: Vec<DvipaTable>,
}

impl Tables {
    /// The tables of member `me`. The `previous` ones say which target of a hot standby was in use: without switching back
    /// it stays in use while it is ready.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn new(me: MemberId, mut dvipas: Vec<DvipaTable>, previous: Option<&Tables>) -> Result<Tables, Invalid> {
        let ports = dvipas.iter().map(|dvipa| dvipa.ports.len()).sum();
        if ports > PORTS_MAX {
            return Err(Invalid::TooManyPorts(ports));
        }
        dvipas.sort_unstable_by_key(|dvipa| dvipa.address);
        if let Some(pair) = dvipas.windows(2).find(|pair| pair[0].address == pair[1].address) {
            return Err(Invalid::DvipaTwice(pair[0].address));
        }
        for dvipa in &mut dvipas {
            dvipa.ports.sort_unstable_by_key(|table| table.port);
            if dvipa.ports.windows(2).any(|pair| pair[0].port == pair[1].port) {
                return Err(Invalid::PortTwice(dvipa.address));
            }
            for table in &mut dvipa.ports {
                check_targets(dvipa.address, &table.targets)?;
                let before = previous.and_then(|tables| tables.exactly(dvipa.address, table.port));
                table.hot = table.hot_after(before.and_then(PortTable::hot));
            }
        }
        Ok(Tables { me, dvipas })
    }

    /// Tables of an appliance that owns nothing.
    #[must_use]
    pub fn empty(me: MemberId) -> Tables {
        Tables { me, dvipas: Vec::new() }
    }

    /// All of them, by address.
    #[must_use]
    pub fn dvipas(&self) -> &[DvipaTable] {
        &self.dvipas
    }

    /// Whether a packet of `protocol` to `port` of `dvipa` is for a service at all.
    #[must_use]
    pub fn offers(&self, dvipa: IpAddr, protocol: u8, port: u16) -> bool {
        self.port(dvipa, ServicePort { protocol, port }).is_some()
    }

    /// The table for a port: its own, or that of every port.
    #[must_use]
    pub fn port(&self, dvipa: IpAddr, port: ServicePort) -> Option<&PortTable> {
        self.exactly(dvipa, Some(port)).or_else(|| self.exactly(dvipa, None))
    }

    fn exactly(&self, dvipa: IpAddr, port: Option<ServicePort>) -> Option<&PortTable> {
        let at = self.dvipas.binary_search_by_key(&dvipa, |table| table.address).ok()?;
        let ports = &self.dvipas[at].ports;
        ports.binary_search_by_key(&port, |table| table.port).ok().map(|at| &ports[at])
    }
}

fn check_targets(dvipa: IpAddr, targets: &[PortTarget]) -> Result<(), Invalid> {
    if targets.len() > TARGETS_MAX {
        return Err(Invalid::TooManyTargets(dvipa, targets.len()));
    }
    for (at, target) in targets.iter().enumerate() {
        if targets[..at].iter().any(|earlier| earlier.member == target.member) {
            return Err(Invalid::TargetTwice(dvipa, target.member));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
