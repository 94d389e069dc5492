//! Benchmarks of the appliance: one data core between DPDK's net_pcap and net_null.
//!
//! **Purpose.** To say what a packet costs, in numbers that a busy machine does not bend: CPU time of the polling
//! thread, and ratios to what else was measured in the same breath.
//!
//! **Promises.** No number without a comparison before it: one round of every case is compared byte for byte with what
//! had to come out. Only packets that came to their end count, and a window with a drop does not.
//!
//! **What it never does.** It measures no network, no interrupt, no second core and no IKE. See `perf/README.md`.

#![forbid(unsafe_code)]

mod bench;
mod capture;
mod check;
mod crypto;
mod fault;
mod lab;
mod queue;
mod report;
mod rig;
mod timing;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use dpdk::{Eal, EalArguments, Memory, Mempool, MempoolConfig};
use ipsec::engine::{self, Engine, EngineChoice, EngineKind, Selection};
use ipsec::sa::Direction;
use phalanx::clock::Clock;

use crate::bench::Effort;
use crate::fault::Fault;
use crate::lab::{Case, SAS_MAX};
use crate::report::Format;
use crate::rig::Ground;

const WINDOWS: usize = 21;
const WINDOWS_QUICK: usize = 5;
const SIZES_BYTES: [usize; 3] = [64, 256, 1_420];
/// Four captures at a time and what is under way; as many as DPDK likes best.
const BUFFERS: u32 = 32_767;
const MEMORY_MEGABYTES: u32 = 192;

/// What a packet costs: net_pcap → one data core → net_null.
#[derive(Debug, Parser)]
#[command(name = "perf/run")]
struct Options {
    /// One JSON object a line instead of the table.
    #[arg(long)]
    json: bool,
    /// Few windows: a look, no measurement.
    #[arg(long)]
    quick: bool,
    /// Only this direction.
    #[arg(long, value_parser = direction)]
    direction: Option<Direction>,
    /// Only this inner packet size, in bytes.
    #[arg(long, value_parser = clap::value_parser!(u16).range(32..=1_440))]
    size: Option<u16>,
    /// Only this engine: ring or ipsec-mb.
    #[arg(long, value_parser = engine_choice)]
    engine: Option<EngineChoice>,
    /// SAs that the packets are spread over.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=SAS_MAX as i64))]
    sas: u16,
    /// The appliance's replay window, in packets; 0 is off.
    #[arg(long, default_value_t = 128)]
    replay_window: u32,
    /// Windows of each row.
    #[arg(long)]
    windows: Option<usize>,
    /// The CPU to measure on.
    #[arg(long, default_value_t = 0)]
    cpu: u32,
    /// Without `io` and `crypto`, for profilers; ratios are then to the first row.
    #[arg(long)]
    no_baselines: bool,
}

fn direction(text: &str) -> Result<Direction, String> {
    match text {
        "in" => Ok(Direction::Inbound),
        "out" => Ok(Direction::Outbound),
        other => Err(format!("unknown direction {other:?}; allowed are in and out")),
    }
}

fn engine_choice(text: &str) -> Result<EngineChoice, String> {
    text.parse().map_err(|error: engine::UnknownEngine| error.to_string())
}

impl Options {
    fn cases(&self) -> Vec<Case> {
        let directions = [Direction::Inbound, Direction::Outbound];
        let directions = directions.into_iter().filter(|&way| self.direction.is_none_or(|only| only == way));
        let sizes = self.size.map_or_else(|| SIZES_BYTES.to_vec(), |only| vec![only.into()]);
        let case = |direction, size_bytes| Case {
            direction,
            size_bytes,
            sas: self.sas.into(),
            replay_window_packets: self.replay_window,
        };
        directions.flat_map(|way| sizes.iter().map(move |&size| case(way, size))).collect()
    }

    /// The engines that were asked for; one that does not work here is said and left out.
    fn engines(&self) -> Result<Vec<Engine>, Fault> {
        if let Some(choice) = self.engine {
            let Selection { engine, fell_back } = engine::select(choice)?;
            return fell_back.map_or(Ok(vec![engine]), |reason| Err(reason.into()));
        }
        let mut engines = Vec::new();
        for kind in [EngineKind::IpsecMb, EngineKind::Ring] {
            let Selection { engine, fell_back } = engine::select(EngineChoice::Prefer(kind))?;
            match fell_back {
                None => engines.push(engine),
                Some(reason) => eprintln!("perf/run: no rows for {kind}: {reason}"),
            }
        }
        Ok(engines)
    }

    fn effort(&self) -> Effort {
        let windows = self.windows.unwrap_or(if self.quick { WINDOWS_QUICK } else { WINDOWS });
        let span = if self.quick { bench::WINDOW / 2 } else { bench::WINDOW };
        Effort { windows: windows.max(1), span: span.max(Duration::from_millis(1)), baselines: !self.no_baselines }
    }

    fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Table }
    }
}

fn main() -> ExitCode {
    match measure_all(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("perf/run: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn measure_all(options: Options) -> Result<(), Fault> {
    let arguments = EalArguments::new("phalanx-perf")
        .lcores(&format!("0@{0},1@{0}", options.cpu))
        .main_lcore(0)
        .memory(Memory::NoHuge { megabytes: MEMORY_MEGABYTES })
        .no_pci()
        .log_level("error");
    let eal = Eal::start(&arguments)?;
    let memory = Mempool::create(eal, &MempoolConfig::new("packets", BUFFERS))?;
    let ground = Ground { eal, memory, clock: Clock::start(eal) };
    // On an lcore and under the name that a data core has: what is measured is what runs.
    let lcore = eal.take_lcores().into_iter().next().ok_or(Fault::NoLcore)?;
    let job = lcore.launch("data-0", move || measure_cases(ground, &options))?;
    job.join().1
}

fn measure_cases(ground: Ground, options: &Options) -> Result<(), Fault> {
    let (engines, effort, format) = (options.engines()?, options.effort(), options.format());
    format.head();
    for case in options.cases() {
        for row in bench::run(ground, &case, &engines, effort)? {
            format.row(&row).map_err(Fault::setup)?;
        }
    }
    Ok(())
}
