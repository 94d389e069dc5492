//! The thread that serves requests: one after the other, each within its limit, each reply compared with what was seen.

use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use cluster::facility::watch::{RolledBack, Save, Watch};
use cluster::facility::{Outcome, Reply, Request, Unavailable};
use ring::rand::SecureRandom as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::remembered::RememberedFile;
use crate::settings::{Settings, StartError};

/// How long to wait before a store that did not answer is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// How old what is on the disk of what was seen may be, where no counter is concerned.
const SAVE_PERIOD: Duration = Duration::from_secs(1);

/// Where transactions are carried out.
pub trait Store: Send + 'static {
    /// Carries one out, with the other requests of this process before or after it, or says why nothing is known of it.
    fn execute(&mut self, request: &Request) -> impl Future<Output = Result<Outcome, String>> + Send;

    /// The last one took too long; it may still happen.
    fn gave_up(&mut self);
}

/// A request and when it must be answered.
#[derive(Debug)]
pub struct Job {
    pub request: Request,
    pub deadline: Instant,
}

/// What the thread says.
#[derive(Debug)]
pub enum Answer {
    Reply(Reply),
    Notice(RolledBack),
}

/// Everything but the store.
#[derive(Debug)]
pub struct Worker {
    jobs: mpsc::Receiver<Job>,
    answers: Sender<Answer>,
    watch: Watch,
    file: RememberedFile,
    limit: Duration,
    saved: Instant,
    /// So that an outage is logged at its beginning and its end.
    is_out: bool,
}

impl Worker {
    pub fn new(settings: &Settings, jobs: mpsc::Receiver<Job>, answers: Sender<Answer>) -> Result<Worker, StartError> {
        let (file, remembered) = RememberedFile::open(&settings.state_directory)?;
        let mut identity = [0; 16];
        ring::rand::SystemRandom::new().fill(&mut identity).map_err(|_| StartError::Randomness)?;
        let watch = Watch::new(remembered, identity);
        Ok(Worker { jobs, answers, watch, file, limit: settings.time_limit, saved: Instant::now(), is_out: false })
    }

    pub fn spawn(self, store: impl Store) -> std::io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || runtime.block_on(self.run(store));
        std::thread::Builder::new().name("facility".to_owned()).spawn(run)
    }

    async fn run(mut self, mut store: impl Store) {
        loop {
            self.settle(&mut store).await;
            match tokio::time::timeout(SAVE_PERIOD, self.jobs.recv()).await {
                Ok(Some(job)) => self.serve(&mut store, job).await,
                Ok(None) => break,
                Err(_) => {}
            }
            if self.saved.elapsed() >= SAVE_PERIOD {
                self.save_soon();
            }
        }
        self.save_soon();
    }

    /// What must be asked before anything else, until nothing must. Meanwhile whoever waits is told so.
    async fn settle(&mut self, store: &mut impl Store) {
        while let Some(request) = self.watch.request(0) {
            let asked = Instant::now();
            let why = match self.execute(store, &request, asked + self.limit).await {
                Ok(outcome) => match self.watch.take(&outcome) {
                    Ok(()) => match self.save(Save::Now) {
                        Ok(()) => continue,
                        Err(why) => why,
                    },
                    Err(error) => error.to_string(),
                },
                Err(why) => why,
            };
            self.watch.failed();
            while let Ok(job) = self.jobs.try_recv() {
                self.answer(&job, Err(Unavailable { why: why.clone() }));
            }
            if self.jobs.is_closed() {
                return;
            }
            tokio::time::sleep_until(asked + RETRY_AFTER).await;
        }
        if let Some(notice) = self.watch.poll_notice() {
            let RolledBack { generation, remembered_revision, found_revision, by_us } = notice;
            warn!(
                generation,
                remembered_revision,
                found_revision,
                by_us,
                "the coupling facility is older than remembered: all its SA records are void, all counters were raised"
            );
            let _ = self.answers.send(Answer::Notice(notice));
        }
    }

    async fn serve(&mut self, store: &mut impl Store, job: Job) {
        if Instant::now() >= job.deadline {
            let why = format!("the request waited longer than {:?} behind others", self.limit);
            return self.answer(&job, Err(Unavailable { why }));
        }
        let carried = self.watch.carry(job.request.clone());
        let outcome = match self.execute(store, &carried, job.deadline).await {
            Ok(mut outcome) => match self.watch.judge(&job.request, &mut outcome) {
                // What a reply shows is remembered before anybody acts on it.
                Ok(()) => self.save(Save::Now).map(|()| outcome),
                Err(doubt) => Err(doubt.to_string()),
            },
            Err(why) => Err(why),
        };
        self.answer(&job, outcome.map_err(|why| Unavailable { why }));
    }

    async fn execute(
        &mut self,
        store: &mut impl Store,
        request: &Request,
        deadline: Instant,
    ) -> Result<Outcome, String> {
        let outcome = match tokio::time::timeout_at(deadline, store.execute(request)).await {
            Ok(outcome) => outcome,
            Err(_) => {
                store.gave_up();
                Err(format!("no answer within {:?}", self.limit))
            }
        };
        match &outcome {
            Ok(_) if self.is_out => info!("the coupling facility answers again"),
            Err(why) if !self.is_out => warn!(%why, "the coupling facility does not answer"),
            Ok(_) | Err(_) => {}
        }
        self.is_out = outcome.is_err();
        outcome
    }

    fn answer(&self, job: &Job, outcome: Result<Outcome, Unavailable>) {
        // Nobody listens when the facility is being dropped.
        let _ = self.answers.send(Answer::Reply(Reply { id: job.request.id, outcome }));
    }

    fn save(&mut self, at_least: Save) -> Result<(), String> {
        let Some(remembered) = self.watch.poll_save(at_least) else { return Ok(()) };
        self.saved = Instant::now();
        self.file.write(remembered).map_err(|error| {
            error!(%error, "what was seen of the coupling facility cannot be kept");
            self.watch.save_failed();
            error.to_string()
        })
    }

    fn save_soon(&mut self) {
        self.saved = Instant::now();
        // Logged already; the next one tries again.
        let _ = self.save(Save::Soon);
    }
}
