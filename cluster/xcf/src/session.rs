//! One connection between two members: bytes in and out, messages out and in.
//!
//! The order is fixed: TLS handshake, one first message each way ([`crate::hello`]), messages. A session is established
//! when the peer's first message has been read; since the side that was dialled sends it only after it has verified the
//! dialler's certificate, both know by then that they are believed.

use core::fmt;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::Arc;

use cluster::id::{Incarnation, MemberId};
use rustls::{ClientConnection, Connection};
use zeroize::Zeroizing;

use crate::close::CloseReason;
use crate::framing::{Deframer, LENGTH_BYTES, MESSAGE_BYTES_MAX, TooLong, frame};
use crate::hello::{FirstMessageError, HELLO_BYTES_MAX, Hello};
use crate::message::Message;
use crate::name::Name;
use crate::part::Part;
use crate::tls;

/// Bytes that may wait for a peer before its session is closed.
pub const QUEUE_BYTES_MAX: usize = 8 << 20;
/// Bytes of received messages that may wait to be taken out.
const WAITING_BYTES_MAX: usize = 16 << 20;
/// Plaintext that is handed to TLS at a time: one record.
const RECORD_BYTES_MAX: usize = 16 << 10;

/// What a session has to say.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionEvent {
    /// The peer is who it should be, and both speak a common version.
    Established {
        /// Who it is.
        member: MemberId,
        /// In which start.
        incarnation: Incarnation,
        /// The version to speak.
        version: u16,
    },
    /// It is over. Said once, after the last message has been taken out.
    Closed {
        /// Why.
        why: CloseReason,
    },
}

/// Why a message was not taken for sending.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The session is not established, or over.
    #[error("the session is not established")]
    NotEstablished,
    /// An empty message, which is none.
    #[error("a message of 0 bytes; at least 1 is expected")]
    Empty,
    /// A message beyond the limit.
    #[error("a message of {found} bytes; at most {MESSAGE_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length.
        found: usize,
    },
    /// Too much waits for the peer; the session is closed.
    #[error("the peer is too slow: more than {QUEUE_BYTES_MAX} bytes wait for it; its session is closed")]
    TooSlow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Handshake,
    FirstMessage,
    Established,
    Closed,
}

/// One connection. See the module's head.
pub struct Session {
    tls: Connection,
    part: Arc<Part>,
    phase: Phase,
    deframer: Deframer,
    received: VecDeque<Message>,
    received_bytes: usize,
    queue: VecDeque<Zeroizing<Vec<u8>>>,
    /// How much of the queue's front TLS has.
    taken_bytes: usize,
    queued_bytes: usize,
    established: Option<SessionEvent>,
    closed: Option<CloseReason>,
}

impl Session {
    /// Our side of a connection that we dialled, to this member. `unix_seconds` is what certificates are valid by.
    ///
    /// # Errors
    /// A TLS configuration that is refused, which a sound [`Part`] does not make.
    pub fn client(unix_seconds: u64, part: &Arc<Part>, member: &Name) -> Result<Session, CloseReason> {
        let tls: ClientConnection = tls::client(part, member, unix_seconds).map_err(CloseReason::Tls)?;
        Ok(Session::new(tls.into(), part))
    }

    /// Our side of a connection that somebody has dialled.
    ///
    /// # Errors
    /// As for [`Session::client`].
    pub fn server(unix_seconds: u64, part: &Arc<Part>) -> Result<Session, CloseReason> {
        Ok(Session::new(tls::server(part, unix_seconds).map_err(CloseReason::Tls)?.into(), part))
    }

    fn new(tls: Connection, part: &Arc<Part>) -> Session {
        Session {
            tls,
            part: Arc::clone(part),
            phase: Phase::Handshake,
            deframer: Deframer::default(),
            received: VecDeque::new(),
            received_bytes: 0,
            queue: VecDeque::new(),
            taken_bytes: 0,
            queued_bytes: 0,
            established: None,
            closed: None,
        }
    }

    /// Takes in what the peer has sent. After the end, it is ignored.
    pub fn handle_input(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.phase != Phase::Closed {
            if let Err(why) = self.read_some(&mut bytes) {
                self.end(why);
            }
        }
    }

    /// A piece of what has come: TLS takes a few KiB at a time, and what it has decrypted is taken from it before the
    /// next.
    fn read_some(&mut self, bytes: &mut &[u8]) -> Result<(), CloseReason> {
        let garbage = |error: io::Error| CloseReason::Tls(rustls::Error::General(error.to_string()));
        self.tls.read_tls(bytes).map_err(garbage)?;
        let state = self.tls.process_new_packets().map_err(CloseReason::from_tls)?;
        if self.phase == Phase::Handshake && !self.tls.is_handshaking() {
            self.phase = Phase::FirstMessage;
            let hello = frame(&self.part.hello().to_bytes());
            self.tls.writer().write_all(&hello).map_err(garbage)?;
        }
        let mut plaintext = Zeroizing::new(vec![0; state.plaintext_bytes_to_read()]);
        self.tls.reader().read_exact(&mut plaintext).map_err(garbage)?;
        self.read_messages(&plaintext)?;
        match state.peer_has_closed() {
            true => Err(CloseReason::PeerClosed),
            false => Ok(()),
        }
    }

    fn read_messages(&mut self, mut plaintext: &[u8]) -> Result<(), CloseReason> {
        loop {
            let max = if self.phase == Phase::Established { MESSAGE_BYTES_MAX } else { HELLO_BYTES_MAX };
            let too_long = |TooLong { found, max }| CloseReason::MessageTooLong { found, max };
            let Some(message) = self.deframer.next(&mut plaintext, max).map_err(too_long)? else { return Ok(()) };
            match self.phase {
                Phase::FirstMessage => self.read_first(&message).map_err(CloseReason::FirstMessage)?,
                Phase::Established => self.keep(message)?,
                // TLS gives out nothing before its handshake is done.
                Phase::Handshake | Phase::Closed => return Ok(()),
            }
        }
    }

