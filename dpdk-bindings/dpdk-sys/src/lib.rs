//! Curated FFI to DPDK, from 22.11 on.
//!
//! A short allow-list of real functions, generated from the installed headers, and one C file (`c/shim.c`) for
//! everything that is no symbol: static inlines, macro constants, bit-fields, `rte_errno`. DPDK's structs are opaque
//! here; the few fields of `rte_mbuf` that Rust touches stand at the `SHIM_MBUF_*` offsets, which the C compiler
//! asserts against the installed headers.
//!
//! Never here: safety, policy, or a wrapper. That is the `dpdk` crate's work; nothing else should use this one.

mod bindings {
    #![allow(
        missing_docs,
        non_camel_case_types,
        non_snake_case,
        non_upper_case_globals,
        unsafe_op_in_unsafe_fn,
        clippy::all,
        clippy::undocumented_unsafe_blocks
    )]
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;
