//! Any bytes on any port: nothing panics, nothing is delivered, nothing leaves unsealed, nothing is remembered.

use proptest::prelude::*;
use wire::ethernet::MacAddress;
use wire::{ipv4, natt, protocol};

use crate::support::client::SaSpec;
use crate::support::packets::{
    DVIPA, Flow, INSIDE_MAC, NETWORK_ADDRESS, NETWORK_MAC, ROUTER_MAC, WEB, ether, ip_header, ip_with_options,
};
use crate::support::{Bench, INSIDE, NETWORK};

fn bytes(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..len)
}

/// ESP as far as its header goes, most often under an SPI that exists.
fn esp() -> impl Strategy<Value = Vec<u8>> {
    let spi = prop_oneof![4 => Just(SaSpec::default().spi_in), 1 => any::<u32>(), 1 => 0_u32..256];
    (spi, any::<u32>(), bytes(120))
        .prop_map(|(spi, sequence, body)| [&spi.to_be_bytes()[..], &sequence.to_be_bytes(), &body].concat())
}

/// An IPv4 packet whose header is right and whose content is anything.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    let dst = prop::sample::select(vec![DVIPA, NETWORK_ADDRESS, WEB, [10, 7, 0, 9].into(), [8, 8, 8, 8].into()]);
    let upper = prop_oneof![
        2 => esp().prop_map(|esp| (protocol::ESP, esp)),
        2 => (esp(), any::<u16>(), any::<bool>()).prop_map(|(esp, src_port, is_natt)| {
            let dst_port = if is_natt { natt::PORT } else { src_port.rotate_left(5) };
            let flow = Flow { src: [198, 51, 100, 7].into(), src_port, dst: DVIPA, dst_port };
            (protocol::UDP, flow.udp_datagram(&esp))
        }),
        1 => (any::<u8>(), bytes(100)),
    ];
    let fragment = prop_oneof![6 => Just((false, 0)), 1 => (any::<bool>(), 0_u16..8_000)];
    (any::<[u8; 4]>(), dst, upper, 0_usize..4, fragment, any::<u8>()).prop_map(
        |(src, dst, (protocol, payload), option_words, (more_fragments, words), ttl)| {
            let header = ip_header(src.into(), dst, protocol);
            let header = ipv4::Repr { more_fragments, fragment_offset: words * 8, ttl, ..header };
            ip_with_options(header, &vec![1; option_words * 4], &payload)
        },
    )
}

/// A frame from anything at all to what almost passes.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let mac = prop::sample::select(vec![NETWORK_MAC, INSIDE_MAC, MacAddress::BROADCAST]);
    let vlan = prop_oneof![6 => Just(None), 1 => any::<u16>().prop_map(Some)];
    let framed = (packet(), mac, vlan, any::<usize>(), any::<u8>(), any::<bool>());
    prop_oneof![
        1 => bytes(80),
        6 => framed.prop_map(|(packet, mac, vlan, at, mask, is_bent)| {
            let mut frame = ether(ROUTER_MAC, mac, vlan, &packet);
            let at = at % frame.len();
            frame[at] ^= if is_bent { mask } else { 0 };
            frame
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_frame_from_outside_passes_without_a_key(
        cores in 1_usize..4, frames in prop::collection::vec((0_usize..3, frame()), 1..60),
    ) {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec::default());
        for (core, frame) in &frames {
            bench.inject(core % cores, NETWORK, frame);
        }
        bench.settle();
        prop_assert!(bench.delivered.is_empty() && bench.sent.is_empty());
        prop_assert!(bench.connections().is_empty());
        let balance = bench.balance();
        prop_assert_eq!(balance.received, balance.dropped + balance.punted);
        // And the first true packet passes, whatever came before.
        bench.client_sends(0, &client.seal(&client.flow(5_000).udp(b"true")));
        bench.settle();
        prop_assert_eq!(bench.take_delivered().len(), 1);
    }

    #[test]
    fn no_frame_from_inside_leaves_unsealed(
        cores in 1_usize..4, frames in prop::collection::vec((0_usize..3, frame()), 1..60),
    ) {
        let mut bench = Bench::new(cores);
        let mut client = bench.connect(SaSpec { remote_ts: "0.0.0.0/0", ..SaSpec::default() });
        for (core, frame) in &frames {
            bench.inject(core % cores, INSIDE, frame);
        }
        bench.settle();
        prop_assert!(bench.delivered.is_empty() && bench.connections().is_empty());
        for sent in bench.take_sent() {
            prop_assert!(client.open(&sent.bytes).is_ok(), "{:?}", sent.bytes);
        }
    }
}
