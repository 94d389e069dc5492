//! CREATE_CHILD_SA for a sibling: one more CHILD_SA with just the selectors, mode and algorithms of one that stands, so
//! that several senders need not share its numbers (RFC 7296 §1.3.1, §2.8; RFC 9611).
//!
//! Peers differ in what they make of it, so whatever comes of a request, the IKE SA stays, and the owner hears of each
//! just once: a [`ChildUp`](crate::Event::ChildUp) that names the one it was asked for, or a
//! [`SiblingRefused`](crate::Event::SiblingRefused).

use std::sync::Arc;

use ipsec::Spi;

use super::ask_child::{Asked, Granted, Wish};
use crate::channel::Role;
use crate::child::{Agreement, Child, ChildState, Entry, Kinship};
use crate::config::ChildSettings;
use crate::context::Context;
use crate::crypto::kex::Kex;
use crate::crypto::keys::ChildKeys;
use crate::error::CommandError;
use crate::event::{Event, SendFrom};
use crate::message::payload::{Notify, NotifyKind};
use crate::message::{Body, ExchangeType, PayloadChain};
use crate::proposal::EspProposal;
use crate::sa::{Active, IkeSa, Request, Task};

/// With which key exchange of its own a sibling is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// As the one that it stands beside was made, or would be replaced.
    AsMade,
    /// That was refused; this is the other way, tried once.
    Other(Option<Kex>),
}

/// Our request that waits for its response.
pub(crate) struct Pending {
    /// The inbound SPI of the one that it is made after, and its name in the configuration.
    pattern: Spi,
    name: Arc<str>,
    form: Form,
    pub(crate) asked: Asked,
}

/// What a lineage remembers of siblings.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Siblings {
    /// Asked for by our owner, who has not been answered yet.
    wanted: Option<Wanted>,
    /// The peer takes none, and is not asked again.
    refused: bool,
}

/// What our owner wants.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    /// The one that it named.
    of: Spi,
    /// That one, or what has taken its place since.
    pattern: Spi,
}

/// Why there is no sibling.
struct Refused {
    for_good: bool,
    why: String,
}

fn for_good(why: impl Into<String>) -> Refused {
    Refused { for_good: true, why: why.into() }
}

fn for_now(why: impl Into<String>) -> Refused {
    Refused { for_good: false, why: why.into() }
}

impl IkeSa {
    /// Takes the wish of our owner for a sibling of this child.
    pub(crate) fn want_sibling(&mut self, of: Spi, allowed: usize) -> Result<(), CommandError> {
        if self.siblings.refused {
            return Err(CommandError::SiblingsRefused);
        }
        if self.siblings.wanted.is_some() {
            return Err(CommandError::SiblingUnderWay);
        }
        if self.children_in_use() >= allowed {
            return Err(CommandError::TooManyChildren { allowed });
        }
        // One that waits to be deleted has most likely a successor, which is as good a pattern.
        let pattern = self.child(of).and_then(|child| child.successor).unwrap_or(of);
        self.siblings.wanted = Some(Wanted { of, pattern });
        self.queue(Task::MakeSibling(Form::AsMade));
        Ok(())
    }

    /// The wish will not be granted, if there is one.
    fn refuse_sibling(&mut self, cx: &mut Context, refused: Refused) {
        let Refused { for_good, why } = refused;
        self.siblings.refused |= for_good;
        let Some(Wanted { of: inbound, .. }) = self.siblings.wanted.take() else { return };
        let (peer, dvipa) = (self.lineage.peer, self.path.local.ip());
        cx.events.push_back(Event::SiblingRefused { peer, dvipa, inbound, for_good, why });
    }

    /// One child has taken another's place.
    pub(crate) fn note_successor(&mut self, old: Spi, new: Spi) {
        if let Some(child) = self.child_mut(old) {
            child.successor = Some(new);
        }
        if let Some(wanted) = self.siblings.wanted.as_mut().filter(|wanted| wanted.pattern == old) {
            wanted.pattern = new;
        }
    }

    /// The IKE SA ends, and nobody inherits.
    pub(crate) fn give_up_sibling(&mut self, cx: &mut Context) {
        self.refuse_sibling(cx, for_now("the IKE SA has ended"));
    }
}

/// Our request, unless there is nothing to stand beside any more.
pub(crate) fn start(sa: &mut IkeSa, cx: &mut Context, form: Form) -> Option<Request> {
    match ask(sa, cx, form) {
        Ok(request) => Some(request),
        Err(refused) => {
            sa.refuse_sibling(cx, refused);
            None
        }
    }
}

fn ask(sa: &IkeSa, cx: &mut Context, form: Form) -> Result<Request, Refused> {
    if !sa.is_current() {
        return Err(for_now("the IKE SA is being replaced or deleted"));
    }
    let pattern = sa.siblings.wanted.and_then(|wanted| sa.child(wanted.pattern));
    let Some(child) = pattern.filter(|child| child.state == ChildState::InUse) else {
        return Err(for_now("the CHILD_SA is gone, or about to go"));
    };
    let kex = match form {
        Form::AsMade => child.kex,
        Form::Other(kex) => kex,
    };
    let wish = Wish {
        proposals: vec![EspProposal::exactly(child.suite)],
        kex,
        selectors: child.selectors.clone(),
        mode: child.mode,
        per_resource: child.kin.per_resource,
    };
    let (pattern, name) = (child.inbound, child.name.clone());
    let mut chain = PayloadChain::new();
    let asked = Asked::ask(cx, sa.local_spi(), wish, &mut chain);
    let active = Active::Sibling(Box::new(Pending { pattern, name, form, asked }));
    Ok(Request { exchange: ExchangeType::CreateChildSa, chain, active })
}

