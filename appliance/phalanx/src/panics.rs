//! When code is wrong: the panic is logged like any other error, and the process ends as after any other.
//!
//! No half of an appliance lives on. A data core that is gone would take its connections and the numbers of its SAs with
//! it while IKE goes on promising both; whoever supervises the process starts a whole one.

use std::panic::PanicHookInfo;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::error;

/// From now on, a panic of any thread ends the process with this exit code.
pub fn end_process_with(exit_code: i32) {
    std::panic::set_hook(Box::new(move |panic| {
        static ENDING: AtomicBool = AtomicBool::new(false);
        // A second thread that panics meanwhile must not end the end.
        while ENDING.swap(true, Ordering::AcqRel) {
            std::thread::park();
        }
        report(panic);
        std::process::exit(exit_code);
    }));
}

fn report(panic: &PanicHookInfo<'_>) {
    let current = std::thread::current();
    let thread = current.name().unwrap_or("unnamed");
    if tracing::dispatcher::has_been_set() {
        error!(thread, "{panic}; this is a bug, the appliance ends");
    } else {
        eprintln!("error: thread {thread}: {panic}; this is a bug");
    }
}
