//! An appliance without cores: it remembers what its member said, and says that it was done.

use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ipsec::Spi;
use ipsec::time::Instant;

use crate::fabric::Fabric;
use crate::id::ChildId;
use crate::member::{Action, EntryKey, NumberSource, SaUse, Told};
use crate::shadow::Use;

/// How much an SA may carry in all: bytes and packets inbound, then outbound.
type Ceiling = ((u64, u64), (u64, u64));

/// What an appliance has done of what its member said.
#[derive(Default)]
pub struct Appliance {
    pub fabric: Option<Arc<Fabric>>,
    pub installed: BTreeMap<ChildId, u32>,
    /// Where their peers were, and how they were to be used, when they were installed.
    pub installed_at: BTreeMap<ChildId, (IpAddr, Use)>,
    pub removed: Vec<ChildId>,
    pub floors: BTreeMap<ChildId, u64>,
    pub sealed: BTreeSet<ChildId>,
    pub released: BTreeSet<ChildId>,
    pub refused: BTreeSet<ChildId>,
    pub rekeys: Vec<ChildId>,
    pub owned: BTreeMap<IpAddr, u64>,
    pub forgotten: Vec<EntryKey>,
    pub buried: Vec<EntryKey>,
    pub verified: Vec<EntryKey>,
    pub ceilings: BTreeMap<ChildId, Ceiling>,
    /// Inbound bytes that were taken out of the pool.
    pub withdrawn: BTreeMap<ChildId, Vec<u64>>,
    pub marks: BTreeMap<ChildId, u64>,
    pub sources: BTreeMap<ChildId, NumberSource>,
    pub leases: Vec<(u64, u64)>,
    pub preferred: Vec<ChildId>,
    pub siblings_asked: Vec<ChildId>,
    pub muted: bool,
    pub moved: Vec<Spi>,
    /// The names of actions, in order.
    pub trail: Vec<&'static str>,
    /// Whether it answers; a stuck one installs nothing.
    pub is_stuck: bool,
    /// Whether one of its cores never hears what it is told.
    pub is_deaf: bool,
    /// Who wanted to know that all cores have heard, and of whose tops.
    pub awaited: Vec<(u64, Option<IpAddr>)>,
    /// What its cores have carried and its member does not know.
    pub unsaid: Vec<SaUse>,
    pub told: VecDeque<(Instant, Told)>,
}

impl Appliance {
    pub fn act(&mut self, after: Instant, action: Action) {
        self.trail.push(name(&action));
        match action {
            Action::Fabric(fabric) => self.fabric = Some(fabric),
            Action::Install(sa) => {
                *self.installed.entry(sa.id()).or_default() += 1;
                self.installed_at.insert(sa.id(), (sa.child.outbound.remote, sa.usage));
                if !self.is_stuck {
                    self.told.push_back((after, Told::Installed(sa.id())));
                }
            }
            Action::Prefer(child) => self.preferred.push(child),
            Action::Remove { child, .. } => {
                assert!(self.installed.remove(&child).is_some(), "{child} was not there");
                self.removed.push(child);
            }
            Action::MovePeer { children, .. } => self.moved.extend(children),
            Action::RaiseFloor { child, floor } => {
                let before = self.floors.insert(child, floor).unwrap_or(0);
                assert!(floor > before, "floors only rise");
            }
            Action::Seal(child) => assert!(self.sealed.insert(child), "sealed once"),
            Action::Forget { entries, .. } => self.forgotten.extend(entries),
            Action::Await { ticket, tops_of } => {
                self.awaited.push((ticket, tops_of));
                if tops_of.is_some() {
                    self.told.push_back((after, Told::Use(core::mem::take(&mut self.unsaid))));
                }
                if !self.is_deaf {
                    self.told.push_back((after, Told::Heard { ticket }));
                }
            }
            Action::Verify(entries) => self.verified.extend(entries),
            Action::Bury(entries) => self.buried.extend(entries),
            Action::Ceiling { child, inbound, outbound } => {
                self.ceilings.insert(child, (inbound, outbound));
            }
            Action::Withdraw { child, inbound, outbound } => {
                // Whatever is asked, a core has claimed the last byte of it meanwhile.
                let inbound = (inbound.0.saturating_sub(1), inbound.1);
                self.withdrawn.entry(child).or_default().extend((inbound.0 > 0).then_some(inbound.0));
                self.told.push_back((after, Told::Withdrawn { child, inbound, outbound }));
            }
            Action::Numbers { child, source } => {
                self.sources.insert(child, source);
            }
            Action::Mark { child, below } => {
                let before = self.marks.insert(child, below).unwrap_or(0);
                assert!(below >= before, "marks only rise");
            }
            Action::Rekey(child) => self.rekeys.push(child),
            Action::AskSibling(child) => self.siblings_asked.push(child),
            Action::Release(child) => assert!(self.released.insert(child), "released once"),
            Action::Refuse(child) => {
                self.refused.insert(child);
            }
            Action::Own { dvipa, epoch } => {
                self.owned.insert(dvipa, epoch.0);
            }
            Action::Disown { dvipa } => {
                self.owned.remove(&dvipa);
            }
            Action::Mute { is_mute, .. } => self.muted = is_mute,
            Action::Lease { first, count, .. } => self.leases.push((first, count)),
            Action::Quiet(_)
            | Action::Delete(_)
            | Action::PeerSeen { .. }
            | Action::Disconnect { .. }
            | Action::TargetsChanged => {}
        }
    }
}

fn name(action: &Action) -> &'static str {
    match action {
        Action::Fabric(_) => "fabric",
        Action::Install(_) => "install",
        Action::RaiseFloor { .. } => "floor",
        Action::Seal(_) => "seal",
        Action::Forget { .. } => "forget",
        Action::Await { .. } => "await",
        Action::Bury(_) => "bury",
        Action::Release(_) => "release",
        Action::Remove { .. } => "remove",
        Action::Refuse(_) => "refuse",
        _ => "other",
    }
}
