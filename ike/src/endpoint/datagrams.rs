//! Datagrams: to whom they belong, and what is not even looked at.

use ipsec::time::Instant;

use super::Endpoint;
use crate::channel::OpenError;
use crate::counters::DropReason;
use crate::error::Malformed;
use crate::event::Datagram;
use crate::exchange::auth::Proven;
use crate::exchange::{auth, sa_init};
use crate::initiator::{Initiating, Progress};
use crate::kept::digest_of;
use crate::message::payload::{Notify, NotifyKind, Payload};
use crate::message::{ExchangeType, HEADER_LEN, Header, IkeSpi, PayloadChain};
use crate::sa::{IkeSa, Standing};

impl Endpoint {
    /// An IKE message has arrived. On port 4500 it comes without the non-ESP marker.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &Datagram) {
        self.cx.now = now;
        self.cx.counters.datagrams_received += 1;
        self.cx.kept.forget_expired(now);
        if !self.serves(datagram.local.ip()) {
            return self.cx.drop(DropReason::NotServed);
        }
        if datagram.payload.len() > self.cx.config.limits.datagram_bytes {
            return self.cx.drop(DropReason::TooLong);
        }
        match Header::parse(&datagram.payload) {
            Ok(header) => self.dispatch(&header, datagram),
            Err(Malformed::Version { major }) => self.answer_version(major, datagram),
            Err(_) => self.cx.drop(DropReason::Header),
        }
    }

    fn dispatch(&mut self, header: &Header, datagram: &Datagram) {
        if header.exchange == ExchangeType::IkeSaInit && !header.is_response {
            return self.handle_init(header, datagram);
        }
        // The flag says who the sender was at the birth of the IKE SA; the other SPI is then ours.
        let spi = if header.from_initiator { header.spis.responder } else { header.spis.initiator };
        // Each address of ours has its own IKE SAs: it may move to another appliance while others stay.
        let here = datagram.local.ip();
        let half_open = self.half_open.get_mut(spi).map(|half_open| half_open.local);
        let begun = self.initiating.get(&spi).map(|begun| begun.local_address());
        if half_open.or(begun).is_some_and(|theirs| theirs != here) {
            return self.cx.drop(DropReason::UnknownSa);
        }
        if half_open.is_some() {
            return self.handle_half_open(spi, header, datagram);
        }
        if let Some(initiating) = self.take_initiating(spi) {
            let progress = initiating.handle_datagram(&mut self.cx, header, datagram);
            return self.put_back_initiating(progress);
        }
        match self.take(spi) {
            Some(mut sa) if sa.spis == header.spis && sa.path.local.ip() == here => {
                self.promote(&mut sa, header, datagram);
                sa.handle_datagram(&mut self.cx, header, datagram);
                sa.watch_message_ids();
                self.put_back(sa);
            }
            Some(sa) => {
                self.established.put(sa);
                self.cx.drop(DropReason::UnknownSa);
            }
            None => self.handle_stray(header, datagram),
        }
    }

    /// A peer that uses its new IKE SA has decided for it, without having seen that we rekey too.
    fn promote(&mut self, sa: &mut IkeSa, header: &Header, datagram: &Datagram) {
        let Standing::Contender { old } = sa.standing else { return };
        if !sa.is_put_to_use_by(header, datagram) {
            return;
        }
        let Some(mut old) = self.established.take(old) else { return };
        let estate = old.surrender(&self.cx);
        sa.inherit(&mut self.cx, estate);
        self.established.put(old);
    }

    fn handle_init(&mut self, header: &Header, datagram: &Datagram) {
        if self.shutdown_ends_at.is_some() {
            return self.cx.drop(DropReason::ShuttingDown);
        }
        sa_init::handle(&mut self.cx, &mut self.jar, &mut self.half_open, header, datagram);
    }

    /// The only thing that a half-open IKE SA does is to be authenticated.
    fn handle_half_open(&mut self, spi: IkeSpi, header: &Header, datagram: &Datagram) {
        let attempts = self.cx.config.limits.auth_attempts;
        let Some(half_open) = self.half_open.get_mut(spi) else { return };
        let fits = header.spis == half_open.spis && header.exchange == ExchangeType::IkeAuth;
        if !fits || header.is_response || header.message_id != 1 {
            return self.cx.drop(DropReason::UnexpectedExchange);
        }
        let limits = &self.cx.config.limits;
        let opened = match half_open.channel.open(self.cx.now, header, &datagram.payload, limits) {
            Ok(opened) => opened,
            Err(why) => {
                half_open.failures += u8::from(why == OpenError::NotAuthentic);
                let is_enough = half_open.failures >= attempts;
                self.cx.count_unopened(&why);
                return if is_enough {
                    self.give_up_half_open(spi)
                };
            }
        };
        let verified = auth::verify(&self.cx, half_open, &opened, datagram);
        let is_full = verified.as_ref().is_ok_and(|proven| !self.has_room_for(proven));
        if is_full {
            // Its half-open IKE SA stays, so that it gets in if there is room when it asks again.
            return self.cx.drop(DropReason::SaTableFull);
        }
        let Some(half_open) = self.half_open.remove(spi) else { return };
        match verified {
            Ok(proven) => {
                let sa = auth::accept(&mut self.cx, half_open, proven, &opened, header, datagram);
                self.put_back(sa);
            }
            Err(refusal) => auth::refuse(&mut self.cx, half_open, &refusal, &opened, header, datagram),
        }
    }

    /// Whether there is room for the peer, once what it has too much of is gone.
    fn has_room_for(&mut self, proven: &Proven<'_>) -> bool {
        let (ours, theirs) = proven.identities();
        if proven.is_initial_contact() {
            self.forget_all(ours, theirs);
        }
        self.make_room(ours, theirs, proven.connection());
        self.established.len() < self.cx.config.limits.ike_sas
    }

    fn give_up_half_open(&mut self, spi: IkeSpi) {
        if self.half_open.remove(spi).is_some() {
            self.cx.spis.free_ike(spi);
            self.cx.counters.half_open_expired += 1;
            self.cx.drop(DropReason::AttemptsExhausted);
        }
    }

    /// No such IKE SA. It may have been answered before it went.
    fn handle_stray(&mut self, header: &Header, datagram: &Datagram) {
        if !header.is_response
            && let Some(response) = self.cx.kept.find(datagram.local.ip(), &digest_of(&datagram.payload)).cloned()
        {
            self.cx.counters.requests_repeated += 1;
            return self.cx.transmit_all(datagram.local, datagram.remote, response);
        }
        self.cx.drop(DropReason::UnknownSa);
    }

    /// A later major version is told which one we speak (RFC 7296 §2.5). Earlier ones are not answered.
    fn answer_version(&mut self, major: u8, datagram: &Datagram) {
        self.cx.drop(DropReason::Version);
        let Some(head) = datagram.payload.first_chunk::<HEADER_LEN>() else { return };
        const RESPONSE_FLAG: u8 = 0x20;
        if major <= 2 || head[19] & RESPONSE_FLAG != 0 {
            return;
        }
        let header = Header {
            spis: Header::spis_of(head),
            next_payload: 0,
            exchange: ExchangeType::from_number(head[18]),
            from_initiator: false,
            is_response: true,
            message_id: u32::from_be_bytes([head[20], head[21], head[22], head[23]]),
        };
        let chain = PayloadChain::new().with(&Payload::Notify(Notify::new(NotifyKind::INVALID_MAJOR_VERSION, &[])));
        self.cx.transmit_error(datagram.local, datagram.remote, chain.into_message(header));
    }

    pub(super) fn take_initiating(&mut self, spi: IkeSpi) -> Option<Box<Initiating>> {
        let initiating = self.initiating.remove(&spi)?;
        if let Some(deadline) = initiating.next_timeout() {
            self.initiating_deadlines.remove(&(deadline, spi));
        }
        Some(initiating)
    }

    pub(super) fn put_back_initiating(&mut self, progress: Progress) {
        match progress {
            Progress::Waiting(initiating) => {
                if let Some(deadline) = initiating.next_timeout() {
                    self.initiating_deadlines.insert((deadline, initiating.spi));
                }
                self.initiating.insert(initiating.spi, initiating);
            }
            Progress::Established(sa) => self.put_back(sa),
            Progress::Failed => {}
        }
    }
}
