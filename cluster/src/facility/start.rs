//! The registration of one start of one member: its incarnation and its first sender numbers, drawn in one step.

use core::ops::Range;

use super::name;
use super::record::{MemberRecord, RecordError, decode_number, encode_number};
use super::{Change, Compare, Outcome, Read, Request};
use crate::id::{Incarnation, MemberId};
use ipsec::iv::SenderNumber;

/// Asks until one start is registered: [`Start::request`] out, [`Start::take`] in, and the same request again when
/// nothing came back.
#[derive(Debug)]
pub struct Start {
    me: MemberId,
    nonce: [u8; 16],
    senders_count: u32,
    attempt: Option<Attempt>,
}

/// What the records said, and what they shall say.
#[derive(Debug)]
struct Attempt {
    member: Option<Vec<u8>>,
    incarnations: Option<Vec<u8>>,
    senders: Option<Vec<u8>>,
    record: MemberRecord,
}

/// How far a registration is. It consumes what it was before, so that one start is registered for one holder only.
#[derive(Debug)]
pub enum Progress {
    /// Ask again.
    Again(Start),
    /// Registered.
    Done(Started),
}

/// A start that is registered.
#[derive(Debug)]
pub struct Started {
    /// Its number, which never comes again.
    pub incarnation: Incarnation,
    /// Sender numbers that nobody else will ever hold.
    pub senders: Range<u64>,
    /// What makes the one [`super::wrap::Sealer`] of this start.
    pub fresh: FreshStart,
}

/// The right to encrypt in the name of one start; there is one for each, and it is spent once.
#[derive(Debug)]
pub struct FreshStart {
    member: MemberId,
    incarnation: Incarnation,
}

impl FreshStart {
    pub(super) fn spend(self) -> (MemberId, Incarnation) {
        (self.member, self.incarnation)
    }
}

/// Why a start cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// A record cannot be understood.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A counter has come to its end, which no counter does by itself.
    #[error("the counter {name} of the coupling facility stands at {found}, its end; something else has written it")]
    Exhausted {
        /// Which counter.
        name: &'static str,
        /// Where it stands.
        found: u64,
    },
}

impl Start {
    /// A start of this member. `nonce` is random; `senders_count` numbers are drawn at once.
    #[must_use]
    pub fn new(me: MemberId, nonce: [u8; 16], senders_count: u32) -> Start {
        Start { me, nonce, senders_count, attempt: None }
    }

    /// The transaction that is next.
    #[must_use]
    pub fn request(&self, id: u64) -> Request {
        let member = name::member(self.me);
        let (incarnations, senders) = (name::INCARNATIONS.to_owned(), name::SENDERS.to_owned());
        let read = [&member, &incarnations, &senders].map(|key| Read::Record(key.clone())).to_vec();
        let Some(attempt) = &self.attempt else { return Request { id, compare: vec![], change: vec![], read } };
        let MemberRecord { incarnation, senders_first, senders_count, .. } = attempt.record;
        Request {
            id,
            compare: vec![
                Compare::unchanged(member.clone(), attempt.member.clone()),
                Compare::unchanged(incarnations.clone(), attempt.incarnations.clone()),
                Compare::unchanged(senders.clone(), attempt.senders.clone()),
            ],
            change: vec![
                Change::Put(member, attempt.record.encode()),
                Change::Put(incarnations, encode_number(incarnation.0)),
                Change::Put(senders, encode_number(senders_first.0 + u64::from(senders_count))),
            ],
            read,
        }
    }

    /// Takes the reply in.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn take(mut self, outcome: &Outcome) -> Result<Progress, StartError> {
        let member = name::member(self.me);
        let held = outcome.record(&member).map(|bytes| MemberRecord::decode(&member, bytes)).transpose()?;
        // The nonce is only ours: whichever of our requests it was that arrived, it has registered this start.
        if let Some(MemberRecord { incarnation, senders_first, senders_count, .. }) =
            held.filter(|held| held.nonce == self.nonce)
        {
            let senders = senders_first.0..senders_first.0 + u64::from(senders_count);
            let fresh = FreshStart { member: self.me, incarnation };
            return Ok(Progress::Done(Started { incarnation, senders, fresh }));
        }
        let counter = |name: &'static str, room: u64| -> Result<u64, StartError> {
            let found = outcome.record(name).map_or(Ok(0), |bytes| decode_number(name, bytes))?;
            found.checked_add(room).map(|_| found).ok_or(StartError::Exhausted { name, found })
        };
        let record = MemberRecord {
            incarnation: Incarnation(counter(name::INCARNATIONS, 1)? + 1),
            nonce: self.nonce,
            senders_first: SenderNumber(counter(name::SENDERS, self.senders_count.into())?),
            senders_count: self.senders_count,
        };
        let copy = |key: &str| outcome.record(key).map(<[u8]>::to_vec);
        self.attempt = Some(Attempt {
            member: copy(&member),
            incarnations: copy(name::INCARNATIONS),
            senders: copy(name::SENDERS),
            record,
        });
        Ok(Progress::Again(self))
    }
}

