//! Whole datagrams into an IKE endpoint: from strangers, from a peer half let in, from an authenticated peer gone mad.
//!
//! The input chooses where to begin and is then a script: raw datagrams, protected requests and responses with arbitrary
//! payloads under the right keys, replays, damage, commands of the owner, time. What must hold is checked by
//! [`World`] at every step, and at the end a shutdown must leave nothing behind.

#![no_main]

use std::time::Duration;

use ike::config::Timing;
use ike::message::payload::PayloadKind;
use ike::message::{ExchangeType, HEADER_LEN};
use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::ike_peer::{World, identity_in, lay_out};
use phalanx_fuzz::split;

const STEPS_MAX: usize = 24;

fuzz_target!(|data: &[u8]| {
    let Some(([beginning], mut script)) = split::<1>(data) else { return };
    let mut run = match beginning % 4 {
        0 => Run::new(World::new(), false),
        1 => Run::new(World::half_open(beginning & 4 != 0), true),
        _ => Run::new(World::established(beginning & 4 != 0), true),
    };
    for _ in 0..STEPS_MAX {
        let Some(([kind, a, b, len], rest)) = split::<4>(script) else { break };
        let (content, rest) = rest.split_at(usize::from(len).min(rest.len()));
        script = rest;
        run.step(kind, a, b, content);
    }
    run.shut_down();
});

struct Run {
    world: World,
    has_keys: bool,
    /// The peer has proven itself, so the endpoint may know it.
    is_proven: bool,
    last: Vec<u8>,
}

impl Run {
    fn new(world: World, has_keys: bool) -> Self {
        let is_proven = world.is_up;
        Self { world, has_keys, is_proven, last: Vec::new() }
    }

    fn step(&mut self, kind: u8, a: u8, b: u8, content: &[u8]) {
        match (kind % 10, self.has_keys) {
            (0, _) => self.raw(a, content),
            (1 | 2, true) => self.request(a, b, content),
            (3, true) => self.response(a, b, content),
            (4, true) => self.odd_request(a, b, content),
            (5, _) => self.command(a, b),
            (6, true) => self.again(a, b),
            (6 | 7, _) => self.pass(a, b),
            (8, true) => self.fragments(a, b, content),
            (9, true) => self.odd_fragment(a, b, content),
            (_, false) => self.raw(a, content),
            (10.., true) => unreachable!("a remainder of ten"),
        }
        assert!(self.is_proven || !self.world.is_up, "a stranger was let in");
    }

    fn raw(&mut self, a: u8, content: &[u8]) {
        let mut datagram = content.to_vec();
        if a & 1 != 0 && datagram.len() >= HEADER_LEN {
            // Put right what most mutations break: version and length, and the SPIs that find our IKE SA.
            datagram[17] = 0x20;
            datagram[24..28].copy_from_slice(&(content.len() as u32).to_be_bytes());
            if a & 2 != 0 && self.last.len() >= HEADER_LEN {
                datagram[..16].copy_from_slice(&self.last[..16]);
            }
        }
        self.world.hand_in(datagram);
    }

    fn exchange(a: u8) -> ExchangeType {
        match a % 5 {
            0 => ExchangeType::IkeAuth,
            1 | 2 => ExchangeType::CreateChildSa,
            3 => ExchangeType::Informational,
            _ => ExchangeType::from_number(a),
        }
    }

    /// A payload chain of the input's making; with `b & 2`, our right proof for the identity in it.
    fn chain(&mut self, b: u8, content: &[u8]) -> (u8, Vec<u8>) {
        let (first, mut chain) = match content.split_first() {
            Some((first, chain)) if b & 1 != 0 => (*first, chain.to_vec()),
            _ => lay_out(content),
        };
        if b & 2 == 0 {
            return (first, chain);
        }
        let Some(id) = identity_in(first, &chain) else { return (first, chain) };
        self.is_proven = true;
        let auth = self.world.auth(id);
        // In front of all others, so that no length needs to change.
        let mut proven = vec![first, 0];
        proven.extend(((4 + 4 + auth.len()) as u16).to_be_bytes());
        proven.extend([2, 0, 0, 0]);
        proven.extend(auth);
        proven.append(&mut chain);
        (PayloadKind::Auth.number(), proven)
    }

    fn request(&mut self, a: u8, b: u8, content: &[u8]) {
        let (first, chain) = self.chain(b, content);
        self.last = self.world.request(Self::exchange(a), first, &chain);
    }

