//! What the runs gave: a table for people, one JSON object a line for programs.

use serde::Serialize;

/// One row. Fields are only added, never renamed.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// `io`: frames passed on untouched; `crypto`: AES-GCM alone; `ipsec`: the appliance.
    pub bench: &'static str,
    /// `in`: from ESP to the inside; `out`: the other way.
    pub direction: String,
    /// The inner IP packet.
    pub size_bytes: usize,
    /// SAs that the packets are spread over; 0 where there is none.
    pub sas: usize,
    /// The cipher, or `none`.
    pub cipher: String,
    /// The engine, or `none`.
    pub engine: String,
    /// The appliance's replay window; 0 where there is none.
    pub replay_window_packets: u32,
    /// Packets for each second of CPU time, the median of the windows.
    pub pps: f64,
    /// Ticks of the time stamp counter in the CPU time of one packet.
    pub cycles_per_packet: f64,
    /// The median of the ratios to the `io` window of the same turn.
    pub ratio_to_io: f64,
    /// Windows that count.
    pub windows: usize,
    /// Packets that came to their end in these windows.
    pub delivered: u64,
    /// Packets dropped in these windows, as counted: 0, or they would not count.
    pub drops: u64,
    /// Windows that were repeated, since a packet was dropped in them or none delivered.
    pub windows_discarded: usize,
    /// How far the windows' rates lie apart: (largest − smallest) / median.
    pub spread: f64,
}

/// Where rows go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
}

impl Format {
    /// Says what the columns are, where that is not said in every row.
    pub fn head(self) {
        if self == Format::Table {
            println!(
                "{:<7} {:<3} {:>5} {:>4} {:<11} {:<8} {:>6} {:>9} {:>8} {:>8} {:>7} {:>9}",
                "bench",
                "dir",
                "bytes",
                "sas",
                "cipher",
                "engine",
                "window",
                "Mpps",
                "cycles",
                "of io",
                "spread",
                "discarded"
            );
        }
    }

    /// Shows a row.
    pub fn row(self, row: &Row) -> Result<(), serde_json::Error> {
        match self {
            Format::Json => println!("{}", serde_json::to_string(row)?),
            Format::Table => println!(
                "{:<7} {:<3} {:>5} {:>4} {:<11} {:<8} {:>6} {:>9.3} {:>8.1} {:>8.3} {:>6.1}% {:>9}",
                row.bench,
                row.direction,
                row.size_bytes,
                row.sas,
                row.cipher,
                row.engine,
                row.replay_window_packets,
                row.pps / 1e6,
                row.cycles_per_packet,
                row.ratio_to_io,
                100.0 * row.spread,
                row.windows_discarded
            ),
        }
        Ok(())
    }
}
