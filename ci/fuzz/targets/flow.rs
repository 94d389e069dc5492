//! Inner packets: the fast parser against the slow one, whole and from every prefix that matters; a symmetric hash.

#![no_main]

use libfuzzer_sys::fuzz_target;
use oracle::Reading;
use phalanx_fuzz::split;
use wire::Error;
use wire::flow::{FlowSeed, Fragment, Inner, TcpFlags, parse_inner, parse_prefix};

// The same file that the crate's own tests use, so that there is one slow reading and not two.
#[path = "../../../appliance/wire/src/flow/oracle.rs"]
mod oracle;

fuzz_target!(|data: &[u8]| {
    let Some(([cut], bytes)) = split::<1>(data) else { return };
    let whole = parse_inner(bytes);
    let prefix = parse_prefix(bytes);
    assert_eq!(whole.as_ref().ok().map(reading), oracle::read(bytes, false), "{whole:?}");
    assert_eq!(prefix.as_ref().ok().map(reading), oracle::read(bytes, true), "{prefix:?}");

    let Ok(inner) = prefix else { return };
    assert!(inner.header_len <= inner.total_len && inner.header_len <= bytes.len());
    match whole {
        Ok(whole) => assert_eq!(whole, inner),
        Err(error) => assert!(error == Error::Truncated || inner.total_len <= bytes.len(), "{error}"),
    }
    // Less of a packet may hide its connection, but never show another one.
    if let Ok(less) = parse_prefix(&bytes[..usize::from(cut).min(bytes.len())]) {
        assert_eq!(Inner { tcp_flags: inner.tcp_flags, ..less }, inner);
    }
    let seed = FlowSeed::new([cut; 16]);
    assert_eq!(inner.flow.symmetric_hash(&seed), inner.flow.reversed().symmetric_hash(&seed));
});

/// The fast reading in the words of the slow one.
fn reading(inner: &Inner) -> Reading {
    Reading {
        src: inner.flow.src,
        dst: inner.flow.dst,
        protocol: inner.flow.protocol,
        src_port: inner.flow.src_port,
        dst_port: inner.flow.dst_port,
        total_len: inner.total_len,
        header_len: inner.header_len,
        fragment: match inner.fragment {
            Fragment::Whole => "whole",
            Fragment::First => "first",
            Fragment::Later => "later",
        },
        tcp_flags: inner.tcp_flags.map(TcpFlags::bits),
    }
}
