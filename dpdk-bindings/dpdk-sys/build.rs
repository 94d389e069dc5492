//! Finds libdpdk, compiles the shim and generates the bindings.
//!
//! Whatever is missing ends in one line that names the Debian package to install.

use std::env;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::Command;

/// The oldest release that the shim is written for.
const MINIMUM_VERSION: &str = "22.11";

/// Real functions of DPDK's shared libraries; static inlines and macros go through the shim.
///
/// All of them exist, unchanged, from 22.11 to 25.11.
const FUNCTIONS: &[&str] = &[
    "rte_dev_probe",
    "rte_eal_get_lcore_state",
    "rte_eal_remote_launch",
    "rte_eal_wait_lcore",
    "rte_eth_allmulticast_enable",
    "rte_eth_dev_start",
    "rte_eth_promiscuous_enable",
    "rte_eth_rx_queue_setup",
    "rte_eth_stats_reset",
    "rte_eth_tx_queue_setup",
    "rte_get_main_lcore",
    "rte_get_next_lcore",
    "rte_get_tsc_hz",
    "rte_lcore_is_enabled",
    "rte_mempool_in_use_count",
    "rte_pktmbuf_free_bulk",
    "rte_ring_free",
    "rte_strerror",
    "rte_thread_unregister",
    "rte_version",
    "shim_.*",
];

/// Types that Rust passes around by pointer and never looks into.
const OPAQUE_TYPES: &[&str] = &["rte_eth_rxconf", "rte_eth_txconf", "rte_mbuf", "rte_mempool", "rte_ring"];

enum Missing {
    PkgConfig(io::Error),
    Dpdk(String),
    Compiler(String),
    Shim(cc::Error),
    Libclang(String),
    Headers(String),
    Output(String),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PkgConfig(why) => {
                write!(f, "pkg-config does not run ({why}); on Debian: apt-get install pkg-config")
            }
            Self::Dpdk(why) => {
                write!(
                    f,
                    "DPDK {MINIMUM_VERSION} or newer was not found ({why}); on Debian: apt-get install libdpdk-dev"
                )
            }
            Self::Compiler(why) => {
                write!(f, "no C compiler was found ({why}); on Debian: apt-get install build-essential")
            }
            Self::Shim(why) => {
                write!(f, "c/shim.c does not compile against the installed DPDK: {}", one_line(&why.to_string()))
            }
            Self::Libclang(why) => {
                write!(f, "libclang was not found ({why}); on Debian: apt-get install libclang-dev")
            }
            Self::Headers(why) => write!(f, "DPDK's headers cannot be read: {why}"),
            Self::Output(why) => write!(f, "the bindings cannot be written: {why}"),
        }
    }
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=c");
    for variable in ["PKG_CONFIG", "PKG_CONFIG_PATH", "PKG_CONFIG_LIBDIR", "PKG_CONFIG_SYSROOT_DIR"] {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    if let Err(missing) = build() {
        println!("cargo::error={missing}");
    }
}

fn build() -> Result<(), Missing> {
    pkg_config(&[&format!("--atleast-version={MINIMUM_VERSION}")])?;
    if let Some(directory) = pkg_config(&["--variable=pcfiledir"])?.first() {
        println!("cargo::rerun-if-changed={directory}/libdpdk.pc");
    }
    let flags = pkg_config(&["--cflags"])?;
    compile_shim(&flags)?;
    generate_bindings(&flags)?;
    link(&pkg_config(&["--libs"])?);
    Ok(())
}

/// What pkg-config says about libdpdk, word by word and in its order: `-include rte_config.h` is two words.
fn pkg_config(arguments: &[&str]) -> Result<Vec<String>, Missing> {
    let program = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let output = Command::new(program)
        .arg("--print-errors")
        .args(arguments)
        .arg("libdpdk")
        .output()
        .map_err(Missing::PkgConfig)?;
    if !output.status.success() {
        return Err(Missing::Dpdk(one_line(&String::from_utf8_lossy(&output.stderr))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect())
}

fn compile_shim(flags: &[String]) -> Result<(), Missing> {
    let mut build = cc::Build::new();
    // cc's own flag set is for portable code; DPDK's headers are written for gnu11 and -Wall.
    build.file("c/shim.c").include("c").std("gnu11").warnings(false).flag("-Wall").cargo_warnings(true);
    for flag in flags {
        build.flag(flag);
    }
    let compiler = build.try_get_compiler().map_err(|why| Missing::Compiler(one_line(&why.to_string())))?;
    if let Err(why) = Command::new(compiler.path()).arg("--version").output() {
        return Err(Missing::Compiler(format!("{}: {why}", compiler.path().display())));
    }
    build.try_compile("dpdk_shim").map_err(Missing::Shim)
}

fn generate_bindings(flags: &[String]) -> Result<(), Missing> {
    let mut builder = bindgen::Builder::default()
        .header("c/bindings.h")
        .clang_args(flags)
        .allowlist_type("shim_.*")
        .allowlist_var("SHIM_.*")
        .layout_tests(false)
        .derive_default(true)
        .generate_comments(false)
        .formatter(bindgen::Formatter::None);
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    for &name in OPAQUE_TYPES {
        // An opaque struct's nested types would be generated all the same.
        builder = builder.opaque_type(name).blocklist_type(format!("_*{name}_.*"));
        builder = builder.no_copy(name).no_debug(name).no_default(name);
    }
    let bindings = quietly(move || builder.generate())
        .map_err(Missing::Libclang)?
        .map_err(|why| Missing::Headers(one_line(&why.to_string())))?;
    let directory = env::var_os("OUT_DIR").ok_or_else(|| Missing::Output("OUT_DIR is not set".into()))?;
    bindings.write_to_file(PathBuf::from(directory).join("bindings.rs")).map_err(|why| Missing::Output(why.to_string()))
}

/// bindgen panics when it finds no libclang; this turns the panic into its first line.
fn quietly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
    std::panic::set_hook(hook);
    outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        one_line(text.as_deref().unwrap_or("it cannot be loaded"))
    })
}

/// Shared linking: the linker drops what is unused, and EAL loads the drivers by itself at start.
fn link(flags: &[String]) {
    for flag in flags {
        if let Some(library) = flag.strip_prefix("-l") {
            println!("cargo::rustc-link-lib=dylib={library}");
        } else if let Some(directory) = flag.strip_prefix("-L") {
            println!("cargo::rustc-link-search=native={directory}");
        }
    }
}

fn one_line(text: &str) -> String {
    let first: String = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().into();
    first.chars().take(300).collect()
}
