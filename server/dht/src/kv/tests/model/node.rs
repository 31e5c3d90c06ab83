//! A node of the model: the real slot and its disk, without a clock.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::Scope;
use crate::kv::audit::Audits;
use crate::kv::election::Candidate;
use crate::kv::slot::Role;
use crate::kv::*;
use crate::{Ballot, Instant, NodeId, Random, Version};

/// The one moment at which everything happens: every timer is due always, and when it goes off is the search's choice.
const NOW: Instant = Instant::from_micros(0);

/// Nothing waits, and nothing that would be given up after a time is, except where the search says so.
fn settings() -> Settings {
    let (never, at_once) = (Duration::MAX, Duration::ZERO);
    Settings {
        heartbeat: at_once,
        sticky: at_once,
        election: at_once,
        candidacy: never,
        step_down: never,
        purge_after: never,
        retry_after: at_once,
        audit_after: never,
        abort_after: at_once,
        ..Settings::default()
    }
}

/// What becomes of a node after an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// What it appended reaches the disk.
    Lives,
    /// It crashes before that, and starts again without it.
    LosesTail,
}

/// A node: what runs, and what is on its disk.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) slot: Slot,
    /// Shared, like all that most steps leave as it is: the search is as fast as states are copied.
    log: Vec<Arc<Entry>>,
    /// What is not on the disk yet.
    tail: Vec<Arc<Entry>>,
    lags: bool,
    /// What the log comes to by the true rules.
    pub(super) image: Arc<Durable>,
    digest: u64,
}

