//! The command socket: a request is what it says or is refused in one line; an answer survives its own line.

#![no_main]

use control::report::{REQUEST_LEN_MAX, Request, Response, What, human};
use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::split;

fuzz_target!(|data: &[u8]| {
    let Some(([which], line)) = split::<1>(data) else { return };
    match which % 2 {
        0 => check_request(line),
        _ => check_response(which / 2, line),
    }
});

fn check_request(line: &[u8]) {
    match Request::parse(line) {
        Ok(request) => {
            assert!(line.len() <= REQUEST_LEN_MAX);
            let again = request.to_line();
            assert!(again.ends_with('\n') && again.lines().count() == 1);
            assert_eq!(Request::parse(again.as_bytes()), Ok(request));
        }
        Err(error) => {
            // The refusal goes back over the socket, whatever the request made it quote.
            let line = Response::Error(error.to_string()).into_line();
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(Response::parse(&line), Ok(Response::Error(error.to_string())));
        }
    }
}

/// The other end of the socket: `phalanx show` reads what an appliance, or something in its place, answers.
fn check_response(what: u8, line: &[u8]) {
    match Response::parse(line) {
        Ok(Response::Result(value)) => {
            let _ = human(What::ALL[usize::from(what) % What::ALL.len()], &value);
            let line = Response::Result(value).into_line();
            assert!(line.ends_with(b"\n") && Response::parse(&line).is_ok());
        }
        Ok(Response::Error(_)) => {}
        Err(error) => assert!(!error.is_empty()),
    }
}
