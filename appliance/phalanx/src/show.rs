//! `phalanx show`, `where`, `drain` and `undrain`: what is asked of a running appliance.

use control::report::{Request, Response, human, human_where, socket};
use serde_json::Value;

use crate::command_line::{
    Outcome, OutputArguments, ShowArguments, SocketArguments, TargetArguments, WhereArguments, print,
};

/// Asks the running appliance and prints what it says.
pub fn show(arguments: &ShowArguments) -> Outcome {
    let what = arguments.what.into();
    answer(&arguments.socket, &Request::Show(what))
        .map_or_else(|outcome| outcome, |found| printed(&arguments.output, &found, |found| human(what, found)))
}

/// Prints which target has a connection.
pub fn place(arguments: &WhereArguments) -> Outcome {
    let WhereArguments { protocol, source, destination, output, socket } = arguments;
    let flow = match Request::where_is(&format!("{protocol} {source} {destination}")) {
        Ok(request) => request,
        Err(error) => {
            eprintln!("error: {error}");
            return Outcome::Configuration;
        }
    };
    answer(socket, &flow).map_or_else(|outcome| outcome, |found| printed(output, &found, human_where))
}

/// Drains a target, or gives it connections again.
pub fn drain(arguments: &TargetArguments, on: bool) -> Outcome {
    let request = Request::Drain { target: arguments.target.clone(), on };
    match answer(&arguments.socket, &request) {
        Ok(_) if on => print(&format!("{} drains: `phalanx show targets` tells how far it is\n", arguments.target)),
        Ok(_) => print(&format!("{} is given new connections again\n", arguments.target)),
        Err(outcome) => outcome,
    }
}

fn answer(at: &SocketArguments, request: &Request) -> Result<Value, Outcome> {
    match socket::ask(&at.socket, request) {
        Ok(Response::Result(answer)) => Ok(answer),
        Ok(Response::Error(why)) => {
            eprintln!("error: {why}");
            Err(Outcome::Runtime)
        }
        Err(error) => {
            eprintln!("error: {error}");
            Err(if error.exit_code() == 3 { Outcome::NotReachable } else { Outcome::Runtime })
        }
    }
}

fn printed(output: &OutputArguments, found: &Value, human: impl Fn(&Value) -> Result<String, String>) -> Outcome {
    let text = if output.json { Ok(format!("{found}\n")) } else { human(found) };
    match text {
        Ok(text) => print(&text),
        Err(why) => {
            eprintln!("error: {why}");
            Outcome::Runtime
        }
    }
}
