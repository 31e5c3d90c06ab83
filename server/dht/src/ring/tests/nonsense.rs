//! Messages that cannot be true, and floods.

use std::time::Duration;

use super::world::{World, address, peer};
use crate::ring::{Hop, Message, Place, Ring};
use crate::{NodeId, Peer, Point};

/// Far more machines than there are, with addresses where nobody listens.
fn crowd(first: u64, count: u64) -> Vec<Peer> {
    (first..first + count).map(|node| Peer { id: NodeId::from(node), ..peer(60_000, 9, 1) }).collect()
}

fn place(peer: Peer) -> Place {
    Place { point: peer.points().next().expect("one seat at least"), peer }
}

#[test]
fn what_cannot_be_true_is_refused_and_counted() {
    let mut world = World::settled(1, 5, 1);
    world.run(10);
    let point = world.rings[&1].views()[0].point;
    let foreign = place(peer(3, 1, 1));
    let elsewhere = Place { point: foreign.point.plus(1), ..foreign.clone() };
    let ask = |from, to| Message::Ask { from, to, number: 1, known: 0 };
    let refused = [
        (2, ask(foreign.clone(), point)),
        (3, ask(elsewhere, point)),
        (3, ask(foreign, point.plus(1))),
        (3, Message::Greet { from: peer(3, 1, 0) }),
        (3, Message::Farewell { from: peer(3, 1, 9) }),
        (1, Message::Greet { from: peer(1, 1, 1) }),
        (2, Message::Farewell { from: peer(3, 1, 1) }),
    ];
    let count = refused.len() as u64;
    for (from, message) in refused {
        world.deliver(1, from, message);
    }
    assert_eq!(world.rings[&1].refused(), count);
    world.run(5);
    assert_eq!(world.is_ideal(), Ok(()));
}

#[test]
fn answers_to_no_question_change_nothing() {
    let mut world = World::settled(1, 5, 1);
    let before = world.rings[&1].views();
    let from = peer(3, 1, 1);
    for number in [0, 1, 77, 100_000, u64::MAX] {
        let tell = Message::Tell {
            from: place(from.clone()),
            number,
            predecessor: Some(place(peer(99, 1, 1))),
            successors: Some(crowd(100, 20)),
        };
        world.deliver(1, 3, tell);
        let hop = Hop::Found(crowd(100, 20));
        world.deliver(1, 3, Message::Stepped { from: from.clone(), number, hop });
    }
    assert_eq!(world.rings[&1].views(), before);
}

/// Answers every question with machines that are not there, and tells of more.
fn lie(round: u64, message: &Message) -> Vec<Message> {
    let liar = peer(3, 1, 1);
    let list = || crowd(1000 + round * 200, 200);
    let mut answers = match message {
        Message::Ask { to, number, .. } => {
            let from = Place { peer: liar.clone(), point: *to };
            let predecessor = Some(place(Peer { id: NodeId::from(1000 + round), ..peer(60_000, 1, 8) }));
            vec![Message::Tell { from, number: *number, predecessor, successors: Some(list()) }]
        }
        Message::Step { number, .. } => {
            let hop = Hop::Nearer { before: list(), beyond: list() };
            vec![Message::Stepped { from: liar.clone(), number: *number, hop }]
        }
        Message::Greet { .. } => vec![Message::Greeted { from: liar.clone(), peers: list() }],
        Message::Tell { .. }
        | Message::Introduce { .. }
        | Message::Stepped { .. }
        | Message::Greeted { .. }
        | Message::Farewell { .. } => Vec::new(),
    };
    let told = [peer(1, 99, 4), Peer { incarnation: u64::MAX, ..liar.clone() }, peer(7, 99, 8)];
    let told = list().into_iter().take(10).chain(told);
    answers.extend(told.map(|peer| Message::Introduce { from: liar.clone(), peer }));
    answers
}

/// A member that lies about everything it can: nobody panics, nothing grows without a bound, and when it is gone the ring
/// is as it should be.
#[test]
fn a_liar_floods_nobody() {
    let mut world = World::settled(1, 12, 1);
    world.run(20);
    let calm = world.idle_rate(30);
    world.crash(3);
    world.liars.insert(3, lie);
    let mut most = 0;
    for _ in 0..30 {
        let before = world.sent;
        world.run(1);
        most = most.max(world.sent - before);
        for ring in world.rings.values() {
            let held = ring.neighbours().count();
            assert!(held <= 17, "{held} neighbours");
        }
    }
    println!("{calm:.1} messages a second and node, at most {most} in all with a liar");
    for disk in world.disks.values() {
        assert!(disk.len() < 30, "{} rows on the disk", disk.len());
    }
    world.liars.clear();
    world.until_ideal(60);
    world.run(30);
    let rate = world.idle_rate(30);
    assert!(rate < calm * 1.5 + 1.0, "{rate} in place of {calm}");
}

