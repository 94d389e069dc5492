use crate::context::Context;
use crate::error::{Malformed, Refusal};
use crate::event::DownReason;
use crate::message::{Body, ExchangeType, IkeSpi, PayloadChain};
use crate::sa::{Active, IkeSa, Request};
pub(crate) struct Rival {}
pub(crate) struct Pending {
    pub(crate) local_spi: IkeSpi,
}
pub(crate) fn respond(_sa: &mut IkeSa, _cx: &mut Context, _body: &Body<'_>) -> Result<PayloadChain, Refusal> {
    Err(Refusal::TemporaryFailure("x"))
}
pub(crate) fn start(_sa: &mut IkeSa, _cx: &mut Context) -> Request {
    Request { exchange: ExchangeType::Informational, chain: PayloadChain::new(), active: Active::Probe }
}
pub(crate) fn finish(_sa: &mut IkeSa, _cx: &mut Context, _p: Pending, _body: &Body<'_>) -> Result<(), Malformed> {
    Ok(())
}
pub(crate) fn on_peer_delete(sa: &mut IkeSa, _cx: &mut Context) {
    sa.finish(DownReason::PeerDeleted)
}
impl IkeSa {
    pub(crate) fn is_rekeying(&self) -> bool {
        matches!(self.active, Some(Active::RekeyIke(_)))
    }
}
