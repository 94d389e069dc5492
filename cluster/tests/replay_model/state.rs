//! One moment of a small cluster: two owners (one after the other, or both at once), two targets, two SAs of one peer
//! with two numbers each, up to two connections.

use core::cmp::Ordering;

/// A packet: SA 0 or 1, number 1 or 2. The client has sent each once; the attacker has them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet(pub u8);

impl Packet {
    pub const ALL: [Packet; 4] = [Packet(0), Packet(1), Packet(2), Packet(3)];

    pub fn sa(self) -> usize {
        usize::from(self.0 >> 1)
    }

    pub fn number(self) -> u8 {
        (self.0 & 1) + 1
    }

    pub fn bit(self) -> u8 {
        1 << self.0
    }
}

/// For each SA a number from 0 to 2: a floor, or a top.
pub type Marks = [u8; 2];

pub fn tops(window: u8) -> Marks {
    [0, 2].map(|shift| match window >> shift & 3 {
        0 => 0,
        1 => 1,
        _two => 2,
    })
}

pub fn raise(marks: &mut Marks, to: Marks) {
    for (mark, to) in marks.iter_mut().zip(to) {
        *mark = (*mark).max(to);
    }
}

/// Where a connection goes, as an owner has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Entry {
    pub target: u8,
    pub incarnation: u8,
    /// The SAs that were sealed when it was made, one bit each: for them it is too young.
    pub too_young_for: u8,
}

/// A target as an owner has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Seat {
    /// It is none: its entries are lost.
    #[default]
    Absent,
    /// A new owner has not heard of it yet.
    Unanswered,
    /// It is sent frames, and may be chosen.
    Member,
    /// It is sent frames, and may not be chosen.
    Draining,
    /// It is sent none; its entries stay.
    Suspended,
    /// The same, and its loss stands in the CF.
    Recorded,
}

/// A report that a connection was stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Freed {
    pub flow: u8,
    pub tops: Marks,
}

/// Most freeings of one target under one owner.
pub const FREEINGS_MAX: usize = 2;

/// What a target has reported to an owner, in order, and how far the owner has come with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reports {
    pub freed: [Freed; FREEINGS_MAX],
    pub sent: u8,
    pub floored: u8,
    pub forgotten: u8,
    /// The serial that frames carry; an acknowledgement of so many freeings is on its way.
    pub serial: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Owner {
    pub window: u8,
    pub floor: Marks,
    pub entries: [Option<Entry>; 2],
    pub seats: [Seat; 2],
    pub incarnations: [u8; 2],
    pub reports: [Reports; 2],
    /// SAs, one bit each: that it uses; that it has sealed; that it is about to seal; that serve nothing any more.
    pub known: u8,
    pub sealed: u8,
    pub to_seal: u8,
    pub dead: u8,
    /// SAs that were there when a new owner claimed, one bit each.
    pub born_before_claim: u8,
    /// Targets, one bit each, that its cores still send to, since they have not heard yet that it is suspended.
    pub unheard: u8,
}

/// A connection at a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Connection {
    #[default]
    None,
    /// With the SA of its last packet, where a planted fault asks for it.
    Live(u8),
    Tomb,
}

/// The epoch of a target that has left, until it restarts.
pub const LEFT: u8 = 3;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    pub incarnation: u8,
    /// 0 while it is nobody's target.
    pub epoch: u8,
    pub oldest_serial: u8,
    pub window: u8,
    pub floor: Marks,
    pub connections: [Connection; 2],
    /// It has answered a new owner, and its cores have not heard yet: only where a planted fault lets it.
    pub takes_old_epoch: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Facility {
    pub epoch: u8,
    /// SAs, one bit each: born; born before a loss.
    pub born: u8,
    pub sealed: u8,
    /// Which start of each target an owner has used.
    pub enrolled: [Option<u8>; 2],
    /// Tops of those that were drained.
    pub floor: Marks,
}

/// A frame, which the wire may delay, lose and repeat: once sent it can arrive at any time, any number of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    pub packet: Packet,
    pub target: u8,
    pub incarnation: u8,
    pub epoch: u8,
    pub serial: u8,
    pub floor: u8,
}

const SERIALS: u16 = FREEINGS_MAX as u16 + 1;
const FRAMES: u16 = 4 * 2 * 2 * 2 * SERIALS * 2;

