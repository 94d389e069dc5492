//! The cluster's rows for people.

use super::cluster_rows::{ClusterRow, DvipaRow, LifesizeRow, MemberRow, ShadowRow, TargetRow, WhereRow};
use super::table::Align::{Left, Right};
use super::table::{column, draw, limit};

fn list(words: &[String], none: &str) -> String {
    if words.is_empty() { none.to_owned() } else { words.join(",") }
}

fn yes(whether: bool) -> String {
    if whether { "yes" } else { "no" }.to_owned()
}

pub(super) fn dvipas(rows: &[DvipaRow]) -> String {
    let columns = [
        column("ADDRESS", Left, |row: &DvipaRow| row.address.to_string()),
        column("OWNER", Left, |row| row.owner.clone()),
        column("EPOCH", Right, |row| row.epoch.to_string()),
        column("ROLE", Left, |row| row.role.clone()),
        column("PROCESSING", Left, |row| row.processing.clone()),
        column("SEQUENCE", Left, |row| row.outbound_sequence.clone()),
        column("DISTRIBUTION", Left, |row| row.distribution.clone()),
        column("SERVICES", Left, |row| list(&row.services, "every port")),
        column("SAS", Right, |row| row.sas.to_string()),
        column("REPORTS", Right, |row| row.lifesize_reports.to_string()),
        column("REFRESHES", Right, |row| row.refreshes.to_string()),
        column("SETTLING", Left, |row| yes(row.settling)),
    ];
    draw(rows, &columns, "no DVIPAs")
}

pub(super) fn targets(rows: &[TargetRow]) -> String {
    let columns = [
        column("DVIPA", Left, |row: &TargetRow| row.dvipa.to_string()),
        column("TARGET", Left, |row| row.name.clone()),
        column("STATE", Left, |row| row.state.clone()),
        column("CONNECTIONS", Right, |row| row.connections.to_string()),
        column("WEIGHT", Right, |row| row.weight.to_string()),
        column("LOAD", Right, |row| row.load.to_string()),
        column("READY", Left, |row| list(&row.services_ready, "-")),
        column("SHADOWS", Right, |row| format!("{}/{}", row.shadows_acknowledged, row.shadows_told)),
        column("INCARNATION", Right, |row| row.incarnation.to_string()),
        column("SERIAL", Right, |row| row.serial.to_string()),
    ];
    draw(rows, &columns, "no targets: this member owns no DVIPA")
}

pub(super) fn shadows(rows: &[ShadowRow]) -> String {
    let columns = [
        column("DVIPA", Left, |row: &ShadowRow| row.dvipa.to_string()),
        column("SPI-IN", Left, |row| row.spi_in.clone()),
        column("SPI-OUT", Left, |row| row.spi_out.clone()),
        column("NAME", Left, |row| row.name.clone()),
        column("PEER", Left, |row| row.peer.clone()),
        column("EPOCH", Right, |row| row.epoch.to_string()),
        column("SHADOW", Left, |row| yes(row.shadow)),
        column("PROCESSING", Left, |row| row.processing.clone()),
        column("FLOOR", Right, |row| row.floor.to_string()),
        column("SEALED", Left, |row| yes(row.sealed)),
        column("NUMBERS", Left, |row| row.numbers.clone()),
        column("MARK", Right, |row| limit(row.mark)),
        column("SENDER", Left, |row| row.sender.clone()),
        column("HELD-BY", Left, |row| list(&row.held_by, "-")),
        column("FALLBACK", Left, |row| row.fallback.clone()),
    ];
    draw(rows, &columns, "no security associations")
}

pub(super) fn lifesizes(rows: &[LifesizeRow]) -> String {
    let columns = [
        column("DVIPA", Left, |row: &LifesizeRow| row.dvipa.to_string()),
        column("SPI-IN", Left, |row| row.spi_in.clone()),
        column("DIR", Left, |row| row.direction.clone()),
        column("USED", Right, |row| row.used_bytes.to_string()),
        column("GRANTED", Right, |row| row.granted_bytes.to_string()),
        column("CHARGED", Right, |row| row.charged_bytes.to_string()),
        column("SOFT", Right, |row| limit(row.soft_limit_bytes)),
        column("HARD", Right, |row| limit(row.hard_limit_bytes)),
        column("OVERRUN", Right, |row| row.overrun_bound_bytes.to_string()),
        column("PERMILLE", Right, |row| row.report_permille.to_string()),
        column("REPORTS", Right, |row| row.reports.to_string()),
    ];
    draw(rows, &columns, "no lifesizes: this member owns no SA of a cluster")
}

pub(super) fn cluster(row: &ClusterRow) -> String {
    if row.name.is_empty() {
        return "this appliance is on its own: its configuration names no cluster\n".to_owned();
    }
    let columns = [
        column("MEMBER", Left, |row: &MemberRow| row.name.clone()),
        column("ID", Right, |row| row.id.to_string()),
        column("ADDRESS", Left, |row| row.address.to_string()),
        column("STATE", Left, |row| if row.own { "self".to_owned() } else { row.state.clone() }),
        column("INCARNATION", Right, |row| row.incarnation.to_string()),
        column("VERSION", Right, |row| row.version.to_string()),
        column("HEARD-MS", Right, |row| limit(row.heard_ms)),
        column("CORES-MOVE", Left, |row| yes(row.cores_move)),
        column("CARRIER", Left, |row| yes(row.carrier)),
        column("NEXT-HOP", Left, |row| yes(row.next_hop)),
    ];
    let state = if row.facility_up { "up" } else { "DOWN" };
    let head = format!("cluster {}; facility {} {state}, revision {}\n", row.name, row.facility, row.facility_revision);
    head + &draw(&row.members, &columns, "no members")
}

pub(super) fn places(rows: &[WhereRow]) -> String {
    let columns = [
        column("PEER", Left, |row: &WhereRow| row.peer.clone()),
        column("SRC", Left, |row| row.src.clone()),
        column("DST", Left, |row| row.dst.clone()),
        column("PROTOCOL", Left, |row| row.protocol.clone()),
        column("TARGET", Left, |row| row.target.clone()),
        column("KNOWN-BY", Left, |row| row.known_by.clone()),
        column("AGE-MS", Right, |row| limit(row.age_ms)),
        column("QUIET-MS", Right, |row| limit(row.quiet_ms)),
        column("WHY", Left, |row| row.why.clone()),
    ];
    draw(rows, &columns, "no such connection is known here; ask the owner of the address, or the target")
}
