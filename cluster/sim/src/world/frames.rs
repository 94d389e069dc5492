//! Frames on their way.

use core::time::Duration;
use std::collections::VecDeque;

use cluster::frame::{self, HEADER_LEN, Kind, Repr};
use cluster::id::{Epoch, Incarnation, MemberId, Serial};
use datapath::routes::PortId;
use wire::ethernet;
use wire::{ipv4, protocol};

use super::{Happening, World};
use crate::client::Received;
use crate::model::Delivery;
use crate::packet::{Segment, framed, ip_of};
use crate::place::{BROADCAST, DVIPA, INSIDE, NETWORK, TRUSTED, client_of, host_mac, member_of, port_mac};
use crate::plant::Plant;

/// Frames that attackers remember.
const CAPTURED_MAX: usize = 8_192;

/// Which frames of the trusted link a scenario keeps back for the time being.
#[derive(Debug, Default)]
pub struct Hold {
    /// From whom, to whom, of which kind; none holds nothing.
    pub which: Option<(MemberId, MemberId, Kind)>,
    /// Whether they also arrive at once.
    pub copies: bool,
    /// Those that are kept.
    pub frames: VecDeque<(MemberId, Vec<u8>)>,
}

/// The frame between members that an Ethernet frame holds.
fn member_frame(bytes: &[u8]) -> Option<frame::Frame> {
    frame::find(ip_of(bytes)?).ok()
}

impl World {
    /// Takes what a member has sent, and sees it on its way.
    pub(super) fn carry_away(&mut self, member: MemberId) {
        for port in [NETWORK, INSIDE, TRUSTED] {
            let Some(appliance) = self.nodes.get_mut(&member).and_then(|node| node.appliance.as_mut()) else { return };
            for frame in appliance.collect(port) {
                match port {
                    NETWORK => self.leave_by_network(member, frame),
                    INSIDE => self.leave_by_inside(member, &frame),
                    _ => self.leave_by_trusted(member, &frame),
                }
            }
        }
    }

    fn leave_by_network(&mut self, member: MemberId, frame: Vec<u8>) {
        self.model.left(member, &frame);
        let ip = ip_of(&frame).and_then(|packet| ipv4::Packet::new_checked(packet).ok());
        if let Some(ip) = ip.filter(|ip| ip.protocol() == protocol::ESP)
            && let Ok(esp) = wire::esp::Packet::new_checked(ip.payload())
        {
            self.note(("left", member, esp.spi(), esp.sequence()));
        }
        self.send_on_network(u64::from(member.0), frame);
    }

    /// A frame on the clients' network, from whatever station.
    fn send_on_network(&mut self, from: u64, frame: Vec<u8>) {
        let Ok(header) = ethernet::Packet::new_checked(&frame[..]) else { return };
        let to = header.dst();
        if to == BROADCAST {
            for client in (0..self.clients.len()).filter(|client| from != client_station(*client)) {
                self.send_to_client(from, client, &frame);
            }
            let members: Vec<MemberId> = self.nodes.keys().copied().collect();
            for member in members.into_iter().filter(|member| from != u64::from(member.0)) {
                self.send_to_member(from, member, &frame);
            }
        } else if let Some(client) = client_of(to) {
            self.send_to_client(from, client, &frame);
        } else if let Some(member) = member_of(to, NETWORK) {
            self.send_to_member(from, member, &frame);
        }
    }

    fn send_to_client(&mut self, from: u64, client: usize, frame: &[u8]) {
        for at in self.network.arrivals(self.now, (from, client_station(client)), &mut self.luck) {
            self.schedule(at, Happening::AtClient { client, frame: frame.to_vec() });
        }
    }

    fn send_to_member(&mut self, from: u64, member: MemberId, frame: &[u8]) {
        let core = spread(frame);
        for at in self.network.arrivals(self.now, (from, member.0.into()), &mut self.luck) {
            self.schedule(at, Happening::AtMember { member, port: NETWORK, core, frame: frame.to_vec() });
        }
    }

    /// A client sends a frame, and whoever listens has it too.
    pub fn send_from_client(&mut self, client: usize, frame: Vec<u8>) {
        self.capture(&frame);
        self.send_on_network(client_station(client), frame);
    }

    fn capture(&mut self, frame: &[u8]) {
        let ip = ip_of(frame).and_then(|packet| ipv4::Packet::new_checked(packet).ok());
        let is_esp = ip.is_some_and(|ip| ip.protocol() == protocol::ESP && ip.dst() == DVIPA);
        if is_esp && self.captured.len() < CAPTURED_MAX {
            self.captured.push(frame.to_vec());
        }
    }

    /// An attacker lays a frame into a member's network port.
    pub fn attack(&mut self, member: MemberId, core: usize, mut frame: Vec<u8>) {
        ethernet::Packet::new_unchecked(&mut frame[..]).set_dst(port_mac(member, NETWORK));
        let at = self.now + self.luck.micros(10, 400);
        self.attacks += 1;
        self.note(("attack", member, frame.len()));
        self.schedule(at, Happening::AtMember { member, port: NETWORK, core, frame });
    }

