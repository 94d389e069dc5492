//! `phalanx`: run the appliance, check a configuration, ask a running appliance what it sees.

#![forbid(unsafe_code)]

mod command_line;
mod log;
mod pki;
mod run;
mod show;

use std::process::ExitCode;

use clap::Parser;
use command_line::{CommandLine, Outcome, Verb};

fn main() -> ExitCode {
    phalanx::panics::end_process_with(Outcome::Runtime.exit_code().into());
    let outcome = match CommandLine::parse().verb {
        Verb::Run(arguments) => run::run(&arguments),
        Verb::Check(arguments) => run::check(&arguments),
        Verb::Show(arguments) => show::show(&arguments),
        Verb::Where(arguments) => show::place(&arguments),
        Verb::Drain(arguments) => show::drain(&arguments, true),
        Verb::Undrain(arguments) => show::drain(&arguments, false),
        Verb::Pki(arguments) => pki::pki(&arguments),
        Verb::Version(arguments) => command_line::print_version(arguments.json),
    };
    outcome.into()
}
