//! A ring of a few dozen nodes comes to be, heals, and finds everybody.

/// What holds for 64 nodes; `cargo run --release -p sim -- --ring 10000` shows the same for as many as one likes.
#[test]
fn a_ring_of_64_is_ideal_and_finds_every_owner() {
    let figures = sim::ring::measure(64, 1).expect("the ring becomes ideal");
    println!("{figures}");
    assert!(figures.grown_seconds <= 20, "{} s", figures.grown_seconds);
    assert!(figures.healed_seconds <= 30, "{} s", figures.healed_seconds);
    assert_eq!(figures.right, figures.lookups);
    assert!(figures.hops_average <= figures.hops_aim(), "{} hops", figures.hops_average);
    assert!(figures.idle_messages <= 10.0, "{} messages a second", figures.idle_messages);
}

#[test]
fn the_same_seed_gives_the_same_ring() {
    assert_eq!(sim::ring::measure(16, 7), sim::ring::measure(16, 7));
}
