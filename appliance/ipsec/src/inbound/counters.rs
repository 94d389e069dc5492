//! What one core counts of one inbound SA.

use super::InboundError;

/// What one core counted of one SA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InboundCounters {
    /// Packets accepted, dummies included.
    pub packets: u64,
    /// Bytes of the inner packets accepted (of the payload in transport mode).
    pub bytes: u64,
    /// Packets authenticated for another appliance to deliver, which counts them.
    pub authenticated: u64,
    /// Refused: truncated.
    pub truncated: u64,
    /// Refused: replayed, before the window or below the floor.
    pub replay_drops: u64,
    /// Refused: not verified.
    pub authentication_failures: u64,
    /// Refused: verified, but padding, next header or inner packet are malformed.
    pub malformed: u64,
    /// Accepted and thrown away: dummies.
    pub dummies: u64,
    /// Refused: verified, but outside the SA's traffic selectors.
    pub selector_drops: u64,
    /// Refused: the hard limit, or the end of what was granted, was reached.
    pub lifesize_drops: u64,
}

impl InboundCounters {
    /// Adds what another core counted.
    pub fn add(&mut self, other: &Self) {
        let Self {
            packets,
            bytes,
            authenticated,
            truncated,
            replay_drops,
            authentication_failures,
            malformed,
            dummies,
            selector_drops,
            lifesize_drops,
        } = other;
        self.packets += packets;
        self.bytes += bytes;
        self.authenticated += authenticated;
        self.truncated += truncated;
        self.replay_drops += replay_drops;
        self.authentication_failures += authentication_failures;
        self.malformed += malformed;
        self.dummies += dummies;
        self.selector_drops += selector_drops;
        self.lifesize_drops += lifesize_drops;
    }

    #[cold]
    pub(super) fn count(&mut self, error: InboundError) {
        match error {
            InboundError::Truncated => self.truncated += 1,
            InboundError::Replayed | InboundError::TooOld | InboundError::BelowFloor => self.replay_drops += 1,
            InboundError::AuthenticationFailed => self.authentication_failures += 1,
            InboundError::BadPadding | InboundError::UnknownNextHeader | InboundError::MalformedInner => {
                self.malformed += 1;
            }
            InboundError::Dummy => {
                self.packets += 1;
                self.dummies += 1;
            }
            InboundError::HardLimit | InboundError::Ungranted => self.lifesize_drops += 1,
        }
    }
}
