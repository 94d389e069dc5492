//! A client: an IP stack, an IKE initiator, and the SAs that it has agreed on. It speaks real IKE and real ESP.

use core::net::{IpAddr, SocketAddr};

use control::stack::{MacAddress, PortAddress, PortSettings, Stack, StackSettings};
use datapath::routes::PortId;
use ike::config::EndpointConfig;
use ike::event::{ChildUp, SendFrom};
use ike::{Datagram, Endpoint, Event};
use ipsec::Spi;
use ipsec::engine::{self, Engine, EngineChoice};
use ipsec::inbound::{InboundSa, InboundShared};
use ipsec::iv::{IvGenerator, SenderNumber};
use ipsec::outbound::{OutboundSa, OutboundShared, OuterPolicy, Overhead};
use ipsec::time::Instant;
use wire::{ipv4, protocol};

use crate::appliance::StartFault;
use crate::dice::Dice;
use crate::packet::{framed, ip_of};
use crate::place::{DVIPA, MTU, client_address, client_mac};
use crate::topology::{Topology, secrets};

/// IVs of a client's own; its keys are nobody else's.
const SENDER: SenderNumber = SenderNumber(7);
const PORT: PortId = PortId(0);

/// One CHILD_SA, seen from the client.
struct Child {
    inbound: InboundSa,
    outbound: OutboundSa,
    spi: Spi,
    /// RFC 7296 §2.8: whoever answered a rekeying sends on the new SA once the peer has used it, or deleted the old.
    may_send: bool,
    replaces: Option<Spi>,
}

/// An inner packet, sealed.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The frame, addressed to whoever owns the address now.
    pub frame: Vec<u8>,
    /// The SA that it went by: the cluster's SPI.
    pub spi: Spi,
    /// Its number there.
    pub sequence: u64,
}

/// What a client took out of a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// An inner packet, and the SA by which it came: the client's SPI, and the number.
    Inner(Vec<u8>),
    /// ESP that does not open: of an SA that is gone, or outside its window.
    Refused,
    /// Something for its IP stack.
    Other,
}

/// A client.
pub struct Client {
    number: usize,
    stack: Stack,
    ike: Endpoint,
    engine: Engine,
    children: Vec<Child>,
    ivs: IvGenerator,
    /// The link address that it has last resolved the DVIPA to.
    gateway: Option<MacAddress>,
    /// When it tries again to connect.
    connect_at: Option<Instant>,
    /// What became of its SAs: up, down.
    pub counts: (u64, u64),
}

impl Client {
    /// A client that has not connected.
    ///
    /// # Errors
    /// Settings that IKE or the stack refuse.
    pub fn new(now: Instant, number: usize, topology: &Topology, dice: &mut Dice) -> Result<Client, StartFault> {
        let address = client_address(number);
        let link = PortSettings {
            id: PORT,
            mac: client_mac(number),
            addresses: PortAddress::new(address.into(), 24).into_iter().collect(),
            mtu: MTU,
            vlan: None,
            neighbours: vec![],
        };
        let settings = StackSettings { ports: vec![link], ..StackSettings::default() };
        let mut config = EndpointConfig::default();
        // A simulation is short.
        config.timing.retransmission.first = RECONNECT_AFTER;
        let mut ike = Endpoint::new(config, dice.bytes());
        ike.set_connections(vec![topology.client(number, address.into()).check()?], secrets());
        Ok(Client {
            number,
            stack: Stack::new(now, settings, dice.bytes())?,
            ike,
            engine: engine::select(EngineChoice::Auto)?.engine,
            children: Vec::new(),
            ivs: IvGenerator::new(SENDER),
            gateway: None,
            connect_at: Some(now),
            counts: (0, 0),
        })
    }

    /// The same client, which does not begin to connect before that.
    #[must_use]
    pub fn waiting(self, until: Instant) -> Client {
        Client { connect_at: Some(until), ..self }
    }

    /// Its own address.
    #[must_use]
    pub fn address(&self) -> core::net::Ipv4Addr {
        client_address(self.number)
    }

