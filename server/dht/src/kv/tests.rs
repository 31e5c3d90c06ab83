//! Claims about single rules; whole slots under faults are the simulator's matter.

mod bounds;
mod model;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::kv::register::Recollection;
use crate::kv::*;
use crate::{Ballot, Instant, NodeId, Random, Version};

fn nodes(ids: &[u64]) -> BTreeSet<NodeId> {
    ids.iter().map(|id| NodeId::from(*id)).collect()
}

fn joint(old: &[u64], new: &[u64]) -> Config {
    Config { new: Some(Config::founding(nodes(new)).old), ..Config::founding(nodes(old)) }
}

fn op(client: u64, number: u64) -> OpId {
    OpId { client, number }
}

fn put(value: &[u8]) -> Operation {
    Operation::Put { value: value.to_vec(), fence: None }
}

fn acquire(owner: &str, nonce: u64) -> Operation {
    Operation::Acquire { owner: owner.into(), nonce, ttl: Duration::from_secs(1) }
}

/// A lone node whose disk is driven by hand.
struct Lone {
    slot: Slot,
    now: Instant,
    log: Vec<Entry>,
    persisted: usize,
    replies: Vec<(RequestId, Result<Answer, Refusal>)>,
}

impl Lone {
    fn new(log: Vec<Entry>) -> Self {
        let now = Instant::from_micros(0);
        let (settings, rules) = (Settings::default(), Rules::default());
        let slot = Slot::new(NodeId(1), settings, rules, Random::seeded(1), now, log.iter().cloned());
        Self { slot, now, persisted: log.len(), log, replies: Vec::new() }
    }

    fn founded() -> Self {
        Self::new(vec![Entry::Config { config: Config::founding([NodeId(1)]), chosen: true }])
    }

    fn input(&mut self, input: Input) -> Instant {
        self.slot.handle_input(self.now, input);
        loop {
            match self.slot.poll_output() {
                Output::Append { position, entry } => {
                    self.log.push(entry);
                    assert_eq!(position, self.log.len() as u64, "positions have no gap");
                }
                Output::Reply { id, reply, .. } => self.replies.push((id, reply)),
                Output::Transmit { to, .. } => panic!("a lone node has nobody to talk to, but spoke to {to}"),
                Output::Timeout(at) => return at,
            }
        }
    }

    fn persist(&mut self) {
        while self.persisted < self.log.len() {
            self.persisted = self.log.len();
            self.input(Input::Persisted { upto: self.persisted as u64 });
        }
    }

    fn elect(&mut self) {
        for _ in 0..3 {
            self.now = self.input(Input::Timeout).max(self.now);
            self.input(Input::Timeout);
            self.persist();
            if self.slot.leads().is_some() {
                return;
            }
        }
        panic!("a lone node must come to lead");
    }

    fn ask(&mut self, id: u64, operation: Operation) {
        let request = Request { key: b"k".to_vec(), op: op(1, id), operation };
        self.input(Input::Request { id: RequestId(id), request });
    }
}

#[test]
fn a_lone_member_leads_without_a_wait() {
    let mut node = Lone::founded();
    node.input(Input::Timeout);
    assert_eq!(node.slot.leads(), None, "its promise is not on the disk yet");
    node.persist();
    assert!(node.slot.leads().is_some());
}

#[test]
fn a_write_is_answered_only_after_it_is_persisted() {
    let mut node = Lone::founded();
    node.elect();
    node.ask(1, put(b"v"));
    assert_eq!(node.replies, [], "nothing is on the disk yet");
    node.persist();
    assert_eq!(node.replies, [(RequestId(1), Ok(Answer::Done))]);
}

#[test]
fn a_write_acked_survives_a_restart() {
    let mut node = Lone::founded();
    node.elect();
    node.ask(1, put(b"v"));
    node.persist();
    let mut again = Lone::new(node.log);
    again.elect();
    again.ask(2, Operation::Get);
    again.persist();
    assert_eq!(again.replies, [(RequestId(2), Ok(Answer::Value(Some(b"v".to_vec()))))]);
}

#[test]
fn a_ballot_grows_with_every_restart() {
    let mut node = Lone::founded();
    node.elect();
    let first = node.slot.state().promise;
    let mut again = Lone::new(node.log);
    again.elect();
    assert!(again.slot.state().promise > first, "{} after {first}", again.slot.state().promise);
}

#[test]
fn a_lone_node_leads_at_once_and_one_of_several_asks_the_others_first() {
    let mut node = Lone::founded();
    node.input(Input::Timeout);
    node.persist();
    assert!(node.slot.leads().is_some());
    let config = Config::founding([1, 2, 3].map(NodeId));
    let mut one = Lone::new(vec![Entry::Config { config, chosen: true }]);
    one.slot.handle_input(one.now, Input::Timeout);
    let mut said =
        std::iter::from_fn(|| Some(one.slot.poll_output()).filter(|said| !matches!(said, Output::Timeout(_))));
    assert!(
        said.all(|said| matches!(said, Output::Transmit { message: Message::Confirm { .. }, .. })),
        "only questions"
    );
    assert_eq!(one.slot.state().promise, Ballot::default());
}

