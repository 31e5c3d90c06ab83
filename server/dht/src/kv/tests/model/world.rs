//! All nodes, what is on its way between them, and what was seen so far.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::Scope;
use super::history::History;
use super::node::{Fate, Node};
use crate::kv::*;
use crate::{NodeId, Version};

/// The one key.
const KEY: &[u8] = b"k";

/// A message on its way.
#[derive(Debug)]
pub(super) struct Envelope {
    digest: u64,
    from: NodeId,
    to: NodeId,
    message: Message,
}

/// What happens next.
#[derive(Clone, Debug)]
pub(super) enum Cause {
    /// A message arrives.
    Arrives(Arc<Envelope>),
    /// Nothing was heard of a leader for long enough.
    Campaigns,
    /// A leader is let change the members, or finds that a change goes on for too long.
    Changes,
    /// A client asks.
    Hears(usize),
    /// What was appended reaches the disk, where that takes its time.
    Syncs,
    /// It crashes and starts again.
    Crashes,
}

/// Something that happens at one node.
#[derive(Clone)]
pub(super) struct Step {
    pub(super) at: usize,
    pub(super) cause: Cause,
    pub(super) fate: Fate,
}

/// A state of the whole.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) nodes: Vec<Arc<Node>>,
    /// By their digests.
    network: Vec<Arc<Envelope>>,
    pub(super) campaigns: u8,
    pub(super) crashes: u8,
    /// How often a leader may begin a change of members, and undo one.
    pub(super) changes: u8,
    pub(super) aborts: u8,
    pub(super) history: Arc<History>,
    /// What each version of the key was, and each configuration that somebody knew to be chosen.
    values: Arc<BTreeMap<Version, u64>>,
    chosen: Arc<BTreeMap<Version, Config>>,
    /// What should not have happened.
    pub(super) lapse: Option<Lapse>,
}

/// What should never happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Lapse {
    /// No order of the operations explains the answers.
    Order,
    /// An answer was given that the loss of a minority could make wrong.
    Durability,
    /// A version names two values.
    TwoValues,
    /// Configurations that no chain of changes explains.
    TwoChains,
}

impl World {
    pub(super) fn new(scope: &Scope) -> Self {
        let founding = Config::founding(scope.members.iter().copied());
        let node = |id: &NodeId| {
            let member = founding.contains(*id);
            let log = member.then(|| Entry::Config { config: founding.clone(), chosen: true });
            Arc::new(Node::new(*id, scope, log.into_iter().map(Arc::new).collect()))
        };
        Self {
            nodes: scope.nodes.iter().map(node).collect(),
            network: Vec::new(),
            campaigns: scope.campaigns,
            crashes: scope.crashes,
            changes: u8::from(scope.wanted.is_some()),
            aborts: scope.aborts,
            history: Arc::new(History::new(scope.script.len())),
            values: Arc::default(),
            chosen: Arc::new(BTreeMap::from([(founding.version, founding)])),
            lapse: None,
        }
    }

    /// Whether two nodes take themselves for the leader, and one that is not the first may answer.
    pub(super) fn has_rivals(&self) -> bool {
        let later = |node: &Node| node.slot.leads().is_some() && node.ballot_led().is_some_and(|own| own.counter > 1);
        self.nodes.iter().filter(|node| node.leads()).count() > 1 && self.nodes.iter().any(|node| later(node))
    }

    /// Whether somebody leads a joint configuration that an earlier leader began.
    pub(super) fn has_heir(&self) -> bool {
        let heir = |node: &Node| {
            let joint = node.slot.leads().and_then(|config| config.new.as_ref());
            let mut admitted = joint.into_iter().flatten().map(|member| member.since.ballot);
            node.ballot_led().is_some_and(|own| admitted.any(|ballot| ballot.counter > 0 && ballot < own))
        };
        self.nodes.iter().any(|node| heir(node))
    }

