//! Generates the bindings to libIPSec_MB.
//!
//! Whatever is missing ends in one line that names the Debian package to install.

use std::env;
use std::path::PathBuf;

/// All that the safe layer calls; AES-GCM itself is reached through the manager's function pointers.
const FUNCTIONS: &[&str] =
    &["alloc_mb_mgr", "free_mb_mgr", "imb_get_errno", "imb_get_strerror", "imb_get_version_str", "init_mb_mgr_auto"];

const HEADER: &str = "intel-ipsec-mb.h";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Err(problem) = build() {
        println!("cargo::error={problem}");
    }
}

fn build() -> Result<(), String> {
    let target = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if target != "x86_64" {
        return Err(format!("Intel's multi-buffer crypto library is for x86_64, not for {target}"));
    }
    let mut builder = bindgen::Builder::default()
        .header_contents("bindings.h", &format!("#include <{HEADER}>\n"))
        .allowlist_type("gcm_context_data")
        .allowlist_var("IMB_VERSION_NUM")
        .allowlist_var("IMB_FEATURE_(AESNI|PCLMULQDQ)")
        .opaque_type("IMB_JOB")
        .layout_tests(false)
        .derive_debug(false)
        .generate_comments(false)
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
        .formatter(bindgen::Formatter::None);
    for function in FUNCTIONS {
        builder = builder.allowlist_function(function);
    }
    let bindings = quietly(move || builder.generate())
        .map_err(|why| format!("libclang was not found ({why}); on Debian: apt-get install libclang-dev"))?
        .map_err(|why| explain(&why.to_string()))?;
    let directory = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    bindings
        .write_to_file(PathBuf::from(directory).join("bindings.rs"))
        .map_err(|why| format!("the bindings cannot be written: {why}"))?;
    println!("cargo::rustc-link-lib=dylib=IPSec_MB");
    Ok(())
}

fn explain(diagnostics: &str) -> String {
    let first = one_line(diagnostics);
    if diagnostics.contains(&format!("'{HEADER}' file not found")) {
        return format!("{HEADER} was not found; on Debian: apt-get install libipsec-mb-dev");
    }
    format!("{HEADER} cannot be read: {first}")
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

fn one_line(text: &str) -> String {
    let first: String = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().into();
    first.chars().take(300).collect()
}
