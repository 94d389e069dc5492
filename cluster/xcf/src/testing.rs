//! A cluster's certificates and sessions for tests.

use std::sync::{Arc, LazyLock};

use cluster::id::{Incarnation, MemberId};

use crate::pki::{Authority, Issued, Validity};
use crate::{Identity, Name, Part, PartMember, PemFile, Session, SessionEvent, Versions};

pub(crate) const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;
pub(crate) const VALID: Validity = Validity { from_unix_seconds: NOW - DAY, until_unix_seconds: NOW + 30 * DAY };

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// An authority with its certificate.
pub(crate) struct TestAuthority {
    pub issued: Issued,
    pub authority: Authority,
}

impl TestAuthority {
    pub fn new(cluster: &str) -> TestAuthority {
        let validity =
            Validity { from_unix_seconds: NOW - 400 * DAY, until_unix_seconds: VALID.until_unix_seconds + 400 * DAY };
        let issued = Authority::generate(&name(cluster), validity).unwrap();
        let authority = Authority::from_pem(issued.certificate_pem.as_bytes(), issued.key_pem.as_bytes()).unwrap();
        TestAuthority { issued, authority }
    }

    /// An identity that believes `believed`.
    pub fn identity_believing(&self, member: &str, validity: Validity, believed: &TestAuthority) -> Arc<Identity> {
        let issued = self.authority.issue(&name(member), validity).unwrap();
        Arc::new(identity(&believed.issued.certificate_pem, &issued.certificate_pem, &issued.key_pem).unwrap())
    }

    pub fn identity(&self, member: &str) -> Arc<Identity> {
        self.identity_believing(member, VALID, self)
    }
}

pub(crate) fn identity(authority: &str, certificate: &str, key: &str) -> Result<Identity, crate::IdentityError> {
    let file = |path, contents: &'static str| PemFile { path, contents: contents.as_bytes() };
    let leak = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    Identity::from_pem(
        file("ca.pem", leak(authority)),
        file("member.pem", leak(certificate)),
        file("member.key", leak(key)),
    )
}

/// The cluster `east` with members `a` (1), `b` (2), `c` (3).
pub(crate) static EAST: LazyLock<TestAuthority> = LazyLock::new(|| TestAuthority::new("east"));

pub(crate) fn members() -> Vec<PartMember> {
    ["a", "b", "c"].iter().zip(1..).map(|(text, id)| PartMember { id: MemberId(id), name: name(text) }).collect()
}

pub(crate) const VERSIONS: Versions = Versions { min: 1, max: 1 };

pub(crate) fn part_with(identity: Arc<Identity>, me: u16, versions: Versions) -> Arc<Part> {
    let cluster = identity.cluster().clone();
    Arc::new(Part::new(identity, cluster, MemberId(me), Incarnation(100), versions, members()).unwrap())
}

pub(crate) fn part(me: u16) -> Arc<Part> {
    part_with(EAST.identity(members()[usize::from(me) - 1].name.as_str()), me, VERSIONS)
}

/// Two sessions joined in memory: the dialler, and who was dialled.
pub(crate) struct Pair {
    pub client: Session,
    pub server: Session,
    pub client_events: Vec<SessionEvent>,
    pub server_events: Vec<SessionEvent>,
}

impl Pair {
    /// Member 1 dials member 2.
    pub fn new(client: &Arc<Part>, server: &Arc<Part>) -> Pair {
        Pair {
            client: Session::client(NOW, client, &name("b")).unwrap(),
            server: Session::server(NOW, server).unwrap(),
            client_events: Vec::new(),
            server_events: Vec::new(),
        }
    }

    /// Carries bytes both ways until nobody has any.
    pub fn run(&mut self) {
        loop {
            let (to_server, to_client) = (output(&mut self.client), output(&mut self.server));
            self.server.handle_input(&to_server);
            self.client.handle_input(&to_client);
            self.client_events.extend(core::iter::from_fn(|| self.client.poll_event()));
            self.server_events.extend(core::iter::from_fn(|| self.server.poll_event()));
            if to_server.is_empty() && to_client.is_empty() {
                return;
            }
        }
    }

    /// Two members of one cluster, established.
    pub fn established() -> Pair {
        let mut pair = Pair::new(&part(1), &part(2));
        pair.run();
        assert!(matches!(pair.client_events[..], [SessionEvent::Established { .. }]), "{:?}", pair.client_events);
        assert!(matches!(pair.server_events[..], [SessionEvent::Established { .. }]), "{:?}", pair.server_events);
        pair
    }
}

/// All that a session has to send.
pub(crate) fn output(session: &mut Session) -> Vec<u8> {
    let mut output = Vec::new();
    while session.poll_output(&mut output, 16 << 10) {}
    output
}

/// A part that says to be of `believed`'s cluster and shows a certificate of another.
pub(crate) fn part_claiming(issuer: &Authority, believed: &TestAuthority, member: &str, me: u16) -> Arc<Part> {
    let issued = issuer.issue(&name(member), VALID).unwrap();
    let shown = identity(&believed.issued.certificate_pem, &issued.certificate_pem, &issued.key_pem).unwrap();
    let honest = part(me);
    Arc::new(Part::unchecked(Arc::new(shown), &honest))
}
