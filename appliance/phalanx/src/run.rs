//! `phalanx run` and `phalanx check`.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use control::config::Config;
use control::report::{metrics, socket};
use phalanx::appliance::{Appliance, ApplianceError};
use phalanx::asks::{self, Asker};
use phalanx::clustering;
use tracing::{error, info, warn};

use crate::command_line::{ConfigArguments, Outcome, RunArguments, print};
use crate::log;

/// Validates a configuration as `run` would.
pub fn check(arguments: &ConfigArguments) -> Outcome {
    let config = match load(&arguments.config) {
        Ok(config) => config,
        Err(outcome) => return outcome,
    };
    config.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    print(&format!("{}: configuration is valid\n", arguments.config.display()))
}

/// A configuration that was read, with all that it names: what is wrong with it must show before a start is registered.
fn load(path: &Path) -> Result<Config, Outcome> {
    let refused = |error: &dyn std::fmt::Display| {
        eprintln!("error: {error}");
        Outcome::Configuration
    };
    let config = Config::load(path).map_err(|error| refused(&error))?;
    config.cluster.as_ref().map_or(Ok(()), clustering::check).map_err(|error| refused(&error))?;
    Ok(config)
}

/// Runs the appliance until it is told to stop.
pub fn run(arguments: &RunArguments) -> Outcome {
    let config = match load(&arguments.config.config) {
        Ok(config) => config,
        Err(outcome) => return outcome,
    };
    log::start(&config.log);
    config.warnings.iter().for_each(|warning| warn!("{warning}"));
    match run_until_told(config, arguments) {
        Ok(()) => Outcome::Ok,
        Err(error) => {
            error!("{error}");
            Outcome::Runtime
        }
    }
}

/// Why the appliance ended, or did not start.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("{0}")]
    Appliance(#[from] ApplianceError),
    #[error("{0}")]
    CommandSocket(#[from] socket::ServeError),
    #[error("{0}")]
    Metrics(#[from] metrics::ServeError),
}

fn run_until_told(config: Config, arguments: &RunArguments) -> Result<(), RunError> {
    let told = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&told)) {
            warn!(signal, %error, "this signal will end the appliance without a goodbye");
        }
    }
    let metrics = config.metrics;
    let mut appliance = Appliance::start(config, &arguments.state)?;
    let (asker, mut asks) = asks::channel();
    let doors = open_doors(&arguments.socket.socket, metrics.map(|metrics| metrics.listen), &asker);
    if doors.is_ok() {
        while !told.load(Ordering::Relaxed) {
            appliance.turn();
            appliance.answer(&mut asks);
        }
        info!("told to stop: deleting SAs at the peers");
    }
    // Whoever still asks is told that nobody answers any more.
    drop(asks);
    appliance.shut_down();
    doors.map(drop)
}

/// Where operators ask, open as long as it lives.
struct Doors {
    _command_socket: socket::Server,
    _metrics: Option<metrics::Server>,
}

fn open_doors(socket: &Path, metrics: Option<SocketAddr>, asker: &Asker) -> Result<Doors, RunError> {
    let command_socket = open_command_socket(socket, asker)?;
    let metrics = metrics.map(|listen| open_metrics(listen, asker)).transpose()?;
    Ok(Doors { _command_socket: command_socket, _metrics: metrics })
}

fn open_command_socket(path: &Path, asker: &Asker) -> Result<socket::Server, RunError> {
    let asker = asker.clone();
    Ok(socket::Server::start(path, move |request| asker.respond(request))?)
}

fn open_metrics(listen: SocketAddr, asker: &Asker) -> Result<metrics::Server, RunError> {
    let asker = asker.clone();
    let take = move || asker.snapshot(false).inspect_err(|why| warn!(why, "a scrape got no numbers"));
    Ok(metrics::Server::start(listen, env!("CARGO_PKG_VERSION"), take)?)
}
