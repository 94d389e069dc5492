//! `phalanx show`.

use control::report::{Request, Response, human, socket};

use crate::command_line::{Outcome, ShowArguments, print};

/// Asks the running appliance and prints what it says.
pub fn show(arguments: &ShowArguments) -> Outcome {
    let what = arguments.what.into();
    let answer = match socket::ask(&arguments.socket.socket, Request::Show(what)) {
        Ok(Response::Result(answer)) => answer,
        Ok(Response::Error(why)) => {
            eprintln!("error: {why}");
            return Outcome::Runtime;
        }
        Err(error) => {
            eprintln!("error: {error}");
            return if error.exit_code() == 3 { Outcome::NotReachable } else { Outcome::Runtime };
        }
    };
    let text = if arguments.output.json { Ok(format!("{answer}\n")) } else { human(what, &answer) };
    match text {
        Ok(text) => print(&text),
        Err(why) => {
            eprintln!("error: {why}");
            Outcome::Runtime
        }
    }
}