/// Takes the response.
pub(crate) fn finish(sa: &mut IkeSa, cx: &mut Context, mut pending: Pending, body: &Body<'_>) {
    let inbound = pending.asked.inbound;
    let lineage = sa.lineage.clone();
    let settled = match (body.error(), lineage.connection.child(&pending.name)) {
        (Some(error), settings) => match settings.and_then(|settings| other_form(sa, settings, &pending, error)) {
            Some(other) => {
                cx.spis.free_esp(inbound);
                return sa.queue(Task::MakeSibling(Form::Other(other)));
            }
            None => Err(judge(error)),
        },
        (None, Some(settings)) => settle(sa, cx, &mut pending, settings, body),
        (None, None) => Err(for_now("its connection has no such child")),
    };
    if let Err(refused) = settled {
        cx.spis.free_esp(inbound);
        sa.refuse_sibling(cx, refused);
    }
}

/// What a refusal means: only one of them passes by itself.
fn judge(error: &Notify<'_>) -> Refused {
    let why = format!("the peer answered {}", error.kind);
    if error.kind == NotifyKind::TEMPORARY_FAILURE { for_now(why) } else { for_good(why) }
}

/// Whether to ask once more, and how: peers differ in whether they want a key exchange, and in which.
fn other_form(sa: &IkeSa, settings: &ChildSettings, pending: &Pending, error: &Notify<'_>) -> Option<Option<Kex>> {
    if pending.form != Form::AsMade {
        return None;
    }
    let asked = pending.asked.wish.kex;
    let is_free = settings.first_kex().is_none();
    match error.kind {
        NotifyKind::NO_PROPOSAL_CHOSEN if is_free => Some(match asked {
            Some(_) => None,
            None => Some(sa.suite.kex),
        }),
        NotifyKind::INVALID_KE_PAYLOAD => match <[u8; 2]>::try_from(error.data).map(u16::from_be_bytes) {
            // Group 0 is none.
            Ok(0) if is_free && asked.is_some() => Some(None),
            Ok(group) => {
                let wanted = Kex::from_group(group).filter(|kex| settings.allows_kex(*kex));
                wanted.filter(|kex| asked != Some(*kex)).map(Some)
            }
            Err(_) => None,
        },
        _ => None,
    }
}

/// Installs what was granted, if it is just what was asked for. The peer forgets whatever else it has made.
fn settle(
    sa: &mut IkeSa,
    cx: &mut Context,
    pending: &mut Pending,
    settings: &ChildSettings,
    body: &Body<'_>,
) -> Result<(), Refused> {
    let granted = match pending.asked.read(body) {
        Ok(Some(granted)) => check(sa, &pending.asked, granted),
        Ok(None) => Err(for_good("the peer chose what was not offered")),
        Err(fault) => Err(for_good(format!("the peer's answer: {fault}"))),
    };
    let made = granted.and_then(|granted| agreement(sa, &pending.asked, granted));
    let agreed = match made {
        Ok(agreed) => agreed,
        Err(refused) => {
            sa.queue(Task::ReportGone(pending.asked.inbound));
            return Err(refused);
        }
    };
    // From now on both are replaced early, and in the form that the peer takes.
    let sibling_of = sa.siblings.wanted.take().map(|wanted| wanted.of);
    let kin = Kinship { sibling_of, has_equals: true, per_resource: pending.asked.wish.per_resource };
    let kex = agreed.suite.kex;
    let (lineage, path) = (sa.lineage.clone(), sa.path);
    if let Some(elder) = sa.child_mut(pending.pattern) {
        elder.gain_equal(cx, settings);
        if settings.first_kex().is_none() {
            elder.kex = kex;
        }
    }
    let entry = Entry { replaces: None, send: SendFrom::Now, kin };
    let child = Child::establish(cx, &lineage, &path, settings, agreed, entry);
    cx.counters.siblings_up += 1;
    sa.children.push(child);
    Ok(())
}

/// RFC 9611 §4 asks for identical properties, and so do we of every peer.
fn check(sa: &IkeSa, asked: &Asked, granted: Granted) -> Result<Granted, Refused> {
    let wish = &asked.wish;
    if granted.mode != wish.mode {
        return Err(for_good(format!("the peer chose {} mode; expected {}", granted.mode, wish.mode)));
    }
    if !granted.selectors.contains(&wish.selectors) {
        return Err(for_good(format!("the peer narrowed {} to {}", wish.selectors, granted.selectors)));
    }
    if sa.child_by_outbound(granted.chosen.spi.get()).is_some() {
        return Err(for_good(format!("the peer receives on SPI {} already", granted.chosen.spi)));
    }
    if asked.is_forsaken(&granted) {
        return Err(for_now("the peer deleted it at once"));
    }
    Ok(granted)
}

fn agreement(sa: &IkeSa, asked: &Asked, granted: Granted) -> Result<Agreement, Refused> {
    let Granted { chosen, nonces, shared, selectors, mode } = granted;
    let keys = ChildKeys::derive(sa.suite.prf, &sa.d, shared.as_ref(), &nonces, chosen.suite.cipher);
    let keys = keys.map_err(|error| for_now(error.to_string()))?;
    let (inbound, outbound, suite) = (asked.inbound, chosen.spi, chosen.suite);
    Ok(Agreement { inbound, outbound, suite, mode, selectors, keys, role: Role::Initiator })
}
