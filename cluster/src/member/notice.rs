//! What a member tells its operator, each with the DVIPA, the SA and the epoch that it is about.

use core::fmt;
use core::net::IpAddr;

use crate::id::{ChildId, Epoch, Incarnation, MemberId};
use crate::lifesize::Amount;

/// Something that an operator should find in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// This member owns an address.
    Owned {
        /// Which.
        dvipa: IpAddr,
        /// Since which epoch.
        epoch: Epoch,
        /// SAs of earlier epochs whose records are void.
        void: usize,
    },
    /// It does not any more.
    Disowned {
        /// Which.
        dvipa: IpAddr,
        /// Since when it did.
        epoch: Epoch,
        /// Why not.
        why: String,
    },
    /// Another member owns an address.
    Follows {
        /// Which.
        dvipa: IpAddr,
        /// Since which epoch.
        epoch: Epoch,
        /// Who.
        owner: MemberId,
    },
    /// A target may have connections.
    Admitted {
        /// Of which address.
        dvipa: IpAddr,
        /// In which epoch.
        epoch: Epoch,
        /// Which.
        target: MemberId,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// A target gets no frames any more; its loss is being recorded.
    Losing {
        /// Of which address.
        dvipa: IpAddr,
        /// In which epoch.
        epoch: Epoch,
        /// Which.
        target: MemberId,
        /// Which start of it.
        incarnation: Incarnation,
        /// Why.
        why: &'static str,
    },
    /// A target is lost, and that is recorded.
    Lost {
        /// Of which address.
        dvipa: IpAddr,
        /// In which epoch.
        epoch: Epoch,
        /// Which.
        target: MemberId,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// SAs were sealed, and are rekeyed one after the other.
    Sealed {
        /// Of which address.
        dvipa: IpAddr,
        /// In which epoch.
        epoch: Epoch,
        /// How many.
        sas: usize,
    },
    /// Half of an SA has come to its soft limit, by what members have reported.
    Worn {
        /// Which SA.
        child: ChildId,
        /// In which epoch.
        epoch: Epoch,
        /// Whether it is the inbound half.
        is_inbound: bool,
        /// What was reported as carried.
        used: Amount,
    },
    /// A target drains, or no more.
    Drains {
        /// Of which address.
        dvipa: IpAddr,
        /// In which epoch.
        epoch: Epoch,
        /// Which.
        target: MemberId,
        /// Whether it drains.
        on: bool,
    },
    /// A drained target has no connections left and may go.
    Left {
        /// Of which address.
        dvipa: IpAddr,
        /// In which epoch.
        epoch: Epoch,
        /// Which.
        target: MemberId,
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// This member's part as a target is void; it comes back empty.
    Expelled {
        /// Of which address.
        dvipa: IpAddr,
        /// In which epoch.
        epoch: Epoch,
        /// Which start.
        incarnation: Incarnation,
    },
    /// It has come back as this start.
    Reborn {
        /// Which start.
        incarnation: Incarnation,
    },
    /// An SA could not be taken into use.
    SaRefused {
        /// Which.
        child: ChildId,
        /// Why.
        why: &'static str,
    },
    /// The coupling facility holds something that cannot be worked with.
    Facility {
        /// About which address.
        dvipa: Option<IpAddr>,
        /// What, and what the operator can do.
        what: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Owned { dvipa, epoch, void } => {
                write!(f, "{dvipa} epoch {epoch}: owned by this member; {void} SAs of earlier epochs are void")
            }
            Notice::Disowned { dvipa, epoch, why } => write!(f, "{dvipa} epoch {epoch}: not owned any more: {why}"),
            Notice::Follows { dvipa, epoch, owner } => write!(f, "{dvipa} epoch {epoch}: owned by member {owner}"),
            Notice::Admitted { dvipa, epoch, target, incarnation } => {
                write!(f, "{dvipa} epoch {epoch}: target {target} (start {incarnation}) may have connections")
            }
            Notice::Losing { dvipa, epoch, target, incarnation, why } => {
                write!(f, "{dvipa} epoch {epoch}: target {target} (start {incarnation}) is given up: {why}")
            }
            Notice::Lost { dvipa, epoch, target, incarnation } => {
                write!(
                    f,
                    "{dvipa} epoch {epoch}: target {target} (start {incarnation}) is lost; it may come back empty"
                )
            }
            Notice::Sealed { dvipa, epoch, sas } => {
                write!(f, "{dvipa} epoch {epoch}: {sas} SAs are sealed and rekeyed")
            }
            Notice::Worn { child, epoch, is_inbound, used: Amount { bytes, packets } } => {
                let half = if *is_inbound { "inbound" } else { "outbound" };
                write!(f, "SA {child} epoch {epoch}: {bytes} bytes in {packets} packets {half}, it is to be replaced")
            }
            Notice::Drains { dvipa, epoch, target, on: true } => {
                write!(f, "{dvipa} epoch {epoch}: target {target} drains")
            }
            Notice::Drains { dvipa, epoch, target, on: false } => {
                write!(f, "{dvipa} epoch {epoch}: target {target} drains no more")
            }
            Notice::Left { dvipa, epoch, target, incarnation } => write!(
                f,
                "{dvipa} epoch {epoch}: target {target} (start {incarnation}) has no connections left and may be removed"
            ),
            Notice::Expelled { dvipa, epoch, incarnation } => write!(
                f,
                "{dvipa} epoch {epoch}: the owner gave this member (start {incarnation}) up; it comes back empty"
            ),
            Notice::Reborn { incarnation } => write!(f, "this member serves as start {incarnation} from now on"),
            Notice::SaRefused { child, why } => write!(f, "SA {child} is refused: {why}"),
            Notice::Facility { dvipa: Some(dvipa), what } => write!(f, "{dvipa}: {what}"),
            Notice::Facility { dvipa: None, what } => f.write_str(what),
        }
    }
}
