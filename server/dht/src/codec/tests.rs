//! Claims about the bytes: they are what they were, nothing else is taken for them, and nothing is believed beyond bounds.

mod bytes;
mod garbage;
mod golden;
pub(crate) mod strategy;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};

use crate::codec::*;
use crate::kv::limits::*;
use crate::kv::register::Remembered;
use crate::kv::*;
use crate::{NodeId, Peer, Point, ring};
use strategy::Span;

pub(crate) fn encoded<T: Serialize + Bounded>(value: &T) -> Vec<u8> {
    let mut buffer = Vec::new();
    encode(value, &mut buffer).expect("the value is within its bounds");
    buffer
}

/// What comes back is the same; messages about a slot have no equality, so their words are compared.
fn assert_comes_back<T: Serialize + DeserializeOwned + Bounded + Debug>(value: &T) {
    let bytes = encoded(value);
    let back: T = decode(&bytes).expect("what was encoded can be decoded");
    assert_eq!(format!("{value:?}"), format!("{back:?}"));
    assert_eq!(bytes, encoded(&back));
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(decode::<T>(&longer), Err(CodecError::Trailing(1))), "a byte behind it");
    assert!(decode::<T>(&bytes[..bytes.len() - 1]).is_err(), "a byte short");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_message_about_a_slot_comes_back(value in strategy::message(Span::WIDEST, strategy::config(Span::WIDEST))) {
        assert_comes_back(&value);
    }

    #[test]
    fn a_log_record_comes_back(value in strategy::entry()) {
        assert_comes_back(&value);
    }

    #[test]
    fn a_request_comes_back(value in strategy::request()) {
        assert_comes_back(&value);
    }

    #[test]
    fn a_register_comes_back(value in strategy::register(Span::WIDEST)) {
        assert_comes_back(&value);
    }

    #[test]
    fn a_message_about_the_ring_comes_back(value in strategy::ring_message()) {
        assert_comes_back(&value);
    }

    #[test]
    fn a_machine_comes_back(value in strategy::peer()) {
        assert_comes_back(&value);
    }
}

fn node(number: u64) -> NodeId {
    NodeId::from(number)
}

fn version(counter: u32, seq: u64) -> Version {
    Version { ballot: Ballot { counter, node: node(1) }, seq }
}

fn request(operation: Operation) -> Request {
    Request { key: b"k".to_vec(), op: OpId { client: 1, number: 1 }, operation }
}

fn peer() -> Peer {
    Peer { id: node(7), incarnation: 3, address: "192.0.2.1:443".parse().unwrap(), seats: 2, leaving: false }
}

/// The bound lies between the two: one is sent and taken, the other is neither.
fn assert_bound<T: Serialize + DeserializeOwned + Bounded + Debug>(within: &T, beyond: &T) {
    assert_comes_back(within);
    assert!(matches!(encode(beyond, &mut Vec::new()), Err(CodecError::OutOfBounds(_))), "it was sent: {beyond:?}");
    let bytes = postcard::to_allocvec(beyond).unwrap();
    assert!(matches!(decode::<T>(&bytes), Err(CodecError::OutOfBounds(_))), "it was believed: {beyond:?}");
}

#[test]
fn a_long_key_is_refused() {
    let read = |length: usize| Request { key: vec![7; length], ..request(Operation::Get) };
    assert_bound(&read(KEY_MAX), &read(KEY_MAX + 1));
    let purge = |length: usize| Entry::Purge { key: vec![7; length], version: version(1, 1) };
    assert_bound(&purge(KEY_MAX), &purge(KEY_MAX + 1));
}

#[test]
fn a_long_value_is_refused_wherever_it_stands() {
    let bound = |longest: usize, make: fn(Vec<u8>) -> Operation| {
        assert_bound(&request(make(vec![7; longest])), &request(make(vec![7; longest + 1])));
    };
    bound(VALUE_MAX, |value| Operation::Put { value, fence: None });
    bound(VALUE_MAX, |value| Operation::CompareAndSwap { expected: Some(value), new: None });
    bound(VALUE_MAX, |value| Operation::CompareAndSwap { expected: None, new: Some(value) });
    bound(CHILD_MAX, Operation::Append);
    bound(CHILD_MAX, Operation::Remove);
    bound(CHILD_MAX, Operation::Contains);
    let held = |length: usize| Register { value: Some(vec![7; length]), ..Register::EMPTY };
    assert_bound(&held(VALUE_MAX), &held(VALUE_MAX + 1));
}

fn children(count: usize, length: usize) -> Register {
    let set = (0..count).map(|number| {
        let mut child = vec![0; length];
        child[..8].copy_from_slice(&number.to_be_bytes());
        child
    });
    Register { set: set.collect(), ..Register::EMPTY }
}

