//! All sessions of one member: one with each other member, kept up as long as both live.
//!
//! **Who dials whom.** Of two members, the one with the lower number dials. So there is never a session too many, and a
//! member that is told of by both sides at once is told of once.
//!
//! **Which session counts.** A newer session of a member takes the place of the older, whose end may not have been
//! noticed yet. But what an older start of that member has to say is never heard again once a newer one was.
//!
//! **The order of calls.** [`Mesh::handle_stream`] for whatever becomes of streams, [`Mesh::send`], and
//! [`Mesh::handle_timeout`] when [`Mesh::poll_timeout`] has come; after any of these [`Mesh::poll_stream_action`] and
//! [`Mesh::poll`], each until it is empty.

mod beats;
mod events;
mod link;
mod settings;
#[cfg(test)]
mod tests;

use core::net::{IpAddr, SocketAddr};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cluster::id::{Incarnation, MemberId};
use ipsec::time::Instant;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::Moment;
use crate::close::CloseReason;
use crate::hello::Versions;
use crate::identity::Identity;
use crate::part::{Part, PartError};
use crate::session::{SendError, Session, SessionEvent};
use crate::stream::{StreamAction, StreamEvent, StreamId};

pub use events::{DownReason, MeshEvent, MeshSendError, Refusals};
use link::Link;
pub use settings::{MemberStatus, MeshSettings, Timing};

/// Unauthenticated incoming streams beyond one for each member.
const SPARE_STREAMS: usize = 4;
/// Unauthenticated incoming streams from one address: one that hangs, one that replaces it, one more.
const STREAMS_PER_ADDRESS: usize = 3;
/// Bytes of messages from one member that may wait for [`Mesh::poll`].
const WAITING_BYTES_MAX: usize = 16 << 20;
/// What a stream is given to write at a time.
const WRITE_BYTES_MAX: usize = 16 << 10;
/// Failed attempts that wait to be told of; more are only counted.
const FAILURES_MAX: usize = 64;

/// A stream and the session on it.
struct Stream {
    remote: SocketAddr,
    /// The member that was dialled, or that has proven itself.
    member: Option<MemberId>,
    /// None until the stream is there.
    session: Option<Session>,
    /// Since when its session is established.
    up_since: Option<Instant>,
    began: Instant,
    heard: Instant,
    sent: Instant,
    room_bytes: usize,
}

/// All sessions. See the module's head.
pub struct Mesh {
    part: Arc<Part>,
    timing: Timing,
    links: BTreeMap<MemberId, Link>,
    streams: BTreeMap<StreamId, Stream>,
    actions: VecDeque<StreamAction>,
    events: VecDeque<MeshEvent>,
    failures_waiting: usize,
    refusals: Refusals,
    dialled: u64,
    rng: ChaCha20Rng,
}

impl Mesh {
    /// A mesh that begins to dial at once. `seed` makes waits random; it must differ from member to member.
    ///
    /// # Errors
    /// A member without an address.
    pub fn new(now: Moment, settings: MeshSettings, seed: [u8; 32]) -> Result<Mesh, PartError> {
        let MeshSettings { part, addresses, timing } = settings;
        let me = part.me().id;
        let mut links = BTreeMap::new();
        for member in part.members.iter().filter(|member| member.id != me) {
            let address = addresses.iter().find(|(id, _)| *id == member.id).map(|(_, address)| *address);
            let address = address.ok_or_else(|| PartError::NoAddress(member.name.clone()))?;
            links.insert(member.id, Link::new(member.name.clone(), address, me < member.id, now.at));
        }
        let mut mesh = Mesh {
            part: Arc::new(part),
            timing,
            links,
            streams: BTreeMap::new(),
            actions: VecDeque::new(),
            events: VecDeque::new(),
            failures_waiting: 0,
            refusals: Refusals::default(),
            dialled: 0,
            rng: ChaCha20Rng::from_seed(seed),
        };
        mesh.dial_due(now.at);
        Ok(mesh)
    }

    /// Sessions that begin from now on show this certificate.
    ///
    /// # Errors
    /// A certificate of another member or cluster; the old one stays.
    pub fn renew(&mut self, identity: Arc<Identity>) -> Result<(), PartError> {
        self.part = Arc::new(self.part.renewed(identity)?);
        Ok(())
    }

