//! The IKEv2 codec: headers and payloads that are read are written again to the same value.

#![no_main]

use ike::message::payload::{Payload, PayloadKind, RawPayloads};
use ike::message::{Body, HEADER_LEN, Header, PayloadChain};
use libfuzzer_sys::fuzz_target;
use phalanx_fuzz::assert_within;

fuzz_target!(|data: &[u8]| {
    let Some((head, payloads)) = data.split_at_checked(HEADER_LEN) else {
        assert!(Header::parse(data).is_err());
        return;
    };
    // Most inputs would die of a wrong version or length; those two are tried as they are and then put right.
    let _ = Header::parse(data);
    let mut datagram = [head, payloads].concat();
    datagram[17] = 0x20 | datagram[17] & 0x0f;
    datagram[24..28].copy_from_slice(&(data.len() as u32).to_be_bytes());
    let header = Header::parse(&datagram).expect("version and length are right");
    check_header(&datagram, &header);
    check_links(header.next_payload, payloads);
    check_body(header, payloads);
});

fn check_header(datagram: &[u8], header: &Header) {
    let mut again = Vec::new();
    header.emit(datagram.len() as u32, &mut again);
    assert_eq!(again.len(), HEADER_LEN);
    // Reserved flags, the version flag and the minor version are ignored, so they are not written again.
    datagram[..HEADER_LEN].iter().zip(&again).enumerate().for_each(|(at, (was, is))| match at {
        17 => assert_eq!(*is, 0x20),
        19 => assert_eq!(*is, was & 0x28),
        _ => assert_eq!(is, was),
    });
    again.extend_from_slice(&datagram[HEADER_LEN..]);
    assert_eq!(Header::parse(&again).as_ref(), Ok(header));
}

/// Link by link: lengths stay inside, and every payload that is understood is written again.
fn check_links(first: u8, bytes: &[u8]) {
    let mut used = 0;
    let mut is_broken = false;
    for link in RawPayloads::new(first, bytes) {
        assert!(!is_broken, "the walk went on behind a fault");
        let Ok(link) = link else {
            is_broken = true;
            continue;
        };
        assert_within(bytes, link.body);
        used += 4 + link.body.len();
        if let Ok(payload) = Payload::parse(link.kind, link.body) {
            check_payload(link.kind, &payload);
        }
    }
    assert!(is_broken || used == bytes.len(), "bytes were left over");
}

fn check_payload(kind: PayloadKind, payload: &Payload<'_>) {
    assert_eq!(payload.kind(), kind);
    // Attributes that we do not know only mark their transform; they are not kept.
    if let Payload::Sa(sa) = payload {
        if sa.proposals.iter().flat_map(|proposal| &proposal.transforms).any(|transform| transform.odd) {
            return;
        }
    }
    let mut again = Vec::new();
    payload.emit(&mut again);
    assert_eq!(Payload::parse(kind, &again).as_ref(), Ok(payload));
}

/// The whole chain: what may stand once stands once, and a message made of what was read reads the same.
fn check_body(header: Header, bytes: &[u8]) {
    let Ok(body) = Body::parse(header.next_payload, bytes) else { return };
    let mut chain = PayloadChain::new();
    for link in RawPayloads::new(header.next_payload, bytes) {
        let link = link.expect("the body was read from these links");
        if link.kind.is_encrypted() {
            // What is inside is named by a number of its own, which a chain in clear cannot carry.
            assert!(body.encrypted.is_some());
            return;
        }
        chain.push(&Payload::Opaque { kind: link.kind, body: link.body });
    }
    assert!(body.encrypted.is_none());
    let message = chain.into_message(header);
    let again = Header::parse(&message).expect("an emitted message is one");
    assert_eq!(Body::parse(again.next_payload, &message[HEADER_LEN..]), Ok(body));
}
