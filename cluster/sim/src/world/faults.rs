//! What happens by itself: attackers, crashes, pauses, partitions, bad weather, a facility that is away.

use core::time::Duration;

use cluster::id::MemberId;
use ipsec::time::Instant;

use super::{End, Happening, World};
use crate::client::Client;
use crate::dice::Dice;
use crate::topology::OWNER;
use crate::weather::Weather;

/// How often chance is asked.
const PERIOD: Duration = Duration::from_millis(2);

/// What happens by itself. Chances in a thousand, asked every two milliseconds.
#[derive(Debug)]
pub struct Background {
    /// An attacker sends something that was captured, changed or not.
    pub attacks: u64,
    /// A fault begins: a crash, a pause, a partition, foul weather.
    pub faults: u64,
    dice: Dice,
    /// What ends by itself, and when.
    ends: Vec<(Instant, Ending)>,
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    Start(MemberId),
    Heal(MemberId, MemberId),
    Fine,
    FineNetwork,
    FacilityUp,
    RollBack,
    Undrain(MemberId),
}

impl Background {
    pub(super) fn new(seed: u64) -> Background {
        Background { attacks: 0, faults: 0, dice: Dice::new(seed, "background"), ends: Vec::new() }
    }
}

impl World {
    pub(super) fn do_background(&mut self) -> Result<(), End> {
        self.schedule(self.now + PERIOD, Happening::Background);
        let now = self.now;
        let due: Vec<Ending> = self.background.ends.extract_if(.., |(at, _)| *at <= now).map(|(_, end)| end).collect();
        for ending in due {
            self.end_fault(ending)?;
        }
        if self.background.dice.permille(self.background.attacks) {
            self.attack_somebody();
        }
        if self.background.dice.permille(self.background.faults) {
            self.begin_fault();
        }
        Ok(())
    }

    fn attack_somebody(&mut self) {
        let dice = &mut self.background.dice;
        let count = self.captured.len() as u64;
        // Fresh ones mostly: old numbers are below every window.
        let recent = if dice.permille(700) { count.min(48) } else { count };
        let Some(frame) = self.captured.get((count - recent + dice.below(recent)) as usize) else { return };
        let mut frame = frame.clone();
        let members: Vec<MemberId> = self.nodes.keys().copied().collect();
        let member = if dice.permille(700) { OWNER } else { dice.pick(&members).copied().unwrap_or(OWNER) };
        let core = dice.below(8) as usize;
        if dice.permille(200) {
            // Behind the outer addresses: SPI, number, IV, ciphertext or ICV.
            let at = 34 + dice.below(frame.len() as u64 - 34) as usize;
            frame[at] ^= 1 << dice.below(8);
        }
        self.attack(member, core, frame);
    }

    fn begin_fault(&mut self) {
        let members: Vec<MemberId> = self.nodes.keys().copied().collect();
        let dice = &mut self.background.dice;
        let member = dice.pick(&members).copied().unwrap_or(OWNER);
        let target = dice.pick(&self.topology.targets).copied().unwrap_or(OWNER);
        let span = dice.millis(20, 1_500);
        let (choice, one_way, weather) = (dice.below(100), dice.permille(400), Weather::draw(dice));
        let client = dice.below(self.clients.len() as u64) as usize;
        match choice {
            0..14 => self.crash(target, span),
            14..17 => self.crash(OWNER, span),
            17..32 => self.pause(member, span),
            32..40 => self.jump(member, span),
            40..62 => self.part(OWNER, target, span, one_way),
            62..74 => self.foul(weather, span),
            74..82 => self.foul_network(weather, span),
            82..90 => self.take_facility_away(span),
            90..92 => self.take_facility_back(span),
            92..96 => self.drain(target, span),
            _ => self.renew_client(client, Duration::ZERO),
        }
    }

    fn later(&mut self, span: Duration, ending: Ending) {
        self.background.ends.push((self.now + span, ending));
    }

    /// A member dies, and comes back as another start.
    pub fn crash(&mut self, member: MemberId, span: Duration) {
        if self.runs(member) {
            self.stop(member);
            self.later(span, Ending::Start(member));
        }
    }

    /// A member does not get to work.
    pub fn pause(&mut self, member: MemberId, span: Duration) {
        let now = self.now;
        if let Some(node) = self.nodes.get_mut(&member).filter(|node| node.appliance.is_some()) {
            node.paused_until = node.paused_until.max(now + span);
        }
        self.note(("pause", member));
        tracing::info!(at = %self.now, %member, ?span, "SIM pause");
    }

