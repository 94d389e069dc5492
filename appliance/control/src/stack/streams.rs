//! The members' TCP connections, on smoltcp: a fixed number of sockets with fixed buffers, made once.
//!
//! Of the sockets as many as there are other members are kept for connections that we ask for; the others take what comes
//! in, of which one listens as long as one is free. Connections that wait to be completed are bounded for each address.
//! What is read waits in the socket until [`Stack::poll_stream`] takes it, so the peer's window is the only queue.

use core::time::Duration;
use std::collections::VecDeque;
use std::net::SocketAddr;

use ipsec::time::Instant;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use wire::tcp;
use xcf::{StreamAction, StreamEnd, StreamEvent, StreamId};

use super::Stack;
use super::drops::DropReason;
use super::link::Link;

/// Room of a connection each way, in bytes.
pub const STREAM_BUFFER_BYTES: usize = 64 << 10;
/// Connections beyond two for each other member.
const SPARE: usize = 4;
/// Connections of one address that may wait to be completed.
const HALF_OPEN_PER_ADDRESS: usize = 2;
/// How long one may.
const HALF_OPEN_TIME: Duration = Duration::from_secs(3);
/// How long the other end may be silent. XCF's signs of life come more often.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a connection that we have ended may take to end.
const CLOSING_TIME: Duration = Duration::from_secs(5);
/// What one event carries at most.
const READ_BYTES_MAX: usize = 16 << 10;
/// Local ports of connections that we ask for (RFC 6335 §6).
const DYNAMIC_PORTS: u16 = 49_152;

/// The number of a connection that comes in and is not complete.
const NOBODYS: StreamId = StreamId::Accepted(u64::MAX);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Free,
    Listening,
    HalfOpen(SocketAddr, Instant),
    /// Complete, and not told of yet.
    Complete(SocketAddr),
    Connecting(Instant),
    /// Since then nothing has come from the peer.
    Open(Instant),
    Closing(Instant),
}

struct Slot {
    handle: SocketHandle,
    phase: Phase,
    id: StreamId,
    remote: SocketAddr,
    /// Room that was granted to the writer and not yet used.
    granted_bytes: usize,
}

/// All sockets.
pub(super) struct Streams {
    local: SocketAddr,
    slots: Vec<Slot>,
    /// How many may be of connections that come in.
    incoming_max: usize,
    accepted: u64,
    next_port: u16,
    /// Where the search for the next event begins, so that no stream starves another.
    turn: usize,
    /// Streams that found no socket.
    refused: VecDeque<StreamId>,
}

impl Streams {
    /// Sockets for so many other members.
    pub fn new(link: &mut Link, local: SocketAddr, members: usize, random: u16) -> Streams {
        let incoming_max = members + SPARE;
        let slots = (0..members + incoming_max).map(|_| Slot {
            handle: link.add_tcp(STREAM_BUFFER_BYTES, PATIENCE),
            phase: Phase::Free,
            id: NOBODYS,
            remote: local,
            granted_bytes: 0,
        });
        let slots = slots.collect();
        let next_port = DYNAMIC_PORTS | random;
        let mut streams =
            Streams { local, slots, incoming_max, accepted: 0, next_port, turn: 0, refused: VecDeque::new() };
        streams.listen(link);
        streams
    }