    /// A request in up to eight fragments: in order or backwards, one of them twice or not at all.
    fn fragments(&mut self, a: u8, b: u8, content: &[u8]) {
        let (first, chain) = self.chain(b & 3, content);
        let count = usize::from(b >> 2 & 7) + 1;
        let parts: Vec<&[u8]> = chain.chunks(chain.len().div_ceil(count).max(1)).collect();
        let total = parts.len() as u16;
        let mut numbers: Vec<u16> = (1..=total).collect();
        match b >> 5 {
            0 | 1 => {}
            2 | 3 => numbers.reverse(),
            4 | 5 => numbers.extend_from_within(..numbers.len().min(1)),
            _ => drop(numbers.pop()),
        }
        let message_id = self.world.next_request;
        for number in numbers {
            let first = if number == 1 { first } else { 0 };
            let part = parts[usize::from(number) - 1];
            let fragment = Some((number, total));
            self.last = self.world.seal_part(Self::exchange(a), false, message_id, first, fragment, part);
            self.world.hand_in(self.last.clone());
        }
        self.world.spend_answered();
    }

    /// One fragment that says of itself whatever the input likes.
    fn odd_fragment(&mut self, a: u8, b: u8, content: &[u8]) {
        let message_id = self.world.next_request;
        let fragment = Some((u16::from(b & 15), u16::from(b >> 4)));
        self.last = self.world.seal_part(Self::exchange(a), false, message_id, a, fragment, content);
        self.world.hand_in(self.last.clone());
        self.world.spend_answered();
    }

    /// An answer to the oldest request of the endpoint that has none.
    fn response(&mut self, a: u8, b: u8, content: &[u8]) {
        if self.world.unanswered.is_empty() {
            return self.pass(a, b);
        }
        let message_id = self.world.unanswered.remove(0);
        let (first, chain) = self.chain(b & 1, content);
        self.last = self.world.seal(Self::exchange(a), true, message_id, first, &chain);
        self.world.hand_in(self.last.clone());
    }

    /// A request with another message ID than the next.
    fn odd_request(&mut self, a: u8, b: u8, content: &[u8]) {
        let message_id = self.world.next_request.wrapping_add_signed(i32::from(b as i8));
        let (first, chain) = self.chain(0, content);
        self.last = self.world.seal(Self::exchange(a), a & 0x80 != 0, message_id, first, &chain);
        self.world.hand_in(self.last.clone());
    }

    /// The last protected message again: whole, or with a bit of its protected part flipped, which must do nothing.
    fn again(&mut self, a: u8, b: u8) {
        let mut message = self.last.clone();
        let bits = message.len().saturating_sub(HEADER_LEN + 4) * 8;
        if a & 1 == 0 || bits == 0 {
            self.world.hand_in(message);
            return;
        }
        let bit = (HEADER_LEN + 4) * 8 + usize::from(u16::from_be_bytes([a, b])) % bits;
        message[bit / 8] ^= 1 << (bit % 8);
        let before = (self.world.endpoint.occupancy().ike_sas, self.world.children.clone());
        let sent = self.world.hand_in(message);
        assert!(sent.is_empty(), "a forged message was answered");
        assert_eq!((self.world.endpoint.occupancy().ike_sas, self.world.children.clone()), before);
    }

    fn command(&mut self, a: u8, b: u8) {
        let Some(child) = self.world.children.iter().nth(usize::from(b) % 4).copied() else { return };
        let (endpoint, now) = (&mut self.world.endpoint, self.world.now);
        if a >= 232 {
            // Refused if one is under way, or there is no room, or the peer takes none.
            if endpoint.add_sibling(now, child).is_ok() {
                assert!(self.world.wishes.insert(child));
            }
            self.world.drain();
            return;
        }
        let done = match a % 6 {
            0 => endpoint.rekey_child(now, child),
            1 => endpoint.rekey_ike(now, child),
            2 => endpoint.delete_child(now, child),
            3 => endpoint.child_expired(now, child),
            4 => endpoint.peer_heard(now, child, now),
            _ => endpoint.peer_moved(now, child, ([198, 51, 100, a], u16::from(b)).into()),
        };
        assert_eq!(done, Ok(()), "it is one of its own");
        self.world.drain();
    }

    /// From a millisecond to half a day, in the steps that the endpoint asks for.
    fn pass(&mut self, a: u8, b: u8) {
        let end = self.world.now + Duration::from_millis(u64::from(a) << (b % 20));
        for _ in 0..64 {
            let Some(next) = self.world.endpoint.poll_timeout().filter(|next| *next < end) else { break };
            self.world.pass(next.saturating_since(self.world.now));
        }
        self.world.pass(end.saturating_since(self.world.now));
    }

    /// Whatever happened before, a shutdown ends in time, and everything that came up has gone down.
    fn shut_down(&mut self) {
        self.world.endpoint.initiate_shutdown(self.world.now);
        self.world.drain();
        self.world.pass(Timing::default().shutdown);
        assert!(self.world.endpoint.is_idle(), "{:?}", self.world.endpoint.occupancy());
        assert!(self.world.children.is_empty(), "CHILD_SAs outlived their endpoint");
        assert!(self.world.wishes.is_empty(), "wishes without an answer");
        let occupancy = self.world.endpoint.occupancy();
        assert_eq!((occupancy.esp_spis, occupancy.ike_spis), (0, 0), "SPIs leaked");
    }
}
