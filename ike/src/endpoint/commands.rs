//! Commands of the endpoint's owner.

use core::net::SocketAddr;
use std::sync::Arc;

use ipsec::Spi;
use ipsec::time::Instant;

use super::Endpoint;
use crate::config::{Connection, Secrets};
use crate::error::CommandError;
use crate::event::DownReason;
use crate::initiator::{Initiating, Progress};
use crate::message::IkeSpi;
use crate::sa::Task;

impl Endpoint {
    /// Which peers may connect from now on, and their secrets. IKE SAs that stand keep the settings that they began
    /// with.
    pub fn set_connections(&mut self, connections: Vec<Connection>, secrets: Secrets) {
        self.cx.connections = connections;
        self.cx.secrets = secrets;
    }

    pub(super) fn owner(&self, inbound: Spi) -> Result<IkeSpi, CommandError> {
        self.cx.spis.owner(inbound).ok_or(CommandError::UnknownChild(inbound))
    }

    /// Replaces the CHILD_SA that receives on this SPI: its soft limit has been reached.
    ///
    /// # Errors
    /// [`CommandError::UnknownChild`]. A CHILD_SA that is being replaced or deleted already is no error.
    pub fn rekey_child(&mut self, now: Instant, inbound: Spi) -> Result<(), CommandError> {
        self.cx.now = now;
        let owner = self.owner(inbound)?;
        self.with_sa(owner, |sa, _| sa.queue(Task::RekeyChild(inbound)));
        Ok(())
    }

    /// Asks the peer for a sibling of the CHILD_SA that receives on this SPI: one more with just its selectors, mode and
    /// algorithms, made as it was made. A success is answered once: by a [`ChildUp`](crate::event::ChildUp) with this SPI
    /// in `sibling_of`, or by [`Event::SiblingRefused`](crate::Event::SiblingRefused), which also comes if the CHILD_SA or
    /// the whole IKE SA goes before.
    ///
    /// # Errors
    /// [`CommandError::UnknownChild`], [`CommandError::SiblingUnderWay`]: one after the other for each peer,
    /// [`CommandError::SiblingsRefused`], [`CommandError::TooManyChildren`].
    pub fn add_sibling(&mut self, now: Instant, inbound: Spi) -> Result<(), CommandError> {
        self.cx.now = now;
        let owner = self.owner(inbound)?;
        let wanted = self.with_sa(owner, |sa, cx| sa.want_sibling(inbound, cx.config.limits.children));
        wanted.unwrap_or(Err(CommandError::UnknownChild(inbound)))
    }

    /// Replaces the IKE SA of the CHILD_SA that receives on this SPI.
    ///
    /// # Errors
    /// [`CommandError::UnknownChild`].
    pub fn rekey_ike(&mut self, now: Instant, inbound: Spi) -> Result<(), CommandError> {
        self.cx.now = now;
        let owner = self.owner(inbound)?;
        self.with_sa(owner, |sa, _| sa.queue(Task::RekeyIke));
        Ok(())
    }

    /// Deletes the CHILD_SA that receives on this SPI, on both sides.
    ///
    /// # Errors
    /// [`CommandError::UnknownChild`].
    pub fn delete_child(&mut self, now: Instant, inbound: Spi) -> Result<(), CommandError> {
        self.cx.now = now;
        let owner = self.owner(inbound)?;
        self.with_sa(owner, |sa, _| sa.queue(Task::DeleteChild(inbound, DownReason::Deleted)));
        Ok(())
    }

    /// The CHILD_SA that receives on this SPI has reached its hard limit: it is gone at once, and the peer is told.
    ///
    /// # Errors
    /// [`CommandError::UnknownChild`].
    pub fn child_expired(&mut self, now: Instant, inbound: Spi) -> Result<(), CommandError> {
        self.cx.now = now;
        let owner = self.owner(inbound)?;
        self.with_sa(owner, |sa, cx| sa.expire_child(cx, inbound, DownReason::Expired));
        Ok(())
    }

    /// Begins an IKE SA with a child of this connection. Its events tell how it goes.
    ///
    /// # Errors
    /// [`CommandError`] if that cannot even be tried.
    pub fn initiate(
        &mut self,
        now: Instant,
        connection: &str,
        child: &str,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<(), CommandError> {
        self.cx.now = now;
        if self.shutdown_ends_at.is_some() {
            return Err(CommandError::ShuttingDown);
        }
        if !self.serves(local.ip()) {
            return Err(CommandError::NotServed(local.ip()));
        }
        let allowed = self.cx.config.limits.ike_sas;
        if self.established.len() + self.initiating.len() >= allowed {
            return Err(CommandError::NoRoom { allowed });
        }
        let found = self.cx.connections.iter().find(|one| *one.name == *connection).cloned();
        let settings = found.ok_or_else(|| CommandError::UnknownConnection(connection.to_owned()))?;
        let cannot = |reason| CommandError::CannotInitiate { connection: connection.to_owned(), reason };
        if settings.child(child).is_none() {
            return Err(cannot("it has no child of that name"));
        }
        let kex = settings.proposals.iter().flat_map(|proposal| &proposal.kexes).next().copied();
        let kex = kex.ok_or_else(|| cannot("its proposals name no key exchange"))?;
        let begun = Initiating::begin(&mut self.cx, settings, Arc::from(child), kex, local, remote);
        self.put_back_initiating(Progress::Waiting(Box::new(begun)));
        Ok(())
    }

    /// Deletes every IKE SA at its peer and begins no new one. Done when [`is_idle`](Self::is_idle), which is no later
    /// than the time that [`Timing::shutdown`](crate::config::Timing::shutdown) allows.
    pub fn initiate_shutdown(&mut self, now: Instant) {
        self.cx.now = now;
        self.shutdown_ends_at = Some(now + self.cx.config.timing.shutdown);
        while let Some(expired) = self.half_open.pop_expired(Instant::MAX) {
            self.cx.spis.free_ike(expired.spis.responder);
        }
        let begun: Vec<IkeSpi> = self.initiating.keys().copied().collect();
        for spi in begun {
            if let Some(initiating) = self.take_initiating(spi) {
                initiating.dissolve(&mut self.cx);
            }
        }
        self.close_all(DownReason::Shutdown);
    }

    /// Whether there is no IKE SA of any kind.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.half_open.len() == 0 && self.initiating.is_empty() && self.established.len() == 0
    }
}
