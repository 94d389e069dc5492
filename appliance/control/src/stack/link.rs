//! One port's smoltcp interface: ICMP echo, UDP 500 and 4500, IPv4 fragmentation of what is sent; on the trusted port also
//! the members' TCP and heartbeats.
//!
//! smoltcp works on bare IP packets here (`Medium::Ip`): Ethernet, ARP, neighbours, routes, reassembly, and the question
//! which addresses are ours are answered around it. Three of its limits decided this:
//!
//! - It holds a compile-time number of addresses, and DVIPAs come by the hundred. So every interface takes any address
//!   (`any_ip`), and the stack admits only packets to addresses that it holds, before smoltcp sees them.
//! - One unresolved neighbour keeps it from asking for any other for a second. So it never sees a neighbour.
//! - It has one buffer for fragments to be sent, and a second large datagram overwrites what the first has left there.
//!   So each datagram is driven out completely before the next goes in.
//!
//! Each port has an interface of its own, so that each fragments, and chooses TCP's segment size, for its own MTU.

use core::time::Duration;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use ipsec::time::Instant;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{tcp, udp};
use smoltcp::wire::{HardwareAddress, IpCidr, IpEndpoint};

use super::drops::DropReason;
use super::port::PortSettings;

/// The UDP port of IKE.
pub const IKE_PORT: u16 = 500;
/// Packets that one call may leave in the device: a 64 KiB datagram at the smallest MTU makes 119.
const SENT_MAX: usize = 256;
/// Largest UDP payload in an IPv4 packet.
pub const UDP_PAYLOAD_MAX: usize = 65_535 - 20 - 8;
/// IPv6 and UDP headers.
const IPV6_UDP_HEADERS: usize = 40 + 8;
/// How many of a port's addresses the interface is told (`iface-max-addr-count-8`): it wants them for choosing a source
/// for TCP and for knowing subnet broadcasts, not for deciding what is ours.
const ADDRESSES_MAX: usize = 8;

/// A device with one packet in and a bounded queue of packets out.
struct PacketDevice {
    received: Option<Vec<u8>>,
    sent: VecDeque<Vec<u8>>,
    mtu: usize,
}

struct Received(Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Sending<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut packet = vec![0; len];
        let result = write(&mut packet);
        self.0.push_back(packet);
        result
    }
}

impl Device for PacketDevice {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _now: smoltcp::time::Instant) -> Option<(Received, Sending<'_>)> {
        Some((Received(self.received.take()?), Sending(&mut self.sent)))
    }

    fn transmit(&mut self, _now: smoltcp::time::Instant) -> Option<Sending<'_>> {
        (self.sent.len() < SENT_MAX).then_some(Sending(&mut self.sent))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }
}

/// A UDP datagram that smoltcp has found sound.
#[derive(Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Our address and port.
    pub local: SocketAddr,
    /// The sender's address and port.
    pub remote: SocketAddr,
    /// What it carries.
    pub payload: Vec<u8>,
}

/// One port's interface and sockets.
pub struct Link {
    device: PacketDevice,
    interface: Box<Interface>,
    sockets: SocketSet<'static>,
    ike: SocketHandle,
    nat_traversal: SocketHandle,
    heartbeats: Option<(SocketHandle, u16)>,
    deadline: Option<Instant>,
}

impl Link {
    /// An interface for this port. `seed` starts its packet identifications.
    pub fn new(now: Instant, port: &PortSettings, seed: u64) -> Self {
        let mut device = PacketDevice { received: None, sent: VecDeque::new(), mtu: port.mtu.into() };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Box::new(Interface::new(config, &mut device, to_smoltcp(now)));
        interface.set_any_ip(true);
        interface.update_ip_addrs(|addresses| {
            for held in port.addresses.iter().take(ADDRESSES_MAX) {
                // The list has room for as many; what it refused would be missing there only, see ADDRESSES_MAX.
                let _full = addresses.push(IpCidr::new(held.address.into(), held.prefix.length()));
            }
        });
        let mut sockets = SocketSet::new(Vec::with_capacity(2));
        let ike = sockets.add(socket(IKE_PORT));
        let nat_traversal = sockets.add(socket(wire::natt::PORT));
        Self { device, interface, sockets, ike, nat_traversal, heartbeats: None, deadline: None }
    }

    /// Hands in a whole IP packet for one of our addresses. What it gave rise to is in [`Link::poll_packet`] and
    /// [`Link::poll_datagram`]; a packet that was not sound gave rise to nothing.
    pub fn handle_packet(&mut self, now: Instant, packet: Vec<u8>) {
        self.take_in(now, packet);
        self.drive(now);
    }

    /// As [`Link::handle_packet`], but says nothing yet; [`Link::drive`] lets the sockets speak.
    pub fn take_in(&mut self, now: Instant, packet: Vec<u8>) {
        self.device.received = Some(packet);
        self.interface.poll_ingress_single(to_smoltcp(now), &mut self.device, &mut self.sockets);
    }

    /// Serves one more UDP port, for heartbeats.
    pub fn open_heartbeats(&mut self, port: u16) {
        self.heartbeats = Some((self.sockets.add(socket(port)), port));
    }

