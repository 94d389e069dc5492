//! What can go wrong while setting up. The packet path has no errors: a full queue or an empty mempool is a count.

use core::ffi::CStr;
use core::fmt;

/// An error number of DPDK: those of the C library, and a few of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Errno(i32);

impl Errno {
    /// From a return value: DPDK returns errors as negative numbers.
    pub(crate) fn from_return(value: i32) -> Self {
        Errno(value.saturating_abs())
    }

    /// The number, positive.
    pub fn get(self) -> i32 {
        self.0
    }
}

/// `Ok` for what DPDK calls success, zero or a positive number.
pub(crate) fn check(value: i32) -> Result<(), Errno> {
    if value < 0 { Err(Errno::from_return(value)) } else { Ok(()) }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: rte_strerror returns a terminated string that is static or this thread's own buffer, and that is
        // only overwritten by this thread's next call.
        let text = unsafe { CStr::from_ptr(dpdk_sys::rte_strerror(self.0)) };
        write!(f, "{} (errno {})", text.to_string_lossy(), self.0)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why something could not be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A second start.
    #[error("DPDK's environment was already started in this process; it starts once, ever")]
    AlreadyStarted,
    /// A start after a failed one.
    #[error("an earlier start of DPDK's environment failed in this process; it cannot be tried again")]
    EarlierStartFailed,
    /// DPDK said no to its arguments or to the machine.
    #[error("DPDK's environment refused to start: {errno}; its own log says more; arguments: {arguments}")]
    StartRefused {
        /// DPDK's reason.
        errno: Errno,
        /// The arguments, as on a command line.
        arguments: String,
    },
    /// The two options exclude each other in DPDK 22.11.
    #[error("--no-huge and --in-memory exclude each other; without hugepages, --no-shconf is enough")]
    NoHugeInMemory,
    /// An argument that would change what safe code relies on.
    #[error("DPDK's argument {argument} is refused: {why}")]
    ArgumentRefused {
        /// The argument.
        argument: String,
        /// What it would break.
        why: &'static str,
    },
    /// A device string that names an address in memory.
    #[error("device {device} is refused: an address in memory cannot be told by a string")]
    DeviceAddress {
        /// The device string.
        device: String,
    },
    /// A string with a zero byte cannot be handed to C.
    #[error("{what} holds a zero byte")]
    ZeroByte {
        /// Which string.
        what: &'static str,
    },
    /// A mempool could not be made.
    #[error("mempool {name} was not made: {reason}")]
    Mempool {
        /// The mempool's name.
        name: String,
        /// DPDK's reason.
        reason: Errno,
    },
    /// A mempool's numbers do not fit each other.
    #[error("mempool {name}: {problem}")]
    MempoolConfig {
        /// The mempool's name.
        name: String,
        /// What does not fit.
        problem: &'static str,
    },
    /// A device could not be brought up.
    #[error(
        "device {device} was not attached: {reason}; check that the interface, file or card that it names is there (DPDK's log says more)"
    )]
    Attach {
        /// The device string.
        device: String,
        /// DPDK's reason.
        reason: Errno,
    },
    /// The device was probed and no port came of it.
    #[error("device {device} has no port; either its driver is not installed or its probe failed, see DPDK's log")]
    NoPort {
        /// The device string.
        device: String,
    },
    /// The device is there already, perhaps with other arguments.
    #[error("device {device} exists already; give its arguments in one place only")]
    DeviceExists {
        /// The device string.
        device: String,
    },
    /// A port has one owner.
    #[error("port {name} is in use in this process")]
    PortInUse {
        /// The port's name.
        name: String,
    },
    /// More ports than this layer serves.
    #[error("port number {number} is beyond the {limit} that are supported")]
    TooManyPorts {
        /// The port's number.
        number: u16,
        /// How many are supported.
        limit: usize,
    },
    /// A setting that the device does not have.
    #[error(
        "port {name}: {what} {wanted} is outside {least} to {most}, which is what the device has; a virtual device is \
         given queues by an argument of its own, such as qpairs=2 for net_af_packet"
    )]
    OutOfRange {
        /// The port's name.
        name: String,
        /// Which setting.
        what: &'static str,
        /// What was asked for.
        wanted: u32,
        /// The smallest that works.
        least: u32,
        /// The largest that works.
        most: u32,
    },
    /// A step of bringing a port up failed.
    #[error("port {name}: {step} failed: {reason}")]
    Port {
        /// The port's name.
        name: String,
        /// Which step.
        step: &'static str,
        /// DPDK's reason.
        reason: Errno,
    },
    /// A ring could not be made.
    #[error("a ring for {capacity} objects was not made: {reason}")]
    Ring {
        /// How many objects it should hold.
        capacity: usize,
        /// DPDK's reason.
        reason: Errno,
    },
    /// An lcore did not take its job.
    #[error("lcore {lcore} does not take a job: {reason}")]
    Launch {
        /// The lcore's number.
        lcore: u32,
        /// DPDK's reason.
        reason: Errno,
    },
    /// A thread could not become known to DPDK.
    #[error("this thread was not registered with DPDK: {reason}")]
    RegisterThread {
        /// DPDK's reason.
        reason: Errno,
    },
}
