//! Who is where: addresses and link addresses of all stations.

use core::net::{IpAddr, Ipv4Addr};

use cluster::id::MemberId;
use control::stack::MacAddress;
use datapath::routes::PortId;

/// The address that the cluster serves.
pub const DVIPA: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 80);
/// What an appliance's ports are, in order.
pub const NETWORK: PortId = PortId(0);
/// The application hosts' side.
pub const INSIDE: PortId = PortId(1);
/// The members' side.
pub const TRUSTED: PortId = PortId(2);
/// What the network and the inside carry, in bytes.
pub const MTU: u16 = 1_500;
/// What the members' link carries.
pub const TRUSTED_MTU: u16 = 1_700;

/// The link address of every station.
pub const BROADCAST: MacAddress = MacAddress([0xff; 6]);

/// An appliance's own address in the network.
#[must_use]
pub fn network_address(member: MemberId) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, 100 + member.0 as u8).into()
}

/// An appliance's address on the trusted link.
#[must_use]
pub fn trusted_address(member: MemberId) -> IpAddr {
    Ipv4Addr::new(10, 255, 0, member.0 as u8).into()
}

/// An appliance's address towards its application host.
#[must_use]
pub fn inside_address(member: MemberId) -> IpAddr {
    Ipv4Addr::new(10, 9, member.0 as u8, 1).into()
}

/// The application host behind an appliance.
#[must_use]
pub fn host_address(member: MemberId) -> IpAddr {
    Ipv4Addr::new(10, 9, member.0 as u8, 80).into()
}

/// A client's address.
#[must_use]
pub fn client_address(client: usize) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 20 + client as u8)
}

/// The link address of an appliance's port.
#[must_use]
pub fn port_mac(member: MemberId, port: PortId) -> MacAddress {
    MacAddress([2, 0, 0, 0, 1 + port.0 as u8, member.0 as u8])
}

/// The link address of the application host behind an appliance.
#[must_use]
pub fn host_mac(member: MemberId) -> MacAddress {
    MacAddress([2, 0, 0, 0, 5, member.0 as u8])
}

/// A client's link address.
#[must_use]
pub fn client_mac(client: usize) -> MacAddress {
    MacAddress([2, 0, 0, 0, 4, client as u8])
}

/// The member whose port has this link address.
#[must_use]
pub fn member_of(mac: MacAddress, port: PortId) -> Option<MemberId> {
    let [2, 0, 0, 0, kind, member] = mac.0 else { return None };
    (kind == 1 + port.0 as u8).then_some(MemberId(member.into()))
}

/// The client that has this link address.
#[must_use]
pub fn client_of(mac: MacAddress) -> Option<usize> {
    let [2, 0, 0, 0, 4, client] = mac.0 else { return None };
    Some(client.into())
}