    /// Whether it could send.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.gateway.is_some() && self.children.iter().any(|child| child.may_send)
    }

    /// How many SAs it holds.
    #[must_use]
    pub fn sas(&self) -> usize {
        self.children.len()
    }

    /// When it has something to do by itself.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.stack.poll_timeout(), self.ike.poll_timeout(), self.connect_at].into_iter().flatten().min()
    }

    /// Takes a frame in.
    pub fn handle_frame(&mut self, now: Instant, frame: &[u8]) -> Received {
        let ip = ip_of(frame).and_then(|packet| ipv4::Packet::new_checked(packet).ok());
        if let Some(ip) = ip.filter(|ip| ip.protocol() == protocol::ESP) {
            return self.open(&mut ip.payload().to_vec());
        }
        self.stack.handle_frame(now, PORT, frame);
        Received::Other
    }

    /// Does what is due; [`Client::poll_transmit`] has the frames of it.
    pub fn run(&mut self, now: Instant) {
        if self.connect_at.is_some_and(|at| at <= now) {
            self.connect_at = None;
            let local = SocketAddr::new(IpAddr::V4(self.address()), 500);
            if self.ike.initiate(now, "home", "web", local, SocketAddr::new(DVIPA.into(), 500)).is_err() {
                self.connect_at = Some(now + RECONNECT_AFTER);
            }
        }
        self.stack.handle_timeout(now);
        self.ike.handle_timeout(now);
        while let Some(datagram) = self.stack.poll_datagram() {
            let (local, remote) = (datagram.local, datagram.remote);
            self.ike.handle_datagram(now, &Datagram::new(local, remote, datagram.payload));
        }
        while let Some(event) = self.ike.poll_event() {
            self.follow(now, event);
        }
        while let Some(datagram) = self.ike.poll_transmit() {
            self.stack.send_datagram(now, datagram.local, datagram.remote, &datagram.payload);
        }
        while let Some(change) = self.stack.poll_neighbour() {
            if change.address == IpAddr::V4(DVIPA) {
                self.gateway = change.mac;
            }
        }
        while self.stack.poll_event().is_some() {}
    }

    /// The next frame that it sends.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        self.stack.poll_transmit().map(|(_, frame)| frame)
    }

    fn follow(&mut self, now: Instant, event: Event) {
        match event {
            Event::ChildUp(up) => self.install(*up),
            Event::ChildDown { inbound, .. } => {
                self.children.retain(|child| child.spi != inbound);
                let successors = self.children.iter_mut().filter(|child| child.replaces == Some(inbound));
                successors.for_each(|child| child.may_send = true);
                self.counts.1 += 1;
                if self.children.is_empty() {
                    self.connect_at = Some(now + RECONNECT_AFTER);
                }
            }
            Event::IkeDown { .. } | Event::InitiationFailed { .. } => self.connect_at = Some(now + RECONNECT_AFTER),
            Event::IkeUp(_)
            | Event::IkeRekeyed { .. }
            | Event::RekeyFailed { .. }
            | Event::SiblingRefused { .. }
            | Event::Refused { .. }
            | Event::AddressMoved { .. } => {}
        }
    }

    fn install(&mut self, up: ChildUp) {
        let spi = up.children.inbound.spi;
        let (inbound, outbound) = (
            InboundShared::new(up.children.inbound, self.engine, 1),
            OutboundShared::new(up.children.outbound, self.engine, SENDER),
        );
        let (Ok(inbound), Ok(outbound)) = (inbound, outbound) else { return };
        let outbound = OutboundSa::new(outbound, 1, OuterPolicy::default());
        let may_send = up.send == SendFrom::Now;
        let inbound = InboundSa::new(inbound);
        self.children.push(Child { inbound, outbound, spi, may_send, replaces: up.replaces });
        self.counts.0 += 1;
    }

    fn open(&mut self, esp: &mut [u8]) -> Received {
        let spi = esp.first_chunk().copied().and_then(Spi::from_be_bytes);
        let child = self.children.iter_mut().find(|child| Some(child.spi) == spi);
        let Some(child) = child else { return Received::Refused };
        match child.inbound.open(esp) {
            Ok(opened) => {
                child.may_send = true;
                Received::Inner(esp[opened.inner].to_vec())
            }
            Err(_) => Received::Refused,
        }
    }

    /// Seals an inner packet on an SA that may be used: the newest, or, `back` steps before it, an older one.
    pub fn seal(&mut self, inner: &[u8], back: usize) -> Option<Sealed> {
        let gateway = self.gateway?;
        let usable: Vec<usize> = (0..self.children.len()).rev().filter(|&at| self.children[at].may_send).collect();
        let at = *usable.get(back.min(usable.len().saturating_sub(1)))?;
        let child = &mut self.children[at];
        let Overhead { before, after } = child.outbound.shared().overhead(inner.len());
        let mut packet = vec![0; before + inner.len() + after];
        packet[before..before + inner.len()].copy_from_slice(inner);
        let sequence = child.outbound.next_sequence();
        let _ = child.outbound.encapsulate(&mut self.ivs, &mut packet, inner.len()).ok()?;
        let spi = child.outbound.shared().parameters().spi;
        Some(Sealed { frame: framed(client_mac(self.number), gateway, &packet), spi, sequence })
    }

    /// Replaces its newest SA.
    pub fn rekey(&mut self, now: Instant) {
        if let Some(child) = self.children.last() {
            let _ = self.ike.rekey_child(now, child.spi);
        }
    }

    /// Leaves numbers out, as a client does that has sent them elsewhere.
    pub fn skip_numbers(&mut self, count: u64) {
        if let Some(child) = self.children.iter_mut().rev().find(|child| child.may_send) {
            let next = child.outbound.next_sequence();
            child.outbound.start_at(next + count);
        }
    }
}

/// How long a client waits before it begins anew.
const RECONNECT_AFTER: core::time::Duration = core::time::Duration::from_millis(200);
