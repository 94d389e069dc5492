//! Probes: does an application host accept connections? A SYN asks, and a reset follows its answer at once, so that the
//! host's application never hears of it.

use core::fmt;
use core::time::Duration;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use datapath::routes::PortId;
use ipsec::time::Instant;
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::State;

use super::Stack;

/// How long a host may take to answer. SYNs are repeated meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// Probes under way, or answered and not taken out.
const PROBES_MAX: usize = 256;
/// Nothing is ever read or written.
const BUFFER_BYTES: usize = 64;
/// Local ports of probes: below those of connections with members.
const PORTS: core::ops::Range<u16> = 32_768..49_152;

/// A probe's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId(pub u64);

impl fmt::Display for ProbeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "probe {}", self.0)
    }
}

/// What a probe has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The host accepts connections there.
    Ready,
    /// It says that it does not.
    Refused,
    /// It does not answer.
    TimedOut,
}

/// Why a probe was not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The source is not the port's own address.
    #[error("{0} is not an address of {1}")]
    Source(IpAddr, PortId),
    /// The destination is no host's, of another family, or has no port.
    #[error("{0} is no host's address and port")]
    Destination(SocketAddr),
    /// The routes lead elsewhere.
    #[error("no route leads to {0} by {1}; the application host's address needs one, by the inside port")]
    NoRoute(IpAddr, PortId),
    /// Too many at once, with those whose answers nobody has taken.
    #[error("{PROBES_MAX} probes are under way already")]
    TooMany,
}

struct Probe {
    id: ProbeId,
    port: PortId,
    handle: SocketHandle,
    local: SocketAddr,
    remote: SocketAddr,
    deadline: Instant,
}

/// All probes under way, and what the others have found.
#[derive(Default)]
pub(super) struct Probes {
    under_way: Vec<Probe>,
    done: VecDeque<(ProbeId, ProbeOutcome)>,
    begun: u64,
}

impl Probes {
    /// Whether an answer from this address may come by this port.
    pub fn awaits(&self, port: PortId, remote: IpAddr) -> bool {
        self.under_way.iter().any(|probe| probe.port == port && probe.remote.ip() == remote)
    }

    /// The probe that a segment answers.
    pub fn find(&self, port: PortId, local: SocketAddr, remote: SocketAddr) -> Option<ProbeId> {
        let is_it = |probe: &&Probe| probe.port == port && probe.local == local && probe.remote == remote;
        self.under_way.iter().find(is_it).map(|probe| probe.id)
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.under_way.iter().map(|probe| probe.deadline).min()
    }

    /// A local port that no probe of this host has.
    fn local_port(&self, from: IpAddr, remote: SocketAddr) -> u16 {
        let count = u64::from(PORTS.end - PORTS.start);
        let port = |step: u64| PORTS.start + ((self.begun + step) % count) as u16;
        let is_free = |&local: &u16| {
            !self.under_way.iter().any(|probe| probe.local == SocketAddr::new(from, local) && probe.remote == remote)
        };
        // There are more ports than probes.
        (0..=PROBES_MAX as u64).map(port).find(is_free).unwrap_or(PORTS.start)
    }
}

impl Stack {
    /// Asks an application host by `port`, from `from`, which is that port's own address, whether it accepts connections
    /// at `destination`. The routes say who the next hop is, so the destination may be a DVIPA. [`Stack::poll_probe`]
    /// has the answer after two seconds at most.
    ///
    /// # Errors
    /// Nothing was sent then.
    pub fn probe(
        &mut self,
        now: Instant,
        port: PortId,
        from: IpAddr,
        destination: SocketAddr,
    ) -> Result<ProbeId, ProbeError> {
        let on_port =
            self.ports.get_mut(&port).filter(|at| at.settings.addresses.iter().any(|own| own.address == from));
        let on_port = on_port.ok_or(ProbeError::Source(from, port))?;
        if self.probes.under_way.len() + self.probes.done.len() >= PROBES_MAX {
            return Err(ProbeError::TooMany);
        }
        if self.routes.lookup(destination.ip()).is_none_or(|hop| hop.port != port) {
            return Err(ProbeError::NoRoute(destination.ip(), port));
        }
        let local = SocketAddr::new(from, self.probes.local_port(from, destination));
        let handle = on_port.link.add_tcp(BUFFER_BYTES, 2 * PATIENCE);
        if !super::port::is_host_address(destination.ip()) || !on_port.link.connect(handle, local, destination) {
            on_port.link.remove_tcp(handle);
            return Err(ProbeError::Destination(destination));
        }
        let id = ProbeId(self.probes.begun);
        self.probes.begun += 1;
        let deadline = now + PATIENCE;
        self.probes.under_way.push(Probe { id, port, handle, local, remote: destination, deadline });
        on_port.link.drive(now);
        self.send_link_packets(now, port);
        self.settle(now);
        Ok(id)
    }

    /// The next probe that has an answer, and what it is.
    pub fn poll_probe(&mut self) -> Option<(ProbeId, ProbeOutcome)> {
        self.probes.done.pop_front()
    }

    /// A segment that answers a probe.
    pub(super) fn receive_probed(&mut self, now: Instant, id: ProbeId, packet: &[u8]) {
        let Some(at) = self.probes.under_way.iter().position(|probe| probe.id == id) else { return };
        let (port, handle) = (self.probes.under_way[at].port, self.probes.under_way[at].handle);
        let Some(on_port) = self.ports.get_mut(&port) else { return };
        on_port.link.take_in(now, packet.to_vec());
        let outcome = match on_port.link.tcp(handle).state() {
            State::Closed => Some(ProbeOutcome::Refused),
            State::SynSent | State::SynReceived | State::Listen => None,
            State::Established
            | State::FinWait1
            | State::FinWait2
            | State::CloseWait
            | State::Closing
            | State::LastAck
            | State::TimeWait => Some(ProbeOutcome::Ready),
        };
        match outcome {
            // Before the socket could acknowledge: to the host, the connection was never completed.
            Some(outcome) => self.end_probe(now, at, outcome),
            None => self.let_speak(now, port),
        }
    }

    pub(super) fn end_late_probes(&mut self, now: Instant) {
        while let Some(at) = self.probes.under_way.iter().position(|probe| probe.deadline <= now) {
            self.end_probe(now, at, ProbeOutcome::TimedOut);
        }
    }

    fn end_probe(&mut self, now: Instant, at: usize, outcome: ProbeOutcome) {
        let probe = self.probes.under_way.swap_remove(at);
        self.probes.done.push_back((probe.id, outcome));
        if outcome == ProbeOutcome::Ready
            && let Some(on_port) = self.ports.get_mut(&probe.port)
        {
            on_port.link.tcp(probe.handle).abort();
            self.let_speak(now, probe.port);
        }
        if let Some(on_port) = self.ports.get_mut(&probe.port) {
            on_port.link.remove_tcp(probe.handle);
        }
    }

    fn let_speak(&mut self, now: Instant, port: PortId) {
        if let Some(on_port) = self.ports.get_mut(&port) {
            on_port.link.drive(now);
        }
        self.send_link_packets(now, port);
    }
}