    /// Lets a free socket listen, if none does and incoming connections do not have all of theirs.
    fn listen(&mut self, link: &mut Link) {
        let incoming = self.slots.iter().filter(|slot| slot.is_incoming()).count();
        if self.slots.iter().any(|slot| slot.phase == Phase::Listening) || incoming >= self.incoming_max {
            return;
        }
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.phase == Phase::Free)
            && link.tcp(slot.handle).listen(smoltcp::wire::IpEndpoint::from(self.local)).is_ok()
        {
            slot.phase = Phase::Listening;
        }
    }

    /// Whether a segment may reach the sockets.
    fn admit(&self, from: SocketAddr, segment: &tcp::Packet<&[u8]>) -> Result<(), DropReason> {
        let is_known = self.slots.iter().any(|slot| slot.remote == from && slot.has_peer());
        if is_known || !segment.flags().opens_connection() {
            return if is_known { Ok(()) } else { Err(DropReason::TcpNoConnection) };
        }
        if segment.dst_port() != self.local.port() {
            return Err(DropReason::TcpPortNotServed);
        }
        let is_half_open = |slot: &&Slot| matches!(slot.phase, Phase::HalfOpen(of, _) if of.ip() == from.ip());
        if self.slots.iter().filter(is_half_open).count() >= HALF_OPEN_PER_ADDRESS {
            return Err(DropReason::TcpHalfOpenFull);
        }
        match self.slots.iter().any(|slot| slot.phase == Phase::Listening) {
            true => Ok(()),
            false => Err(DropReason::TcpSocketsFull),
        }
    }

    /// Follows the sockets after a segment has come or time has passed: who was connected to, who has left. Whether a
    /// socket has something to say over it.
    fn follow(&mut self, now: Instant, link: &mut Link) -> bool {
        let mut speaks = false;
        for slot in &mut self.slots {
            let socket = link.tcp(slot.handle);
            match slot.phase {
                Phase::Listening if socket.state() != State::Listen => {
                    slot.remote = socket.remote_endpoint().map_or(slot.remote, SocketAddr::from);
                    slot.id = NOBODYS;
                    slot.phase = Phase::HalfOpen(slot.remote, now);
                }
                // A reset brings a socket back to listening.
                Phase::HalfOpen(..) if socket.state() == State::Listen => {
                    socket.abort();
                    slot.phase = Phase::Free;
                }
                Phase::HalfOpen(from, _) if !matches!(socket.state(), State::SynReceived | State::Closed) => {
                    slot.phase = Phase::Complete(from);
                }
                Phase::HalfOpen(_, since) if socket.state() == State::SynReceived => {
                    if now >= since + HALF_OPEN_TIME {
                        socket.abort();
                        speaks = true;
                        slot.phase = Phase::Closing(now);
                    }
                }
                Phase::HalfOpen(..) | Phase::Closing(_) if !socket.is_open() && socket.remote_endpoint().is_none() => {
                    slot.phase = Phase::Free;
                }
                Phase::Closing(since) => {
                    if socket.state() == State::TimeWait {
                        slot.phase = Phase::Free;
                    } else if now >= since + CLOSING_TIME {
                        socket.abort();
                        speaks = true;
                        slot.phase = Phase::Closing(now);
                    }
                }
                Phase::Free
                | Phase::Listening
                | Phase::HalfOpen(..)
                | Phase::Complete(_)
                | Phase::Connecting(_)
                | Phase::Open(_) => {}
            }
        }
        self.listen(link);
        speaks
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let of_slot = |slot: &Slot| match slot.phase {
            Phase::HalfOpen(_, since) => Some(since + HALF_OPEN_TIME),
            Phase::Closing(since) => Some(since + CLOSING_TIME),
            Phase::Free | Phase::Listening | Phase::Complete(_) | Phase::Connecting(_) | Phase::Open(_) => None,
        };
        self.slots.iter().filter_map(of_slot).min()
    }

    fn find(&self, id: StreamId) -> Option<usize> {
        let is_live = |slot: &Slot| matches!(slot.phase, Phase::Connecting(_) | Phase::Open(_)) && slot.id == id;
        self.slots.iter().position(is_live)
    }

    fn connect(&mut self, now: Instant, link: &mut Link, id: StreamId, remote: SocketAddr) {
        let Some(free) = self.slots.iter().position(|slot| slot.phase == Phase::Free) else {
            return self.refuse(id);
        };
        let mut local = SocketAddr::new(self.local.ip(), self.next_port);
        while self.slots.iter().any(|slot| {
            slot.has_peer() && link.tcp(slot.handle).local_endpoint().is_some_and(|at| at.port == local.port())
        }) {
            local.set_port(next_port(local.port()));
        }
        self.next_port = next_port(local.port());
        let slot = &mut self.slots[free];
        if link.connect(slot.handle, local, remote) {
            *slot = Slot { phase: Phase::Connecting(now), id, remote, granted_bytes: 0, handle: slot.handle };
        } else {
            self.refuse(id);
        }
    }

    /// The mesh has a time limit for those that find no place even here.
    fn refuse(&mut self, id: StreamId) {
        if self.refused.len() < self.slots.len() {
            self.refused.push_back(id);
        }
    }

    fn poll(&mut self, now: Instant, link: &mut Link) -> Option<StreamEvent> {
        if let Some(stream) = self.refused.pop_front() {
            return Some(StreamEvent::Closed { stream, why: StreamEnd::NoSocket });
        }
        for step in 0..self.slots.len() {
            let at = (self.turn + step) % self.slots.len();
            if let Some(event) = self.slots[at].poll(now, link, &mut self.accepted) {
                self.turn = at + 1;
                self.listen(link);
                return Some(event);
            }
        }
        None
    }
}

