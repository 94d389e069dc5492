//! The trusted port: which members are on it, and what they may say to us: TCP for XCF, and heartbeats by UDP.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use datapath::routes::PortId;
use ipsec::time::Instant;

use super::drops::DropReason;
use super::link::Datagram;
use super::port::is_host_address;
use super::streams::Streams;
use super::{PortSettings, Stack};

/// Where members listen for XCF, unless the configuration says otherwise.
pub const XCF_PORT: u16 = 7_575;
/// Where they listen for heartbeats.
pub const HEARTBEAT_PORT: u16 = 7_576;
/// Members that the stack serves.
pub const MEMBERS_MAX: usize = 64;
/// Heartbeats that may wait: some from each member.
const HEARTBEATS_MAX: usize = 4 * MEMBERS_MAX;

/// The trusted port as the stack sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedSettings {
    /// Which port.
    pub port: PortId,
    /// Our trusted address, one of that port.
    pub address: IpAddr,
    /// The trusted addresses of all other members.
    pub members: Vec<IpAddr>,
    /// The TCP port of XCF, the same on every member.
    pub xcf_port: u16,
    /// The UDP port of heartbeats, the same on every member.
    pub heartbeat_port: u16,
}

/// Why the stack refuses a trusted port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustedError {
    /// There is one already.
    #[error("the trusted port is open already")]
    Open,
    /// A port that is not there, or not ours to speak from.
    #[error("trusted address {0} is not an address of {1}")]
    Address(IpAddr, PortId),
    /// Too many members, or none.
    #[error("{0} other members; allowed are 1 to {MEMBERS_MAX}")]
    Members(usize),
    /// A member's address that cannot be reached on the port's link.
    #[error("member address {0} is not another host's address on the link of {1}")]
    Member(IpAddr, PortId),
    /// UDP ports that cannot be told apart.
    #[error("heartbeat port {0}; it must be none of 0, 500 and 4500")]
    HeartbeatPort(u16),
    /// No TCP port.
    #[error("XCF port 0; allowed are 1 to 49151")]
    XcfPort,
}

/// The trusted port at work.
pub(super) struct Trusted {
    pub settings: TrustedSettings,
    pub streams: Streams,
    pub heartbeats: VecDeque<(IpAddr, Vec<u8>)>,
}

impl Trusted {
    /// Whether a packet on this port, from there to here, is one between members.
    pub fn admits(&self, port: PortId, src: IpAddr, dst: IpAddr) -> Result<(), DropReason> {
        let settings = &self.settings;
        match (port == settings.port && dst == settings.address, settings.members.contains(&src)) {
            (true, true) => Ok(()),
            (true, false) => Err(DropReason::NotMember),
            (false, _) => Err(DropReason::TcpPortNotServed),
        }
    }
}

impl TrustedSettings {
    fn check(&self, port: Option<&PortSettings>) -> Result<(), TrustedError> {
        let is_ours = |port: &&PortSettings| port.addresses.iter().any(|held| held.address == self.address);
        let port = port.filter(is_ours).ok_or(TrustedError::Address(self.address, self.port))?;
        if !(1..=MEMBERS_MAX).contains(&self.members.len()) {
            return Err(TrustedError::Members(self.members.len()));
        }
        let is_sound = |member: IpAddr| {
            is_host_address(member) && port.is_on_link(member) && !port.is_broadcast(member) && member != self.address
        };
        if let Some(&member) = self.members.iter().find(|&&member| !is_sound(member)) {
            return Err(TrustedError::Member(member, self.port));
        }
        match (self.heartbeat_port, self.xcf_port) {
            (0 | 500 | 4_500, _) => Err(TrustedError::HeartbeatPort(self.heartbeat_port)),
            (_, 0 | 49_152..) => Err(TrustedError::XcfPort),
            (_, _) => Ok(()),
        }
    }
}

impl Stack {
    /// Serves the members on the trusted port from now on: listens for XCF, takes in heartbeats.
    ///
    /// # Errors
    /// What is wrong with the settings. Nothing is opened then.
    pub fn open_trusted(&mut self, settings: TrustedSettings) -> Result<(), TrustedError> {
        if self.trusted.is_some() {
            return Err(TrustedError::Open);
        }
        settings.check(self.ports.get(&settings.port).map(|port| &port.settings))?;
        let Some(port) = self.ports.get_mut(&settings.port) else {
            return Err(TrustedError::Address(settings.address, settings.port));
        };
        port.link.open_heartbeats(settings.heartbeat_port);
        let local = SocketAddr::new(settings.address, settings.xcf_port);
        let streams = Streams::new(&mut port.link, local, settings.members.len(), self.identification);
        self.trusted = Some(Trusted { settings, streams, heartbeats: VecDeque::new() });
        Ok(())
    }

    /// Sends a heartbeat to a member. What cannot be sent is counted; the next one follows anyway.
    pub fn send_heartbeat(&mut self, now: Instant, member: IpAddr, payload: &[u8]) {
        let Some(trusted) = &self.trusted else { return self.counters.drop(DropReason::SourceNotOurs) };
        let port = trusted.settings.heartbeat_port;
        let (local, remote) = (SocketAddr::new(trusted.settings.address, port), SocketAddr::new(member, port));
        if !trusted.settings.members.contains(&member) {
            return self.counters.drop(DropReason::DestinationInvalid);
        }
        self.send_datagram(now, local, remote, payload);
    }

    /// The next heartbeat received: the member's address, and what it says. Unverified, see [`xcf::Mesh::open_heartbeat`].
    pub fn poll_heartbeat(&mut self) -> Option<(IpAddr, Vec<u8>)> {
        self.trusted.as_mut()?.heartbeats.pop_front()
    }

    /// Whether a UDP datagram is for the heartbeat port; it must be a member's then.
    pub(super) fn is_heartbeat(
        &self,
        port: PortId,
        src: IpAddr,
        dst: IpAddr,
        udp_port: u16,
    ) -> Result<bool, DropReason> {
        match &self.trusted {
            Some(trusted) if udp_port == trusted.settings.heartbeat_port => match trusted.admits(port, src, dst) {
                Ok(()) => Ok(true),
                Err(DropReason::NotMember) => Err(DropReason::NotMember),
                Err(_) => Err(DropReason::UdpPortNotServed),
            },
            Some(_) | None => Ok(false),
        }
    }

    pub(super) fn keep_heartbeat(&mut self, datagram: Datagram) -> Result<(), DropReason> {
        let trusted = self.trusted.as_mut().ok_or(DropReason::UdpPortNotServed)?;
        if datagram.payload.len() > xcf::heartbeat::DATAGRAM_BYTES_MAX {
            return Err(DropReason::HeartbeatTooLong);
        }
        if trusted.heartbeats.len() >= HEARTBEATS_MAX {
            return Err(DropReason::HeartbeatQueueFull);
        }
        trusted.heartbeats.push_back((datagram.remote.ip(), datagram.payload));
        Ok(())
    }
}
