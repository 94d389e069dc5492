//! Heartbeats: that this member lives and its data cores move, told beside XCF and heard of the others.

use core::time::Duration;
use std::collections::HashMap;

use cluster::id::MemberId;
use datapath::buffer::PacketBuffer;
use ipsec::time::Instant;
use tracing::debug;

use super::ClusterCore;
use crate::control_core::ControlCore;
use crate::stack::Reach;

/// How often a member tells.
const INTERVAL: Duration = Duration::from_millis(250);

/// What the members tell.
#[derive(Debug, Default)]
pub(super) struct Beats {
    due: Instant,
    heard: HashMap<MemberId, Beat>,
}

/// The last that was heard of a member.
#[derive(Debug, Clone)]
pub(super) struct Beat {
    /// When.
    pub at: Instant,
    /// Whether every data core had moved on since the one before.
    pub cores_move: bool,
    /// Whether the ports of its DVIPAs lead anywhere.
    pub reach: Reach,
    polls: Vec<u64>,
}

impl Beats {
    pub(super) fn due(&self) -> Instant {
        self.due
    }

    pub(super) fn of(&self, member: MemberId) -> Option<&Beat> {
        self.heard.get(&member)
    }
}

impl<B: PacketBuffer> ControlCore<B> {
    /// Tells that this member lives, if it is time, and takes in what the others tell.
    pub(super) fn beat(&mut self, now: Instant, cluster: &mut ClusterCore) {
        while let Some((from, datagram)) = self.stack.poll_heartbeat() {
            match cluster.exchange.open_heartbeat(from, &datagram) {
                Ok(beat) => {
                    let before = cluster.beats.heard.get(&beat.member).map(|before| before.polls.as_slice());
                    let has_moved = |before: &[u64]| {
                        before.len() == beat.polls.len() && before.iter().zip(&beat.polls).all(|(old, new)| new > old)
                    };
                    let cores_move = before.is_none_or(has_moved);
                    let reach = Reach { has_carrier: beat.has_carrier, next_hop_answers: beat.next_hop_answers };
                    cluster.beats.heard.insert(beat.member, Beat { at: now, cores_move, reach, polls: beat.polls });
                }
                Err(why) => debug!(%from, %why, "heartbeat not counted"),
            }
        }
        if now < cluster.beats.due {
            return;
        }
        cluster.beats.due = now + INTERVAL;
        let polls: Vec<u64> =
            self.cores.iter().map(|core| core.polls.busy.get().wrapping_add(core.polls.idle.get())).collect();
        for (address, datagram) in cluster.exchange.seal_heartbeats(&polls, self.stack.reach()) {
            self.stack.send_heartbeat(now, address, &datagram);
        }
    }
}