/// Asks whether a start is still the newest of its member.
#[must_use]
pub fn ask_registration(id: u64, member: MemberId) -> Request {
    Request { id, compare: vec![], change: vec![], read: vec![Read::Record(name::member(member))] }
}

/// The newest start of a member, by the reply to [`ask_registration`]. One that is newer than our own says that another
/// appliance runs with our number.
///
/// # Errors
/// [`RecordError`].
pub fn registration(member: MemberId, outcome: &Outcome) -> Result<Option<MemberRecord>, RecordError> {
    let key = name::member(member);
    outcome.record(&key).map(|bytes| MemberRecord::decode(&key, bytes)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facility::memory::Store;

    fn start(store: &mut Store, me: u16, nonce: u8, senders: u32) -> Started {
        let mut start = Start::new(MemberId(me), [nonce; 16], senders);
        for id in 0..10 {
            let outcome = store.execute(&start.request(id)).unwrap();
            match start.take(&outcome).unwrap() {
                Progress::Done(started) => return started,
                Progress::Again(again) => start = again,
            }
        }
        panic!("not registered");
    }

    fn again(start: Start, outcome: &Outcome) -> Start {
        match start.take(outcome).unwrap() {
            Progress::Again(start) => start,
            Progress::Done(_) => panic!("registered too early"),
        }
    }

    fn done(start: Start, outcome: &Outcome) -> Started {
        match start.take(outcome).unwrap() {
            Progress::Done(started) => started,
            Progress::Again(_) => panic!("not registered"),
        }
    }

    #[test]
    fn no_incarnation_and_no_sender_comes_twice() {
        let mut store = Store::default();
        let starts: Vec<_> = (0..6).map(|number| start(&mut store, number % 2, number as u8, 3)).collect();
        let incarnations: Vec<u64> = starts.iter().map(|started| started.incarnation.0).collect();
        assert_eq!(incarnations, [1, 2, 3, 4, 5, 6]);
        let senders: Vec<u64> = starts.into_iter().flat_map(|started| started.senders).collect();
        assert_eq!(senders, (0..18).collect::<Vec<_>>());
    }

    #[test]
    fn a_start_whose_reply_was_lost_is_registered_once() {
        let mut store = Store::default();
        let lost = Start::new(MemberId(1), [1; 16], 2);
        let outcome = store.execute(&lost.request(1)).unwrap();
        let lost = again(lost, &outcome);
        store.execute(&lost.request(2)).unwrap();
        let outcome = store.execute(&lost.request(3)).unwrap();
        assert!(!outcome.is_committed);
        let started = done(lost, &outcome);
        assert_eq!((started.incarnation, started.senders), (Incarnation(1), 0..2));
        assert_eq!(start(&mut store, 1, 2, 1).incarnation, Incarnation(2));
    }

    #[test]
    fn of_two_starts_at_once_one_asks_again() {
        let mut store = Store::default();
        let [first, second] = [1, 2].map(|me| {
            let start = Start::new(MemberId(me), [me as u8; 16], 2);
            let outcome = store.execute(&start.request(1)).unwrap();
            again(start, &outcome)
        });
        let outcome = store.execute(&first.request(2)).unwrap();
        assert_eq!(done(first, &outcome).senders, 0..2);
        let outcome = store.execute(&second.request(2)).unwrap();
        let second = again(second, &outcome);
        let outcome = store.execute(&second.request(3)).unwrap();
        let started = done(second, &outcome);
        assert_eq!((started.incarnation, started.senders), (Incarnation(2), 2..4));
    }

    /// An appliance that was configured with a number that is in use.
    #[test]
    fn a_newer_start_of_our_number_shows() {
        let mut store = Store::default();
        let ours = start(&mut store, 1, 1, 1);
        let theirs = start(&mut store, 1, 2, 1);
        let outcome = store.execute(&ask_registration(1, MemberId(1))).unwrap();
        let newest = registration(MemberId(1), &outcome).unwrap().unwrap();
        assert_eq!(newest.incarnation, theirs.incarnation);
        assert_ne!(newest.incarnation, ours.incarnation);
    }

    #[test]
    fn a_counter_at_its_end_is_refused() {
        let mut store = Store::default();
        let change = vec![Change::Put(name::SENDERS.into(), encode_number(u64::MAX))];
        store.execute(&Request { id: 0, compare: vec![], change, read: vec![] }).unwrap();
        let start = Start::new(MemberId(1), [1; 16], 1);
        let outcome = store.execute(&start.request(1)).unwrap();
        let error = start.take(&outcome).unwrap_err();
        assert_eq!(error, StartError::Exhausted { name: name::SENDERS, found: u64::MAX });
    }
}
