//! Rows for people: aligned columns, numbers to the right, nothing that a peer could have slipped into a terminal.

use super::rows::{BalanceRow, ConnectionRow, CoreRow, DropRow, PortRow, SaRow};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}
use Align::{Left, Right};

pub(super) struct Column<T> {
    head: &'static str,
    align: Align,
    cell: fn(&T) -> String,
}

pub(super) const fn column<T>(head: &'static str, align: Align, cell: fn(&T) -> String) -> Column<T> {
    Column { head, align, cell }
}

pub(super) fn draw<T>(rows: &[T], columns: &[Column<T>], nothing: &str) -> String {
    if rows.is_empty() {
        return format!("{nothing}\n");
    }
    let mut lines: Vec<Vec<String>> = vec![columns.iter().map(|column| column.head.to_owned()).collect()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|column| printable(&(column.cell)(row))).collect()));
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(columns).zip(&widths).map(|((cell, column), width)| match column.align {
            Left => format!("{cell:<width$}"),
            Right => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Identities come from peers, so control characters are shown and not obeyed.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        match char.is_control() {
            true => shown.extend(char.escape_default()),
            false => shown.push(char),
        }
    }
    shown
}

pub(super) fn limit(bytes: Option<u64>) -> String {
    bytes.map_or("-".into(), |bytes| bytes.to_string())
}

pub(super) fn sas(rows: &[SaRow]) -> String {
    let columns = [
        column("NAME", Left, |sa: &SaRow| sa.name.clone()),
        column("PEER", Left, |sa| sa.peer.clone()),
        column("DVIPA", Left, |sa| sa.dvipa.to_string()),
        column("REMOTE", Left, |sa| sa.remote.to_string()),
        column("DIR", Left, |sa| sa.direction.clone()),
        column("SPI", Left, |sa| sa.spi.clone()),
        column("ENCAP", Left, |sa| sa.encap.clone()),
        column("CIPHER", Left, |sa| sa.cipher.clone()),
        column("ENGINE", Left, |sa| sa.engine.clone()),
        column("PACKETS", Right, |sa| sa.packets.to_string()),
        column("BYTES", Right, |sa| sa.bytes.to_string()),
        column("REPLAYED", Right, |sa| sa.replay_drops.to_string()),
        column("SOFT", Right, |sa| limit(sa.soft_limit_bytes)),
        column("HARD", Right, |sa| limit(sa.hard_limit_bytes)),
        column("SELECTORS", Left, |sa| sa.selectors.clone()),
    ];
    draw(rows, &columns, "no security associations")
}

/// Reasons that have not occurred are left out.
pub(super) fn drops(rows: &[DropRow]) -> String {
    let columns = [
        column("REASON", Left, |drop: &DropRow| drop.reason.clone()),
        column("PACKETS", Right, |drop| drop.packets.to_string()),
        column("SEVERITY", Left, |drop| drop.severity.clone()),
        column("MEANING", Left, |drop| drop.meaning.clone()),
    ];
    let mut occurred: Vec<DropRow> = rows.iter().filter(|row| row.packets > 0).cloned().collect();
    occurred.sort_by_key(|row| std::cmp::Reverse(row.packets));
    draw(&occurred, &columns, "no packet was dropped")
}

pub(super) fn balance(row: &BalanceRow) -> String {
    type Term = (&'static str, String, &'static str);
    let columns = [
        column("", Left, |term: &Term| term.0.to_owned()),
        column("PACKETS", Right, |term| term.1.clone()),
        column("MEANING", Left, |term| term.2.to_owned()),
    ];
    let terms = [
        ("received", row.received.to_string(), "frames taken from receive queues"),
        ("delivered", row.delivered.to_string(), "inner packets sent to application hosts"),
        ("forwarded", row.forwarded.to_string(), "packets sent to the network"),
        ("relayed", row.relayed.to_string(), "packets sent to other members of the cluster"),
        ("punted", row.punted.to_string(), "frames given to the control core"),
        ("merged", row.merged.to_string(), "fragments absorbed into another packet"),
        ("dropped", row.dropped.to_string(), "for the reasons that `show drops` names"),
        ("held", row.held.to_string(), "waiting inside now"),
        ("difference", row.difference.to_string(), "received less all of these: 0 between two bursts"),
        ("originated", row.originated.to_string(), "of our own making, never received"),
    ];
    draw(&terms, &columns, "")
}

pub(super) fn connections(rows: &[ConnectionRow]) -> String {
    let columns = [
        column("PEER", Left, |entry: &ConnectionRow| entry.peer.clone()),
        column("DVIPA", Left, |entry| entry.dvipa.to_string()),
        column("SRC", Left, |entry| entry.src.clone()),
        column("DST", Left, |entry| entry.dst.clone()),
        column("PROTOCOL", Left, |entry| entry.protocol.clone()),
        column("STATE", Left, |entry| entry.state.clone()),
        column("TARGET", Left, |entry| entry.target.clone()),
        column("CORE", Right, |entry| entry.core.to_string()),
    ];
    draw(rows, &columns, "no connections")
}

pub(super) fn ports(rows: &[PortRow]) -> String {
    let columns = [
        column("NAME", Left, |port: &PortRow| port.name.clone()),
        column("ROLE", Left, |port| port.role.clone()),
        column("DEVICE", Left, |port| port.device.clone()),
        column("LINK", Left, |port| port.link.clone()),
        column("MAC", Left, |port| port.mac.clone()),
        column("NUMA", Right, |port| port.numa.map_or("-".into(), |node| node.to_string())),
        column("MTU", Right, |port| port.mtu.to_string()),
        column("RX", Right, |port| port.rx_packets.to_string()),
        column("TX", Right, |port| port.tx_packets.to_string()),
        column("MISSED", Right, |port| port.rx_missed.to_string()),
        column("NO-MBUF", Right, |port| port.rx_no_mbuf.to_string()),
        column("IN-USE", Right, |port| port.mempool_in_use.to_string()),
    ];
    draw(rows, &columns, "no ports")
}

pub(super) fn cores(rows: &[CoreRow]) -> String {
    let columns = [
        column("CORE", Right, |core: &CoreRow| core.core.to_string()),
        column("CPU", Right, |core| core.cpu.to_string()),
        column("ROLE", Left, |core| core.role.clone()),
        column("THREAD", Left, |core| core.thread.clone()),
        column("BUSY-POLLS", Right, |core| core.busy_polls.to_string()),
        column("IDLE-POLLS", Right, |core| core.idle_polls.to_string()),
        column("HANDED-OVER", Right, |core| core.handed_over.to_string()),
        column("CONNECTIONS", Right, |core| core.connections.to_string()),
    ];
    draw(rows, &columns, "no cores")
}