    /// Takes in what has become of a stream. Of streams that the mesh has forgotten nothing is heard.
    pub fn handle_stream(&mut self, now: Moment, event: StreamEvent) {
        match event {
            StreamEvent::Accepted { stream, from, room_bytes } => self.accept(now, stream, from, room_bytes),
            StreamEvent::Connected { stream, room_bytes } => self.connected(now, stream, room_bytes),
            StreamEvent::Readable { stream, bytes } => {
                let Some(at) = self.streams.get_mut(&stream) else { return };
                let Some(session) = &mut at.session else { return };
                at.heard = now.at;
                session.handle_input(&bytes);
                self.advance(now.at, stream);
            }
            StreamEvent::Writable { stream, room_bytes } => {
                let Some(at) = self.streams.get_mut(&stream) else { return };
                at.room_bytes = at.room_bytes.saturating_add(room_bytes);
                self.flush(now.at, stream);
            }
            StreamEvent::Closed { stream, why } => {
                if let Some(gone) = self.streams.remove(&stream) {
                    self.ended(now.at, stream, &gone, DownReason::Stream(why));
                }
            }
        }
    }

    fn accept(&mut self, now: Moment, id: StreamId, from: SocketAddr, room_bytes: usize) {
        if self.streams.contains_key(&id) {
            return;
        }
        let is_waiting = |stream: &&Stream| stream.up_since.is_none() && stream.member.is_none();
        let waiting = self.streams.values().filter(is_waiting).count();
        let of_address = self.streams.values().filter(is_waiting).filter(|at| at.remote.ip() == from.ip()).count();
        let refused = if !self.links.values().any(|link| link.address.ip() == from.ip()) {
            self.refusals.strangers += 1;
            Some(DownReason::Stranger(from.ip()))
        } else if waiting > self.links.len() + SPARE_STREAMS || of_address >= STREAMS_PER_ADDRESS {
            self.refusals.crowded += 1;
            Some(DownReason::Crowded)
        } else {
            None
        };
        if let Some(why) = refused {
            self.actions.push_back(StreamAction::Abort { stream: id });
            return self.tell_failure(from, None, why);
        }
        let session = Session::server(now.unix_seconds, &self.part);
        self.begin(now.at, id, Stream::new(now.at, from, None), session, room_bytes);
    }

    fn connected(&mut self, now: Moment, id: StreamId, room_bytes: usize) {
        let Some(stream) = self.streams.get(&id).filter(|stream| stream.session.is_none()) else { return };
        let Some(link) = stream.member.and_then(|member| self.links.get(&member)) else { return };
        let session = Session::client(now.unix_seconds, &self.part, &link.name);
        let Some(stream) = self.streams.remove(&id) else { return };
        self.begin(now.at, id, stream, session, room_bytes);
    }

    fn begin(
        &mut self,
        now: Instant,
        id: StreamId,
        stream: Stream,
        session: Result<Session, CloseReason>,
        room_bytes: usize,
    ) {
        match session {
            Ok(session) => {
                self.streams.insert(id, Stream { session: Some(session), room_bytes, heard: now, ..stream });
                self.flush(now, id);
            }
            Err(why) => {
                self.actions.push_back(StreamAction::Abort { stream: id });
                self.ended(now, id, &stream, DownReason::Session(why));
            }
        }
    }

    /// Follows a session after bytes have come.
    fn advance(&mut self, now: Instant, id: StreamId) {
        while let Some(stream) = self.streams.get_mut(&id) {
            let Some(session) = &mut stream.session else { return };
            if let Some(event) = session.poll_event() {
                match event {
                    SessionEvent::Established { member, incarnation, version } => {
                        self.establish(now, id, member, incarnation, version);
                    }
                    SessionEvent::Closed { why } => self.finish(now, id, DownReason::Session(why)),
                }
            } else if let (Some(message), Some(member)) = (session.poll_message(), stream.member) {
                let Some(link) = self.links.get_mut(&member) else { return };
                link.waiting_bytes += message.len();
                let waiting_bytes = link.waiting_bytes;
                self.events.push_back(MeshEvent::Message { member, bytes: message });
                if waiting_bytes > WAITING_BYTES_MAX {
                    let why = CloseReason::NotTaken { waiting_bytes, max: WAITING_BYTES_MAX };
                    self.finish(now, id, DownReason::Session(why));
                }
            } else {
                return self.flush(now, id);
            }
        }
    }

