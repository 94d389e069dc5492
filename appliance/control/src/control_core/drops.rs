//! What was dropped, by reason, wherever in the appliance it was: rows for operators, and lines in the log.

use core::time::Duration;
use std::collections::HashMap;

use datapath::drops::{DropReason, Severity};
use ike::DropReason as IkeDrop;
use ipsec::time::Instant;
use tracing::{info, warn};

use super::ControlCore;
use crate::report::DropRow;
use crate::stack;

/// How often the counters are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// No reason is logged more often: a flood fills counters, never the log.
const QUIET: Duration = Duration::from_secs(10);

/// The packets that ended for one reason.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropped {
    reason: &'static str,
    severity: Severity,
    meaning: &'static str,
    /// Which part of the appliance dropped them.
    stage: &'static str,
    packets: u64,
}

impl<B> ControlCore<B> {
    /// Every reason there is, with its count: the data cores', the IP stack's, IKE's.
    fn dropped(&self) -> Vec<Dropped> {
        let of_data = DropReason::ALL.iter().map(|&reason| Dropped {
            reason: reason.name(),
            severity: reason.severity(),
            meaning: reason.sentence(),
            stage: "data",
            packets: self.cores.iter().map(|core| core.ledger.dropped(reason)).sum(),
        });
        let in_stack = self.stack.counters();
        let of_stack = stack::DropReason::ALL.iter().map(|&reason| Dropped {
            reason: reason.name(),
            severity: reason.severity(),
            meaning: reason.sentence(),
            stage: "stack",
            packets: in_stack.dropped(reason),
        });
        let in_ike = self.ike.counters();
        let of_ike = IkeDrop::ALL.iter().map(|&reason| Dropped {
            reason: reason.name(),
            severity: severity_of(reason),
            meaning: reason.sentence(),
            stage: "ike",
            packets: in_ike.dropped(reason),
        });
        of_data.chain(of_stack).chain(of_ike).collect()
    }

    pub(super) fn drop_rows(&self) -> Vec<DropRow> {
        let row = |dropped: Dropped| DropRow {
            reason: dropped.reason.to_owned(),
            packets: dropped.packets,
            severity: dropped.severity.name().to_owned(),
            meaning: dropped.meaning.to_owned(),
            stage: dropped.stage.to_owned(),
        };
        self.dropped().into_iter().map(row).collect()
    }

    /// Logs which drops have grown.
    pub(super) fn watch_drops(&mut self, now: Instant) {
        if !self.drop_watch.is_due(now) {
            return;
        }
        for dropped in self.dropped() {
            let Some(packets) = self.drop_watch.news(now, &dropped) else { continue };
            let Dropped { reason, severity, meaning, packets: total, .. } = dropped;
            match severity {
                Severity::Shortage => warn!(reason, packets, total, meaning, "packets dropped"),
                Severity::Suspicious => info!(reason, packets, total, meaning, "packets dropped"),
                Severity::Expected => {}
            }
        }
    }
}

/// How much an operator should care about what IKE drops.
const fn severity_of(reason: IkeDrop) -> Severity {
    match reason {
        IkeDrop::HalfOpenFull | IkeDrop::SaTableFull | IkeDrop::ErrorReplyHeldBack | IkeDrop::TransmitQueueFull => {
            Severity::Shortage
        }
        IkeDrop::UnknownSa
        | IkeDrop::OldMessageId
        | IkeDrop::UnexpectedResponse
        | IkeDrop::NotServed
        | IkeDrop::ShuttingDown => Severity::Expected,
        IkeDrop::TooLong
        | IkeDrop::Header
        | IkeDrop::Version
        | IkeDrop::UnexpectedExchange
        | IkeDrop::Malformed
        | IkeDrop::NotEncrypted
        | IkeDrop::NotAuthentic
        | IkeDrop::UnwantedFragment
        | IkeDrop::AttemptsExhausted
        | IkeDrop::FutureMessageId => Severity::Suspicious,
    }
}

/// What has been logged of each reason.
#[derive(Debug, Default)]
pub(super) struct DropWatch {
    due: Instant,
    told: HashMap<&'static str, Told>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Told {
    packets: u64,
    quiet_until: Instant,
}

impl DropWatch {
    /// Whether it is time to look again.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.due;
        if is_due {
            self.due = now + INTERVAL;
        }
        is_due
    }

    /// How many packets are news, if the reason may be spoken of again.
    fn news(&mut self, now: Instant, dropped: &Dropped) -> Option<u64> {
        let told = self.told.entry(dropped.reason).or_default();
        let grown = dropped.packets.saturating_sub(told.packets);
        if grown == 0 || now < told.quiet_until {
            return None;
        }
        *told = Told { packets: dropped.packets, quiet_until: now + QUIET };
        Some(grown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dropped(packets: u64) -> Dropped {
        Dropped { reason: "no_room", severity: Severity::Shortage, meaning: "", stage: "data", packets }
    }

    #[test]
    fn growth_is_told_at_once_and_then_in_sums() {
        let mut watch = DropWatch::default();
        let at = Instant::from_secs;
        assert_eq!(watch.news(at(1), &dropped(0)), None);
        assert_eq!(watch.news(at(1), &dropped(3)), Some(3));
        assert_eq!(watch.news(at(2), &dropped(1_000)), None, "a flood does not fill the log");
        assert_eq!(watch.news(at(11), &dropped(1_500)), Some(1_497), "and nothing of it is forgotten");
        assert_eq!(watch.news(at(60), &dropped(1_500)), None);
    }

    #[test]
    fn the_counters_are_looked_at_once_an_interval() {
        let mut watch = DropWatch::default();
        let looks = (0..3_000).filter(|&ms| watch.is_due(Instant::from_nanos(ms * 1_000_000))).count();
        assert_eq!(looks, 3);
    }
}