    /// Everything that may happen.
    pub(super) fn steps(&self, scope: &Scope, steps: &mut Vec<Step>) {
        // Nothing follows what should not have happened: its path ends there.
        if self.lapse.is_some() {
            return;
        }
        let mut causes = Vec::new();
        for envelope in &self.network {
            if let Some(at) = scope.nodes.iter().position(|node| *node == envelope.to) {
                causes.push((at, Cause::Arrives(Arc::clone(envelope))));
            }
        }
        for (at, node) in self.nodes.iter().enumerate() {
            let leader = node.slot.leads();
            let member = node.slot.state().config.contains(node.slot.me);
            if node.is_behind() {
                steps.push(Step { at, cause: Cause::Syncs, fate: Fate::Lives });
            }
            if self.campaigns > 0 && scope.proposers.contains(&node.slot.me) && member && !node.leads() {
                causes.push((at, Cause::Campaigns));
            }
            if leader.is_some_and(|config| config.is_stable() && scope.wants_other_than(config)) && self.changes > 0
                || node.is_joint_leader() && self.aborts > 0
            {
                causes.push((at, Cause::Changes));
            }
            for number in (0..scope.script.len()).filter(|number| leader.is_some() && self.history.is_idle(*number)) {
                causes.push((at, Cause::Hears(number)));
            }
        }
        let crashes = |at: usize| self.crashes > 0 && scope.fragile.contains(&scope.nodes[at]);
        for at in (0..self.nodes.len()).filter(|at| crashes(*at)) {
            steps.push(Step { at, cause: Cause::Crashes, fate: Fate::Lives });
        }
        for (at, cause) in causes {
            if crashes(at) {
                steps.push(Step { at, cause: cause.clone(), fate: Fate::LosesTail });
            }
            steps.push(Step { at, cause, fate: Fate::Lives });
        }
    }

    /// The world after a step; nothing when the step is none.
    pub(super) fn after(&self, scope: &Scope, step: &Step) -> Option<Self> {
        let mut next = self.clone();
        let mut node = Node::clone(&self.nodes[step.at]);
        let input = match &step.cause {
            Cause::Arrives(envelope) => {
                next.network.retain(|other| other.digest != envelope.digest);
                Input::Message { from: envelope.from, message: envelope.message.clone() }
            }
            Cause::Campaigns => {
                next.campaigns -= 1;
                if node.is_candidate() {
                    node.input(Input::Timeout, Fate::Lives, |_, _| {})?;
                }
                Input::Timeout
            }
            Cause::Changes => {
                let left = if node.is_joint_leader() { &mut next.aborts } else { &mut next.changes };
                *left -= 1;
                Input::Permit { may_change: true }
            }
            Cause::Hears(number) => {
                Arc::make_mut(&mut next.history).asked(*number);
                let op = OpId { client: u64::try_from(*number).unwrap(), number: 1 };
                let request = Request { key: KEY.to_vec(), op, operation: scope.script[*number].clone() };
                Input::Request { id: RequestId(op.client), request }
            }
            Cause::Syncs => {
                node.sync(|node, output| next.note(step.at, node, self.nodes[step.at].config_led(), output));
                return Some(next.settled(self, scope, step.at, node));
            }
            Cause::Crashes => {
                next.crashes -= 1;
                next.nodes[step.at] = Arc::new(node.restart(scope));
                next.forget_outdated(scope);
                return Some(next);
            }
        };
        let before = node.config_led().cloned();
        node.input(input, step.fate, |node, output| next.note(step.at, node, before.as_ref(), output))?;
        if step.fate == Fate::LosesTail {
            next.crashes -= 1;
            node = node.restart(scope);
        }
        Some(next.settled(self, scope, step.at, node))
    }

    fn settled(mut self, before: &Self, scope: &Scope, at: usize, node: Node) -> Self {
        self.nodes[at] = Arc::new(node);
        self.forget_outdated(scope);
        if !Arc::ptr_eq(&self.chosen, &before.chosen) {
            self.check_chain();
        }
        if !Arc::ptr_eq(&self.history, &before.history) && !self.history.is_linearizable(&scope.script) {
            self.lapse = Some(Lapse::Order);
        }
        self
    }

