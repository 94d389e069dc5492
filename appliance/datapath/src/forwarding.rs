//! The last step of every packet: a route, a neighbour, an Ethernet header, a place in a port's backlog.

use crate::buffer::{PacketBuffer, PortQueue};
use crate::burst::{Burst, Drops};
use crate::counters::{Counter, Ledger};
use crate::drops::DropReason;
use crate::routes::{NextHop, PortId, RouteTable};
use core::net::IpAddr;
use std::collections::HashMap;
use std::sync::Arc;
use wire::ethernet::{self, EtherType, VlanTag};

pub use wire::ethernet::MacAddress as Mac;

/// How many neighbours a core knows at most. The control core's table is smaller; this bound is never met.
const NEIGHBOURS: usize = 4096;

/// What a port is for (DESIGN §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRole {
    /// Untrusted, towards clients.
    Network,
    /// Towards the application hosts.
    Inside,
    /// Towards the other members of the cluster; nothing else may be on it.
    Trusted,
}

impl PortRole {
    /// The word of the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            PortRole::Network => "network",
            PortRole::Inside => "inside",
            PortRole::Trusted => "trusted",
        }
    }
}

/// What a core has to know of a port.
#[derive(Debug, Clone, Copy)]
pub struct PortFacts {
    /// Its number in the configuration.
    pub id: PortId,
    /// What it is for.
    pub role: PortRole,
    /// Its link address.
    pub mac: Mac,
    /// The longest IP packet it sends.
    pub mtu: usize,
    /// The 802.1Q VLAN that its traffic is in, if any.
    pub vlan: Option<u16>,
}

/// One core's queue pair on one port, with what waits to be sent.
#[derive(Debug)]
pub struct CorePort<Q: PortQueue> {
    /// The port itself.
    pub facts: PortFacts,
    queue: Q,
    /// Packets that came in and go out here.
    passing: Burst<Q::Buffer>,
    /// Frames that this appliance made.
    originated: Burst<Q::Buffer>,
}

impl<Q: PortQueue> CorePort<Q> {
    /// A queue pair with nothing waiting.
    pub fn new(facts: PortFacts, queue: Q) -> Self {
        CorePort { facts, queue, passing: Burst::new(), originated: Burst::new() }
    }

    /// What has arrived; counted as received.
    pub fn receive(&mut self, ledger: &Ledger) -> Burst<Q::Buffer> {
        let mut burst = Burst::new();
        self.queue.receive(&mut burst);
        if !burst.is_empty() {
            ledger.received.add(burst.len() as u64);
        }
        burst
    }

    /// Fresh memory for a frame that this appliance makes.
    pub fn spare(&mut self, len: usize) -> Option<Q::Buffer> {
        self.queue.spare(len)
    }

    /// Puts a finished frame into the backlog and sends when the backlog is a full burst.
    fn push(&mut self, frame: Q::Buffer, ledger: &Ledger, drops: &mut Drops) {
        self.passing.push(frame);
        if self.passing.is_full() {
            self.flush_passing(ledger, drops);
        }
    }

    /// Puts a frame that this appliance made into its backlog.
    pub fn push_originated(&mut self, frame: Q::Buffer, ledger: &Ledger) {
        self.originated.push(frame);
        if self.originated.is_full() {
            self.flush_originated(ledger);
        }
    }

    /// Sends both backlogs; what the port has no room for is dropped and counted. Both are empty afterwards.
    pub fn flush(&mut self, ledger: &Ledger, drops: &mut Drops) {
        if !self.originated.is_empty() {
            self.flush_originated(ledger);
        }
        if !self.passing.is_empty() {
            self.flush_passing(ledger, drops);
        }
    }

    fn flush_passing(&mut self, ledger: &Ledger, drops: &mut Drops) {
        let end = match self.facts.role {
            PortRole::Network => &ledger.forwarded,
            PortRole::Inside => &ledger.delivered,
            PortRole::Trusted => &ledger.relayed,
        };
        transmit(&mut self.queue, &mut self.passing, end);
        drops.end_all(&mut self.passing, DropReason::TxFull);
    }

    fn flush_originated(&mut self, ledger: &Ledger) {
        transmit(&mut self.queue, &mut self.originated, &ledger.originated);
        ledger.originated_lost.add(self.originated.len() as u64);
        self.originated.clear();
    }
}

fn transmit<Q: PortQueue>(queue: &mut Q, burst: &mut Burst<Q::Buffer>, sent: &Counter) {
    let before = burst.len();
    queue.transmit(burst);
    sent.add((before - burst.len()) as u64);
}

/// Routes and neighbours as one core knows them.
#[derive(Debug)]
pub struct Forwarding {
    routes: Arc<RouteTable>,
    neighbours: HashMap<NextHop, Mac>,
    /// The last destination looked up: packets of one burst mostly go the same way.
    last: Option<(IpAddr, PortId, Mac)>,
}