    fn leave_by_inside(&mut self, member: MemberId, frame: &[u8]) {
        let Some(segment) = ip_of(frame).and_then(Segment::parse) else { return };
        let Some(appliance) = self.nodes.get(&member).and_then(|node| node.appliance.as_ref()) else { return };
        let Some(view) = appliance.control.member() else { return };
        let epoch = view.dvipas().first().map_or(Epoch(0), |dvipa| dvipa.epoch);
        let at = Delivery { now: self.now, target: member, incarnation: view.incarnation(), epoch };
        self.model.delivered(&at, &segment);
        self.note(("delivered", member, segment.tag));
        tracing::info!(at = %self.now, %member, tag = segment.tag, client = ?segment.client, "SIM delivered");
        self.host_got(member, segment);
    }

    /// An application host sends a segment to its member.
    pub(super) fn send_from_host(&mut self, member: MemberId, segment: &Segment, after: Duration) {
        self.model.answered(segment);
        let frame = framed(host_mac(member), port_mac(member, INSIDE), &segment.emit());
        let core = usize::from(segment.client.1);
        self.schedule(self.now + after, Happening::AtMember { member, port: INSIDE, core, frame });
    }

    fn leave_by_trusted(&mut self, from: MemberId, frame: &[u8]) {
        let Ok(header) = ethernet::Packet::new_checked(frame) else { return };
        let to = header.dst();
        let known = member_frame(frame);
        if let Some(found) = &known
            && found.repr.kind.is_from_owner()
        {
            self.model.owns(from, found.repr.epoch);
        }
        let to: Vec<MemberId> = match member_of(to, TRUSTED) {
            Some(member) => vec![member],
            None if to == BROADCAST => self.nodes.keys().copied().filter(|member| *member != from).collect(),
            None => Vec::new(),
        };
        for member in to {
            if let Some(found) = &known
                && self.hold.which == Some((from, member, found.repr.kind))
            {
                self.hold.frames.push_back((member, frame.to_vec()));
                if !self.hold.copies {
                    continue;
                }
            }
            if known.is_some() || !self.speechless.contains(&(from, member)) {
                self.send_on_trusted(from, member, frame);
            }
        }
    }

    fn send_on_trusted(&mut self, from: MemberId, member: MemberId, frame: &[u8]) {
        if self.cut.contains(&(from, member)) {
            return;
        }
        let core = spread(frame);
        for at in self.trusted.arrivals(self.now, (from.0.into(), member.0.into()), &mut self.luck) {
            self.schedule(at, Happening::AtMember { member, port: TRUSTED, core, frame: frame.to_vec() });
        }
    }

    /// Lets go of all frames that were kept back, to arrive within a millisecond; how many.
    pub fn release_held(&mut self) -> usize {
        self.hold.which = None;
        let held = core::mem::take(&mut self.hold.frames);
        let count = held.len();
        for (member, frame) in held {
            let at = self.now + self.luck.micros(10, 1_000);
            let core = spread(&frame);
            self.schedule(at, Happening::AtMember { member, port: TRUSTED, core, frame });
        }
        count
    }

    pub(super) fn arrive(&mut self, member: MemberId, port: PortId, core: usize, mut frame: Vec<u8>) {
        if port == TRUSTED {
            self.rewrite(member, &mut frame);
        }
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&member) else { return };
        if let Some(appliance) = &mut node.appliance {
            appliance.inject(port, core, &frame);
            node.wake = now;
        }
    }

    pub(super) fn arrive_at_client(&mut self, client: usize, frame: &[u8]) {
        let now = self.now;
        let Some(at) = self.clients.get_mut(client) else { return };
        match at.handle_frame(now, frame) {
            Received::Inner(packet) => {
                if let Some(segment) = Segment::parse(&packet) {
                    self.model.received(&segment);
                    self.note(("received", client, segment.tag));
                }
            }
            Received::Refused => self.note(("refused", client)),
            Received::Other => {}
        }
    }

    pub(super) fn run_clients(&mut self) {
        for client in 0..self.clients.len() {
            let now = self.now;
            let at = &mut self.clients[client];
            at.run(now);
            let frames: Vec<_> = core::iter::from_fn(|| at.poll_transmit()).collect();
            for frame in frames {
                self.send_from_client(client, frame);
            }
        }
    }

    /// Breaks a rule on the trusted wire: a frame says what lets its receiver take it.
    fn rewrite(&self, member: MemberId, frame: &mut [u8]) {
        let Some(plant) = self.plant else { return };
        let Some(found) = member_frame(frame) else { return };
        let repr = match plant {
            Plant::Floor => Repr { floor: 0, ..found.repr },
            Plant::Serial => Repr { serial: Serial(u64::MAX), ..found.repr },
            Plant::Incarnation if found.repr.kind.is_from_owner() => {
                Repr { incarnation: self.incarnation_of(member), ..found.repr }
            }
            _ => return,
        };
        let start = ethernet::HEADER_LEN + found.payload.start - HEADER_LEN;
        repr.emit(&mut frame::Packet::new_unchecked(&mut frame[start..start + HEADER_LEN]));
    }

    /// The start under which a member serves.
    #[must_use]
    pub fn incarnation_of(&self, member: MemberId) -> Incarnation {
        let appliance = self.nodes.get(&member).and_then(|node| node.appliance.as_ref());
        let view = appliance.and_then(|appliance| appliance.control.member());
        view.map_or(Incarnation(0), |view| view.incarnation())
    }
}

/// A client as a station of its network; members have lower numbers.
const fn client_station(client: usize) -> u64 {
    1_000 + client as u64
}

/// The queue that a network card would choose: by the outer addresses and what follows them.
fn spread(frame: &[u8]) -> usize {
    let bytes = frame.get(26..38).unwrap_or_default();
    bytes.iter().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(*byte))) >> 2
}
