//! An IKE SA whose peer has been authenticated.
//!
//! One can only be made from an [`Authenticated`](crate::exchange::auth::Authenticated), or from the IKE SA that it
//! replaces.

mod request;
mod response;
mod tasks;
mod time;

pub(crate) use tasks::{Active, Request, Task};

use core::net::{IpAddr, SocketAddr};
use std::collections::VecDeque;
use std::sync::Arc;

use ipsec::Spi;
use ipsec::sa::{Encapsulation, PeerId};
use ipsec::selector::{ANY_PROTOCOL, AddressRange, PortRange, Selectors, TrafficSelector};
use ipsec::time::Instant;

use crate::channel::{Channel, Role, Wire};
use crate::child::{Child, ChildState};
use crate::config::{Connection, Identity};
use crate::context::{Context, Estate};
use crate::crypto::Secret;
use crate::event::{DownReason, Event, NATT_PORT};
use crate::exchange::rekey_ike::Rival;
use crate::exchange::sibling::Siblings;
use crate::message::{ExchangeType, Header, IkeSpi, PayloadChain, Spis};
use crate::nat::Nat;
use crate::proposal::IkeSuite;
use crate::window::{Incoming, Outgoing};

/// Whose IKE SA this is. It passes from an IKE SA to the one that replaces it.
pub(crate) struct Lineage {
    pub(crate) peer: PeerId,
    pub(crate) connection: Connection,
    pub(crate) local_id: Identity,
    pub(crate) remote_id: Identity,
    pub(crate) peer_name: Arc<str>,
}

/// Between which addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
    pub(crate) nat: Nat,
}

impl Path {
    /// What of these selectors transport mode can carry: traffic between the two addresses themselves, and none if there
    /// is a NAT between, which changes them on the way.
    pub(crate) fn transport_selectors(&self, selectors: &Selectors) -> Option<Selectors> {
        let only = |address: IpAddr| {
            let addresses = AddressRange::single(address);
            vec![TrafficSelector { addresses, protocol: ANY_PROTOCOL, ports: PortRange::ANY }]
        };
        let hosts = Selectors { local: only(self.local.ip()), remote: only(self.remote.ip()) };
        if self.nat.is_between() { None } else { hosts.narrow(selectors) }
    }

    /// ESP goes in UDP if there is a NAT between, else it is IP protocol 50.
    pub(crate) fn encapsulation(&self) -> Encapsulation {
        if self.nat.is_between() {
            Encapsulation::Udp { local_port: NATT_PORT, remote_port: self.remote.port() }
        } else {
            Encapsulation::None
        }
    }
}

/// What an IKE SA is to its lineage.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// The one in use.
    Current,
    /// The peer made it to replace the one with this SPI, which we are about to replace too: the nonces will tell.
    Contender { old: IkeSpi },
    /// Its children have moved on; whoever replaced it deletes it.
    Replaced,
    /// It lost a collision; whoever made it deletes it.
    Redundant,
}

/// An authenticated IKE SA.
pub(crate) struct IkeSa {
    pub(crate) spis: Spis,
    pub(crate) role: Role,
    pub(crate) suite: IkeSuite,
    pub(crate) d: Secret,
    pub(crate) lineage: Arc<Lineage>,
    pub(crate) path: Path,
    pub(crate) children: Vec<Child>,
    pub(crate) standing: Standing,
    /// The peer's new IKE SA, if it rekeys this one while we do.
    pub(crate) rival: Option<Rival>,
    pub(crate) active: Option<Active>,
    pub(crate) siblings: Siblings,
    pub(crate) born: Instant,
    pub(crate) rekey_at: Option<Instant>,
    rekey_failures: u32,
    channel: Channel,
    incoming: Incoming,
    outgoing: Outgoing,
    queue: VecDeque<Task>,
    expires_at: Option<Instant>,
    probe_at: Option<Instant>,
    keepalive_at: Option<Instant>,
    /// When the peer was last followed to where its ESP came from.
    followed_esp: Option<Instant>,
    /// Where an older IKE SA of the lineage has heard the peer since this one has: requests go there too.
    also_at: Option<(SocketAddr, SocketAddr)>,
    end: Option<DownReason>,
}

