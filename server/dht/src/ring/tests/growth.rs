//! Nodes come, go, and come back.

use std::time::Duration;

use super::world::World;
use crate::Point;
use crate::ring::invariant;

#[test]
fn rings_of_every_small_size_become_ideal_when_all_join_at_once() {
    for nodes in [1, 2, 3, 5, 17, 18, 20, 40] {
        for seats in [1, 4] {
            for seed in 0..2 {
                let mut world = World::of(seed, nodes, seats);
                let took = world.until_ideal(30);
                println!("{nodes} nodes, {seats} seats, seed {seed}: {took} s");
                world.run(20);
                assert_eq!(world.is_ideal(), Ok(()), "and stay so");
                assert_eq!(world.look_up(50), 50);
            }
        }
    }
}

#[test]
fn a_ring_that_grows_node_by_node_is_one_ring_at_every_moment() {
    for seats in [1, 4] {
        let mut world = World::new(7);
        for node in 1..=20 {
            let seed = 1 + world.random.below(node.max(2) - 1);
            world.start(node, seats, node == 1, &[seed]);
            for _ in 0..3 {
                world.run(1);
                assert_eq!(invariant::check(&world.members()), Ok(()), "with {node} nodes");
            }
        }
        world.until_ideal(20);
    }
}

#[test]
fn nothing_changes_and_nothing_is_written_when_nothing_happens() {
    for (nodes, seats) in [(1, 1), (3, 4), (20, 1), (40, 3)] {
        let mut world = World::settled(2, nodes, seats);
        world.run(60);
        let before = (world.changes, world.writes);
        world.run(120);
        assert_eq!(world.changes, before.0, "{nodes} nodes with {seats} seats");
        assert!(world.writes - before.1 <= nodes, "{} writes of {nodes} nodes", world.writes - before.1);
    }
}

#[test]
fn lookups_are_answered_while_the_ring_grows() {
    for seed in 0..5 {
        let mut world = World::new(seed);
        for node in 1..=12 {
            world.start(node, 1, node == 1, if node == 1 { &[] } else { &[1] });
            let nodes: Vec<u64> = world.rings.keys().copied().collect();
            for asker in nodes {
                let target = Point::new(world.random.next_u64());
                let token = node * 100 + asker;
                world.with(asker, |ring, now| ring.lookup(now, token, target, now + Duration::from_secs(5)));
                world.run_for(Duration::from_millis(20));
            }
        }
        world.run(6);
        let answered = world.found.values().filter(|answers| answers.len() == 1 && answers[0].is_some()).count();
        assert_eq!(answered, world.found.len(), "also by those that were no members yet");
        assert_eq!(answered, (1..=12).sum::<usize>());
    }
}
