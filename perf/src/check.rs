//! Whether the core did with one round of packets what it had to, byte for byte.
//!
//! Nothing of our own ESP code judges here: the ESP packets are taken apart by hand and opened with ring.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipsec::sa::Direction;
use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use wire::{ipv4, protocol};

use crate::fault::Fault;
use crate::lab::{
    CIPHER, Case, DVIPA, INSIDE_MAC, NETWORK_MAC, ROUTER_MAC, Sample, TTL, WEB_MAC, ether, keymat, outer_address,
    spi_out,
};

const ETHERNET_LEN: usize = 14;
const ESP_HEADER_LEN: usize = 8;
const IV_LEN: usize = 8;
const NEXT_HEADER_IPV4: u8 = 4;

/// Compares what was sent with what had to be sent, in order.
///
/// # Errors
/// [`Fault::Mismatch`], naming the first packet that is wrong.
pub fn check(bench: &str, case: &Case, round: &[Sample], sent: &[Vec<u8>]) -> Result<(), Fault> {
    let mut clients = Clients::default();
    for (packet, sample) in round.iter().enumerate() {
        let found = sent.get(packet).ok_or_else(|| "it was not sent".to_owned());
        let verdict = found.and_then(|frame| match case.direction {
            Direction::Inbound => equal("the frame", frame, &ether(INSIDE_MAC, WEB_MAC, &a_hop_later(&sample.inner))),
            Direction::Outbound => clients.accept(sample, frame),
        });
        verdict.map_err(|what| Fault::Mismatch { bench: bench.to_owned(), packet, what })?;
    }
    if sent.len() == round.len() {
        return Ok(());
    }
    let what = format!("{} frames were sent for {} packets", sent.len(), round.len());
    Err(Fault::Mismatch { bench: bench.to_owned(), packet: round.len(), what })
}

/// What a router makes of a packet, its checksum summed up anew.
fn a_hop_later(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let mut view = ipv4::Packet::new_unchecked(&mut packet[..]);
    view.set_ttl(TTL - 1);
    view.fill_checksum();
    packet
}

/// The clients: which numbers and IVs each has seen.
#[derive(Default)]
struct Clients {
    last_sequence: BTreeMap<usize, u32>,
    ivs: BTreeSet<(usize, [u8; IV_LEN])>,
}

impl Clients {
    fn accept(&mut self, sample: &Sample, frame: &[u8]) -> Result<(), String> {
        let expected_start = ether(NETWORK_MAC, ROUTER_MAC, &[]);
        let (start, packet) = frame.split_at_checked(ETHERNET_LEN).ok_or("no whole Ethernet header")?;
        equal("the Ethernet header", start, &expected_start)?;
        let (outer, esp) = packet.split_at_checked(ipv4::HEADER_LEN).ok_or("no whole outer header")?;
        let (header, iv, sealed) = esp_parts(esp).ok_or("ESP is truncated")?;
        let spi_expected = spi_out(sample.sa).to_be_bytes();
        equal("the SPI", &header[..4], &spi_expected)?;
        let sequence = self.note(sample.sa, header, iv)?;
        let outer_expected = outer_header(outer_address(sample.sa), &sample.inner, sequence, esp.len());
        equal("the outer header", outer, &outer_expected)?;
        let plain = open(spi_out(sample.sa), header, iv, sealed)?;
        equal("the inner packet", inner_of(&plain)?, &a_hop_later(&sample.inner))
    }

    /// The sequence number, if it and the IV are new.
    fn note(&mut self, sa: usize, header: [u8; ESP_HEADER_LEN], iv: [u8; IV_LEN]) -> Result<u32, String> {
        let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
        let last = self.last_sequence.insert(sa, sequence).unwrap_or(0);
        if sequence <= last {
            return Err(format!("sequence number {sequence} after {last}"));
        }
        if !self.ivs.insert((sa, iv)) {
            return Err(format!("the IV {iv:02x?} a second time"));
        }
        Ok(sequence)
    }
}

