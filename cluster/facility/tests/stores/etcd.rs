//! etcd, from Debian's package, and what only it has.

mod server;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64ct::{Base64Unpadded, Encoding as _};
use cluster::facility::births::{CreateSa, Created};
use cluster::facility::claim::{Claim, Claimed, OwnerSeen, ask_owner};
use cluster::facility::wrap::{Sealer, WrapKey};
use cluster::facility::{Change, Read, Request};
use cluster::id::MemberId;
use facility::{Facility, Registration, Settings, TlsSettings};
use ipsec::Spi;

use crate::place::{Directory, Place, copy_all};
use crate::suite::{PATIENCE, ask, dvipa, shadow};
use server::Server;

pub struct Etcd {
    directory: Directory,
    server: Server,
}

impl Etcd {
    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn settings(&self, number: u32) -> Settings {
        Settings::etcd(self.directory.join(&format!("appliance-{number}")), self.server.settings())
    }
}

impl Place for Etcd {
    fn new(test: &str) -> Etcd {
        let directory = Directory::new(test);
        let server = Server::start(&directory.join("data"));
        Etcd { directory, server }
    }

    fn client(&self, number: u32) -> Facility {
        Facility::start(self.settings(number)).unwrap()
    }

    const IS_SHARED: bool = true;

    fn crash(&mut self) {
        self.server.kill();
        self.server.start_again();
    }

    fn back_up(&mut self) {
        self.server.kill();
        copy_all(&self.data(), &self.directory.join("backup"));
        self.server.start_again();
    }

    fn restore(&mut self) {
        self.server.kill();
        copy_all(&self.directory.join("backup"), &self.data());
        self.server.start_again();
    }
}

fn put(id: u64, key: &str) -> Request {
    Request { id, compare: vec![], change: vec![Change::Put(key.into(), vec![7])], read: vec![] }
}

#[test]
#[ignore = "needs Debian's etcd-server"]
fn an_outage_is_told_within_the_limit_and_ends_by_itself_needs_etcd() {
    let place = Etcd::new("outage");
    let limit = Duration::from_millis(700);
    let mut client = Facility::start(Settings { time_limit: limit, ..place.settings(1) }).unwrap();
    ask(&mut client, &put(0, "before"));
    for round in 0..2 {
        place.server.stop();
        let asked = Instant::now();
        for id in 0..5 {
            client.submit(put(id, "during")).unwrap();
        }
        for id in 0..5 {
            let reply = client.wait(PATIENCE).unwrap();
            assert_eq!(reply.id, id);
            assert!(reply.outcome.is_err(), "round {round}: etcd does not run");
        }
        let took = asked.elapsed();
        assert!(took >= limit / 2 && took < limit + Duration::from_millis(300), "{took:?} for a limit of {limit:?}");
        place.server.go_on();
        let resumed = Instant::now();
        ask(&mut client, &put(9, "after"));
        assert!(resumed.elapsed() < Duration::from_secs(3), "{:?}", resumed.elapsed());
    }
}

#[test]
#[ignore = "needs Debian's etcd-server"]
fn an_etcd_that_dies_and_comes_back_is_found_again_needs_etcd() {
    let mut place = Etcd::new("reborn");
    let mut client = place.client(1);
    ask(&mut client, &put(0, "before"));
    place.server.kill();
    assert!(client.ask(put(1, "during")).is_err());
    place.server.start_again();
    ask(&mut client, &put(2, "after"));
    let read = Request { id: 3, compare: vec![], change: vec![], read: vec![Read::Record("before".into())] };
    assert_eq!(ask(&mut client, &read).records.len(), 1);
    assert!(client.poll_notice().is_none(), "it lost nothing");
}

#[test]
#[ignore = "needs Debian's etcd-server"]
fn an_appliance_may_start_before_its_etcd_needs_etcd() {
    let mut place = Etcd::new("early");
    // An etcd that dies before its first write may never elect itself again.
    ask(&mut place.client(2), &put(0, "x"));
    place.server.kill();
    let mut client = place.client(1);
    let error = client.ask(put(1, "x")).unwrap_err().to_string();
    assert!(error.contains("does not answer"), "{error}");
    place.server.start_again();
    ask(&mut client, &put(2, "x"));
}

