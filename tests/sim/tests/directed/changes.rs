//! When the members change and when another leads: the ring, the node, and the one that goes have their say.

use std::time::Duration;

use specter_dht::NodeId;
use specter_dht::kv::{Answer, Input, Message, Operation, Refusal, Rules};

use crate::stage::{Letter, Stage, write};

fn wanted(nodes: &[u64], millis: u64) -> Input {
    let nodes = nodes.iter().copied().map(NodeId::from).collect();
    Input::Wanted { nodes, hold_off: Duration::from_millis(millis) }
}

fn led() -> Stage {
    let mut stage = Stage::new(Rules::default(), 3, 4);
    assert!(stage.elect(1));
    stage.put(1, "kept");
    stage
}

#[test]
fn members_change_only_when_others_have_been_wanted_for_long_enough() {
    let mut stage = led();
    stage.input(1, wanted(&[1, 2, 4], 1000));
    stage.pass(900);
    assert!(stage.config(1).is_stable() && !stage.is_changing(1));
    stage.input(1, wanted(&[1, 2, 4], 60_000));
    stage.pass(300);
    assert!(stage.config(1).contains(NodeId(4)), "the earlier end of two counts");
    stage.input(1, wanted(&[1, 2, 3], 60_000));
    stage.pass(500);
    stage.input(1, wanted(&[1, 2, 3], 0));
    stage.pass(100);
    assert!(stage.config(1).contains(NodeId(3)), "a member that leaves in order is replaced at once");
}

#[test]
fn members_change_only_when_the_node_permits_it() {
    let mut stage = led();
    stage.input(1, Input::Permit { may_change: false });
    stage.input(1, wanted(&[1, 4], 0));
    stage.pass(1000);
    assert!(!stage.config(1).contains(NodeId(4)) && !stage.is_changing(1));
    stage.passes = |letter| letter.to != 4;
    stage.input(1, Input::Permit { may_change: true });
    assert!(stage.is_changing(1));
    stage.pass(500);
    assert!(stage.is_changing(1), "it waits for node 4");
    stage.passes = |_| true;
    stage.input(1, Input::Permit { may_change: false });
    stage.pass(500);
    assert!(!stage.is_changing(1) && stage.config(1).contains(NodeId(4)), "what is begun comes to its end");
}

/// Node 3 never heard that it went, and is wanted again: it must not hold up those who know better.
#[test]
fn a_member_that_missed_a_change_does_not_refuse_the_candidate_that_brings_it_back() {
    let mut stage = Stage::new(Rules::default(), 3, 5);
    assert!(stage.elect(1));
    stage.put(1, "kept");
    stage.reach(&[&[1, 2, 4, 5]]);
    stage.want(&[4]);
    stage.pass(500);
    assert!(stage.elect(4) && stage.config(3).contains(NodeId(3)));
    // Of the new side only node 5 hears of the next change before the leader restarts.
    stage.reach(&[&[4, 5]]);
    stage.want(&[2, 3, 5]);
    stage.pass(100);
    stage.restart(4);
    assert!(!stage.config(5).is_stable() && stage.config(3).is_stable());
    stage.reach(&[&[1, 2, 3, 4, 5]]);
    assert!(stage.elect(5), "nobody who knows less is in its way");
    stage.pass(500);
    assert_eq!(stage.get(5), Some(Some("kept".into())));
}

#[test]
fn nobody_can_be_wanted_twice_or_nobody_at_all() {
    let mut stage = led();
    for nodes in [&[][..], &[1, 1, 2], &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]] {
        stage.input(1, wanted(nodes, 0));
        stage.pass(500);
        assert_eq!(stage.config(1).nodes().len(), 3);
    }
}

#[test]
fn a_leader_that_goes_has_another_lead_without_an_election_being_due() {
    let mut stage = led();
    stage.pass(100);
    stage.wake(&[]);
    stage.send(1, "k", write("waits"), 500);
    stage.input(1, Input::HandOver);
    stage.deliver();
    assert!(!stage.leads(1));
    let next = [2, 3].into_iter().find(|id| stage.leads(*id)).expect("another leads at once");
    assert_eq!(stage.reply(500), Some(&Ok(Answer::Done)), "what was begun comes to its end first");
    assert_eq!(stage.get(next), Some(Some("waits".into())));
}