#[test]
fn a_lone_node_reads_after_a_restart_without_a_write() {
    let mut node = Lone::founded();
    node.elect();
    node.ask(1, put(b"v"));
    node.persist();
    let mut again = Lone::new(node.log);
    again.elect();
    again.input(Input::ReadOnly(true));
    let records = again.log.len();
    again.ask(2, Operation::Get);
    assert_eq!(again.replies, [(RequestId(2), Ok(Answer::Value(Some(b"v".to_vec()))))]);
    assert_eq!(again.log.len(), records);
}

#[test]
fn a_node_that_does_not_lead_names_the_members() {
    let mut node = Lone::founded();
    node.ask(1, Operation::Get);
    let redirect = Refusal::Redirect { leader: None, members: vec![NodeId(1)], version: Version::default() };
    assert_eq!(node.replies, [(RequestId(1), Err(redirect))]);
}

#[test]
fn a_joint_configuration_needs_a_majority_of_both_sides() {
    let (config, rules) = (joint(&[1, 2, 3], &[3, 4, 5]), Rules::default());
    assert!(!config.quorum(&nodes(&[1, 2]), rules));
    assert!(!config.quorum(&nodes(&[4, 5]), rules));
    assert!(!config.quorum(&nodes(&[1, 3]), rules));
    assert!(config.quorum(&nodes(&[1, 3, 4]), rules));
}

#[test]
fn a_configuration_that_takes_over_needs_those_it_takes_over_from() {
    let old = Config::founding(nodes(&[1, 2, 3])).old;
    let config = Config { leaving: Some(old), ..Config::founding(nodes(&[4, 5, 6])) };
    assert!(config.quorum(&nodes(&[4, 5]), Rules::default()));
    assert!(!config.chosen_by(&nodes(&[4, 5]), Rules::default()));
    assert!(config.chosen_by(&nodes(&[1, 2, 4, 5]), Rules::default()));
}

#[test]
fn half_of_an_even_set_and_all_of_an_empty_one_are_no_quorum() {
    assert!(!Config::founding(nodes(&[1, 2, 3, 4])).quorum(&nodes(&[1, 2]), Rules::default()));
    assert!(!Config::default().quorum(&nodes(&[1]), Rules::default()));
}

#[test]
fn a_member_that_is_asked_to_leave_keeps_its_keys_until_that_is_chosen() {
    let mut durable = Durable::new(NodeId(1), Rules::default());
    durable.apply(&Entry::Config { config: Config::founding(nodes(&[1, 2, 3])), chosen: true });
    let version = Version { ballot: Ballot::default(), seq: 5 };
    durable.apply(&Entry::Accept { key: b"k".to_vec(), version, register: std::sync::Arc::default() });
    let without = Config { version: Version { seq: 6, ..version }, ..Config::founding(nodes(&[2, 3, 4])) };
    durable.apply(&Entry::Config { config: without.clone(), chosen: false });
    assert_eq!(durable.registers.len(), 1, "the configuration may still be undone");
    durable.apply(&Entry::Config { config: without.clone(), chosen: true });
    assert!(durable.registers.is_empty());
    assert_eq!((durable.tenure, durable.mark), (None, without.version));
}

#[test]
fn a_member_that_comes_back_starts_empty() {
    let mut durable = Durable::new(NodeId(1), Rules::default());
    durable.apply(&Entry::Config { config: Config::founding(nodes(&[1])), chosen: true });
    let version = Version { ballot: Ballot::default(), seq: 5 };
    durable.apply(&Entry::Accept { key: b"k".to_vec(), version, register: std::sync::Arc::default() });
    let since = Version { seq: 9, ..version };
    let config = Config { version: since, old: vec![Member { node: NodeId(1), since }], ..Config::default() };
    durable.apply(&Entry::Config { config, chosen: false });
    assert!(durable.registers.is_empty(), "what it held belongs to an earlier tenure");
    assert_eq!(durable.tenure, Some(since));
}

#[test]
fn an_operation_sent_again_is_remembered_and_a_late_copy_is_told_apart() {
    let mut register = Register::EMPTY;
    register.remember(op(1, 5), &Answer::Conflict);
    assert_eq!(register.recall(op(1, 5)), Recollection::Done(Answer::Conflict));
    assert_eq!(register.recall(op(1, 4)), Recollection::Superseded);
    assert_eq!(register.recall(op(1, 6)), Recollection::New);
    assert_eq!(register.recall(op(2, 4)), Recollection::New);
}

#[test]
fn the_memory_of_a_register_is_bounded() {
    let mut register = Register::EMPTY;
    for client in 0..1000 {
        register.remember(op(client, 1), &Answer::Done);
    }
    assert_eq!(register.recall(op(0, 1)), Recollection::New);
    assert_eq!(register.recall(op(999, 1)), Recollection::Done(Answer::Done));
}

