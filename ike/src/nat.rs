//! NAT detection (RFC 7296 §2.23).

use core::net::{IpAddr, SocketAddr};

use ring::digest;

use crate::message::payload::{Notify, NotifyKind, Payload};
use crate::message::{Body, PayloadChain, Spis};

/// What is known about NATs between us and a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Nat {
    /// We are behind one.
    pub(crate) ours: bool,
    /// The peer is, or says so to have its ESP in UDP.
    pub(crate) theirs: bool,
}

impl Nat {
    pub(crate) fn is_between(self) -> bool {
        self.ours || self.theirs
    }
}

/// SHA-1 of SPIs, address and port: an identifier, nothing that security rests upon.
fn hash(spis: Spis, address: SocketAddr) -> [u8; 20] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(&spis.initiator.to_bytes());
    context.update(&spis.responder.to_bytes());
    match address.ip() {
        IpAddr::V4(address) => context.update(&address.octets()),
        IpAddr::V6(address) => context.update(&address.octets()),
    }
    context.update(&address.port().to_be_bytes());
    let mut hash = [0; 20];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Appends the two notifications of a message with these SPIs that goes from `local` to `remote`.
pub(crate) fn announce(chain: &mut PayloadChain, spis: Spis, local: SocketAddr, remote: SocketAddr) {
    for (kind, address) in
        [(NotifyKind::NAT_DETECTION_SOURCE_IP, local), (NotifyKind::NAT_DETECTION_DESTINATION_IP, remote)]
    {
        chain.push(&Payload::Notify(Notify::new(kind, &hash(spis, address))));
    }
}

/// What the notifications of a received message say. A peer that sends none of a kind does not traverse NATs.
pub(crate) fn detect(body: &Body<'_>, spis: Spis, local: SocketAddr, remote: SocketAddr) -> Nat {
    let differs = |kind, address| {
        let mut said = body.notifies.iter().filter(|notify| notify.kind == kind).peekable();
        said.peek().is_some() && said.all(|notify| notify.data != hash(spis, address))
    };
    Nat {
        ours: differs(NotifyKind::NAT_DETECTION_DESTINATION_IP, local),
        theirs: differs(NotifyKind::NAT_DETECTION_SOURCE_IP, remote),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::IkeSpi;

    const SPIS: Spis = Spis { initiator: IkeSpi::new(1), responder: IkeSpi::NONE };

    fn seen(sent: (&str, &str), received: (&str, &str)) -> Nat {
        let mut chain = PayloadChain::new();
        announce(&mut chain, SPIS, sent.0.parse().unwrap(), sent.1.parse().unwrap());
        let body = Body::parse(chain.first(), chain.bytes()).unwrap();
        detect(&body, SPIS, received.1.parse().unwrap(), received.0.parse().unwrap())
    }

    #[test]
    fn addresses_and_ports_that_changed_on_the_way_are_seen() {
        let direct = ("192.0.2.1:500", "192.0.2.2:500");
        assert_eq!(seen(direct, direct), Nat::default());
        assert_eq!(seen(direct, ("192.0.2.9:500", "192.0.2.2:500")), Nat { ours: false, theirs: true });
        assert_eq!(seen(direct, ("192.0.2.1:1024", "192.0.2.2:500")), Nat { ours: false, theirs: true });
        assert_eq!(seen(direct, ("192.0.2.1:500", "10.0.0.2:500")), Nat { ours: true, theirs: false });
        let six = ("[2001:db8::1]:500", "[2001:db8::2]:500");
        assert_eq!(seen(six, six), Nat::default());
    }

    #[test]
    fn several_source_hashes_may_be_offered_and_none_at_all_means_no_traversal() {
        let (here, there): (SocketAddr, SocketAddr) =
            ("192.0.2.1:500".parse().unwrap(), "192.0.2.2:500".parse().unwrap());
        let hashes = [[0; 20], hash(SPIS, there)];
        let mut chain = PayloadChain::new();
        for hash in &hashes {
            chain.push(&Payload::Notify(Notify::new(NotifyKind::NAT_DETECTION_SOURCE_IP, hash)));
        }
        let body = Body::parse(chain.first(), chain.bytes()).unwrap();
        assert_eq!(detect(&body, SPIS, here, there), Nat::default());
        assert_eq!(detect(&Body::default(), SPIS, here, there), Nat::default());
    }
}
