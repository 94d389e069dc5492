//! Questions from the command socket and the metrics endpoint, answered by the thread that owns the control core.
//!
//! Askers live in threads of their own and wait for a bounded time; the control core answers between two turns.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use control::control_core::{ControlCore, Surroundings};
use control::report::{Request, Response, Snapshot, What};
use datapath::buffer::PacketBuffer;
use ipsec::time::Instant;

/// Questions that can wait.
const WAITING: usize = 16;
/// How long an asker waits: a data core that sleeps needs a millisecond, a dead one never answers.
const PATIENCE: Duration = Duration::from_secs(5);

struct Question {
    with_connections: bool,
    reply: SyncSender<Snapshot>,
}

/// The askers' end. Copies may be given to any thread.
#[derive(Clone)]
pub struct Asker(SyncSender<Question>);

/// The answering end.
pub struct Asks {
    questions: Receiver<Question>,
    /// Questions for connections, which the data cores are being asked for.
    waiting: Vec<SyncSender<Snapshot>>,
}

/// Both ends.
pub fn channel() -> (Asker, Asks) {
    let (sender, questions) = sync_channel(WAITING);
    (Asker(sender), Asks { questions, waiting: Vec::new() })
}

impl Asker {
    /// The appliance's state, or why there is none.
    ///
    /// # Errors
    /// A sentence for whoever asked.
    pub fn snapshot(&self, with_connections: bool) -> Result<Snapshot, String> {
        let (reply, answer) = sync_channel(1);
        let question = Question { with_connections, reply };
        self.0
            .try_send(question)
            .map_err(|_| "too many questions are waiting, or the appliance is stopping".to_owned())?;
        answer.recv_timeout(PATIENCE).map_err(|error| match error {
            RecvTimeoutError::Timeout => format!("no answer within {PATIENCE:?}: a data core may have stopped"),
            RecvTimeoutError::Disconnected => "the appliance is stopping".to_owned(),
        })
    }

    /// Answers a request from the command socket.
    pub fn respond(&self, request: Request) -> Response {
        let with_connections = match request {
            Request::Show(What::Connections) => true,
            Request::Show(What::Sas | What::Drops | What::Balance | What::Ports | What::Cores) => false,
        };
        match self.snapshot(with_connections) {
            Ok(snapshot) => snapshot.respond(request),
            Err(why) => Response::Error(why),
        }
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
        loop {
            match self.questions.try_recv() {
                Ok(question) if question.with_connections => {
                    control.start_listing();
                    self.waiting.push(question.reply);
                }
                // The asker may have lost patience: then nobody wants the answer.
                Ok(question) => drop(question.reply.try_send(control.snapshot(now, surroundings(), None))),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        if self.waiting.is_empty() {
            return;
        }
        if let Some(listing) = control.take_listing() {
            let snapshot = control.snapshot(now, surroundings(), Some(listing));
            self.waiting.drain(..).for_each(|reply| drop(reply.try_send(snapshot.clone())));
        }
    }
}
