//! INFORMATIONAL (RFC 7296 §1.4): deletions, and the question whether the other side lives.

use super::delete;
use crate::context::Context;
use crate::message::{Body, ExchangeType, PayloadChain};
use crate::sa::{Active, IkeSa, Request};

/// Notifications that we do not know, and errors about which nothing can be done, are answered like an empty request.
pub(crate) fn respond(sa: &mut IkeSa, cx: &mut Context, body: &Body<'_>) -> PayloadChain {
    delete::respond(sa, cx, &body.deletes)
}

/// An empty request: "do you live?"
pub(crate) fn start_probe() -> Request {
    Request { exchange: ExchangeType::Informational, chain: PayloadChain::new(), active: Active::Probe }
}
