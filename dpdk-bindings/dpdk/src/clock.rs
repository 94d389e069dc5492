//! The CPU's time-stamp counter.

/// Ticks of the time-stamp counter, [`Eal::tsc_hz`](crate::Eal::tsc_hz) of them in a second. Cheap enough for once a loop.
#[inline]
pub fn tsc() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the instruction reads a register that every x86-64 CPU has.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the shim reads a counter and touches no memory.
    unsafe {
        dpdk_sys::shim_tsc()
    }
}
