//! The arguments of DPDK's environment, typed.

use crate::error::Error;
use std::ffi::CString;

/// Where DPDK's memory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Hugepages that must be reserved in the kernel.
    Hugepages {
        /// Preallocated megabytes; `None` grows on demand.
        megabytes: Option<u32>,
        /// Leave no files behind; a second process cannot join. Recommended.
        in_memory: bool,
    },
    /// Ordinary pages, of a fixed amount. Slower, and only for virtual devices, but works everywhere.
    NoHuge {
        /// Megabytes.
        megabytes: u32,
    },
}

/// What a device calls the address of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IovaMode {
    /// Virtual addresses: no privilege needed.
    Virtual,
    /// Physical addresses.
    Physical,
}

/// What would change something that safe code relies on, and what that is.
const REFUSED: [(&str, &str); 3] = [
    ("--mbuf-pool-ops-name", "packet buffers are shared by all threads, so their mempools use ring_mp_mc"),
    ("--proc-type", "a second process would use ports and buffers that this one owns"),
    ("--telemetry", "its thread reads ports while others close them"),
];

const ADDRESS: &str = "net_ring would take a number for the address of its own memory";

/// Whether a device string, alone or behind `--vdev=`, hands net_ring an address.
pub(crate) fn holds_address(device: &str) -> bool {
    device.split(',').skip(1).any(|argument| argument.starts_with("internal="))
}

/// Builds the argument vector for [`Eal::start`](crate::Eal::start).
///
/// ```
/// use dpdk::{EalArguments, Memory};
/// let arguments = EalArguments::new("appliance")
///     .lcores("0-1")
///     .memory(Memory::NoHuge { megabytes: 256 })
///     .no_pci()
///     .vdev("net_ring0");
/// ```
#[derive(Debug, Clone)]
pub struct EalArguments {
    program: String,
    arguments: Vec<String>,
}

impl EalArguments {
    /// For a program of this name. DPDK's telemetry socket is off: its thread walks ports that others may close.
    pub fn new(program: &str) -> Self {
        EalArguments { program: program.into(), arguments: Vec::new() }
    }

    /// Which lcores run where, in DPDK's own words: `"0-3"`, or `"(0-3)@(0-1)"` for four on two CPUs.
    #[must_use]
    pub fn lcores(self, map: &str) -> Self {
        self.raw(format!("--lcores={map}"))
    }

    /// The lcore that the starting thread becomes.
    #[must_use]
    pub fn main_lcore(self, lcore: u32) -> Self {
        self.raw(format!("--main-lcore={lcore}"))
    }

    /// Where the memory comes from.
    #[must_use]
    pub fn memory(self, memory: Memory) -> Self {
        match memory {
            Memory::Hugepages { megabytes, in_memory } => {
                let this = match megabytes {
                    Some(megabytes) => self.raw("-m").raw(megabytes.to_string()),
                    None => self,
                };
                if in_memory { this.raw("--in-memory") } else { this }
            }
            // Shared configuration would need files beside the memory, which nobody could map anyway. Physical
            // addresses of ordinary pages may change under a device, so they are virtual.
            Memory::NoHuge { megabytes } => self
                .raw("--no-huge")
                .raw("--no-shconf")
                .raw("-m")
                .raw(megabytes.to_string())
                .iova_mode(IovaMode::Virtual),
        }
    }

    /// Probe no PCI device.
    #[must_use]
    pub fn no_pci(self) -> Self {
        self.raw("--no-pci")
    }

    /// Create a virtual device, e.g. `"net_af_packet0,iface=eth0"`. A failed one does not fail the start: open it by
    /// its name to see. [`Device::open`](crate::Device::open) can also create it later, with a better error.
    #[must_use]
    pub fn vdev(self, device: &str) -> Self {
        self.raw(format!("--vdev={device}"))
    }

    /// Virtual or physical buffer addresses.
    #[must_use]
    pub fn iova_mode(self, mode: IovaMode) -> Self {
        self.raw(match mode {
            IovaMode::Virtual => "--iova-mode=va",
            IovaMode::Physical => "--iova-mode=pa",
        })
    }

    /// Tells this process's files from those of other DPDK processes.
    #[must_use]
    pub fn file_prefix(self, prefix: &str) -> Self {
        self.raw(format!("--file-prefix={prefix}"))
    }

    /// How much DPDK logs: `"warning"`, `"lib.eal:debug"`, …
    #[must_use]
    pub fn log_level(self, level: &str) -> Self {
        self.raw(format!("--log-level={level}"))
    }

