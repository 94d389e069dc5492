//! Where every frame that reached the stack ended, counted where it happens.

pub use datapath::drops::Severity;

/// On which way a packet was when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It came from a port.
    Received,
    /// It was to leave by a port.
    Sent,
}

macro_rules! drop_reasons {
    ($($variant:ident $name:literal $direction:ident $severity:ident $sentence:literal;)*) => {
        /// Why a frame, a packet or a datagram ended here. The names are metric label values and never change their meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $sentence] $variant,)*
        }

        impl DropReason {
            /// Every reason, in declaration order: `ALL[r as usize] == r`.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)*];

            /// The word that metrics and logs use.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }

            /// Whether it ends what was received, or what was to be sent.
            #[must_use]
            pub const fn direction(self) -> Direction {
                match self { $(DropReason::$variant => Direction::$direction,)* }
            }

            /// How much an operator should care.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(DropReason::$variant => Severity::$severity,)* }
            }

            /// One sentence for the operator.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(DropReason::$variant => $sentence,)* }
            }
        }
    };
}

drop_reasons! {
    // Received: the frame.
    FrameMalformed "stack_frame_malformed" Received Suspicious "The Ethernet header is cut short or doubly tagged, or its source is no station.";
    NotForUs "stack_not_for_us" Received Expected "The Ethernet destination is another station.";
    WrongVlan "stack_wrong_vlan" Received Suspicious "The frame's VLAN is not the port's.";
    EthertypeNotServed "stack_ethertype_not_served" Received Expected "The frame carries neither ARP nor IPv4 nor IPv6.";
    PortUnknown "stack_port_unknown" Received Suspicious "The frame came from a port that the stack was not told of.";
    // Received: ARP.
    ArpMalformed "stack_arp_malformed" Received Suspicious "The ARP packet is not one for IPv4 over Ethernet, or its sender is no station.";
    ArpOwnEcho "stack_arp_own_echo" Received Expected "Our own ARP packet came back to us.";
    ArpNotForUs "stack_arp_not_for_us" Received Expected "An ARP packet asks for or tells another station's address.";
    ArpConflict "stack_arp_conflict" Received Suspicious "A stranger claims one of our addresses.";
    // Received: IP.
    IpMalformed "stack_ip_malformed" Received Suspicious "The IP header is cut short or contradicts itself.";
    IpChecksum "stack_ip_checksum" Received Suspicious "The IPv4 header checksum is wrong.";
    IpSourceRouted "stack_ip_source_routed" Received Suspicious "The packet dictates its own route.";
    SourceInvalid "stack_source_invalid" Received Suspicious "The source address is no unicast address, or is our own.";
    AddressNotServed "stack_address_not_served" Received Expected "The destination is no address that we hold on this port.";
    FragmentMalformed "stack_fragment_malformed" Received Suspicious "A fragment contradicts itself or another of its datagram.";
    FragmentDuplicate "stack_fragment_duplicate" Received Suspicious "The same fragment is held already.";
    FragmentTimedOut "stack_fragment_timed_out" Received Expected "The rest of the datagram did not come in time.";
    FragmentDisplaced "stack_fragment_displaced" Received Shortage "Newer fragments took the room.";
    ProtocolNotServed "stack_protocol_not_served" Received Expected "The packet carries a protocol that we do not serve.";
    // Received: what IP carries.
    IcmpMalformed "stack_icmp_malformed" Received Suspicious "The ICMP message is cut short or its checksum is wrong.";
    IcmpNotServed "stack_icmp_not_served" Received Expected "The ICMP message is of a kind that we do not act on.";
    EchoLimited "stack_echo_limited" Received Shortage "More echo requests came than we answer.";
    UdpMalformed "stack_udp_malformed" Received Suspicious "The UDP datagram contradicts its length, or its checksum is wrong.";
    UdpPortNotServed "stack_udp_port_not_served" Received Expected "The UDP port is neither 500 nor 4500.";
    NatKeepalive "stack_nat_keepalive" Received Expected "A NAT keepalive byte on UDP 4500; it has done its work on the way.";
    NatMalformed "stack_nat_malformed" Received Suspicious "A UDP 4500 datagram is neither IKE nor ESP nor keepalive (RFC 3948).";
    EspAtControl "stack_esp_at_control" Received Suspicious "ESP in UDP reached the control core: no data core had an SA for it.";
    IkeInitialsFull "stack_ike_initials_full" Received Shortage "More requests for new IKE SAs wait than may; established SAs keep their share.";
    IkeQueueFull "stack_ike_queue_full" Received Shortage "More IKE datagrams wait than may.";
    // Received: on the trusted port, and answers to probes.
    TcpMalformed "stack_tcp_malformed" Received Suspicious "The TCP segment is cut short or its checksum is wrong.";
    TcpPortNotServed "stack_tcp_port_not_served" Received Expected "Nothing listens on this TCP port.";
    NotMember "stack_not_member" Received Suspicious "TCP or a heartbeat for this member, from an address that is no member's.";
    TcpHalfOpenFull "stack_tcp_half_open_full" Received Shortage "More connections of one member wait to be completed than may.";
    TcpSocketsFull "stack_tcp_sockets_full" Received Shortage "No socket is free for another connection of a member.";
    TcpNoConnection "stack_tcp_no_connection" Received Expected "The TCP segment belongs to no connection.";
    HeartbeatTooLong "stack_heartbeat_too_long" Received Suspicious "A datagram on the heartbeat port is longer than any heartbeat.";
    HeartbeatQueueFull "stack_heartbeat_queue_full" Received Shortage "More heartbeats wait than may.";
    // Sent.
    NotIkePort "stack_not_ike_port" Sent Suspicious "IKE sends from ports 500 and 4500 only.";
    SourceNotOurs "stack_source_not_ours" Sent Suspicious "The source of a datagram to send is no address that we hold now.";
    DestinationInvalid "stack_destination_invalid" Sent Suspicious "The destination of a datagram to send is no unicast address of another host.";
    DatagramTooBig "stack_datagram_too_big" Sent Suspicious "The datagram to send does not fit an IP packet, or exceeds the port's MTU in IPv6.";
    NoRoute "stack_no_route" Sent Suspicious "No route leads to the destination.";
    NeighbourUnreachable "stack_neighbour_unreachable" Sent Suspicious "The next hop does not answer.";
    NeighbourTableFull "stack_neighbour_table_full" Sent Shortage "The neighbour table has no room for the next hop.";
    NeighbourIpv6 "stack_neighbour_ipv6" Sent Suspicious "IPv6 neighbours are not asked for yet; only answers to a known station go out.";
    WaitingFull "stack_waiting_full" Sent Shortage "Too many packets wait for neighbours to answer.";
    TransmitFull "stack_transmit_full" Sent Shortage "Too many frames wait to be sent.";
    NoBuffer "stack_no_buffer" Sent Shortage "A frame of ours found no buffer, or no room on its way to a data core.";
    ErrorLimited "stack_error_limited" Sent Shortage "More ICMP errors were due than we send.";
    ErrorNotDue "stack_error_not_due" Sent Expected "The packet may not be answered with an ICMP error (RFC 1122).";
}