    fn read_first(&mut self, message: &[u8]) -> Result<(), FirstMessageError> {
        let hello = Hello::from_bytes(message)?;
        if hello.cluster != self.part.cluster {
            return Err(FirstMessageError::Cluster { found: hello.cluster, expected: self.part.cluster.clone() });
        }
        let named = self.tls.peer_certificates().and_then(|chain| chain.first());
        let name = named.and_then(|certificate| tls::member_named(&self.part, certificate).ok());
        let known = self.part.members.iter().find(|member| Some(&member.name) == name.as_ref());
        let known = known.ok_or(FirstMessageError::Unknown)?;
        if hello.member != known.id {
            let name = known.name.clone();
            return Err(FirstMessageError::Member { name, found: hello.member, expected: known.id });
        }
        let (theirs, ours) = (hello.versions, self.part.versions);
        let version = ours.common(theirs).ok_or(FirstMessageError::Versions { theirs, ours })?;
        self.phase = Phase::Established;
        let established = SessionEvent::Established { member: known.id, incarnation: hello.incarnation, version };
        self.established = Some(established);
        Ok(())
    }

    fn keep(&mut self, message: Message) -> Result<(), CloseReason> {
        let waiting_bytes = self.received_bytes + message.len();
        if waiting_bytes > WAITING_BYTES_MAX {
            return Err(CloseReason::NotTaken { waiting_bytes, max: WAITING_BYTES_MAX });
        }
        self.received_bytes = waiting_bytes;
        self.received.push_back(message);
        Ok(())
    }

    /// Queues a message for the peer.
    ///
    /// # Errors
    /// What the message or the session lacks. [`SendError::TooSlow`] ends the session, the others change nothing.
    pub fn send(&mut self, message: &[u8]) -> Result<(), SendError> {
        if self.phase != Phase::Established {
            return Err(SendError::NotEstablished);
        }
        match message.len() {
            0 => return Err(SendError::Empty),
            1..=MESSAGE_BYTES_MAX => {}
            found => return Err(SendError::TooLong { found }),
        }
        let queued_bytes = self.queued_bytes + LENGTH_BYTES + message.len();
        if queued_bytes > QUEUE_BYTES_MAX {
            self.end(CloseReason::TooSlow { queued_bytes, max: QUEUE_BYTES_MAX });
            return Err(SendError::TooSlow);
        }
        self.queued_bytes = queued_bytes;
        self.queue.push_back(frame(message));
        Ok(())
    }

    /// Queues a sign of life, unless something waits to be sent anyway.
    pub fn keep_alive(&mut self) {
        if self.phase == Phase::Established && self.queue.is_empty() {
            self.queued_bytes += LENGTH_BYTES;
            self.queue.push_back(frame(&[]));
        }
    }

    /// Appends what is to be sent, at most `room_bytes`. Once more is needed as long as this returns `true`.
    pub fn poll_output(&mut self, output: &mut Vec<u8>, room_bytes: usize) -> bool {
        let mut room = Room { output, left: room_bytes };
        loop {
            while self.tls.wants_write() {
                match self.tls.write_tls(&mut room) {
                    // The room is full; a `Vec` fails in no other way.
                    Ok(0) | Err(_) => return true,
                    Ok(_written) => {}
                }
            }
            if !self.feed_tls() {
                return false;
            }
        }
    }

    /// Hands TLS the next record's worth of the queue. Whether there was any.
    fn feed_tls(&mut self) -> bool {
        let Some(front) = self.queue.front().filter(|_| self.phase == Phase::Established) else { return false };
        let rest = &front[self.taken_bytes..];
        let taken = self.tls.writer().write(&rest[..rest.len().min(RECORD_BYTES_MAX)]).unwrap_or(0);
        self.taken_bytes += taken;
        self.queued_bytes -= taken;
        if self.taken_bytes == front.len() {
            self.queue.pop_front();
            self.taken_bytes = 0;
        }
        taken > 0
    }

    /// The next message from the peer.
    pub fn poll_message(&mut self) -> Option<Message> {
        let message = self.received.pop_front()?;
        self.received_bytes -= message.len();
        Some(message)
    }

    /// The next thing to know about the session.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        if let Some(established) = self.established.take() {
            return Some(established);
        }
        if !self.received.is_empty() {
            return None;
        }
        self.closed.take().map(|why| SessionEvent::Closed { why })
    }

    /// Ends the session in order; [`Session::poll_output`] has the goodbye.
    pub fn close(&mut self) {
        self.end(CloseReason::Closed);
    }

    fn end(&mut self, why: CloseReason) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            self.closed = Some(why);
            self.queue.clear();
            self.queued_bytes = 0;
            self.taken_bytes = 0;
            self.tls.send_close_notify();
        }
    }

    /// Fills `key` with keying material that only the two ends of this session know (RFC 8446 §7.5). Equal labels give
    /// both ends equal keys. Whether there is any: before it is established there is none.
    #[must_use]
    pub fn export(&self, label: &[u8], key: &mut [u8]) -> bool {
        self.phase == Phase::Established && self.tls.export_keying_material(key, label, None).is_ok()
    }

    /// Bytes that wait to be sent, without what TLS holds.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("phase", &self.phase).field("queued_bytes", &self.queued_bytes).finish()
    }
}

/// A `Vec` that grows by so much and no more.
struct Room<'a> {
    output: &'a mut Vec<u8>,
    left: usize,
}

impl Write for Room<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.left);
        self.output.extend_from_slice(&bytes[..taken]);
        self.left -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
