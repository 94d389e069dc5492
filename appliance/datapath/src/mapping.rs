//! Where the NAT in front of a peer has its ESP come from, as one core sees one inbound SA (RFC 7296 §2.23).
//!
//! A core only notices and tells. The control core decides, so that all cores and IKE follow a peer together.

use core::net::SocketAddr;
use core::time::Duration;
use ipsec::esp::Authentic;
use ipsec::sa::{Encapsulation, SaParameters};
use ipsec::time::Instant;

/// How soon a core tells again of an SA whose packets come from elsewhere.
pub const TELL_AGAIN: Duration = Duration::from_millis(100);

/// Where a peer behind a NAT is, and whether it was said that it is elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    remote: SocketAddr,
    told: Option<Instant>,
}

impl Mapping {
    /// The mapping at the birth of an inbound SA; `None` without a NAT between, for then nobody moves unasked.
    pub fn of(parameters: &SaParameters) -> Option<Mapping> {
        match parameters.encapsulation {
            Encapsulation::None => None,
            Encapsulation::Udp { remote_port, .. } => {
                Some(Mapping { remote: SocketAddr::new(parameters.remote, remote_port), told: None })
            }
        }
    }

    /// The peer is there now, says the control core.
    pub fn set(&mut self, remote: SocketAddr) {
        *self = Mapping { remote, told: None };
    }

    /// Whether a packet from `source` shows that the peer has moved, and it is time to tell.
    #[inline]
    pub fn is_to_be_told(&self, source: SocketAddr, now: Instant) -> bool {
        source != self.remote && self.told.is_none_or(|told| now >= told + TELL_AGAIN)
    }

    /// It is told now. Only the newest authentic packet of the SA may be the reason, or what was delayed on its way would
    /// move the peer back.
    pub fn told(&mut self, _newest: &Authentic, now: Instant) {
        self.told = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{authentic, parameters};
    use ipsec::sa::Direction;

    #[test]
    fn without_a_nat_there_is_no_mapping() {
        assert_eq!(Mapping::of(&parameters(1, 300, Direction::Inbound, &[])), None);
    }

    #[test]
    fn a_move_is_told_at_a_limited_rate_until_it_is_followed() {
        let mut parameters = parameters(1, 300, Direction::Inbound, &[]);
        parameters.encapsulation = Encapsulation::Udp { local_port: 4500, remote_port: 4500 };
        let mut mapping = Mapping::of(&parameters).unwrap();
        let (home, away) = (SocketAddr::new(parameters.remote, 4500), SocketAddr::new(parameters.remote, 1024));
        let told = |mapping: &mut Mapping, source, millis| {
            let now = Instant::from_millis(millis);
            let is_told = mapping.is_to_be_told(source, now);
            is_told.then(|| mapping.told(&authentic(), now)).is_some()
        };
        assert!(!told(&mut mapping, home, 0));
        assert!(told(&mut mapping, away, 1));
        assert!(!told(&mut mapping, away, 100));
        assert!(told(&mut mapping, away, 101));
        mapping.set(away);
        assert!(!told(&mut mapping, away, 500));
        assert!(told(&mut mapping, home, 501), "it may go back");
    }
}