impl Node {
    pub(super) fn new(id: NodeId, scope: &Scope, log: Vec<Arc<Entry>>) -> Self {
        let mut image = Durable::new(id, Rules::default());
        log.iter().for_each(|entry| image.apply(entry));
        let random = Random::seeded(0);
        let entries = log.iter().map(|entry| Entry::clone(entry));
        let slot = Slot::new(id, settings(), scope.rules, random, NOW, entries);
        let lags = scope.slow.contains(&id);
        let mut node = Self { slot, log, tail: Vec::new(), lags, image: Arc::new(image), digest: 0 };
        if let Some(nodes) = scope.wanted.clone() {
            node.slot.handle_input(NOW, Input::Permit { may_change: false });
            node.slot.handle_input(NOW, Input::Wanted { nodes, hold_off: Duration::ZERO });
        }
        node.seal();
        node
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// Starts again from the disk.
    pub(super) fn restart(&self, scope: &Scope) -> Self {
        Self::new(self.slot.me, scope, self.log.clone())
    }

    /// Takes an input in; everything that comes out is handed to `out` as it comes, with the node as it is then.
    /// Nothing when the node was to lose what it had not lost anyhow.
    pub(super) fn input(&mut self, input: Input, fate: Fate, mut out: impl FnMut(&Self, Output)) -> Option<()> {
        // However far an election was put off, it begins when the search says so.
        let leads = matches!(self.slot.role, Role::Leader(_));
        let now = if matches!(input, Input::Timeout) && !leads { Instant::FAR } else { NOW };
        self.slot.handle_input(now, input);
        self.drain(fate, &mut out)
    }

    /// What was appended so far reaches the disk.
    pub(super) fn sync(&mut self, mut out: impl FnMut(&Self, Output)) {
        self.persist();
        self.drain(Fate::Lives, &mut out);
    }

    fn persist(&mut self) {
        let image = Arc::make_mut(&mut self.image);
        self.tail.iter().for_each(|entry| image.apply(entry));
        self.log.append(&mut self.tail);
        let upto = u64::try_from(self.log.len()).unwrap();
        self.slot.handle_input(NOW, Input::Persisted { upto });
    }

    fn drain(&mut self, fate: Fate, out: &mut impl FnMut(&Self, Output)) -> Option<()> {
        loop {
            match self.slot.poll_output() {
                Output::Append { position, entry } => {
                    out(self, Output::Append { position, entry: entry.clone() });
                    self.tail.push(Arc::new(entry));
                }
                Output::Timeout(_) if fate == Fate::LosesTail => return (!self.tail.is_empty()).then_some(()),
                Output::Timeout(_) if self.lags || self.tail.is_empty() => {
                    self.seal();
                    return Some(());
                }
                Output::Timeout(_) => self.persist(),
                output @ (Output::Transmit { .. } | Output::Reply { .. }) => out(self, output),
            }
        }
    }

    /// Whether something is not on its disk yet.
    pub(super) fn is_behind(&self) -> bool {
        !self.tail.is_empty()
    }

    /// Notes what of the node decides about anything to come: not its clock, nor its random numbers, nor how its disk came
    /// to hold what it holds.
    fn seal(&mut self) {
        let mut hasher = DefaultHasher::new();
        for durable in [&*self.image, self.slot.state()] {
            let Durable { promise, config, chosen, tenure, registers, lost, seq, mark, .. } = durable;
            (promise, config, chosen, tenure, registers, lost, seq, mark).hash(&mut hasher);
        }
        (self.slot.counter_seen, self.slot.blocked_since.is_some()).hash(&mut hasher);
        if self.is_behind() {
            (&self.tail, &self.slot.outbox, self.slot.acceptor.promise_position).hash(&mut hasher);
        }
        match &self.slot.role {
            Role::Follower => 0.hash(&mut hasher),
            Role::Candidate(candidate) => {
                let Candidate { ballot, asked, reports, readings, .. } = candidate;
                (1, ballot, asked, reports, readings).hash(&mut hasher);
            }
            Role::Leader(leader) => {
                // How much it doubts of what members hold decides about no answer.
                let mut leader = leader.clone();
                leader.audits = Audits::default();
                (2, leader).hash(&mut hasher);
            }
        }
        self.digest = hasher.finish();
    }

    /// Whether a message to this node can no longer change anything that matters: what is said is known, or nobody waits
    /// for the answer. Such messages are lost at once, which keeps the search small.
    pub(super) fn outdates(&self, message: &Message, sender: &Self, scope: &Scope) -> bool {
        let durable = self.slot.state();
        // A member that has promised more says so, if anybody is to hear it.
        let refuses = |ballot: &Ballot| *ballot < durable.promise && !scope.refusals;
        let known = |config: &Config| {
            config.version < durable.config.version || (config.version == durable.config.version && durable.chosen)
        };
        match message {
            Message::Prepare { ballot, .. } => refuses(ballot) || !sender.campaigns(*ballot),
            Message::Fetch { ballot, .. } => !sender.campaigns(*ballot),
            Message::Promise { ballot, .. } | Message::Held { ballot, .. } => !self.campaigns(*ballot),
            Message::Nack { ballot, config, chosen, .. } => {
                let hurts = self.campaigns(*ballot) || self.ballot_led() == Some(*ballot);
                !hurts && (!chosen || known(config))
            }
            Message::Accept { ballot, key, version, .. } => {
                let held = durable.registers.get(key).is_some_and(|(held, _)| held >= version);
                refuses(ballot) || (held && !sender.waits_for_write(*ballot, key, *version))
            }
            Message::Accepted { ballot, key, version } => !self.waits_for_write(*ballot, key, *version),
            Message::Behind { ballot, .. } | Message::Full { ballot } => self.ballot_led() != Some(*ballot),
            Message::AcceptConfig { ballot, config } => {
                let held = *ballot == durable.promise && config.version <= durable.config.version;
                refuses(ballot) || (held && !sender.waits_for_config(*ballot, config.version))
            }
            Message::ConfigAccepted { ballot, version } => !self.waits_for_config(*ballot, *version),
            Message::Confirm { ballot, .. } => refuses(ballot) || !sender.waits_to_read(*ballot),
            Message::Confirmed { ballot, .. } => !self.waits_to_read(*ballot),
            // What a member is asked to list is for no answer's sake.
            Message::List { .. } | Message::Listed { .. } => true,
            Message::Purge { .. } | Message::Succeed { .. } => false,
            Message::Learn { config } => known(config),
        }
    }

    fn campaigns(&self, ballot: Ballot) -> bool {
        matches!(&self.slot.role, Role::Candidate(candidate) if candidate.ballot == ballot)
    }

    pub(super) fn is_candidate(&self) -> bool {
        matches!(self.slot.role, Role::Candidate(_))
    }

    /// Whether it takes itself for the leader, open or not.
    pub(super) fn leads(&self) -> bool {
        self.ballot_led().is_some()
    }

    pub(super) fn ballot_led(&self) -> Option<Ballot> {
        match &self.slot.role {
            Role::Leader(leader) => Some(leader.ballot),
            Role::Follower | Role::Candidate(_) => None,
        }
    }

    /// The configuration in force, if it leads.
    pub(super) fn config_led(&self) -> Option<&Config> {
        match &self.slot.role {
            Role::Leader(leader) => Some(&leader.config),
            Role::Follower | Role::Candidate(_) => None,
        }
    }

    pub(super) fn is_joint_leader(&self) -> bool {
        let Role::Leader(leader) = &self.slot.role else { return false };
        let config = leader.proposal.as_ref().map_or(&leader.config, |proposal| &proposal.config);
        !config.is_stable() && config.old.iter().any(|member| member.node == self.slot.me)
    }

    fn waits_for_write(&self, ballot: Ballot, key: &Key, version: Version) -> bool {
        let Role::Leader(leader) = &self.slot.role else { return false };
        let flight = leader.work.get(key).and_then(|work| work.flight.as_ref());
        leader.ballot == ballot && flight.is_some_and(|flight| flight.version == version)
    }

    fn waits_for_config(&self, ballot: Ballot, version: Version) -> bool {
        let Role::Leader(leader) = &self.slot.role else { return false };
        let proposed = leader.proposal.as_ref().map(|proposal| proposal.config.version);
        leader.ballot == ballot && proposed == Some(version)
    }

    fn waits_to_read(&self, ballot: Ballot) -> bool {
        let Role::Leader(leader) = &self.slot.role else { return false };
        leader.ballot == ballot && leader.reads.len() > 0
    }
}
