//! The lanes of one session, as one core has them.

use core::net::IpAddr;
use std::sync::Arc;

use ipsec::Spi;
use ipsec::engine::Engine;
use ipsec::inbound::{InboundSa, InboundShared, Opened};
use ipsec::iv::{IvGenerator, SenderNumber};
use ipsec::lifetime::Lifetime;
use ipsec::outbound::{OutboundSa, OutboundShared, OuterPolicy};
use ipsec::sa::{Direction, Encapsulation, Mode, PeerId, SaParameters};
use ipsec::selector::Selectors;

use super::keys::{CIPHER, End, SessionKeys};
use super::{CORES, LANES, Name, NotOpened, NotSealed};

/// One core of a sender and one queue of a receiver between them keep order; several queues may not.
const WINDOW_PACKETS: u32 = 1_024;

/// So many generations may have passed without a frame that came through; an SPI tells 16 apart.
const GENERATIONS_AHEAD: u8 = 7;

/// The frames of one lane to the other member.
#[derive(Debug)]
struct Sending {
    generation: u64,
    born_at: SenderNumber,
    sa: OutboundSa,
}

/// The frames of one lane from the other member.
#[derive(Debug)]
struct Receiving {
    generation: u64,
    sa: InboundSa,
    /// What was current before: frames of it may be under way.
    former: Option<(u64, InboundSa)>,
}

/// One session. A lane comes into being with its first frame, and stays.
#[derive(Debug)]
pub(super) struct Session {
    keys: SessionKeys,
    engine: Engine,
    number: u16,
    sending: [Option<Box<Sending>>; LANES as usize],
    receiving: Box<[Option<Box<Receiving>>]>,
}

impl Session {
    pub fn new(keys: SessionKeys, engine: Engine) -> Session {
        let number = keys.number();
        let receiving = (0..CORES * usize::from(LANES)).map(|_| None).collect();
        Session { keys, engine, number, sending: [const { None }; LANES as usize], receiving }
    }

    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn theirs(&self) -> End {
        self.keys.theirs
    }

    pub fn is_of(&self, keys: &SessionKeys) -> bool {
        self.keys.are(keys)
    }

    pub fn seal(
        &mut self,
        (core, lane): (u8, u8),
        rekey_at: u64,
        ivs: &mut IvGenerator,
        packet: &mut [u8],
        frame_len: usize,
    ) -> Result<(), NotSealed> {
        let at = usize::from(lane % LANES);
        let generation = match &self.sending[at] {
            None => Some(0),
            // A sender whose number is far from that of the lane's birth may not use its key.
            Some(lane) if !ivs.sender().may_use_key_born_at(lane.born_at) => Some(lane.generation + 1),
            Some(lane) if lane.sa.next_sequence() >= rekey_at => Some(lane.generation + 1),
            Some(_) => None,
        };
        if let Some(generation) = generation {
            let parameters = self.parameters(Direction::Outbound, core, lane, generation).ok_or(NotSealed::NoKeys)?;
            let born_at = ivs.sender();
            let shared = OutboundShared::new(parameters, self.engine, born_at).map_err(|_| NotSealed::NoKeys)?;
            let sa = OutboundSa::new(shared, 1, OuterPolicy::default());
            self.sending[at] = Some(Box::new(Sending { generation, born_at, sa }));
        }
        let lane = self.sending[at].as_mut().ok_or(NotSealed::NoKeys)?;
        match lane.sa.encapsulate_transport(ivs, packet, frame_len) {
            // Whether a lane is to be replaced was asked above.
            Ok(_sealed) => Ok(()),
            Err(error) => Err(NotSealed::Esp(error)),
        }
    }

    pub fn open(&mut self, name: Name, esp: &mut [u8]) -> Result<Opened, NotOpened> {
        let at = usize::from(name.core) * usize::from(LANES) + usize::from(name.lane);
        let next = match self.receiving.get_mut(at).ok_or(NotOpened::NoKeys)? {
            None => u64::from(name.generation),
            Some(lane) => match name.generation.wrapping_sub(lane.generation as u8) & 0xf {
                0 => return Ok(lane.sa.open(esp)?),
                ahead @ 1..=GENERATIONS_AHEAD => lane.generation + u64::from(ahead),
                _behind => {
                    let former = lane.former.as_mut().filter(|(former, _)| *former as u8 & 0xf == name.generation);
                    let (_, former) = former.ok_or(NotOpened::NoKeys)?;
                    return Ok(former.open(esp)?);
                }
            },
        };
        let mut sa = self.next_receiving(name, next).ok_or(NotOpened::NoKeys)?;
        let opened = sa.open(esp)?;
        // Only now is it more than a claim.
        let former = self.receiving[at].take().map(|lane| (lane.generation, lane.sa));
        self.receiving[at] = Some(Box::new(Receiving { generation: next, sa, former }));
        Ok(opened)
    }

    fn next_receiving(&self, name: Name, generation: u64) -> Option<InboundSa> {
        let parameters = self.parameters(Direction::Inbound, name.core, name.lane, generation)?;
        InboundShared::new(parameters, self.engine, 1).ok().map(InboundSa::new)
    }

    fn parameters(&self, direction: Direction, core: u8, lane: u8, generation: u64) -> Option<SaParameters> {
        let sender = match direction {
            Direction::Inbound => self.keys.theirs,
            Direction::Outbound => self.keys.ours,
        };
        let name = Name { session: self.number, core, generation: generation as u8, lane };
        let (dvipa, remote): (IpAddr, IpAddr) = (self.keys.ours.address, self.keys.theirs.address);
        Some(SaParameters {
            name: Arc::from("frames"),
            peer: PeerId(u64::from(self.keys.theirs.member.0)),
            peer_name: Arc::from("member"),
            dvipa,
            remote,
            spi: Spi::new(name.to_u32())?,
            direction,
            mode: Mode::Transport,
            encapsulation: Encapsulation::None,
            cipher: CIPHER,
            key: self.keys.of_lane(sender, core, lane, generation)?,
            esn: false,
            replay_window_packets: WINDOW_PACKETS,
            selectors: Selectors { local: Vec::new(), remote: Vec::new() },
            lifetime: Lifetime::NONE,
            epoch: 0,
        })
    }
}
