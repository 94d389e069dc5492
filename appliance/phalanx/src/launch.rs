//! Data cores on DPDK's lcores.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datapath::core::DataCore;
use datapath::idle::{Idle, IdlePolicy, Pause};
use dpdk::{Lcore, LcoreJob};

use crate::clock::Clock;
use crate::frame::QueuePair;

/// A data core at work.
#[derive(Debug)]
pub struct RunningCore {
    job: LcoreJob<DataCore<QueuePair>>,
}

/// Runs a data core on an lcore, as thread `data-N`, until `stop`.
///
/// # Errors
/// What DPDK says when the lcore does not start.
pub fn launch(
    lcore: Lcore,
    number: usize,
    mut core: DataCore<QueuePair>,
    policy: IdlePolicy,
    clock: Clock,
    stop: Arc<AtomicBool>,
) -> Result<RunningCore, dpdk::Error> {
    let job = lcore.launch(&format!("data-{number}"), move || {
        let mut idle = Idle::new(policy);
        while !stop.load(Ordering::Relaxed) {
            let busy = core.poll(clock.now());
            match idle.after_poll(busy) {
                Pause::None => {}
                Pause::Yield => std::thread::yield_now(),
                Pause::Sleep(span) => std::thread::sleep(span),
            }
        }
        core
    })?;
    Ok(RunningCore { job })
}

impl RunningCore {
    /// Waits until it has stopped, and frees what it held.
    pub fn join(self) {
        drop(self.job.join());
    }
}