/// Lies about the life of others do not shut them out.
#[test]
fn a_later_life_that_nobody_lives_shuts_nobody_out() {
    let mut world = World::settled(1, 30, 1);
    world.run(20);
    for _ in 0..10 {
        for node in 2..=30 {
            let lie = Peer { incarnation: u64::MAX, address: address(60_000), ..peer(node, 1, 1) };
            let liar = if node == 3 { 4 } else { 3 };
            world.deliver(1, liar, Message::Introduce { from: peer(liar, 1, 1), peer: lie });
        }
        world.run(1);
    }
    world.run(20);
    world.until_ideal(60);
}

#[test]
fn the_peer_book_is_bounded_and_keeps_its_neighbours() {
    let mut world = World::new(1);
    world.settings.book = 300;
    world.settings.memory = Duration::from_secs(600);
    for node in 1..=10 {
        world.start(node, 1, node == 1, if node == 1 { &[] } else { &[1] });
    }
    world.until_ideal(30);
    for node in 100..1000 {
        world.deliver(1, node, Message::Greet { from: peer(node, 1, 1) });
        world.with(1, |ring, now| ring.introduce(now, peer(node + 1000, 1, 1)));
    }
    assert!(world.disks[&1].len() <= 300, "{}", world.disks[&1].len());
    assert!(world.disks[&1].len() > 200);
    assert_eq!(world.is_ideal(), Ok(()));
    world.run(700);
    assert_eq!(world.is_ideal(), Ok(()));
    assert_eq!(world.disks[&1].len(), 9, "who was silent for too long is forgotten");
}

#[test]
fn a_full_book_makes_room_for_those_that_a_lookup_named_all_together() {
    let mut world = World::new(1);
    world.settings.book = 300;
    world.start(1, 1, true, &[]);
    for node in 100..1000 {
        world.deliver(1, node, Message::Greet { from: peer(node, 1, 1) });
    }
    world.run(1);
    let knows = |ring: &Ring, node: u64| ring.contact(NodeId::from(node)).is_some();
    world.with(1, |ring, now| ring.introduce(now, peer(2000, 1, 1)));
    assert!(!world.with(1, |ring, _| knows(ring, 2000)), "hearsay takes the place of nobody who spoke");
    for node in 2000..2016 {
        world.with(1, |ring, now| ring.acquaint(now, peer(node, 1, 1)));
    }
    assert!((2000..2016).all(|node| world.with(1, |ring, _| knows(ring, node))));
    assert!(world.disks[&1].len() <= 300 - 16, "{}", world.disks[&1].len());
}

#[test]
fn lookups_are_bounded_and_each_ends_once() {
    let mut world = World::settled(1, 60, 1);
    world.run(30);
    for token in 0..2000 {
        let target = Point::new(world.random.next_u64());
        world.with(1, |ring, now| ring.lookup(now, token, target, now + Duration::from_secs(5)));
    }
    let refused = world.found.values().filter(|answers| answers[0].is_none()).count();
    assert!(refused > 500, "{refused} of 2000 refused at once");
    world.run(6);
    assert_eq!(world.found.len(), 2000);
    assert!(world.found.values().all(|answers| answers.len() == 1));
    let nobody = world.rings[&1].contact(NodeId::from(4711));
    assert!(nobody.is_none());
}

#[test]
fn a_lookup_that_nobody_answers_ends_at_its_deadline() {
    let mut world = World::settled(1, 60, 1);
    world.run(30);
    for node in 2..=60 {
        world.crash(node);
    }
    let target = world.rings[&1].views()[0].point.plus(1 << 47);
    let begun = world.now;
    world.with(1, |ring, now| ring.lookup(now, 5, target, now + Duration::from_secs(2)));
    world.run(2);
    assert_eq!(world.found[&5], vec![None]);
    assert!(world.now.since(begun) <= Duration::from_secs(2));
}