/// What a new IKE SA starts with.
pub(crate) struct Birth {
    pub(crate) spis: Spis,
    pub(crate) role: Role,
    pub(crate) suite: IkeSuite,
    pub(crate) d: Secret,
    pub(crate) channel: Channel,
    pub(crate) lineage: Arc<Lineage>,
    pub(crate) path: Path,
    pub(crate) incoming: Incoming,
    pub(crate) outgoing: Outgoing,
}

impl IkeSa {
    pub(crate) fn new(cx: &mut Context, birth: Birth) -> IkeSa {
        let connection = birth.lineage.connection.clone();
        IkeSa {
            spis: birth.spis,
            role: birth.role,
            suite: birth.suite,
            d: birth.d,
            lineage: birth.lineage,
            path: birth.path,
            children: Vec::new(),
            standing: Standing::Current,
            rival: None,
            active: None,
            siblings: Siblings::default(),
            born: cx.now,
            rekey_at: connection.rekey_time.map(|span| cx.now + cx.jittered(span)),
            rekey_failures: 0,
            channel: birth.channel,
            incoming: birth.incoming,
            outgoing: birth.outgoing,
            queue: VecDeque::new(),
            expires_at: connection.over_time.map(|span| cx.now + span),
            probe_at: connection.dpd_delay.map(|span| cx.now + span),
            keepalive_at: birth.path.nat.ours.then(|| cx.now + cx.config.timing.nat_keepalive),
            followed_esp: None,
            also_at: None,
            end: None,
        }
    }

    /// Whether the peer can do with fragments.
    pub(crate) fn fragmentation(&self) -> bool {
        self.channel.fragmentation
    }

    /// Octets of fragments that wait for the rest of their message.
    pub(crate) fn waiting_octets(&self) -> usize {
        self.channel.waiting_octets()
    }

    /// The SPI that we chose.
    pub(crate) fn local_spi(&self) -> IkeSpi {
        match self.role {
            Role::Initiator => self.spis.initiator,
            Role::Responder => self.spis.responder,
        }
    }

    /// Why it is over, once it is.
    pub(crate) fn ended(&self) -> Option<DownReason> {
        self.end
    }

    /// It is over; the first reason counts.
    pub(crate) fn finish(&mut self, reason: DownReason) {
        self.end.get_or_insert(reason);
    }

    fn header(&self, exchange: ExchangeType, is_response: bool, message_id: u32) -> Header {
        let from_initiator = self.role == Role::Initiator;
        Header { spis: self.spis, next_payload: 0, exchange, from_initiator, is_response, message_id }
    }

    /// Seals a message; an IKE SA whose IVs are used up is over.
    fn seal(&mut self, cx: &Context, header: Header, chain: &PayloadChain) -> Option<Wire> {
        match self.channel.seal(header, chain, &cx.config.limits) {
            Ok(message) => Some(message),
            Err(_) => {
                self.finish(DownReason::Expired);
                None
            }
        }
    }

    pub(crate) fn child(&self, inbound: Spi) -> Option<&Child> {
        self.children.iter().find(|child| child.inbound == inbound)
    }

