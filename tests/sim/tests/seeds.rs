//! What random worlds show: with all rules every promise holds, and without one of them some world notices soon.

use sim::{Outcome, Swarm, Violation};
use specter_dht::kv::{Rule, Rules};

fn broken(seed: u64, rule: Rule) -> Outcome {
    sim::run(Swarm { rules: Rules::without(rule), ..Swarm::new(seed, None, None) })
}

#[test]
fn every_promise_holds_in_many_worlds() {
    let mut total = Outcome::default();
    for seed in 0..32 {
        let outcome = sim::run(Swarm::new(seed, None, None));
        assert_eq!(outcome.violation, None, "seed {seed}");
        total.add(&outcome);
    }
    for what in ["crashes", "partitions", "pauses", "power cuts", "reconfigurations", "purges", "operations answered"] {
        assert!(total.counts.get(what).is_some_and(|count| *count > 0), "{what} happened: {:?}", total.counts);
    }
    assert_eq!(total.counts.get("histories undecided"), None);
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_one_another() {
    let trace = |seed| std::hash::Hasher::finish(&sim::run(Swarm::new(seed, Some(3), None)).trace);
    assert_eq!(trace(11), trace(11));
    assert_ne!(trace(11), trace(12));
}

/// Rules that chance tests well: each is noticed within this many seeds. The others have a scenario each in `directed`.
const SOON: [(Rule, u64); 7] = [
    (Rule::PersistBeforeReply, 5),
    (Rule::MajorityQuorum, 5),
    (Rule::KeepPromise, 5),
    (Rule::Dedupe, 10),
    (Rule::SequenceGrows, 10),
    (Rule::Transfer, 10),
    (Rule::BothSides, 20),
];

#[test]
fn a_broken_rule_is_noticed_within_the_stated_number_of_seeds() {
    for (rule, bound) in SOON {
        let caught = (0..bound).find_map(|seed| broken(seed, rule).violation);
        let (violation, _) =
            caught.unwrap_or_else(|| panic!("{rule:?} was broken and nobody noticed in {bound} seeds"));
        assert!(!matches!(violation, Violation::Stuck(_)), "{rule:?} is a matter of safety: {violation}");
    }
}
