//! etcd as a process of its own.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use facility::{EtcdSettings, TlsSettings};
use pem_rfc7468::LineEnding;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustix::process::{Pid, Signal, kill_process};

pub struct Server {
    arguments: Vec<String>,
    endpoint: String,
    port: u16,
    log: PathBuf,
    process: Child,
}

fn pem(label: &str, der: &[u8]) -> String {
    pem_rfc7468::encode_string(label, LineEnding::LF, der).unwrap()
}

/// A port that nobody has just now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Server {
    /// One that stands alone.
    pub fn start(data: &Path) -> Server {
        let peer = free_port();
        let arguments = arguments("one", data, peer, &[("one", peer)]);
        let mut server = Server::listening(arguments, "http", vec![], data);
        server.wait_until_it_listens();
        server
    }

    /// Three that make one.
    pub fn start_three(directory: &Path) -> Vec<Server> {
        let members = ["one", "two", "three"].map(|name| (name, free_port()));
        let mut servers: Vec<Server> = members
            .iter()
            .map(|(name, peer)| {
                let data = directory.join(name);
                Server::listening(arguments(name, &data, *peer, &members), "http", vec![], &data)
            })
            .collect();
        servers.iter_mut().for_each(Server::wait_until_it_listens);
        servers
    }

    /// One that asks clients for certificates, and what a client needs. Beside it, `other.pem` is an authority that has
    /// nothing to do with it.
    pub fn start_with_tls(directory: &Path) -> (Server, TlsSettings) {
        let write = |name: &str, text: &str| {
            use std::io::Write as _;
            use std::os::unix::fs::OpenOptionsExt as _;
            let path = directory.join(name);
            let mut file =
                std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            path
        };
        let authority = || {
            let key = KeyPair::generate().unwrap();
            let mut params = CertificateParams::new(vec![]).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let certificate = params.self_signed(&key).unwrap();
            (pem("CERTIFICATE", certificate.der()), Issuer::new(params, key))
        };
        let ((authority_pem, issuer), (other_pem, _)) = (authority(), authority());
        let authority = write("authority.pem", &authority_pem);
        write("other.pem", &other_pem);
        let issue = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            let certificate = params.signed_by(&key, &issuer).unwrap();
            let paths = [
                ("certificate", pem("CERTIFICATE", certificate.der())),
                ("key", pem("PRIVATE KEY", key.serialized_der())),
            ]
            .map(|(what, text)| write(&format!("{name}-{what}.pem"), &text));
            let [certificate, key] = paths;
            (certificate, key)
        };
        let (certificate, key) = issue("etcd");
        let shown = |path: &Path| path.display().to_string();
        let tls = vec![
            format!("--cert-file={}", shown(&certificate)),
            format!("--key-file={}", shown(&key)),
            "--client-cert-auth".to_owned(),
            format!("--trusted-ca-file={}", shown(&authority)),
        ];
        let (data, peer) = (directory.join("data"), free_port());
        let mut server = Server::listening(arguments("one", &data, peer, &[("one", peer)]), "https", tls, &data);
        server.wait_until_it_listens();
        (server, TlsSettings { authority, identity: Some(issue("appliance")), server_name: None })
    }

    fn listening(mut arguments: Vec<String>, scheme: &str, more: Vec<String>, data: &Path) -> Server {
        let port = free_port();
        let endpoint = format!("{scheme}://127.0.0.1:{port}");
        arguments.extend([format!("--listen-client-urls={endpoint}"), format!("--advertise-client-urls={endpoint}")]);
        arguments.extend(more);
        let log = data.with_extension("log");
        let process = spawn(&arguments, &log);
        Server { arguments, endpoint, port, log, process }
    }

    pub fn settings(&self) -> EtcdSettings {
        EtcdSettings { endpoints: vec![self.endpoint.clone()], prefix: "/phalanx/test".to_owned(), tls: None }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// Holds it still.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        let status = format!("/proc/{}/status", self.process.id());
        while !std::fs::read_to_string(&status).unwrap().contains("State:\tT") {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.process.wait().unwrap();
    }

    /// Lets it end by itself.
    pub fn end(&mut self) {
        self.signal(Signal::TERM);
        self.process.wait().unwrap();
    }

    pub fn start_again(&mut self) {
        self.process = spawn(&self.arguments, &self.log);
        self.wait_until_it_listens();
    }

    fn wait_until_it_listens(&mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let has_ended = self.process.try_wait().unwrap().is_some();
            assert!(
                !has_ended && Instant::now() < until,
                "etcd does not listen:\n{}",
                std::fs::read_to_string(&self.log).unwrap()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn arguments(name: &str, data: &Path, peer: u16, members: &[(&str, u16)]) -> Vec<String> {
    let members: Vec<String> = members.iter().map(|(name, port)| format!("{name}=http://127.0.0.1:{port}")).collect();
    vec![
        format!("--name={name}"),
        format!("--data-dir={}", data.display()),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
        format!("--initial-cluster={}", members.join(",")),
        "--heartbeat-interval=50".to_owned(),
        "--election-timeout=500".to_owned(),
        "--logger=zap".to_owned(),
        "--log-level=error".to_owned(),
    ]
}

fn spawn(arguments: &[String], log: &Path) -> Child {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
    let command = Command::new("etcd").args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    command.unwrap_or_else(|error| panic!("etcd does not start ({error}); install Debian's package etcd-server"))
}
