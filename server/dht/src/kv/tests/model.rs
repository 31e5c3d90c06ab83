//! Every order of events of a small slot, by exhaustive search: the real code, without a clock, over a network that
//! reorders and loses.
//!
//! What may happen, and how often, is said by a [`Scope`]. Left out everywhere: a disk syncs at once, unless the node
//! crashes in that very step and loses what it has just appended, or its disk is said to be slow; no message arrives
//! twice, though a node may say the same again; a timer goes off when the search says so, and only to begin an election or
//! a change of members; a message that can change nothing any more is lost at once. A slot that is wrong only without
//! these limits is the simulator's to find.

mod history;
mod node;
mod world;

use std::time::Instant;

use stateright::{Checker, CheckerBuilder, Model, Property};

use crate::NodeId;
use crate::kv::*;
use world::{Lapse, Step, World};

/// What may happen, and how often.
#[derive(Clone, Debug)]
struct Scope {
    nodes: Vec<NodeId>,
    members: Vec<NodeId>,
    /// Who may try to lead, and how often in all.
    proposers: Vec<NodeId>,
    campaigns: u8,
    /// Who may crash, and how often in all.
    fragile: Vec<NodeId>,
    crashes: u8,
    /// Whose disk takes its time.
    slow: Vec<NodeId>,
    /// Who shall keep the slot in the end, and how often the change may be undone on the way.
    wanted: Option<Vec<NodeId>>,
    aborts: u8,
    /// What clients ask of the one key: each once, of any node that leads.
    script: Vec<Operation>,
    /// Whether members tell an earlier leader that they follow a later one. Without it that leader goes on for ever, which
    /// is the harder case, and the search is a fraction as long.
    refusals: bool,
    rules: Rules,
}

fn ids(numbers: &[u64]) -> Vec<NodeId> {
    numbers.iter().copied().map(NodeId::from).collect()
}

impl Scope {
    /// Three members, of which two may lead; a client writes, and one reads.
    fn three() -> Self {
        Self {
            nodes: ids(&[1, 2, 3]),
            members: ids(&[1, 2, 3]),
            proposers: ids(&[1, 2]),
            campaigns: 2,
            fragile: ids(&[1, 2, 3]),
            crashes: 0,
            slow: Vec::new(),
            wanted: None,
            aborts: 0,
            script: vec![super::put(b"a"), Operation::Get],
            refusals: false,
            rules: Rules::default(),
        }
    }

    /// Of the members 1 and 2, both of which may lead, 1 goes and 3 comes.
    fn change() -> Self {
        Self { members: ids(&[1, 2]), wanted: Some(ids(&[2, 3])), ..Self::three() }
    }

    /// The same with two clients that each swap in a value where there is none.
    fn rivals(self) -> Self {
        let swap = |value: &[u8]| Operation::CompareAndSwap { expected: None, new: Some(value.to_vec()) };
        Self { script: vec![swap(b"a"), swap(b"b")], ..self }
    }

    fn crash(self) -> Self {
        Self { crashes: 1, ..self }
    }

    fn wants_other_than(&self, config: &Config) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| config.nodes() != wanted.iter().copied().collect())
    }

    fn is_wanted(&self, durable: &Durable) -> bool {
        let other = self.wanted.is_none() || self.wants_other_than(&durable.config);
        durable.chosen && durable.config.is_stable() && !other
    }
}

impl Model for Scope {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        world.steps(self, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        world.after(self, &step)
    }

    /// What must never be, and what must be reached, or the search would prove nothing.
    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always("answers are linearizable", |_, world: &World| world.lapse != Some(Lapse::Order)),
            Property::always("what an answer rests on is on the disks of a majority", |_, world: &World| {
                world.lapse != Some(Lapse::Durability)
            }),
            Property::always("a version names one value", |_, world: &World| world.lapse != Some(Lapse::TwoValues)),
            Property::always("configurations form one chain", |_, world: &World| world.lapse != Some(Lapse::TwoChains)),
            Property::sometimes("everything is answered", |_, world: &World| world.history.all_done()),
        ];
        if self.wanted.is_some() {
            let name = "a later leader goes on with a change";
            properties.push(Property::sometimes(name, |_, world: &World| world.has_heir()));
        } else {
            let name = "a leader opens while another takes itself for one";
            properties.push(Property::sometimes(name, |_, world: &World| world.has_rivals()));
        }
        if self.crashes > 0 {
            properties.push(Property::sometimes("everything is answered in spite of a crash", |_, world: &World| {
                world.crashes == 0 && world.history.all_done()
            }));
        }
        if self.wanted.is_some() {
            properties.push(Property::sometimes(
                "all members to be know that they are",
                |scope: &Self, world: &World| {
                    let mut known = world.nodes.iter().filter(|node| scope.is_wanted(&node.image));
                    scope.wanted.iter().flatten().all(|_| known.next().is_some())
                },
            ));
        }
        if self.aborts > 0 {
            properties.push(Property::sometimes("a change is undone and then made", |scope: &Self, world: &World| {
                world.aborts == 0 && world.nodes.iter().any(|node| scope.is_wanted(&node.image))
            }));
        }
        properties
    }
}

