//! Why a packet ended here: every drop has one of these reasons, and every reason is data.

/// How much an operator should care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Part of normal life on a shared network.
    Expected,
    /// A misconfigured or hostile sender; worth a look when it grows.
    Suspicious,
    /// This appliance ran out of something; established traffic may suffer.
    Shortage,
}

impl Severity {
    /// The word that logs and metrics use.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Expected => "expected",
            Severity::Suspicious => "suspicious",
            Severity::Shortage => "shortage",
        }
    }
}

macro_rules! drop_reasons {
    ($($variant:ident $name:literal $severity:ident $sentence:literal;)*) => {
        /// Why a packet was dropped. The names are the metric's label values and never change their meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $sentence] $variant,)*
        }

        impl DropReason {
            /// Every reason, in declaration order: `ALL[r as usize] == r`.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$variant,)*];

            /// The word that metrics, logs and `phalanx show drops` use.
            pub const fn name(self) -> &'static str {
                match self { $(DropReason::$variant => $name,)* }
            }

            /// How much an operator should care.
            pub const fn severity(self) -> Severity {
                match self { $(DropReason::$variant => Severity::$severity,)* }
            }

            /// One sentence for the operator.
            pub const fn sentence(self) -> &'static str {
                match self { $(DropReason::$variant => $sentence,)* }
            }
        }
    };
}

