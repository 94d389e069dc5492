//! Questions from the command socket and the metrics endpoint, answered by the thread that owns the control core.
//!
//! Askers live in threads of their own and wait for a bounded time; the control core answers between two turns.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use control::control_core::{ControlCore, Surroundings};
use control::report::{Request, Response, Snapshot, What, WhereRow};
use datapath::buffer::PacketBuffer;
use ipsec::time::Instant;
use wire::flow::FlowKey;

/// Questions that can wait.
const WAITING: usize = 16;
/// How long an asker waits: a data core that sleeps needs a millisecond, a dead one never answers.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question, and where its answer goes. The asker may have lost patience by then: nobody wants the answer, and no harm
/// is done.
enum Question {
    Snapshot { with_connections: bool, reply: SyncSender<Snapshot> },
    Where { flow: FlowKey, reply: SyncSender<Vec<WhereRow>> },
    Drain { target: String, on: bool, reply: SyncSender<Result<(), String>> },
}

/// The askers' end. Copies may be given to any thread.
#[derive(Clone)]
pub struct Asker(SyncSender<Question>);

/// The answering end.
pub struct Asks {
    questions: Receiver<Question>,
    /// Questions for connections, which the data cores are being asked for.
    waiting: Vec<SyncSender<Snapshot>>,
    /// The question for one connection, which the data cores are being asked for.
    searching: Option<SyncSender<Vec<WhereRow>>>,
}

/// Both ends.
pub fn channel() -> (Asker, Asks) {
    let (sender, questions) = sync_channel(WAITING);
    (Asker(sender), Asks { questions, waiting: Vec::new(), searching: None })
}

impl Asker {
    /// The appliance's state, or why there is none.
    ///
    /// # Errors
    /// A sentence for whoever asked.
    pub fn snapshot(&self, with_connections: bool) -> Result<Snapshot, String> {
        self.ask(|reply| Question::Snapshot { with_connections, reply })
    }

    /// Answers a request from the command socket.
    pub fn respond(&self, request: Request) -> Response {
        let answer = match request {
            Request::Show(what) => self.snapshot(what == What::Connections).map(|snapshot| snapshot.respond(what)),
            Request::Where(flow) => self.ask(|reply| Question::Where { flow, reply }).map(|rows| Response::rows(&rows)),
            Request::Drain { target, on } => self
                .ask(|reply| Question::Drain { target, on, reply })
                .and_then(|done| done)
                .map(|()| Response::rows(&())),
        };
        answer.unwrap_or_else(Response::Error)
    }

    fn ask<T>(&self, question: impl FnOnce(SyncSender<T>) -> Question) -> Result<T, String> {
        let (reply, answer) = sync_channel(1);
        self.0
            .try_send(question(reply))
            .map_err(|_| "too many questions are waiting, or the appliance is stopping".to_owned())?;
        answer.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("no answer within {PATIENCE:?}: a data core may have stopped"),
            RecvTimeoutError::Disconnected => "the appliance is stopping".to_owned(),
        })
    }
}

impl Asks {
    /// Answers what can be answered now.
    pub fn answer<B: PacketBuffer>(
        &mut self,
        control: &mut ControlCore<B>,
        now: Instant,
        surroundings: impl Fn() -> Surroundings,
    ) {
        while let Some(question) = self.next_question() {
            match question {
                Question::Snapshot { with_connections: true, reply } => {
                    control.start_listing();
                    self.waiting.push(reply);
                }
                Question::Snapshot { with_connections: false, reply } => {
                    drop(reply.try_send(control.snapshot(now, surroundings(), None)));
                }
                Question::Where { flow, reply } => {
                    control.start_search(now, flow);
                    self.searching = Some(reply);
                }
                Question::Drain { target, on, reply } => drop(reply.try_send(control.drain(now, &target, on))),
            }
        }
        if !self.waiting.is_empty()
            && let Some(listing) = control.take_listing()
        {
            let snapshot = control.snapshot(now, surroundings(), Some(listing));
            self.waiting.drain(..).for_each(|reply| drop(reply.try_send(snapshot.clone())));
        }
        if let Some(found) = self.searching.as_ref().and_then(|_| control.take_found(now)) {
            self.searching.take().into_iter().for_each(|reply| drop(reply.try_send(found.clone())));
        }
    }

    /// The next question; while one search is under way, others wait.
    fn next_question(&mut self) -> Option<Question> {
        if self.searching.is_some() { None } else { self.questions.try_recv().ok() }
    }
}
