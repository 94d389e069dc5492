//! The coupling facility's backends: where the records of [`cluster::facility`] are kept.
//!
//! **Purpose.** One request/reply pair over two stores: *embedded*, a durable file for one appliance, and *etcd* for a
//! cluster. A thread of its own does the waiting; whoever asks never waits.
//!
//! **Promises.**
//! - [`Facility::submit`] never blocks: the queue is bounded, and a full one refuses.
//! - Every request that was taken is answered, in order, within its time limit and a moment: by what came of it, or by
//!   [`Unavailable`], after which it may or may not have happened.
//! - What is answered as committed is durable. Nothing is repeated behind the requester's back.
//! - A facility that went back in time is found ([`cluster::facility::watch`]) before a reply of it is believed; what
//!   was seen of it is kept in a file of the state directory.
//! - An outage ends by itself when the store is back.
//!
//! **What it never does.** It understands no record but those that show how far the store has come, and never logs a
//! value.

#![forbid(unsafe_code)]

mod embedded;
#[cfg(feature = "etcd")]
mod etcd;
mod file;
mod register;
mod remembered;
mod sender_file;
mod settings;
mod worker;
mod wrap_key;

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::thread::JoinHandle;
use std::time::Duration;

use cluster::facility::watch::RolledBack;
use cluster::facility::{Malformed, Reply, Request};
use tokio::sync::mpsc;

pub use cluster::facility::Unavailable;
pub use register::{RegisterError, Registration};
pub use settings::{Backend, EtcdSettings, Settings, StartError, TlsSettings};
pub use wrap_key::{WrapKeyError, random_wrap_key, read_wrap_key};

use worker::{Answer, Job, Worker};

/// The facility as one appliance speaks to it.
#[derive(Debug)]
pub struct Facility {
    jobs: Option<mpsc::Sender<Job>>,
    answers: Receiver<Answer>,
    thread: Option<JoinHandle<()>>,
    limit: Duration,
    queue: usize,
    unanswered: usize,
    notices: Vec<RolledBack>,
}

/// A request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// As many as may wait are waiting.
    #[error("{waiting} requests wait for the coupling facility, which are all that may")]
    Full {
        /// How many wait.
        waiting: usize,
    },
    /// No facility takes it.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The thread has ended, which it does only with the process or by a fault of its own.
    #[error("the coupling facility's thread has ended")]
    Ended,
}

impl Facility {
    /// Starts the thread that serves requests. The embedded store is opened here; etcd need not answer yet.
    ///
    /// # Errors
    /// [`StartError`]: whatever cannot be safe is refused here.
    pub fn start(settings: Settings) -> Result<Facility, StartError> {
        let (limit, queue) = settings.check()?;
        let (jobs, taken) = mpsc::channel(queue);
        let (answer, answers) = std::sync::mpsc::channel();
        let worker = Worker::new(&settings, taken, answer)?;
        let thread = match settings.backend {
            Backend::Embedded => {
                let store = embedded::Embedded::open(&settings.state_directory)?;
                worker.spawn(store)
            }
            #[cfg(feature = "etcd")]
            Backend::Etcd(etcd) => worker.spawn(etcd::Etcd::new(&etcd, limit)?),
            #[cfg(not(feature = "etcd"))]
            Backend::Etcd(_) => return Err(StartError::NoEtcd),
        }
        .map_err(StartError::Thread)?;
        Ok(Facility { jobs: Some(jobs), answers, thread: Some(thread), limit, queue, unanswered: 0, notices: vec![] })
    }

    /// Asks. The answer comes from [`Facility::poll`]; answers come in the order of their requests.
    ///
    /// # Errors
    /// [`Refused`]: it was not asked.
    pub fn submit(&mut self, request: Request) -> Result<(), Refused> {
        request.check()?;
        if self.unanswered >= self.queue {
            return Err(Refused::Full { waiting: self.unanswered });
        }
        let deadline = tokio::time::Instant::now() + self.limit;
        let Some(jobs) = &self.jobs else { return Err(Refused::Ended) };
        match jobs.try_send(Job { request, deadline }) {
            Ok(()) => {
                self.unanswered += 1;
                Ok(())
            }
            Err(mpsc::error::TrySendError::Full(_)) => Err(Refused::Full { waiting: self.unanswered }),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Refused::Ended),
        }
    }

    /// The next answer, if there is one.
    pub fn poll(&mut self) -> Option<Reply> {
        loop {
            match self.answers.try_recv() {
                Ok(answer) => {
                    if let Some(reply) = self.sort(answer) {
                        return Some(reply);
                    }
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return None,
            }
        }
    }

    /// The next answer, waited for. For the time before the data cores start; nothing that runs may wait.
    pub fn wait(&mut self, patience: Duration) -> Option<Reply> {
        let until = std::time::Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(std::time::Instant::now());
            match self.answers.recv_timeout(left) {
                Ok(answer) => {
                    if let Some(reply) = self.sort(answer) {
                        return Some(reply);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// That the facility was found older than remembered, and all its SA records void; once each time.
    pub fn poll_notice(&mut self) -> Option<RolledBack> {
        self.notices.pop()
    }

    /// How many requests wait for their answers.
    #[must_use]
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }

    fn sort(&mut self, answer: Answer) -> Option<Reply> {
        match answer {
            Answer::Reply(reply) => {
                self.unanswered = self.unanswered.saturating_sub(1);
                Some(reply)
            }
            Answer::Notice(notice) => {
                // Each says that all before it is void; one is enough.
                self.notices = vec![notice];
                None
            }
        }
    }
}

impl Drop for Facility {
    /// Waits until what was taken is carried out or given up, and the store is closed: at most the time limit.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