/// How many reasons there are.
pub const DROP_REASONS: usize = DropReason::ALL.len();

/// What has become of everything received, and how much was sent. Each term is counted where it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counters {
    /// Frames handed in.
    pub received: u64,
    /// Frames that did what they came for: answered, queued for IKE, or learned from.
    pub accepted: u64,
    /// Fragments that became part of an accepted or dropped datagram, the last one excluded.
    pub merged: u64,
    /// Fragments held until the rest of their datagram comes.
    pub held: u64,
    /// Frames handed out for sending.
    pub originated: u64,
    drops: [u64; DROP_REASONS],
}

impl Default for Counters {
    fn default() -> Self {
        Self { received: 0, accepted: 0, merged: 0, held: 0, originated: 0, drops: [0; DROP_REASONS] }
    }
}

impl Counters {
    /// How many ended for this reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// All reasons that have occurred, with their counts.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&reason| (reason, self.dropped(reason))).filter(|&(_, count)| count != 0)
    }

    /// `received` − every end − `held`: zero after every call.
    #[must_use]
    pub fn difference(&self) -> i64 {
        let of_received = |&(reason, _): &(DropReason, u64)| reason.direction() == Direction::Received;
        let dropped: u64 = self.drops().filter(of_received).map(|(_, count)| count).sum();
        self.received.wrapping_sub(self.accepted + self.merged + self.held + dropped) as i64
    }

    pub(super) fn drop(&mut self, reason: DropReason) {
        self.drop_many(reason, 1);
    }

    pub(super) fn drop_many(&mut self, reason: DropReason, count: u64) {
        self.drops[reason as usize] += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_reason_indexes_itself_and_has_a_name_of_its_own() {
        let mut names = BTreeSet::new();
        for (index, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert!(names.insert(reason.name()), "{} stands twice", reason.name());
            assert!(reason.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b.is_ascii_digit()));
            assert!(reason.sentence().ends_with('.'));
        }
    }
}
