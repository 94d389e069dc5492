//! The coupling facility and the members' ways to it: it is away, answers late or never, and is restored from a backup.

use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use cluster::facility::memory::Store;
use cluster::facility::start::{Progress, Start, Started};
use cluster::facility::watch::{Remembered, Save, Watch};
use cluster::facility::{Outcome, Reply, Request, Unavailable};
use cluster::id::MemberId;

use crate::dice::Dice;

/// The facility.
pub struct Facility {
    store: Store,
    backup: Option<Store>,
    /// Whether it answers.
    pub is_up: bool,
    /// How many answers in a thousand are lost on their way, though what was asked happened.
    pub lost_permille: u64,
    lines: BTreeMap<MemberId, Line>,
}

/// One member's way to it: one request at a time, held against what the member remembers on its own disk.
struct Line {
    watch: Watch,
    waiting: VecDeque<Request>,
    under_way: Option<Request>,
    /// Times that the member found the facility older than remembered.
    roll_backs: u64,
}

/// What a member asks next.
#[derive(Debug)]
pub struct Asked {
    /// How long until it is carried out.
    pub after: Duration,
}

impl Facility {
    /// An empty one, for these members.
    pub fn new(members: impl Iterator<Item = MemberId>, dice: &mut Dice) -> Facility {
        let line = |member| (member, Line::new(Watch::new(Remembered::default(), dice.bytes())));
        let lines = members.map(line).collect();
        Facility { store: Store::default(), backup: None, is_up: true, lost_permille: 0, lines }
    }

    /// Keeps a copy of all that it holds.
    pub fn back_up(&mut self) {
        self.backup = Some(self.store.clone());
    }

    /// Goes back to the copy; whether there was one.
    pub fn roll_back(&mut self) -> bool {
        let Some(backup) = self.backup.clone() else { return false };
        self.store = backup;
        true
    }

    /// How often members found it older than they remember.
    #[must_use]
    pub fn roll_backs_seen(&self) -> u64 {
        self.lines.values().map(|line| line.roll_backs).sum()
    }

    /// Registers a start, as an appliance does before anything else; `None` while that cannot be.
    pub fn register(&mut self, me: MemberId, senders: u32, nonce: [u8; 16]) -> Option<Started> {
        let line = self.lines.get_mut(&me).filter(|_| self.is_up)?;
        // What the start before had asked is nobody's any more. What it remembered stands on the disk.
        let mut start = Start::new(me, nonce, senders);
        let remembered = line.watch.remembered().clone();
        *line = Line { roll_backs: line.roll_backs, ..Line::new(Watch::new(remembered, nonce)) };
        for _ in 0..32 {
            line.settle(&mut self.store);
            let request = start.request(0);
            let Some(outcome) = line.execute(&mut self.store, &request) else { continue };
            match start.take(&outcome).ok()? {
                Progress::Again(again) => start = again,
                Progress::Done(started) => return Some(started),
            }
        }
        None
    }

    /// A member asks. What it asks is carried out by [`Facility::carry_out`] in its turn.
    pub fn ask(&mut self, member: MemberId, request: Request) {
        if let Some(line) = self.lines.get_mut(&member) {
            line.waiting.push_back(request);
        }
    }

    /// Whether something of a member is to be sent on its way now.
    pub fn next(&mut self, member: MemberId, dice: &mut Dice) -> Option<Asked> {
        let line = self.lines.get_mut(&member)?;
        if line.under_way.is_some() {
            return None;
        }
        line.under_way = Some(line.waiting.pop_front()?);
        Some(Asked { after: dice.micros(100, 1_500) })
    }

    /// Carries out what a member has under way; the reply, and how long it travels.
    pub fn carry_out(&mut self, member: MemberId, dice: &mut Dice) -> Option<(Reply, Duration)> {
        let line = self.lines.get_mut(&member)?;
        let request = line.under_way.take()?;
        let unavailable = |why: &str| Err(Unavailable { why: why.to_owned() });
        let id = request.id;
        let (outcome, after) = if self.is_up {
            line.settle(&mut self.store);
            let outcome = line.execute(&mut self.store, &request);
            if dice.permille(self.lost_permille) {
                (unavailable("the answer was lost"), dice.millis(20, 80))
            } else {
                let outcome = outcome.ok_or_else(|| Unavailable { why: "it is older than remembered".to_owned() });
                (outcome, dice.micros(100, 1_500))
            }
        } else {
            (unavailable("it is away"), dice.millis(20, 80))
        };
        Some((Reply { id, outcome }, after))
    }
}

impl Line {
    fn new(watch: Watch) -> Line {
        Line { watch, waiting: VecDeque::new(), under_way: None, roll_backs: 0 }
    }

    /// What must be asked before anything else.
    fn settle(&mut self, store: &mut Store) {
        for _ in 0..8 {
            let Some(request) = self.watch.request(0) else { break };
            match store.execute(&request) {
                Ok(outcome) => {
                    if self.watch.take(&outcome).is_err() {
                        self.watch.failed();
                    }
                }
                Err(_) => self.watch.failed(),
            }
        }
        self.roll_backs += u64::from(self.watch.poll_notice().is_some());
        let _ = self.watch.poll_save(Save::Soon);
    }

    fn execute(&mut self, store: &mut Store, request: &Request) -> Option<Outcome> {
        let mut outcome = store.execute(&self.watch.carry(request.clone())).ok()?;
        let judged = self.watch.judge(request, &mut outcome);
        let _ = self.watch.poll_save(Save::Soon);
        judged.ok().map(|()| outcome)
    }
}
