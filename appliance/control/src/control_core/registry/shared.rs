//! SAs that members share: found by the name that members use, carried within what they are granted.

use core::net::IpAddr;

use cluster::fabric::Processing;
use cluster::id::ChildId;
use cluster::member::NumberSource;
use cluster::shadow::ShadowSa;
use datapath::mailbox::{Command, SaName};
use datapath::routes::RouteTable;
use ipsec::inbound::InboundShared;
use ipsec::outbound::OutboundShared;
use ipsec::sa::{PeerId, SaParameters};

use super::{Registered, Registry, RegistryError, Sending};
use crate::control_core::cores::Cores;

/// A core claims this part of what an SA may carry beyond its use at once, so that many cores can share a grant.
const CLAIMS_PER_GRANT: u64 = 16;

impl Registry {
    /// Takes a shadow SA in; no core knows of it yet, and it may carry nothing before it is granted something.
    pub(in crate::control_core) fn admit_shadow(
        &mut self,
        shadow: ShadowSa,
        routes: &RouteTable,
    ) -> Result<u64, RegistryError> {
        let ShadowSa { child, born_at, grant_bytes_max, processing, .. } = shadow;
        let names = [SaName::of(&child.inbound), SaName::of(&child.outbound)];
        self.refuse_occupied(&names)?;
        let cores = u16::try_from(self.cores).unwrap_or(u16::MAX);
        let chunk = (grant_bytes_max / CLAIMS_PER_GRANT / u64::from(cores.max(1))).max(1);
        let inbound = InboundShared::new_granted(child.inbound, self.engine, cores, chunk)?;
        let outbound = OutboundShared::new_granted(child.outbound, self.engine, born_at, chunk)?;
        let id = self.keep(names, Some(inbound), Some(outbound), routes);
        self.sas.get_mut(&id).into_iter().for_each(|sa| sa.processing = processing);
        Ok(id)
    }

    /// How the data path names the inbound half of a CHILD_SA.
    pub(in crate::control_core) fn name_of(&self, child: ChildId) -> Option<SaName> {
        self.shared(child)?.inbound.as_ref().map(|half| SaName::of(half.shared.parameters()))
    }

    /// A CHILD_SA by the name that members use.
    pub(in crate::control_core) fn shared(&self, child: ChildId) -> Option<&Registered> {
        self.sas.get(self.by_child.get(&child)?)
    }

    /// The name that members use for the CHILD_SA of this half.
    pub(in crate::control_core) fn child_of(&self, name: SaName) -> Option<ChildId> {
        self.sas.get(&self.find(name)?)?.child()
    }

    /// Where the numbers of an SA's outbound half come from, from now on.
    pub(in crate::control_core) fn set_numbers<B>(
        &mut self,
        child: ChildId,
        source: NumberSource,
        window_packets: u32,
        cores: &mut Cores<B>,
    ) {
        let Some(id) = self.by_child.get(&child) else { return };
        let Some(registered) = self.sas.get_mut(id) else { return };
        registered.numbers = Some(source);
        let Some(half) = &registered.outbound else { return };
        let (peer, spi) = (half.shared.parameters().peer, half.shared.parameters().spi);
        let child = child.spi;
        cores.tell_all(|| Command::SetNumbers { peer, spi, child, source, window_packets });
    }

    /// This member is to send on an SA before all others of its peer. What it received on only until now, a sibling, gets
    /// its outbound half by this, and its numbers, which found no such half when they were told.
    pub(in crate::control_core) fn send_first<B>(&mut self, child: ChildId, window_packets: u32, cores: &mut Cores<B>) {
        let Some(registered) = self.shared(child).filter(|sa| sa.closing.is_none() && !sa.receives_only) else {
            return;
        };
        let Some(half) = &registered.outbound else { return };
        let SaParameters { peer, spi, .. } = *half.shared.parameters();
        let (id, sending, numbers) = (registered.id, registered.sending, registered.numbers);
        if sending != Sending::No {
            self.sas.get_mut(&id).into_iter().for_each(|sa| sa.sending = Sending::First);
            return cores.tell_all(|| Command::PreferOutbound { peer, spi });
        }
        self.install_outbound(id, Sending::First, cores);
        if let Some(source) = numbers {
            self.set_numbers(child, source, window_packets, cores);
        }
    }

    /// Nothing is sent on an SA's outbound half from now on: it waits for leases that nobody gives.
    pub(in crate::control_core) fn silence<B>(&mut self, child: ChildId, cores: &mut Cores<B>) {
        self.set_numbers(child, NumberSource::Leased, 0, cores);
        if let Some(registered) = self.by_child.get(&child).and_then(|id| self.sas.get_mut(id)) {
            registered.numbers = None;
        }
    }

    /// Nothing is sent on any SA of an address, or again as it was.
    pub(in crate::control_core) fn mute<B>(
        &mut self,
        dvipa: IpAddr,
        is_mute: bool,
        window_packets: u32,
        cores: &mut Cores<B>,
    ) {
        let children: Vec<ChildId> = self.by_child.keys().filter(|child| child.dvipa == dvipa).copied().collect();
        for child in children {
            let Some(source) = self.shared(child).and_then(Registered::numbers) else { continue };
            let now = if is_mute { NumberSource::Leased } else { source };
            self.set_numbers(child, now, window_packets, cores);
            // What it will be again.
            let registered = self.by_child.get(&child).and_then(|id| self.sas.get_mut(id));
            registered.into_iter().for_each(|registered| registered.numbers = Some(source));
        }
    }

    /// A block of numbers for the home core of an SA's outbound half.
    pub(in crate::control_core) fn lease<B>(&self, child: ChildId, first: u64, count: u64, cores: &mut Cores<B>) {
        let Some(registered) = self.shared(child) else { return };
        let Some(half) = &registered.outbound else { return };
        let (peer, spi) = (half.shared.parameters().peer, half.shared.parameters().spi);
        cores.tell(Self::home_of(registered.id, self.cores), Command::GrantNumbers { peer, spi, first, count });
    }
}

impl Registered {
    /// The name that members use.
    #[must_use]
    pub fn child(&self) -> Option<ChildId> {
        let sa = self.inbound.as_ref()?.shared.parameters();
        Some(ChildId { dvipa: sa.dvipa, spi: sa.spi })
    }

    /// Whose it is.
    #[must_use]
    pub fn peer(&self) -> Option<PeerId> {
        let inbound = self.inbound.as_ref().map(|half| half.shared.parameters().peer);
        inbound.or_else(|| self.outbound.as_ref().map(|half| half.shared.parameters().peer))
    }

    /// Where its IPsec work is done, for good.
    #[must_use]
    pub fn processing(&self) -> Processing {
        self.processing
    }

    /// Where its outbound numbers come from on this appliance, if members share it.
    #[must_use]
    pub fn numbers(&self) -> Option<NumberSource> {
        self.numbers
    }
}