fn next_port(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(DYNAMIC_PORTS)
}

impl Slot {
    fn has_peer(&self) -> bool {
        !matches!(self.phase, Phase::Free | Phase::Listening)
    }

    fn is_incoming(&self) -> bool {
        match self.phase {
            Phase::Free | Phase::Connecting(_) => false,
            Phase::Listening | Phase::HalfOpen(..) | Phase::Complete(_) => true,
            Phase::Open(_) | Phase::Closing(_) => matches!(self.id, StreamId::Accepted(_)),
        }
    }

    fn poll(&mut self, now: Instant, link: &mut Link, accepted: &mut u64) -> Option<StreamEvent> {
        let socket = link.tcp(self.handle);
        match (self.phase, socket.state()) {
            (Phase::Free | Phase::Listening | Phase::Closing(_), _)
            | (Phase::HalfOpen(..), _)
            | (Phase::Connecting(_), State::SynSent | State::SynReceived) => None,
            (Phase::Connecting(since), State::Closed) => {
                let why = if now >= since + PATIENCE { StreamEnd::TimedOut } else { StreamEnd::Reset };
                Some(self.end(why))
            }
            (Phase::Complete(from), _) => {
                self.id = StreamId::Accepted(*accepted);
                *accepted += 1;
                let room_bytes = self.open(now, socket);
                Some(StreamEvent::Accepted { stream: self.id, from, room_bytes })
            }
            (Phase::Connecting(_), _) => {
                let room_bytes = self.open(now, socket);
                Some(StreamEvent::Connected { stream: self.id, room_bytes })
            }
            (Phase::Open(heard), state) => self.poll_open(now, heard, state, socket),
        }
    }

    fn open(&mut self, now: Instant, socket: &Socket<'_>) -> usize {
        self.phase = Phase::Open(now);
        self.granted_bytes = socket.send_capacity();
        self.granted_bytes
    }

    fn poll_open(
        &mut self,
        now: Instant,
        heard: Instant,
        state: State,
        socket: &mut Socket<'_>,
    ) -> Option<StreamEvent> {
        let mut bytes = vec![0; socket.recv_queue().min(READ_BYTES_MAX)];
        let read = socket.recv_slice(&mut bytes).unwrap_or(0);
        if read > 0 {
            bytes.truncate(read);
            self.phase = Phase::Open(now);
            return Some(StreamEvent::Readable { stream: self.id, bytes });
        }
        match state {
            State::Closed => {
                let why = if now >= heard + PATIENCE { StreamEnd::TimedOut } else { StreamEnd::Reset };
                return Some(self.end(why));
            }
            State::CloseWait => {
                socket.close();
                self.phase = Phase::Closing(now);
                return Some(StreamEvent::Closed { stream: self.id, why: StreamEnd::Finished });
            }
            State::Listen
            | State::SynSent
            | State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck
            | State::TimeWait => {}
        }
        let room_bytes = socket.send_capacity().saturating_sub(socket.send_queue() + self.granted_bytes);
        // In large pieces: each costs the writer a record's overhead.
        if room_bytes < STREAM_BUFFER_BYTES / 4 && (self.granted_bytes > 0 || room_bytes == 0) {
            return None;
        }
        self.granted_bytes += room_bytes;
        Some(StreamEvent::Writable { stream: self.id, room_bytes })
    }

    fn end(&mut self, why: StreamEnd) -> StreamEvent {
        self.phase = Phase::Free;
        StreamEvent::Closed { stream: self.id, why }
    }
}

