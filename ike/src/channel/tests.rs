use super::*;
use crate::crypto::kex::Kex;
use crate::crypto::keys::Nonces;
use crate::crypto::prf::Prf;
use crate::message::payload::Payload;
use crate::message::{ExchangeType, IkeSpi, Spis};
use ipsec::cipher::Cipher;

const SPIS: Spis = Spis { initiator: IkeSpi::new(1), responder: IkeSpi::new(2) };
const NOW: Instant = Instant::from_secs(1);

fn pair(fragmentation: bool) -> (Channel, Channel) {
    let suite = IkeSuite { cipher: Cipher::AesGcm128, prf: Prf::HmacSha256, kex: Kex::X25519 };
    let nonces = Nonces { initiator: vec![1; 32], responder: vec![2; 32] };
    let keys = IkeKeys::derive(suite, &crate::crypto::Secret::new(vec![3; 32]), &nonces, SPIS);
    let channel = |role| Channel::new(role, suite, &keys, 0, fragmentation);
    (channel(Role::Initiator), channel(Role::Responder))
}

fn header() -> Header {
    Header {
        spis: SPIS,
        next_payload: 0,
        exchange: ExchangeType::Informational,
        from_initiator: true,
        is_response: false,
        message_id: 4,
    }
}

fn chain(octets: usize) -> PayloadChain {
    let body = vec![0x5a; octets];
    let vendor = Payload::Opaque { kind: PayloadKind::VendorId, body: &body };
    PayloadChain::new().with(&Payload::Nonce(&[9; 16])).with(&vendor)
}

fn open(channel: &mut Channel, datagram: &[u8]) -> Result<Opened, OpenError> {
    let header = Header::parse(datagram).unwrap();
    channel.open(NOW, &header, datagram, &Limits::default())
}

#[test]
fn short_messages_travel_whole_and_long_ones_in_fragments() {
    for (octets, fragments) in [(0, 1), (1_000, 1), (1_140, 1), (1_200, 2), (5_000, 5)] {
        let (mut ours, mut theirs) = pair(true);
        let wire = ours.seal(header(), &chain(octets), &Limits::default()).unwrap().parts;
        assert_eq!(wire.len(), fragments, "{octets}");
        assert!(wire.iter().all(|datagram| datagram.len() <= Limits::default().message_bytes));
        let (last, others) = wire.split_last().unwrap();
        for datagram in others {
            assert_eq!(open(&mut theirs, datagram).unwrap_err(), OpenError::Incomplete);
        }
        let opened = open(&mut theirs, last).unwrap();
        assert_eq!(opened.body().unwrap().nonce, Some(&[9; 16][..]));
        assert_eq!(opened.digest(), digest_of(&wire[0]));
        assert_eq!(theirs.waiting_octets(), 0);
    }
}

#[test]
fn without_agreement_nothing_is_fragmented_and_no_fragment_taken() {
    let (mut plain, _) = pair(false);
    assert_eq!(plain.seal(header(), &chain(5_000), &Limits::default()).unwrap().parts.len(), 1);
    let (mut ours, _) = pair(true);
    let (_, mut theirs) = pair(false);
    let wire = ours.seal(header(), &chain(5_000), &Limits::default()).unwrap().parts;
    assert_eq!(open(&mut theirs, &wire[0]).unwrap_err(), OpenError::NotEncrypted);
}

#[test]
fn hostile_19_a_fragment_is_authenticated_before_it_is_kept() {
    let (mut ours, mut theirs) = pair(true);
    let wire = ours.seal(header(), &chain(3_000), &Limits::default()).unwrap().parts;
    for at in 0..wire[0].len() {
        let mut forged = wire[0].clone();
        forged[at] ^= 1;
        // What changes the framing may be refused for that; nothing may be kept.
        if let Ok(header) = Header::parse(&forged) {
            assert!(theirs.open(NOW, &header, &forged, &Limits::default()).is_err());
        }
        assert_eq!(theirs.waiting_octets(), 0, "octet {at}");
    }
}

