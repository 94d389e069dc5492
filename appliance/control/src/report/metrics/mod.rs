//! Metrics for Prometheus: what they are called, and what they are filled from.
//!
//! Names follow Prometheus' rules (`promtool check metrics`): counters end in `_total`, units are base units, everything
//! has a help text. Labels take their values from the configuration or from closed sets of words, so their number is
//! bounded; single SAs, which rekeying makes for ever, are seen in `phalanx show sas`.

mod cluster;
mod server;

pub use server::{ServeError, Server};

use prometheus::core::{Atomic, GenericCounterVec, GenericGaugeVec};
use prometheus::{Encoder as _, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use super::Snapshot;

/// The text of all metrics (exposition format 0.0.4).
///
/// # Errors
/// [`prometheus::Error`] if two metrics have one name, which is a fault of this file.
pub fn render(snapshot: &Snapshot, version: &str) -> prometheus::Result<Vec<u8>> {
    let families = Families(Registry::new());
    families.appliance(snapshot, version)?;
    families.packets(snapshot)?;
    families.children(snapshot)?;
    families.ike(snapshot)?;
    families.ports(snapshot)?;
    families.cores(snapshot)?;
    families.cluster(snapshot)?;
    let mut text = Vec::new();
    TextEncoder::new().encode(&families.0.gather(), &mut text)?;
    Ok(text)
}

/// Metrics as they are filled: a registry for one scrape, for the values live elsewhere.
struct Families(Registry);

impl Families {
    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        let family = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(family.clone()))?;
        Ok(family)
    }

    fn appliance(&self, snapshot: &Snapshot, version: &str) -> prometheus::Result<()> {
        let info = self.gauge("phalanx_build_info", "Always 1; the label says which version runs.", &["version"])?;
        set(&info, &[version], 1)?;
        let uptime = self.gauge("phalanx_uptime_seconds", "Seconds since the appliance started.", &[])?;
        set(&uptime, &[], snapshot.uptime.as_secs())
    }

    fn packets(&self, snapshot: &Snapshot) -> prometheus::Result<()> {
        let balance = &snapshot.balance;
        for (name, help, value) in [
            ("received", "Frames taken from receive queues.", balance.received),
            ("delivered", "Inner packets sent to application hosts.", balance.delivered),
            ("forwarded", "Packets sent to the network: encrypted, or bypassed by policy.", balance.forwarded),
            ("relayed", "Packets sent to other members of the cluster.", balance.relayed),
            ("punted", "Frames given to the control core.", balance.punted),
            ("merged", "Fragments absorbed into another packet.", balance.merged),
            ("originated", "Frames of our own making that were sent.", balance.originated),
        ] {
            add(&self.counter(&format!("phalanx_{name}_packets_total"), help, &[])?, &[], value)?;
        }
        let drops = self.counter(
            "phalanx_dropped_packets_total",
            "Packets dropped, by reason; `phalanx show drops` explains each.",
            &["reason", "severity", "stage"],
        )?;
        for row in &snapshot.drops {
            add(&drops, &[&row.reason, &row.severity, &row.stage], row.packets)?;
        }
        let held = self.gauge("phalanx_held_packets", "Packets that wait inside now.", &[])?;
        set(&held, &[], balance.held)?;
        let difference = self.gauge(
            "phalanx_balance_difference_packets",
            "Packets received that ended nowhere: 0 whenever no core is in the middle of a burst.",
            &[],
        )?;
        difference.get_metric_with_label_values(&[] as &[&str])?.set(balance.difference);
        Ok(())
    }

    fn children(&self, snapshot: &Snapshot) -> prometheus::Result<()> {
        let labels = ["dvipa", "child", "direction"];
        let sas = self.gauge("phalanx_sas", "SAs that live now.", &labels)?;
        let packets = self.counter("phalanx_sa_packets_total", "Packets delivered or sent under SAs.", &labels)?;
        let bytes = self.counter("phalanx_sa_bytes_total", "Inner bytes delivered or sent under SAs.", &labels)?;
        let replayed = self.counter(
            "phalanx_sa_replayed_packets_total",
            "Packets refused as replayed or older than the replay window.",
            &labels,
        )?;
        for (key, totals) in &snapshot.children {
            let dvipa = key.dvipa.map_or("other".to_owned(), |address| address.to_string());
            let values = [dvipa.as_str(), &key.name, &key.direction];
            set(&sas, &values, totals.sas)?;
            add(&packets, &values, totals.packets)?;
            add(&bytes, &values, totals.bytes)?;
            add(&replayed, &values, totals.replay_drops)?;
        }
        Ok(())
    }

    fn ike(&self, snapshot: &Snapshot) -> prometheus::Result<()> {
        let events = self.counter("phalanx_ike_events_total", "What IKE has seen and done, by event.", &["event"])?;
        for (event, count) in &snapshot.ike_events {
            add(&events, &[event], *count)?;
        }
        let sas = self.gauge("phalanx_ike_sas", "IKE SAs now, by state.", &["state"])?;
        for (state, count) in &snapshot.ike_sas {
            set(&sas, &[state], *count)?;
        }
        Ok(())
    }

    fn ports(&self, snapshot: &Snapshot) -> prometheus::Result<()> {
        let labels = ["port", "role"];
        let received = self.counter("phalanx_port_received_packets_total", "Frames that a port received.", &labels)?;
        let sent = self.counter("phalanx_port_sent_packets_total", "Frames that a port sent.", &labels)?;
        let missed =
            self.counter("phalanx_port_missed_packets_total", "Frames that a device had no room for.", &labels)?;
        let no_mbuf = self.counter(
            "phalanx_port_unbuffered_packets_total",
            "Frames that were lost because no buffer was free.",
            &labels,
        )?;
        let link = self.gauge("phalanx_port_link_up", "Whether a port's link is up: 1 or 0.", &labels)?;
        let mtu = self.gauge("phalanx_port_mtu_bytes", "The largest IP packet that a port carries.", &labels)?;
        let buffers = self.gauge("phalanx_port_buffers_in_use", "Buffers of a port's pool in use.", &labels)?;
        for port in &snapshot.ports {
            let values = [port.name.as_str(), &port.role];
            add(&received, &values, port.rx_packets)?;
            add(&sent, &values, port.tx_packets)?;
            add(&missed, &values, port.rx_missed)?;
            add(&no_mbuf, &values, port.rx_no_mbuf)?;
            set(&link, &values, u64::from(port.link == "up"))?;
            set(&mtu, &values, u64::from(port.mtu))?;
            set(&buffers, &values, port.mempool_in_use)?;
        }
        Ok(())
    }

    fn cores(&self, snapshot: &Snapshot) -> prometheus::Result<()> {
        let polls = self.counter(
            "phalanx_core_polls_total",
            "Polls of a core, by whether there was something to do.",
            &["core", "role", "found"],
        )?;
        let labels = ["core", "role"];
        let handed_over =
            self.counter("phalanx_core_handed_over_packets_total", "Packets given to other cores.", &labels)?;
        let connections = self.gauge("phalanx_core_connections", "Connections that a core owns now.", &labels)?;
        for core in &snapshot.cores {
            let number = core.core.to_string();
            add(&polls, &[&number, &core.role, "work"], core.busy_polls)?;
            add(&polls, &[&number, &core.role, "nothing"], core.idle_polls)?;
            add(&handed_over, &[&number, &core.role], core.handed_over)?;
            set(&connections, &[&number, &core.role], core.connections)?;
        }
        Ok(())
    }
}

/// Two rows of one label add up: a port named twice is a fault elsewhere, and no reason to lose all metrics.
fn add<P: Atomic<T = u64>>(family: &GenericCounterVec<P>, labels: &[&str], value: u64) -> prometheus::Result<()> {
    family.get_metric_with_label_values(labels)?.inc_by(value);
    Ok(())
}

fn set<P: Atomic<T = i64>>(family: &GenericGaugeVec<P>, labels: &[&str], value: u64) -> prometheus::Result<()> {
    family.get_metric_with_label_values(labels)?.set(i64::try_from(value).unwrap_or(i64::MAX));
    Ok(())
}

#[cfg(test)]
mod tests;
