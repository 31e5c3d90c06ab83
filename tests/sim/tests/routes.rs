//! A cluster that keeps routes while its nodes come, go and die.

use std::time::Duration;

use sim::routes::{Plan, run};

/// What holds for sixty nodes, of which each knows not all others by itself; `cargo run --release -p sim -- --routes 100000
/// --nodes 1000` shows the same for a large cluster.
#[test]
fn routes_are_found_while_nodes_come_go_and_die_and_those_of_the_dead_disappear() {
    let plan = Plan {
        seed: 1,
        nodes: 60,
        routes: 1200,
        churn: Duration::from_secs(120),
        pace: Duration::from_secs(20),
        look_ups: 40,
    };
    let figures = run(plan).expect("every name is found");
    println!("{figures}");
    assert!(figures.died > 0 && figures.left > 0 && figures.removed > 0);
    // Whoever is asked can answer at once, also a node that it never heard of.
    assert!(figures.told_seconds <= 3, "{figures}");
    assert!(figures.confirmed * 10 < figures.look_ups, "{figures}");
}
