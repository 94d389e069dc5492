//! XCF: messages by the mesh's sessions over the stack's streams, heartbeats beside them.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{HashMap, VecDeque};

use cluster::fabric::Protection;
use cluster::id::{Incarnation, MemberId};
use cluster::member::{LinkEvent, Member, Settings};
use cluster::protection::{End, LABEL, SECRET_LEN, SessionKeys};
use ipsec::time::Instant;
use tracing::{info, warn};
use xcf::heartbeat::{Heartbeat, HeartbeatError};
use xcf::{Mesh, MeshEvent, Moment};
use zeroize::Zeroizing;

use crate::stack::{Reach, Stack};

/// Failures with one address are logged so often at most.
const QUIET: Duration = Duration::from_secs(10);
/// Failures of so many addresses are logged in that time at most.
const REMOTES_MAX: usize = 64;

/// What XCF is made of.
pub struct LinkParts {
    /// All sessions.
    pub mesh: Mesh,
    /// What a wall clock shows at [`Instant::ZERO`], in seconds since 1970: certificates are valid by it.
    pub unix_seconds_at_zero: u64,
}

/// The sessions, joined to the stack and to the member.
pub struct Exchange {
    mesh: Mesh,
    /// Where members are on the trusted wire, if frames between them are to be protected.
    protects: Option<Vec<(MemberId, IpAddr)>>,
    /// Keys of new sessions, for the data cores.
    frame_keys: VecDeque<SessionKeys>,
    /// When a failure with this address may be logged again.
    quiet_until: HashMap<IpAddr, Instant>,
    unix_seconds_at_zero: u64,
}

impl Exchange {
    pub(super) fn new(parts: LinkParts, settings: &Settings) -> Exchange {
        let members = || settings.members.iter().map(|member| (member.id, member.address)).collect();
        Exchange {
            mesh: parts.mesh,
            protects: (settings.protection == Protection::Esp).then(members),
            frame_keys: VecDeque::new(),
            quiet_until: HashMap::new(),
            unix_seconds_at_zero: parts.unix_seconds_at_zero,
        }
    }

    /// The keys of a new session, by which frames between the two members are protected.
    pub(super) fn poll_frame_keys(&mut self) -> Option<SessionKeys> {
        self.frame_keys.pop_front()
    }

    /// Both ends of a session come to the same keys by themselves.
    fn export_frame_keys(&mut self, with: MemberId, incarnation: Incarnation, me: (MemberId, Incarnation)) {
        let Some(addresses) = &self.protects else { return };
        let end = |(member, incarnation): (MemberId, Incarnation)| {
            let (_, address) = addresses.iter().find(|(id, _)| *id == member)?;
            Some(End { member, incarnation, address: *address })
        };
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        match (end(me), end((with, incarnation))) {
            (Some(ours), Some(theirs)) if self.mesh.export(with, LABEL, secret.as_mut()) => {
                self.frame_keys.push_back(SessionKeys::new(secret, ours, theirs));
            }
            // Nothing is lost: the session has ended meanwhile, and the next one has keys of its own.
            _ended => warn!(member = %with, "the XCF session gives no keys for frames"),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.mesh.poll_timeout()
    }

    fn moment(&self, now: Instant) -> Moment {
        let since = now.saturating_since(Instant::ZERO);
        Moment { at: now, unix_seconds: self.unix_seconds_at_zero + Duration::as_secs(&since) }
    }

    /// Takes in what has come by the streams, and what is due; whether there was anything.
    pub(super) fn run(&mut self, now: Instant, member: &mut Member, stack: &mut Stack) -> bool {
        let (moment, mut busy) = (self.moment(now), false);
        while let Some(event) = stack.poll_stream(now) {
            busy = true;
            self.mesh.handle_stream(moment, event);
        }
        self.quiet_until.retain(|_, until| now < *until);
        if self.mesh.poll_timeout().is_some_and(|due| due <= now) {
            busy = true;
            self.mesh.handle_timeout(moment);
        }
        while let Some(event) = self.mesh.poll() {
            busy = true;
            self.handle(now, event, member);
        }
        busy
    }

    fn handle(&mut self, now: Instant, event: MeshEvent, member: &mut Member) {
        match event {
            MeshEvent::Up { member: id, incarnation, version } => {
                info!(member = %id, %incarnation, version, "XCF session up");
                // By the starts that the sessions are between: that under which a member is a target may be another one.
                self.export_frame_keys(id, incarnation, (member.me(), member.start()));
                member.handle_link(now, id, LinkEvent::Up { incarnation, version });
            }
            MeshEvent::Down { member: id, why } => {
                warn!(member = %id, %why, "XCF session down");
                member.handle_link(now, id, LinkEvent::Down);
            }
            MeshEvent::Failed { remote, member: id, why } => {
                let quiet_until = self.quiet_until.get(&remote.ip()).copied().unwrap_or(Instant::ZERO);
                if now >= quiet_until && self.quiet_until.len() < REMOTES_MAX {
                    self.quiet_until.insert(remote.ip(), now + QUIET);
                    info!(%remote, member = id.map(tracing::field::display), %why, "no XCF session");
                }
            }
            MeshEvent::Message { member: id, bytes } => {
                if let Err(why) = member.handle_message(now, id, &bytes) {
                    warn!(member = %id, %why, "XCF message refused");
                }
            }
        }
    }

    /// Ends the session with a member.
    pub(super) fn disconnect(&mut self, now: Instant, member: MemberId, why: &'static str) {
        warn!(%member, why, "ending the XCF session");
        self.mesh.disconnect(now, member);
    }

    /// A heartbeat that counts.
    pub(super) fn open_heartbeat(&mut self, from: IpAddr, datagram: &[u8]) -> Result<Heartbeat, HeartbeatError> {
        self.mesh.open_heartbeat(from, datagram)
    }

    /// A heartbeat for every member that there is a session with, and its address.
    pub(super) fn seal_heartbeats(&mut self, polls: &[u64], reach: Reach) -> Vec<(IpAddr, Vec<u8>)> {
        self.mesh.seal_heartbeats(polls, reach.has_carrier, reach.next_hop_answers)
    }

    /// Sends what the member has to say.
    pub(super) fn send(&mut self, now: Instant, member: &mut Member, stack: &mut Stack) {
        while let Some((to, message)) = member.poll_message() {
            if let Err(why) = self.mesh.send(now, to, &message) {
                // The member hears of it by the session's end, and tells again in the next one.
                warn!(member = %to, %why, "XCF message not sent");
            }
        }
        while let Some(action) = self.mesh.poll_stream_action() {
            stack.do_stream_action(now, action);
        }
    }
}