impl Stack {
    /// Does what an XCF mesh wants of its streams.
    pub fn do_stream_action(&mut self, now: Instant, action: StreamAction) {
        match action {
            StreamAction::Connect { stream, address } => self.stream_connect(now, stream, address),
            StreamAction::Write { stream, bytes } => self.stream_write(now, stream, &bytes),
            StreamAction::Close { stream } => self.stream_close(now, stream),
            StreamAction::Abort { stream } => self.stream_abort(now, stream),
        }
    }

    /// Asks a member for a connection. The answer is an event.
    pub fn stream_connect(&mut self, now: Instant, stream: StreamId, remote: SocketAddr) {
        self.with_streams(now, |streams, link| streams.connect(now, link, stream, remote));
    }

    /// Writes. What exceeds the room that was granted breaks the connection: it would be lost.
    pub fn stream_write(&mut self, now: Instant, stream: StreamId, bytes: &[u8]) {
        self.with_streams(now, |streams, link| {
            let Some(at) = streams.find(stream) else { return };
            let slot = &mut streams.slots[at];
            let socket = link.tcp(slot.handle);
            let is_granted = bytes.len() <= slot.granted_bytes;
            slot.granted_bytes = slot.granted_bytes.saturating_sub(bytes.len());
            if !is_granted || socket.send_slice(bytes) != Ok(bytes.len()) {
                // A socket that the peer has closed meanwhile says so itself.
                socket.abort();
            }
        });
    }

    /// Ends a connection after what was written has gone. No event follows.
    pub fn stream_close(&mut self, now: Instant, stream: StreamId) {
        self.with_streams(now, |streams, link| {
            let Some(at) = streams.find(stream) else { return };
            let slot = &mut streams.slots[at];
            link.tcp(slot.handle).close();
            slot.phase = Phase::Closing(now);
        });
    }

    /// Breaks a connection at once. No event follows.
    pub fn stream_abort(&mut self, now: Instant, stream: StreamId) {
        self.with_streams(now, |streams, link| {
            let Some(at) = streams.find(stream) else { return };
            let slot = &mut streams.slots[at];
            link.tcp(slot.handle).abort();
            slot.phase = Phase::Closing(now);
        });
    }

    /// The next thing that has become of a connection with a member. Reading makes room for more, which the peer is told
    /// of at once.
    pub fn poll_stream(&mut self, now: Instant) -> Option<StreamEvent> {
        let mut event = None;
        self.with_streams(now, |streams, link| event = streams.poll(now, link));
        event
    }

    /// Lets something happen to the sockets, and then lets them speak.
    fn with_streams(&mut self, now: Instant, change: impl FnOnce(&mut Streams, &mut Link)) {
        let Some(trusted) = &mut self.trusted else { return };
        let id = trusted.settings.port;
        let Some(port) = self.ports.get_mut(&id) else { return };
        change(&mut trusted.streams, &mut port.link);
        port.link.drive(now);
        if trusted.streams.follow(now, &mut port.link) {
            port.link.drive(now);
            trusted.streams.follow(now, &mut port.link);
        }
        self.send_link_packets(now, id);
        self.settle(now);
    }

    /// Follows the sockets after their link has had the time told.
    pub(super) fn follow_streams(&mut self, now: Instant) {
        self.with_streams(now, |_, _| ());
    }

    pub(super) fn poll_stream_timeout(&self) -> Option<Instant> {
        self.trusted.as_ref().and_then(|trusted| trusted.streams.poll_timeout())
    }

    /// A segment from a member for us.
    pub(super) fn receive_member_tcp(
        &mut self,
        now: Instant,
        from: SocketAddr,
        packet: &[u8],
        segment: &tcp::Packet<&[u8]>,
    ) -> Result<(), DropReason> {
        let trusted = self.trusted.as_ref().ok_or(DropReason::TcpPortNotServed)?;
        let admitted = trusted.streams.admit(from, segment);
        let is_reset = segment.flags().contains(tcp::Flags::RST);
        match admitted {
            Ok(()) => {}
            // A member that has restarted tells by a reset that it knows nothing of an older connection.
            Err(DropReason::TcpNoConnection | DropReason::TcpPortNotServed) if !is_reset && self.errors.admit(now) => {}
            Err(reason) => return Err(reason),
        }
        self.with_streams(now, |_, link| link.take_in(now, packet.to_vec()));
        admitted
    }
}
