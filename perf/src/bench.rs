//! One case: everything that can work on its packets takes turns, window by window.
//!
//! A busy machine is slow for all of them at a time, so ratios are taken within a turn and hold where rates do not.

use std::time::Duration;

use ipsec::engine::{Engine, EngineKind};
use ipsec::sa::Direction;

use crate::capture::Captures;
use crate::check::check;
use crate::crypto::Bare;
use crate::fault::Fault;
use crate::lab::{CIPHER, Case};
use crate::report::Row;
use crate::rig::{Ground, Lines, Rig};
use crate::timing::{Window, measure, median};

/// CPU time of one window.
pub const WINDOW: Duration = Duration::from_millis(70);
/// Work before each window that is not counted: the caches belong to whoever ran before.
const WARM_UP: Duration = Duration::from_millis(3);
/// How often a window with drops is repeated.
const ATTEMPTS: u32 = 5;

/// What can work on packets.
enum Subject {
    Io(Box<Lines>),
    Crypto(EngineKind, Box<Bare>),
    Ipsec(EngineKind, Box<Rig>),
}

impl Subject {
    fn bench(&self) -> &'static str {
        match self {
            Subject::Io(_) => "io",
            Subject::Crypto(..) => "crypto",
            Subject::Ipsec(..) => "ipsec",
        }
    }

    fn engine(&self) -> Option<EngineKind> {
        match self {
            Subject::Io(_) => None,
            Subject::Crypto(engine, _) | Subject::Ipsec(engine, _) => Some(*engine),
        }
    }

    /// For messages.
    fn name(&self, case: &Case) -> String {
        let engine = self.engine().map_or_else(String::new, |engine| format!(" {engine}"));
        format!("{}{engine} {} {} bytes", self.bench(), case.direction, case.size_bytes)
    }

    fn run(&mut self, span: Duration) -> Result<Window, Fault> {
        match self {
            Subject::Io(lines) => Ok(measure(span, || (0..64).map(|_| lines.pass()).sum())),
            Subject::Crypto(_, bare) => Ok(measure(span, || (0..64).map(|_| bare.turn()).sum())),
            Subject::Ipsec(_, rig) => {
                let mut fault = None;
                let window = measure(span, || {
                    rig.turn().unwrap_or_else(|found| {
                        fault = Some(found);
                        0
                    })
                });
                fault.map_or(Ok(window), Err)
            }
        }
    }

    /// Adds a window without a drop to what was seen.
    fn window(&mut self, case: &Case, span: Duration, seen: &mut Seen) -> Result<(), Fault> {
        let (mut drops, mut reasons) = (0, String::new());
        for _ in 0..ATTEMPTS {
            self.run(WARM_UP)?;
            let before = self.drops();
            let window = self.run(span)?;
            drops = self.drops() - before;
            if drops == 0 && window.delivered > 0 {
                seen.windows.push(window);
                seen.drops += drops;
                return Ok(());
            }
            seen.discarded += 1;
            reasons = self.reasons();
        }
        Err(Fault::Invalid { bench: self.name(case), drops, attempts: ATTEMPTS, reasons })
    }

    fn drops(&self) -> u64 {
        match self {
            Subject::Io(_) | Subject::Crypto(..) => 0,
            Subject::Ipsec(_, rig) => rig.drops(),
        }
    }

    fn reasons(&self) -> String {
        match self {
            Subject::Io(_) | Subject::Crypto(..) => "no packet came to its end".to_owned(),
            Subject::Ipsec(_, rig) => rig.reasons(),
        }
    }
}

/// What was measured of one subject.
#[derive(Debug, Default)]
struct Seen {
    /// The windows that count.
    windows: Vec<Window>,
    /// Packets dropped within them.
    drops: u64,
    /// Windows that did not count.
    discarded: usize,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Windows of each row.
    pub windows: usize,
    /// CPU time of each.
    pub span: Duration,
    /// The baselines, too.
    pub baselines: bool,
}

/// Compares, then measures, one case.
///
/// # Errors
/// [`Fault`].
pub fn run(ground: Ground, case: &Case, engines: &[Engine], effort: Effort) -> Result<Vec<Row>, Fault> {
    let mut subjects = subjects(ground, case, engines, effort.baselines)?;
    let mut seen: Vec<Seen> = subjects.iter().map(|_| Seen::default()).collect();
    for turn in 0..effort.windows {
        // Each turn begins with another one, so that nobody always runs behind the same neighbour.
        for offset in 0..subjects.len() {
            let at = (turn + offset) % subjects.len();
            subjects[at].window(case, effort.span, &mut seen[at])?;
        }
    }
    let io = &seen[0].windows;
    Ok(subjects.iter().zip(&seen).map(|(subject, seen)| row(ground, case, subject, seen, io)).collect())
}

/// Baselines first: ratios are taken to the first.
fn subjects(ground: Ground, case: &Case, engines: &[Engine], baselines: bool) -> Result<Vec<Subject>, Fault> {
    let mut captures = Captures::new()?;
    let mut subjects = Vec::new();
    for &engine in engines {
        let round = case.round(engine)?;
        let capture = captures.write(round.iter().map(|sample| &sample.frame[..]))?;
        if baselines && subjects.is_empty() {
            subjects.push(Subject::Io(Box::new(Lines::open(ground, &capture)?)));
        }
        if baselines {
            subjects.push(Subject::Crypto(engine.kind(), Box::new(Bare::new(case, engine.kind())?)));
        }
        let rig = Rig::build(ground, case, engine, Lines::open(ground, &capture)?)?;
        let mut subject = Subject::Ipsec(engine.kind(), Box::new(rig));
        let name = subject.name(case);
        if let Subject::Ipsec(_, rig) = &mut subject {
            check(&name, case, &round, &rig.recorded_round()?)?;
        }
        subjects.push(subject);
    }
    Ok(subjects)
}

fn row(ground: Ground, case: &Case, subject: &Subject, seen: &Seen, io: &[Window]) -> Row {
    let windows = &seen.windows;
    let rates = || windows.iter().map(Window::packets_per_second);
    let pps = median(rates());
    let ratios = rates().zip(io).map(|(rate, io)| rate / io.packets_per_second());
    let has_sas = matches!(subject, Subject::Ipsec(..));
    let spread = rates().fold(0.0, f64::max) - rates().fold(f64::INFINITY, f64::min);
    Row {
        bench: subject.bench(),
        direction: case.direction.to_string(),
        size_bytes: case.size_bytes,
        sas: if has_sas { case.sas } else { 0 },
        cipher: subject.engine().map_or_else(|| "none".to_owned(), |_| CIPHER.to_string()),
        engine: subject.engine().map_or_else(|| "none".to_owned(), |engine| engine.to_string()),
        // Sealing has no window.
        replay_window_packets: match case.direction {
            Direction::Inbound if has_sas => case.replay_window_packets,
            Direction::Inbound | Direction::Outbound => 0,
        },
        pps,
        cycles_per_packet: ground.eal.tsc_hz() as f64 / pps,
        ratio_to_io: median(ratios),
        windows: windows.len(),
        delivered: windows.iter().map(|window| window.delivered).sum(),
        drops: seen.drops,
        windows_discarded: seen.discarded,
        spread: spread / pps,
    }
}
