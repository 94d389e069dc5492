//! The slow and plain reading of an IP packet that the fast one is held against.
//!
//! Written from RFC 791, RFC 8200 and RFC 9293 alone, on purpose without anything of this crate, so that a mistake
//! must be made twice to stay unseen. The fuzz targets compile this very file too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the slow reading finds.
#[derive(Debug, PartialEq, Eq)]
pub struct Reading {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub protocol: u8,
    pub src_port: u16,
    pub dst_port: u16,
    pub total_len: usize,
    pub header_len: usize,
    /// "whole", "first" or "later".
    pub fragment: &'static str,
    pub tcp_flags: Option<u8>,
}

/// Reads a packet that must be there as a whole, or (`is_prefix`) only as far as its ports.
pub fn read(bytes: &[u8], is_prefix: bool) -> Option<Reading> {
    let total_len = match bytes.first()? / 16 {
        4 => number(bytes, 2, 2)?,
        6 => 40 + number(bytes, 4, 2)?,
        _ => return None,
    };
    if !is_prefix && total_len > bytes.len() {
        return None;
    }
    // From here on there is no padding to fall for.
    let bytes = &bytes[..total_len.min(bytes.len())];
    let header = if bytes.first()? / 16 == 4 { header_v4(bytes, total_len)? } else { header_v6(bytes, total_len)? };
    let (src_port, dst_port, tcp_flags) = upper_layer(bytes, total_len, &header)?;
    Some(Reading {
        src: header.src,
        dst: header.dst,
        protocol: header.protocol,
        src_port,
        dst_port,
        total_len,
        header_len: header.len,
        fragment: match (header.offset, header.more) {
            (0, false) => "whole",
            (0, true) => "first",
            _ => "later",
        },
        tcp_flags,
    })
}

struct Header {
    src: IpAddr,
    dst: IpAddr,
    protocol: u8,
    len: usize,
    offset: usize,
    more: bool,
}

/// The big-endian number in `len` bytes at `at`.
fn number(bytes: &[u8], at: usize, len: usize) -> Option<usize> {
    Some(bytes.get(at..at + len)?.iter().fold(0, |sum, byte| sum * 256 + usize::from(*byte)))
}

fn header_v4(bytes: &[u8], total_len: usize) -> Option<Header> {
    let len = usize::from(bytes[0] % 16) * 4;
    let flags_and_offset = number(bytes, 6, 2)?;
    let offset = flags_and_offset % 8192 * 8;
    let is_sane = len >= 20 && len <= total_len && offset + total_len <= 65_535;
    if !is_sane || !options_v4_are_fine(bytes.get(20..len)?) {
        return None;
    }
    let address = |at| Some(IpAddr::V4(Ipv4Addr::from(u32::try_from(number(bytes, at, 4)?).ok()?)));
    let more = flags_and_offset / 8192 % 2 == 1;
    Some(Header { src: address(12)?, dst: address(16)?, protocol: bytes[9], len, offset, more })
}

fn options_v4_are_fine(options: &[u8]) -> bool {
    match options {
        [] | [0, ..] => true,
        [1, rest @ ..] => options_v4_are_fine(rest),
        [131 | 137, ..] => false,
        [_, len, ..] if *len >= 2 && usize::from(*len) <= options.len() => {
            options_v4_are_fine(&options[usize::from(*len)..])
        }
        _ => false,
    }
}

fn header_v6(bytes: &[u8], total_len: usize) -> Option<Header> {
    let address = |at: usize| {
        let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::V6(Ipv6Addr::from(octets)))
    };
    let (src, dst) = (address(8)?, address(24)?);
    let mut header = Header { src, dst, protocol: bytes[6], len: 40, offset: 0, more: false };
    let mut seen = std::vec::Vec::new();
    while header.offset == 0 && [0, 43, 44, 60].contains(&header.protocol) {
        let kind = header.protocol;
        let is_misplaced = kind == 0 && !seen.is_empty() || kind == 44 && seen.contains(&44) || seen.len() == 8;
        if is_misplaced {
            return None;
        }
        seen.push(kind);
        let len = if kind == 44 { 8 } else { 8 + 8 * number(bytes, header.len + 1, 1)? };
        let extension = bytes.get(header.len..header.len + len)?;
        if kind == 43 && extension[2] == 0 && extension[3] != 0 {
            return None;
        }
        if kind == 44 {
            header.offset = number(extension, 2, 2)? / 8 * 8;
            header.more = extension[3] % 2 == 1;
        }
        header.protocol = extension[0];
        header.len += len;
    }
    // Of the reassembled packet, the fixed and the fragment header do not count.
    if seen.contains(&44) && header.offset + total_len - 40 - 8 > 65_535 {
        return None;
    }
    Some(header)
}

fn upper_layer(bytes: &[u8], total_len: usize, header: &Header) -> Option<(u16, u16, Option<u8>)> {
    if header.offset > 0 {
        let rewrites_tcp_flags = header.protocol == 6 && header.offset < 20;
        return if rewrites_tcp_flags { None } else { Some((0, 0, None)) };
    }
    let min_len = match header.protocol {
        6 => 20,
        17 | 136 => 8,
        33 | 132 => 12,
        _ => return Some((0, 0, None)),
    };
    let stated_len = total_len - header.len;
    if stated_len < min_len {
        return None;
    }
    let upper = bytes.get(header.len..)?;
    let port = |at| u16::try_from(number(upper, at, 2)?).ok();
    let (src_port, dst_port) = (port(0)?, port(2)?);
    if header.protocol != 6 || upper.len() < 14 {
        return Some((src_port, dst_port, None));
    }
    let tcp_header_len = usize::from(upper[12] / 16) * 4;
    let is_cut = !header.more && tcp_header_len > stated_len;
    if tcp_header_len < 20 || is_cut { None } else { Some((src_port, dst_port, Some(upper[13]))) }
}
