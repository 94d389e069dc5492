//! What clients' users and application hosts do: connections with SYN, data and FIN, and answers.

use core::net::Ipv4Addr;
use core::time::Duration;
use std::collections::BTreeMap;

use cluster::id::MemberId;
use wire::tcp::Flags;

use super::{Happening, World};
use crate::dice::Dice;
use crate::packet::{SEGMENT_LEN_MIN, Segment};

/// Ports that a client uses, over and over, so that connections come back.
const PORTS: u64 = 6;
/// The first of them.
const FIRST_PORT: u16 = 40_000;
/// Pauses between what one user does.
const PAUSE_MICROS: (u64, u64) = (500, 9_000);

/// A connection as its client has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Closing,
}

/// What clients and hosts do by themselves.
#[derive(Debug)]
pub struct Traffic {
    /// Whether clients' users do anything.
    pub is_on: bool,
    /// Of a thousand segments, how many hosts answer.
    pub answered: u64,
    /// Of a thousand things that a user does, how many are nothing.
    pub idle: u64,
    dice: Dice,
    next_tag: u64,
    connections: Vec<BTreeMap<u16, State>>,
}

impl Traffic {
    pub(super) fn new(seed: u64, clients: usize) -> Traffic {
        let mut dice = Dice::new(seed, "traffic");
        let (answered, idle) = (dice.between(300, 900), dice.between(100, 600));
        Traffic { is_on: false, answered, idle, dice, next_tag: 0, connections: vec![BTreeMap::new(); clients] }
    }

    fn tag(&mut self) -> u64 {
        self.next_tag += 1;
        self.next_tag
    }
}

impl World {
    /// One user does something.
    pub(super) fn do_traffic(&mut self) {
        let pause = self.traffic.dice.micros(PAUSE_MICROS.0, PAUSE_MICROS.1) / self.clients.len().max(1) as u32;
        self.schedule(self.now + pause, Happening::Traffic);
        if !self.traffic.is_on || self.traffic.dice.permille(self.traffic.idle) {
            return;
        }
        let client = self.traffic.dice.below(self.clients.len() as u64) as usize;
        let port = FIRST_PORT + self.traffic.dice.below(PORTS) as u16;
        let state = self.traffic.connections[client].get(&port).copied();
        let choice = self.traffic.dice.below(100);
        let (flags, count) = match (state, choice) {
            (None, 0..80) => (Flags::SYN, 1),
            // Data of a connection that nobody knows: after a crash, or with its SYN withheld.
            (None, _) => (Flags::ACK, 1),
            (Some(_), 0..6) => (Flags::SYN, 1),
            (Some(_), 6..14) => (Flags::FIN | Flags::ACK, 1),
            (Some(_), 14..90) => (Flags::ACK, 1),
            (Some(_), _) => (Flags::ACK, self.traffic.dice.between(2, 12)),
        };
        let next = if flags.contains(Flags::FIN) { State::Closing } else { State::Open };
        if state == Some(State::Closing) && flags.contains(Flags::FIN) {
            self.traffic.connections[client].remove(&port);
        } else {
            self.traffic.connections[client].insert(port, next);
        }
        for _ in 0..count {
            let len = self.traffic.dice.between(SEGMENT_LEN_MIN as u64, 1_000) as usize;
            // Some sleep on an old SA, as long as there is one.
            let back = usize::from(self.traffic.dice.permille(100));
            self.client_sends(client, port, flags, len, back);
        }
    }

    /// A client sends a segment; its frame, if it could.
    pub fn client_sends(&mut self, client: usize, port: u16, flags: Flags, len: usize, back: usize) -> Option<Vec<u8>> {
        let frame = self.client_seals(client, port, flags, len, back)?;
        self.send_from_client(client, frame.clone());
        Some(frame)
    }

    /// A client seals a segment, and does not send it yet.
    pub fn client_seals(&mut self, client: usize, port: u16, flags: Flags, len: usize, back: usize) -> Option<Vec<u8>> {
        let at = self.clients.get_mut(client).filter(|client| client.is_up())?;
        let from: Ipv4Addr = at.address();
        let tag = self.traffic.tag();
        let segment = Segment { tag, client: (from, port), to_service: true, flags, len: len.max(SEGMENT_LEN_MIN) };
        let sealed = at.seal(&segment.emit(), back)?;
        self.model.sent(&segment, sealed.spi);
        self.note(("sent", client, tag, sealed.sequence));
        tracing::info!(at = %self.now, client, port, tag, ?flags, spi = %sealed.spi, number = sealed.sequence, "SIM sent");
        Some(sealed.frame)
    }

    /// An application host has got a segment.
    pub(super) fn host_got(&mut self, member: MemberId, segment: Segment) {
        if !self.traffic.dice.permille(self.traffic.answered) {
            return;
        }
        let flags = match segment.flags {
            flags if flags.contains(Flags::SYN) => Flags::SYN | Flags::ACK,
            flags if flags.contains(Flags::FIN) => Flags::FIN | Flags::ACK,
            _ => Flags::ACK,
        };
        // Some hosts have much to say, and go on when they hear no more.
        let count = if self.traffic.dice.permille(50) { self.traffic.dice.between(2, 12) } else { 1 };
        let mut after = self.traffic.dice.micros(5, 400);
        for _ in 0..count {
            let len = self.traffic.dice.between(SEGMENT_LEN_MIN as u64, 1_200) as usize;
            self.host_sends(member, Segment { to_service: false, flags, len, ..segment }, after);
            after += self.traffic.dice.micros(100, 60_000);
        }
    }

    /// The application host behind a member sends a segment on a client's connection.
    pub fn host_speaks(&mut self, member: MemberId, client: usize, port: u16) {
        let Some(at) = self.clients.get(client) else { return };
        let client = (at.address(), port);
        let segment = Segment { tag: 0, client, to_service: false, flags: Flags::ACK, len: 200 };
        self.host_sends(member, segment, Duration::ZERO);
    }

    fn host_sends(&mut self, member: MemberId, segment: Segment, after: Duration) {
        let tag = self.traffic.tag();
        self.send_from_host(member, &Segment { tag, ..segment }, after);
    }
}