    fn note(&mut self, at: usize, node: &Node, led: Option<&Config>, output: Output) {
        match output {
            Output::Transmit { to, message } => {
                let from = node.slot.me;
                let mut hasher = DefaultHasher::new();
                (from, to, &message).hash(&mut hasher);
                let digest = hasher.finish();
                if let Err(place) = self.network.binary_search_by_key(&digest, |other| other.digest) {
                    self.network.insert(place, Arc::new(Envelope { digest, from, to, message }));
                }
            }
            Output::Append { entry: Entry::Accept { version, register, .. }, .. } => {
                let mut hasher = DefaultHasher::new();
                register.hash(&mut hasher);
                let value = hasher.finish();
                if *Arc::make_mut(&mut self.values).entry(version).or_insert(value) != value {
                    self.lapse = Some(Lapse::TwoValues);
                }
            }
            Output::Append { entry: Entry::Config { config, chosen: true }, .. } => {
                if !self.chosen.contains_key(&config.version) {
                    Arc::make_mut(&mut self.chosen).insert(config.version, config);
                }
            }
            Output::Append {
                entry: Entry::Promise(_) | Entry::Config { .. } | Entry::Purge { .. } | Entry::Lost { .. },
                ..
            } => {}
            Output::Reply { id, reply, rests_on } => {
                // It may have stepped down by now, for the same input that let it answer.
                let config = node.config_led().or(led);
                if let (Some(version), Ok(_)) = (rests_on, &reply)
                    && !config.is_some_and(|config| self.is_durable(at, node, config, version))
                {
                    self.lapse = Some(Lapse::Durability);
                }
                Arc::make_mut(&mut self.history).told(usize::try_from(id.0).unwrap(), reply);
            }
            Output::Timeout(_) => {}
        }
    }

    /// Whether a majority has the value or a newer one on its disk, of each side that must.
    fn is_durable(&self, at: usize, node: &Node, config: &Config, version: Version) -> bool {
        let holds = |node: &Node| node.image.registers.get(KEY).is_some_and(|(held, _)| *held >= version);
        let others = self.nodes.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, node)| &**node);
        let holders: BTreeSet<NodeId> =
            others.chain([node]).filter(|node| holds(node)).map(|node| node.slot.me).collect();
        // What was written before a joint configuration reaches its new side with the transfer.
        let new = config.new.as_ref().filter(|_| version > config.version);
        [Some(&config.old), new].into_iter().flatten().all(|side| {
            let have = side.iter().filter(|member| holders.contains(&member.node)).count();
            have * 2 > side.len()
        })
    }

    /// Each configuration that is known to be chosen must follow from the one before it.
    fn check_chain(&mut self) {
        let nodes = |side: &[Member]| side.iter().map(|member| member.node).collect::<BTreeSet<_>>();
        let follows = |before: &Config, after: &Config| {
            let ends = before.new.as_ref().map_or_else(|| nodes(&before.old), |new| nodes(new));
            match &after.new {
                None => nodes(&after.old) == ends || nodes(&after.old) == nodes(&before.old),
                Some(new) => {
                    let same = before.new.as_ref().is_none_or(|before| nodes(before) == nodes(new));
                    nodes(&after.old) == nodes(&before.old) && same
                }
            }
        };
        let links = self.chosen.values().zip(self.chosen.values().skip(1));
        if !links.into_iter().all(|(before, after)| follows(before, after)) {
            self.lapse = Some(Lapse::TwoChains);
        }
    }

    fn forget_outdated(&mut self, scope: &Scope) {
        let nodes = &self.nodes;
        let find = |id: NodeId| nodes.iter().find(|node| node.slot.me == id);
        self.network.retain(|envelope| match (find(envelope.to), find(envelope.from)) {
            (Some(to), Some(from)) => !to.outdates(&envelope.message, from, scope),
            (None, _) | (_, None) => false,
        });
    }
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nodes.iter().for_each(|node| node.digest().hash(state));
        self.network.iter().for_each(|envelope| envelope.digest.hash(state));
        (self.campaigns, self.crashes, self.changes, self.aborts, &self.history).hash(state);
        (&self.values, &self.chosen, self.lapse).hash(state);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        let hash = |world: &Self| {
            let mut hasher = DefaultHasher::new();
            world.hash(&mut hasher);
            hasher.finish()
        };
        hash(self) == hash(other)
    }
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Cause::Arrives(envelope) => {
                write!(f, "{} hears from {}: {:?}", envelope.to, envelope.from, envelope.message)
            }
            cause => write!(f, "#{} {cause:?}", self.at),
        }?;
        if self.fate == Fate::LosesTail { f.write_str(", and crashes before it is on the disk") } else { Ok(()) }
    }
}
