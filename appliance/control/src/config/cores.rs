//! `eal:` and `cores:` — what DPDK is started with, and which processor cores do what.

use std::collections::BTreeMap;
use std::fmt;

use super::error::{ConfigError, Warning};
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

/// What DPDK's environment layer is started with, apart from cores and ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eal {
    /// Arguments as DPDK documents them, in order.
    pub args: Vec<String>,
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
}

/// Validates `eal:`.
pub(super) fn validate_eal(top: &Place<'_>, raw: Option<raw::Eal>) -> Result<Eal, ConfigError> {
    let eal = top.key("eal");
    let here = eal.key("args");
    let mut args = Vec::new();
    for (place, word) in here.items(raw.unwrap_or_default().args.unwrap_or_default()) {
        if args.len() == ARGS_MAX {
            return Err(place.invalid(&word, format!("at most {ARGS_MAX} arguments")));
        }
        let arg = token(&place, &word, ARG_LEN_MAX, "an argument of DPDK's EAL")?;
        let option = arg.split('=').next().unwrap_or_default();
        let short = arg.len() > 2 && !arg.starts_with("--") && CORE_ARGS.iter().any(|core| arg.starts_with(*core));
        if short || CORE_ARGS.contains(&option) {
            return Err(place.invalid(&word, "arguments that name no cores; `cores:` names them"));
        }
        args.push(arg.to_owned());
    }
    Ok(Eal { args })
}

/// Validates `cores:`. A machine without that key gives its first core to everything.
pub(super) fn validate_cores(
    top: &Place<'_>,
    raw: Option<raw::Cores>,
    warnings: &mut Vec<Warning>,
) -> Result<Cores, ConfigError> {
    let Some(raw) = raw else {
        return Ok(Cores { data: vec![0], control: 0, idle: Idle::default() });
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
    Ok(Cores { data, control, idle })
}