    /// Any other argument, as it stands. [`Eal::start`](crate::Eal::start) refuses those that break what this crate
    /// promises, [`EalArguments::refused`] tells which.
    #[must_use]
    pub fn raw(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Why `argument` cannot be taken, if it cannot: safe code relies on what it would change. An abbreviation, which
    /// DPDK accepts, counts as the whole.
    pub fn refused(argument: &str) -> Option<&'static str> {
        if holds_address(argument) {
            return Some(ADDRESS);
        }
        let option = argument.split('=').next().unwrap_or_default();
        let long = option.len() > "--".len() && option.starts_with("--");
        REFUSED.iter().find(|(name, _)| long && name.starts_with(option)).map(|&(_, why)| why)
    }

    /// As on a command line, without the program.
    pub fn command_line(&self) -> String {
        self.arguments.join(" ")
    }

    /// The vector for C, program first.
    pub(crate) fn to_c(&self) -> Result<Vec<CString>, Error> {
        if let Some((argument, why)) = self.arguments.iter().find_map(|word| Some((word, Self::refused(word)?))) {
            return Err(Error::ArgumentRefused { argument: argument.clone(), why });
        }
        let has = |name: &str| self.arguments.iter().any(|argument| argument == name);
        if has("--no-huge") && has("--in-memory") {
            return Err(Error::NoHugeInMemory);
        }
        let telemetry = if has("--no-telemetry") { None } else { Some("--no-telemetry") };
        core::iter::once(self.program.as_str())
            .chain(self.arguments.iter().map(String::as_str))
            .chain(telemetry)
            .map(|argument| CString::new(argument).map_err(|_| Error::ZeroByte { what: "an argument of DPDK" }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(arguments: &EalArguments) -> Vec<String> {
        arguments.to_c().unwrap().iter().map(|word| word.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn the_builder_speaks_dpdks_words() {
        let arguments = EalArguments::new("x")
            .lcores("(0-3)@(0-1)")
            .main_lcore(2)
            .memory(Memory::Hugepages { megabytes: Some(64), in_memory: true })
            .no_pci()
            .vdev("net_null0")
            .iova_mode(IovaMode::Physical)
            .file_prefix("p")
            .log_level("warning")
            .raw("--huge-unlink");
        assert_eq!(
            words(&arguments).join(" "),
            "x --lcores=(0-3)@(0-1) --main-lcore=2 -m 64 --in-memory --no-pci --vdev=net_null0 --iova-mode=pa \
             --file-prefix=p --log-level=warning --huge-unlink --no-telemetry"
        );
    }

    #[test]
    fn ordinary_pages_bring_what_22_11_needs_with_them() {
        let arguments = EalArguments::new("x").memory(Memory::NoHuge { megabytes: 32 });
        assert_eq!(words(&arguments).join(" "), "x --no-huge --no-shconf -m 32 --iova-mode=va --no-telemetry");
    }

    #[test]
    fn telemetry_is_switched_off_once() {
        assert_eq!(words(&EalArguments::new("x").raw("--no-telemetry")), ["x", "--no-telemetry"]);
    }

    #[test]
    fn what_safe_code_relies_on_cannot_be_changed() {
        for argument in [
            "--mbuf-pool-ops-name=ring_sp_sc",
            "--mbuf-pool-ops-name",
            "--mbuf-pool=ring_sp_sc",
            "--proc-type=secondary",
            "--proc-type=auto",
            "--proc=secondary",
            "--telemetry",
            "--vdev=net_ring0,internal=0x1000",
            "net_ring0,nodeaction=x,internal=0x1000",
        ] {
            let arguments = EalArguments::new("x").raw("-m").raw("64").raw(argument);
            match arguments.to_c() {
                Err(Error::ArgumentRefused { argument: found, .. }) => assert_eq!(found, argument),
                other => panic!("{argument}: {other:?}"),
            }
        }
        for argument in ["--", "-m", "--no-telemetry", "--vdev=net_ring0", "--match-allocations", "internal=1"] {
            assert_eq!(EalArguments::refused(argument), None, "{argument}");
        }
    }

    #[test]
    fn what_dpdk_would_refuse_is_refused_with_a_reason() {
        let arguments = EalArguments::new("x").memory(Memory::NoHuge { megabytes: 1 }).raw("--in-memory");
        assert_eq!(arguments.to_c(), Err(Error::NoHugeInMemory));
        assert!(matches!(EalArguments::new("x").raw("a\0b").to_c(), Err(Error::ZeroByte { .. })));
    }
}
