//! IP packets with everything that may stand before a payload.

use core::net::Ipv4Addr;

use proptest::prelude::*;
use wire::{ipv4, protocol};

/// The client and the service of the tests' transport mode, which are the SA's own addresses.
const SRC: [u8; 4] = [203, 0, 113, 80];
const DST: [u8; 4] = [198, 51, 100, 9];

/// An IP packet, and by hand where ESP belongs in it.
#[derive(Clone, Debug)]
pub struct Sample {
    pub bytes: Vec<u8>,
    /// What stays outside.
    pub header_len: usize,
    /// What ESP's trailer must say.
    pub next_header: u8,
}

/// An upper layer of so many bytes, with ports and, for TCP, a header length and flags.
pub fn upper(protocol: u8, len: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
    if protocol == protocol::TCP && len >= 20 {
        (bytes[12], bytes[13]) = (0x50, 0x18);
    }
    bytes
}

/// An IPv4 packet with so many words of options (NOPs), all fields set to something.
pub fn v4(option_words: usize, protocol: u8, payload: &[u8]) -> Sample {
    let header_len = 20 + 4 * option_words;
    let mut bytes = vec![1; header_len];
    let mut ip = ipv4::Packet::new_unchecked(&mut bytes[..]);
    ip.set_version_and_header_len(header_len);
    ip.set_dscp_and_ecn(0x2e, 1);
    ip.set_total_len((header_len + payload.len()) as u16);
    ip.set_identification(0xbeef);
    ip.set_fragmentation(true, false, 0);
    ip.set_ttl(61);
    ip.set_protocol(protocol);
    ip.set_src(Ipv4Addr::from(SRC));
    ip.set_dst(Ipv4Addr::from(DST));
    ip.fill_checksum();
    bytes.extend(payload);
    Sample { bytes, header_len, next_header: protocol }
}

/// An IPv6 packet with these extension headers, each a kind and how many times 8 bytes it has beyond the first 8.
pub fn v6(chain: &[(u8, u8)], protocol: u8, payload: &[u8]) -> Sample {
    let kinds: Vec<u8> = chain.iter().map(|(kind, _)| *kind).chain([protocol]).collect();
    let mut bytes = vec![0x6b, 0x91, 0x23, 0x45, 0, 0, kinds[0], 61];
    bytes.extend((0..32).map(|at| 0x20 + at));
    let (mut header_len, mut next_header) = (40, kinds[0]);
    for ((kind, units), next) in chain.iter().zip(&kinds[1..]) {
        let is_fragment = *kind == protocol::FRAGMENT;
        // The length field is reserved in a fragment header; an atomic one has neither offset nor more.
        let (len, offset) = if is_fragment { (8, 0) } else { (8 + 8 * usize::from(*units), 0x55) };
        bytes.extend([*next, *units, offset, 0, 7, 7, 7, 7]);
        bytes.extend(vec![0x77; len - 8]);
        if *kind != protocol::DESTINATION_OPTIONS {
            (header_len, next_header) = (bytes.len(), *next);
        }
    }
    bytes.extend(payload);
    let payload_len = (bytes.len() - 40) as u16;
    bytes[4..6].copy_from_slice(&payload_len.to_be_bytes());
    Sample { bytes, header_len, next_header }
}

fn chains() -> impl Strategy<Value = Vec<(u8, u8)>> {
    use protocol::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING};
    let kind = prop::sample::select(vec![DESTINATION_OPTIONS, ROUTING, DESTINATION_OPTIONS]);
    let others = prop::collection::vec((kind, 0_u8..4), 0..4);
    (others, prop::option::of(0_u8..3), prop::option::of((0_usize..4, any::<u8>()))).prop_map(
        |(mut chain, hop, fragment)| {
            if let Some((at, reserved)) = fragment {
                chain.insert(at.min(chain.len()), (FRAGMENT, reserved));
            }
            if let Some(units) = hop {
                chain.insert(0, (HOP_BY_HOP, units));
            }
            chain
        },
    )
}

/// Any whole packet that transport mode carries.
pub fn samples() -> impl Strategy<Value = Sample> {
    let protocols =
        prop::sample::select(vec![protocol::TCP, protocol::UDP, protocol::ICMP, protocol::GRE, protocol::IPV4]);
    (protocols, 20_usize..1_500).prop_flat_map(|(protocol, len)| {
        let payload = upper(protocol, len);
        let same = payload.clone();
        prop_oneof![
            (0_usize..11).prop_map(move |words| v4(words, protocol, &payload)),
            chains().prop_map(move |chain| v6(&chain, protocol, &same)),
        ]
    })
}
