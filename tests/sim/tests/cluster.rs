//! What random clusters show: every promise holds, and what breaks one is noticed soon.

use std::hash::Hasher;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use sim::cluster::swarm::Faults;
use sim::cluster::{Scenario, Storage, Swarm};
use sim::{Outcome, cluster, slot};
use specter_dht::kv::{Rule, Rules};

/// How long new worlds are run for, in seconds, when the environment says nothing.
const FRESH_SECONDS: u64 = 60;

fn run(seed: u64) -> Outcome {
    cluster::run(Swarm::new(seed, None, None), false)
}

fn assert_kept(outcome: &Outcome, again: &str) {
    if let Some((violation, micros)) = &outcome.violation {
        let notes = outcome.notes.join("\n  ");
        panic!("after {} ms: {violation}\n  {notes}\nagain: cargo run --release -p sim -- {again}", micros / 1000);
    }
}

#[test]
fn every_promise_holds_in_many_clusters() {
    let mut total = Outcome::default();
    for seed in 1000..1040 {
        let outcome = run(seed);
        assert_kept(&outcome, &format!("--seed {seed}"));
        total.add(&outcome);
    }
    let happened = [
        "crashes",
        "crashes in the middle of an input",
        "power cuts",
        "crashes of all members of a slot",
        "restarts of the seed",
        "pauses",
        "leaps of clocks",
        "partitions",
        "disks that stall",
        "disks that are full",
        "disks lost",
        "joins begun",
        "nodes left",
        "purges",
        "operations answered",
        "hint reads answered",
    ];
    for what in happened {
        assert!(total.counts.get(what).is_some_and(|count| *count > 0), "{what} happened: {:?}", total.counts);
    }
    assert_eq!(total.counts.get("histories undecided"), None);
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_another() {
    let trace = |seed| cluster::run(Swarm::new(seed, Some(5), Some(Duration::from_secs(5))), false).trace.finish();
    assert_eq!(trace(11), trace(11));
    assert_ne!(trace(11), trace(12));
}

/// Broken rules that whole clusters notice within this many seeds, as single slots do: the oracles are not asleep.
const SOON: [(Rule, u64); 4] =
    [(Rule::PersistBeforeReply, 10), (Rule::MajorityQuorum, 20), (Rule::Transfer, 20), (Rule::KeepPromise, 20)];

#[test]
fn a_broken_rule_is_noticed_in_a_cluster_too() {
    for (rule, bound) in SOON {
        let broken = |seed| Swarm { rules: Rules::without(rule), ..Swarm::new(seed, Some(5), None) };
        let caught = (0..bound).find_map(|seed| cluster::run(broken(seed), false).violation);
        assert!(caught.is_some(), "{rule:?} was broken and nobody noticed in {bound} seeds");
    }
}

#[test]
fn an_identity_that_is_kept_after_its_disk_was_lost_is_noticed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenario/lost-disk-is-a-new-node.txt");
    let scenario = Scenario::read(&path).expect("the scenario can be read");
    assert_kept(&scenario.play(false, false), "--scenario lost-disk-is-a-new-node");
    assert!(scenario.play(true, false).violation.is_some(), "the scenario notices it");
    let kept = |seed| {
        let swarm = Swarm::new(seed, Some(5), None);
        let faults = Faults { wipe: true, crash: true, ..swarm.faults };
        let fault_gap_micros = (50_000, 500_000);
        Swarm { keeps_identity: true, faults, fault_gap_micros, ..swarm }
    };
    let caught = (0..40).find(|seed| cluster::run(kept(*seed), false).violation.is_some());
    assert!(caught.is_some(), "no world in 40 seeds notices it");
}

/// One line of `seeds.txt`.
fn replay(line: &str) -> Outcome {
    let (what, _) = line.split_once(':').expect("a line says after a colon what was wrong");
    let mut words = what.split_whitespace();
    let world = words.next().expect("a world");
    let mut number = || words.next().and_then(|word| word.parse().ok());
    let seed = number().expect("a seed");
    let options: Vec<&str> = what.split_whitespace().skip(2).collect();
    let nodes = options.iter().position(|word| *word == "nodes").and_then(|at| options.get(at + 1)?.parse().ok());
    match world {
        "cluster" => {
            let swarm = Swarm::new(seed, nodes, None);
            let storage = if options.contains(&"model") { Storage::Model } else { swarm.storage };
            cluster::run(Swarm { storage, ..swarm }, false)
        }
        "slot" => slot::run(slot::Swarm::new(seed, nodes, None)),
        other => panic!("{other} is no world"),
    }
}

#[test]
fn worlds_that_once_failed_hold_their_promises() {
    let text = include_str!("../seeds.txt");
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        assert_kept(&replay(line), line);
    }
}

/// `SIM_FRESH_SECONDS` says for how long, `SIM_FRESH_FROM` which seed is the first, if not one of the present time; a failing
/// seed belongs into `seeds.txt`.
#[test]
#[ignore = "draws worlds that nobody has seen: run it with --ignored, and write what fails into seeds.txt"]
fn worlds_nobody_has_seen_hold_their_promises() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let end = Instant::now() + Duration::from_secs(number("SIM_FRESH_SECONDS").unwrap_or(FRESH_SECONDS));
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is after 1970");
    let first = number("SIM_FRESH_FROM").unwrap_or(since.as_secs() << 20);
    let next = AtomicU64::new(first);
    let draw = || {
        while Instant::now() < end {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            assert_kept(&run(seed), &format!("--seed {seed}"));
            let outcome = slot::run(slot::Swarm::new(seed, None, None));
            assert_kept(&outcome, &format!("--slot-seeds {seed}..{}", seed + 1));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, Into::into) {
            scope.spawn(draw);
        }
    });
    println!("{} clusters and as many slots, from seed {first} on", next.load(Ordering::Relaxed) - first);
}