    pub(crate) fn child_mut(&mut self, inbound: Spi) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.inbound == inbound)
    }

    /// The child that sends to this SPI: how the peer names it.
    pub(crate) fn child_by_outbound(&self, outbound: u32) -> Option<&Child> {
        self.children.iter().find(|child| child.outbound.get() == outbound)
    }

    /// Children that are in use: those that count against the limit.
    pub(crate) fn children_in_use(&self) -> usize {
        self.children.iter().filter(|child| child.state == ChildState::InUse).count()
    }

    /// Takes over from the IKE SA that this one replaces, and is from now on the one in use.
    pub(crate) fn inherit(&mut self, cx: &mut Context, estate: Estate) {
        let owner = self.local_spi();
        for child in &estate.children {
            cx.spis.give(child.inbound, owner);
        }
        self.children.extend(estate.children);
        self.siblings = estate.siblings;
        estate.tasks.into_iter().for_each(|task| self.queue(task));
        self.path = estate.path;
        self.standing = Standing::Current;
        self.is_alive(cx);
        self.keepalive_at = self.path.nat.ours.then(|| cx.now + cx.config.timing.nat_keepalive);
        self.expires_at = self.lineage.connection.over_time.map(|span| self.born + span);
        cx.counters.ike_rekeyed += 1;
        cx.events.push_back(Event::IkeRekeyed { peer: self.lineage.peer });
    }

    /// Another IKE SA took its place or won against it. Whoever made that one deletes this one; if that does not
    /// happen, we do.
    pub(crate) fn retire(&mut self, cx: &Context, standing: Standing) {
        self.standing = standing;
        self.rekey_at = None;
        self.probe_at = None;
        self.keepalive_at = None;
        self.expires_at = Some(cx.now + cx.config.timing.replaced_child);
    }

    /// Whether it only waits to be deleted, having been replaced or having lost a collision.
    pub(crate) fn is_retired(&self) -> bool {
        match self.standing {
            Standing::Replaced | Standing::Redundant => true,
            Standing::Current | Standing::Contender { .. } => false,
        }
    }

    /// The end of its life, if one is set.
    pub(crate) fn expires_at(&self) -> Option<Instant> {
        self.expires_at
    }

    /// Rekeying failed; it is tried again, later each time.
    pub(crate) fn retry_rekeying(&mut self, cx: &mut Context) {
        self.rekey_failures = self.rekey_failures.saturating_add(1);
        let wait = cx.config.timing.retry * 2_u32.saturating_pow(self.rekey_failures.saturating_sub(1).min(5));
        self.rekey_at = Some(cx.now + cx.jittered(wait));
    }

    /// Takes a child out and says so.
    pub(crate) fn remove_child(&mut self, cx: &mut Context, inbound: Spi, reason: DownReason) -> Option<Child> {
        let at = self.children.iter().position(|child| child.inbound == inbound)?;
        let child = self.children.swap_remove(at);
        self.announce_child_down(cx, &child, reason);
        Some(child)
    }

    fn announce_child_down(&self, cx: &mut Context, child: &Child, reason: DownReason) {
        cx.spis.free_esp(child.inbound);
        cx.overlaps.remove(child.inbound);
        cx.counters.child_down += 1;
        cx.events.push_back(Event::ChildDown {
            peer: self.lineage.peer,
            dvipa: self.path.local.ip(),
            inbound: child.inbound,
            outbound: child.outbound,
            reason,
        });
    }

    /// Gives back all that it holds, keeps its last response, and says that its children are gone.
    pub(crate) fn dissolve(mut self, cx: &mut Context, reason: DownReason) {
        self.give_up_sibling(cx);
        for child in core::mem::take(&mut self.children) {
            let why = match child.state {
                ChildState::Replaced => DownReason::Replaced,
                ChildState::Redundant => DownReason::Redundant,
                ChildState::InUse | ChildState::Closing => reason,
            };
            self.announce_child_down(cx, &child, why);
        }
        if let Some(spi) = self.active.as_ref().and_then(Active::reserved_esp) {
            cx.spis.free_esp(spi);
        }
        if let Some(spi) = self.active.as_ref().and_then(Active::reserved_ike) {
            cx.spis.free_ike(spi);
        }
        cx.spis.free_ike(self.local_spi());
        if let Some((request, response)) = self.incoming.into_last() {
            cx.kept.keep(cx.now, self.path.local.ip(), request, response);
        }
    }
}