/// The outer IPv4 header around this inner packet, every byte of it: differentiated services, congestion mark and
/// don't-fragment are the inner packet's (RFC 4301 §5.1.2.1, RFC 6040 §4.1), and the identification is the low half of
/// the sequence number, so that two fragmented packets of an SA that share one are 65,536 packets apart.
fn outer_header(remote: Ipv4Addr, inner: &[u8], sequence: u32, payload_len: usize) -> Vec<u8> {
    let inner = ipv4::Packet::new_unchecked(inner);
    let header = ipv4::Repr {
        src: DVIPA,
        dst: remote,
        protocol: protocol::ESP,
        dscp: inner.dscp(),
        ecn: inner.ecn(),
        identification: sequence as u16,
        dont_fragment: inner.dont_fragment(),
        more_fragments: false,
        fragment_offset: 0,
        ttl: 64,
        payload_len,
    };
    let mut bytes = vec![0; ipv4::HEADER_LEN];
    header.emit(&mut ipv4::Packet::new_unchecked(&mut bytes[..]));
    bytes
}

/// SPI and number, IV, ciphertext with ICV.
fn esp_parts(esp: &[u8]) -> Option<([u8; ESP_HEADER_LEN], [u8; IV_LEN], &[u8])> {
    let (header, rest) = esp.split_first_chunk()?;
    let (iv, sealed) = rest.split_first_chunk()?;
    Some((*header, *iv, sealed))
}

/// RFC 4106: nonce = salt ‖ IV, additional data = SPI ‖ sequence number.
fn open(spi: u32, header: [u8; ESP_HEADER_LEN], iv: [u8; IV_LEN], sealed: &[u8]) -> Result<Vec<u8>, String> {
    let keymat = keymat(spi);
    let (key, salt) = keymat.split_at(CIPHER.key_len());
    let key = UnboundKey::new(&aead::AES_128_GCM, key).map_err(|_| "the key does not fit")?;
    let nonce = Nonce::try_assume_unique_for_key(&[salt, &iv].concat()).map_err(|_| "the nonce does not fit")?;
    let mut bytes = sealed.to_vec();
    let opened = LessSafeKey::new(key).open_in_place(nonce, Aad::from(header), &mut bytes);
    Ok(opened.map_err(|_| "the client cannot authenticate it")?.to_vec())
}

/// RFC 4303 §2.4–2.6: the payload before padding 1, 2, 3…, its length and the next header.
fn inner_of(plain: &[u8]) -> Result<&[u8], String> {
    let (rest, &[pad_len, next_header]) = plain.split_last_chunk().ok_or("no trailer")?;
    if next_header != NEXT_HEADER_IPV4 || !plain.len().is_multiple_of(4) {
        return Err(format!("next header {next_header}, {} bytes of plaintext", plain.len()));
    }
    let payload_len = rest.len().checked_sub(pad_len.into()).ok_or("more padding than packet")?;
    let (payload, padding) = rest.split_at(payload_len);
    if padding.iter().zip(1_u8..).any(|(&found, expected)| found != expected) {
        return Err(format!("padding {padding:02x?}"));
    }
    Ok(payload)
}

