//! CHILD_SAs that IKE has agreed on here, on their way into the cluster.

use cluster::fabric::Processing;
use cluster::id::ChildId;
use cluster::member::Told;
use cluster::shadow::{ShadowSa, Use};
use datapath::buffer::PacketBuffer;
use ike::event::{ChildUp, SendFrom};
use ipsec::iv::SenderNumber;
use ipsec::time::Instant;
use tracing::info;

use crate::control_core::ControlCore;

impl<B: PacketBuffer> ControlCore<B> {
    /// IKE has a new CHILD_SA: the member sees to it that it is recorded and stands wherever it must before IKE may speak of
    /// it. What is not known yet, its birth and its grants, the member fills in.
    pub(in crate::control_core) fn shared_child_up(&mut self, now: Instant, up: ChildUp) {
        let Some(cluster) = &mut self.cluster else { return };
        let ChildUp { children, replaces, send, overlaps, sibling_of, .. } = up;
        let sa = &children.inbound;
        let child = ChildId { dvipa: sa.dvipa, spi: sa.spi };
        info!(
            child = %sa.name, peer = %sa.peer_name, dvipa = %sa.dvipa, epoch = sa.epoch, spi_in = %sa.spi,
            spi_out = %children.outbound.spi, replaces = replaces.map(tracing::field::display),
            overlaps = overlaps.map(tracing::field::display), sibling_of = sibling_of.map(tracing::field::display),
            "CHILD_SA up"
        );
        let usage = match send {
            SendFrom::Now => Use::First,
            SendFrom::PeerUse => Use::InReserve,
            SendFrom::Never => Use::ReceiveOnly,
        };
        let of_dvipa = cluster.settings.dvipas.iter().find(|dvipa| dvipa.address == child.dvipa);
        let processing = of_dvipa.map_or(Processing::default(), |dvipa| dvipa.processing);
        cluster.unreleased.insert(child);
        let shadow = ShadowSa {
            child: children,
            processing,
            born_at: SenderNumber(0),
            usage,
            replaces,
            sibling_of,
            grant_bytes_max: 0,
        };
        cluster.member.handle_told(now, Told::ChildUp(Box::new(shadow)));
    }
}
