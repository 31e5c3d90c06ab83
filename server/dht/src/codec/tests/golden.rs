//! Bytes as they were when they were agreed on: nodes of two versions, and a node and its old log, must understand each
//! other, so a change here is a change of the protocol.

use std::sync::Arc;
use std::time::Duration;

use super::{encoded, node, peer, request, version};
use crate::codec::{Bounded, decode};
use crate::kv::*;
use crate::ring::{self, Hop, Place};
use crate::{Ballot, Peer, Point, Version};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn assert_golden<T>(value: &T, golden: &str)
where
    T: serde::Serialize + serde::de::DeserializeOwned + Bounded + std::fmt::Debug,
{
    let bytes = encoded(value);
    assert_eq!(hex(&bytes), golden, "the bytes of {value:?} have changed");
    let back: T = decode(&bytes).unwrap();
    assert_eq!(format!("{value:?}"), format!("{back:?}"));
}

fn ballot() -> Ballot {
    Ballot { counter: 3, node: node(2) }
}

/// A change under way: the second member goes, the third comes.
fn joint() -> Config {
    let since = version(2, 9);
    let old = vec![Member { node: node(1), since: Version::default() }, Member { node: node(2), since }];
    let new =
        vec![Member { node: node(1), since: Version::default() }, Member { node: node(3), since: version(2, 10) }];
    Config { version: version(2, 10), old, new: Some(new), leaving: None }
}

fn register() -> Register {
    let mut register = Register::EMPTY;
    let fence = Some(Fence { lease_key: b"lock".to_vec(), token: 300 });
    register.apply(&Operation::Put { value: b"value".to_vec(), fence }, 1);
    register.apply(&Operation::Append(b"child".to_vec()), 2);
    let acquire = Operation::Acquire { owner: b"me".to_vec(), nonce: 5, ttl: Duration::from_millis(1500) };
    let answer = register.apply(&acquire, 301);
    register.remember(OpId { client: 9, number: 4 }, &answer);
    register
}

fn report() -> Report {
    let digest = Digest { keys: 300, hash: 400 };
    Report { config: joint(), chosen: true, tenure: Some(version(2, 9)), mark: version(1, 1), seq: 9, digest }
}

#[test]
fn the_bytes_of_messages_about_a_slot_are_as_agreed() {
    let (ballot, key, version, config) = (ballot(), b"k".to_vec(), version(2, 300), version(2, 10));
    let held = || Arc::new(register());
    assert_golden(&Message::Prepare { ballot, config: version, instead_of: None }, "0003020201ac0200");
    assert_golden(&Message::Prepare { ballot, config: version, instead_of: Some(ballot) }, "0003020201ac02010302");
    assert_golden(
        &Message::Promise { ballot, report: Box::new(report()) },
        "01030202010a0201000000020201090102010000000302010a00010102010901010109ac029003",
    );
    assert_golden(&Message::Fetch { ballot, after: Some(key.clone()) }, "02030201016b");
    let (registers, tenure, after) = (vec![(key.clone(), version, held())], Some(config), None);
    assert_golden(
        &Message::Held { ballot, tenure, after, registers, more: true },
        "0303020102010a0001016b0201ac02010576616c756501056368696c6401026d65050180cab5ee01ad0201046c6f636bac0201090404ad0201",
    );
    assert_golden(
        &Message::Nack { ballot, promised: ballot, config: joint(), chosen: false },
        "040302030202010a0201000000020201090102010000000302010a0000",
    );
    assert_golden(
        &Message::Accept { ballot, key: key.clone(), version, register: held(), config },
        "050302016b0201ac02010576616c756501056368696c6401026d65050180cab5ee01ad0201046c6f636bac0201090404ad0202010a",
    );
    assert_golden(&Message::Accepted { ballot, key: key.clone(), version }, "060302016b0201ac02");
    assert_golden(&Message::Behind { ballot, key: key.clone() }, "070302016b");
    assert_golden(&Message::Full { ballot }, "080302");
    assert_golden(
        &Message::AcceptConfig { ballot, config: joint() },
        "09030202010a0201000000020201090102010000000302010a00",
    );
    assert_golden(&Message::ConfigAccepted { ballot, version }, "0a03020201ac02");
    assert_golden(&Message::Confirm { ballot, round: 128 }, "0b03028001");
    assert_golden(
        &Message::Confirmed { ballot, round: 128, known: Some(version), full: true, digest: None },
        "0c03028001010201ac020100",
    );
    let (known, digest) = (Some(version), Some(Digest { keys: 300, hash: 400 }));
    assert_golden(
        &Message::Confirmed { ballot, round: 128, known, full: false, digest },
        "0c03028001010201ac020001ac029003",
    );
    assert_golden(&Message::List { ballot, after: Some(key.clone()) }, "0d030201016b");
    let (after, versions) = (None, vec![(key.clone(), version)]);
    assert_golden(&Message::Listed { ballot, after, versions, more: true }, "0e03020001016b0201ac0201");
    assert_golden(&Message::Purge { ballot, key, version }, "0f0302016b0201ac02");
    assert_golden(&Message::Succeed { ballot }, "100302");
    assert_golden(&Message::Learn { config: Config::founding([node(1), node(2)]) }, "110000000201000000020000000000");
}

