//! What all parts of a member work with: its settings, the time, the ways to others, and what waits to be polled.

use core::net::IpAddr;
use std::collections::{BTreeMap, VecDeque};

use ipsec::iv::SenderNumber;
use ipsec::time::Instant;
use zeroize::Zeroizing;

use super::jobs::Jobs;
use super::link::Link;
use super::notice::Notice;
use super::outbox::{Actions, Outbox};
use super::seam::{Action, Settings};
use crate::facility::wrap::Sealer;
use crate::id::{ChildId, Epoch, Incarnation, MemberId};
use crate::message::{BadMessage, Body, Message, VERSION};

/// Why a message of another member was not acted on. Counted; what [`Refused::ends_session`] says goes for the session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is no message.
    #[error(transparent)]
    Bad(#[from] BadMessage),
    /// The sender is no member, or has no session.
    #[error("member {0} has no session here")]
    NoSession(MemberId),
    /// This member has no part in the DVIPA; do all members have one configuration?
    #[error("{0} is no address of this member")]
    UnknownDvipa(IpAddr),
    /// Of an epoch that has passed.
    #[error("epoch {found} has passed, it is {known} now")]
    StaleEpoch {
        /// What the message says.
        found: Epoch,
        /// What is known here.
        known: Epoch,
    },
    /// Of an epoch that nobody has claimed here yet.
    #[error("epoch {found} has not begun here, it is {known}")]
    FutureEpoch {
        /// What the message says.
        found: Epoch,
        /// What is known here.
        known: Epoch,
    },
    /// Only an owner may say this.
    #[error("member {0} does not own the address")]
    NotOwner(MemberId),
    /// Only a target may say this, and to the owner only.
    #[error("member {0} is no target here")]
    NotTarget(MemberId),
    /// Members whom the configuration lets own the address are the only ones who may claim it.
    #[error("member {0} may not own the address; do all members have one configuration?")]
    MayNotOwn(MemberId),
    /// Messages of a session came with a gap between them.
    #[error("change {found} came where {expected} was due")]
    Gap {
        /// Which was due.
        expected: u64,
        /// Which came.
        found: u64,
    },
    /// Messages came in an order that nobody sends.
    #[error("{0}")]
    OutOfOrder(&'static str),
    /// An SA in it cannot be read.
    #[error("it holds an SA that cannot be read; do all members run versions that may work together?")]
    BadShadow,
    /// More than is kept for one member.
    #[error("more {0} than are kept for one member")]
    TooMuch(&'static str),
}

impl Refused {
    /// Whether its session is to be closed: what follows could not be understood. It begins anew and is brought level.
    #[must_use]
    pub fn ends_session(&self) -> bool {
        match self {
            Refused::Bad(_)
            | Refused::Gap { .. }
            | Refused::OutOfOrder(_)
            | Refused::BadShadow
            | Refused::TooMuch(_) => true,
            Refused::NoSession(_)
            | Refused::UnknownDvipa(_)
            | Refused::StaleEpoch { .. }
            | Refused::FutureEpoch { .. }
            | Refused::NotOwner(_)
            | Refused::NotTarget(_)
            | Refused::MayNotOwn(_) => false,
        }
    }
}

/// What all parts of a member work with.
pub(super) struct Shared {
    pub settings: Settings,
    /// The start under which this member is a target. Another one is drawn when it is expelled.
    pub incarnation: Incarnation,
    /// The start of this appliance, in whose name it owns addresses.
    pub start: Incarnation,
    /// The latest time that was told.
    pub now: Instant,
    pub links: BTreeMap<MemberId, Link>,
    pub outbox: Outbox,
    /// Messages to this member itself.
    pub loopback: VecDeque<Zeroizing<Vec<u8>>>,
    pub actions: Actions,
    pub jobs: Jobs,
    /// The last ticket of an [`Action::Await`].
    pub ticket: u64,
    /// Where the cluster's sender counter stood when it was last read.
    pub senders: SenderNumber,
    pub load_permille: u16,
    /// Wraps the keys of SAs for their records.
    pub sealer: Sealer,
    pub notices: VecDeque<Notice>,
    /// Whose sessions were ended here just now.
    pub disconnected: Vec<MemberId>,
    /// Whether this member's part as a target is void, and another incarnation is being drawn.
    pub is_expelled: bool,
    /// Whether what targets are chosen by has changed.
    pub are_tables_stale: bool,
}

/// Most notices that wait to be polled; later ones are dropped, the first say most.
const NOTICES_MAX: usize = 1_024;

impl Shared {
    pub fn me(&self) -> MemberId {
        self.settings.me
    }

    /// Whether messages reach a member now.
    pub fn reaches(&self, member: MemberId) -> bool {
        member == self.me() || self.links.get(&member).is_some_and(Link::is_up)
    }

    /// Says something of a DVIPA; to whom there is no session it is not said, and the state is told when one comes up.
    pub fn say(&mut self, to: MemberId, dvipa: IpAddr, epoch: Epoch, body: Body) {
        self.send(to, &Message::Dvipa { dvipa, epoch, body });
    }

    pub fn send(&mut self, to: MemberId, message: &Message) {
        if to == self.me() {
            // Its own messages are within the bounds that it decodes by.
            if let Ok(bytes) = message.encode(VERSION) {
                self.loopback.push_back(bytes);
            }
            return;
        }
        let Some(session) = self.links.get(&to).and_then(|link| link.session) else { return };
        // What the other side does not know yet it does without; everything else is within bounds by how it is made.
        if let Ok(bytes) = message.encode(session.version)
            && !self.outbox.push(to, bytes)
        {
            self.disconnect(to, "its session takes messages too slowly");
        }
    }

    /// Ends a session; its member is brought level when the next one comes up.
    pub fn disconnect(&mut self, member: MemberId, why: &'static str) {
        self.outbox.clear(member);
        if let Some(link) = self.links.get_mut(&member)
            && link.session.take().is_some()
        {
            self.actions.push(Action::Disconnect { member, why });
            self.disconnected.push(member);
        }
    }

    /// An SA may not be used.
    pub fn refuse(&mut self, child: ChildId, why: &'static str) {
        self.notice(Notice::SaRefused { child, why });
        self.actions.push(Action::Refuse(child));
    }

    pub fn notice(&mut self, notice: Notice) {
        if self.notices.len() < NOTICES_MAX {
            self.notices.push_back(notice);
        }
    }

    /// What targets are chosen by has changed.
    pub fn tables_changed(&mut self) {
        self.are_tables_stale = true;
    }

    /// Waits until every core knows the fabric as it stands now, and has done all that was told before; the ticket of the
    /// answer. With `tops_of` what the SAs of that address have carried by then is told before it.
    pub fn await_cores(&mut self, tops_of: Option<IpAddr>) -> u64 {
        self.ticket += 1;
        self.actions.push_after_fabric(Action::Await { ticket: self.ticket, tops_of });
        self.ticket
    }
}
