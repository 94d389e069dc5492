//! The registration of this start, before anything runs.

use std::time::{Duration, Instant};

use cluster::facility::start::{Progress, Start, StartError, Started};
use cluster::facility::{Outcome, Request, Unavailable};
use cluster::id::MemberId;
use ring::rand::SecureRandom as _;

use crate::{Facility, Refused};

/// What this start draws.
#[derive(Clone, Copy, Debug)]
pub struct Registration {
    /// Which member this is.
    pub me: MemberId,
    /// How many sender numbers it needs at once.
    pub senders: u32,
    /// How long it waits for a facility that does not answer.
    pub patience: Duration,
}

/// Why this start is not registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The facility did not answer in time.
    #[error("{0}; this appliance cannot start without it, since nothing else makes its numbers unique")]
    Unavailable(#[from] Unavailable),
    /// It took no request.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// What stands there cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No randomness.
    #[error("the system's random source failed; nothing can be drawn without it")]
    Randomness,
}

impl Facility {
    /// Registers this start: draws its incarnation and its first sender numbers. Waits; to be done before the data cores
    /// start, and before anything else is asked.
    ///
    /// # Errors
    /// [`RegisterError`].
    pub fn register(&mut self, registration: Registration) -> Result<Started, RegisterError> {
        let mut nonce = [0; 16];
        ring::rand::SystemRandom::new().fill(&mut nonce).map_err(|_| RegisterError::Randomness)?;
        let until = Instant::now() + registration.patience;
        let mut start = Start::new(registration.me, nonce, registration.senders);
        for id in 0.. {
            match self.ask(start.request(id)) {
                Ok(outcome) => match start.take(&outcome)? {
                    Progress::Done(started) => return Ok(started),
                    Progress::Again(again) => start = again,
                },
                Err(RegisterError::Unavailable(_)) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(error) => return Err(error),
            }
        }
        Err(Unavailable { why: "it was asked too often".to_owned() }.into())
    }

    /// One request and its answer, waited for. For the time before the data cores start.
    ///
    /// # Errors
    /// [`RegisterError::Unavailable`] or [`RegisterError::Refused`].
    pub fn ask(&mut self, request: Request) -> Result<Outcome, RegisterError> {
        let id = request.id;
        self.submit(request)?;
        // Longer than any request can take: one limit in the queue and one at the store, then some.
        let patience = self.limit * 3 + Duration::from_secs(1);
        loop {
            match self.wait(patience) {
                Some(reply) if reply.id == id => return reply.outcome.map_err(RegisterError::from),
                // Somebody's who gave up.
                Some(_) => {}
                None => return Err(Unavailable { why: "its thread does not answer".to_owned() }.into()),
            }
        }
    }
}
