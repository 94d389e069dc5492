//! Where every frame that reached the stack ended, counted where it happens.

/// On which way a packet was when it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// It came from a port.
    Received,
    /// It was to leave by a port.
    Sent,
}

macro_rules! drop_reasons {
    ($($variant:ident $name:literal $direction:ident $sentence:literal;)*) => {
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
    FrameMalformed "frame_malformed" Received "The Ethernet header is cut short or doubly tagged, or its source is no station.";
    NotForUs "not_for_us" Received "The Ethernet destination is another station.";
    WrongVlan "wrong_vlan" Received "The frame's VLAN is not the port's.";
    EthertypeNotServed "ethertype_not_served" Received "The frame carries neither ARP nor IPv4 nor IPv6.";
    PortUnknown "port_unknown" Received "The frame came from a port that the stack was not told of.";
    // Received: ARP.
    ArpMalformed "arp_malformed" Received "The ARP packet is not one for IPv4 over Ethernet, or its sender is no station.";
    ArpOwnEcho "arp_own_echo" Received "Our own ARP packet came back to us.";
    ArpNotForUs "arp_not_for_us" Received "An ARP packet asks for or tells another station's address.";
    ArpConflict "arp_conflict" Received "A stranger claims one of our addresses.";
    // Received: IP.
    IpMalformed "ip_malformed" Received "The IP header is cut short or contradicts itself.";
    IpChecksum "ip_checksum" Received "The IPv4 header checksum is wrong.";
    IpSourceRouted "ip_source_routed" Received "The packet dictates its own route.";
    SourceInvalid "source_invalid" Received "The source address is no unicast address, or is our own.";
    AddressNotServed "address_not_served" Received "The destination is no address that we hold on this port.";
    FragmentMalformed "fragment_malformed" Received "A fragment contradicts itself or another of its datagram.";
    FragmentDuplicate "fragment_duplicate" Received "The same fragment is held already.";
    FragmentTimedOut "fragment_timed_out" Received "The rest of the datagram did not come in time.";
    FragmentDisplaced "fragment_displaced" Received "Newer fragments took the room.";
    ProtocolNotServed "protocol_not_served" Received "The packet carries a protocol that we do not serve.";
    // Received: what IP carries.
    IcmpMalformed "icmp_malformed" Received "The ICMP message is cut short or its checksum is wrong.";
    IcmpNotServed "icmp_not_served" Received "The ICMP message is of a kind that we do not act on.";
    EchoLimited "echo_limited" Received "More echo requests came than we answer.";
    UdpMalformed "udp_malformed" Received "The UDP datagram contradicts its length, or its checksum is wrong.";
    UdpPortNotServed "udp_port_not_served" Received "The UDP port is neither 500 nor 4500.";
    NatKeepalive "nat_keepalive" Received "A NAT keepalive byte on UDP 4500; it has done its work on the way.";
    NatMalformed "nat_malformed" Received "A UDP 4500 datagram is neither IKE nor ESP nor keepalive (RFC 3948).";
    EspAtControl "esp_at_control" Received "ESP in UDP reached the control core: no data core had an SA for it.";
    IkeInitialsFull "ike_initials_full" Received "More requests for new IKE SAs wait than may; established SAs keep their share.";
    IkeQueueFull "ike_queue_full" Received "More IKE datagrams wait than may.";
    // Sent.
    NotIkePort "not_ike_port" Sent "IKE sends from ports 500 and 4500 only.";
    SourceNotOurs "source_not_ours" Sent "The source of a datagram to send is no address that we hold now.";
    DestinationInvalid "destination_invalid" Sent "The destination of a datagram to send is no unicast address of another host.";
    DatagramTooBig "datagram_too_big" Sent "The datagram to send does not fit an IP packet, or exceeds the port's MTU in IPv6.";
    NoRoute "no_route" Sent "No route leads to the destination.";
    NeighbourUnreachable "neighbour_unreachable" Sent "The next hop does not answer.";
    NeighbourTableFull "neighbour_table_full" Sent "The neighbour table has no room for the next hop.";
    NeighbourIpv6 "neighbour_ipv6" Sent "IPv6 neighbours are not asked for yet; only answers to a known station go out.";
    WaitingFull "waiting_full" Sent "Too many packets wait for neighbours to answer.";
    TransmitFull "transmit_full" Sent "Too many frames wait to be sent.";
    ErrorLimited "error_limited" Sent "More ICMP errors were due than we send.";
    ErrorNotDue "error_not_due" Sent "The packet may not be answered with an ICMP error (RFC 1122).";
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
