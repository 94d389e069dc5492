//! Threads that DPDK knows: its own, pinned to CPUs, and others that register.

use crate::error::{Errno, Error, check};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::marker::PhantomData;
use core::sync::atomic::{AtomicBool, Ordering};
use std::ffi::CString;
use std::sync::mpsc;

/// How many bytes of a thread's name the kernel keeps.
const NAME_BYTES: usize = dpdk_sys::SHIM_THREAD_NAME_BYTES as usize;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// A worker thread that DPDK pinned to its CPUs, idle until it gets a job. It does one job at a time.
#[derive(Debug)]
pub struct Lcore {
    id: u32,
}

pub(crate) fn take_workers() -> Vec<Lcore> {
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Vec::new();
    }
    let mut workers = Vec::new();
    let mut id = u32::MAX;
    loop {
        // SAFETY: walks DPDK's table of lcores, which is fixed once the environment runs; u32::MAX starts the walk.
        id = unsafe { dpdk_sys::rte_get_next_lcore(id, 1, 0) };
        if !lcore_exists(id) {
            return workers;
        }
        workers.push(Lcore { id });
    }
}

/// DPDK ends a walk with a number that is no lcore.
fn lcore_exists(id: u32) -> bool {
    // SAFETY: reads DPDK's table of lcores; every number is allowed.
    unsafe { dpdk_sys::rte_lcore_is_enabled(id) != 0 }
}

/// What travels to the lcore: its name for the job, the job, and where the result goes.
struct Parcel {
    name: CString,
    job: Box<dyn FnOnce() + Send>,
}

impl Lcore {
    /// DPDK's number for it.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Runs `job` there, the thread bearing `name` meanwhile (its first 15 bytes). Threads that the job starts inherit
    /// the lcore's CPU affinity. A job that panics ends the process: nobody could put right what it left half done.
    pub fn launch<T, F>(self, name: &str, job: F) -> Result<LcoreJob<T>, Error>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (sender, receiver) = mpsc::sync_channel(1);
        let job = Box::new(move || {
            // The receiver may be gone: then nobody wants the result.
            let _ = sender.send(job());
        });
        let parcel = Box::into_raw(Box::new(Parcel { name: thread_name(name)?, job }));
        // SAFETY: `run_parcel` takes the parcel back exactly once, on the lcore; `self` says that the lcore is idle.
        let launched = check(unsafe { dpdk_sys::rte_eal_remote_launch(Some(run_parcel), parcel.cast(), self.id) });
        if let Err(reason) = launched {
            // SAFETY: the lcore refused, so the parcel is still ours alone.
            drop(unsafe { Box::from_raw(parcel) });
            return Err(Error::Launch { lcore: self.id, reason });
        }
        Ok(LcoreJob { lcore: self, result: receiver })
    }
}

fn thread_name(name: &str) -> Result<CString, Error> {
    let mut end = name.len().min(NAME_BYTES);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    CString::new(&name[..end]).map_err(|_| Error::ZeroByte { what: "a thread's name" })
}

/// Runs on the lcore. A panic does not leave it: at a function that C calls, the process aborts.
unsafe extern "C" fn run_parcel(parcel: *mut c_void) -> c_int {
    // SAFETY: `launch` made the pointer from a box for this call alone.
    let parcel = unsafe { Box::from_raw(parcel.cast::<Parcel>()) };
    let before = swap_thread_name(&parcel.name);
    (parcel.job)();
    if let Some(before) = before {
        swap_thread_name(&before);
    }
    0
}

fn swap_thread_name(name: &CStr) -> Option<CString> {
    let mut before = [0 as c_char; NAME_BYTES + 1];
    // SAFETY: the buffer is as long as said, and holds the longest name the kernel has.
    let known = unsafe { dpdk_sys::shim_thread_get_name(before.as_mut_ptr(), before.len()) } == 0;
    // SAFETY: the name is terminated and short enough; a refusal leaves the old name, which harms nobody.
    unsafe { dpdk_sys::shim_thread_set_name(name.as_ptr()) };
    let before: Vec<u8> = before.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    if known { CString::new(before).ok() } else { None }
}

/// A job on its way. Dropping it lets the job run on alone, and gives up its lcore.
#[derive(Debug)]
pub struct LcoreJob<T> {
    lcore: Lcore,
    result: mpsc::Receiver<T>,
}

impl<T> LcoreJob<T> {
    /// The lcore that does the job.
    pub fn lcore(&self) -> u32 {
        self.lcore.id
    }

    /// Whether the result is there. Never waits.
    pub fn is_finished(&self) -> bool {
        // SAFETY: reads the state of an lcore; its number came from DPDK.
        unsafe { dpdk_sys::rte_eal_get_lcore_state(self.lcore.id) == dpdk_sys::rte_lcore_state_t_WAIT }
    }

    /// Waits for the job, and returns its result, and the lcore for the next job.
    pub fn join(self) -> (Lcore, T) {
        // A job that ends has sent its result; one that panics ends the process.
        let result = self.result.recv().unwrap_or_else(|_| std::process::abort());
        // The result is sent a moment before the lcore is idle. SAFETY: waits for an lcore that has done its job.
        unsafe { dpdk_sys::rte_eal_wait_lcore(self.lcore.id) };
        (self.lcore, result)
    }
}

/// While it lives, DPDK knows the thread that made it, which so has a mempool cache of its own. It stays on its thread:
///
/// ```compile_fail,E0277
/// fn may_move<T: Send>() {}
/// may_move::<dpdk::RegisteredThread>();
/// ```
#[derive(Debug)]
pub struct RegisteredThread {
    lcore: u32,
    /// Registration belongs to one thread.
    not_send: PhantomData<*mut ()>,
}

impl RegisteredThread {
    pub(crate) fn register() -> Result<Self, Error> {
        // SAFETY: the environment runs; the shim refuses a thread that DPDK knows already.
        check(unsafe { dpdk_sys::shim_thread_register() }).map_err(|reason: Errno| Error::RegisterThread { reason })?;
        // SAFETY: reads this thread's own number.
        let lcore = unsafe { dpdk_sys::shim_lcore_id() };
        Ok(RegisteredThread { lcore, not_send: PhantomData })
    }

    /// DPDK's number for the thread.
    pub fn id(&self) -> u32 {
        self.lcore
    }
}

impl Drop for RegisteredThread {
    fn drop(&mut self) {
        // SAFETY: this guard never left the thread that it registered.
        unsafe { dpdk_sys::rte_thread_unregister() };
    }
}