    /// A member has proven itself on this stream. Does its session count?
    fn establish(&mut self, now: Instant, id: StreamId, member: MemberId, incarnation: Incarnation, version: u16) {
        let Some(remote) = self.streams.get(&id).map(|stream| stream.remote) else { return };
        let Some(link) = self.links.get(&member) else { return };
        let known = link.newest.filter(|known| *known > incarnation);
        let refused = match (id, known) {
            (_, Some(known)) => Some(DownReason::OlderIncarnation { member, found: incarnation, known }),
            (StreamId::Accepted(_), None) if link.address.ip() != remote.ip() => {
                Some(DownReason::WrongAddress { member, from: remote.ip() })
            }
            (StreamId::Accepted(_), None) if link.dials => Some(DownReason::WrongDialler(member)),
            (StreamId::Accepted(_) | StreamId::Dialled(_), None) => None,
        };
        if let Some(why) = refused {
            self.refusals.superseded += 1;
            return self.finish(now, id, why);
        }
        let older = link.current;
        if let Some(older) = older {
            self.finish(now, older, DownReason::Replaced);
        }
        let (Some(link), Some(stream)) = (self.links.get_mut(&member), self.streams.get_mut(&id)) else { return };
        stream.member = Some(member);
        stream.up_since = Some(now);
        if let Some(session) = &stream.session {
            link.came_up(id, incarnation, version, session);
        }
        self.events.push_back(MeshEvent::Up { member, incarnation, version });
    }

    /// Gives a stream what its session has to send, as far as there is room.
    fn flush(&mut self, now: Instant, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(session) = &mut stream.session else { return };
        while stream.room_bytes > 0 {
            let mut bytes = Vec::new();
            let is_more = session.poll_output(&mut bytes, stream.room_bytes.min(WRITE_BYTES_MAX));
            if !bytes.is_empty() {
                stream.room_bytes -= bytes.len();
                stream.sent = now;
                self.actions.push_back(StreamAction::Write { stream: id, bytes });
            }
            if !is_more {
                return;
            }
        }
    }

    /// Ends a session from our side: with a goodbye where the peer may still read it.
    fn finish(&mut self, now: Instant, id: StreamId, why: DownReason) {
        if let Some(session) = self.streams.get_mut(&id).and_then(|stream| stream.session.as_mut()) {
            session.close();
        }
        if why.is_orderly() {
            self.flush(now, id);
            self.actions.push_back(StreamAction::Close { stream: id });
        } else {
            self.actions.push_back(StreamAction::Abort { stream: id });
        }
        if let Some(gone) = self.streams.remove(&id) {
            self.ended(now, id, &gone, why);
        }
    }

    /// What the end of a stream means for its member.
    fn ended(&mut self, now: Instant, id: StreamId, gone: &Stream, why: DownReason) {
        if gone.up_since.is_none() && !why.is_counted_elsewhere() {
            self.refusals.handshakes += 1;
        }
        let link = gone.member.and_then(|member| Some((member, self.links.get_mut(&member)?)));
        let Some((member, link)) = link else { return self.tell_failure(gone.remote, None, why) };
        link.last_failure = Some(why.clone());
        if let Some(since) = gone.up_since {
            link.has_lasted(now.saturating_since(since), self.timing.back_off_max);
        }
        if link.dials && link.dialling == Some(id) {
            link.dialling = None;
            link.retry_later(now, &self.timing, &mut self.rng);
        }
        if link.current == Some(id) {
            link.current = None;
            self.events.push_back(MeshEvent::Down { member, why });
        } else {
            self.tell_failure(gone.remote, Some(member), why);
        }
    }

    fn tell_failure(&mut self, remote: SocketAddr, member: Option<MemberId>, why: DownReason) {
        if self.failures_waiting < FAILURES_MAX {
            self.failures_waiting += 1;
            self.events.push_back(MeshEvent::Failed { remote, member, why });
        } else {
            self.refusals.untold += 1;
        }
    }

    /// Queues a message for a member.
    ///
    /// # Errors
    /// The member's session is not up, or the message cannot be taken. Nothing is repeated after
    /// [`MeshEvent::Down`]: whoever sends brings the member level after the next [`MeshEvent::Up`].
    pub fn send(&mut self, now: Instant, member: MemberId, bytes: &[u8]) -> Result<(), MeshSendError> {
        let id = self.links.get(&member).and_then(|link| link.current).ok_or(MeshSendError::NotUp(member))?;
        let session = self.streams.get_mut(&id).and_then(|stream| stream.session.as_mut());
        let sent = session.ok_or(MeshSendError::NotUp(member))?.send(bytes);
        match sent {
            Ok(()) => self.flush(now, id),
            // The session has ended over it, which has to be told.
            Err(SendError::TooSlow) => self.advance(now, id),
            Err(SendError::NotEstablished | SendError::Empty | SendError::TooLong { .. }) => {}
        }
        sent.map_err(|why| MeshSendError::Session { member, why })
    }

