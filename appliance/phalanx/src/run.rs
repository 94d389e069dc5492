//! `phalanx run` and `phalanx check`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use control::config::Config;
use phalanx::appliance::{Appliance, ApplianceError};
use tracing::{error, info, warn};

use crate::command_line::{ConfigArguments, Outcome, RunArguments};
use crate::log;

/// Validates a configuration as `run` would.
pub fn check(arguments: &ConfigArguments) -> Outcome {
    match Config::load(&arguments.config) {
        Ok(config) => {
            config.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
            println!("{}: configuration is valid", arguments.config.display());
            Outcome::Ok
        }
        Err(error) => {
            eprintln!("error: {error}");
            Outcome::Configuration
        }
    }
}

/// Runs the appliance until it is told to stop.
pub fn run(arguments: &RunArguments) -> Outcome {
    let config = match Config::load(&arguments.config.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("error: {error}");
            return Outcome::Configuration;
        }
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

fn run_until_told(config: Config, arguments: &RunArguments) -> Result<(), ApplianceError> {
    let told = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        if let Err(error) = signal_hook::flag::register(signal, Arc::clone(&told)) {
            warn!(signal, %error, "this signal will end the appliance without a goodbye");
        }
    }
    let mut appliance = Appliance::start(config, &arguments.state)?;
    while !told.load(Ordering::Relaxed) {
        appliance.turn()?;
    }
    info!("told to stop: deleting SAs at the peers");
    appliance.shut_down();
    Ok(())
}
