//! Machines that die, that go, and that come back.

use std::collections::BTreeSet;
use std::time::Duration;

use super::world::World;
use crate::ring::invariant;
use crate::{NodeId, Point};

/// All nodes in the order of their first points.
fn in_order(world: &World) -> Vec<u64> {
    let mut nodes: Vec<u64> = world.rings.keys().copied().collect();
    nodes.sort_by_key(|node| Point::of_node(NodeId::from(*node), 0));
    nodes
}

/// W3: a list of sixteen machines outlives fifteen neighbours that die together.
#[test]
fn many_neighbours_that_die_together_leave_one_ring() {
    for (nodes, dead, seats) in [(3, 2, 1), (5, 4, 1), (20, 10, 1), (20, 19, 1), (40, 15, 1), (40, 15, 4)] {
        for seed in 0..2 {
            let mut world = World::settled(seed, nodes, seats);
            world.run(20);
            let order = in_order(&world);
            for node in &order[..dead] {
                world.crash(*node);
            }
            let took = world.until_ideal(60);
            println!("{dead} of {nodes} with {seats} seats, seed {seed}: {took} s");
            assert_eq!(world.look_up(30), 30);
        }
    }
}

/// W4: a seed that starts again finds the ring again and does not make another one.
#[test]
fn a_seed_that_starts_again_makes_no_second_ring() {
    for create in [true, false] {
        for pause in [0, 1, 5, 60] {
            let mut world = World::settled(3, 10, 1);
            world.run(20);
            world.crash(1);
            world.run(pause);
            world.start(1, 1, create, &[]);
            let took = world.until_ideal(30);
            println!("resumes {create}, after {pause} s: {took} s");
            assert_eq!(invariant::check(&world.members()), Ok(()));
            let (_, life) =
                world.rings[&2].contact(NodeId::from(1)).map(|peer| (peer.id, peer.incarnation)).expect("known");
            assert_eq!(life, 2, "everybody knows the new life");
        }
    }
}

/// A restart within a second: the new life is taken for what it is, and nobody drops it.
#[test]
fn all_nodes_that_start_again_together_find_each_other() {
    let mut world = World::settled(5, 12, 2);
    world.run(20);
    for node in 1..=12 {
        world.crash(node);
    }
    world.run(3);
    for node in 1..=12 {
        world.start(node, 2, true, &[]);
    }
    let took = world.until_ideal(60);
    println!("{took} s");
}

/// W2: whatever is lost while nodes join, all of them come in.
#[test]
fn lost_packets_wedge_no_join() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.loss = 300;
        for node in 1..=8 {
            world.start(node, 1, node == 1, if node == 1 { &[] } else { &[1] });
        }
        world.run(60);
        assert_eq!(world.members().len(), 8, "seed {seed}");
        world.loss = 0;
        world.until_ideal(60);
    }
}

/// W16: the best finger is dead; the lookup goes another way.
#[test]
fn a_lookup_goes_round_dead_machines() {
    let mut world = World::settled(11, 60, 1);
    world.run(60);
    let order = in_order(&world);
    let dead: Vec<u64> = order.iter().copied().step_by(6).collect();
    for node in &dead {
        world.crash(*node);
    }
    // At once: nobody has noticed yet. The owner may be one of the dead, so that any answer counts.
    let nodes: Vec<u64> = world.rings.keys().copied().collect();
    for (token, node) in nodes.iter().enumerate() {
        let target = Point::new(world.random.next_u64());
        world.with(*node, |ring, now| ring.lookup(now, token as u64, target, now + Duration::from_secs(5)));
    }
    world.run(6);
    let answered = world.found.values().filter(|answers| answers.len() == 1 && answers[0].is_some()).count();
    assert_eq!(answered, nodes.len());
    world.until_ideal(30);
    assert_eq!(world.look_up(50), 50);
}

/// W12, W13: next to each other, one comes while another one goes or dies.
#[test]
fn joins_and_leaves_at_the_same_neighbour_leave_one_ring() {
    for seed in 0..10 {
        for says_farewell in [true, false] {
            let mut world = World::settled(seed, 6, 1);
            let order = in_order(&world);
            let late: BTreeSet<u64> = (7..=12).collect();
            for node in late {
                world.start(node, 1, false, &[order[0], order[1]]);
                if node % 3 == 0 {
                    let going = in_order(&world)[usize::try_from(node).expect("small") % 3 + 2];
                    if says_farewell {
                        world.with(going, crate::ring::Ring::leave);
                    }
                    world.crash(going);
                }
                let delay = world.random.below(2);
                world.run(delay);
            }
            let took = world.until_ideal(60);
            println!("seed {seed}: {took} s");
        }
    }
}

#[test]
fn who_says_farewell_is_gone_at_once_and_still_answers() {
    let mut world = World::settled(2, 8, 1);
    world.run(20);
    world.with(4, crate::ring::Ring::leave);
    world.run(1);
    for node in [1, 2, 3, 5, 6, 7, 8] {
        assert!(!world.knows(node, 4), "{node} goes on without it");
        assert!(world.rings[&node].contact(NodeId::from(4)).is_some_and(|peer| peer.leaving), "and can still reach it");
    }
    assert_eq!(world.is_ideal(), Ok(()), "the others are a ring");
    world.run(20);
    assert_eq!(world.is_ideal(), Ok(()), "and nobody brings it back");
    let target = Point::new(77);
    world.with(4, |ring, now| ring.lookup(now, 1, target, now + Duration::from_secs(5)));
    world.run(5);
    let machines = world.found[&1][0].clone().expect("it still finds");
    let owner = machines.iter().find(|peer| !peer.leaving).expect("somebody stays");
    assert_eq!(owner.id, world.owner(target));

    world.crash(4);
    world.run(2);
    world.start(4, 1, false, &[1]);
    world.until_ideal(20);
    assert!(world.knows(1, 4), "in another life it is welcome");
}

#[test]
fn a_machine_that_comes_back_with_other_seats_stands_where_they_are() {
    let mut world = World::settled(4, 6, 2);
    world.crash(3);
    world.start(3, 5, true, &[]);
    world.until_ideal(30);
    world.crash(3);
    world.start(3, 1, false, &[]);
    world.until_ideal(30);
}

#[test]
fn the_transport_that_cannot_reach_a_machine_spares_the_wait() {
    let mut world = World::settled(4, 6, 1);
    world.crash(3);
    for node in [1, 2, 4, 5, 6] {
        world.with(node, |ring, now| ring.unreachable(now, NodeId::from(3)));
    }
    assert!((1..=6).filter(|node| *node != 3).all(|node| !world.knows(node, 3)));
    assert!(world.until_ideal(10) <= 5);
}

#[test]
fn a_machine_that_is_counted_on_is_on_the_disk_though_it_never_spoke() {
    let mut world = World::new(1);
    world.start(1, 1, true, &[]);
    let kept = |world: &World| world.disks.get(&1).map_or(0, std::collections::BTreeMap::len);
    world.with(1, |ring, now| ring.introduce(now, super::world::peer(2, 1, 1)));
    assert_eq!(kept(&world), 0, "hearsay alone costs no write");
    for _ in 0..2 {
        world.with(1, |ring, now| ring.rely_on(now, 2.into()));
        assert_eq!((kept(&world), world.writes), (1, 1));
    }
    world.with(1, |ring, now| ring.rely_on(now, 3.into()));
    assert_eq!(kept(&world), 1, "where the third is nobody knows");
}
