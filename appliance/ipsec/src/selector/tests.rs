use super::*;
use proptest::prelude::*;

fn selector(text: &str) -> TrafficSelector {
    text.parse().unwrap()
}

fn selectors(local: &[&str], remote: &[&str]) -> Selectors {
    let read = |texts: &[&str]| texts.iter().map(|text| selector(text)).collect();
    Selectors { local: read(local), remote: read(remote) }
}

#[test]
fn intersection_takes_the_narrower_of_each_part() {
    let wide = selector("10.0.0.0/8");
    let web = selector("10.1.0.0/16[tcp/80]");
    assert_eq!(wide.intersect(&web), Some(web));
    assert_eq!(web.intersect(&wide), Some(web));
    assert!(wide.covers(&web) && !web.covers(&wide));
    assert_eq!(web.intersect(&selector("10.1.0.0/16[udp/80]")), None);
    assert_eq!(web.intersect(&selector("10.1.0.0/16[tcp/81]")), None);
    assert_eq!(web.intersect(&selector("10.2.0.0/16[tcp/80]")), None);
    let ports = selector("10.1.2.0/24[/70-90]");
    assert_eq!(web.intersect(&ports), Some(selector("10.1.2.0/24[tcp/80]")));
}

#[test]
fn narrowing_keeps_the_peers_order_and_drops_what_is_covered() {
    let allowed = [selector("10.0.0.0/8[tcp]"), selector("192.0.2.0/24")];
    let proposed = [selector("10.1.2.3[tcp/80]"), selector("0.0.0.0/0"), selector("10.9.0.0/16")];
    assert_eq!(narrow(&allowed, &proposed), [selector("10.0.0.0/8[tcp]"), selector("192.0.2.0/24")]);
    assert_eq!(narrow(&allowed, &proposed[..1]), [selector("10.1.2.3[tcp/80]")]);
    assert_eq!(narrow(&allowed, &[selector("172.16.0.0/12")]), []);
    assert_eq!(narrow(&allowed, &[]), []);
}

#[test]
fn hostile_26_a_flood_of_selectors_is_capped() {
    let proposed: Vec<_> = (0..=254).map(|n| selector(&format!("10.{n}.0.0/16"))).collect();
    let narrowed = narrow(&proposed, &proposed);
    assert_eq!(narrowed, proposed[..SELECTORS_MAX]);
}

#[test]
fn both_sides_must_have_something_in_common() {
    let ours = selectors(&["10.1.0.0/16[tcp/80]"], &["0.0.0.0/0"]);
    let agreed = ours.narrow(&selectors(&["0.0.0.0/0"], &["192.0.2.7/32"])).unwrap();
    assert_eq!(agreed, selectors(&["10.1.0.0/16[tcp/80]"], &["192.0.2.7/32"]));
    assert_eq!(agreed.to_string(), "10.1.0.0/16[tcp/80] === 192.0.2.7/32");
    assert_eq!(ours.narrow(&selectors(&["10.2.0.0/16"], &["192.0.2.7/32"])), None);
    assert_eq!(ours.narrow(&selectors(&["10.1.0.0/16"], &["2001:db8::/32"])), None);
    assert!(ours.contains(&agreed) && !agreed.contains(&ours));
}

fn flow(src: &str, src_port: u16, dst: &str, dst_port: u16, protocol: u8) -> FlowKey {
    FlowKey { src: src.parse().unwrap(), dst: dst.parse().unwrap(), protocol, src_port, dst_port }
}

#[test]
fn hostile_35_the_tunnel_check_looks_at_both_sides_and_their_ports() {
    let sa = selectors(&["203.0.113.80/32[tcp/80]"], &["10.7.0.0/24"]);
    let request = flow("10.7.0.9", 40_000, "203.0.113.80", 80, 6);
    assert!(sa.admits_inbound(&request, Fragment::Whole));
    assert!(sa.admits_outbound(&request.reversed(), Fragment::Whole));
    assert!(!sa.admits_outbound(&request, Fragment::Whole), "the sides are not interchangeable");
    for foreign in [
        FlowKey { src: "10.8.0.9".parse().unwrap(), ..request },
        FlowKey { dst: "203.0.113.81".parse().unwrap(), ..request },
        FlowKey { dst_port: 81, ..request },
        FlowKey { protocol: 17, ..request },
        flow("::ffff:10.7.0.9", 40_000, "::ffff:203.0.113.80", 80, 6),
    ] {
        assert!(!sa.admits_inbound(&foreign, Fragment::Whole), "{foreign}");
        assert!(!sa.admits_outbound(&foreign.reversed(), Fragment::Whole), "{foreign}");
    }
}

