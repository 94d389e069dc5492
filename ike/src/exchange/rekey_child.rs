use crate::context::Context;
use crate::error::{Malformed, Refusal};
use crate::message::payload::Notify;
use crate::message::{Body, PayloadChain};
use crate::sa::{IkeSa, Request};
use ipsec::Spi;
pub(crate) struct Pending {
    pub(crate) inbound: Spi,
}
pub(crate) fn respond(
    _sa: &mut IkeSa,
    _cx: &mut Context,
    _body: &Body<'_>,
    _rekey: &Notify<'_>,
) -> Result<PayloadChain, Refusal> {
    Err(Refusal::TemporaryFailure("x"))
}
pub(crate) fn start(_sa: &mut IkeSa, _cx: &mut Context, _inbound: Spi) -> Option<Request> {
    None
}
pub(crate) fn finish(_sa: &mut IkeSa, _cx: &mut Context, _p: Pending, _body: &Body<'_>) -> Result<(), Malformed> {
    Ok(())
}