/// Three members of etcd, of which one after the other dies: two are enough, whichever.
#[test]
#[ignore = "needs Debian's etcd-server"]
fn any_endpoint_may_die_while_a_majority_lives_needs_etcd() {
    let directory = Directory::new("three");
    let mut servers = Server::start_three(&directory.0);
    let mut etcd = servers[0].settings();
    etcd.endpoints = servers.iter().flat_map(|server| server.settings().endpoints).collect();
    let mut client = Facility::start(Settings::etcd(directory.join("appliance"), etcd)).unwrap();
    ask(&mut client, &put(0, "first"));
    for (at, server) in servers.iter_mut().enumerate() {
        server.kill();
        let died = Instant::now();
        ask(&mut client, &put(1, &format!("without/{at}")));
        assert!(died.elapsed() < Duration::from_secs(15), "{:?}", died.elapsed());
        server.start_again();
        std::thread::sleep(Duration::from_secs(1));
    }
    let read = Request { id: 3, compare: vec![], change: vec![], read: vec![Read::Prefix("without/".into())] };
    assert_eq!(ask(&mut client, &read).records.len(), 3);
}

#[test]
#[ignore = "needs Debian's etcd-server"]
fn clusters_that_share_one_etcd_do_not_see_each_other_needs_etcd() {
    let place = Etcd::new("shared");
    let mut other = place.settings(2);
    if let facility::Backend::Etcd(etcd) = &mut other.backend {
        etcd.prefix = format!("{}0", etcd.prefix.trim_end_matches('/'));
    }
    let (mut first, mut second) = (place.client(1), Facility::start(other).unwrap());
    let registration = Registration { me: MemberId(1), senders: 5, patience: PATIENCE };
    assert_eq!(first.register(registration).unwrap().senders, 0..5);
    assert_eq!(second.register(registration).unwrap().senders, 0..5);
    ask(&mut first, &put(1, "a/1"));
    let delete = vec![Change::DeletePrefix("a/".into())];
    ask(&mut second, &Request { id: 1, compare: vec![], change: delete, read: vec![] });
    let read = Request { id: 3, compare: vec![], change: vec![], read: vec![Read::Prefix("a/".into())] };
    assert_eq!((ask(&mut first, &read).records.len(), ask(&mut second, &read).records.len()), (1, 0));
}

#[test]
#[ignore = "needs Debian's etcd-server"]
fn certificates_are_asked_for_on_both_sides_needs_etcd() {
    let directory = Directory::new("tls");
    let (server, tls) = Server::start_with_tls(&directory.0);
    let settings = |name: &str, tls: TlsSettings| {
        let mut etcd = server.settings();
        etcd.tls = Some(tls);
        let etcd = Settings::etcd(directory.join(name), etcd);
        Settings { time_limit: Duration::from_secs(1), ..etcd }
    };
    let mut client = Facility::start(settings("known", tls.clone())).unwrap();
    ask(&mut client, &put(0, "x"));
    let mut without = Facility::start(settings("unknown", TlsSettings { identity: None, ..tls.clone() })).unwrap();
    assert!(without.ask(put(0, "x")).is_err(), "a client without a certificate");
    let other = TlsSettings { authority: directory.join("other.pem"), ..tls.clone() };
    let mut deceived = Facility::start(settings("deceived", other)).unwrap();
    assert!(deceived.ask(put(0, "x")).is_err(), "an etcd whose certificate comes from somewhere else");
    let nonsense = TlsSettings { authority: directory.join("nowhere.pem"), ..tls };
    assert!(Facility::start(settings("nonsense", nonsense)).unwrap_err().to_string().contains("nowhere.pem"));
}

