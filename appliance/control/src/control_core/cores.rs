//! The data cores as the control core sees them: mailboxes, ledgers, and commands that wait for room.

use std::collections::VecDeque;
use std::sync::Arc;

use datapath::cluster::reports::Report;
use datapath::core::PollCounters;
use datapath::counters::Ledger;
use datapath::mailbox::{Command, CoreLink, Event, Punted};
use datapath::routes::PortId;

/// One data core.
#[derive(Debug)]
pub struct CoreHandle<B> {
    link: CoreLink<B>,
    /// Where its packets end.
    pub ledger: Arc<Ledger>,
    /// How it spends its polls.
    pub polls: Arc<PollCounters>,
    waiting: VecDeque<Command>,
}

impl<B> CoreHandle<B> {
    /// Takes the control core's end of a data core.
    pub fn new(link: CoreLink<B>, ledger: Arc<Ledger>, polls: Arc<PollCounters>) -> Self {
        CoreHandle { link, ledger, polls, waiting: VecDeque::new() }
    }

    fn tell(&mut self, command: Command) {
        self.waiting.push_back(command);
        self.flush();
    }

    /// Sends what waits, in order, as far as there is room.
    fn flush(&mut self) {
        while let Some(command) = self.waiting.pop_front() {
            if let Err(command) = self.link.send(command) {
                return self.waiting.push_front(command);
            }
        }
    }
}

/// A place in what every core is told, see [`Cores::mark`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark(Box<[u64]>);

/// All data cores.
#[derive(Debug)]
pub(super) struct Cores<B>(Vec<CoreHandle<B>>);

impl<B> Cores<B> {
    pub(super) fn new(cores: Vec<CoreHandle<B>>) -> Self {
        Cores(cores)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &CoreHandle<B>> {
        self.0.iter()
    }

    pub(super) fn ledgers(&self) -> impl Iterator<Item = &Ledger> + Clone {
        self.0.iter().map(|core| &*core.ledger)
    }

    pub(super) fn tell(&mut self, core: usize, command: Command) {
        if let Some(core) = self.0.get_mut(core) {
            core.tell(command);
        }
    }

    pub(super) fn tell_all(&mut self, mut command: impl FnMut() -> Command) {
        self.0.iter_mut().for_each(|core| core.tell(command()));
    }

    pub(super) fn flush(&mut self) {
        self.0.iter_mut().for_each(CoreHandle::flush);
    }

    /// Where each core will be once it has executed all that it has been told so far.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.0.iter().map(|core| core.link.last_sent() + core.waiting.len() as u64).collect())
    }

    /// Whether every core has come so far.
    pub(super) fn have_passed(&self, mark: &Mark) -> bool {
        self.0.iter().zip(&mark.0).all(|(core, &number)| core.link.has_applied(number))
    }

    /// Whether every core has executed all that it was told.
    pub(super) fn all_applied(&self) -> bool {
        self.0.iter().all(|core| core.waiting.is_empty() && core.link.has_applied(core.link.last_sent()))
    }

    pub(super) fn next_event(&mut self, core: usize) -> Option<Event> {
        self.0.get_mut(core)?.link.events.pop().ok()
    }

    pub(super) fn next_report(&mut self, core: usize) -> Option<Report> {
        self.0.get_mut(core)?.link.reports.pop().ok()
    }

    pub(super) fn next_punted(&mut self, core: usize) -> Option<Punted<B>> {
        self.0.get_mut(core)?.link.punted.pop().ok()
    }

    /// Gives a frame to a core that sends it; `false` if that core has no room.
    pub(super) fn originate(&mut self, port: PortId, frame: B) -> bool {
        self.0.first_mut().is_some_and(|core| core.link.originate(port, frame).is_ok())
    }
}