fn equal(what: &str, found: &[u8], expected: &[u8]) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    let place = found.iter().zip(expected).position(|(found, expected)| found != expected);
    let place = place.unwrap_or(found.len().min(expected.len()));
    Err(format!("{what} ({} bytes, expected {}) differs from byte {place} on", found.len(), expected.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipsec::engine::{EngineChoice, select};
    use ipsec::iv::{IvGenerator, SenderNumber};
    use ipsec::outbound::{OutboundSa, OuterPolicy};

    fn case(direction: Direction) -> Case {
        Case { direction, size_bytes: 64, sas: 2, replay_window_packets: 128 }
    }

    fn round(direction: Direction) -> Vec<Sample> {
        case(direction).round(select(EngineChoice::Auto).unwrap().engine).unwrap()
    }

    fn delivered(round: &[Sample]) -> Vec<Vec<u8>> {
        round.iter().map(|sample| ether(INSIDE_MAC, WEB_MAC, &a_hop_later(&sample.inner))).collect()
    }

    #[test]
    fn what_is_right_is_accepted_and_any_changed_byte_is_not() {
        let round = round(Direction::Inbound);
        let case = case(Direction::Inbound);
        let sent = delivered(&round);
        check("in", &case, &round, &sent).unwrap();
        for at in 0..sent[5].len() {
            let mut damaged = sent.clone();
            damaged[5][at] ^= 1;
            let fault = check("in", &case, &round, &damaged).unwrap_err();
            assert!(matches!(fault, Fault::Mismatch { packet: 5, .. }), "byte {at}: {fault}");
        }
    }

    /// A round as the appliance sends it, in ESP.
    fn sealed(case: &Case, round: &[Sample]) -> Vec<Vec<u8>> {
        let engine = select(EngineChoice::Auto).unwrap().engine;
        let end = |sa| OutboundSa::new(case.appliance_outbound(sa, engine).unwrap(), 1, OuterPolicy::default());
        let mut sas: Vec<OutboundSa> = (0..case.sas).map(end).collect();
        let mut ivs = IvGenerator::new(SenderNumber(7));
        let mut seal = |sample: &Sample| {
            let (sa, inner) = (&mut sas[sample.sa], a_hop_later(&sample.inner));
            let room = sa.shared().overhead(inner.len());
            let mut packet = [vec![0; room.before], inner.clone(), vec![0; room.after]].concat();
            let _sealed = sa.encapsulate(&mut ivs, &mut packet, inner.len()).unwrap();
            ether(NETWORK_MAC, ROUTER_MAC, &packet)
        };
        round.iter().map(&mut seal).collect()
    }

    #[test]
    fn no_byte_of_a_sealed_frame_may_differ() {
        let (case, round) = (case(Direction::Outbound), round(Direction::Outbound));
        let sent = sealed(&case, &round);
        check("out", &case, &round, &sent).unwrap();
        for at in 0..sent[5].len() {
            let mut damaged = sent.clone();
            damaged[5][at] ^= 1;
            let fault = check("out", &case, &round, &damaged).unwrap_err();
            assert!(matches!(fault, Fault::Mismatch { packet: 5, .. }), "byte {at}: {fault}");
        }
    }

    #[test]
    fn what_an_outer_header_takes_over_differs_from_packet_to_packet() {
        let (case, round) = (case(Direction::Outbound), round(Direction::Outbound));
        let sent = sealed(&case, &round);
        let kinds = |at: usize, mask: u8| sent.iter().map(|frame| frame[at] & mask).collect::<BTreeSet<_>>().len();
        assert_eq!(kinds(ETHERNET_LEN + 1, 0xfc), 3, "differentiated services");
        assert_eq!(kinds(ETHERNET_LEN + 1, 0x03), 4, "congestion marks");
        assert_eq!(kinds(ETHERNET_LEN + 6, 0x40), 2, "don't fragment");
    }

    #[test]
    fn a_missing_a_doubled_and_an_extra_packet_are_found() {
        let round = round(Direction::Inbound);
        let (case, sent) = (case(Direction::Inbound), delivered(&round));
        let refused = |sent: &[Vec<u8>]| matches!(check("in", &case, &round, sent), Err(Fault::Mismatch { .. }));
        assert!(refused(&sent[1..]));
        assert!(refused(&sent[..sent.len() - 1]));
        assert!(refused(&[&sent[..], &sent[..1]].concat()));
    }

    #[test]
    fn a_number_or_an_iv_that_comes_again_is_found() {
        let mut clients = Clients::default();
        let header = |sequence: u32| {
            let mut header = [0; ESP_HEADER_LEN];
            header[4..].copy_from_slice(&sequence.to_be_bytes());
            header
        };
        clients.note(0, header(7), [1; IV_LEN]).unwrap();
        assert!(clients.note(0, header(7), [2; IV_LEN]).is_err(), "the number");
        assert!(clients.note(0, header(8), [1; IV_LEN]).is_err(), "the IV");
        clients.note(1, header(7), [1; IV_LEN]).unwrap();
    }
}
