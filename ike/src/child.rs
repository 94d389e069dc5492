//! CHILD_SAs as IKE sees them: their numbers, selectors and times. The keys leave with the event and are not kept.

use core::time::Duration;
use std::sync::Arc;

use ipsec::Spi;
use ipsec::sa::{ChildSa, Direction, Encapsulation, Mode, SaParameters};
use ipsec::selector::Selectors;
use ipsec::time::Instant;

use crate::channel::Role;
use crate::config::ChildSettings;
use crate::context::Context;
use crate::crypto::kex::Kex;
use crate::crypto::keys::ChildKeys;
use crate::endpoint::ChildInfo;
use crate::event::{ChildUp, Event, SendFrom};
use crate::proposal::EspSuite;
use crate::sa::{Lineage, Path};

/// Where a CHILD_SA stands in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ChildState {
    /// In use.
    InUse,
    /// Another one took its place; whoever made that one deletes this one.
    Replaced,
    /// It lost a rekey collision; whoever made it deletes it.
    Redundant,
    /// We asked the peer to delete it.
    Closing,
}

/// How a CHILD_SA stands to others with equal selectors. It passes to whatever replaces it.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Kinship {
    /// The one that it was made to stand beside, by our owner's wish.
    pub(crate) sibling_of: Option<Spi>,
    /// We have made others beside it, or it beside another.
    pub(crate) has_equals: bool,
    /// The peer says that it takes several (RFC 9611).
    pub(crate) per_resource: bool,
}

/// One CHILD_SA.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) name: Arc<str>,
    pub(crate) inbound: Spi,
    pub(crate) outbound: Spi,
    pub(crate) suite: EspSuite,
    pub(crate) mode: Mode,
    pub(crate) selectors: Selectors,
    pub(crate) state: ChildState,
    /// What has taken its place.
    pub(crate) successor: Option<Spi>,
    pub(crate) kin: Kinship,
    born: Instant,
    pub(crate) rekey_at: Option<Instant>,
    pub(crate) expires_at: Option<Instant>,
    /// The key exchange to offer when it is rekeyed.
    pub(crate) kex: Option<Kex>,
    /// The peer refused that once, and the other form is being tried.
    pub(crate) tried_other_kex: bool,
    /// Attempts to rekey that failed in a row.
    pub(crate) failures: u32,
}

/// What was agreed on for a CHILD_SA.
pub(crate) struct Agreement {
    pub(crate) inbound: Spi,
    pub(crate) outbound: Spi,
    pub(crate) suite: EspSuite,
    pub(crate) mode: Mode,
    pub(crate) selectors: Selectors,
    pub(crate) keys: ChildKeys,
    /// Our side in the exchange that made it.
    pub(crate) role: Role,
}

/// How a new CHILD_SA enters service.
pub(crate) struct Entry {
    pub(crate) replaces: Option<Spi>,
    pub(crate) send: SendFrom,
    pub(crate) kin: Kinship,
}

impl Child {
    /// Makes the CHILD_SA and announces it.
    pub(crate) fn establish(
        cx: &mut Context,
        lineage: &Lineage,
        path: &Path,
        settings: &ChildSettings,
        agreed: Agreement,
        entry: Entry,
    ) -> Child {
        let (inbound_key, outbound_key) = match agreed.role {
            Role::Initiator => (agreed.keys.from_responder, agreed.keys.from_initiator),
            Role::Responder => (agreed.keys.from_initiator, agreed.keys.from_responder),
        };
        let half = |direction, spi, key| SaParameters {
            name: settings.name.clone(),
            peer: lineage.peer,
            peer_name: lineage.peer_name.clone(),
            dvipa: path.local.ip(),
            remote: path.remote.ip(),
            spi,
            direction,
            mode: agreed.mode,
            encapsulation: path.encapsulation(),
            cipher: agreed.suite.cipher,
            key,
            esn: agreed.suite.esn,
            replay_window_packets: settings.replay_window_packets,
            selectors: agreed.selectors.clone(),
            lifetime: settings.lifetime,
            epoch: cx.epoch_at(path.local.ip()),
        };
        let children = ChildSa {
            inbound: half(Direction::Inbound, agreed.inbound, inbound_key),
            outbound: half(Direction::Outbound, agreed.outbound, outbound_key),
        };
        let Entry { replaces, send, kin } = entry;
        let sibling_of = kin.sibling_of;
        let overlaps = cx.overlaps.find(lineage.peer, &agreed.selectors);
        cx.overlaps.insert(agreed.inbound, lineage.peer, agreed.selectors.clone());
        cx.counters.child_up += 1;
        cx.events.push_back(Event::ChildUp(Box::new(ChildUp { children, replaces, sibling_of, send, overlaps })));
        let time = settings.lifetime.time;
        let soft = time.soft.map(|soft| if kin.has_equals { earlier(cx, soft) } else { soft });
        Child {
            name: settings.name.clone(),
            inbound: agreed.inbound,
            outbound: agreed.outbound,
            suite: agreed.suite,
            mode: agreed.mode,
            selectors: agreed.selectors,
            state: ChildState::InUse,
            successor: None,
            kin,
            born: cx.now,
            rekey_at: soft.map(|soft| cx.now + cx.jittered(soft)),
            expires_at: time.hard.map(|hard| cx.now + hard),
            kex: settings.first_kex().or(agreed.suite.kex),
            tried_other_kex: false,
            failures: 0,
        }
    }

    /// Another one with equal selectors stands beside it: it is replaced earlier from now on.
    pub(crate) fn gain_equal(&mut self, cx: &mut Context, settings: &ChildSettings) {
        if !core::mem::replace(&mut self.kin.has_equals, true)
            && let Some((soft, rekey_at)) = settings.lifetime.time.soft.zip(self.rekey_at)
        {
            let soft = earlier(cx, soft);
            self.rekey_at = Some(rekey_at.min(self.born + cx.jittered(soft)));
        }
    }

    pub(crate) fn info(&self, encapsulation: Encapsulation) -> ChildInfo {
        ChildInfo {
            name: self.name.clone(),
            inbound: self.inbound,
            outbound: self.outbound,
            suite: self.suite,
            mode: self.mode,
            encapsulation,
            selectors: self.selectors.clone(),
            sibling_of: self.kin.sibling_of,
            is_in_use: self.state == ChildState::InUse,
            rekey_at: self.rekey_at,
        }
    }

    /// Whether it only waits to be deleted by the peer.
    pub(crate) fn is_retired(&self) -> bool {
        match self.state {
            ChildState::Replaced | ChildState::Redundant => true,
            ChildState::InUse | ChildState::Closing => false,
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.rekey_at.into_iter().chain(self.expires_at).min()
    }
}

/// Some clients let all but one of several equal CHILD_SAs end at their own rekeying: ours comes well before.
fn earlier(cx: &Context, soft: Duration) -> Duration {
    soft * cx.config.timing.sibling_rekey_percent.min(100) / 100
}
