//! Curated FFI to DPDK.