#[test]
fn a_leader_that_goes_asks_the_member_that_lacks_least() {
    let mut stage = led();
    stage.passes = |letter| letter.to != 2 || !matches!(letter.message, Message::Accept { .. });
    stage.put(1, "new");
    stage.input(1, Input::HandOver);
    stage.deliver();
    assert!(stage.leads(3) && !stage.leads(2));
    assert_eq!(stage.get(3), Some(Some("new".into())));
}

#[test]
fn what_a_leader_that_goes_has_not_begun_is_told_whom_to_ask() {
    let mut stage = led();
    stage.passes = |letter| !matches!(letter.message, Message::Accepted { .. });
    stage.send(1, "k", write("on its way"), 500);
    stage.input(1, Input::HandOver);
    stage.send(1, "other", write("not begun"), 501);
    stage.passes = |_| true;
    stage.pass(200);
    assert_eq!(stage.reply(500), Some(&Ok(Answer::Done)));
    let told = stage.reply(501).cloned();
    let Some(Err(Refusal::Redirect { leader: Some(leader), .. })) = told else { panic!("it is told {told:?}") };
    assert!(stage.leads(u64::try_from(leader.0).expect("a small number")));
}

#[test]
fn a_leader_that_a_change_puts_out_has_a_member_lead_at_once() {
    let mut stage = led();
    stage.wake(&[]);
    stage.input(1, wanted(&[2, 3, 4], 0));
    stage.deliver();
    assert!(!stage.leads(1) && !stage.config(1).contains(NodeId(1)));
    let next = [2, 3, 4].into_iter().find(|id| stage.leads(*id)).expect("another leads without an election being due");
    assert_eq!(stage.get(next), Some(Some("kept".into())));
}

#[test]
fn a_leader_that_nobody_can_replace_goes_on() {
    let mut stage = Stage::new(Rules::default(), 1, 1);
    assert!(stage.elect(1));
    stage.input(1, Input::HandOver);
    stage.put(1, "still");
    assert_eq!(stage.ask(1, "k", Operation::Get), Some(Answer::Value(Some(b"still".to_vec()))));
}

#[test]
fn only_the_leader_a_member_follows_can_ask_it_to_lead() {
    let mut stage = led();
    let old = stage.ballot(1);
    stage.pass(100);
    assert!(stage.elect(2));
    stage.wake(&[]);
    stage.post(Letter { from: 1, to: 3, message: Message::Succeed { ballot: old } });
    stage.deliver();
    assert!(stage.leads(2) && !stage.leads(3));
}

#[test]
fn a_slot_with_one_full_disk_takes_writes_and_brings_that_member_up_to_date_afterwards() {
    let mut stage = led();
    stage.input(1, Input::ReadOnly(true));
    stage.put(1, "with the others");
    assert_eq!(stage.get(1), Some(Some("with the others".into())));
    assert_ne!(stage.held(1, "k"), stage.held(2, "k"));
    stage.input(1, Input::ReadOnly(false));
    stage.pass(200);
    assert_eq!(stage.held(1, "k"), stage.held(2, "k"));
}

#[test]
fn a_slot_with_a_majority_of_full_disks_takes_no_writes_but_reads_and_says_why() {
    let mut stage = led();
    stage.input(1, Input::ReadOnly(true));
    stage.input(2, Input::ReadOnly(true));
    stage.send(1, "k", write("too late to refuse"), 500);
    stage.pass(100);
    assert!(matches!(stage.reply(500), Some(Err(Refusal::Unknown { .. }))), "{:?}", stage.reply(500));
    stage.send(1, "k", write("refused"), 501);
    stage.pass(100);
    assert_eq!(stage.reply(501), Some(&Err(Refusal::ReadOnly)));
    assert_eq!(stage.get(1), Some(Some("kept".into())));
    // Another leader can still be elected, and reads.
    assert!(stage.elect(3));
    stage.send(3, "k", write("refused"), 502);
    stage.pass(100);
    assert!(stage.reply(502).is_some_and(Result::is_err));
    stage.input(2, Input::ReadOnly(false));
    stage.pass(100);
    stage.send(3, "k", write("taken"), 503);
    stage.pass(100);
    assert_eq!(stage.reply(503), Some(&Ok(Answer::Done)));
    assert_eq!(stage.get(3), Some(Some("taken".into())));
}