/// Every form in which the bytes might stand somewhere.
fn forms(key: &[u8]) -> Vec<Vec<u8>> {
    let mut forms: Vec<Vec<u8>> = key.windows(8).map(<[u8]>::to_vec).collect();
    forms.extend(key.windows(8).map(|part| base16ct::lower::encode_string(part).into_bytes()));
    forms.extend(key.windows(8).map(|part| base16ct::upper::encode_string(part).into_bytes()));
    // Nine bytes are twelve whole letters, wherever the text around them began.
    forms.extend(key.windows(9).map(|part| Base64Unpadded::encode_string(part).into_bytes()));
    forms
}

/// What stands in all files of a directory, but for the empty room that etcd keeps.
fn everything_in(directory: &std::path::Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let content = if path.is_dir() { everything_in(&path) } else { std::fs::read(path).unwrap() };
        for chunk in content.chunks(4096).filter(|chunk| chunk.iter().any(|&byte| byte != 0)) {
            bytes.extend_from_slice(chunk);
        }
    }
    bytes
}

/// Which of the forms stand somewhere. All are at least eight bytes long.
fn found(dump: &[u8], forms: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut heads: HashMap<&[u8], Vec<&Vec<u8>>> = HashMap::new();
    forms.iter().for_each(|form| heads.entry(&form[..8]).or_default().push(form));
    let begin = |at: usize| heads.get(&dump[at..at + 8]).into_iter().flatten().map(move |form| (at, form));
    let hits = (0..=dump.len() - 8).flat_map(begin).filter(|(at, form)| dump[*at..].starts_with(form));
    hits.map(|(_, form)| form.to_vec()).collect()
}

#[test]
#[ignore = "needs Debian's etcd-server"]
fn no_key_of_an_sa_stands_in_etcd_in_any_form_needs_etcd() {
    let mut place = Etcd::new("dump");
    let mut client = place.client(1);
    let registration = Registration { me: MemberId(1), senders: 2, patience: PATIENCE };
    let started = client.register(registration).unwrap();
    let seen = OwnerSeen::read(dvipa(), &ask(&mut client, &ask_owner(1, dvipa()))).unwrap();
    let claim = Claim::new(dvipa(), MemberId(1), started.incarnation, seen);
    let Ok(Claimed::Owned(fence)) = claim.judge(&ask(&mut client, &claim.request(2))) else { panic!("not ours") };
    let wrap: [u8; 32] = std::array::from_fn(|at| (at as u8).wrapping_mul(37).wrapping_add(11));
    let mut sealer = Sealer::new(&WrapKey::new(&wrap), started.fresh).unwrap();
    for number in 0x1000..0x1020 {
        let record = sealer.seal(&shadow::shadow(number), number.into()).unwrap();
        let birth = CreateSa { fence, spi: Spi::new(number).unwrap(), record, mark: 0 };
        assert!(matches!(birth.judge(&ask(&mut client, &birth.request(3))), Ok(Created::Made(_))));
    }
    // What is looked for is found where it stands: the search can fail.
    let planted = [0x5a, 1, 2, 3, 0xc4, 5, 6, 7, 8, 0x99, 10, 11];
    let value = Base64Unpadded::encode_string(&planted).into_bytes();
    let change = vec![Change::Put("planted".into(), value)];
    ask(&mut client, &Request { id: 4, compare: vec![], change, read: vec![] });
    drop(client);
    place.server.end();
    let dump = [everything_in(&place.data()), everything_in(&place.directory.join("appliance-1"))].concat();
    assert!(!found(&dump, &[b"sa/203.0.113.80/00001000".to_vec()]).is_empty(), "the records are there");
    assert!(!found(&dump, &forms(&planted)).is_empty(), "what is planted is found");
    let keys = shadow::KEYMATS.iter().map(|key| key.as_slice()).chain([wrap.as_slice()]);
    let secret: Vec<Vec<u8>> = keys.flat_map(forms).chain([b"the peer".to_vec()]).collect();
    assert_eq!(found(&dump, &secret), Vec::<Vec<u8>>::new());
}
