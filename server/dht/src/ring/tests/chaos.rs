//! Everything at once, in any order.

use super::world::World;
use crate::ring::{Ring, invariant};

/// What a seed means: some nodes, a minute and a half of joins, crashes, restarts, farewells, walls, one-way links and
/// losses, and then peace. There must be one ideal ring soon after.
fn chaos(seed: u64) -> u64 {
    let mut world = World::new(seed);
    let nodes = world.random.between(2, 30);
    let seats = u8::try_from(world.random.between(1, 4)).expect("small");
    for node in 1..=nodes {
        world.start(node, seats, node == 1, if node == 1 { &[] } else { &[1] });
    }
    let settled = world.random.below(40);
    world.run(settled);
    world.loss = [0, 20, 200][usize::try_from(world.random.below(3)).expect("small")];
    for _ in 0..30 {
        let node = world.random.between(1, nodes);
        let other = world.random.between(1, nodes);
        let is_up = world.rings.contains_key(&node);
        match world.random.below(8) {
            0 | 1 if is_up => world.crash(node),
            2 if is_up && world.rings.len() > 1 => {
                world.with(node, Ring::leave);
                world.crash(node);
            }
            0..=3 if !is_up => {
                // The first one never waits for others: somebody must be the ring that they join.
                let resumes = node == 1 || world.random.chance(500);
                world.start(node, seats, resumes, &[1, other]);
            }
            4 => {
                let side = world.random.below(nodes);
                world.wall(|node| node <= side);
            }
            5 => {
                world.cut.insert((node, other));
            }
            6 => world.cut.clear(),
            _ => {}
        }
        let pause = world.random.below(7);
        world.run(pause);
    }
    world.loss = 0;
    world.cut.clear();
    for node in 1..=nodes {
        if !world.rings.contains_key(&node) && world.random.chance(700) {
            world.start(node, seats, node == 1, &[1]);
        }
    }
    // The one that all were told of at first is there again.
    if !world.rings.contains_key(&1) {
        world.start(1, seats, true, &[]);
    }
    let took = world.until_ideal_or(120, &format!("seed {seed}"));
    assert_eq!(invariant::check(&world.members()), Ok(()));
    let rate = world.idle_rate(20);
    assert!(rate < 40.0, "{rate} messages a second and node");
    took
}

#[test]
fn whatever_happens_there_is_one_ring_afterwards() {
    let mut took: Vec<u64> = (0..12).map(chaos).collect();
    took.sort_unstable();
    println!("ideal after {took:?} s");
}
