//! What waits to be polled: messages, bounded for each member, and actions, in an order in which they may rest on each other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use zeroize::Zeroizing;

use super::seam::Action;
use crate::fabric::Fabric;
use crate::id::MemberId;

/// Most messages that wait for one member's session to take them. Who is slower than that is disconnected, and brought
/// level afterwards.
pub(super) const MESSAGES_MAX: usize = 4_096;
/// Most bytes of them.
pub(super) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Messages for one member.
#[derive(Default)]
struct Lane {
    messages: VecDeque<Zeroizing<Vec<u8>>>,
    bytes: usize,
}

/// Messages for all members.
#[derive(Default)]
pub(super) struct Outbox {
    lanes: BTreeMap<MemberId, Lane>,
    /// Whose turn it was, so that a long lane starves no other.
    last: Option<MemberId>,
}

impl Outbox {
    /// Queues a message; `false` if its lane is full, whose session is to be ended then.
    #[must_use]
    pub fn push(&mut self, to: MemberId, message: Zeroizing<Vec<u8>>) -> bool {
        let lane = self.lanes.entry(to).or_default();
        if lane.messages.len() >= MESSAGES_MAX || lane.bytes + message.len() > MESSAGE_BYTES_MAX {
            return false;
        }
        lane.bytes += message.len();
        lane.messages.push_back(message);
        true
    }

    /// How many messages wait for a member.
    pub fn waiting(&self, member: MemberId) -> usize {
        self.lanes.get(&member).map_or(0, |lane| lane.messages.len())
    }

    /// Forgets what waits for a member.
    pub fn clear(&mut self, member: MemberId) {
        self.lanes.remove(&member);
    }

    pub fn pop(&mut self) -> Option<(MemberId, Zeroizing<Vec<u8>>)> {
        let after = |last: MemberId| MemberId(last.0.saturating_add(1));
        let from = self.last.map_or(MemberId(0), after);
        let mut waiting = self.lanes.iter().filter(|(_, lane)| !lane.messages.is_empty()).map(|(&member, _)| member);
        let first = waiting.clone().next()?;
        let member = waiting.find(|&member| member >= from).unwrap_or(first);
        self.last = Some(member);
        self.pop_for(member).map(|message| (member, message))
    }

    pub fn pop_for(&mut self, member: MemberId) -> Option<Zeroizing<Vec<u8>>> {
        let lane = self.lanes.get_mut(&member)?;
        let message = lane.messages.pop_front()?;
        lane.bytes -= message.len();
        Some(message)
    }
}

/// Actions: first those that stand for themselves, then the fabric if it has changed, then those that rest on it.
///
/// So a fabric never runs ahead of what it says: a new table serial is told after the entries before it are forgotten,
/// and whoever relies on a fabric comes after it. What changes at once is told once.
#[derive(Default)]
pub(super) struct Actions {
    first: VecDeque<Action>,
    is_fabric_stale: bool,
    last: VecDeque<Action>,
}

/// What is to be done next.
pub(super) enum Next {
    Do(Box<Action>),
    Fabric,
}

impl Actions {
    pub fn push(&mut self, action: Action) {
        self.first.push_back(action);
    }

    /// Queues an action that rests on the fabric as it stands now.
    pub fn push_after_fabric(&mut self, action: Action) {
        self.last.push_back(action);
    }

    /// The fabric has changed.
    pub fn fabric_changed(&mut self) {
        self.is_fabric_stale = true;
    }

    pub fn pop(&mut self) -> Option<Next> {
        if let Some(action) = self.first.pop_front() {
            return Some(Next::Do(Box::new(action)));
        }
        if core::mem::take(&mut self.is_fabric_stale) {
            return Some(Next::Fabric);
        }
        self.last.pop_front().map(|action| Next::Do(Box::new(action)))
    }
}

/// Tells a fabric only if it differs from the last.
#[derive(Default)]
pub(super) struct LastFabric(Option<Arc<Fabric>>);

impl LastFabric {
    pub fn changed(&mut self, fabric: Fabric) -> Option<Arc<Fabric>> {
        if self.0.as_deref() == Some(&fabric) {
            return None;
        }
        let fabric = Arc::new(fabric);
        self.0 = Some(Arc::clone(&fabric));
        Some(fabric)
    }
}
