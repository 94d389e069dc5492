//! The command socket: a Unix socket, a thread that answers on it, and the client that asks.
//!
//! Who may ask is decided by the file's owner, group and mode (0660). Clients are answered one after the other, each
//! within a bounded time; more than a few waiting are refused by the kernel.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::Mode;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};

use super::protocol::{REQUEST_LEN_MAX, Request, RequestError, Response};

/// Where the command socket stands unless told otherwise.
pub const DEFAULT_PATH: &str = "/run/phalanx/command.sock";

const MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o750;
/// Clients that may wait while one is being answered.
const BACKLOG: i32 = 8;
/// How long a client may take to ask, and then to take its answer.
const CLIENT_TIME_MAX: Duration = Duration::from_secs(2);
/// How long an answer may take to come.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// The longest answer that is read, in bytes: full tables of rows are far shorter.
const RESPONSE_LEN_MAX: u64 = 1 << 30;

/// Why the command socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Somebody answers there.
    #[error("{0}: another appliance answers on this command socket; stop it, or choose another path")]
    InUse(PathBuf),
    /// Something else stands there, and we do not remove what we did not make.
    #[error("{0}: found something that is no socket; allowed: nothing, or a socket that nobody serves")]
    NoSocket(PathBuf),
    /// The system said no.
    #[error("{path}: {step} failed: {error}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

/// A command socket that is being answered on, until this is dropped.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    /// Device and inode of the socket: somebody else's in its place is left alone.
    identity: (u64, u64),
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What ends the thread from outside, whatever it waits for.
#[derive(Debug)]
struct Shared {
    listener: UnixListener,
    client: Mutex<Option<UnixStream>>,
    stop: AtomicBool,
}

impl Server {
    /// Opens the socket and answers on it from a thread of its own. A socket that nobody serves any more is replaced.
    ///
    /// # Errors
    /// [`ServeError`] if somebody answers there already, or the system says no.
    pub fn start(path: &Path, answer: impl Fn(Request) -> Response + Send + 'static) -> Result<Self, ServeError> {
        let failed = |step| move |error: io::Error| ServeError::Io { path: path.to_owned(), step, error };
        remove_stale(path)?;
        create_directory(path).map_err(failed("creating its directory"))?;
        let listener = bind(path).map_err(|errno| failed("binding")(errno.into()))?;
        // The kernel has taken the umask off what bind() set; only now others may ask.
        fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed("setting its mode"))?;
        let metadata = fs::symlink_metadata(path).map_err(failed("looking at it"))?;
        let shared = Arc::new(Shared { listener, client: Mutex::new(None), stop: AtomicBool::new(false) });
        let serving = Arc::clone(&shared);
        let run = move || serve(&serving, answer);
        let thread = thread::Builder::new().name("commands".into()).spawn(run).map_err(failed("starting a thread"))?;
        let identity = (metadata.dev(), metadata.ino());
        Ok(Self { path: path.to_owned(), identity, shared, thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // In this order: whoever is accepted from here on finds the word to stop.
        self.shared.stop.store(true, Ordering::SeqCst);
        let _ = rustix::net::shutdown(&self.shared.listener, Shutdown::Both);
        if let Some(client) = self.shared.client.lock().take() {
            let _ = client.shutdown(std::net::Shutdown::Both);
        }
        let ours = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| ours(&metadata)) {
            let _ = fs::remove_file(&self.path);
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), ServeError> {
    let failed = |step| move |error: io::Error| ServeError::Io { path: path.to_owned(), step, error };
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("looking at it")(error)),
        Ok(metadata) => metadata,
    };
    if !metadata.file_type().is_socket() {
        return Err(ServeError::NoSocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(ServeError::InUse(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("removing what an earlier process left"))
        }
        Err(error) => Err(failed("asking whether somebody answers")(error)),
    }
}

fn create_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() && !directory.exists() => {
            DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)
        }
        Some(_) | None => Ok(()),
    }
}

/// Binds with the mode set beforehand: there is no moment in which everybody may connect, whatever the umask.
fn bind(path: &Path) -> rustix::io::Result<UnixListener> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::fs::fchmod(&socket, Mode::from_raw_mode(MODE))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn serve(shared: &Shared, answer: impl Fn(Request) -> Response) {
    loop {
        let accepted = shared.listener.accept();
        if let Ok((client, _)) = &accepted {
            *shared.client.lock() = client.try_clone().ok();
        }
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        match accepted {
            // A client that goes away or dawdles is no fault of ours, and the next one waits.
            Ok((client, _)) => drop(serve_client(client, &answer)),
            // Out of file descriptors or memory: whatever holds them, turning in circles would not free them.
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
        *shared.client.lock() = None;
    }
}

fn serve_client(mut client: UnixStream, answer: &impl Fn(Request) -> Response) -> io::Result<()> {
    let response = match read_line(&mut client, Instant::now() + CLIENT_TIME_MAX)? {
        Ok(line) => match Request::parse(&line) {
            Ok(request) => answer(request),
            Err(error) => Response::Error(error.to_string()),
        },
        Err(error) => Response::Error(error.to_string()),
    };
    write_all(&mut client, &response.into_line(), Instant::now() + CLIENT_TIME_MAX)
}

/// Reads up to the end of the line or of the stream. The inner error is for the client.
fn read_line(client: &mut UnixStream, deadline: Instant) -> io::Result<Result<Vec<u8>, RequestError>> {
    let mut buffer = [0; REQUEST_LEN_MAX];
    let mut len = 0;
    loop {
        client.set_read_timeout(Some(left(deadline)?))?;
        match client.read(&mut buffer[len..]) {
            Ok(0) if len == buffer.len() => return Ok(Err(RequestError::TooLong)),
            Ok(0) => return Ok(Ok(buffer[..len].to_vec())),
            Ok(count) => {
                let end = buffer[len..len + count].iter().position(|byte| *byte == b'\n');
                if let Some(end) = end {
                    return Ok(Ok(buffer[..len + end].to_vec()));
                }
                len += count;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn write_all(client: &mut UnixStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        client.set_write_timeout(Some(left(deadline)?))?;
        match client.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The time left, which is more than none: a time-out of zero would mean none at all.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Why a question was not answered.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody answers there, or we may not ask.
    #[error("{path}: no appliance answers: {error}; is `phalanx run` running, and may this user ask?")]
    NotReachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The connection broke, or what came was no answer.
    #[error("{path}: the answer broke off: {reason}")]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl AskError {
    /// The exit code that the command line promises for this.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotReachable { .. } => 3,
            Self::Broken { .. } => 1,
        }
    }
}

/// Asks the appliance that serves this socket.
///
/// # Errors
/// [`AskError`]. That the appliance refuses is an answer.
pub fn ask(path: &Path, request: &Request) -> Result<Response, AskError> {
    let not_reachable = |error| AskError::NotReachable { path: path.to_owned(), error };
    let broken = |reason: String| AskError::Broken { path: path.to_owned(), reason };
    let mut server = UnixStream::connect(path).map_err(not_reachable)?;
    server.set_read_timeout(Some(ANSWER_TIME_MAX)).map_err(|error| broken(error.to_string()))?;
    let deadline = Instant::now() + ANSWER_TIME_MAX;
    write_all(&mut server, request.to_line().as_bytes(), deadline).map_err(|error| broken(error.to_string()))?;
    let mut line = Vec::new();
    server.take(RESPONSE_LEN_MAX).read_to_end(&mut line).map_err(|error| broken(error.to_string()))?;
    Response::parse(&line).map_err(broken)
}

#[cfg(test)]
mod tests;