impl Forwarding {
    /// Knows `routes` and no neighbour yet.
    pub fn new(routes: Arc<RouteTable>) -> Forwarding {
        Forwarding { routes, neighbours: HashMap::with_capacity(NEIGHBOURS), last: None }
    }

    /// Takes new routes; the old ones go back to whoever frees them.
    pub fn replace_routes(&mut self, routes: Arc<RouteTable>) -> Arc<RouteTable> {
        self.last = None;
        std::mem::replace(&mut self.routes, routes)
    }

    /// A neighbour's link address has become known, has changed, or (with `None`) is no longer known.
    pub fn set_neighbour(&mut self, hop: NextHop, mac: Option<Mac>) {
        self.last = None;
        match mac {
            Some(mac) if self.neighbours.len() < NEIGHBOURS || self.neighbours.contains_key(&hop) => {
                self.neighbours.insert(hop, mac);
            }
            Some(_) => {}
            None => {
                self.neighbours.remove(&hop);
            }
        }
    }

    /// The way to `destination`.
    ///
    /// # Errors
    /// The reason to drop for, and the next hop that should be resolved where that is what is missing.
    pub fn way(&mut self, destination: IpAddr) -> Result<(PortId, Mac), (DropReason, Option<NextHop>)> {
        if let Some((known, port, mac)) = self.last
            && known == destination
        {
            return Ok((port, mac));
        }
        let hop = self.routes.lookup(destination).ok_or((DropReason::NoRoute, None))?;
        let mac = *self.neighbours.get(&hop).ok_or((DropReason::NeighbourUnresolved, Some(hop)))?;
        self.last = Some((destination, hop.port, mac));
        Ok((hop.port, mac))
    }
}

/// How a finished IP packet leaves: [`send`] or [`send_made`].
pub type Send<Q> = fn(&mut CorePort<Q>, <Q as PortQueue>::Buffer, Mac, &Ledger, &mut Drops);

/// Writes the Ethernet header before an IP packet and puts the frame into the port's backlog.
pub fn send<Q: PortQueue>(port: &mut CorePort<Q>, mut packet: Q::Buffer, to: Mac, ledger: &Ledger, drops: &mut Drops) {
    match frame(&port.facts, &mut packet, to) {
        Ok(()) => port.push(packet, ledger, drops),
        Err(reason) => drops.end(packet, reason),
    }
}

/// The same for a packet that this core made.
pub fn send_made<Q: PortQueue>(
    port: &mut CorePort<Q>,
    mut packet: Q::Buffer,
    to: Mac,
    ledger: &Ledger,
    drops: &mut Drops,
) {
    match frame(&port.facts, &mut packet, to) {
        Ok(()) => {
            ledger.made_sent.add(1);
            port.push_originated(packet, ledger);
        }
        Err(reason) => drops.end(packet, reason),
    }
}

fn frame<B: PacketBuffer>(facts: &PortFacts, packet: &mut B, to: Mac) -> Result<(), DropReason> {
    if packet.bytes().len() > facts.mtu {
        return Err(DropReason::TooBig);
    }
    let is_ipv6 = packet.bytes().first().is_some_and(|byte| byte >> 4 == 6);
    let header = ethernet::Repr {
        dst: to,
        src: facts.mac,
        vlan: facts.vlan.map(VlanTag::new),
        ether_type: if is_ipv6 { EtherType::Ipv6 } else { EtherType::Ipv4 },
    };
    if !packet.prepend(header.buffer_len()) {
        return Err(DropReason::NoRoom);
    }
    header.emit(&mut ethernet::Packet::new_unchecked(packet.bytes_mut()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::Ipv4Addr;

    fn hop(number: u32) -> NextHop {
        NextHop { port: PortId(0), address: Ipv4Addr::from_bits(0x0a00_0000 + number).into() }
    }

    #[test]
    fn a_full_neighbour_table_refuses_newcomers_and_goes_on_learning_of_those_it_knows() {
        let connected = [("10.0.0.0/8".parse().unwrap(), PortId(0))];
        let mut forwarding = Forwarding::new(Arc::new(RouteTable::new(&connected, &[]).unwrap()));
        for number in 0..NEIGHBOURS as u32 + 1 {
            forwarding.set_neighbour(hop(number), Some(Mac([2; 6])));
        }
        let newcomer = hop(NEIGHBOURS as u32);
        assert_eq!(forwarding.way(newcomer.address), Err((DropReason::NeighbourUnresolved, Some(newcomer))));
        forwarding.set_neighbour(hop(5), Some(Mac([4; 6])));
        assert_eq!(forwarding.way(hop(5).address), Ok((PortId(0), Mac([4; 6]))));
        forwarding.set_neighbour(hop(6), None);
        forwarding.set_neighbour(newcomer, Some(Mac([6; 6])));
        assert_eq!(forwarding.way(newcomer.address), Ok((PortId(0), Mac([6; 6]))));
    }
}