#[test]
fn a_swap_needs_the_expected_value() {
    let mut register = Register::EMPTY;
    let swap = |expected: Option<&[u8]>, new: &[u8]| Operation::CompareAndSwap {
        expected: expected.map(<[u8]>::to_vec),
        new: Some(new.to_vec()),
    };
    assert_eq!(register.apply(&swap(Some(b"a"), b"b"), 1), Answer::Conflict);
    assert_eq!(register.apply(&swap(None, b"a"), 2), Answer::Done);
    assert_eq!(register.apply(&Operation::Get, 3), Answer::Value(Some(b"a".to_vec())));
}

#[test]
fn a_set_tells_what_was_there() {
    let mut register = Register::EMPTY;
    assert_eq!(register.apply(&Operation::Append(b"x".to_vec()), 1), Answer::Found(false));
    assert_eq!(register.apply(&Operation::Append(b"x".to_vec()), 2), Answer::Found(true));
    assert_eq!(register.apply(&Operation::List, 3), Answer::Children(vec![b"x".to_vec()]));
    assert_eq!(register.apply(&Operation::Remove(b"x".to_vec()), 4), Answer::Found(true));
    assert_eq!(register.apply(&Operation::Contains(b"x".to_vec()), 5), Answer::Found(false));
    assert!(register.is_tombstone());
}

#[test]
fn a_lease_is_exclusive_and_its_token_is_the_place_of_its_write() {
    let mut register = Register::EMPTY;
    assert_eq!(register.apply(&acquire("a", 1), 7), Answer::Granted(7));
    assert_eq!(register.apply(&acquire("a", 1), 8), Answer::Granted(7), "the same attempt gets the same token");
    assert_eq!(register.apply(&acquire("b", 1), 9), Answer::Held);
    assert_eq!(register.apply(&Operation::Renew { token: 6 }, 10), Answer::Expired);
    assert_eq!(register.apply(&Operation::Release { token: 7 }, 11), Answer::Done);
    assert_eq!(register.apply(&acquire("b", 1), 12), Answer::Granted(12));
}

#[test]
fn a_write_with_an_older_fence_is_refused() {
    let mut register = Register::EMPTY;
    let fenced = |token| Operation::Put { value: vec![1], fence: Some(Fence { lease_key: b"l".to_vec(), token }) };
    assert_eq!(register.apply(&fenced(5), 1), Answer::Done);
    assert_eq!(register.apply(&fenced(4), 2), Answer::StaleFence);
    assert_eq!(register.apply(&fenced(5), 3), Answer::Done);
    register.apply(&Operation::Delete, 4);
    assert!(!register.is_tombstone(), "the fence must outlive the value");
}

#[test]
fn a_lease_ends_when_its_time_is_over() {
    let mut node = Lone::founded();
    node.elect();
    node.ask(1, acquire("a", 1));
    node.persist();
    node.ask(2, acquire("b", 1));
    node.persist();
    let begun = node.now;
    while node.now.since(begun) < Duration::from_millis(1300) {
        node.now = node.input(Input::Timeout).max(node.now);
        node.input(Input::Timeout);
        node.persist();
    }
    node.ask(3, acquire("b", 1));
    node.persist();
    let answers: Vec<_> = node.replies.iter().map(|(_, reply)| reply.clone()).collect();
    assert!(matches!(answers[0], Ok(Answer::Granted(_))), "{answers:?}");
    assert_eq!(answers[1], Ok(Answer::Held));
    assert!(matches!(answers[2], Ok(Answer::Granted(_))), "{answers:?}");
}

#[test]
fn a_renewal_that_a_full_disk_held_up_begins_the_time_of_its_lease_anew() {
    let mut node = Lone::founded();
    node.elect();
    node.ask(1, acquire("a", 1));
    node.persist();
    let Some((_, Ok(Answer::Granted(token)))) = node.replies.pop() else { panic!("the lease is free") };
    let begun = node.now;
    let run = |node: &mut Lone, millis| {
        while node.now.since(begun) < Duration::from_millis(millis) {
            node.now = node.input(Input::Timeout).max(node.now);
            node.input(Input::Timeout);
            node.persist();
        }
    };
    run(&mut node, 500);
    node.ask(2, Operation::Renew { token });
    node.input(Input::ReadOnly(true));
    // A write that finds no room tells the leader.
    let other = Request { key: b"j".to_vec(), op: op(2, 1), operation: put(b"v") };
    node.input(Input::Request { id: RequestId(9), request: other });
    let told = node.replies.iter().find(|(id, _)| *id == RequestId(2)).cloned();
    assert!(told.is_some_and(|(_, reply)| reply.is_err()), "nobody waits for it any more: {:?}", node.replies);
    node.replies.clear();
    node.input(Input::ReadOnly(false));
    node.persist();
    run(&mut node, 1300);
    node.ask(2, Operation::Renew { token });
    node.ask(3, acquire("b", 1));
    node.persist();
    let answer = |id| node.replies.iter().rfind(|(of, _)| *of == RequestId(id)).map(|(_, reply)| reply.clone());
    assert_eq!((answer(2), answer(3)), (Some(Ok(Answer::Done)), Some(Ok(Answer::Held))));
}
