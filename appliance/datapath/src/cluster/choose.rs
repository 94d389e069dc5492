//! A target for a connection that has none.

use super::check::{Checked, only_speaks_of};
use super::distribute::eligible;
use crate::buffer::PortQueue;
use crate::core::DataCore;
use crate::drops::DropReason;
use crate::inbound::find;
use arrayvec::ArrayVec;
use cluster::dpt::{NoTarget, Tables};
use cluster::fabric::{FabricDvipa, FabricTarget};
use cluster::id::MemberId;
use cluster::member::EntryKey;
use cluster::vcrt::NotCreated;
use core::net::IpAddr;
use ipsec::time::Instant;
use wire::flow::FlowKey;
use wire::protocol;

/// Most peers that can have one 5-tuple at once: no more fall together in the table.
const PEERS_MAX: usize = 80;

impl<Q: PortQueue> DataCore<Q> {
    /// Chooses a target for a new connection and makes its entry.
    pub(super) fn choose_new(
        &mut self,
        checked: &Checked<Q::Buffer>,
        key: &EntryKey,
        now: Instant,
    ) -> Result<FabricTarget, DropReason> {
        if only_speaks_of(&checked.inner, &checked.flow) {
            return Err(DropReason::IcmpUnrelated);
        }
        let target = self.choose(checked, key, now)?;
        let Some(part) = &mut self.part else { return Err(DropReason::NotOwner) };
        let (to, now) = ((target.member, target.incarnation), now.max(part.fabric_at));
        match part.vcrt.create(now, checked.hash, key, to, &checked.proof) {
            Ok(()) => Ok(target),
            // What an earlier epoch left.
            Err(NotCreated::Exists) => {
                let _ = part.vcrt.replace_target(now, checked.hash, key, to, &checked.proof);
                Ok(target)
            }
            Err(NotCreated::Full | NotCreated::Crowded | NotCreated::MixedFamilies) => {
                Err(DropReason::RoutingTableFull)
            }
        }
    }

    /// Chooses another target for a connection whose own is lost, unless its SA is sealed: what the lost target delivered
    /// nobody knows then.
    pub(super) fn choose_instead(
        &mut self,
        checked: &Checked<Q::Buffer>,
        key: &EntryKey,
        now: Instant,
    ) -> Result<FabricTarget, DropReason> {
        if find(&self.sas, &checked.place).is_none_or(|sa| sa.sa.shared().is_sealed()) {
            self.seal_met(&checked.place);
            return Err(DropReason::SaSealed);
        }
        if only_speaks_of(&checked.inner, &checked.flow) {
            return Err(DropReason::TargetLost);
        }
        if self.clustered(checked.place.dvipa).is_none_or(|(_, dvipa)| dvipa.is_settling) {
            return Err(DropReason::Settling);
        }
        let target = self.choose(checked, key, now)?;
        let Some(part) = &mut self.part else { return Err(DropReason::NotOwner) };
        let (to, now) = ((target.member, target.incarnation), now.max(part.fabric_at));
        let _ = part.vcrt.replace_target(now, checked.hash, key, to, &checked.proof);
        Ok(target)
    }

    /// Two peers on one 5-tuple never meet at one target: its application hosts could not tell them apart.
    fn choose(
        &mut self,
        checked: &Checked<Q::Buffer>,
        key: &EntryKey,
        now: Instant,
    ) -> Result<FabricTarget, DropReason> {
        let Some(part) = &mut self.part else { return Err(DropReason::NotOwner) };
        let (Some(fabric), Some(tables)) = (&part.fabric, &part.dpt) else { return Err(DropReason::NoTarget) };
        let dvipa: &FabricDvipa = fabric.dvipa(checked.place.dvipa).ok_or(DropReason::NotOwner)?;
        let mut holding: ArrayVec<MemberId, PEERS_MAX> = ArrayVec::new();
        part.vcrt.others_of(checked.hash, key, |_, route| _ = holding.try_push(route.target));
        let exclude = |member: MemberId| holding.contains(&member) || eligible(dvipa, member).is_none();
        let flow = asked_for(tables, dvipa.address, &key.flow);
        match part.chooser.choose(tables, now, dvipa.address, &flow, &exclude) {
            Ok(member) => eligible(dvipa, member).copied().ok_or(DropReason::NoTarget),
            Err(NoTarget::NotOffered) => Err(DropReason::ServiceNotOffered),
            Err(NoTarget::AllExcluded) if !holding.is_empty() => Err(DropReason::OthersFlow),
            Err(NoTarget::NoneReady | NoTarget::AllExcluded) => Err(DropReason::NoTarget),
        }
    }
}

/// What the tables are asked for. ICMP has no port of its own and goes where the address's first service is.
fn asked_for(tables: &Tables, dvipa: IpAddr, flow: &FlowKey) -> FlowKey {
    let is_icmp = matches!(flow.protocol, protocol::ICMP | protocol::ICMPV6);
    if !is_icmp || tables.offers(dvipa, flow.protocol, flow.dst_port) {
        return *flow;
    }
    let of_address = tables.dvipas().iter().find(|table| table.address == dvipa);
    match of_address.and_then(|table| table.ports.iter().find_map(|table| table.port)) {
        Some(port) => FlowKey { protocol: port.protocol, dst_port: port.port, ..*flow },
        None => *flow,
    }
}
