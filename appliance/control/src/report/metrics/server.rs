//! `GET /metrics` over HTTP, from a thread of its own.
//!
//! Clients are bounded in number, and a connection on which no answer has been written for a while is cut: whoever
//! reaches the address may scrape, and not hold it.

use std::future::pending;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, Sleep, sleep};

use super::{Snapshot, render};

pub(super) const CLIENTS_MAX: usize = 16;
/// Longer than any usual interval between two scrapes, so that Prometheus keeps its connection.
const QUIET_MAX: Duration = Duration::from_secs(90);
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Why the metrics cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("metrics.listen {listen}: {step} failed: {error}")]
pub struct ServeError {
    listen: SocketAddr,
    step: &'static str,
    error: io::Error,
}

/// Metrics that are being served, until this is dropped.
#[derive(Debug)]
pub struct Server {
    local: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens at `listen` and answers each scrape with the snapshot that `take` takes then. Where it says why it has
    /// none, so does the answer, with status 503: a scrape fails rather than showing zeros.
    ///
    /// # Errors
    /// [`ServeError`] if the address cannot be listened at.
    pub fn start(
        listen: SocketAddr,
        version: &'static str,
        take: impl Fn() -> Result<Snapshot, String> + Send + Sync + 'static,
    ) -> Result<Self, ServeError> {
        let failed = |step| move |error| ServeError { listen, step, error };
        let listener = std::net::TcpListener::bind(listen).map_err(failed("listening"))?;
        listener.set_nonblocking(true).map_err(failed("listening"))?;
        let local = listener.local_addr().map_err(failed("listening"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(failed("starting a runtime"))?;
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = serve(listener, version, Arc::new(take)) => {}
                    _ = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("metrics".into()).spawn(run).map_err(failed("starting a thread"))?;
        Ok(Self { local, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

type Take = Arc<dyn Fn() -> Result<Snapshot, String> + Send + Sync>;

async fn serve(listener: std::net::TcpListener, version: &'static str, take: Take) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        // Only a runtime without its reactor does this, and ours has one.
        return pending().await;
    };
    let listener = Bounded { listener, places: Arc::new(Semaphore::new(CLIENTS_MAX)) };
    let router = Router::new().route("/metrics", get(metrics)).with_state((version, take));
    // It never returns: failed accepts are tried again.
    let _ = axum::serve(listener, router).await;
}

async fn metrics(State((version, take)): State<(&'static str, Take)>) -> Response {
    let snapshot = match take() {
        Ok(snapshot) => snapshot,
        Err(why) => return (StatusCode::SERVICE_UNAVAILABLE, why).into_response(),
    };
    match render(&snapshot, version) {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// A listener that takes the next client only when there is a place for it.
struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Client;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Client, SocketAddr) {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return pending().await };
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let quiet = Box::pin(sleep(QUIET_MAX));
        (Client { stream, quiet, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that is cut when nothing has been written to it for a while: neither an unfinished request nor one that
/// never comes keeps it.
struct Client {
    stream: TcpStream,
    quiet: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Client {
    fn has_been_quiet(&mut self, context: &mut Context<'_>) -> bool {
        self.quiet.as_mut().poll(context).is_ready()
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_been_quiet(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.has_been_quiet(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if matches!(written, Poll::Ready(Ok(_))) {
            self.quiet.as_mut().reset(Instant::now() + QUIET_MAX);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