impl Frame {
    fn index(self) -> u16 {
        let Frame { packet, target, incarnation, epoch, serial, floor } = self;
        let places = [(packet.0, 4), (target, 2), (incarnation, 2), (epoch - 1, 2), (serial, SERIALS), (floor, 2)];
        places.into_iter().fold(0, |index, (digit, base)| index * base + u16::from(digit))
    }

    fn from_index(mut index: u16) -> Frame {
        let mut digit = |base: u16| {
            let digit = index % base;
            index /= base;
            digit as u8
        };
        let (floor, serial, epoch) = (digit(2), digit(SERIALS), digit(2) + 1);
        let (incarnation, target, packet) = (digit(2), digit(2), Packet(digit(4)));
        Frame { packet, target, incarnation, epoch, serial, floor }
    }
}

/// The frames that were ever sent and may still do something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frames([u64; FRAMES.div_ceil(64) as usize]);

impl Frames {
    pub fn insert(&mut self, frame: Frame) {
        let index = frame.index();
        self.0[usize::from(index / 64)] |= 1 << (index % 64);
    }

    fn has(self, frame: Frame) -> bool {
        let index = frame.index();
        self.0[usize::from(index / 64)] >> (index % 64) & 1 != 0
    }

    /// Without frames that are like another one but for a lower serial or a higher floor: whenever they are accepted, so
    /// is the other.
    pub fn without_outdone(self) -> Frames {
        let mut kept = Frames::default();
        for frame in self.iter() {
            let better =
                (frame.serial..SERIALS as u8).flat_map(|serial| (0..=frame.floor).map(move |floor| (serial, floor)));
            let mut better = better.filter(|better| *better != (frame.serial, frame.floor));
            if !better.any(|(serial, floor)| self.has(Frame { serial, floor, ..frame })) {
                kept.insert(frame);
            }
        }
        kept
    }

    pub fn iter(self) -> impl Iterator<Item = Frame> {
        let bits = self.0.into_iter().zip(0_u16..);
        bits.flat_map(|(word, at)| {
            let mut left = word;
            core::iter::from_fn(move || {
                let bit = left.trailing_zeros() as u16;
                left &= left.wrapping_sub(1);
                (bit < 64).then(|| Frame::from_index(at * 64 + bit))
            })
        })
    }
}

/// How much may still go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Left {
    pub losses: u8,
    pub restarts: u8,
    pub drains: u8,
    pub freeings: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct State {
    pub frames: Frames,
    pub owners: [Owner; 2],
    pub targets: [Target; 2],
    pub facility: Facility,
    /// Packets that were delivered, one bit each.
    pub delivered: u8,
    pub left: Left,
}

impl State {
    /// The first owner, two targets at their first start, one SA.
    pub fn start() -> State {
        let facility = Facility { epoch: 1, born: 1, enrolled: [Some(0); 2], ..Facility::default() };
        let owner = Owner { known: 1, seats: [Seat::Member; 2], ..Owner::default() };
        let target = Target { epoch: 1, ..Target::default() };
        State { facility, owners: [owner, Owner::default()], targets: [target; 2], ..State::default() }
    }

    /// The same with the two targets' names exchanged, which makes no difference.
    fn mirrored(&self) -> State {
        let mut state = *self;
        state.targets.swap(0, 1);
        state.facility.enrolled.swap(0, 1);
        for owner in &mut state.owners {
            owner.seats.swap(0, 1);
            owner.incarnations.swap(0, 1);
            owner.reports.swap(0, 1);
            owner.unheard = owner.unheard >> 1 | (owner.unheard & 1) << 1;
            owner.entries.iter_mut().flatten().for_each(|entry| entry.target ^= 1);
        }
        state.frames = Frames::default();
        self.frames.iter().for_each(|frame| state.frames.insert(Frame { target: frame.target ^ 1, ..frame }));
        state
    }

    /// One state for all that differ in nothing that matters.
    pub fn canonical(self) -> State {
        match self.targets[0].cmp(&self.targets[1]) {
            Ordering::Less => self,
            Ordering::Equal => self.min(self.mirrored()),
            Ordering::Greater => self.mirrored(),
        }
    }
}
