use super::*;
use crate::member::SequencePolicy;

const OWNER: MemberId = MemberId(1);
const A: MemberId = MemberId(2);
const B: MemberId = MemberId(3);
const C: MemberId = MemberId(4);

pub(super) fn child(spi: u32) -> ChildId {
    ChildId { dvipa: "203.0.113.80".parse().unwrap(), spi: Spi::new(spi + 256).unwrap() }
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

pub(super) fn newcomer(spi: u32) -> Newcomer {
    Newcomer { child: child(spi), usage: Use::First, replaces: None, sibling_of: None, restored: None }
}

fn sibling(spi: u32, of: u32) -> Newcomer {
    Newcomer { sibling_of: Some(child(of).spi), ..newcomer(spi) }
}

fn rekeyed(spi: u32, old: u32, usage: Use) -> Newcomer {
    Newcomer { replaces: Some(child(old).spi), usage, ..newcomer(spi) }
}

/// Every SA's first free number is 100 times its SPI.
fn all(senders: &mut PeerSenders) -> Vec<Output> {
    let from = |child: ChildId| Some(u64::from(child.spi.get() - 256) * 100);
    core::iter::from_fn(|| senders.poll_output(from)).collect()
}

fn numbers(member: MemberId, spi: u32, source: NumberSource) -> Output {
    Output::Numbers { member, child: child(spi), source }
}

fn prefer(member: MemberId, spi: u32) -> Output {
    Output::Prefer { member, child: child(spi) }
}

/// Policy `auto`, with the first SA up and told.
fn auto() -> PeerSenders {
    let mut senders = PeerSenders::new(SenderSettings::new(SequencePolicy::Auto, 2, OWNER, false), &[OWNER, A, B, C]);
    senders.handle_up(at(0), newcomer(1));
    let told = all(&mut senders);
    assert_eq!(told[0], Output::Dispense { child: child(1), from: 100 });
    assert_eq!(told[1..5], [OWNER, A, B, C].map(|member| numbers(member, 1, NumberSource::Sequencer)));
    assert_eq!(told[5..], [OWNER, A, B, C].map(|member| prefer(member, 1)));
    senders
}

/// With a sibling for A that was asked for and has come up.
fn with_sibling() -> PeerSenders {
    let mut senders = auto();
    senders.handle_wanted(at(0), OWNER, child(1));
    senders.handle_wanted(at(1), A, child(1));
    assert_eq!(all(&mut senders), [Output::Ask(child(1))]);
    senders.handle_up(at(2), sibling(2, 1));
    assert_eq!(all(&mut senders), [numbers(A, 2, NumberSource::Own { from: 200 })]);
    senders
}

fn with_proven_sibling() -> PeerSenders {
    let mut senders = with_sibling();
    senders.handle_proven(at(3), child(2));
    assert_eq!(all(&mut senders), [prefer(A, 2)]);
    senders
}

#[test]
fn one_sender_with_little_traffic_asks_for_no_sibling() {
    let mut senders = auto();
    for second in 0..20 {
        senders.handle_wanted(at(second * 1_000), A, child(1));
    }
    assert_eq!(all(&mut senders), []);
    assert_eq!(senders.fallback(at(20_000)), None);
}

#[test]
fn the_only_sender_that_never_pauses_gets_a_sibling_too_but_the_owner_does_not() {
    let mut senders = auto();
    for tick in 0..10 {
        senders.handle_wanted(at(tick * 100), A, child(1));
    }
    assert_eq!(all(&mut senders), []);
    senders.handle_wanted(at(1_000), A, child(1));
    assert_eq!(all(&mut senders), [Output::Ask(child(1))]);
    let mut senders = auto();
    for tick in 0..100 {
        senders.handle_wanted(at(tick * 100), OWNER, child(1));
    }
    assert_eq!(all(&mut senders), []);
}

#[test]
fn traffic_moves_to_a_sibling_only_when_the_peer_has_sent_on_it() {
    let mut senders = with_sibling();
    assert_eq!(senders.fallback(at(2)), Some(Fallback::SiblingUnproven));
    senders.handle_wanted(at(3), B, child(1));
    assert_eq!(all(&mut senders), [], "one unproven sibling at a time");
    senders.handle_proven(at(4), child(2));
    assert_eq!(all(&mut senders), [Output::Ask(child(1)), prefer(A, 2)]);
    assert_eq!(senders.sender(child(2)), Some(A));
}

#[test]
fn one_request_is_outstanding_for_each_peer() {
    let mut senders = auto();
    senders.handle_wanted(at(0), A, child(1));
    senders.handle_wanted(at(0), B, child(1));
    senders.handle_wanted(at(0), C, child(1));
    assert_eq!(all(&mut senders), [Output::Ask(child(1))]);
    assert_eq!(senders.fallback(at(0)), Some(Fallback::SiblingAsked));
}

#[test]
fn a_refusal_for_good_is_remembered_and_shown() {
    let mut senders = auto();
    senders.handle_wanted(at(0), A, child(1));
    senders.handle_wanted(at(0), B, child(1));
    let _ = all(&mut senders);
    senders.handle_refused(at(1), child(1), true);
    for second in 0..10_000 {
        senders.handle_wanted(at(second * 1_000), A, child(1));
        senders.handle_wanted(at(second * 1_000), B, child(1));
    }
    assert_eq!(all(&mut senders), []);
    assert_eq!(senders.fallback(at(9_999_001)), Some(Fallback::SiblingsRefused));
}

#[test]
fn failures_are_followed_by_pauses_that_grow() {
    let mut senders = auto();
    let mut asked_at = Vec::new();
    for second in 0..2_000 {
        let now = at(second * 1_000);
        senders.handle_wanted(now, A, child(1));
        senders.handle_wanted(now, B, child(1));
        if all(&mut senders) == [Output::Ask(child(1))] {
            asked_at.push(second);
            senders.handle_refused(now, child(1), false);
            assert_eq!(senders.fallback(now), Some(Fallback::BackingOff));
        }
    }
    assert_eq!(asked_at, [0, 10, 30, 70, 150, 310, 630, 1_230, 1_830]);
}

#[test]
fn a_request_without_an_answer_counts_as_failed() {
    let mut senders = auto();
    senders.handle_wanted(at(0), A, child(1));
    senders.handle_wanted(at(0), B, child(1));
    assert_eq!(senders.next_timeout(at(0)), Some(at(180_000)));
    let _ = all(&mut senders);
    senders.handle_timeout(at(180_000));
    assert_eq!(senders.next_timeout(at(180_000)), Some(at(190_000)));
    assert_eq!(senders.next_timeout(at(190_000)), None);
}

#[test]
fn a_client_that_deletes_a_sibling_is_served_on_another_and_asked_again_later() {
    let mut senders = with_proven_sibling();
    senders.handle_down(at(10_000), child(2));
    assert_eq!(all(&mut senders), [prefer(A, 1)]);
    senders.handle_wanted(at(10_001), OWNER, child(1));
    senders.handle_wanted(at(10_001), A, child(1));
    assert_eq!(all(&mut senders), []);
    assert_eq!(senders.fallback(at(10_001)), Some(Fallback::BackingOff));
    senders.handle_timeout(at(20_000));
    assert_eq!(all(&mut senders), [Output::Ask(child(1))]);
}

#[test]
fn no_more_siblings_than_allowed() {
    let mut senders = with_proven_sibling();
    senders.handle_wanted(at(4), B, child(1));
    senders.handle_up(at(5), sibling(3, 1));
    senders.handle_proven(at(6), child(3));
    let _ = all(&mut senders);
    senders.handle_wanted(at(7), C, child(1));
    assert_eq!(all(&mut senders), []);
    assert_eq!(senders.siblings(), 2);
    assert_eq!(senders.fallback(at(7)), Some(Fallback::SiblingsFull));
}

#[test]
fn when_a_siblings_sender_leaves_another_takes_it_over_at_the_mark() {
    let mut senders = with_proven_sibling();
    senders.handle_wanted(at(4), OWNER, child(1));
    senders.handle_gone(at(5), A);
    assert_eq!(all(&mut senders), []);
    senders.handle_wanted(at(6), B, child(1));
    assert_eq!(all(&mut senders), [numbers(B, 2, NumberSource::Own { from: 200 }), prefer(B, 2)]);
    assert_eq!(senders.sender(child(2)), Some(B));
}

#[test]
fn a_rekeyed_sibling_keeps_its_sender() {
    let mut senders = with_proven_sibling();
    senders.handle_up(at(10), rekeyed(3, 2, Use::First));
    assert_eq!(all(&mut senders), [numbers(A, 3, NumberSource::Own { from: 300 }), prefer(A, 3)]);
    assert_eq!(senders.siblings(), 1);
    senders.handle_down(at(11), child(2));
    assert_eq!(all(&mut senders), []);
    assert_eq!(senders.fallback(at(11)), None);
    assert_eq!(senders.back_off.map(|back_off| back_off.pause), None, "what was replaced did not fail");
}

#[test]
fn what_the_peer_rekeyed_is_used_from_its_first_packet_or_the_end_of_the_old_one() {
    for ends in [false, true] {
        let mut senders = with_proven_sibling();
        senders.handle_up(at(10), rekeyed(3, 1, Use::InReserve));
        let told = all(&mut senders);
        assert!(told.contains(&numbers(B, 3, NumberSource::Sequencer)) && !told.contains(&prefer(B, 3)));
        if ends {
            senders.handle_down(at(11), child(1));
        } else {
            senders.handle_proven(at(11), child(3));
        }
        assert_eq!(all(&mut senders), [OWNER, B, C].map(|member| prefer(member, 3)));
    }
}

#[test]
fn the_loser_of_a_rekey_collision_is_never_sent_on() {
    let mut senders = auto();
    senders.handle_up(at(1), rekeyed(2, 1, Use::InReserve));
    let _ = all(&mut senders);
    senders.handle_up(at(2), rekeyed(3, 1, Use::First));
    senders.handle_up(at(2), rekeyed(4, 1, Use::ReceiveOnly));
    let told = all(&mut senders);
    assert!(told.contains(&prefer(A, 3)));
    senders.handle_proven(at(3), child(2));
    senders.handle_proven(at(3), child(4));
    senders.handle_down(at(4), child(1));
    assert_eq!(all(&mut senders), []);
}

#[test]
fn when_the_shared_sa_is_deleted_another_takes_its_place() {
    let mut senders = with_proven_sibling();
    senders.handle_down(at(5), child(1));
    let told = all(&mut senders);
    assert_eq!(told[0], Output::Dispense { child: child(2), from: 200 });
    assert!(told.contains(&numbers(A, 2, NumberSource::Sequencer)), "A numbers it no more: {told:?}");
    assert!(told.contains(&numbers(C, 2, NumberSource::Sequencer)) && told.contains(&prefer(C, 2)));
    assert_eq!(senders.sender(child(2)), None);
}

#[test]
fn other_policies_say_the_same_of_every_sa() {
    let told = |policy| {
        let mut senders = PeerSenders::new(SenderSettings::new(policy, 2, OWNER, false), &[OWNER, A]);
        senders.handle_up(at(0), newcomer(1));
        senders.handle_wanted(at(0), A, child(1));
        senders.handle_wanted(at(0), OWNER, child(1));
        all(&mut senders)
    };
    let preferred = [prefer(OWNER, 1), prefer(A, 1)];
    let via = [numbers(OWNER, 1, NumberSource::Own { from: 100 }), numbers(A, 1, NumberSource::ViaOwner)];
    assert_eq!(told(SequencePolicy::ViaDistributor), [via, preferred].concat());
    let begin = Output::Dispense { child: child(1), from: 100 };
    for (policy, source) in
        [(SequencePolicy::Sequencer, NumberSource::Sequencer), (SequencePolicy::LeasedBlocks, NumberSource::Leased)]
    {
        let shared = [begin, numbers(OWNER, 1, source), numbers(A, 1, source)];
        assert_eq!(told(policy), [&shared[..], &preferred[..]].concat());
    }
}

#[test]
fn who_is_alone_numbers_everything_itself() {
    let mut senders = PeerSenders::new(SenderSettings::new(SequencePolicy::Auto, 8, OWNER, true), &[OWNER]);
    senders.handle_up(at(0), newcomer(1));
    assert_eq!(all(&mut senders), [numbers(OWNER, 1, NumberSource::Own { from: 100 }), prefer(OWNER, 1)]);
    senders.handle_up(at(1), rekeyed(2, 1, Use::First));
    assert_eq!(all(&mut senders), [numbers(OWNER, 2, NumberSource::Own { from: 200 }), prefer(OWNER, 2)]);
}

#[test]
fn a_new_owner_keeps_the_senders_and_silences_the_others() {
    let mut senders = PeerSenders::new(SenderSettings::new(SequencePolicy::Auto, 2, B, false), &[A, B]);
    senders.handle_up(at(0), Newcomer { restored: Some(Restored { sender: None, is_proven: true }), ..newcomer(1) });
    let restored = Some(Restored { sender: Some(A), is_proven: true });
    senders.handle_up(at(0), Newcomer { restored, usage: Use::ReceiveOnly, ..sibling(2, 1) });
    let told = all(&mut senders);
    assert!(told.contains(&numbers(A, 2, NumberSource::Own { from: 200 })) && told.contains(&prefer(A, 2)));
    assert!(told.contains(&Output::Silence { member: B, child: child(2) }));
    assert!(told.contains(&Output::Dispense { child: child(1), from: 100 }));
    assert_eq!(senders.siblings(), 1);
}

#[test]
fn a_snapshot_tells_again_what_holds_and_draws_no_new_number() {
    let senders = with_proven_sibling();
    let expected =
        [numbers(A, 1, NumberSource::Sequencer), numbers(A, 2, NumberSource::Own { from: 200 }), prefer(A, 2)];
    assert_eq!(senders.snapshot(A), expected);
    assert_eq!(senders.snapshot(B), [numbers(B, 1, NumberSource::Sequencer), prefer(B, 1)]);
}

#[test]
fn a_member_that_comes_back_is_told_everything() {
    let mut senders = with_proven_sibling();
    senders.handle_gone(at(4), A);
    senders.handle_joined(at(5), A);
    assert_eq!(all(&mut senders), [numbers(A, 1, NumberSource::Sequencer), prefer(A, 1)]);
}

#[test]
fn selectors_of_their_own_are_a_family_of_their_own() {
    let mut senders = with_proven_sibling();
    senders.handle_up(at(4), newcomer(7));
    let told = all(&mut senders);
    assert!(told.contains(&numbers(A, 7, NumberSource::Sequencer)) && told.contains(&prefer(A, 7)));
    senders.handle_wanted(at(5), OWNER, child(7));
    senders.handle_wanted(at(5), A, child(7));
    assert_eq!(all(&mut senders), [Output::Ask(child(7))], "A's sibling has other selectors");
}

#[test]
fn nothing_is_kept_of_what_is_gone() {
    let mut senders = auto();
    for spi in 1..500 {
        senders.handle_wanted(at(u64::from(spi)), A, child(spi));
        senders.handle_down(at(u64::from(spi)), child(spi));
        senders.handle_up(at(u64::from(spi)), newcomer(spi + 1));
        let _ = all(&mut senders);
    }
    assert_eq!((senders.children.len(), senders.told.len(), senders.preferred.len()), (1, 4, 4));
    assert!(senders.members.iter().all(|sender| sender.traffic.is_empty()));
}