#[test]
fn a_large_register_is_refused() {
    assert_bound(&children(CHILDREN_MAX, 8), &children(CHILDREN_MAX + 1, 8));
    assert_bound(&children(1, CHILD_MAX), &children(1, CHILD_MAX + 1));
    assert_bound(&children(500, CHILD_MAX), &children(520, CHILD_MAX));
    let fences = |count: usize| Register {
        fences: (0..count).map(|key| (key.to_be_bytes().to_vec(), 1)).collect(),
        ..Register::EMPTY
    };
    assert_bound(&fences(FENCES_MAX), &fences(FENCES_MAX + 1));
}

#[test]
fn a_register_remembers_no_more_than_a_leader_makes_it() {
    let mut register = Register::EMPTY;
    for client in 0..100 {
        register.remember(OpId { client, number: 1 }, &Answer::Done);
    }
    let mut beyond = register.clone();
    beyond.recent.push(register.recent[0]);
    assert_bound(&register, &beyond);
    let remembered = |answer| postcard::to_allocvec(&(OpId { client: 1, number: 1 }, answer)).unwrap();
    assert!(postcard::from_bytes::<Remembered>(&remembered(Answer::Granted(1))).is_ok());
    assert!(postcard::from_bytes::<Remembered>(&remembered(Answer::Children(Vec::new()))).is_err());
}

#[test]
fn a_lease_that_is_no_lease_is_refused() {
    let acquire = |owner: usize, ttl| request(Operation::Acquire { owner: vec![7; owner], nonce: 1, ttl });
    let second = Duration::from_secs(1);
    assert_bound(&acquire(OWNER_MAX, second), &acquire(OWNER_MAX + 1, second));
    assert_bound(&acquire(1, LEASE_SHORTEST), &acquire(1, Duration::ZERO));
    assert_bound(&acquire(1, LEASE_LONGEST), &acquire(1, LEASE_LONGEST + second));
    let held = |token| {
        let lease = Lease { owner: b"o".to_vec(), nonce: 1, ttl: second, token };
        Register { lease: Some(lease), ..Register::EMPTY }
    };
    assert_bound(&held(SEQ_MAX), &held(SEQ_MAX + 1));
    assert_bound(&request(Operation::Renew { token: SEQ_MAX }), &request(Operation::Renew { token: u64::MAX }));
}

#[test]
fn numbers_that_somebody_counts_on_from_leave_room() {
    let ballot = |counter| Message::Full { ballot: Ballot { counter, node: node(1) } };
    assert_bound(&ballot(COUNTER_MAX), &ballot(COUNTER_MAX + 1));
    let seq = |seq| Entry::Purge { key: Vec::new(), version: version(1, seq) };
    assert_bound(&seq(SEQ_MAX), &seq(SEQ_MAX + 1));
    let round = |round| Message::Confirmed { ballot: Ballot::default(), round, known: None, full: false, digest: None };
    assert_bound(&round(NUMBER_MAX), &round(NUMBER_MAX + 1));
    let life = |incarnation| Peer { incarnation, ..peer() };
    assert_bound(&life(NUMBER_MAX), &life(u64::MAX));
}

#[test]
fn a_configuration_that_cannot_be_is_refused() {
    let learn = |config| Message::Learn { config };
    let side = |count: u64| Config::founding((0..count).map(node)).old;
    let of = |old, new, leaving| learn(Config { version: version(1, 1), old, new, leaving });
    assert_bound(&of(side(9), None, None), &of(side(10), None, None));
    assert_bound(&of(side(3), Some(side(9)), None), &of(side(3), Some(side(10)), None));
    assert_bound(&of(side(3), None, Some(side(9))), &of(side(3), None, Some(side(10))));
    let twice = [side(2), side(2)].concat();
    assert_bound(&of(side(3), Some(side(1)), None), &of(side(3), Some(side(0)), None));
    assert_bound(&of(side(2), None, None), &of(twice, None, None));
    assert_bound(&of(side(2), None, None), &of(side(0), None, None));
    let admitted = |since| of(vec![Member { node: node(1), since }], None, None);
    assert_bound(&admitted(version(1, 1)), &admitted(version(1, 2)));
    assert_bound(&of(side(2), None, None), &of(side(2), Some(side(1)), Some(side(1))));
}

#[test]
fn a_leader_writes_nothing_newer_than_itself() {
    let ballot = Ballot { counter: 2, node: node(1) };
    let accept = |version, config| {
        let (key, register) = (Vec::new(), Arc::new(Register::EMPTY));
        Message::Accept { ballot, key, version, register, config }
    };
    assert_bound(&accept(version(2, 1), version(2, 1)), &accept(version(3, 1), version(2, 1)));
    assert_bound(&accept(version(2, 1), version(2, 1)), &accept(version(2, 1), version(3, 1)));
    let propose = |version| Message::AcceptConfig { ballot, config: Config { version, ..Config::founding([node(1)]) } };
    assert_bound(&propose(version(2, 1)), &propose(version(3, 1)));
}