drop_reasons! {
    // The frame and its outer headers.
    NotForUs "not_for_us" Expected "The Ethernet destination is another station.";
    LinkBroadcast "link_broadcast" Expected "An IP packet came in a link broadcast or multicast; no router forwards these (RFC 1122, section 3.3.6).";
    OuterMalformed "outer_malformed" Suspicious "An outer header is cut short or contradicts itself.";
    OuterChecksum "outer_checksum" Suspicious "The outer IPv4 header checksum is wrong.";
    OuterFragment "outer_fragment" Suspicious "An ESP packet came in outer fragments, which are not reassembled; lower the sender's MTU.";
    EthertypeNotServed "ethertype_not_served" Expected "The frame carries neither IPv4 nor ARP.";
    AddressNotServed "address_not_served" Expected "The outer destination is no address of this appliance.";
    CleartextToProtected "cleartext_to_protected" Suspicious "An unprotected packet came for a protected address; policy says discard.";
    NatKeepalive "nat_keepalive" Expected "A NAT keepalive byte on UDP 4500; it has done its work on the way.";
    NatMalformed "nat_malformed" Suspicious "A UDP 4500 datagram is neither IKE nor ESP nor keepalive (RFC 3948).";
    // The SA.
    EspTruncated "esp_truncated" Suspicious "The ESP packet is too short for its header, IV and ICV, or is not aligned.";
    SpiReserved "spi_reserved" Suspicious "The SPI lies in the reserved range 0 to 255.";
    SpiUnknown "spi_unknown" Suspicious "No SA of this address has this SPI.";
    ReplayDuplicate "replay_duplicate" Suspicious "The sequence number was delivered before.";
    ReplayTooOld "replay_too_old" Suspicious "The sequence number lies below the replay window, or is zero.";
    AuthenticationFailed "authentication_failed" Suspicious "The ICV does not verify under the SA's key.";
    PaddingMalformed "padding_malformed" Suspicious "An authenticated packet has padding that RFC 4303 forbids; the peer is broken.";
    NextHeaderNotServed "next_header_not_served" Suspicious "An authenticated packet carries a next header that the SA's mode forbids.";
    DummyPacket "dummy_packet" Expected "A traffic-flow-confidentiality dummy (next header 59) is discarded as RFC 4303 asks.";
    LifesizeHard "lifesize_hard" Shortage "The SA has reached its hard limit of bytes, packets or sequence numbers.";
    // The inner packet.
    PeekUnparsable "peek_unparsable" Suspicious "The peeked inner header is no IP header: forged, or under a wrong key.";
    InnerMalformed "inner_malformed" Suspicious "An authenticated packet holds no well-formed IP packet.";
    TunnelCheck "tunnel_check" Suspicious "The inner addresses or ports lie outside the SA's traffic selectors.";
    ServiceNotOffered "service_not_offered" Expected "An authenticated client spoke to a port that the DVIPA does not list as a service.";
    Filter "filter" Expected "The DVIPA's packet filter denies this packet of an authenticated client.";
    Congested "congested" Expected "The outer header was marked congested and the inner packet cannot carry the mark (RFC 6040).";
    TtlExceeded "ttl_exceeded" Expected "The packet's time to live ended here.";
    OthersFlow "others_flow" Suspicious "An authenticated client used the addresses and ports of another peer's connection.";
    ConnectionTableFull "connection_table_full" Shortage "A new connection found no free entry; established ones are unharmed.";
    // Towards its next hop.
    PolicyDiscard "policy_discard" Expected "Policy says discard for a packet from the inside.";
    NoOutboundSa "no_outbound_sa" Expected "Policy says protect, but the peer has no SA for this packet now.";
    PeerAmbiguous "peer_ambiguous" Suspicious "Several peers claim the destination, and no connection says which one is meant; give them addresses of their own.";
    NoRoute "no_route" Suspicious "No route leads to the destination.";
    NeighbourUnresolved "neighbour_unresolved" Expected "The next hop's link address is not known yet.";
    TooBig "too_big" Expected "The packet exceeds the MTU of its way and may not be cut.";
    NoRoom "no_room" Shortage "The frame's buffer has no room for the ESP headers and trailer.";
    IvExhausted "iv_exhausted" Shortage "This core's sender id has no IV left or is too old for the SA; a new one is being drawn.";
    // The trusted port, and what is relayed between members.
    TrustedStranger "trusted_stranger" Suspicious "A packet on the trusted port came from no member, or is for somebody else; nothing else may be on that wire.";
    TrustedNotServed "trusted_not_served" Suspicious "A member sent something that is neither a frame nor for the control core.";
    FrameMalformed "frame_malformed" Suspicious "A frame from a member is cut short, contradicts itself, or holds another packet than it says.";
    FrameUnknownDvipa "frame_unknown_dvipa" Suspicious "A frame is about an address that this member neither owns nor serves; the members' configurations differ.";
    FrameStaleEpoch "frame_stale_epoch" Expected "A frame is of an epoch that has passed: its sender does not know that the address has another owner.";
    FrameFutureEpoch "frame_future_epoch" Expected "A frame is of an epoch that this member has not heard of yet.";
    FrameWrongRole "frame_wrong_role" Suspicious "A frame is of a kind that its sender may not send, or that is not for this member.";
    FrameOtherIncarnation "frame_other_incarnation" Expected "A frame is for, or from, another start of the target than the one that runs.";
    FrameStaleSerial "frame_stale_serial" Expected "A frame was sent before the owner knew of connections that this target has given up.";
    FrameUnprotected "frame_unprotected" Suspicious "A frame came in the clear where frames are to be protected: the members' configurations differ, or somebody else is on the wire.";
    FrameProtected "frame_protected" Suspicious "A protected frame came to a member that is configured to protect none; the members' configurations differ.";
    FrameKeyless "frame_keyless" Expected "There are no keys for the frame: no session with the member yet, or the frame is of one that is over.";
    FrameForged "frame_forged" Suspicious "A protected frame does not verify under the key that its sender has.";
    FrameReplayed "frame_replayed" Suspicious "A protected frame came once more, or too late to tell whether it does.";
    FrameNested "frame_nested" Suspicious "A frame holds a packet for a member's own address.";
    FrameSa "frame_sa" Expected "A frame names an SA that this member does not have, yet or any more.";
    NotOwner "not_owner" Expected "A client's packet came to a member that does not own its address now.";
    BelowFloor "below_floor" Suspicious "The sequence number lies at or below the SA's floor: somewhere in the cluster it may have been delivered before.";
    LifesizeUngranted "lifesize_ungranted" Shortage "The owner has granted this member no more bytes of the SA yet.";
    SaSealed "sa_sealed" Expected "The SA was sealed when a member was lost, and the packet is of no connection that outlived that; the SA is being replaced.";
    Settling "settling" Expected "A packet of no known connection came while a new owner waits for the members' connections.";
    NoTarget "no_target" Shortage "No member is ready to take a new connection to this address and port.";
    TargetLost "target_lost" Expected "The packet's connection was on a member that is lost; a reset has answered it, if it was TCP.";
    TargetSilent "target_silent" Expected "The packet's connection is on a member that is believed lost, which is not settled yet.";
    RoutingTableFull "routing_table_full" Shortage "A new connection found no free entry in the routing table; established ones are unharmed.";
    RelayTooBig "relay_too_big" Suspicious "The packet is too big for the trusted port once it is framed; raise that port's MTU.";
    ConnectionEnded "connection_ended" Expected "The packet belongs to a connection that has ended here.";
    FragmentUnknown "fragment_unknown" Expected "A later fragment came without, or before, the first one of its packet.";
    IcmpUnrelated "icmp_unrelated" Expected "An ICMP error speaks of no connection that is known.";
    MarkReached "mark_reached" Shortage "The outbound SA's numbers have reached the mark that the coupling facility holds; it is being raised.";
    NoNumber "no_number" Shortage "No sequence number came in time for a packet that shares its SA with other members.";
    // Shortages between cores and ports.
    HandoverFull "handover_full" Shortage "The ring to the core that owns the connection is full.";
    PuntFull "punt_full" Shortage "The ring to the control core is full.";
    TxFull "tx_full" Shortage "The port's transmit ring is full.";
}

/// How many reasons there are.
pub const DROP_REASONS: usize = DropReason::ALL.len();

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
            assert!(reason.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert!(reason.sentence().ends_with('.'));
        }
    }
}
