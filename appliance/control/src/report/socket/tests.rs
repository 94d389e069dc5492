//! The command socket under friendly, slow, hostile and dead clients.

use std::sync::atomic::AtomicU32;

use super::super::protocol::What;
use super::super::protocol::tests::snapshot;
use super::*;

/// A path of its own for each test, short enough for a socket.
fn path(test: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("phalanx-{test}-{}-{number}.sock", std::process::id()))
}

fn start(path: &Path) -> Server {
    Server::start(path, |request| match request {
        Request::Show(what) => snapshot().respond(what),
        other => Response::Error(format!("{other:?}")),
    })
    .unwrap()
}

fn raw(path: &Path, bytes: &[u8]) -> Response {
    let mut client = UnixStream::connect(path).unwrap();
    client.write_all(bytes).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut line = Vec::new();
    client.read_to_end(&mut line).unwrap();
    Response::parse(&line).unwrap()
}

#[test]
fn a_directory_that_it_makes_is_closed_to_strangers() {
    let top = path("made").with_extension("d");
    let path = top.join("deeper").join("command.sock");
    let server = start(&path);
    for made in [&top, &top.join("deeper")] {
        assert_eq!(fs::metadata(made).unwrap().mode() & 0o007, 0, "{}", made.display());
    }
    drop(server);
    fs::remove_dir_all(top).unwrap();
}

#[test]
fn answers_whoever_may_ask() {
    let path = path("answers");
    let server = start(&path);
    let mode = fs::symlink_metadata(&path).unwrap().mode() & 0o7777;
    assert_eq!(mode, MODE);
    for what in What::ALL {
        let request = Request::Show(what);
        assert_eq!(ask(&path, &request).unwrap(), snapshot().respond(what), "{what}");
    }
    drop(server);
    assert!(!path.exists(), "the socket goes with its server");
}

#[test]
fn nobody_there_is_told_apart_from_a_broken_answer() {
    let path = path("nobody");
    let request = Request::Show(What::Sas);
    assert_eq!(ask(&path, &request).unwrap_err().exit_code(), 3);
    // A socket whose server died.
    drop(bind(&path).unwrap());
    assert_eq!(ask(&path, &request).unwrap_err().exit_code(), 3);
    fs::remove_file(&path).unwrap();
    // A server that hangs up without an answer.
    let listener = UnixListener::bind(&path).unwrap();
    let hang_up = thread::spawn(move || drop(listener.accept()));
    assert_eq!(ask(&path, &request).unwrap_err().exit_code(), 1);
    hang_up.join().unwrap();
    fs::remove_file(&path).unwrap();
}

#[test]
fn what_a_dead_server_left_is_replaced_and_nothing_else() {
    let path = path("stale");
    drop(bind(&path).unwrap());
    assert!(path.exists());
    let server = start(&path);
    assert!(matches!(Server::start(&path, |_| Response::Error(String::new())), Err(ServeError::InUse(_))));
    assert!(ask(&path, &Request::Show(What::Ports)).is_ok(), "the second start disturbed the first");
    drop(server);

    fs::write(&path, "precious").unwrap();
    assert!(matches!(Server::start(&path, |_| Response::Error(String::new())), Err(ServeError::NoSocket(_))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    fs::remove_file(&path).unwrap();
}

#[test]
fn a_server_leaves_the_socket_of_its_successor_alone() {
    let path = path("successor");
    let first = start(&path);
    fs::remove_file(&path).unwrap();
    let second = start(&path);
    drop(first);
    assert!(ask(&path, &Request::Show(What::Cores)).is_ok());
    drop(second);
    assert!(!path.exists());
}

#[test]
fn requests_that_are_none_are_answered_and_bounded() {
    let path = path("bounded");
    let _server = start(&path);
    let error = |bytes: &[u8]| match raw(&path, bytes) {
        Response::Error(text) => text,
        Response::Result(value) => panic!("{value}"),
    };
    assert!(error(b"").contains("no request"));
    assert!(error(b"\xff\xfe\n").contains("no request"));
    assert!(error(b"{\"command\":\"show\",\"what\":\"keys\"}\n").contains("allowed: sas, drops"));
    assert!(error(&[b' '; REQUEST_LEN_MAX]).contains("at most 4096"));
    // What follows the first line is not looked at.
    let two = b"{\"command\":\"show\",\"what\":\"cores\"}\n{\"command\":\"sto";
    assert!(matches!(raw(&path, two), Response::Result(_)));
}

#[test]
fn a_client_that_says_nothing_holds_up_the_next_one_for_a_bounded_time() {
    let path = path("slow");
    let _server = start(&path);
    let began = Instant::now();
    let mut dripping = UnixStream::connect(&path).unwrap();
    // A byte now and then must not start the time anew.
    let drip = thread::spawn(move || {
        while dripping.write_all(b" ").is_ok() {
            thread::sleep(Duration::from_millis(200));
        }
    });
    assert!(ask(&path, &Request::Show(What::Balance)).is_ok());
    assert!(began.elapsed() < CLIENT_TIME_MAX + Duration::from_secs(5), "{:?}", began.elapsed());
    drip.join().unwrap();
}

#[test]
fn the_end_waits_for_no_client() {
    let path = path("end");
    let server = start(&path);
    let silent: Vec<UnixStream> = (0..3).map(|_| UnixStream::connect(&path).unwrap()).collect();
    thread::sleep(Duration::from_millis(100));
    let began = Instant::now();
    drop(server);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    drop(silent);
}
