//! Traffic selectors: texts read back as they print; narrowing keeps what both sides mean and nothing else.

#![no_main]

use std::net::IpAddr;

use ipsec::selector::{AddressRange, PortRange, SELECTORS_MAX, SelectorTemplate, Selectors, TrafficSelector, narrow};
use libfuzzer_sys::arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::split;

fuzz_target!(|data: &[u8]| {
    match split::<1>(data) {
        Some(([0..=127], text)) => check_text(&String::from_utf8_lossy(text)),
        Some(([128..=255], bytes)) => {
            if let Ok(world) = World::arbitrary(&mut Unstructured::new(bytes)) {
                check_narrowing(&world);
            }
        }
        None => {}
    }
});

fn check_text(text: &str) {
    match text.parse::<SelectorTemplate>() {
        Ok(template) => {
            let printed = template.to_string();
            assert_eq!(printed.parse(), Ok(template), "{text:?} printed as {printed:?}");
            let resolved = template.resolve(IpAddr::from([192, 0, 2, 1]));
            assert_eq!(resolved.to_string().parse(), Ok(resolved));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Two sides' selectors, and packets to try them with.
#[derive(Debug)]
struct World {
    allowed: Vec<TrafficSelector>,
    proposed: Vec<TrafficSelector>,
    probes: Vec<(IpAddr, u8, Option<u16>)>,
}

impl World {
    fn arbitrary(input: &mut Unstructured<'_>) -> Result<Self> {
        let mut selectors = || -> Result<Vec<_>> {
            let count = input.int_in_range(0..=6)?;
            (0..count).map(|_| selector(input)).collect()
        };
        let (allowed, proposed) = (selectors()?, selectors()?);
        let count = input.int_in_range(0..=8)?;
        let probes = (0..count).map(|_| Ok((address(input)?, protocol(input)?, Option::<u16>::arbitrary(input)?)));
        Ok(Self { allowed, proposed, probes: probes.collect::<Result<_>>()? })
    }
}

/// Addresses from a small world, so that ranges meet.
fn address(input: &mut Unstructured<'_>) -> Result<IpAddr> {
    let low: u8 = input.arbitrary()?;
    Ok(match input.ratio(1_u8, 4)? {
        true => IpAddr::from(u128::from(low).to_be_bytes()),
        false => IpAddr::from([10, 0, 0, low]),
    })
}

fn protocol(input: &mut Unstructured<'_>) -> Result<u8> {
    input.choose(&[0, 1, 6, 17, 58]).copied()
}

fn selector(input: &mut Unstructured<'_>) -> Result<TrafficSelector> {
    let (a, b) = (address(input)?, address(input)?);
    let prefix = || AddressRange::from_prefix(a, 24).expect("both families have 24 bits");
    let addresses = AddressRange::new(a.min(b), a.max(b)).unwrap_or_else(prefix);
    let ports = match input.int_in_range(0..=3)? {
        0 => PortRange::ANY,
        1 => PortRange::OPAQUE,
        _ => {
            let (a, b) = (u16::arbitrary(input)?, u16::arbitrary(input)?);
            PortRange::new(a.min(b), a.max(b)).expect("they are in order")
        }
    };
    Ok(TrafficSelector { addresses, protocol: protocol(input)?, ports })
}

fn check_narrowing(world: &World) {
    let World { allowed, proposed, probes } = world;
    let narrowed = narrow(allowed, proposed);
    assert!(narrowed.len() <= SELECTORS_MAX);
    for (at, selector) in narrowed.iter().enumerate() {
        assert!(allowed.iter().any(|ours| ours.covers(selector)), "{selector} is not allowed");
        assert!(proposed.iter().any(|theirs| theirs.covers(selector)), "{selector} was not proposed");
        let others = narrowed.iter().enumerate().filter(|(other, _)| *other != at);
        assert!(!others.into_iter().any(|(_, other)| other.covers(selector)), "{selector} is named twice");
        // The notation has no words for some codes of ICMP type 0: its numbers below 256 are whole types.
        let has_words =
            !matches!(selector.protocol, 1 | 58) || selector.ports.end() > 255 || selector.ports.is_opaque();
        assert!(!has_words || selector.to_string().parse() == Ok(*selector), "{selector} reads differently");
    }
    let means = |side: &[TrafficSelector], probe: &(IpAddr, u8, Option<u16>)| {
        side.iter().any(|selector| selector.contains(probe.0, probe.1, probe.2))
    };
    for probe in probes {
        let both = means(allowed, probe) && means(proposed, probe);
        let kept = means(&narrowed, probe);
        assert!(both || !kept, "{probe:?} was let in");
        assert!(kept || !both || narrowed.len() == SELECTORS_MAX, "{probe:?} was lost");
    }
    let ours = Selectors { local: allowed.clone(), remote: proposed.clone() };
    let theirs = Selectors { local: proposed.clone(), remote: allowed.clone() };
    if let Some(narrowed) = ours.narrow(&theirs) {
        assert!(ours.contains(&narrowed) && theirs.contains(&narrowed));
        assert!(ours.contains(&ours));
    }
}
