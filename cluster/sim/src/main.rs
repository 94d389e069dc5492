//! `simulator --seeds A..B`: runs seeds on all processors, and says which of them break a rule.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use simulator::plant::Plant;
use simulator::run::{self, Outcome};
use simulator::scenario::{self, Scenario};
use simulator::tail::Tail;
use tracing::Level;

/// Lines of the log that are shown of a seed that failed.
const TAIL_LINES: usize = 60;
/// Failed seeds whose log is shown.
const SHOWN_MAX: usize = 3;

/// Drives whole clusters through DESIGN's rules: each seed gives another cluster, other traffic and other faults.
#[derive(Debug, Parser)]
#[command(name = "simulator", version, about)]
struct Arguments {
    /// Which seeds, the last one excluded
    #[arg(long, value_name = "A..B", value_parser = seeds, default_value = "0..100")]
    seeds: Range<u64>,
    /// Only this scenario, on every seed
    #[arg(long, value_name = "NAME", value_parser = named)]
    scenario: Option<&'static Scenario>,
    /// Break a rule, and end with the first seed that shows it; exit code 0 if one does
    #[arg(long, value_name = "RULE")]
    plant: Option<Plant>,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Say which scenarios there are, and which rules can be broken
    #[arg(long)]
    list: bool,
    /// Show all that happens; for one seed
    #[arg(long)]
    log: bool,
    /// Threads; as many as there are processors unless given
    #[arg(long, value_name = "COUNT")]
    threads: Option<usize>,
}

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let expected = || format!("found {text:?}, expected A..B with A below B, or one seed");
    if let Ok(one) = text.parse::<u64>() {
        return Ok(one..one.saturating_add(1));
    }
    let (first, end) = text.split_once("..").ok_or_else(expected)?;
    let (first, end) = (first.parse().map_err(|_| expected())?, end.parse().map_err(|_| expected())?);
    if first < end { Ok(first..end) } else { Err(expected()) }
}

fn named(text: &str) -> Result<&'static Scenario, String> {
    scenario::named(text).ok_or_else(|| {
        let names: Vec<&str> = scenario::ALL.iter().map(|scenario| scenario.name).collect();
        format!("found {text:?}; scenarios are {}", names.join(", "))
    })
}

/// What came of all seeds.
#[derive(Debug, Default)]
struct Sum {
    outcomes: BTreeMap<u64, Outcome>,
}

impl Sum {
    /// Of all seeds together, in their order: whatever thread ran them.
    fn trace_hash(&self) -> u64 {
        self.outcomes.values().fold(0xcbf2_9ce4_8422_2325, |hash: u64, outcome| {
            (hash ^ outcome.trace_hash).wrapping_mul(0x0100_0000_01b3).rotate_left(5)
        })
    }

    fn failed(&self) -> impl Iterator<Item = &Outcome> {
        self.outcomes.values().filter(|outcome| outcome.end.is_some())
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        return list();
    }
    if arguments.log {
        tracing_subscriber::fmt()
            .with_max_level(Level::DEBUG)
            .without_time()
            .with_target(false)
            .with_ansi(false)
            .init();
    }
    let sum = run_all(&arguments);
    match report(&arguments, &sum) {
        Ok(()) if sum.failed().next().is_some() == arguments.plant.is_some() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("nothing could be written: {error}");
            ExitCode::FAILURE
        }
    }
}

fn list() -> ExitCode {
    let scenarios = scenario::ALL.iter().map(|scenario| format!("scenario {:<22} {}", scenario.name, scenario.what));
    let plants = Plant::available().map(|plant| format!("rule     {}", Plant::name(plant)));
    let lines: Vec<String> = scenarios.chain(plants).collect();
    println!("{}", lines.join("\n"));
    ExitCode::SUCCESS
}

/// Runs all seeds, each on one thread; with a rule broken, until one shows it.
fn run_all(arguments: &Arguments) -> Sum {
    let next = Arc::new(AtomicU64::new(arguments.seeds.start));
    let is_found = AtomicBool::new(false);
    let sum = Mutex::new(Sum::default());
    let threads = arguments.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    std::thread::scope(|scope| {
        for _ in 0..threads.unwrap_or(1).max(1) {
            scope.spawn(|| {
                while !is_found.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= arguments.seeds.end {
                        break;
                    }
                    let outcome = run::run(seed, arguments.scenario, arguments.plant);
                    if arguments.plant.is_some() && outcome.end.is_some() {
                        is_found.store(true, Ordering::Relaxed);
                    }
                    sum.lock().unwrap_or_else(PoisonError::into_inner).outcomes.insert(seed, outcome);
                }
            });
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn report(arguments: &Arguments, sum: &Sum) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let failed: Vec<&Outcome> = sum.failed().collect();
    if arguments.json {
        let failures: Vec<_> = failed.iter().map(|outcome| failure(outcome)).collect();
        let total = |count: fn(&Outcome) -> u64| sum.outcomes.values().map(count).sum::<u64>();
        let object = serde_json::json!({
            "seeds": sum.outcomes.len(),
            "failed": failed.len(),
            "trace_hash": format!("{:016x}", sum.trace_hash()),
            "plant": arguments.plant.map(Plant::name),
            "delivered": total(|outcome| outcome.counts.0),
            "answers": total(|outcome| outcome.counts.1),
            "attacks": total(|outcome| outcome.attacks),
            "instants": total(|outcome| outcome.steps),
            "failures": failures,
        });
        return writeln!(out, "{object}");
    }
    for outcome in failed.iter().take(SHOWN_MAX) {
        show(&mut out, arguments, outcome)?;
    }
    let (seeds, hash) = (sum.outcomes.len(), sum.trace_hash());
    writeln!(out, "{seeds} seeds, {} failed, trace_hash {hash:016x}", failed.len())
}

fn failure(outcome: &Outcome) -> serde_json::Value {
    let (rule, what) = outcome.end.as_ref().map(|end| end.told()).unwrap_or_default();
    let hash = format!("{:016x}", outcome.trace_hash);
    serde_json::json!({
        "seed": outcome.seed, "scenario": outcome.scenario, "rule": rule, "what": what, "trace_hash": hash,
    })
}

/// Says all that is to be known of a failure: the seed is run once more, with its log.
fn show(out: &mut impl std::io::Write, arguments: &Arguments, outcome: &Outcome) -> std::io::Result<()> {
    let (rule, what) = outcome.end.as_ref().map(|end| end.told()).unwrap_or_default();
    let tail = Tail::new(TAIL_LINES);
    let subscriber =
        tracing_subscriber::fmt().without_time().with_target(false).with_ansi(false).with_writer(tail.clone()).finish();
    let scenario = scenario::named(outcome.scenario);
    let again = tracing::subscriber::with_default(subscriber, || run::run(outcome.seed, scenario, arguments.plant));
    let same = if again.trace_hash == outcome.trace_hash { "the same again" } else { "NOT THE SAME when run again" };
    let plant = arguments.plant.map(|plant| format!(" --plant {}", plant.name())).unwrap_or_default();
    writeln!(out, "seed {} scenario {}: rule {rule}: {what}", outcome.seed, outcome.scenario)?;
    tail.lines().iter().try_for_each(|line| writeln!(out, "    {line}"))?;
    writeln!(out, "  trace_hash {:016x}, {same}", outcome.trace_hash)?;
    writeln!(out, "  again: simulator --seeds {} --scenario {}{plant} --log", outcome.seed, outcome.scenario)
}
