//! The things that happen, and how they are told.

use core::fmt;

use crate::state::{Frame, Packet};

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Start,
    Miss { owner: u8, packet: Packet, target: u8 },
    LostEntryGoes { owner: u8, flow: u8 },
    Frame(Frame),
    Stop { target: u8, flow: u8 },
    RaiseFloors { owner: u8, target: u8 },
    Forget { owner: u8, target: u8 },
    TakeReportAgain { owner: u8, target: u8, batch: u8 },
    RaiseSerial { owner: u8, target: u8 },
    Acknowledge { target: u8 },
    Hit { owner: u8, packet: Packet },
    Suspend { owner: u8, target: u8 },
    CoresHear { owner: u8, target: u8 },
    RecordLoss { owner: u8, target: u8 },
    Seal { owner: u8, sa: u8 },
    Replace { owner: u8, target: u8 },
    Restart { target: u8 },
    Enrol { owner: u8, target: u8 },
    Drain { owner: u8, target: u8 },
    Leave { owner: u8, target: u8 },
    Birth { owner: u8 },
    Snapshot { target: u8 },
    Claim,
    Answer { target: u8 },
    TargetsCoresHear { target: u8 },
    GiveUp { target: u8 },
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SA{}#{}", self.sa() + 1, self.number())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let o = |owner: u8| owner + 1;
        let t = |target: u8| target + 1;
        match *self {
            Step::Start => write!(f, "owner O1, targets T1 and T2, SA1"),
            Step::Miss { owner, packet, target } => {
                write!(f, "O{} gets {packet}: a miss, authenticated, entry to T{}, forwarded", o(owner), t(target))
            }
            Step::LostEntryGoes { owner, flow } => write!(f, "O{}: the lost entry of connection {flow} goes", o(owner)),
            Step::Frame(frame) => write!(
                f,
                "T{} gets {} by a frame of epoch {}, incarnation {}, serial {}, floor {}: DELIVERED",
                t(frame.target),
                frame.packet,
                frame.epoch,
                frame.incarnation,
                frame.serial,
                frame.floor
            ),
            Step::Stop { target, flow } => write!(f, "T{} stops connection {flow} and reports its tops", t(target)),
            Step::RaiseFloors { owner, target } => write!(f, "O{} raises floors as T{} reported", o(owner), t(target)),
            Step::Forget { owner, target } => write!(f, "O{} forgets the entry that T{} freed", o(owner), t(target)),
            Step::TakeReportAgain { owner, target, batch } => {
                write!(f, "O{} gets report {batch} of T{} once more", o(owner), t(target))
            }
            Step::RaiseSerial { owner, target } => {
                write!(f, "O{}: frames to T{} carry the next serial", o(owner), t(target))
            }
            Step::Acknowledge { target } => write!(f, "T{} hears the acknowledgement and buries", t(target)),
            Step::Suspend { owner, target } => {
                write!(f, "O{} believes T{} lost, sends it no more", o(owner), t(target))
            }
            Step::Hit { owner, packet } => write!(f, "O{} gets {packet}: a hit, authenticated, forwarded", o(owner)),
            Step::CoresHear { owner, target } => {
                write!(f, "O{}: every core has heard that T{} is suspended", o(owner), t(target))
            }
            Step::TargetsCoresHear { target } => write!(f, "T{}: every core has heard of epoch 2", t(target)),
            Step::RecordLoss { owner, target } => {
                write!(f, "O{} records the loss of T{} in the CF", o(owner), t(target))
            }
            Step::Seal { owner, sa } => write!(f, "O{} seals SA{}", o(owner), sa + 1),
            Step::Replace { owner, target } => write!(f, "O{} lets the entries of T{} go", o(owner), t(target)),
            Step::Restart { target } => write!(f, "T{} restarts, empty", t(target)),
            Step::Enrol { owner, target } => {
                write!(f, "O{} takes the new start of T{} as a target", o(owner), t(target))
            }
            Step::Drain { owner, target } => write!(f, "O{} drains T{}", o(owner), t(target)),
            Step::Leave { owner, target } => write!(f, "T{} leaves O{}, drained", t(target), o(owner)),
            Step::Birth { owner } => write!(f, "O{}: SA2 is born", o(owner)),
            Step::Snapshot { target } => write!(f, "T{} is told the SAs again", t(target)),
            Step::Claim => write!(f, "O2 claims the address: epoch 2"),
            Step::Answer { target } => write!(f, "T{} goes over to O2, with entries and tops", t(target)),
            Step::GiveUp { target } => write!(f, "O2 waits no longer for T{}", t(target)),
        }
    }
}