    /// A member's clock goes ahead.
    pub fn jump(&mut self, member: MemberId, span: Duration) {
        if let Some(node) = self.nodes.get_mut(&member) {
            node.skew += span;
        }
        self.model.aged(member, span);
        self.note(("jump", member));
        tracing::info!(at = %self.now, %member, ?span, "SIM clock jump");
    }

    /// Nothing passes between two members, or from the first to the second only.
    pub fn part(&mut self, a: MemberId, b: MemberId, span: Duration, one_way: bool) {
        self.cut(a, b);
        if !one_way {
            self.cut(b, a);
        }
        self.later(span, Ending::Heal(a, b));
        self.note(("part", a, b, one_way));
        tracing::info!(at = %self.now, %a, %b, ?span, one_way, "SIM part");
    }

    /// Nothing passes from one member to another, until further notice.
    pub fn cut(&mut self, from: MemberId, to: MemberId) {
        self.cut.insert((from, to));
    }

    /// Only packets of clients pass from one member to another, no messages, until further notice.
    pub fn silence(&mut self, from: MemberId, to: MemberId) {
        self.speechless.insert((from, to));
    }

    /// Everything passes again.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.speechless.clear();
    }

    /// The trusted link is bad for a while.
    pub fn foul(&mut self, weather: Weather, span: Duration) {
        self.trusted.weather = weather;
        tracing::info!(at = %self.now, ?weather, ?span, "SIM foul trusted link");
        self.later(span, Ending::Fine);
    }

    /// The clients' network is bad for a while.
    pub fn foul_network(&mut self, weather: Weather, span: Duration) {
        self.network.weather = weather;
        tracing::info!(at = %self.now, ?weather, ?span, "SIM foul network");
        self.later(span, Ending::FineNetwork);
    }

    /// The facility does not answer for a while.
    pub fn take_facility_away(&mut self, span: Duration) {
        self.facility.is_up = false;
        tracing::info!(at = %self.now, ?span, "SIM facility away");
        self.later(span, Ending::FacilityUp);
    }

    /// The facility is put back, after this time, to what it is now.
    pub fn take_facility_back(&mut self, span: Duration) {
        self.facility.back_up();
        self.later(span, Ending::RollBack);
    }

    /// The facility is put back to its last backup.
    pub fn roll_back(&mut self) {
        let is_done = self.facility.roll_back();
        self.note(("roll back", is_done));
        tracing::info!(at = %self.now, is_done, "SIM facility rolled back");
    }

    /// A target gets no new connections for a while.
    pub fn drain(&mut self, target: MemberId, span: Duration) {
        self.tell_drain(target, true);
        self.later(span, Ending::Undrain(target));
    }

    /// The operator speaks.
    pub fn tell_drain(&mut self, target: MemberId, on: bool) {
        let now = self.now;
        let name = crate::pki::name_of(target);
        if let Some(node) = self.nodes.get_mut(&OWNER)
            && let Some(appliance) = &mut node.appliance
        {
            let _ = appliance.control.drain(now + node.skew, &name, on);
            node.wake = now;
        }
        self.note(("drain", target, on));
        tracing::info!(at = %self.now, %target, on, "SIM drain");
    }

    /// A client starts anew, and has forgotten everything.
    pub fn renew_client(&mut self, client: usize, after: Duration) {
        if let Ok(fresh) = Client::new(self.now, client, &self.topology, &mut self.luck) {
            self.model.renewed(fresh.address());
            self.clients[client] = fresh.waiting(self.now + after);
            self.note(("renewed", client));
            tracing::info!(at = %self.now, client, "SIM client starts anew");
        }
    }

    /// A client replaces its newest SA.
    pub fn rekey_client(&mut self, client: usize) {
        let now = self.now;
        if let Some(client) = self.clients.get_mut(client) {
            client.rekey(now);
        }
    }

    fn end_fault(&mut self, ending: Ending) -> Result<(), End> {
        match ending {
            Ending::Start(member) if !self.runs(member) => {
                if !self.start(member)? {
                    self.later(Duration::from_millis(50), Ending::Start(member));
                } else if member == OWNER {
                    // Its clients would find out by themselves some day.
                    (0..self.clients.len()).for_each(|client| self.renew_client(client, Duration::from_millis(50)));
                }
            }
            Ending::Start(_) => {}
            Ending::Heal(a, b) => {
                self.cut.remove(&(a, b));
                self.cut.remove(&(b, a));
            }
            Ending::Fine => self.trusted.weather = Weather::FINE,
            Ending::FineNetwork => self.network.weather = Weather::FINE,
            Ending::FacilityUp => self.facility.is_up = true,
            Ending::RollBack => self.roll_back(),
            Ending::Undrain(member) => self.tell_drain(member, false),
        }
        Ok(())
    }
}
