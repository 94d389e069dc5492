//! The symmetric hash: equal both ways, different for all else, spread evenly.

use super::super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::string::ToString;

const SEED: FlowSeed = FlowSeed::new(*b"sixteen bytes !!");

fn any_flow() -> impl Strategy<Value = FlowKey> {
    // Few values each, so that equal addresses with unequal ports and the like do turn up.
    let port = || prop_oneof![0..4_u16, any::<u16>()];
    let v4 = || prop_oneof![0..4_u32, any::<u32>()].prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
    let v6 = || prop_oneof![0..4_u128, any::<u128>()].prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));
    let ends = prop_oneof![(v4(), v4()), (v6(), v6()), (v4(), v6())];
    (ends, any::<u8>(), port(), port()).prop_map(|((src, dst), protocol, src_port, dst_port)| FlowKey {
        src,
        dst,
        protocol,
        src_port,
        dst_port,
    })
}

fn v4_flow(src: u32, dst: u32, src_port: u16, dst_port: u16) -> FlowKey {
    let (src, dst) = (Ipv4Addr::from_bits(src).into(), Ipv4Addr::from_bits(dst).into());
    FlowKey { src, dst, protocol: protocol::TCP, src_port, dst_port }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_flow_and_its_reverse_hash_alike(flow in any_flow(), seed: [u8; 16]) {
        let seed = FlowSeed::new(seed);
        prop_assert_eq!(flow.symmetric_hash(&seed), flow.reversed().symmetric_hash(&seed));
        prop_assert_eq!(flow.reversed().reversed(), flow);
    }

    #[test]
    fn another_seed_gives_another_hash(flow in any_flow(), seed: [u8; 16], bit in 0..128_usize) {
        let mut other = seed;
        other[bit / 8] ^= 1 << (bit % 8);
        prop_assert_ne!(flow.symmetric_hash(&FlowSeed::new(seed)), flow.symmetric_hash(&FlowSeed::new(other)));
    }

    #[test]
    fn flows_that_are_not_each_others_reverse_hash_apart(a in any_flow(), b in any_flow()) {
        // A mixed pair, which no packet has, hashes as its IPv4-mapped form on purpose.
        let is_mixed = |flow: &FlowKey| flow.src.is_ipv4() != flow.dst.is_ipv4();
        if a == b || a == b.reversed() || is_mixed(&a) || is_mixed(&b) {
            return Ok(());
        }
        prop_assert_ne!(a.symmetric_hash(&SEED), b.symmetric_hash(&SEED));
    }
}

#[test]
fn ports_belong_to_their_addresses() {
    // The same addresses and the same ports, crossed: another connection, so another hash.
    assert_ne!(v4_flow(1, 2, 80, 81).symmetric_hash(&SEED), v4_flow(1, 2, 81, 80).symmetric_hash(&SEED));
}

#[test]
fn consecutive_connections_spread_evenly_whichever_bits_are_used() {
    const FLOWS: usize = 40_000;
    for shift in [0, 16, 32, 60] {
        let mut buckets = [0_usize; 16];
        for i in 0..FLOWS as u32 {
            let flow = v4_flow(0x0a00_0001 + i / 1000, 0xcb00_7150, 1024 + (i % 1000) as u16, 80);
            buckets[(flow.symmetric_hash(&SEED) >> shift) as usize % 16] += 1;
        }
        // 2,500 expected, with a standard deviation of 48: six of them are never met by chance.
        for count in buckets {
            assert!(count.abs_diff(FLOWS / 16) < 300, "bits from {shift}: {buckets:?}");
        }
    }
}

#[test]
fn many_connections_collide_no_more_than_chance_has_it() {
    let hashes: BTreeSet<u64> = (0..100_000).map(|i| v4_flow(i, !i, i as u16, 443).symmetric_hash(&SEED)).collect();
    assert_eq!(hashes.len(), 100_000);
}

#[test]
fn the_seed_is_never_printed() {
    assert_eq!(std::format!("{SEED:?}"), "FlowSeed(..)");
}

#[test]
fn a_flow_prints_ports_only_where_there_are_some() {
    let flow = FlowKey { protocol: protocol::ICMP, ..v4_flow(0x0a00_0001, 0x0a00_0002, 0, 0) };
    assert_eq!(flow.to_string(), "icmp 10.0.0.1 -> 10.0.0.2");
    let flow = FlowKey { protocol: 47, ..flow };
    assert_eq!(flow.to_string(), "protocol 47 10.0.0.1 -> 10.0.0.2");
}