#[test]
fn a_change_to_members_whose_disks_are_full_is_undone() {
    let mut stage = Stage::new(Rules::default(), 1, 2);
    assert!(stage.elect(1));
    stage.put(1, "kept");
    stage.pass(100);
    stage.input(2, Input::ReadOnly(true));
    stage.want(&[1, 2]);
    stage.pass(100);
    assert!(stage.is_changing(1));
    stage.want(&[1]);
    stage.pass(1500);
    assert!(!stage.is_changing(1) && stage.config(1).nodes().len() == 1);
    stage.put(1, "goes on");
}

/// A packet of a former leader's, late by seconds, may ask a former member, who has promised a higher ballot since.
#[test]
fn a_leader_heeds_the_refusal_of_members_only() {
    let mut stage = led();
    let (ballot, config) = (stage.ballot(1), stage.config(1).clone());
    let promised = specter_dht::Ballot { counter: ballot.counter + 1, node: NodeId(4) };
    let refusal = |config| Message::Nack { ballot, promised, config, chosen: true };
    stage.input(1, Input::Message { from: NodeId(4), message: refusal(config.clone()) });
    assert!(stage.leads(1));
    stage.input(1, Input::Message { from: NodeId(2), message: refusal(config) });
    assert!(!stage.leads(1));
}

#[test]
fn members_that_all_start_again_have_a_leader_before_an_election_is_due() {
    let mut stage = led();
    stage.wake(&[1, 2, 3]);
    stage.pass(100);
    for id in 1..=3 {
        stage.restart(id);
    }
    stage.pass(50);
    assert!(stage.leads(1), "who led before leads as soon as a majority has said that nobody does");
    assert_eq!(stage.get(1), Some(Some("kept".into())));
}

#[test]
fn members_that_start_again_without_their_leader_have_another_before_an_election_is_due() {
    let mut stage = led();
    stage.wake(&[2, 3]);
    stage.pass(100);
    stage.passes = |letter| letter.to != 1 && letter.from != 1;
    let (two, three) = (2, 3);
    stage.restart(two);
    stage.restart(three);
    stage.pass(250);
    assert!(stage.leads(two) || stage.leads(three));
}

#[test]
fn a_member_that_starts_again_leaves_the_leader_in_its_place() {
    let mut stage = led();
    stage.wake(&[1, 2, 3]);
    stage.pass(100);
    let ballot = stage.ballot(1);
    for _ in 0..20 {
        stage.restart(2);
        stage.pass(300);
        assert!(stage.leads(1));
        assert_eq!(stage.ballot(2), ballot, "it has not promised itself anything");
    }
}

#[test]
fn a_candidate_that_is_no_member_of_a_newer_configuration_has_one_lead_that_is() {
    let mut stage = led();
    // 2 hears nothing of the change to 4 alone; its end is accepted by 3 and 4.
    stage.passes = |letter| match &letter.message {
        Message::AcceptConfig { config, .. } => letter.to > 2 || (letter.to == 1 && !config.is_stable()),
        Message::Learn { .. } => letter.to != 2,
        _ => true,
    };
    stage.want(&[4]);
    stage.pass(500);
    assert!(stage.config(2).contains(NodeId::from(2)) && !stage.config(3).contains(NodeId::from(3)));
    stage.restart(1);
    stage.passes = |_| true;
    // 4 does not try by itself.
    assert!(!stage.elect(2) && stage.leads(4));
    assert_eq!(stage.get(4), Some(Some("kept".into())));
}