#[test]
fn hostile_19_fragment_numbers_that_make_no_sense_are_refused() {
    let (mut ours, mut theirs) = pair(true);
    for fragment in [(0, 0), (0, 2), (3, 2)] {
        let datagram = ours.seal_part(header(), 40, Some(fragment), &[1, 2, 3]).unwrap();
        assert!(matches!(open(&mut theirs, &datagram), Err(OpenError::Malformed(_))), "{fragment:?}");
    }
    assert_eq!(theirs.waiting_octets(), 0);
}

#[test]
fn hostile_19_a_whole_message_between_fragments_does_not_mix_with_them() {
    let (mut ours, mut theirs) = pair(true);
    let wire = ours.seal(header(), &chain(1_500), &Limits::default()).unwrap().parts;
    assert_eq!(open(&mut theirs, &wire[0]).unwrap_err(), OpenError::Incomplete);
    let whole = ours.seal(header(), &chain(0), &Limits::default()).unwrap().parts;
    assert!(open(&mut theirs, &whole[0]).unwrap().body().is_ok());
    assert!(open(&mut theirs, &wire[1]).unwrap().body().is_ok());
}

#[test]
fn hostile_19_fragments_of_a_request_and_of_a_response_never_make_one_message() {
    let (mut ours, mut theirs) = pair(true);
    let limits = Limits::default();
    let request = ours.seal(header(), &chain(1_500), &limits).unwrap().parts;
    let response = ours.seal(Header { is_response: true, ..header() }, &chain(1_600), &limits).unwrap().parts;
    let other = Header { exchange: ExchangeType::CreateChildSa, ..header() };
    let other = ours.seal(other, &chain(1_500), &limits).unwrap().parts;
    assert_eq!((request.len(), response.len(), other.len()), (2, 2, 2));
    assert_eq!(open(&mut theirs, &request[0]).unwrap_err(), OpenError::Incomplete);
    assert_eq!(open(&mut theirs, &response[1]).unwrap_err(), OpenError::Incomplete);
    // Nor do they drive each other out: both sides may be asking at once.
    assert_eq!(open(&mut theirs, &request[1]).unwrap().digest(), digest_of(&request[0]));
    assert!(theirs.waiting_octets() > 0 && theirs.next_timeout().is_some());
    assert_eq!(open(&mut theirs, &response[0]).unwrap().digest(), digest_of(&response[0]));
    assert_eq!((theirs.waiting_octets(), theirs.next_timeout()), (0, None));
    // One exchange is not another, under whatever number.
    assert_eq!(open(&mut theirs, &request[0]).unwrap_err(), OpenError::Incomplete);
    assert_eq!(open(&mut theirs, &other[1]).unwrap_err(), OpenError::Incomplete);
    // And what is left of either is forgotten in time.
    assert_eq!(open(&mut theirs, &response[1]).unwrap_err(), OpenError::Incomplete);
    theirs.on_time(theirs.next_timeout().unwrap());
    assert_eq!((theirs.waiting_octets(), theirs.next_timeout()), (0, None));
}

#[test]
fn padding_longer_than_the_content_is_malformed_not_forged() {
    let (mut ours, mut theirs) = pair(false);
    let mut message = ours.seal(header(), &chain(0), &Limits::default()).unwrap().parts.remove(0);
    assert!(open(&mut theirs, &message).unwrap().body().is_ok());
    message.truncate(HEADER_LEN + SK_HEADER_LEN);
    let length = (message.len() + IV_LEN + 3 + ICV_LEN) as u32;
    message[24..28].copy_from_slice(&length.to_be_bytes());
    let payload_len = (SK_HEADER_LEN + IV_LEN + 3 + ICV_LEN) as u16;
    message[HEADER_LEN + 2..HEADER_LEN + 4].copy_from_slice(&payload_len.to_be_bytes());
    let sealed = ours.sealer.seal(&message, vec![0, 0, 200]).unwrap();
    message.extend_from_slice(&sealed);
    let opened = open(&mut theirs, &message).unwrap();
    assert_eq!(opened.body().unwrap_err(), Malformed::Encrypted("padding longer than the content"));
}
