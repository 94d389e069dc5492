//! `filters:` — which packets of authenticated clients go on to the application hosts.

use std::collections::BTreeMap;

use datapath::policy::{Filter, Rule, Verdict};
use ipsec::selector::{AddressRange, PortRange};

use super::dvipas::Dvipa;
use super::error::ConfigError;
use super::place::Place;
use super::ports::{host_address, refuse_ipv6};
use super::raw::{self, Word};
use super::routes::prefix;
use super::word::{choice, number};

/// More rules than this no filter has: every packet may have to be held against all of them.
pub const FILTER_RULES_MAX: usize = 256;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Validates `filters:`.
pub(super) fn validate(
    top: &Place<'_>,
    list: Option<Vec<raw::Filter>>,
    dvipas: &[Dvipa],
) -> Result<Vec<Filter>, ConfigError> {
    let here = top.key("filters");
    let mut lines = BTreeMap::new();
    let mut filters = Vec::new();
    for (place, raw) in here.items(list.unwrap_or_default()) {
        let dvipa = place.key("dvipa");
        let address = host_address(&dvipa, &raw.dvipa)?;
        if !dvipas.iter().any(|known| known.address == address) {
            return Err(dvipa.dangling(&raw.dvipa, "the address of a DVIPA", "add it to `dvipas:`"));
        }
        if let Some(line) = lines.insert(address, raw.dvipa.referenced.line()) {
            return Err(dvipa.duplicate(&raw.dvipa, line, "one filter for each DVIPA"));
        }
        let list = place.key("rules");
        let rules = list.some_items(raw.rules, FILTER_RULES_MAX)?.map(|(place, raw)| rule(&place, &raw));
        filters.push(Filter { address, rules: rules.collect::<Result<_, _>>()? });
    }
    Ok(filters)
}

fn rule(place: &Place<'_>, raw: &raw::FilterRule) -> Result<Rule, ConfigError> {
    let verdicts = [("permit", Verdict::Permit), ("deny", Verdict::Deny)];
    let verdict = choice(&place.key("action"), &raw.action, &verdicts)?;
    let protocols = [("any", None), ("tcp", Some(TCP)), ("udp", Some(UDP)), ("icmp", Some(ICMP))];
    let protocol = match &raw.protocol {
        None => None,
        Some(word) => choice(&place.key("protocol"), word, &protocols)?,
    };
    let source = match &raw.source {
        None => AddressRange::ANY_V4,
        Some(word) => {
            let range = prefix(&place.key("source"), word)?;
            refuse_ipv6(&place.key("source"), word, range.is_ipv4())?;
            range
        }
    };
    let ports = match &raw.port {
        None => PortRange::ANY,
        Some(word) if matches!(protocol, Some(TCP | UDP)) => ports(&place.key("port"), word)?,
        Some(word) => {
            return Err(place.key("port").conflict(
                word,
                "without `protocol: tcp` or `udp`",
                "no port, or one of both",
            ));
        }
    };
    Ok(Rule { protocol, source, ports, verdict })
}

/// A destination port, or a range of them.
fn ports(place: &Place<'_>, word: &Word) -> Result<PortRange, ConfigError> {
    let range = word.value.split_once('-').and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    match range {
        Some((from, to)) => {
            let range = PortRange::new(from, to).filter(|range| range.start() > 0);
            range.ok_or_else(|| place.invalid(word, "a range of ports from 1 to 65535, such as 8000-8099"))
        }
        None => number(place, word, 1..=u16::MAX)
            .map(PortRange::single)
            .map_err(|_| place.invalid(word, "a port from 1 to 65535, or a range such as 8000-8099")),
    }
}
