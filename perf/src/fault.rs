//! Why a run gives no numbers.

/// What went wrong. Every one of these makes the run fail: a number that is not certain is not shown.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// DPDK refused.
    #[error("{0}")]
    Dpdk(#[from] dpdk::Error),
    /// The capture could not be written.
    #[error("{what}: {error}")]
    File {
        /// Which file or directory.
        what: String,
        /// What the system said.
        error: std::io::Error,
    },
    /// The operating system gave fewer threads than needed.
    #[error("DPDK gave no lcore to measure on")]
    NoLcore,
    /// No engine computes correctly.
    #[error("{0}")]
    Engine(#[from] ipsec::engine::Unusable),
    /// The benchmark built something that cannot be.
    #[error("the benchmark's own setup is wrong: {0}")]
    Setup(String),
    /// The data path did not do with a packet what it had to.
    #[error("{bench}: packet {packet} of the capture: {what}")]
    Mismatch {
        /// Which row.
        bench: String,
        /// Its place in the capture, from 0.
        packet: usize,
        /// What was found.
        what: String,
    },
    /// Packets were dropped in window after window.
    #[error("{bench}: {drops} packets dropped in a window, {attempts} times in a row: {reasons}")]
    Invalid {
        /// Which row.
        bench: String,
        /// Drops in the last attempt.
        drops: u64,
        /// How often it was tried.
        attempts: u32,
        /// What they were dropped for.
        reasons: String,
    },
}

impl Fault {
    /// A setup that is wrong, in the words of whatever said so.
    pub fn setup(error: impl ToString) -> Fault {
        Fault::Setup(error.to_string())
    }
}
