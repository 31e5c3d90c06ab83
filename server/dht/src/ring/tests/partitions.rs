//! Rings that fall apart and come together, and links that carry only one way.

use super::world::World;
use crate::ring::invariant;

/// Aim: two rings of ten are one again within about twenty seconds.
#[test]
fn two_halves_become_one_ring_again() {
    for seats in [1, 3] {
        for (seed, parted) in [(0, 4), (1, 8), (2, 30), (3, 120)] {
            let mut world = World::settled(seed, 20, seats);
            world.run(20);
            world.wall(|node| node <= 10);
            world.run(parted);
            world.cut.clear();
            let took = world.until_ideal(25);
            println!("{seats} seats, parted for {parted} s: one again after {took} s");
            assert_eq!(invariant::check(&world.members()), Ok(()));
        }
    }
}

#[test]
fn each_half_is_a_ring_of_its_own_meanwhile() {
    let mut world = World::settled(9, 20, 1);
    world.run(20);
    world.wall(|node| node <= 7);
    world.run(60);
    let members = world.members();
    let (low, high): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| member.peer.id.0 <= 7);
    assert_eq!(invariant::check_ideal(&low, 16), Ok(()));
    assert_eq!(invariant::check_ideal(&high, 16), Ok(()));
}

/// Aim: two rings of a hundred are one again within a minute.
#[test]
fn two_large_halves_become_one_ring_again() {
    let mut world = World::settled(1, 200, 1);
    world.run(20);
    world.wall(|node| node % 2 == 0);
    world.run(40);
    world.cut.clear();
    let took = world.until_ideal(60);
    println!("one again after {took} s");
    assert_eq!(world.look_up(100), 100);
}

#[test]
fn two_rings_that_never_met_merge_when_one_is_told_of_the_other() {
    let mut world = World::new(6);
    for node in 1..=40 {
        let first = if node <= 30 { 1 } else { 31 };
        world.start(node, 1, node == first, if node == first { &[] } else { std::slice::from_ref(&first) });
    }
    world.run(30);
    let stranger = super::world::peer(35, 1, 1);
    world.with(7, |ring, now| ring.introduce(now, stranger));
    let took = world.until_ideal(120);
    println!("one after {took} s");
}

/// A link that carries one way only is as good as none; the machines at its ends do not quarrel about it.
#[test]
fn one_way_links_make_no_storm() {
    let mut world = World::settled(8, 12, 1);
    let calm = world.idle_rate(60);
    for (from, to) in [(1, 2), (3, 4), (5, 6), (7, 2), (8, 2)] {
        world.cut.insert((from, to));
    }
    world.run(20);
    let rate = world.idle_rate(60);
    println!("{calm:.2} messages a second and node, {rate:.2} with links that carry one way");
    assert!(rate < calm * 2.0, "{rate} in place of {calm}");
    world.cut.clear();
    world.until_ideal(30);
}

/// Two machines that cannot reach each other at all, while everybody else reaches both.
#[test]
fn neighbours_that_cannot_reach_each_other_disturb_nobody_else() {
    let mut world = World::settled(8, 12, 1);
    let calm = world.idle_rate(60);
    world.cut.extend([(1, 2), (2, 1)]);
    world.run(20);
    let rate = world.idle_rate(60);
    println!("{calm:.2} messages a second and node, {rate:.2} with one link cut");
    assert!(rate < calm * 2.0, "{rate} in place of {calm}");
    for node in 3..=12 {
        assert!(world.knows(node, 1) && world.knows(node, 2), "{node} knows both");
    }
    world.cut.clear();
    world.until_ideal(30);
}

#[test]
fn a_lossy_network_keeps_the_ring() {
    let mut world = World::settled(12, 20, 1);
    world.loss = 50;
    let mut bad = 0;
    for _ in 0..120 {
        world.run(1);
        bad += u32::from(invariant::check(&world.members()).is_err());
    }
    println!("{bad} of 120 s without one ring");
    assert!(bad <= 2);
    world.loss = 0;
    world.until_ideal(30);
}

#[test]
fn an_idle_node_sends_as_much_in_a_large_ring_as_in_a_small_one() {
    let mut rates = Vec::new();
    for nodes in [2, 5, 20, 100] {
        let mut world = World::settled(1, nodes, 1);
        world.run(30);
        rates.push(world.idle_rate(20));
    }
    println!("{rates:.2?} messages a second and node");
    assert!(rates.iter().all(|rate| *rate < 8.0), "{rates:?}");
}
