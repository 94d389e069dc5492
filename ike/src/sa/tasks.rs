//! Our own requests: what waits, and what is under way. The window is one, so they go one after the other.

use std::collections::VecDeque;

use ipsec::Spi;

use super::{IkeSa, Standing};
use crate::channel::Wire;
use crate::child::ChildState;
use crate::context::Context;
use crate::event::DownReason;
use crate::exchange::ask_child::Asked;
use crate::exchange::{delete, informational, rekey_child, rekey_ike, sibling};
use crate::message::{ExchangeType, IkeSpi, PayloadChain};

/// Something to ask of the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Task {
    /// Replace the child with this inbound SPI.
    RekeyChild(Spi),
    /// Delete the child with this inbound SPI.
    DeleteChild(Spi, DownReason),
    /// Tell the peer that the child with this inbound SPI is gone already.
    ReportGone(Spi),
    /// Make the sibling that our owner wants.
    MakeSibling(sibling::Form),
    /// Replace the IKE SA.
    RekeyIke,
    /// Delete the IKE SA.
    DeleteIke(DownReason),
    /// Ask whether the peer lives.
    Probe,
}

/// The request that waits for its response.
pub(crate) enum Active {
    RekeyChild(Box<rekey_child::Pending>),
    Sibling(Box<sibling::Pending>),
    RekeyIke(Box<rekey_ike::Pending>),
    DeleteChild(Spi, DownReason),
    ReportGone,
    DeleteIke(DownReason),
    Probe,
}

impl Active {
    /// The SPI for ESP that is reserved for what may come of it.
    pub(super) fn reserved_esp(&self) -> Option<Spi> {
        match self {
            Active::RekeyChild(pending) => Some(pending.asked.inbound),
            Active::Sibling(pending) => Some(pending.asked.inbound),
            Active::RekeyIke(_)
            | Active::DeleteChild(..)
            | Active::ReportGone
            | Active::DeleteIke(_)
            | Active::Probe => None,
        }
    }

    /// What we ask of the peer, if it may make a child.
    pub(crate) fn asked_child(&mut self) -> Option<&mut Asked> {
        match self {
            Active::RekeyChild(pending) => Some(&mut pending.asked),
            Active::Sibling(pending) => Some(&mut pending.asked),
            Active::RekeyIke(_)
            | Active::DeleteChild(..)
            | Active::ReportGone
            | Active::DeleteIke(_)
            | Active::Probe => None,
        }
    }

    /// The same for IKE.
    pub(super) fn reserved_ike(&self) -> Option<IkeSpi> {
        match self {
            Active::RekeyIke(pending) => Some(pending.local_spi),
            Active::RekeyChild(_)
            | Active::Sibling(_)
            | Active::DeleteChild(..)
            | Active::ReportGone
            | Active::DeleteIke(_)
            | Active::Probe => None,
        }
    }
}

/// A request ready to leave.
pub(crate) struct Request {
    pub(crate) exchange: ExchangeType,
    pub(crate) chain: PayloadChain,
    pub(crate) active: Active,
}

impl IkeSa {
    /// Puts a task in line, once. Deleting the IKE SA makes all others pointless.
    pub(crate) fn queue(&mut self, task: Task) {
        if matches!(task, Task::DeleteIke(_)) {
            self.queue.clear();
        } else if self.queue.iter().any(|waiting| matches!(waiting, Task::DeleteIke(_))) {
            return;
        }
        if !self.queue.contains(&task) {
            self.queue.push_back(task);
        }
    }

    /// Takes what was to be done with children out of the line.
    pub(crate) fn take_child_tasks(&mut self) -> Vec<Task> {
        let is_about_child = |task: &Task| match task {
            Task::RekeyChild(_) | Task::DeleteChild(..) | Task::ReportGone(_) | Task::MakeSibling(_) => true,
            Task::RekeyIke | Task::DeleteIke(_) | Task::Probe => false,
        };
        let (taken, left): (VecDeque<Task>, VecDeque<Task>) = self.queue.drain(..).partition(is_about_child);
        self.queue = left;
        taken.into_iter().collect()
    }

    /// Requests that have not even been sent, because the peer has not answered the one that was.
    pub(crate) fn waiting_requests(&self) -> usize {
        self.queue.len()
    }

    /// Whether the IKE SA is being deleted by us, or about to be.
    pub(crate) fn is_closing(&self) -> bool {
        matches!(self.active, Some(Active::DeleteIke(_)))
            || self.queue.iter().any(|task| matches!(task, Task::DeleteIke(_)))
    }

    /// Whether it may carry new children, rekey and be rekeyed.
    pub(crate) fn is_current(&self) -> bool {
        self.standing == Standing::Current && !self.is_closing() && self.end.is_none()
    }

    /// Starts the next task if none is under way.
    pub(crate) fn run_tasks(&mut self, cx: &mut Context) {
        while self.active.is_none() && self.end.is_none() {
            let Some(task) = self.queue.pop_front() else { return };
            if let Some(request) = self.start(cx, task) {
                self.send_request(cx, request);
            }
        }
    }

    fn start(&mut self, cx: &mut Context, task: Task) -> Option<Request> {
        match task {
            Task::RekeyChild(inbound) => self.is_current().then(|| rekey_child::start(self, cx, inbound)).flatten(),
            Task::MakeSibling(form) => sibling::start(self, cx, form),
            Task::RekeyIke if !self.is_current() || self.rival.is_some() => None,
            Task::RekeyIke if !cx.has_room_for_successor() => {
                self.retry_rekeying(cx);
                None
            }
            Task::RekeyIke => Some(rekey_ike::start(self, cx)),
            Task::DeleteChild(inbound, reason) => {
                let child = self.child_mut(inbound)?;
                child.state = match child.state {
                    ChildState::InUse | ChildState::Replaced | ChildState::Redundant => ChildState::Closing,
                    ChildState::Closing => return None,
                };
                let successor = child.successor;
                Some(delete::start_child(inbound, successor, Active::DeleteChild(inbound, reason)))
            }
            Task::ReportGone(inbound) => Some(delete::start_child(inbound, None, Active::ReportGone)),
            Task::DeleteIke(reason) => Some(delete::start_ike(reason)),
            Task::Probe => Some(informational::start_probe()),
        }
    }

    fn send_request(&mut self, cx: &mut Context, request: Request) {
        self.active = Some(request.active);
        let Some(message_id) = self.outgoing.next_id() else { return self.finish(DownReason::Expired) };
        let header = self.header(request.exchange, false, message_id);
        let Some(message) = self.seal(cx, header, &request.chain) else { return };
        self.outgoing.sent(cx.now, request.exchange, message.clone(), &cx.config.timing.retransmission);
        self.transmit_request(cx, message);
    }

    /// Ends it at once. The peer is told once, and no answer waited for: what goes to make room takes none.
    pub(crate) fn part(&mut self, cx: &mut Context, reason: DownReason) {
        if self.active.is_none() && self.end.is_none() {
            self.send_request(cx, delete::start_ike(reason));
        }
        self.finish(reason);
    }

    /// To where the peer is, and to where it may be.
    pub(super) fn transmit_request(&self, cx: &mut Context, message: Wire) {
        if let Some((local, remote)) = self.also_at {
            cx.transmit_all(local, remote, message.clone());
        }
        cx.transmit_all(self.path.local, self.path.remote, message);
    }
}
