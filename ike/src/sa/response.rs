//! The responses to our requests.

use super::IkeSa;
use crate::context::Context;
use crate::counters::DropReason;
use crate::event::{Datagram, DownReason};
use crate::exchange;
use crate::message::Header;

impl IkeSa {
    pub(super) fn handle_response(&mut self, cx: &mut Context, header: &Header, datagram: &Datagram) {
        if !self.outgoing.awaits(header.message_id, header.exchange) {
            return cx.drop(DropReason::UnexpectedResponse);
        }
        let Some(opened) = self.open(cx, header, datagram) else { return };
        self.outgoing.received();
        self.heard(cx, &self.fresh(&opened, datagram));
        // A response cannot be answered, so one that breaks the protocol ends the IKE SA (RFC 7296 §2.21.3).
        let Ok(body) = opened.body() else { return self.finish(DownReason::ProtocolError) };
        if let Some(active) = self.active.take()
            && exchange::finish(self, cx, active, &body).is_err()
        {
            self.finish(DownReason::ProtocolError);
        }
    }
}
