//! What a DVIPA offers: its destination port table.

use datapath::drops::DropReason;
use datapath::policy::Service;
use wire::tcp::Flags;
use wire::{ipv4, protocol};

use crate::support::client::{Client, SaSpec};
use crate::support::packets::{DVIPA, Flow, OTHER_DVIPA, ip, ip_header};
use crate::support::{Bench, Setup};

/// An SA that admits everything, to a DVIPA that offers little; beside it one that lists nothing.
fn with_services(cores: usize) -> (Bench, Client) {
    let listed = |protocol, port| Service { address: DVIPA.into(), protocol, port };
    let services = vec![listed(protocol::TCP, 443), listed(protocol::UDP, 53), listed(protocol::TCP, 80)];
    let mut bench = Bench::with(Setup { services, ..Setup::of(cores) });
    let client = bench.connect(SaSpec { local_ts: "0.0.0.0/0", ..SaSpec::default() });
    (bench, client)
}

fn arrives(bench: &mut Bench, client: &mut Client, packet: &[u8]) -> bool {
    let core = packet.len() % bench.cores();
    bench.client_sends(core, &client.seal(packet));
    bench.settle();
    bench.take_delivered().len() == 1
}

#[test]
fn a_listed_port_is_reached_by_its_protocol_alone() {
    for cores in 1..=3 {
        let (mut bench, mut client) = with_services(cores);
        let flow = client.flow(5_000);
        let to = |dst_port| Flow { dst_port, ..flow };
        let offered = [to(80).tcp(Flags::SYN, b""), to(443).tcp(Flags::ACK, b"mid-stream"), to(53).udp(b"question")];
        for packet in &offered {
            assert!(arrives(&mut bench, &mut client, packet));
        }
        assert_eq!(bench.connections().len(), 3);
        let refused = [
            to(81).tcp(Flags::SYN, b""),
            to(22).tcp(Flags::ACK, b"no way round a SYN"),
            to(22).tcp(Flags::RST, b""),
            to(80).udp(b"the port of another protocol"),
            to(53).tcp(Flags::SYN, b""),
            ip(ip_header(client.inner, DVIPA, protocol::GRE), &[0; 24]),
        ];
        for packet in &refused {
            assert!(!arrives(&mut bench, &mut client, packet));
        }
        bench.assert_drops(&[(DropReason::ServiceNotOffered, refused.len() as u64)]);
        assert_eq!(bench.connections().len(), 3, "what is not offered leaves no trace");
    }
}

#[test]
fn an_address_without_services_offers_every_port() {
    let (mut bench, mut client) = with_services(2);
    let flow = Flow { dst: OTHER_DVIPA, dst_port: 22, ..client.flow(5_000) };
    assert!(arrives(&mut bench, &mut client, &flow.tcp(Flags::SYN, b"")));
    assert!(arrives(&mut bench, &mut client, &flow.udp(b"any port")));
}

#[test]
fn icmp_and_later_fragments_pass_beside_the_list() {
    let (mut bench, mut client) = with_services(2);
    let flow = client.flow(5_000);
    assert!(arrives(&mut bench, &mut client, &flow.echo_request(b"are you there")));
    let segment = flow.tcp_segment(Flags::ACK, None, &[7; 100]);
    let header = ip_header(client.inner, DVIPA, protocol::TCP);
    let later = ip(ipv4::Repr { more_fragments: false, fragment_offset: 64, ..header }, &segment[64..]);
    assert!(arrives(&mut bench, &mut client, &later));
    let unlisted = Flow { dst_port: 81, ..flow }.tcp_segment(Flags::ACK, None, &[7; 100]);
    let first = ip(ipv4::Repr { more_fragments: true, fragment_offset: 0, ..header }, &unlisted[..64]);
    assert!(!arrives(&mut bench, &mut client, &first), "without its first one a packet never stands");
    bench.assert_drops(&[(DropReason::ServiceNotOffered, 1)]);
}