fn held(registers: Vec<(Key, Version, Arc<Register>)>) -> Message {
    let ballot = Ballot { counter: 2, node: node(1) };
    Message::Held { ballot, tenure: None, after: None, registers, more: false }
}

#[test]
fn what_a_member_tells_a_candidate_is_held_to_its_bounds_in_every_part() {
    let of = |key: usize, counter, register| held(vec![(vec![7; key], version(counter, 1), Arc::new(register))]);
    assert_bound(&of(KEY_MAX, 2, Register::EMPTY), &of(KEY_MAX + 1, 2, Register::EMPTY));
    assert_bound(&of(1, 2, Register::EMPTY), &of(1, 3, Register::EMPTY));
    assert_bound(&of(1, 2, children(1, 8)), &of(1, 2, children(1, CHILD_MAX + 1)));
    let promise = |seq, keys| {
        let (config, mark, digest) = (Config::default(), Version::default(), Digest { keys, hash: 1 });
        let report = Report { config, chosen: true, tenure: None, mark, seq, digest };
        Message::Promise { ballot: Ballot::default(), report: Box::new(report) }
    };
    assert_bound(&promise(SEQ_MAX, KEYS_MAX), &promise(SEQ_MAX + 1, KEYS_MAX));
    assert_bound(&promise(SEQ_MAX, KEYS_MAX), &promise(SEQ_MAX, KEYS_MAX + 1));
}

#[test]
fn a_machine_stands_where_its_name_says() {
    let from = peer();
    let point = from.points().next().unwrap();
    let ask = |point, to| {
        let from = ring::Place { peer: peer(), point };
        ring::Message::Ask { from, to, number: 1, known: 0 }
    };
    assert_bound(&ask(point, Point::new(1)), &ask(point.plus(1), Point::new(1)));
    let seats = |seats| Peer { seats, ..peer() };
    assert_bound(&seats(1), &seats(0));
    assert_bound(&seats(8), &seats(9));
}

#[test]
fn a_point_beyond_the_ring_is_refused() {
    let step = ring::Message::Step { from: peer(), number: 1, target: Point::new(u64::MAX) };
    let mut bytes = encoded(&step);
    // The last byte of the point: its bits from the 42nd on.
    *bytes.last_mut().unwrap() += 0x40;
    assert!(matches!(decode::<ring::Message>(&bytes), Err(CodecError::OutOfBounds(_))));
}

#[test]
fn a_list_of_too_many_machines_is_refused() {
    let greeted = |count| ring::Message::Greeted { from: peer(), peers: vec![peer(); count] };
    assert_bound(&greeted(PEERS_MAX), &greeted(PEERS_MAX + 1));
    let hop = |count| ring::Message::Stepped { from: peer(), number: 1, hop: ring::Hop::Found(vec![peer(); count]) };
    assert_bound(&hop(PEERS_MAX), &hop(PEERS_MAX + 1));
}

#[test]
fn a_frame_has_a_longest_length_on_both_sides() {
    let full = Arc::new(Register { value: Some(vec![7; VALUE_MAX]), ..Register::EMPTY });
    let of = |count: u8| held((0..count).map(|key| (vec![key], version(1, 1), Arc::clone(&full))).collect());
    assert_comes_back(&of(15));
    let mut buffer = b"before".to_vec();
    assert!(matches!(encode(&of(16), &mut buffer), Err(CodecError::Length(length)) if length > FRAME_BYTES_MAX));
    assert_eq!(buffer, b"before", "nothing is left of it");
    let bytes = vec![0; FRAME_BYTES_MAX + 1];
    assert_eq!(decode::<Register>(&bytes), Err(CodecError::Length(FRAME_BYTES_MAX + 1)));
}

#[test]
fn a_list_that_says_it_is_longer_than_the_frame_is_refused() {
    // A set of 2^60 children, and three bytes.
    let mut bytes = vec![0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    bytes.extend([0; 3]);
    assert!(matches!(decode::<Register>(&bytes), Err(CodecError::Malformed(_))));
    assert_eq!(decode::<Register>(&[]), Err(CodecError::Malformed(postcard::Error::DeserializeUnexpectedEnd)));
}

#[test]
fn a_set_survives_its_way_in_order() {
    let set = BTreeSet::from([b"b".to_vec(), b"a".to_vec(), Vec::new()]);
    assert_comes_back(&Register { set, ..Register::EMPTY });
}
