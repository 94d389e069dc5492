//! Which services answer here: the application hosts behind this appliance are asked, over and over.
//!
//! A TCP service is ready when its host completes a handshake, and not ready when two probes in a row fail. A UDP service
//! has no handshake: it is ready while the TCP services of its address are, or always where there are none.

use core::time::Duration;
use std::collections::BTreeMap;
use std::net::IpAddr;

use cluster::member::{Member, ServicePort, Told};
use datapath::routes::PortId;
use ipsec::time::Instant;
use tracing::debug;

use crate::stack::{ProbeId, ProbeOutcome, Stack};

/// How often each service is asked.
const INTERVAL: Duration = Duration::from_millis(500);
/// Probes in a row that must fail.
const FAILURES: u8 = 2;

const TCP: u8 = 6;

/// A service that is probed from this appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbedService {
    /// Of which address.
    pub dvipa: IpAddr,
    /// Which port; `None` for a DVIPA that offers every port, which is ready as it is.
    pub service: Option<ServicePort>,
    /// The inside port that leads to its hosts.
    pub port: PortId,
    /// Our own address there.
    pub from: IpAddr,
}

#[derive(Debug, Clone, Copy)]
struct Probed {
    of: ProbedService,
    is_ready: bool,
    failures: u8,
    probe: Option<ProbeId>,
}

/// All services of this appliance.
#[derive(Debug)]
pub(super) struct Prober {
    services: Vec<Probed>,
    due: Option<Instant>,
    told: BTreeMap<IpAddr, Vec<ServicePort>>,
}

impl Prober {
    pub(super) fn new(services: Vec<ProbedService>) -> Prober {
        let probed = |of| Probed { of, is_ready: false, failures: 0, probe: None };
        let due = (!services.is_empty()).then_some(Instant::ZERO);
        Prober { services: services.into_iter().map(probed).collect(), due, told: BTreeMap::new() }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Asks whom it is time to ask, and tells what has changed.
    pub(super) fn run(&mut self, now: Instant, member: &mut Member, stack: &mut Stack) -> bool {
        let mut busy = false;
        while let Some((probe, outcome)) = stack.poll_probe() {
            busy = true;
            self.judge(probe, outcome);
        }
        if self.due.is_some_and(|due| due <= now) {
            busy = true;
            self.due = Some(now + INTERVAL);
            self.ask(now, stack);
        }
        self.tell(now, member);
        busy
    }

    fn ask(&mut self, now: Instant, stack: &mut Stack) {
        for probed in &mut self.services {
            let Some(service) = probed.of.service.filter(|service| service.protocol == TCP) else { continue };
            if probed.probe.is_some() {
                continue;
            }
            let ProbedService { dvipa, port, from, .. } = probed.of;
            match stack.probe(now, port, from, (dvipa, service.port).into()) {
                Ok(probe) => probed.probe = Some(probe),
                Err(error) => debug!(dvipa = %probed.of.dvipa, port = service.port, %error, "service not probed"),
            }
        }
    }

    fn judge(&mut self, probe: ProbeId, outcome: ProbeOutcome) {
        let Some(probed) = self.services.iter_mut().find(|probed| probed.probe == Some(probe)) else { return };
        probed.probe = None;
        match outcome {
            ProbeOutcome::Ready => (probed.is_ready, probed.failures) = (true, 0),
            ProbeOutcome::Refused | ProbeOutcome::TimedOut => {
                probed.failures = probed.failures.saturating_add(1);
                probed.is_ready &= probed.failures < FAILURES;
            }
        }
    }

    fn tell(&mut self, now: Instant, member: &mut Member) {
        let mut ready: BTreeMap<IpAddr, Vec<ServicePort>> = BTreeMap::new();
        for probed in &self.services {
            let of_address = ready.entry(probed.of.dvipa).or_default();
            if let Some(service) = probed.of.service.filter(|service| self.is_ready(probed, *service)) {
                of_address.push(service);
            }
        }
        for (dvipa, ready) in ready {
            if self.told.get(&dvipa) != Some(&ready) {
                self.told.insert(dvipa, ready.clone());
                member.handle_told(now, Told::Services { dvipa, ready });
            }
        }
    }

    fn is_ready(&self, probed: &Probed, service: ServicePort) -> bool {
        let is_probed = |other: &&Probed| other.of.service.is_some_and(|service| service.protocol == TCP);
        let mut beside = self.services.iter().filter(|other| other.of.dvipa == probed.of.dvipa).filter(is_probed);
        if service.protocol == TCP { probed.is_ready } else { beside.all(|other| other.is_ready) }
    }
}
