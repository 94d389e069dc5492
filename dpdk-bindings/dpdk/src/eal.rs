//! DPDK's environment: one per process, for as long as the process lives.

use crate::arguments::EalArguments;
use crate::error::{Error, check};
use crate::lcore::{self, Lcore, RegisteredThread};
use core::ffi::{CStr, c_char};
use core::ptr;
use core::sync::atomic::{AtomicU8, Ordering};

const NEVER: u8 = 0;
const STARTING: u8 = 1;
const RUNS: u8 = 2;
const FAILED: u8 = 3;

static STATE: AtomicU8 = AtomicU8::new(NEVER);

/// Proof that DPDK's environment runs.
///
/// It never ends: DPDK cannot start twice in one process, and ending it would free the memory under every living
/// buffer. What outlives a process (hugepage files) is avoided by [`Memory`](crate::Memory)'s `in_memory`.
#[derive(Debug, Clone, Copy)]
pub struct Eal(());

impl Eal {
    /// Starts the environment. Takes a quarter of a second; the calling thread becomes the main lcore, and keeps its own
    /// CPU affinity, so that threads which it starts later are not crammed onto the main lcore's CPU.
    pub fn start(arguments: &EalArguments) -> Result<Eal, Error> {
        let words = arguments.to_c()?;
        match STATE.compare_exchange(NEVER, STARTING, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {}
            Err(FAILED) => return Err(Error::EarlierStartFailed),
            Err(_) => return Err(Error::AlreadyStarted),
        }
        // DPDK keeps pointers into its argument vector, and permutes the vector: both live for ever.
        let mut vector: Vec<*mut c_char> = words.into_iter().map(|word| word.into_raw()).collect();
        let count = vector.len() as i32;
        vector.push(ptr::null_mut());
        let vector = vector.leak();
        // SAFETY: `vector` holds `count` terminated strings and a null pointer, all of them leaked; the state above
        // admits one caller per process.
        let outcome = check(unsafe { dpdk_sys::shim_eal_init(count, vector.as_mut_ptr()) });
        STATE.store(if outcome.is_ok() { RUNS } else { FAILED }, Ordering::Release);
        match outcome {
            Ok(()) => Ok(Eal(())),
            Err(errno) => Err(Error::StartRefused { errno, arguments: arguments.command_line() }),
        }
    }

    /// The proof, where another part of the process has started the environment.
    pub fn running() -> Option<Eal> {
        (STATE.load(Ordering::Acquire) == RUNS).then_some(Eal(()))
    }

    /// Ticks of [`tsc`](crate::tsc) in a second, as measured at start.
    pub fn tsc_hz(self) -> u64 {
        // SAFETY: reads a number that was set at start.
        unsafe { dpdk_sys::rte_get_tsc_hz() }
    }

    /// DPDK's version, e.g. `DPDK 22.11.11`.
    pub fn version(self) -> String {
        // SAFETY: the string is static and terminated.
        unsafe { CStr::from_ptr(dpdk_sys::rte_version()) }.to_string_lossy().into_owned()
    }

    /// The worker lcores, each with one owner: the first call gets them all, later ones none.
    pub fn take_lcores(self) -> Vec<Lcore> {
        lcore::take_workers()
    }

    /// Makes the calling thread known to DPDK until the guard is dropped, so that it has a mempool cache of its own.
    pub fn register_thread(self) -> Result<RegisteredThread, Error> {
        RegisteredThread::register()
    }
}