    /// A new TCP socket with buffers of this size each way. It breaks a connection whose other end does not acknowledge,
    /// or says nothing at all, for so long.
    pub fn add_tcp(&mut self, buffer_bytes: usize, patience: Duration) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; buffer_bytes]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_timeout(Some(smoltcp::time::Duration::from_micros(
            u64::try_from(patience.as_micros()).unwrap_or(u64::MAX),
        )));
        self.sockets.add(socket)
    }

    /// Lets go of a TCP socket, and of whatever it still had to say.
    pub fn remove_tcp(&mut self, handle: SocketHandle) {
        self.sockets.remove(handle);
    }

    /// A TCP socket of [`Link::add_tcp`].
    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut::<tcp::Socket<'static>>(handle)
    }

    /// Begins a connection. `false` where the socket or the addresses do not allow it.
    pub fn connect(&mut self, handle: SocketHandle, local: SocketAddr, remote: SocketAddr) -> bool {
        let socket = self.sockets.get_mut::<tcp::Socket<'static>>(handle);
        socket.connect(self.interface.context(), IpEndpoint::from(remote), IpEndpoint::from(local)).is_ok()
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.interface.poll_maintenance(to_smoltcp(now));
            self.drive(now);
        }
    }

    /// When a socket has something to do again.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadline
    }

    /// Sends a UDP datagram whose payload is `prefix` and then `payload`.
    ///
    /// # Errors
    /// A port that has no socket, or a datagram larger than can be sent.
    pub fn send_datagram(
        &mut self,
        now: Instant,
        local: SocketAddr,
        remote: SocketAddr,
        prefix: &[u8],
        payload: &[u8],
    ) -> Result<(), DropReason> {
        let length = prefix.len() + payload.len();
        let fits = match remote.ip() {
            IpAddr::V4(_) => length <= UDP_PAYLOAD_MAX,
            // smoltcp does not fragment IPv6; RFC 7383 is for that.
            IpAddr::V6(_) => length + IPV6_UDP_HEADERS <= self.device.mtu,
        };
        if !fits {
            return Err(DropReason::DatagramTooBig);
        }
        let handle = match (local.port(), self.heartbeats) {
            (IKE_PORT, _) => self.ike,
            (wire::natt::PORT, _) => self.nat_traversal,
            (port, Some((handle, heartbeats))) if port == heartbeats => handle,
            (_, _) => return Err(DropReason::NotIkePort),
        };
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(handle);
        let mut metadata = udp::UdpMetadata::from(IpEndpoint::from(remote));
        metadata.local_address = Some(local.ip().into());
        let room = socket.send(length, metadata).map_err(|error| match error {
            udp::SendError::Unaddressable => DropReason::DestinationInvalid,
            udp::SendError::BufferFull => DropReason::DatagramTooBig,
        })?;
        let (head, tail) = room.split_at_mut(prefix.len());
        head.copy_from_slice(prefix);
        tail.copy_from_slice(payload);
        self.drive(now);
        Ok(())
    }

    /// The next IP packet to send.
    pub fn poll_packet(&mut self) -> Option<Vec<u8>> {
        self.device.sent.pop_front()
    }

    /// The next UDP datagram received.
    pub fn poll_datagram(&mut self) -> Option<Datagram> {
        let ports = [Some((self.ike, IKE_PORT)), Some((self.nat_traversal, wire::natt::PORT)), self.heartbeats];
        ports.into_iter().flatten().find_map(|(handle, port)| {
            let (payload, metadata) = self.sockets.get_mut::<udp::Socket<'_>>(handle).recv().ok()?;
            let local = SocketAddr::new(metadata.local_address?.into(), port);
            let remote = SocketAddr::new(metadata.endpoint.addr.into(), metadata.endpoint.port);
            Some(Datagram { local, remote, payload: payload.to_vec() })
        })
    }

    /// Drives out everything that waits, the last fragment included.
    pub fn drive(&mut self, now: Instant) {
        loop {
            let before = self.device.sent.len();
            self.interface.poll_egress(to_smoltcp(now), &mut self.device, &mut self.sockets);
            if self.device.sent.len() == before {
                break;
            }
        }
        // What could not leave now will not leave sooner by asking again at once.
        let soonest = now + Duration::from_millis(1);
        self.deadline = self.interface.poll_at(to_smoltcp(now), &self.sockets).map(|at| from_smoltcp(at).max(soonest));
    }
}

/// A UDP socket with room for one datagram each way: both are emptied within the call that fills them.
fn socket(port: u16) -> udp::Socket<'static> {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 2], vec![0; UDP_PAYLOAD_MAX]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    let bound = socket.bind(port);
    debug_assert!(bound.is_ok(), "a new socket takes any port but 0");
    socket
}

fn to_smoltcp(now: Instant) -> smoltcp::time::Instant {
    smoltcp::time::Instant::from_micros(i64::try_from(now.as_nanos() / 1_000).unwrap_or(i64::MAX))
}

fn from_smoltcp(then: smoltcp::time::Instant) -> Instant {
    Instant::ZERO + Duration::from_micros(u64::try_from(then.total_micros()).unwrap_or(0))
}
