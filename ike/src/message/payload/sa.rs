//! Security association payloads: proposals and their transforms (RFC 7296 §3.3).

use core::fmt;

use super::PayloadKind;
use crate::error::Malformed;

/// No honest peer sends more than this; what comes after is walked but not kept.
const PROPOSALS_MAX: usize = 64;
/// Over all proposals of one payload.
const TRANSFORMS_MAX: usize = 512;

const KEY_LENGTH_ATTRIBUTE: u16 = 14;
const ATTRIBUTE_SHORT: u16 = 0x8000;

/// Which protocol a proposal, notify or delete payload is about.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProtocolId(pub u8);

impl ProtocolId {
    /// None.
    pub const NONE: ProtocolId = ProtocolId(0);
    /// IKE.
    pub const IKE: ProtocolId = ProtocolId(1);
    /// AH.
    pub const AH: ProtocolId = ProtocolId(2);
    /// ESP.
    pub const ESP: ProtocolId = ProtocolId(3);
}

impl fmt::Display for ProtocolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            ProtocolId::IKE => f.write_str("IKE"),
            ProtocolId::AH => f.write_str("AH"),
            ProtocolId::ESP => f.write_str("ESP"),
            ProtocolId(number) => write!(f, "protocol {number}"),
        }
    }
}

/// What a transform is for (RFC 7296 §3.3.2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TransformKind(pub u8);

impl TransformKind {
    /// Encryption.
    pub const ENCRYPTION: TransformKind = TransformKind(1);
    /// Pseudorandom function.
    pub const PRF: TransformKind = TransformKind(2);
    /// Integrity.
    pub const INTEGRITY: TransformKind = TransformKind(3);
    /// Key exchange method.
    pub const KEY_EXCHANGE: TransformKind = TransformKind(4);
    /// Extended sequence numbers.
    pub const ESN: TransformKind = TransformKind(5);
}

/// One algorithm that is offered or chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transform {
    /// What for.
    pub kind: TransformKind,
    /// Which.
    pub id: u16,
    /// The key length attribute, in bits.
    pub key_bits: Option<u16>,
    /// Carries an attribute that we do not know (or the known one twice, or in a form it does not have): such a
    /// transform is never chosen (RFC 7296 §3.3.6).
    pub odd: bool,
}

impl Transform {
    /// A transform without attributes.
    #[must_use]
    pub const fn new(kind: TransformKind, id: u16) -> Transform {
        Transform { kind, id, key_bits: None, odd: false }
    }

    /// A transform with a key length.
    #[must_use]
    pub const fn with_key_bits(kind: TransformKind, id: u16, key_bits: u16) -> Transform {
        Transform { kind, id, key_bits: Some(key_bits), odd: false }
    }
}

/// One proposal: a choice of one transform of each kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Proposal<'a> {
    /// Its number, to be echoed when it is chosen.
    pub number: u8,
    /// The protocol that it is about.
    pub protocol: ProtocolId,
    /// The SPI that its sender would receive on; empty in IKE_SA_INIT.
    pub spi: &'a [u8],
    /// What may be chosen from.
    pub transforms: Vec<Transform>,
}

/// A security association payload.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SaPayload<'a> {
    /// In the sender's order of preference.
    pub proposals: Vec<Proposal<'a>>,
}

const fn fault(fault: &'static str) -> Malformed {
    Malformed::Payload { kind: PayloadKind::Sa, fault }
}

/// Splits off a substructure: its "is there another one" octet and its content past the four octets of head.
fn split_substructure(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), Malformed> {
    let Some(&[more, _, high, low]) = bytes.first_chunk::<4>() else {
        return Err(fault("substructure shorter than its head"));
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length < 4 {
        return Err(fault("substructure length below its head"));
    }
    match bytes.split_at_checked(length) {
        Some((this, rest)) => Ok((more, &this[4..], rest)),
        None => Err(fault("substructure past the end")),
    }
}

impl<'a> SaPayload<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Result<SaPayload<'a>, Malformed> {
        let mut proposals = Vec::new();
        let mut room = TRANSFORMS_MAX;
        let mut rest = body;
        loop {
            let (more, content, after) = split_substructure(rest)?;
            let proposal = Proposal::parse(content, &mut room)?;
            if proposals.len() < PROPOSALS_MAX {
                proposals.push(proposal);
            }
            rest = after;
            match (more, rest.is_empty()) {
                (0, true) => return Ok(SaPayload { proposals }),
                (2, false) => {}
                (_, true) => return Err(fault("fewer proposals than it says")),
                (_, false) => return Err(fault("octets after the last proposal")),
            }
        }
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        for (index, proposal) in self.proposals.iter().enumerate() {
            let more = if index + 1 < self.proposals.len() { 2 } else { 0 };
            emit_substructure(more, out, |out| proposal.emit(out));
        }
    }
}

fn emit_substructure(more: u8, out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[more, 0, 0, 0]);
    content(out);
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    out[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
}