#[test]
fn hostile_35_fragments_without_ports_need_selectors_that_restrict_no_ports() {
    let web = selectors(&["203.0.113.80/32[tcp/80]"], &["10.7.0.0/24"]);
    let tcp = selectors(&["203.0.113.80/32[tcp]"], &["10.7.0.0/24"]);
    let opaque = selectors(&["203.0.113.80/32[tcp/opaque]"], &["10.7.0.0/24"]);
    let first = flow("10.7.0.9", 40_000, "203.0.113.80", 80, 6);
    let later = flow("10.7.0.9", 0, "203.0.113.80", 0, 6);
    assert!(web.admits_inbound(&first, Fragment::First));
    assert!(!web.admits_inbound(&later, Fragment::Later));
    assert!(!web.admits_inbound(&first, Fragment::Later), "ports of a later fragment mean nothing");
    assert!(tcp.admits_inbound(&later, Fragment::Later));
    assert!(opaque.admits_inbound(&later, Fragment::Later));
    assert!(!opaque.admits_inbound(&first, Fragment::First));
}

#[test]
fn protocols_without_ports_fit_only_where_ports_are_not_restricted() {
    let ping = flow("10.7.0.9", 0, "203.0.113.80", 0, 1);
    let restricted = selectors(&["203.0.113.80/32[/0-100]"], &["10.7.0.0/24"]);
    assert!(!restricted.admits_inbound(&ping, Fragment::Whole));
    assert!(selectors(&["203.0.113.80/32[icmp]"], &["10.7.0.0/24"]).admits_inbound(&ping, Fragment::Whole));
}

/// A small world in which every packet can be tried.
fn small_selector() -> impl Strategy<Value = TrafficSelector> {
    let ports = prop_oneof![
        Just(PortRange::ANY),
        Just(PortRange::OPAQUE),
        (0_u16..3, 0_u16..3).prop_map(|(a, b)| PortRange::new(a.min(b), a.max(b)).unwrap()),
    ];
    let protocol = prop::sample::select(vec![ANY_PROTOCOL, 6, 17]);
    (0_u8..4, 0_u8..4, protocol, ports).prop_map(|(a, b, protocol, ports)| TrafficSelector {
        addresses: AddressRange::new([10, 0, 0, a.min(b)].into(), [10, 0, 0, a.max(b)].into()).unwrap(),
        protocol,
        ports,
    })
}

/// Which packets of the small world a selector means.
fn meant(selector: &TrafficSelector) -> Vec<bool> {
    let mut all = Vec::new();
    for host in 0..4 {
        for protocol in [6, 17, 50] {
            for port in [None, Some(0), Some(1), Some(2), Some(u16::MAX)] {
                all.push(selector.contains([10, 0, 0, host].into(), protocol, port));
            }
        }
    }
    all
}

fn union(selectors: &[TrafficSelector]) -> Vec<bool> {
    let mut all = vec![false; 60];
    for selector in selectors {
        all.iter_mut().zip(meant(selector)).for_each(|(all, one)| *all |= one);
    }
    all
}

proptest! {
    #[test]
    fn intersecting_and_covering_agree_with_trying_every_packet(a in small_selector(), b in small_selector()) {
        let both: Vec<bool> = meant(&a).into_iter().zip(meant(&b)).map(|(a, b)| a && b).collect();
        let common = a.intersect(&b).map_or_else(|| vec![false; 60], |common| meant(&common));
        prop_assert_eq!(&common, &both);
        prop_assert_eq!(a.covers(&b), both == meant(&b));
    }

    #[test]
    fn narrowing_means_exactly_what_both_lists_mean(
        allowed in prop::collection::vec(small_selector(), 0..4),
        proposed in prop::collection::vec(small_selector(), 0..4),
    ) {
        let both: Vec<bool> = union(&allowed).into_iter().zip(union(&proposed)).map(|(a, b)| a && b).collect();
        prop_assert_eq!(union(&narrow(&allowed, &proposed)), both);
    }
}