fn checker(scope: Scope) -> CheckerBuilder<Scope> {
    scope.checker().threads(std::thread::available_parallelism().map_or(1, usize::from))
}

/// Searches a scope to its end, or as far as it is to go.
fn assert_sound(name: &str, scope: Scope, states_max: Option<usize>) {
    let start = Instant::now();
    let checker = checker(scope);
    let checker = match states_max {
        Some(states) => checker.target_state_count(states),
        None => checker,
    };
    let checker = checker.spawn_dfs().join();
    let (states, steps, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    println!("{name}: {states} states, {steps} steps, {depth} deep, in {:?}", start.elapsed());
    checker.assert_properties();
}

#[test]
fn no_order_of_events_with_a_crash_harms_three_members() {
    // The two that may lead are alike but for whose ballot is the higher of two with one counter.
    let scope = Scope { fragile: ids(&[1, 3]), ..Scope::three().crash() };
    assert_sound("three members, two leaders, a crash", scope, None);
}

#[test]
fn no_order_of_events_with_a_crash_harms_a_change_of_members() {
    assert_sound("a change of members, two leaders, a crash", Scope::change().crash(), None);
}

#[test]
fn no_order_of_events_lets_two_clients_both_be_the_first() {
    assert_sound("three members, two leaders, two clients that swap", Scope::three().rivals(), None);
    assert_sound("a change of members, two leaders, two clients that swap", Scope::change().rivals(), None);
}

/// Beyond what every test run has time for: `cargo test -p specter-dht --lib -- --ignored --nocapture model`.
#[test]
#[ignore = "takes more than an hour"]
fn no_order_of_events_harms_a_larger_slot() {
    // As far as a few gigabytes of memory reach.
    let states = Some(20_000_000);
    let four = Scope { nodes: ids(&[1, 2, 3, 4]), wanted: Some(ids(&[1, 2, 4])), ..Scope::three() };
    assert_sound("refusals", Scope { refusals: true, ..Scope::three() }, states);
    assert_sound("refusals during a change", Scope { refusals: true, ..Scope::change() }, states);
    assert_sound("a slow disk and a crash", Scope { slow: ids(&[2]), ..Scope::three().crash() }, states);
    assert_sound("a change that is undone", Scope { aborts: 1, ..Scope::change() }, states);
    assert_sound("one of three members goes", four, states);
}

/// A rule that nothing in the search needs is either no rule, or the search does not see it.
#[cfg(feature = "broken")]
#[test]
fn a_broken_rule_is_found() {
    let lone = Scope { nodes: ids(&[1, 2]), members: ids(&[1]), wanted: Some(ids(&[2])), ..Scope::three() };
    // Only a member that is no proposer can forget a promise to one of them.
    let forgetful = Scope { fragile: ids(&[3]), ..Scope::three().crash() };
    let scopes = [
        (Rule::ConfirmReads, Scope::three()),
        (Rule::KeepPromise, forgetful),
        (Rule::RewriteRecovered, Scope { slow: ids(&[2]), ..Scope::three() }),
        (Rule::ReadReports, Scope::three()),
        (Rule::MajorityQuorum, Scope::three()),
        (Rule::PersistBeforeReply, Scope::three().crash()),
        (Rule::BothSides, Scope::change()),
        (Rule::ReacceptConfig, Scope::change()),
        (Rule::Transfer, lone),
    ];
    for (rule, scope) in scopes {
        let start = Instant::now();
        let scope = Scope { rules: Rules::without(rule), ..scope };
        let checker = checker(scope).finish_when(stateright::HasDiscoveries::AnyFailures).spawn_dfs().join();
        let lapses = checker.discoveries().into_iter();
        let lapses = lapses.filter(|(name, _)| checker.discovery_classification(name).to_string() == "counterexample");
        let found: Vec<String> =
            lapses.map(|(name, path)| format!("not so after {} steps: {name}", path.into_actions().len())).collect();
        let (name, states) = (rule.broken_name(), checker.unique_state_count());
        println!("{name}: {found:?}, {states} states, in {:?}", start.elapsed());
        assert!(!found.is_empty(), "{name} is not noticed");
    }
}