#[test]
fn the_bytes_of_log_records_are_as_agreed() {
    assert_golden(&Entry::Promise(ballot()), "000302");
    let accept = Entry::Accept { key: b"k".to_vec(), version: version(2, 300), register: Arc::new(register()) };
    assert_golden(
        &accept,
        "01016b0201ac02010576616c756501056368696c6401026d65050180cab5ee01ad0201046c6f636bac0201090404ad02",
    );
    let config = Config { version: version(2, 11), leaving: joint().new, ..Config::founding([node(1)]) };
    assert_golden(&Entry::Config { config, chosen: false }, "0202010b0101000000000102010000000302010a00");
    assert_golden(&Entry::Lost { key: b"k".to_vec(), version: version(2, 300) }, "03016b0201ac02");
    assert_golden(&Entry::Purge { key: b"k".to_vec(), version: version(2, 300) }, "04016b0201ac02");
}

#[test]
fn the_bytes_of_requests_are_as_agreed() {
    let fence = Some(Fence { lease_key: b"lock".to_vec(), token: 300 });
    let ttl = Duration::from_millis(1500);
    let (old, new) = (b"old".to_vec(), b"new".to_vec());
    let child = || b"child".to_vec();
    assert_golden(&request(Operation::Get), "016b010100");
    assert_golden(
        &request(Operation::Put { value: b"value".to_vec(), fence }),
        "016b0101010576616c756501046c6f636bac02",
    );
    assert_golden(&request(Operation::Delete), "016b010102");
    assert_golden(
        &request(Operation::CompareAndSwap { expected: Some(old), new: Some(new) }),
        "016b01010301036f6c6401036e6577",
    );
    assert_golden(&request(Operation::Append(child())), "016b010104056368696c64");
    assert_golden(&request(Operation::Remove(child())), "016b010105056368696c64");
    assert_golden(&request(Operation::Contains(child())), "016b010106056368696c64");
    assert_golden(&request(Operation::List), "016b010107");
    assert_golden(
        &request(Operation::Acquire { owner: b"me".to_vec(), nonce: 5, ttl }),
        "016b010108026d65050180cab5ee01",
    );
    assert_golden(&request(Operation::Renew { token: 300 }), "016b010109ac02");
    assert_golden(&request(Operation::Release { token: 300 }), "016b01010aac02");
}

#[test]
fn the_bytes_of_machines_and_registers_are_as_agreed() {
    assert_golden(&peer(), "070300c0000201bb030200");
    let address = "[2001:db8::1]:8443".parse().unwrap();
    assert_golden(&Peer { address, leaving: true, ..peer() }, "07030120010db8000000000000000000000001fb410201");
    assert_golden(&Register::EMPTY, "0000000000");
    assert_golden(&register(), "010576616c756501056368696c6401026d65050180cab5ee01ad0201046c6f636bac0201090404ad02");
}

#[test]
fn the_bytes_of_messages_about_the_ring_are_as_agreed() {
    use ring::Message;
    let from = Place { point: peer().points().next().unwrap(), peer: peer() };
    let point = Point::new(0x0102_0304_0506);
    let (predecessor, successors) = (Some(from.clone()), Some(vec![peer()]));
    assert_golden(
        &Message::Ask { from: from.clone(), to: point, number: 300, known: 1 },
        "00070300c0000201bb030200a4a5f7ffae8b29868a9098a020ac0201",
    );
    assert_golden(
        &Message::Tell { from, number: 300, predecessor, successors },
        "01070300c0000201bb030200a4a5f7ffae8b29ac0201070300c0000201bb030200a4a5f7ffae8b290101070300c0000201bb030200",
    );
    assert_golden(&Message::Introduce { from: peer(), peer: peer() }, "02070300c0000201bb030200070300c0000201bb030200");
    assert_golden(
        &Message::Step { from: peer(), number: 300, target: point },
        "03070300c0000201bb030200ac02868a9098a020",
    );
    assert_golden(
        &Message::Stepped { from: peer(), number: 300, hop: Hop::Found(vec![peer()]) },
        "04070300c0000201bb030200ac020001070300c0000201bb030200",
    );
    assert_golden(
        &Message::Stepped { from: peer(), number: 300, hop: Hop::Nearer { before: Vec::new(), beyond: Vec::new() } },
        "04070300c0000201bb030200ac02010000",
    );
    assert_golden(&Message::Stepped { from: peer(), number: 300, hop: Hop::Outside }, "04070300c0000201bb030200ac0202");
    assert_golden(&Message::Greet { from: peer() }, "05070300c0000201bb030200");
    assert_golden(
        &Message::Greeted { from: peer(), peers: vec![peer()] },
        "06070300c0000201bb03020001070300c0000201bb030200",
    );
    assert_golden(&Message::Farewell { from: peer() }, "07070300c0000201bb030200");
}