    /// Ends a member's session; it will be set up anew.
    pub fn disconnect(&mut self, now: Instant, member: MemberId) {
        if let Some(id) = self.links.get(&member).and_then(|link| link.current) {
            self.finish(now, id, DownReason::Session(CloseReason::Closed));
        }
    }

    /// What is to be done with streams next.
    pub fn poll_stream_action(&mut self) -> Option<StreamAction> {
        self.actions.pop_front()
    }

    /// The next thing that has come of it all.
    pub fn poll(&mut self) -> Option<MeshEvent> {
        let event = self.events.pop_front()?;
        match &event {
            MeshEvent::Message { member, bytes } => {
                if let Some(link) = self.links.get_mut(member) {
                    link.waiting_bytes = link.waiting_bytes.saturating_sub(bytes.len());
                }
            }
            MeshEvent::Failed { .. } => self.failures_waiting -= 1,
            MeshEvent::Up { .. } | MeshEvent::Down { .. } => {}
        }
        Some(event)
    }

    /// When [`Mesh::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let of_streams = self.streams.values().map(|stream| stream.deadline(&self.timing));
        of_streams.chain(self.links.values().filter_map(|link| link.retry_at)).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Moment) {
        let is_due = |stream: &Stream| stream.deadline(&self.timing) <= now.at;
        let due: Vec<StreamId> = self.streams.iter().filter(|(_, at)| is_due(at)).map(|(id, _)| *id).collect();
        for id in due {
            let Some(stream) = self.streams.get_mut(&id) else { continue };
            if stream.up_since.is_none() {
                self.finish(now.at, id, DownReason::HandshakeTimedOut);
            } else if now.at >= stream.heard + self.timing.silence {
                self.finish(now.at, id, DownReason::Silent);
            } else if let Some(session) = &mut stream.session {
                session.keep_alive();
                // Also where there is no room to write: the next sign of life is due later.
                stream.sent = now.at;
                self.flush(now.at, id);
            }
        }
        self.dial_due(now.at);
    }

    fn dial_due(&mut self, now: Instant) {
        for (&member, link) in &mut self.links {
            if link.retry_at.is_none_or(|at| at > now) {
                continue;
            }
            let stream = StreamId::Dialled(self.dialled);
            self.dialled += 1;
            link.retry_at = None;
            link.dialling = Some(stream);
            self.streams.insert(stream, Stream::new(now, link.address, Some(member)));
            self.actions.push_back(StreamAction::Connect { stream, address: link.address });
        }
    }

    /// What there is to know about the other members.
    pub fn status(&self) -> impl Iterator<Item = MemberStatus> + '_ {
        self.links.iter().map(|(&member, link)| MemberStatus {
            member,
            address: link.address,
            up: link.current.and(link.newest).map(|incarnation| (incarnation, link.version)),
            queued_bytes: self.session_of(link).map_or(0, Session::queued_bytes),
            last_failure: link.last_failure.clone(),
        })
    }

    /// The versions that this member knows.
    #[must_use]
    pub fn versions(&self) -> Versions {
        self.part.versions
    }

    /// What was refused so far.
    #[must_use]
    pub fn refusals(&self) -> Refusals {
        self.refusals
    }

    /// Keying material of a member's session, see [`Session::export`].
    #[must_use]
    pub fn export(&self, member: MemberId, label: &[u8], key: &mut [u8]) -> bool {
        let session = self.links.get(&member).and_then(|link| self.session_of(link));
        session.is_some_and(|session| session.export(label, key))
    }

    /// The member whose trusted address this is.
    #[must_use]
    pub fn member_at(&self, address: IpAddr) -> Option<MemberId> {
        self.links.iter().find(|(_, link)| link.address.ip() == address).map(|(&member, _)| member)
    }

    fn session_of(&self, link: &Link) -> Option<&Session> {
        link.current.and_then(|id| self.streams.get(&id)?.session.as_ref())
    }
}

impl Stream {
    fn new(now: Instant, remote: SocketAddr, member: Option<MemberId>) -> Stream {
        Stream { remote, member, session: None, up_since: None, began: now, heard: now, sent: now, room_bytes: 0 }
    }

    fn deadline(&self, timing: &Timing) -> Instant {
        match self.up_since {
            None => self.began + timing.handshake,
            Some(_) => (self.heard + timing.silence).min(self.sent + timing.keep_alive),
        }
    }
}
