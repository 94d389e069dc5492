//! `eal:` and `cores:` — what DPDK is started with, and which processor cores do what.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;

use datapath::core::Capacity;

use super::error::{ConfigError, Warning, listed};
use super::place::Place;
use super::raw;
use super::word::{choice, number, token};

/// More data cores than this no appliance has.
pub const DATA_CORES_MAX: usize = 64;

const CORE_MAX: u16 = 1023;
const ARGS_MAX: usize = 64;
const ARG_LEN_MAX: usize = 1024;

/// Words of the EAL that name cores, which is what `cores:` is for.
const CORE_ARGS: [&str; 9] =
    ["-l", "-c", "-s", "-S", "--lcores", "--main-lcore", "--master-lcore", "--corelist", "--coremask"];

/// Words of the EAL that the appliance cannot live with: other handlers of buffers are made for one thread, another
/// process would share our ports, and the telemetry thread looks at ports while they close.
const REFUSED_ARGS: [&str; 3] = ["--mbuf-pool-ops-name", "--proc-type", "--telemetry"];

/// A burst for each of some cores and ports is the least that packets can move in; above the most, indices of DPDK's
/// own rings would be in reach.
const MBUFS: RangeInclusive<u32> = 256..=16_777_215;
/// A table needs no fewer entries than a bucket has; above the most, a core would take gigabytes.
const CONNECTIONS: RangeInclusive<usize> = 16..=16_777_216;

/// What DPDK's environment layer is started with, apart from cores and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eal {
    /// Arguments as DPDK documents them, in order.
    pub args: Vec<String>,
    /// Packet buffers of all ports together; `None` for as many as all queues and rings can hold.
    pub mbufs: Option<u32>,
}

/// What a data core does when there is nothing to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Polls a while, then yields, then sleeps for growing spans: for cores that others use too.
    #[default]
    Adaptive,
    /// Polls on: for dedicated cores.
    Spin,
}

impl fmt::Display for Idle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Adaptive => "adaptive",
            Self::Spin => "spin",
        })
    }
}

/// Which processor cores do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// Cores that run a poll loop each, distinct.
    pub data: Vec<u16>,
    /// The core of IKE and our own IP stack. It may be one of the data cores on a small machine.
    pub control: u16,
    /// What data cores do when there is nothing to do.
    pub idle: Idle,
    /// Connections that each data core can own.
    pub connections: usize,
}

/// Validates `eal:`.
pub(super) fn validate_eal(top: &Place<'_>, raw: Option<raw::Eal>) -> Result<Eal, ConfigError> {
    let (eal, raw) = (top.key("eal"), raw.unwrap_or_default());
    let here = eal.key("args");
    let mut args = Vec::new();
    for (place, word) in here.items(raw.args.unwrap_or_default()) {
        if args.len() == ARGS_MAX {
            return Err(place.invalid(&word, format!("at most {ARGS_MAX} arguments")));
        }
        let arg = token(&place, &word, ARG_LEN_MAX, "an argument of DPDK's EAL")?;
        if CORE_ARGS.iter().any(|option| is_option(arg, option)) {
            return Err(place.invalid(&word, "arguments that name no cores; `cores:` names them"));
        }
        if REFUSED_ARGS.iter().any(|option| is_option(arg, option)) {
            return Err(place.invalid(&word, format!("arguments other than {}", listed(REFUSED_ARGS))));
        }
        args.push(arg.to_owned());
    }
    let mbufs = raw.mbufs.map(|word| number(&eal.key("mbufs"), &word, MBUFS)).transpose()?;
    Ok(Eal { args, mbufs })
}

/// Whether DPDK reads `arg` as this option: a short one with its value behind it, or a long one, perhaps abbreviated.
fn is_option(arg: &str, option: &str) -> bool {
    if !option.starts_with("--") {
        return !arg.starts_with("--") && arg.starts_with(option);
    }
    let name = arg.split('=').next().unwrap_or_default();
    name.len() > "--".len() && option.starts_with(name)
}

/// Validates `cores:`. A machine without that key gives its first core to everything.
pub(super) fn validate_cores(
    top: &Place<'_>,
    raw: Option<raw::Cores>,
    warnings: &mut Vec<Warning>,
) -> Result<Cores, ConfigError> {
    let Some(raw) = raw else {
        let connections = Capacity::default().connections;
        return Ok(Cores { data: vec![0], control: 0, idle: Idle::default(), connections });
    };
    let here = top.key("cores");
    let data_place = here.key("data");
    let mut lines = BTreeMap::new();
    let mut data = Vec::new();
    for (place, word) in data_place.some_items(raw.data, DATA_CORES_MAX)? {
        let core = number(&place, &word, 0..=CORE_MAX)?;
        if let Some(line) = lines.insert(core, word.referenced.line()) {
            return Err(place.duplicate(&word, line, "each data core once"));
        }
        data.push(core);
    }
    let control = match &raw.control {
        None => 0,
        Some(word) => number(&here.key("control"), word, 0..=CORE_MAX)?,
    };
    let idle = match &raw.idle {
        None => Idle::default(),
        Some(word) => {
            let idle = choice(&here.key("idle"), word, &[("adaptive", Idle::Adaptive), ("spin", Idle::Spin)])?;
            if idle == Idle::Spin && data.contains(&control) {
                let text = format!("data core {control} spins and the control core is the same: IKE will be slow");
                warnings.push(here.key("idle").warning(word, text));
            }
            idle
        }
    };
    let connections = match &raw.connections {
        None => Capacity::default().connections,
        Some(word) => number(&here.key("connections"), word, CONNECTIONS)?,
    };
    Ok(Cores { data, control, idle, connections })
}