impl<'a> Proposal<'a> {
    fn parse(content: &'a [u8], room: &mut usize) -> Result<Proposal<'a>, Malformed> {
        let [number, protocol, spi_len, count, rest @ ..] = content else {
            return Err(fault("proposal shorter than its head"));
        };
        let Some((spi, mut rest)) = rest.split_at_checked(usize::from(*spi_len)) else {
            return Err(fault("SPI size past the end"));
        };
        let mut transforms = Vec::new();
        for index in 0..*count {
            let (more, content, after) = split_substructure(rest)?;
            if more != if index + 1 < *count { 3 } else { 0 } {
                return Err(fault("number of transforms and their marks disagree"));
            }
            let transform = Transform::parse(content)?;
            if let Some(left) = room.checked_sub(1) {
                *room = left;
                transforms.push(transform);
            }
            rest = after;
        }
        if !rest.is_empty() {
            return Err(fault("octets after the last transform"));
        }
        Ok(Proposal { number: *number, protocol: ProtocolId(*protocol), spi, transforms })
    }

    fn emit(&self, out: &mut Vec<u8>) {
        let spi_len = u8::try_from(self.spi.len()).unwrap_or(u8::MAX);
        let count = u8::try_from(self.transforms.len()).unwrap_or(u8::MAX);
        out.extend_from_slice(&[self.number, self.protocol.0, spi_len, count]);
        out.extend_from_slice(&self.spi[..usize::from(spi_len)]);
        for (index, transform) in self.transforms.iter().take(usize::from(count)).enumerate() {
            let more = if index + 1 < usize::from(count) { 3 } else { 0 };
            emit_substructure(more, out, |out| transform.emit(out));
        }
    }
}

impl Transform {
    fn parse(content: &[u8]) -> Result<Transform, Malformed> {
        let [kind, _, high, low, attributes @ ..] = content else {
            return Err(fault("transform shorter than its head"));
        };
        let mut transform = Transform::new(TransformKind(*kind), u16::from_be_bytes([*high, *low]));
        let mut rest = attributes;
        while !rest.is_empty() {
            let Some((&[a, b, c, d], after)) = rest.split_first_chunk::<4>() else {
                return Err(fault("attribute shorter than its head"));
            };
            let (attribute, value) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            rest = after;
            if attribute & ATTRIBUTE_SHORT == 0 {
                rest = rest.get(usize::from(value)..).ok_or(fault("attribute past the end"))?;
            }
            if attribute == ATTRIBUTE_SHORT | KEY_LENGTH_ATTRIBUTE && transform.key_bits.is_none() {
                transform.key_bits = Some(value);
            } else {
                transform.odd = true;
            }
        }
        Ok(transform)
    }

    fn emit(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.kind.0, 0]);
        out.extend_from_slice(&self.id.to_be_bytes());
        if let Some(bits) = self.key_bits {
            out.extend_from_slice(&(ATTRIBUTE_SHORT | KEY_LENGTH_ATTRIBUTE).to_be_bytes());
            out.extend_from_slice(&bits.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transform(kind: u8, id: u16) -> Transform {
        Transform::new(TransformKind(kind), id)
    }

    fn emitted(sa: &SaPayload<'_>) -> Vec<u8> {
        let mut body = Vec::new();
        sa.emit(&mut body);
        body
    }

    #[test]
    fn hostile_08_255_proposals_of_255_transforms_are_capped() {
        let transforms = vec![transform(1, 20); 255];
        let one = Proposal { number: 1, protocol: ProtocolId::IKE, spi: &[], transforms };
        // As many as the 16-bit length of a payload could hold.
        let body = emitted(&SaPayload { proposals: vec![one; 31] });
        let parsed = SaPayload::parse(&body).unwrap();
        assert_eq!(parsed.proposals.len(), 31);
        assert_eq!(parsed.proposals.iter().map(|proposal| proposal.transforms.len()).sum::<usize>(), TRANSFORMS_MAX);

        let empty = Proposal { number: 1, protocol: ProtocolId::IKE, spi: &[], transforms: Vec::new() };
        let body = emitted(&SaPayload { proposals: vec![empty; 255] });
        assert_eq!(SaPayload::parse(&body).unwrap().proposals.len(), PROPOSALS_MAX);
    }

    #[test]
    fn an_attribute_we_do_not_know_marks_the_transform() {
        let long = [0, 0, 0, 20, 1, 1, 0, 1, 0, 0, 0, 12, 1, 0, 0, 20, 0, 77, 0, 0];
        assert!(SaPayload::parse(&long).unwrap().proposals[0].transforms[0].odd);
        let twice = [0, 0, 0, 24, 1, 1, 0, 1, 0, 0, 0, 16, 1, 0, 0, 20, 0x80, 14, 0, 128, 0x80, 14, 1, 0];
        assert!(SaPayload::parse(&twice).unwrap().proposals[0].transforms[0].odd);
    }

    #[test]
    fn counts_and_marks_that_disagree_are_faults() {
        let honest = emitted(&SaPayload {
            proposals: vec![Proposal {
                number: 1,
                protocol: ProtocolId::ESP,
                spi: &[1, 2, 3, 4],
                transforms: vec![Transform::with_key_bits(TransformKind::ENCRYPTION, 20, 128), transform(5, 0)],
            }],
        });
        assert!(SaPayload::parse(&honest).is_ok());
        for (at, value) in [(0, 2), (3, 3), (3, 4), (3, 0xff), (6, 5), (6, 255), (7, 1), (7, 3), (12, 0), (15, 3)] {
            let mut lying = honest.clone();
            lying[at] = value;
            assert!(SaPayload::parse(&lying).is_err(), "octet {at} = {value}");
        }
        for cut in 0..honest.len() {
            assert!(SaPayload::parse(&honest[..cut]).is_err());
        }
    }
}
